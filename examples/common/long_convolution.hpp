#pragma once

// How layers whose tokens are rows of matrices hand them to fft_conv, which has one kernel or one skip a channel.

#include <utility>

#include <ssmkit/args/fft_conv.hpp>
#include <ssmkit/args/fft_conv_backward.hpp>

#include "matrix.hpp"

namespace layers {

using mamba::as_view;
using mamba::index;
using mamba::matrix;
using mamba::row;
using mamba::view;

namespace detail {

/// Tokens (batch length, dim) as (batch, dim, length).
template <class M>
auto sequences(M&& tokens, index batch)
{
    return as_view(std::forward<M>(tokens), batch).transposed(1, 2);
}

/// The same as the one output channel, (batch, 1, dim, length).
template <class M>
auto channel(M&& tokens, index batch)
{
    return ssmkit::flattened(sequences(std::forward<M>(tokens), batch), 1);
}

/// Kernels (dim, width) as (1, dim, width).
template <class T>
view<T, 3> channel(const view<T, 2>& kernels)
{
    return {kernels.data(), {1, kernels.extent(0), kernels.extent(1)}, {0, kernels.stride(0), kernels.stride(1)}};
}

/// Skips (dim) as (1, dim).
template <class T>
view<T, 2> channel(const view<T, 1>& skips)
{
    return {skips.data(), {1, skips.extent(0)}, {0, skips.stride(0)}};
}

/// x Wᵀ + bias, the bias optional.
template <class R>
matrix<R> project(const matrix<R>& x, const matrix<R>& weight, const row<R>& bias)
{
    matrix<R> y = x * weight.transpose();
    if (bias.size()) y.rowwise() += bias;
    return y;
}

}  // namespace detail
}  // namespace layers
