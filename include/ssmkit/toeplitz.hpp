#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include <ssmkit/args/toeplitz.hpp>
#include <ssmkit/fft_conv.hpp>
#include <ssmkit/fft_conv_backward.hpp>

namespace ssmkit {
namespace detail {

/// Rows as the one sequence of a batch, every channel with a kernel of its own.
template <class T>
view<T, 3> as_batch_of_one(const view<T, 2>& rows)
{
    return {rows.data(), {1, rows.extent(0), rows.extent(1)}, {0, rows.stride(0), rows.stride(1)}};
}

template <class T>
fft_conv_args<T> as_convolution(const view<const T, 2>& u, const view<const T, 2>& v, const view<T, 2>& y)
{
    return {.u = as_batch_of_one(u), .k = as_batch_of_one(v), .y = flattened(as_batch_of_one(y), 1)};
}

template <class T>
fft_conv_backward_args<T> as_convolution(const toeplitz_backward_args<T>& a)
{
    fft_conv_backward_args<T> x{.forward = {.u = as_batch_of_one(a.u), .k = as_batch_of_one(a.v)},
                                .dy = flattened(as_batch_of_one(a.dy), 1)};
    if (a.du.data()) x.du = as_batch_of_one(a.du);
    if (a.dv.data()) x.dk = as_batch_of_one(a.dv);
    return x;
}

/// Coefficients of an inverse that come from the recurrence before Newton's steps double them.
inline constexpr index toeplitz_inverse_start = 64;

/// Newton's step from m to at most 2m coefficients: e = g h has 1, 0 ... 0 and then what is wrong; the new ones are -h e there.
template <class T>
struct toeplitz_inverse_step {
    fft_conv_args<T> product, correction;

    toeplitz_inverse_step(const toeplitz_inverse_args<T>& a, index m, T* scratch)
    {
        const index rows = a.g.extent(0), length = a.g.extent(1), next = std::min(2 * m, length);
        const view<T, 2> e(scratch, {rows, next}, {length, 1});
        product = as_convolution<T>(a.g.slice(1, 0, next), a.h.slice(1, 0, m), e);
        correction = as_convolution<T>(e.slice(1, m, next - m), a.h.slice(1, 0, next - m), a.h.slice(1, m, next - m));
    }
};

}  // namespace detail

template <class Arch = xsimd::default_arch, class T>
std::size_t toeplitz_workspace_size(const toeplitz_args<T>& a, std::size_t workers = 1)
{
    return fft_conv_workspace_size<Arch>(detail::as_convolution<T>(a.u, a.v, a.y), workers);
}

/// The causal product: shapes and equation at toeplitz_args; time, accuracy and splitting are those of fft_conv.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void toeplitz(const toeplitz_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    check(a);
    fft_conv<Arch>(detail::as_convolution<T>(a.u, a.v, a.y), lent, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void toeplitz(const toeplitz_args<T>& a, Exec&& exec)
{
    toeplitz<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T>
std::size_t toeplitz_backward_workspace_size(const toeplitz_backward_args<T>& a, std::size_t workers = 1)
{
    return fft_conv_backward_workspace_size<Arch>(detail::as_convolution(a), workers);
}

/// The gradients of the causal product: equations at toeplitz_backward_args.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void toeplitz_backward(const toeplitz_backward_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    check(a);
    fft_conv_backward<Arch>(detail::as_convolution(a), lent, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void toeplitz_backward(const toeplitz_backward_args<T>& a, Exec&& exec)
{
    toeplitz_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T>
std::size_t toeplitz_inverse_workspace_size(const toeplitz_inverse_args<T>& a, std::size_t workers = 1)
{
    using namespace detail;
    const index rows = a.g.extent(0), length = a.g.extent(1);
    std::size_t largest = 0;
    for (index m = toeplitz_inverse_start; m < length; m *= 2) {
        const toeplitz_inverse_step<T> step(a, m, nullptr);
        largest = std::max({largest, fft_conv_workspace_size<Arch>(step.product, workers),
                            fft_conv_workspace_size<Arch>(step.correction, workers)});
    }
    arena sizes;
    sizes.take<T>(length > toeplitz_inverse_start ? static_cast<std::size_t>(rows * length) : 0);
    sizes.take<std::byte>(largest);
    return sizes.size();
}

/// The inverse series: equation at toeplitz_inverse_args. The first 64 coefficients by their recurrence, the others by Newton's
/// iteration, h (2 - g h), whose length doubles (Brent and Kung, "Fast algorithms for manipulating formal power series", 1978).
/// Errors grow with the inverse itself: a g whose inverse grows fast loses what its products do.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void toeplitz_inverse(const toeplitz_inverse_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index rows = a.g.extent(0), length = a.g.extent(1);
    if (rows == 0 || length == 0) return;
    const scratch memory("toeplitz_inverse", lent, toeplitz_inverse_workspace_size<Arch>(a, concurrency(exec)));
    {
        const flush_denormals guard;
        for (index r = 0; r < rows; ++r) {
            const T first = T(1) / a.g(r, 0);
            a.h(r, 0) = first;
            for (index t = 1; t < std::min(length, toeplitz_inverse_start); ++t) {
                T sum = 0;
                for (index m = 1; m <= t; ++m) sum += a.g(r, m) * a.h(r, t - m);
                a.h(r, t) = -first * sum;
            }
        }
    }
    if (length <= toeplitz_inverse_start) return;
    arena all(memory.memory());
    T* const e = all.take<T>(static_cast<std::size_t>(rows * length));
    for (index m = toeplitz_inverse_start; m < length; m *= 2) {
        const toeplitz_inverse_step<T> step(a, m, e);
        const std::size_t need = std::max(fft_conv_workspace_size<Arch>(step.product, concurrency(exec)),
                                          fft_conv_workspace_size<Arch>(step.correction, concurrency(exec)));
        arena rest = all;
        const workspace work(rest.take<std::byte>(need), need);
        fft_conv<Arch>(step.product, work, exec);
        for (index r = 0; r < rows; ++r) {
            for (index t = m; t < std::min(2 * m, length); ++t) e[r * length + t] = -e[r * length + t];
        }
        fft_conv_args<T> correction = step.correction;
        fft_conv<Arch>(correction, work, exec);
    }
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void toeplitz_inverse(const toeplitz_inverse_args<T>& a, Exec&& exec)
{
    toeplitz_inverse<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
