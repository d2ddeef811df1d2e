#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include "limited_step.hpp"
#include "mamba_split_conv1d_scan.hpp"

namespace mamba {

/// A Mamba-2 block: projection, mamba_split_conv1d_scan, projection (Dao & Gu, "Transformers are SSMs", arXiv:2405.21060,
/// figure 6). The functions are those of mamba_block.hpp. The checkpoint stores log(-A) as A_log and delta_bias as dt_bias.
template <class R>
struct mamba2_block_weights {
    matrix<R> in_proj_weight;  ///< (inner.inputs(), hidden)  rows of mlp, z, x, B, C, delta
    row<R> in_proj_bias{};     ///< (inner.inputs())          optional
    row<R> A_log{};            ///< (nheads)
    split_weights<R> inner;    ///<                           A = -exp(A_log)

    void set_A_log(const row<R>& values)
    {
        A_log = values;
        inner.A = -A_log.array().exp();
    }
};

/// What a block carries from token to token while decoding.
template <class R>
struct mamba2_block_state {
    matrix<R> conv;  ///< (batch (dim + 2 ngroups state), width)  the last inputs of the convolution, oldest first
    matrix<R> scan;  ///< (batch dim, state)
};

template <class R>
struct mamba2_block_activations {
    matrix<R> zxbcdt;
    split_activations<R> inner;
};

/// (tokens, hidden) from (tokens, hidden), for `batch` sequences of equal length >= 1.
template <class R, class Run>
matrix<R> mamba_block(const mamba2_block_weights<R>& weights, const matrix<R>& hidden, index batch, const Run& run,
                      mamba2_block_activations<R>& kept)
{
    kept.zxbcdt = hidden * weights.in_proj_weight.transpose();
    if (weights.in_proj_bias.size()) kept.zxbcdt.rowwise() += weights.in_proj_bias;
    return mamba_split_conv1d_scan(weights.inner, kept.zxbcdt, {.batch = batch}, run, kept.inner);
}

/// The state after a call of mamba_block: decoding goes on from here.
template <class R>
mamba2_block_state<R> state_after(const mamba2_block_weights<R>& weights, const mamba2_block_activations<R>& kept, index batch)
{
    const auto inputs = detail::conv_inputs_of(weights.inner, kept.zxbcdt);
    const index channels = inputs.cols(), width = weights.inner.conv1d_weight.cols(), length = inputs.rows() / batch;
    const index last = std::min(width, length);
    mamba2_block_state<R> state{.conv = matrix<R>::Zero(batch * channels, width), .scan = kept.inner.final_state};
    for (index b = 0; b < batch; ++b) {
        state.conv.block(b * channels, width - last, channels, last) =
            inputs.middleRows((b + 1) * length - last, last).transpose();
    }
    return state;
}

/// One token of every sequence: (batch, hidden) from (batch, hidden). The state is updated in place.
template <class R, class Run>
matrix<R> mamba_block_step(const mamba2_block_weights<R>& weights, const matrix<R>& hidden, mamba2_block_state<R>& state,
                           const Run& run)
{
    const split_weights<R>& inner = weights.inner;
    const index batch = hidden.rows(), nheads = inner.nheads(), headdim = inner.headdim;
    matrix<R> zxbcdt = hidden * weights.in_proj_weight.transpose();
    if (weights.in_proj_bias.size()) zxbcdt.rowwise() += weights.in_proj_bias;

    split_activations<R> kept;
    kept.xBC.resize(batch, inner.channels());
    run(ssmkit::causal_conv1d_update_args<R>{
        .conv_state = as_view(state.conv, batch),
        .x = as_view(detail::conv_inputs_of(inner, zxbcdt), batch),
        .weight = as_view(inner.conv1d_weight),
        .bias = detail::given(inner.conv1d_bias),
        .silu = true,
        .y = as_view(kept.xBC, batch),
    });

    auto delta = detail::delta_of(inner, zxbcdt);
    const bool limited = inner.delta_min > 0 || inner.delta_max < std::numeric_limits<R>::infinity();
    if (limited) {
        if (inner.delta_bias.size()) delta.rowwise() += inner.delta_bias;
        delta = delta.unaryExpr([&](R r) { return limited_step(r, inner.delta_min, inner.delta_max); }).eval();
    }

    // one token a row: (batch, 1, count, each) without its second axis
    const auto split = [&](const auto& v, index count) { return detail::split(v, count).transposed(0, 1)[0]; };
    run(ssmkit::selective_state_update_args<R>{
        .h = detail::states(inner, state.scan, batch),
        .u = split(as_view(detail::x_of(inner, kept.xBC), batch), nheads),
        .delta = ssmkit::tied_over_head(as_view(delta), headdim),
        .A = ssmkit::tied_over_head(as_view(inner.A), headdim, inner.state()),
        .B = split(as_view(detail::B_of(inner, kept.xBC), batch), inner.ngroups),
        .C = split(as_view(detail::C_of(inner, kept.xBC), batch), inner.ngroups),
        .D = detail::per_channel(inner, inner.D),
        .z = inner.norm_weight.size() ? view<const R, 3>{} : split(as_view(detail::gate_of(inner, zxbcdt), batch), nheads),
        .delta_bias = limited ? view<const R, 2>{} : detail::per_channel(inner, inner.delta_bias),
        .delta_softplus = !limited,
        .y = split(detail::scanned(inner, kept, batch, batch), nheads),
    });
    return detail::project_out(inner, zxbcdt, run, kept);
}

template <class R>
struct mamba2_block_gradients {
    matrix<R> hidden;
    mamba2_block_weights<R> weights;
};

template <class R, class Run>
mamba2_block_gradients<R> mamba_block_backward(const mamba2_block_weights<R>& weights, const matrix<R>& hidden, index batch,
                                               const matrix<R>& dout, const Run& run, const mamba2_block_activations<R>& kept)
{
    split_gradients<R> inner =
        mamba_split_conv1d_scan_backward(weights.inner, kept.zxbcdt, {.batch = batch}, dout, run, kept.inner);
    mamba2_block_gradients<R> d;
    d.hidden = inner.zxbcdt * weights.in_proj_weight;
    d.weights.in_proj_weight = inner.zxbcdt.transpose() * hidden;
    if (weights.in_proj_bias.size()) d.weights.in_proj_bias = inner.zxbcdt.colwise().sum();
    d.weights.A_log = inner.weights.A.cwiseProduct(weights.inner.A);  // dA / dA_log = -exp(A_log) = A
    d.weights.inner = std::move(inner.weights);
    return d;
}

}  // namespace mamba
