#pragma once

#include "matrix.hpp"
#include "operations.hpp"

namespace mamba {

/// Everything between the two outer projections of a Mamba block, and the second of them: Gu & Dao, "Mamba",
/// arXiv:2312.00752, algorithm 2 and figure 3. R is float or double, Param that or std::complex of it.
///
///     x, z     = xz                                              (tokens, 2 dim)
///     u        = silu(conv1d(x))
///     w        = u x_proj^T                                      (tokens, rank + n_B + n_C)
///     delta    = (first `rank` columns of w) delta_proj^T
///     B, C     = the others + biases, or constant
///     y        = selective_scan(u, delta, A, B, C, D, z)         with softplus
///     out      = y out_proj^T + bias
///
/// Rows of a complex B_t are stored in w as re, im, re, im, ...: n_B = 2 state.
template <class R, class Param = R>
struct inner_weights {
    matrix<R> conv1d_weight;           ///< (dim, width)
    row<R> conv1d_bias;                ///< (dim)          optional: empty
    matrix<R> x_proj_weight;           ///< (rank + n_B + n_C, dim)
    matrix<R> delta_proj_weight;       ///< (dim, rank)
    matrix<R> out_proj_weight;         ///< (out, dim)
    row<R> out_proj_bias;              ///< (out)          optional
    matrix<Param> A;                   ///< (dim, state)
    matrix<Param> B, C;                ///< (dim, state)   constant; empty: they vary with the token
    row<R> B_proj_bias, C_proj_bias;   ///< (n_B), (n_C)   optional
    row<R> D, delta_bias;              ///< (dim)          optional

