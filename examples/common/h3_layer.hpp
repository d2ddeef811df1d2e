#pragma once

#include "long_convolution.hpp"

namespace layers {

/// H3 without its output projection (Fu et al., "Hungry Hungry Hippos", arXiv:2212.14052, algorithm 1; the authors' code has the
/// outputs' channels transposed). Channel h headdim + i is the i-th of head h:
///
///     q, k, v = u Wᵀ + b
///     k       ← shift * k + D_shift k
///     s_ij    = diag_h * (k_i v_j) + D_diag k_i v_j
///     y_j,h   = Σ_i q_i s_ij                          at channel j heads + h
///
/// The products k_i v_j are the gated convolution of fft_conv, a call for every pair (i, j), whose output gate is q_i. The kernels
/// come from a shift SSM (shift_kernel) and from S4D (s4d_kernel).
template <class R>
struct h3_weights {
    matrix<R> q_proj, k_proj, v_proj;  ///< (dim, dim)
    row<R> q_bias, k_bias, v_bias;     ///< (dim)          optional: empty
    matrix<R> shift_kernel;            ///< (dim, width)
    row<R> shift_D;                    ///< (dim)
    matrix<R> diag_kernel;             ///< (heads, width)
    row<R> diag_D;                     ///< (heads)

    index heads() const { return diag_kernel.rows(); }
    index headdim() const { return q_proj.rows() / heads(); }
};

/// What the forward pass leaves for the backward pass, each (tokens, dim).
template <class R>
struct h3_activations {
    matrix<R> q, k_before, k, v;
};

namespace detail {

/// The i-th channel of every head, (batch, heads, length).
template <class M>
auto of_heads(M&& tokens, index batch, index i, index heads)
{
    auto v = sequences(std::forward<M>(tokens), batch);
    return decltype(v){v.pointer(0, i), {batch, heads, v.extent(2)}, {v.stride(0), v.stride(1) * (v.extent(1) / heads), v.stride(2)}};
}

template <class R>
ssmkit::fft_conv_args<R> h3_shift(const h3_weights<R>& weights, const h3_activations<R>& kept, index batch)
{
    return {.u = sequences(kept.k_before, batch),
            .k = channel(as_view(weights.shift_kernel)),
            .D = channel(as_view(weights.shift_D))};
}

template <class R>
ssmkit::fft_conv_args<R> h3_pair(const h3_weights<R>& weights, const h3_activations<R>& kept, index batch, index i, index j)
{
    const index heads = weights.heads();
    return {.u = of_heads(kept.k, batch, i, heads),
            .k = channel(as_view(weights.diag_kernel)),
            .D = channel(as_view(weights.diag_D)),
            .input_gate = of_heads(kept.v, batch, j, heads),
            .output_gate = of_heads(kept.q, batch, i, heads)};
}

}  // namespace detail

/// (tokens, dim) from (tokens, dim), for `batch` sequences of equal length >= 1. `run` runs operations: kernels or references.
template <class R, class Run>
matrix<R> h3_layer(const h3_weights<R>& weights, const matrix<R>& u, index batch, const Run& run, h3_activations<R>& kept)
{
    kept.q = detail::project(u, weights.q_proj, weights.q_bias);
    kept.k_before = detail::project(u, weights.k_proj, weights.k_bias);
    kept.v = detail::project(u, weights.v_proj, weights.v_bias);
    kept.k.resize(u.rows(), u.cols());
    auto shift = detail::h3_shift(weights, kept, batch);
    shift.y = detail::channel(kept.k, batch);
    run(shift);

    const index heads = weights.heads();
    matrix<R> out = matrix<R>::Zero(u.rows(), u.cols()), part(u.rows(), heads);
    for (index j = 0; j < weights.headdim(); ++j) {
        for (index i = 0; i < weights.headdim(); ++i) {
            auto pair = detail::h3_pair(weights, kept, batch, i, j);
            pair.y = detail::channel(part, batch);
            run(pair);
            out.middleCols(j * heads, heads) += part;
        }
    }
    return out;
}

template <class R>
struct h3_gradients {
    matrix<R> u;
    h3_weights<R> weights;
};

/// The gradients for that of the output.
template <class R, class Run>
h3_gradients<R> h3_layer_backward(const h3_weights<R>& weights, const matrix<R>& u, index batch, const matrix<R>& dout,
                                  const Run& run, const h3_activations<R>& kept)
{
    const index heads = weights.heads(), d = weights.headdim(), width = weights.diag_kernel.cols();
    h3_gradients<R> g{.u = matrix<R>::Zero(u.rows(), u.cols()), .weights = weights};  // weights: for the shapes
    g.weights.diag_kernel.setZero();
    g.weights.diag_D.setZero();
    matrix<R> dq = matrix<R>::Zero(u.rows(), u.cols()), dk = dq, dv = dq;
    matrix<R> of_q(u.rows(), heads), of_k = of_q, of_v = of_q, taps(heads, width);
    row<R> skips(heads);
    for (index i = 0; i < d; ++i) {
        for (index j = 0; j < d; ++j) {
            run(ssmkit::fft_conv_backward_args<R>{
                .forward = detail::h3_pair(weights, kept, batch, i, j),
                .dy = detail::channel(dout.middleCols(j * heads, heads), batch),
                .du = detail::sequences(of_k, batch),
                .dk = detail::channel(as_view(taps)),
                .dD = detail::channel(as_view(skips)),
                .dinput_gate = detail::sequences(of_v, batch),
                .doutput_gate = detail::sequences(of_q, batch),
            });
            for (index h = 0; h < heads; ++h) {
                dq.col(h * d + i) += of_q.col(h);
                dk.col(h * d + i) += of_k.col(h);
                dv.col(h * d + j) += of_v.col(h);
            }
            g.weights.diag_kernel += taps;
            g.weights.diag_D += skips;
        }
    }
    matrix<R> dk_before(u.rows(), u.cols());
    run(ssmkit::fft_conv_backward_args<R>{
        .forward = detail::h3_shift(weights, kept, batch),
        .dy = detail::channel(std::as_const(dk), batch),
        .du = detail::sequences(dk_before, batch),
        .dk = detail::channel(as_view(g.weights.shift_kernel)),
        .dD = detail::channel(as_view(g.weights.shift_D)),
    });
    const auto project_back = [&](const matrix<R>& gradient, const matrix<R>& weight, matrix<R>& dweight, row<R>& dbias) {
        g.u += gradient * weight;
        dweight = gradient.transpose() * u;
        if (dbias.size()) dbias = gradient.colwise().sum();
    };
    project_back(dq, weights.q_proj, g.weights.q_proj, g.weights.q_bias);
    project_back(dk_before, weights.k_proj, g.weights.k_proj, g.weights.k_bias);
    project_back(dv, weights.v_proj, g.weights.v_proj, g.weights.v_bias);
    return g;
}

}  // namespace layers
