#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include <ssmkit/args/sgconv_kernel.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// Calls f(first sample, count, tap before, tap after) for the stretches of a sub-kernel in which samples lie between the same two
/// taps: sample first + j has the later one's share (j + 1/2) / stretch.
template <class F>
void sgconv_stretches(index stretch, index taps, bool nearest, F&& f)
{
    if (nearest || stretch == 1) {
        for (index i = 0; i < taps; ++i) f(i * stretch, stretch, i, i);
        return;
    }
    const index half = stretch / 2;
    f(index{0}, half, index{0}, index{0});
    for (index i = 0; i < taps; ++i) {
        const index first = half + i * stretch;
        f(first, std::min(stretch, taps * stretch - first), i, std::min(i + 1, taps - 1));
    }
}

/// (l + 1)^-decay for all samples.
template <class Arch, class T>
void sgconv_decay(T decay, T* out, T* logs, index count)
{
    const vec<T, Arch> rate(-decay);
    for_each_lanes<T, Arch>(count, [&](auto range) { range.store(fast_exp(rate * range.load(static_cast<const T*>(logs))), out); });
}

/// log(l + 1), which every row shares.
template <class T>
void sgconv_logs(T* logs, index count)
{
    for (index l = 0; l < count; ++l) logs[l] = static_cast<T>(std::log(static_cast<double>(l) + 1));
}

template <class T>
T sgconv_factor(const sgconv_kernel_args<T>& a, index h, index i)
{
    T factor = 1;
    if (a.multiplier.data()) {
        for (index power = a.w.extent(0) - 1 - i; power > 0; --power) factor *= a.multiplier[h];
    }
    return factor;
}

/// The first `count` samples of a row before the norm. The lanes run along the samples.
template <class Arch, class T>
[[gnu::noinline]] void sgconv_row(const sgconv_kernel_args<T>& a, index c, index h, const T* decays, T* k, index count)
{
    using V = vec<T, Arch>;
    constexpr index n = lanes<T, Arch>;
    alignas(64) T ramp_numbers[static_cast<std::size_t>(n)];
    for (index i = 0; i < n; ++i) ramp_numbers[i] = static_cast<T>(i) + T(0.5);
    const V ramp = V::load_aligned(ramp_numbers);
    std::fill_n(k, count, T(0));
    for (index i = 0; i < a.w.extent(0); ++i) {
        const sgconv_scale s = sgconv_scale::of(a, i);
        const T factor = sgconv_factor(a, h, i), share = T(1) / static_cast<T>(s.stretch);
        sgconv_stretches(s.stretch, a.w.extent(3), a.nearest, [&](index first, index samples, index before, index after) {
            const index at = s.first + first, room = std::min(samples, count - at);
            if (room <= 0) return;
            const T x = factor * a.w(i, c, h, before), rise = before == after ? T(0) : factor * a.w(i, c, h, after) - x;
            const V start(x), slope(rise * share);
            for_each_lanes<T, Arch>(room, [&](auto range) {
                const V offset = ramp + V(static_cast<T>(range.first));
                range.store(
                    range.load(static_cast<const T*>(k + at)) + (before == after ? start : multiply_add(slope, offset, start)),
                    k + at);
            });
        });
    }
    if (decays == nullptr) return;
    for_each_lanes<T, Arch>(count, [&](auto range) { range.store(range.load(static_cast<const T*>(k)) * range.load(decays), k); });
}

template <class T>
struct sgconv_slot {
    T *k, *decays, *gradient;

    sgconv_slot(const sgconv_kernel_args<T>& a, index length, bool backward, arena& memory)
    {
        const index samples = std::max(sgconv_samples(a), length);
        k = memory.take<T>(static_cast<std::size_t>(samples));
        decays = memory.take<T>(a.decay.data() ? static_cast<std::size_t>(samples) : 0);
        gradient = memory.take<T>(backward ? static_cast<std::size_t>(samples) : 0);
    }
};

/// All rows: f(slot's memory, h, decays or null).
template <class Arch, class T, class Exec, class F>
void sgconv_rows(const char* op, const sgconv_kernel_args<T>& a, index length, bool backward, workspace lent, std::size_t need,
                 Exec& exec, F&& f)
{
    const index samples = std::max(sgconv_samples(a), length), dim = a.w.extent(2);
    const scratch memory(op, lent, need);
    arena all(memory.memory());
    T* const logs = all.take<T>(a.decay.data() ? static_cast<std::size_t>(samples) : 0);
    if (a.decay.data()) sgconv_logs(logs, samples);
    arena sizes;
    sgconv_slot<T>(a, length, backward, sizes);
    const std::size_t bytes = sizes.size() == 0 ? 0 : sizes.size() - arena::alignment;
    std::byte* const slots = all.take<std::byte>(bytes * std::min(concurrency(exec), static_cast<std::size_t>(dim)));
    run_tasks(exec, static_cast<std::size_t>(dim), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena own(workspace{slots + slot * bytes, bytes});
        const sgconv_slot<T> mine(a, length, backward, own);
        const index h = static_cast<index>(task);
        if (a.decay.data()) sgconv_decay<Arch>(a.decay[h], mine.decays, logs, samples);
        f(mine, h, a.decay.data() ? mine.decays : nullptr, logs);
    });
}

