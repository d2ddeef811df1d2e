#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <utility>

#include <ssmkit/args/long_conv_kernel.hpp>
#include <ssmkit/detail/real_fft.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// Smoothing in frequency takes transforms of `lanes` rows at a time, otherwise a row is a task's.
template <class T, class Arch>
struct long_conv_smoother {
    static constexpr index n = lanes<T, Arch>, record = 2 * n;

    index length, out, half;
    real_fft<T> from, to;  // of the kernel's length and of K's

    long_conv_smoother(const long_conv_kernel_args<T>& a, arena& memory)
        : length(a.kernel.extent(2)), out(long_conv_length(a)), half(a.window / 2), from(length, memory), to(out, memory)
    {
    }

    index bins() const { return length / 2 + 1; }

    /// Records of rows, two of spectra, and what transforms work in.
    index scratch_size() const
    {
        return n * (length + 1) + 2 * record * bins() + std::max(from.template work_size<Arch>(), to.template work_size<Arch>());
    }

    struct parts {
        T *rows, *X, *Y, *work;
    };

    parts split(T* scratch) const
    {
        T *const X = scratch + n * (length + 1), *const Y = X + record * bins();
        return {scratch, X, Y, Y + record * bins()};
    }

    /// Y_k = Σ_d exp(-d² / 2) X_{k+d}; its own transpose.
    void mix(const T* X, T* Y) const
    {
        using number = complex_lanes<vec<T, Arch>>;
        for (index k = 0; k < bins(); ++k) {
            number sum{vec<T, Arch>(T(0)), vec<T, Arch>(T(0))};
            const index reach = std::min<index>(half, 15);  // exp(-128) of a number is below its last digit, in double too
            for (index d = std::max(-reach, -k); d <= std::min(reach, bins() - 1 - k); ++d) {
                const T weight = static_cast<T>(std::exp(-0.5 * static_cast<double>(d * d)));
                sum = sum + number::load(X + record * (k + d)).scaled(vec<T, Arch>(weight));
            }
            sum.store(Y + record * k);
        }
    }

    /// `length` registers at rows become `out` registers at the address returned.
    const T* forward(const parts& p) const
    {
        from.template forward<Arch>(p.rows, p.X, p.work);
        mix(p.X, p.Y);
        return to.template inverse<Arch>(p.Y, p.work);
    }

    /// The transpose: `out` registers at rows become `length`. That of a transform back is one forth with the bins' weights
    /// m_k / n, m_k = 1 at the ends and 2 between; that of one forth, a transform back with the inverse of its own.
    const T* transposed(const parts& p) const
    {
        using number = complex_lanes<vec<T, Arch>>;
        to.template forward<Arch>(p.rows, p.X, p.work);
        const auto weigh = [&](T* X, index size, bool inverse) {
            for (index k = 0; k < bins(); ++k) {
                const T weight = (k == 0 || 2 * k == size ? T(1) : T(2)) / static_cast<T>(size);
                number::load(X + record * k).scaled(vec<T, Arch>(inverse ? T(1) / weight : weight)).store(X + record * k);
            }
        };
        weigh(p.X, out, false);
        mix(p.X, p.Y);
        weigh(p.Y, length, true);
        return from.template inverse<Arch>(p.Y, p.work);
    }
};

/// Means of a window of taps that moves along the row, by neighbouring taps in the lanes; rows are padded by half a window.
template <class Arch, class T>
void long_conv_means(const T* padded, index window, T* out, index count)
{
    const vec<T, Arch> factor(T(1) / static_cast<T>(window));
    for_each_lanes<T, Arch>(count, [&](auto range) {
        vec<T, Arch> sum(T(0));
        for (index d = 0; d < window; ++d) sum += range.load(padded + d);
        range.store(sum * factor, out);
    });
}

template <class Arch, class T>
vec<T, Arch> squashed(const vec<T, Arch>& k, T lambda)
{
    const vec<T, Arch> level(lambda), zero(T(0));
    // Comparisons are false for a NaN, which therefore stays.
    return xsimd::select(k > level, k - level, xsimd::select(k < -level, k + level, xsimd::select(k == k, zero, k)));
}

