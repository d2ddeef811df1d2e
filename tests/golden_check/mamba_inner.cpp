#include <complex>

#include <common/mamba_inner.hpp>

#include "matrices.hpp"

namespace {

using golden::hand_in, golden::index, golden::matrix_of, golden::problem, golden::row_of, golden::without_middle;

template <class R, class Param>
void run(problem& p)
{
    const auto xz = p.input<R>("xz", 0, 2, 1);  // (batch, length, 2 dim)
    const index batch = xz.extent(0), rank = p.shape("delta_proj_weight").at(1);
    const mamba::matrix<R> input = golden::tokens_of(xz);
    const mamba::inner_weights<R, Param> weights{
        .conv1d_weight = matrix_of<R>(p, "conv1d_weight", 0, 1, 2),
        .conv1d_bias = row_of<R>(p, "conv1d_bias"),
        .x_proj_weight = matrix_of<R>(p, "x_proj_weight", 0, 1),
        .delta_proj_weight = matrix_of<R>(p, "delta_proj_weight", 0, 1),
        .out_proj_weight = matrix_of<R>(p, "out_proj_weight", 0, 1),
        .out_proj_bias = row_of<R>(p, "out_proj_bias"),
        .A = matrix_of<Param>(p, "A", 0, 1),
        .B = matrix_of<Param>(p, "B", 0, 1),
        .C = matrix_of<Param>(p, "C", 0, 1),
        .B_proj_bias = row_of<R>(p, "B_proj_bias"),
        .C_proj_bias = row_of<R>(p, "C_proj_bias"),
        .D = row_of<R>(p, "D"),
        .delta_bias = row_of<R>(p, "delta_bias"),
    };
    if (weights.rank() != rank || p.flag<bool>("variable_B", true) == p.has("B") ||
        p.flag<bool>("variable_C", true) == p.has("C") || !p.flag<bool>("delta_softplus", true)) {
        throw std::runtime_error("the flags do not fit the tensors");
    }
    const auto operations = p.operations();
    mamba::inner_activations<R, Param> kept;
    hand_in(p.output<R>("out", 0, 1, 2), mamba_inner(weights, input, batch, operations, kept));
    if (!p.has("dout")) return;
    const mamba::matrix<R> dout = golden::tokens_of(p.input<R>("dout", 0, 1, 2));
    const auto d = mamba_inner_backward(weights, input, batch, dout, operations, kept);
    hand_in(p.output<R>("dxz", 0, 2, 1), d.xz);
    hand_in(without_middle(p.output<R>("dconv1d_weight", 0, 1, 2)), d.weights.conv1d_weight);
    hand_in(p.output<R>("dconv1d_bias", 0), d.weights.conv1d_bias);
    hand_in(p.output<R>("dx_proj_weight", 0, 1), d.weights.x_proj_weight);
    hand_in(p.output<R>("ddelta_proj_weight", 0, 1), d.weights.delta_proj_weight);
    hand_in(p.output<R>("dout_proj_weight", 0, 1), d.weights.out_proj_weight);
    hand_in(p.output<R>("dout_proj_bias", 0), d.weights.out_proj_bias);
    hand_in(p.output<Param>("dA", 0, 1), d.weights.A);
    hand_in(p.output<Param>("dB", 0, 1), d.weights.B);
    hand_in(p.output<Param>("dC", 0, 1), d.weights.C);
    hand_in(p.output<R>("dB_proj_bias", 0), d.weights.B_proj_bias);
    hand_in(p.output<R>("dC_proj_bias", 0), d.weights.C_proj_bias);
    hand_in(p.output<R>("dD", 0), d.weights.D);
    hand_in(p.output<R>("ddelta_bias", 0), d.weights.delta_bias);
}

// The composition computes in float and double: bfloat16 means its exact inputs in float.
const golden::handler mamba_inner_handler("mamba_inner", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("dt_rank", "dstate", "width");
    p.flag<bool>("complex_A", false) ? run<real, std::complex<real>>(p) : run<real, real>(p);
});

}  // namespace
