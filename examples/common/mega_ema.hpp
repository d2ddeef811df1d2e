#pragma once

#include <algorithm>
#include <cmath>

#include <ssmkit/args/ema_kernel.hpp>
#include <ssmkit/args/ema_kernel_backward.hpp>

#include "long_convolution.hpp"

namespace layers {

/// Mega's moving average (Ma et al., "Mega: Moving Average Equipped Gated Attention", arXiv:2209.10655, section 3.1; the authors'
/// code for ω and silu), parameters as stored:
///
///     y = silu(K * x + ω x)
///
/// With twice as many kernels as channels, the second half runs backwards from the current token on.
template <class R>
struct mega_weights {
    matrix<R> delta, alpha, beta, gamma;  ///< (kernels, state)
    row<R> omega;                         ///< (dim)

    bool bidirectional() const { return delta.rows() != omega.size(); }
};

template <class R>
struct mega_activations {
    matrix<R> K;       ///< (kernels, taps)
    matrix<R> linear;  ///< (tokens, dim)    before silu
};

namespace detail {

template <class R>
ssmkit::ema_kernel_args<R> mega_kernel(const mega_weights<R>& weights)
{
    return {.delta = as_view(weights.delta), .alpha = as_view(weights.alpha), .beta = as_view(weights.beta), .gamma = as_view(weights.gamma)};
}

/// The rows of one direction; none of the second if there is none.
template <class M>
auto mega_half(M& kernels, index dim, bool second)
{
    using kernels_of = decltype(channel(as_view(kernels.topRows(dim))));
    if (!second) return channel(as_view(kernels.topRows(dim)));
    return kernels.rows() == dim ? kernels_of{} : channel(as_view(kernels.bottomRows(dim)));
}

template <class R>
ssmkit::fft_conv_args<R> mega_convolution(const mega_weights<R>& weights, const matrix<R>& x, index batch, const mega_activations<R>& kept)
{
    return {.u = sequences(x, batch),
            .k = mega_half(kept.K, x.cols(), false),
            .k_reverse = mega_half(kept.K, x.cols(), true),
            .reverse_includes_current = true,
            .D = channel(as_view(weights.omega))};
}

}  // namespace detail

/// (tokens, dim) from (tokens, dim), for `batch` sequences of equal length >= 1, with kernels of at most `truncation` taps, if that
/// is not 0. `run` runs operations: kernels or references.
template <class R, class Run>
matrix<R> mega_ema(const mega_weights<R>& weights, const matrix<R>& x, index batch, index truncation, const Run& run,
                   mega_activations<R>& kept)
{
    const index length = x.rows() / batch;
    kept.K.resize(weights.delta.rows(), truncation ? std::min(length, truncation) : length);
    kept.linear.resize(x.rows(), x.cols());
    auto kernel = detail::mega_kernel(weights);
    kernel.K = as_view(kept.K);
    run(kernel);
    auto convolution = detail::mega_convolution(weights, x, batch, kept);
    convolution.y = detail::channel(kept.linear, batch);
    run(convolution);
    return kept.linear.unaryExpr([](R v) { return v / (1 + std::exp(-v)); });
}

template <class R>
struct mega_gradients {
    matrix<R> x;
    mega_weights<R> weights;
};

/// The gradients for that of y.
template <class R, class Run>
mega_gradients<R> mega_ema_backward(const mega_weights<R>& weights, const matrix<R>& x, index batch, const matrix<R>& dy,
                                    const Run& run, const mega_activations<R>& kept)
{
    mega_gradients<R> g{.x = matrix<R>(x.rows(), x.cols()), .weights = weights};  // weights: for the shapes
    matrix<R> dK(kept.K.rows(), kept.K.cols());
    const matrix<R> dlinear = dy.cwiseProduct(kept.linear.unaryExpr([](R v) {
        const R gate = 1 / (1 + std::exp(-v));
        return gate * (1 + v * (1 - gate));
    }));
    run(ssmkit::fft_conv_backward_args<R>{
        .forward = detail::mega_convolution(weights, x, batch, kept),
        .dy = detail::channel(dlinear, batch),
        .du = detail::sequences(g.x, batch),
        .dk = detail::mega_half(dK, x.cols(), false),
        .dk_reverse = detail::mega_half(dK, x.cols(), true),
        .dD = detail::channel(as_view(g.weights.omega)),
    });
    run(ssmkit::ema_kernel_backward_args<R>{
        .forward = detail::mega_kernel(weights),
        .dK = as_view(std::as_const(dK)),
        .ddelta = as_view(g.weights.delta),
        .dalpha = as_view(g.weights.alpha),
        .dbeta = as_view(g.weights.beta),
        .dgamma = as_view(g.weights.gamma),
    });
    return g;
}

}  // namespace layers