/// Taps of a mean; what `window` holds does not matter to other kernels.
template <class T>
index long_conv_window(const long_conv_kernel_args<T>& a)
{
    return a.smoothing == long_conv_smoothing::time ? a.window : 1;
}

/// What a task works in: a row and its neighbourhood, or records of many.
template <class T, class Arch>
std::size_t long_conv_scratch(const long_conv_kernel_args<T>& a, arena* tables)
{
    if (a.smoothing == long_conv_smoothing::frequency) {
        arena own;
        return static_cast<std::size_t>(long_conv_smoother<T, Arch>(a, tables ? *tables : own).scratch_size());
    }
    return static_cast<std::size_t>(2 * (a.kernel.extent(2) + long_conv_window(a) + 2 * lanes<T, Arch>));
}

template <class T, class Arch>
std::size_t long_conv_tasks(const long_conv_kernel_args<T>& a)
{
    const index rows = a.kernel.extent(0) * a.kernel.extent(1),
                each = a.smoothing == long_conv_smoothing::frequency ? lanes<T, Arch> : 1;
    return a.kernel.empty() ? 0 : static_cast<std::size_t>((rows + each - 1) / each);
}

template <class T, class Arch>
std::size_t long_conv_need(const long_conv_kernel_args<T>& a, std::size_t workers)
{
    const std::size_t tasks = long_conv_tasks<T, Arch>(a);
    if (tasks == 0) return 0;
    arena sizes;
    const std::size_t numbers = long_conv_scratch<T, Arch>(a, &sizes);
    for (std::size_t i = 0; i < std::min(workers, tasks); ++i) sizes.take<T>(numbers);
    return sizes.size();
}

/// Both passes: the rows smoothed, for the forward pass squashed into K; for the backward one, dK where they are not squashed to
/// zero, smoothed by the transpose.
template <class Arch, class T, class Exec>
void run_long_conv(const char* op, const long_conv_kernel_args<T>& a, const view<const T, 3>& dK, const view<T, 3>& dkernel,
                   workspace lent, Exec& exec)
{
    constexpr index n = lanes<T, Arch>;
    const std::size_t tasks = long_conv_tasks<T, Arch>(a);
    if (tasks == 0) return;
    const bool backward = dkernel.data() != nullptr, in_frequency = a.smoothing == long_conv_smoothing::frequency;
    const scratch memory(op, lent, long_conv_need<T, Arch>(a, concurrency(exec)));
    arena all(memory.memory());
    const index length = a.kernel.extent(2), out = long_conv_length(a), dim = a.kernel.extent(1), rows = a.kernel.extent(0) * dim;
    if (out == 0) {  // a single tap, smoothed in frequency, leaves none
        for (index c = 0; c < dkernel.extent(0); ++c) {
            for (index h = 0; h < dkernel.extent(1); ++h) dkernel(c, h, 0) = T(0);
        }
        return;
    }
    const auto run = [&](auto&& task_of) {
        arena sizes;
        sizes.take<T>(long_conv_scratch<T, Arch>(a, nullptr));
        const std::size_t bytes = sizes.size() - arena::alignment;
        std::byte* const slots = all.take<std::byte>(bytes * std::min(concurrency(exec), tasks));
        run_tasks(exec, tasks, [&](std::size_t task, std::size_t slot) {
            const flush_denormals guard;
            task_of(static_cast<index>(task), reinterpret_cast<T*>(slots + slot * bytes));
        });
    };
    if (in_frequency) {
        const long_conv_smoother<T, Arch> smoother(a, all);
        return run([&](index task, T* scratch) {
            const auto p = smoother.split(scratch);
            const index first = task * n, count = std::min(n, rows - first);
            const auto for_rows = [&](index samples, auto&& f) {
                for (index lane = 0; lane < count; ++lane) {
                    const index c = (first + lane) / dim, h = (first + lane) % dim;
                    for (index l = 0; l < samples; ++l) f(lane, c, h, l);
                }
            };
            std::fill_n(p.rows, n * length, T(0));
            for_rows(length, [&](index lane, index c, index h, index l) { p.rows[n * l + lane] = a.kernel(c, h, l); });
            const T* const k = smoother.forward(p);
            if (!backward) {
                for (index l = 0; l < out; ++l) store(squashed<Arch>(load<T, Arch>(k + n * l), a.lambda), p.rows + n * l);
                return for_rows(out, [&](index lane, index c, index h, index l) { a.K(c, h, l) = p.rows[n * l + lane]; });
            }
            std::fill_n(p.rows, n * length, T(0));
            for_rows(out, [&](index lane, index c, index h, index l) {
                p.rows[n * l + lane] = std::abs(k[n * l + lane]) > a.lambda ? dK(c, h, l) : T(0);
            });
            const T* const gradient = smoother.transposed(p);
            for_rows(length, [&](index lane, index c, index h, index l) { dkernel(c, h, l) = gradient[n * l + lane]; });
        });
    }
    const index window = long_conv_window(a), half = window / 2;
    run([&](index task, T* scratch) {
        const index c = task / dim, h = task % dim;
        T *const padded = scratch, *const k = scratch + (length + window + 2 * n);
        std::fill_n(padded, length + window, T(0));
        for (index l = 0; l < length; ++l) padded[half + l] = a.kernel(c, h, l);
        long_conv_means<Arch>(padded, window, k, length);
        if (!backward) {
            for_each_lanes<T, Arch>(
                length, [&](auto range) { range.store(squashed<Arch>(range.load(static_cast<const T*>(k)), a.lambda), k); });
            for (index l = 0; l < length; ++l) a.K(c, h, l) = k[l];
            return;
        }
        for (index l = 0; l < length; ++l) padded[half + l] = std::abs(k[l]) > a.lambda ? dK(c, h, l) : T(0);
        long_conv_means<Arch>(padded, window, k, length);
        for (index l = 0; l < length; ++l) dkernel(c, h, l) = k[l];
    });
}

}  // namespace detail