    index dim() const { return A.rows(); }
    index rank() const { return delta_proj_weight.cols(); }
};

/// What the forward pass leaves for the backward pass.
template <class R, class Param = R>
struct inner_activations {
    matrix<R> u, w, delta, y;
    matrix<Param> B, C;         ///< (tokens, state) where they vary
    matrix<Param> final_state;  ///< (batch dim, state)
};

namespace detail {

/// The same memory seen as real numbers: two columns for a complex one.
template <class R, class Param>
auto as_real(matrix<Param>& m)
{
    return Eigen::Map<matrix<R>>(reinterpret_cast<R*>(m.data()), m.rows(), m.cols() * index(sizeof(Param) / sizeof(R)));
}

/// (batch, length, state) as (batch, length, 1 group, state).
template <class T>
view<T, 4> grouped(const view<T, 3>& v)
{
    return {v.data(), {v.extent(0), v.extent(1), 1, v.extent(2)}, {v.stride(0), v.stride(1), v.stride(1), v.stride(2)}};
}

template <class R, class Param>
ssmkit::causal_conv1d_args<R> conv_args(const inner_weights<R, Param>& weights, const matrix<R>& xz, index batch)
{
    return {.x = as_view(xz.leftCols(weights.dim()), batch),
            .weight = as_view(weights.conv1d_weight),
            .bias = given(weights.conv1d_bias),
            .silu = true};
}

template <class R, class Param>
ssmkit::selective_scan_args<R, Param> scan_args(const inner_weights<R, Param>& weights, const matrix<R>& xz,
                                                index batch, const inner_activations<R, Param>& kept)
{
    const auto coefficient = [&](const matrix<Param>& constant, const matrix<Param>& varying) -> view<const Param, 4> {
        if (constant.size()) return constant_over_time(as_view(constant), batch, xz.rows() / batch);
        return grouped(as_view(varying, batch));
    };
    return {.u = as_view(kept.u, batch),
            .delta = as_view(kept.delta, batch),
            .A = as_view(weights.A),
            .B = coefficient(weights.B, kept.B),
            .C = coefficient(weights.C, kept.C),
            .D = given(weights.D),
            .z = as_view(xz.rightCols(weights.dim()), batch),
            .delta_bias = given(weights.delta_bias),
            .delta_softplus = true};
}

}  // namespace detail

/// (tokens, out) from (tokens, 2 dim), for `batch` sequences of equal length >= 1. `run` is kernels or references.
template <class R, class Param, class Run>
matrix<R> mamba_inner(const inner_weights<R, Param>& weights, const matrix<R>& xz, index batch, const Run& run,
                      inner_activations<R, Param>& kept)
{
    const index tokens = xz.rows(), dim = weights.dim(), state = weights.A.cols();
    kept.u.resize(tokens, dim);
    auto conv = detail::conv_args(weights, xz, batch);
    conv.y = as_view(kept.u, batch);
    run(conv);

    kept.w = kept.u * weights.x_proj_weight.transpose();
    kept.delta = kept.w.leftCols(weights.rank()) * weights.delta_proj_weight.transpose();
    index column = weights.rank();
    const auto take = [&](const matrix<Param>& constant, matrix<Param>& varying, const row<R>& bias) {
        if (constant.size()) return;
        varying.resize(tokens, state);
        auto numbers = detail::as_real<R>(varying);
        numbers = kept.w.middleCols(column, numbers.cols());
        if (bias.size()) numbers.rowwise() += bias;
        column += numbers.cols();
    };
    take(weights.B, kept.B, weights.B_proj_bias);
    take(weights.C, kept.C, weights.C_proj_bias);

    kept.y.resize(tokens, dim);
    kept.final_state.resize(batch * dim, state);
    auto scan = detail::scan_args(weights, xz, batch, kept);
    scan.y = as_view(kept.y, batch);
    scan.final_state = as_view(kept.final_state, batch);
    run(scan);

    matrix<R> out = kept.y * weights.out_proj_weight.transpose();
    if (weights.out_proj_bias.size()) out.rowwise() += weights.out_proj_bias;
    return out;
}

template <class R, class Param = R>
struct inner_gradients {
    matrix<R> xz;
    inner_weights<R, Param> weights;
};

/// The gradients for that of `out`: the chain backwards, operation by operation.
template <class R, class Param, class Run>
inner_gradients<R, Param> mamba_inner_backward(const inner_weights<R, Param>& weights, const matrix<R>& xz, index batch,
                                               const matrix<R>& dout, const Run& run,
                                               inner_activations<R, Param>& kept)
{
    const index tokens = xz.rows(), dim = weights.dim(), rank = weights.rank(), state = weights.A.cols();
    inner_gradients<R, Param> d{.xz = matrix<R>(tokens, 2 * dim), .weights = weights};  // weights: for the shapes

    d.weights.out_proj_weight = dout.transpose() * kept.y;
    if (weights.out_proj_bias.size()) d.weights.out_proj_bias = dout.colwise().sum();
    const matrix<R> dy = dout * weights.out_proj_weight;

    matrix<R> du(tokens, dim), ddelta(tokens, dim);
    matrix<Param> dB(tokens, state), dC(tokens, state);
    const auto gradient = [&](matrix<Param>& constant, matrix<Param>& varying) -> view<Param, 4> {
        if (constant.size()) return summed_over_time(as_view(constant), batch, tokens / batch);
        return detail::grouped(as_view(varying, batch));
    };
    run(ssmkit::selective_scan_backward_args<R, Param>{
        .forward = detail::scan_args(weights, xz, batch, kept),
        .dy = as_view(dy, batch),
        .du = as_view(du, batch),
        .ddelta = as_view(ddelta, batch),
        .dz = as_view(d.xz.rightCols(dim), batch),
        .dA = as_view(d.weights.A),
        .dB = gradient(d.weights.B, dB),
        .dC = gradient(d.weights.C, dC),
        .dD = weights.D.size() ? as_view(d.weights.D) : view<R, 1>{},
        .ddelta_bias = weights.delta_bias.size() ? as_view(d.weights.delta_bias) : view<R, 1>{},
    });

    matrix<R> dw(tokens, kept.w.cols());
    dw.leftCols(rank) = ddelta * weights.delta_proj_weight;
    d.weights.delta_proj_weight = ddelta.transpose() * kept.w.leftCols(rank);
    index column = rank;
    const auto put = [&](const matrix<Param>& constant, matrix<Param>& varying, row<R>& dbias) {
        if (constant.size()) return;
        const auto numbers = detail::as_real<R>(varying);
        dw.middleCols(column, numbers.cols()) = numbers;
        if (dbias.size()) dbias = numbers.colwise().sum();
        column += numbers.cols();
    };
    put(weights.B, dB, d.weights.B_proj_bias);
    put(weights.C, dC, d.weights.C_proj_bias);
    d.weights.x_proj_weight = dw.transpose() * kept.u;
    du += dw * weights.x_proj_weight;

    run(ssmkit::causal_conv1d_backward_args<R>{
        .forward = detail::conv_args(weights, xz, batch),
        .dy = as_view(du, batch),
        .dx = as_view(d.xz.leftCols(dim), batch),
        .dweight = as_view(d.weights.conv1d_weight),
        .dbias = weights.conv1d_bias.size() ? as_view(d.weights.conv1d_bias) : view<R, 1>{},
    });
    return d;
}

}  // namespace mamba
