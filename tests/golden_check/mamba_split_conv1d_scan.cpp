#include <cstdint>
#include <stdexcept>
#include <string>

#include <common/mamba_split_conv1d_scan.hpp>

#include "limits.hpp"
#include "matrices.hpp"

namespace {

using golden::hand_in, golden::index, golden::matrix_of, golden::problem, golden::row_of;

/// D, (nheads) or (nheads, headdim).
template <class R>
mamba::row<R> skip(problem& p)
{
    if (!p.has("D") || p.shape("D").size() == 1) return row_of<R>(p, "D");
    return matrix_of<R>(p, "D", 0, 1).template reshaped<Eigen::RowMajor>().transpose();
}

// The composition computes in float and double: bfloat16 means its exact inputs in float.
const golden::handler split_handler("mamba_split_conv1d_scan", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;
    // What a chunk is changes rounding only; shapes tell the rest.
    p.descriptive("chunk_size", "dstate", "width", "D", "has_outproj_bias", "has_initial_states", "has_seq_idx");
    const auto [low, high] = golden::limits(p.flag<nlohmann::json>("dt_limit", {0.0, "inf"}));
    const mamba::split_weights<R> weights{
        .conv1d_weight = matrix_of<R>(p, "conv1d_weight", 0, 1),
        .conv1d_bias = row_of<R>(p, "conv1d_bias"),
        .A = row_of<R>(p, "A"),
        .D = skip<R>(p),
        .delta_bias = row_of<R>(p, "dt_bias"),
        .norm_weight = row_of<R>(p, "rmsnorm_weight"),
        .out_proj_weight = matrix_of<R>(p, "outproj_weight", 0, 1),
        .out_proj_bias = row_of<R>(p, "outproj_bias"),
        .headdim = p.flag<index>("headdim"),
        .ngroups = p.flag<index>("ngroups", 1),
        .delta_min = static_cast<R>(low),
        .delta_max = static_cast<R>(high),
        .norm_eps = static_cast<R>(p.flag<double>("rmsnorm_eps", 1e-5)),
        .norm_before_gate = p.flag<bool>("norm_before_gate", true),
    };
    const auto zxbcdt = p.input<R>("zxbcdt", 0, 1, 2);
    if (p.flag<index>("nheads", weights.nheads()) != weights.nheads() || weights.inputs() != zxbcdt.extent(2) ||
        p.flag<bool>("has_rmsnorm", weights.norm_weight.size() != 0) != (weights.norm_weight.size() != 0)) {
        throw std::runtime_error("the flags do not fit the tensors");
    }
    if (p.flag<std::string>("activation", "silu") != "silu") throw golden::unknown("the activation is not silu");
    const index group = weights.dim() / weights.ngroups;
    if (p.flag<index>("rmsnorm_group_size", group) != group) throw golden::unknown("the norm's groups are not those of B");
    const auto seq_idx = p.input<std::int32_t>("seq_idx", 0, 1);
    const mamba::split_sequences<R> sequences{.batch = zxbcdt.extent(0),
                                              .initial_state = golden::states_of<R>(p, "initial_states"),
                                              .seq_idx = ssmkit::as_eigen(seq_idx)};
    const mamba::matrix<R> input = golden::tokens_of(zxbcdt);
    const auto operations = p.operations();
    mamba::split_activations<R> kept;
    hand_in(p.output<R>("out", 0, 1, 2), mamba_split_conv1d_scan(weights, input, sequences, operations, kept));
    golden::hand_in_states(p, "final_states", kept.final_state);
    if (!p.has("dout")) return;
    const mamba::matrix<R> dout = golden::tokens_of(p.input<R>("dout", 0, 1, 2));
    const auto d = mamba_split_conv1d_scan_backward(weights, input, sequences, dout, operations, kept,
                                                    golden::states_of<R>(p, "dfinal_states"));
    hand_in(p.output<R>("dzxbcdt", 0, 1, 2), d.zxbcdt);
    hand_in(p.output<R>("dconv1d_weight", 0, 1), d.weights.conv1d_weight);
    hand_in(p.output<R>("dconv1d_bias", 0), d.weights.conv1d_bias);
    hand_in(p.output<R>("ddt_bias", 0), d.weights.delta_bias);
    hand_in(p.output<R>("dA", 0), d.weights.A);
    if (p.has("dD") && p.shape("dD").size() == 2) {
        const mamba::matrix<R> dD = d.weights.D.template reshaped<Eigen::RowMajor>(weights.nheads(), weights.headdim);
        hand_in(p.output<R>("dD", 0, 1), dD);
    } else {
        hand_in(p.output<R>("dD", 0), d.weights.D);
    }
    hand_in(p.output<R>("drmsnorm_weight", 0), d.weights.norm_weight);
    hand_in(p.output<R>("doutproj_weight", 0, 1), d.weights.out_proj_weight);
    hand_in(p.output<R>("doutproj_bias", 0), d.weights.out_proj_bias);
    golden::hand_in_states(p, "dinitial_states", d.initial_state);
});

}  // namespace