template <class Arch = xsimd::default_arch, class T>
std::size_t long_conv_kernel_workspace_size(const long_conv_kernel_args<T>& a, std::size_t workers = 1)
{
    return detail::long_conv_need<T, Arch>(a, workers);
}

/// The regularised kernel: shapes, equations and options at long_conv_kernel_args. Work splits over rows; the result does not
/// depend on the split. float results lie within 2e-6 of a double computation, relative to the largest tap.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void long_conv_kernel(const long_conv_kernel_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    check(a);
    detail::run_long_conv<Arch, T>("long_conv_kernel", a, {}, {}, lent, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void long_conv_kernel(const long_conv_kernel_args<T>& a, Exec&& exec)
{
    long_conv_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T>
std::size_t long_conv_kernel_backward_workspace_size(const long_conv_kernel_backward_args<T>& a, std::size_t workers = 1)
{
    return detail::long_conv_need<T, Arch>(a.forward, workers);
}

/// The gradient of the regularised kernel: long_conv_kernel_backward_args.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void long_conv_kernel_backward(const long_conv_kernel_backward_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    check(a);
    detail::run_long_conv<Arch, T>("long_conv_kernel_backward", a.forward, a.dK, a.dkernel, lent, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void long_conv_kernel_backward(const long_conv_kernel_backward_args<T>& a, Exec&& exec)
{
    long_conv_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

/// The envelope at double_exponential_args, each element rounded once; work splits over dim.
template <class T, execution_resource Exec = in_place>
void double_exponential(const double_exponential_args<T>& a, Exec&& exec = {})
{
    check(a);
    const double dim = static_cast<double>(a.envelope.extent(1)), length = static_cast<double>(a.envelope.extent(2));
    detail::run_tasks(exec, static_cast<std::size_t>(a.envelope.extent(1)), [&](std::size_t task, std::size_t) {
        const index h = static_cast<index>(task);
        const double rate = std::pow(std::floor(dim / 2), static_cast<double>(h) / dim);
        for (index l = 0; l < a.envelope.extent(2); ++l) {
            const T value = static_cast<T>(std::exp(-static_cast<double>(l) / length * rate));
            for (index c = 0; c < a.envelope.extent(0); ++c) a.envelope(c, h, l) = value;
        }
    });
}

}  // namespace ssmkit
