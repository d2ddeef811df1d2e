#pragma once

#include <complex>

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/args/s4d_kernel_backward.hpp>

#include "long_convolution.hpp"

namespace layers {

/// The state space part of GSS, a DSS on normalised inputs (Mehta et al., "Long Range Language Modeling via Gated State Spaces",
/// arXiv:2206.13947, section 3.2): poles that all channels share, the zero-order hold with Δ = 1, no conjugate partners.
///
///     K_h = Re Σ_n C_hn (e^A_n - 1) / A_n e^(l A_n),   y = K * u + D u
template <class R>
struct gss_weights {
    row<std::complex<double>> A;  ///< (state)       Re A < 0; stored as -e^Lambda_real + i e^Lambda_imag
    matrix<std::complex<R>> C;    ///< (dim, state)
    row<R> D;                     ///< (dim)
    // What the kernel takes beside these, here because a device cannot read a program's constants.
    double delta = 1;
    std::complex<R> B = 1;
};

template <class R>
struct gss_activations {
    matrix<R> K;  ///< (dim, length)
};

namespace detail {

template <class R>
ssmkit::s4d_kernel_args<R> gss_kernel(const gss_weights<R>& weights)
{
    const index dim = weights.C.rows(), state = weights.C.cols();
    return {.delta = {&weights.delta, {dim, state}, {0, 0}},
            .A = {weights.A.data(), 1, state},
            .B = {&weights.B, {1, state}, {0, 0}},
            .C = channel(as_view(weights.C)),
            .conjugate_pairs = false};
}

template <class R>
ssmkit::fft_conv_args<R> gss_convolution(const gss_weights<R>& weights, const matrix<R>& u, index batch, const gss_activations<R>& kept)
{
    return {.u = sequences(u, batch), .k = channel(as_view(kept.K)), .D = channel(as_view(weights.D))};
}

}  // namespace detail

/// (tokens, dim) from (tokens, dim), for `batch` sequences of equal length >= 1. `run` runs operations: kernels or references.
template <class R, class Run>
matrix<R> gss_dss(const gss_weights<R>& weights, const matrix<R>& u, index batch, const Run& run, gss_activations<R>& kept)
{
    kept.K.resize(u.cols(), u.rows() / batch);
    auto kernel = detail::gss_kernel(weights);
    kernel.K = detail::channel(as_view(kept.K));
    run(kernel);
    matrix<R> y(u.rows(), u.cols());
    auto convolution = detail::gss_convolution(weights, u, batch, kept);
    convolution.y = detail::channel(y, batch);
    run(convolution);
    return y;
}

template <class R>
struct gss_gradients {
    matrix<R> u;
    gss_weights<R> weights;
};

/// The gradients for that of y.
template <class R, class Run>
gss_gradients<R> gss_dss_backward(const gss_weights<R>& weights, const matrix<R>& u, index batch, const matrix<R>& dy, const Run& run,
                                  const gss_activations<R>& kept)
{
    gss_gradients<R> g{.u = matrix<R>(u.rows(), u.cols()), .weights = weights};  // weights: for the shapes
    matrix<R> dK(kept.K.rows(), kept.K.cols());
    run(ssmkit::fft_conv_backward_args<R>{
        .forward = detail::gss_convolution(weights, u, batch, kept),
        .dy = detail::channel(dy, batch),
        .du = detail::sequences(g.u, batch),
        .dk = detail::channel(as_view(dK)),
        .dD = detail::channel(as_view(g.weights.D)),
    });
    run(ssmkit::s4d_kernel_backward_args<R>{
        .forward = detail::gss_kernel(weights),
        .dK = detail::channel(as_view(std::as_const(dK))),
        .dA = {g.weights.A.data(), 1, g.weights.A.size()},
        .dC = detail::channel(as_view(g.weights.C)),
    });
    return g;
}

}  // namespace layers
