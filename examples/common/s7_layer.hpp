#pragma once

#include <cmath>
#include <type_traits>

#include <ssmkit/args/s7_scan.hpp>
#include <ssmkit/args/s7_scan_backward.hpp>

#include "long_convolution.hpp"

namespace layers {

/// A layer around S7's scan (Soydan et al., "S7: Selective and Simplified State Space Layers for Sequence Modeling",
/// arXiv:2410.03464): projections that make its maps, a skip, a gate with the exact GELU, and a residual.
///
///     x                   = hidden W_inᵀ
///     (A, B, C, D, bias)  = x W_xᵀ, A + base
///     y                   = s7_scan(x; A, B, C, bias) + D x
///     out                 = σ(gelu(y) W_gᵀ) y + hidden
template <class R>
struct s7_weights {
    matrix<R> in_proj;    ///< (dim, dim)
    matrix<R> x_proj;     ///< (2 state + 2 dim state + dim, dim)  rows of A (state), B and C (dim, state), D (dim), bias (state)
    matrix<R> gate_proj;  ///< (dim, dim)
    row<R> base;          ///< (state)

    index dim() const { return in_proj.rows(); }
    index state() const { return base.size(); }
};

/// What the forward pass leaves for the backward pass, tokens in rows.
template <class R>
struct s7_activations {
    matrix<R> x, maps, y, gelu, gate;
};

namespace detail {

/// Where the maps of a token are in its row.
struct s7_columns {
    index dim, state;
    index B() const { return state; }
    index C() const { return state + dim * state; }
    index D() const { return state + 2 * dim * state; }
    index bias() const { return D() + dim; }
};

/// Columns [first, first + dim state) as (batch, length, dim, state).
template <class M>
auto s7_map(M&& maps, const s7_columns& at, index first, index batch)
{
    const auto v = as_view(maps.middleCols(first, at.dim * at.state), batch);
    using element = std::remove_pointer_t<decltype(v.data())>;
    return view<element, 4>{v.data(), {v.extent(0), v.extent(1), at.dim, at.state}, {v.stride(0), v.stride(1), at.state, 1}};
}

template <class R>
ssmkit::s7_scan_args<R> s7_scan_of(const s7_weights<R>& weights, const s7_activations<R>& kept, index batch)
{
    const s7_columns at{weights.dim(), weights.state()};
    return {.u = as_view(kept.x, batch),
            .A = as_view(kept.maps.leftCols(at.state), batch),
            .B = s7_map(kept.maps, at, at.B(), batch),
            .C = s7_map(kept.maps, at, at.C(), batch),
            .bias = as_view(kept.maps.rightCols(at.state), batch)};
}

/// Φ, the normal distribution.
template <class R>
R normal_distribution(R y)
{
    return (1 + std::erf(y / std::sqrt(R(2)))) / 2;
}

}  // namespace detail

/// (tokens, dim) from (tokens, dim), for `batch` sequences of equal length >= 1. `run` runs operations: kernels or references.
template <class R, class Run>
matrix<R> s7_layer(const s7_weights<R>& weights, const matrix<R>& hidden, index batch, const Run& run, s7_activations<R>& kept)
{
    const detail::s7_columns at{weights.dim(), weights.state()};
    kept.x = hidden * weights.in_proj.transpose();
    kept.maps = kept.x * weights.x_proj.transpose();
    kept.maps.leftCols(at.state).rowwise() += weights.base;
    kept.y.resize(hidden.rows(), at.dim);
    auto scan = detail::s7_scan_of(weights, kept, batch);
    scan.y = as_view(kept.y, batch);
    run(scan);
    kept.y += kept.maps.middleCols(at.D(), at.dim).cwiseProduct(kept.x);
    kept.gelu = kept.y.unaryExpr([](R v) { return v * detail::normal_distribution(v); });
    kept.gate = (kept.gelu * weights.gate_proj.transpose()).unaryExpr([](R v) { return 1 / (1 + std::exp(-v)); });
    return kept.gate.cwiseProduct(kept.y) + hidden;
}

template <class R>
struct s7_gradients {
    matrix<R> hidden;
    s7_weights<R> weights;
};

/// The gradients for that of the output.
template <class R, class Run>
s7_gradients<R> s7_layer_backward(const s7_weights<R>& weights, const matrix<R>& hidden, index batch, const matrix<R>& dout,
                                  const Run& run, const s7_activations<R>& kept)
{
    const detail::s7_columns at{weights.dim(), weights.state()};
    const matrix<R> dlogits = (dout.array() * kept.y.array() * kept.gate.array() * (1 - kept.gate.array())).matrix();
    const matrix<R> slope = kept.y.unaryExpr([](R v) {  // of the GELU
        return detail::normal_distribution(v) + v * std::exp(-v * v / 2) / std::sqrt(R(6.283185307179586));
    });
    const matrix<R> dy = dout.cwiseProduct(kept.gate) + (dlogits * weights.gate_proj).cwiseProduct(slope);

    matrix<R> dx(kept.x.rows(), kept.x.cols()), dmaps(kept.maps.rows(), kept.maps.cols());
    run(ssmkit::s7_scan_backward_args<R>{
        .forward = detail::s7_scan_of(weights, kept, batch),
        .dy = as_view(dy, batch),
        .du = as_view(dx, batch),
        .dA = as_view(dmaps.leftCols(at.state), batch),
        .dB = detail::s7_map(dmaps, at, at.B(), batch),
        .dC = detail::s7_map(dmaps, at, at.C(), batch),
        .dbias = as_view(dmaps.rightCols(at.state), batch),
    });
    dmaps.middleCols(at.D(), at.dim) = dy.cwiseProduct(kept.x);
    dx += dy.cwiseProduct(kept.maps.middleCols(at.D(), at.dim)) + dmaps * weights.x_proj;
    return {.hidden = dout + dx * weights.in_proj,
            .weights = {.in_proj = dx.transpose() * hidden,
                        .x_proj = dmaps.transpose() * kept.x,
                        .gate_proj = dlogits.transpose() * kept.gelu,
                        .base = dmaps.leftCols(at.state).colwise().sum()}};
}

}  // namespace layers
