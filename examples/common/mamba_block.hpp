#pragma once

#include <algorithm>
#include <utility>

#include "mamba_inner.hpp"

namespace mamba {

/// A Mamba-1 block: projection, mamba_inner, projection (Gu & Dao, "Mamba", arXiv:2312.00752, figure 3). The checkpoint
/// stores log(-A) as A_log; dt_proj.bias is delta_bias here, dt_proj.weight delta_proj_weight.
template <class R>
struct block_weights {
    matrix<R> in_proj_weight;  ///< (2 dim, hidden)  rows of x, then of z
    row<R> in_proj_bias;       ///< (2 dim)          optional
    matrix<R> A_log;           ///< (dim, state)
    inner_weights<R> inner;    ///<                  A = -exp(A_log)

    void set_A_log(const matrix<R>& values)
    {
        A_log = values;
        inner.A = -A_log.array().exp();
    }
};

/// What a block carries from token to token while decoding.
template <class R>
struct block_state {
    matrix<R> conv;  ///< (batch dim, width)  the last inputs of the convolution, oldest first
    matrix<R> scan;  ///< (batch dim, state)
};

template <class R>
struct block_activations {
    matrix<R> xz;
    inner_activations<R> inner;
};

/// (tokens, hidden) from (tokens, hidden), for `batch` sequences of equal length >= 1.
template <class R, class Run>
matrix<R> mamba_block(const block_weights<R>& weights, const matrix<R>& hidden, index batch, const Run& run,
                      block_activations<R>& kept)
{
    kept.xz = hidden * weights.in_proj_weight.transpose();
    if (weights.in_proj_bias.size()) kept.xz.rowwise() += weights.in_proj_bias;
    return mamba_inner(weights.inner, kept.xz, batch, run, kept.inner);
}

/// The state after a call of mamba_block: decoding goes on from here.
template <class R>
block_state<R> state_after(const block_weights<R>& weights, const block_activations<R>& kept, index batch)
{
    const index dim = weights.inner.dim(), width = weights.inner.conv1d_weight.cols(), length = kept.xz.rows() / batch;
    const index inputs = std::min(width, length);
    block_state<R> state{.conv = matrix<R>::Zero(batch * dim, width), .scan = kept.inner.final_state};
    for (index b = 0; b < batch; ++b) {
        state.conv.block(b * dim, width - inputs, dim, inputs) =
            kept.xz.block((b + 1) * length - inputs, 0, inputs, dim).transpose();
    }
    return state;
}

/// One token of every sequence: (batch, hidden) from (batch, hidden). The state is updated in place.
template <class R, class Run>
matrix<R> mamba_block_step(const block_weights<R>& weights, const matrix<R>& hidden, block_state<R>& state,
                           const Run& run)
{
    const inner_weights<R>& inner = weights.inner;
    const index batch = hidden.rows(), dim = inner.dim(), rank = inner.rank(), states = inner.A.cols();
    matrix<R> xz = hidden * weights.in_proj_weight.transpose();
    if (weights.in_proj_bias.size()) xz.rowwise() += weights.in_proj_bias;

    matrix<R> u(batch, dim), y(batch, dim);
    run(ssmkit::causal_conv1d_update_args<R>{
        .conv_state = as_view(state.conv, batch),
        .x = as_view(xz.leftCols(dim), batch),
        .weight = as_view(inner.conv1d_weight),
        .bias = detail::given(inner.conv1d_bias),
        .silu = true,
        .y = as_view(u, batch),
    });
    const matrix<R> w = u * inner.x_proj_weight.transpose();
    const matrix<R> delta = w.leftCols(rank) * inner.delta_proj_weight.transpose();
    const auto parameter = [&](const row<R>& values) -> view<const R, 2> {
        if (!values.size()) return {};
        return {values.data(), 1, dim};
    };
    run(ssmkit::selective_state_update_args<R>{
        .h = {state.scan.data(), batch, 1, dim, states},
        .u = as_view(u, batch),
        .delta = as_view(delta, batch),
        .A = {inner.A.data(), 1, dim, states},
        .B = as_view(w.middleCols(rank, states), batch),
        .C = as_view(w.rightCols(states), batch),
        .D = parameter(inner.D),
        .z = as_view(xz.rightCols(dim), batch),
        .delta_bias = parameter(inner.delta_bias),
        .delta_softplus = true,
        .y = as_view(y, batch),
    });
    matrix<R> out = y * inner.out_proj_weight.transpose();
    if (inner.out_proj_bias.size()) out.rowwise() += inner.out_proj_bias;
    return out;
}

template <class R>
struct block_gradients {
    matrix<R> hidden;
    block_weights<R> weights;
};

template <class R, class Run>
block_gradients<R> mamba_block_backward(const block_weights<R>& weights, const matrix<R>& hidden, index batch,
                                        const matrix<R>& dout, const Run& run, block_activations<R>& kept)
{
    inner_gradients<R> inner = mamba_inner_backward(weights.inner, kept.xz, batch, dout, run, kept.inner);
    block_gradients<R> d;
    d.hidden = inner.xz * weights.in_proj_weight;
    d.weights.in_proj_weight = inner.xz.transpose() * hidden;
    if (weights.in_proj_bias.size()) d.weights.in_proj_bias = inner.xz.colwise().sum();
    d.weights.A_log = inner.weights.A.cwiseProduct(weights.inner.A);  // dA / dA_log = -exp(A_log) = A
    d.weights.inner = std::move(inner.weights);
    return d;
}

}  // namespace mamba