template <class T>
std::size_t sgconv_need(const sgconv_kernel_args<T>& a, index length, bool backward, std::size_t workers)
{
    arena sizes;
    sizes.take<T>(a.decay.data() ? static_cast<std::size_t>(std::max(sgconv_samples(a), length)) : 0);
    for (std::size_t i = 0; i < std::min(workers, static_cast<std::size_t>(a.w.extent(2))); ++i)
        sgconv_slot<T>(a, length, backward, sizes);
    return sizes.size();
}

/// The norm of all samples, of which k receives the first `length`, zeros behind them. Squares are added up in double.
template <class Arch, class T>
T sgconv_whole_row(const sgconv_kernel_args<T>& a, index c, index h, const T* decays, T* k, index length)
{
    const index samples = sgconv_samples(a), need = a.norm.data() ? std::min(samples, length) : samples;
    sgconv_row<Arch>(a, c, h, decays, k, need);
    if (length > need) std::fill_n(k + need, length - need, T(0));
    if (a.norm.data()) return a.norm(c, h);
    double squares = 0;
    for (index l = 0; l < samples; ++l) squares += static_cast<double>(k[l]) * static_cast<double>(k[l]);
    return static_cast<T>(std::sqrt(squares));
}

}  // namespace detail

template <class Arch = xsimd::default_arch, class T>
std::size_t sgconv_kernel_workspace_size(const sgconv_kernel_args<T>& a, std::size_t workers = 1)
{
    return detail::sgconv_need(a, a.K.extent(2), false, workers);
}

/// SGConv's kernel: shapes, equations and options at sgconv_kernel_args. Work splits over dim; the result does not depend on the
/// split. float results lie within 2e-6 of a double computation, relative to the largest tap.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void sgconv_kernel(const sgconv_kernel_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index length = a.K.extent(2);
    sgconv_rows<Arch>("sgconv_kernel", a, length, false, lent, sgconv_need(a, length, false, concurrency(exec)), exec,
                      [&](const sgconv_slot<T>& mine, index h, const T* decays, const T*) {
        for (index c = 0; c < a.K.extent(0); ++c) {
            const T norm = sgconv_whole_row<Arch>(a, c, h, decays, mine.k, length);
            if (a.new_norm.data()) a.new_norm(c, h) = norm;
            for (index l = 0; l < length; ++l) a.K(c, h, l) = mine.k[l] / norm;
        }
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void sgconv_kernel(const sgconv_kernel_args<T>& a, Exec&& exec)
{
    sgconv_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T>
std::size_t sgconv_kernel_backward_workspace_size(const sgconv_kernel_backward_args<T>& a, std::size_t workers = 1)
{
    return detail::sgconv_need(a.forward, a.dK.extent(2), true, workers);
}

/// The gradients of SGConv's kernel: sgconv_kernel_backward_args. Sums over samples are taken in double.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void sgconv_kernel_backward(const sgconv_kernel_backward_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const sgconv_kernel_args<T>& f = a.forward;
    const index length = a.dK.extent(2), samples = std::min(sgconv_samples(f), length), taps = f.w.extent(3);
    sgconv_rows<Arch>("sgconv_kernel_backward", f, length, true, lent, sgconv_need(f, length, true, concurrency(exec)), exec,
                      [&](const sgconv_slot<T>& mine, index h, const T* decays, const T* logs) {
        double ddecay = 0;
        for (index c = 0; c < f.w.extent(1); ++c) {
            const T norm = sgconv_whole_row<Arch>(f, c, h, decays, mine.k, length);
            for (index l = 0; l < samples; ++l) mine.gradient[l] = a.dK(c, h, l) / norm;
            for (index l = 0; decays && l < samples; ++l) {
                const double decayed = static_cast<double>(mine.k[l]) * static_cast<double>(logs[l]);
                if (l > 0) ddecay -= static_cast<double>(mine.gradient[l]) * decayed;  // the first sample does not decay
                mine.gradient[l] *= decays[l];
            }
            for (index i = 0; i < a.dw.extent(0); ++i) {
                const sgconv_scale s = sgconv_scale::of(f, i);
                const T factor = sgconv_factor(f, h, i);
                const double share = 1.0 / static_cast<double>(s.stretch);
                for (index tap = 0; tap < taps; ++tap) a.dw(i, c, h, tap) = 0;
                sgconv_stretches(s.stretch, taps, f.nearest, [&](index first, index count, index before, index after) {
                    const index at = s.first + first, room = std::min(count, samples - at);
                    if (room <= 0) return;  // cropped: not even a factor that is NaN counts
                    double sum = 0, later = 0;
                    for (index j = 0; j < room; ++j) {
                        const double g = static_cast<double>(mine.gradient[at + j]);
                        sum += g;
                        later += g * (static_cast<double>(j) + 0.5);
                    }
                    later = before == after ? 0 : later * share;
                    a.dw(i, c, h, before) += factor * static_cast<T>(sum - later);
                    if (before != after) a.dw(i, c, h, after) += factor * static_cast<T>(later);
                });
            }
        }
        if (a.ddecay.data()) a.ddecay[h] = static_cast<T>(ddecay);
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void sgconv_kernel_backward(const sgconv_kernel_backward_args<T>& a, Exec&& exec)
{
    sgconv_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
