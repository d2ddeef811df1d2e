#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

#include <ssmkit/args/fft_conv.hpp>
#include <ssmkit/detail/fft_conv_rows.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {
namespace detail {

/// An output of this size or more goes around the caches, where its rows are aligned.
inline constexpr index fft_conv_streaming_bytes = index{8} << 20;

/// What the channels of a call share, and how they are cut into tasks.
template <class T, class Arch>
struct fft_conv_setup {
    using R = compute_t<T>;

    fft_conv_plan plan;
    index batch, dim, channels;
    bool packs_input, packs_output;  // a row is not numbers next to each other
    bool streams;                    // y is so large that it goes around the caches
    index group;                     // channels whose rows are turned together
    index batches;                   // of a task
    index kernels;                   // spectra kept at a time

    fft_conv_setup(const fft_conv_args<T>& a, std::size_t workers)
        : plan(plan_fft_conv<R, Arch>(a.u.extent(2), a.k.extent(2), a.k_reverse.data() ? a.k_reverse.extent(2) : 0,
                                      a.reverse_includes_current, true)),
          batch(a.u.extent(0)), dim(a.u.extent(1)), channels(a.k.extent(0))
    {
        constexpr bool numbers = std::is_same_v<T, R>;
        const auto dense = [](const auto& v, std::size_t axis) { return v.data() == nullptr || v.stride(axis) == 1; };
        packs_input = !numbers || !dense(a.u, 2) || !dense(a.input_gate, 2);
        packs_output = !numbers || !dense(a.y, 3) || !dense(a.output_gate, 2);
        streams = numbers && !packs_output && a.y.size() * static_cast<index>(sizeof(T)) >= fft_conv_streaming_bytes;
        const bool turned = (a.u.stride(1) == 1 && a.u.stride(2) != 1) || (a.y.stride(2) == 1 && a.y.stride(3) != 1);
        group = turned ? std::min(lanes<R, Arch>, std::max<index>(dim, 1)) : 1;
        // Sequences that share a kernel's spectrum, unless that leaves workers without a task.
        const index groups = (dim + group - 1) / group, wanted = static_cast<index>(workers);
        const index parts = groups > 0 ? std::min(batch, (wanted + groups - 1) / groups) : 1;
        batches = parts > 0 ? (batch + parts - 1) / parts : 1;
        kernels = batches > 1 ? group : 1;
    }

    index groups() const { return (dim + group - 1) / group; }
    index parts() const { return (batch + batches - 1) / batches; }
    std::size_t tasks() const
    {
        return batch > 0 && plan.length > 0 && channels > 0 ? static_cast<std::size_t>(groups() * parts()) : 0;
    }
    index pitch() const { return (plan.length + 15) / 16 * 16; }
};

/// The memory of one worker.
template <class T, class Arch>
struct fft_conv_slot {
    using R = compute_t<T>;
    R *kernels, *x, *v, *taps, *inputs, *outputs;

    fft_conv_slot(const fft_conv_setup<T, Arch>& s, bool packs_taps, arena& memory)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        const index buffer = 2 * s.plan.size, one = s.plan.direct() ? (s.plan.taps() + 15) / 16 * 16 : buffer;
        kernels = take(s.kernels * s.channels * one);
        x = take(buffer);
        v = take(s.channels > 1 ? buffer : 0);
        taps = take(packs_taps ? buffer : 0);
        inputs = take(s.packs_input ? s.group * s.pitch() : 0);
        outputs = take(s.packs_output ? s.channels * s.group * s.pitch() : 0);
    }
};

template <class T>
bool packs_taps(const fft_conv_args<T>& a)
{
    return a.k.stride(2) != 1 || a.k_reverse.data() != nullptr;
}

template <class Arch, class T>
fft_conv_taps<compute_t<T>, Arch> taps_of(const fft_conv_args<T>& a, index c, index h, compute_t<T> scale)
{
    const bool reverse = a.k_reverse.data() != nullptr;
    return {a.k.pointer(c, h), reverse ? a.k_reverse.pointer(c, h) : nullptr,
            a.k.extent(2), a.k.stride(2), reverse ? a.k_reverse.extent(2) : 0, reverse ? a.k_reverse.stride(2) : 0,
            a.D.data() ? a.D(c, h) : compute_t<T>(0), scale, a.reverse_includes_current};
}

/// The spectrum of kernel (c, h), divided by N; `row` is for kernels that are not numbers next to each other.
template <class Arch, class T, class R>
void transform_kernel(const fft_conv_args<T>& a, const fft_conv_plan& p, const negacyclic<R, Arch>& ring, index c, index h, R* row,
                      R* out)
{
    const index N = ring.size();
    const R scale = R(1) / static_cast<R>(N);
    const auto taps = taps_of<Arch>(a, c, h, scale);
    const auto keep = [](index, const auto& z) { return z; };
    if (packs_taps(a)) {
        const bool low = p.ahead == 0 && p.behind < N;
        taps.fill(row, low ? N : 2 * N, N, p);
        const auto read = [&](index j) { return load<R, Arch>(row + j); };
        return low ? ring.template forward<true>(read, out, keep) : ring.template forward<false>(read, out, keep);
    }
    const fft_conv_source<R, Arch> source{taps.k, nullptr, 0, std::min(taps.width, p.behind + 1)};
    const vec<R, Arch> factor(scale);
    alignas(64) R skip[static_cast<std::size_t>(lanes<R, Arch>)] = {taps.D * scale};
    const auto read = [&](index j) {
        const auto k = source(j) * factor;
        return j == 0 ? k + vec<R, Arch>::load_aligned(skip) : k;
    };
    source.count <= N ? ring.template forward<true>(read, out, keep) : ring.template forward<false>(read, out, keep);
}

/// A row of an argument as dense numbers, or null if it is not given.
template <class T, class R>
const R* dense_row(const view<const T, 3>& v, index b, index h)
{
    if constexpr (std::is_same_v<T, R>) {
        return v.data() ? v.pointer(b, h) : nullptr;
    } else {
        return nullptr;
    }
}

/// Channels [h0, h0 + count) of sequences [b0, b1).
template <class Arch, class T>
void fft_conv_task(const fft_conv_args<T>& a, const fft_conv_setup<T, Arch>& s, const negacyclic<compute_t<T>, Arch>* ring,
                   const fft_conv_slot<T, Arch>& memory, index h0, index count, index b0, index b1)
{
    using R = compute_t<T>;
    using number = complex_lanes<vec<R, Arch>>;
    const fft_conv_plan& p = s.plan;
    const index taps = p.taps(), one = p.direct() ? (taps + 15) / 16 * 16 : 2 * p.size, pitch = s.pitch();
    const auto prepare = [&](index i, index c) {
        R* const k = memory.kernels + ((i % s.kernels) * s.channels + c) * one;
        if (p.direct()) {
            const auto kernel = taps_of<Arch>(a, c, h0 + i, R(1));
            for (index q = 0; q < taps; ++q) k[q] = kernel(p.behind - q);
        } else {
            transform_kernel<Arch, T, R>(a, p, *ring, c, h0 + i, memory.taps, k);
        }
    };
    for (index b = b0; b < b1; ++b) {
        if (s.packs_input) {
            const auto rows = [&](const auto& v) { return v.data() ? v[b].slice(0, h0, count) : view<const T, 2>{}; };
            pack_rows<Arch, T, R>(rows(a.u), rows(a.input_gate), memory.inputs, pitch);
        }
        for (index i = 0; i < count; ++i) {
            const index h = h0 + i;
            if (b == b0) {
                for (index c = 0; c < s.channels; ++c) prepare(i, c);
            }
            const R* const k = memory.kernels + (i % s.kernels) * s.channels * one;
            const R* const row = s.packs_input ? memory.inputs + i * pitch : dense_row<T, R>(a.u, b, h);
            const R* const input_gate = s.packs_input ? nullptr : dense_row<T, R>(a.input_gate, b, h);
            const auto target = [&](index c, index first, index begin, index end) {
                R* y = memory.outputs + (c * count + i) * pitch;
                if constexpr (std::is_same_v<T, R>) {
                    if (!s.packs_output) y = a.y.pointer(b, c, h);
                }
                const bool around = s.streams && reinterpret_cast<std::uintptr_t>(y + first) % sizeof(vec<R, Arch>) == 0;
                return fft_conv_target<R, Arch>{
                    y, s.packs_output ? nullptr : dense_row<T, R>(a.output_gate, b, h), first, begin, end, around};
            };
            // Fetched while this row is transformed: reading them from memory all at once takes a quarter of a transform's time.
            const R* next = row;
            if (!s.packs_input && b + 1 < b1) next = dense_row<T, R>(a.u, b + 1, h);
            if (!s.packs_input && b + 1 == b1 && h + 1 < s.dim) next = dense_row<T, R>(a.u, b0, h + 1);
            if (p.direct()) {
                for (index c = 0; c < s.channels; ++c) {
                    direct_row<R, Arch>({row, input_gate, 0, p.length}, k + c * one, taps, p.behind, target(c, 0, 0, p.length));
                }
                continue;
            }
            for (index t = 0; t < p.length; t += p.step) {
                const fft_conv_source<R, Arch> source{row, input_gate, t - p.lead, p.length};
                const index end = std::min(p.length, t + p.step);
                const auto convolved = [&](auto low) {
                    if (s.channels == 1) {
                        return ring->template convolve<low()>(source, memory.x, [k, next](index o, const number& z) {
                            prefetch(next + o / 2);
                            const number w = number::load(k + o);
                            return z.times(w.re, w.im);
                        }, target(0, t - p.lead, t, end));
                    }
                    ring->template forward<low()>(source, memory.v, [](index, const number& z) { return z; });
                    for (index c = 0; c < s.channels; ++c) {
                        ring->template inverse<low()>([&](index o) {
                            const number w = number::load(k + c * one + o);
                            return number::load(memory.v + o).times(w.re, w.im);
                        }, memory.x, target(c, t - p.lead, t, end));
                    }
                };
                p.low() ? convolved(std::true_type{}) : convolved(std::false_type{});
            }
        }
        if (s.streams) streaming_fence();
        if (!s.packs_output) continue;
        for (index c = 0; c < s.channels; ++c) {
            const auto gate = a.output_gate.data() ? a.output_gate[b].slice(0, h0, count) : view<const T, 2>{};
            unpack_rows<Arch, T, R>(memory.outputs + c * count * pitch, pitch, gate, a.y[b][c].slice(0, h0, count));
        }
    }
}

/// Tables, then a slot for each worker.
template <class T, class Arch>
std::size_t fft_conv_need(const fft_conv_args<T>& a, const fft_conv_setup<T, Arch>& s, std::size_t workers)
{
    arena sizes;
    if (s.tasks() == 0) return 0;
    if (!s.plan.direct()) negacyclic<compute_t<T>, Arch>(s.plan.size, sizes);
    for (std::size_t i = 0; i < std::min(workers, s.tasks()); ++i) fft_conv_slot<T, Arch>(s, packs_taps(a), sizes);
    return sizes.size();
}

}  // namespace detail

/// Bytes of workspace that fft_conv takes with this many workers: spectra and rows of a few channels for each, at least
/// 16 (length + width) bytes for float.
template <class Arch = xsimd::default_arch, class T>
std::size_t fft_conv_workspace_size(const fft_conv_args<T>& a, std::size_t workers = 1)
{
    return detail::fft_conv_need<T, Arch>(a, {a, workers}, workers);
}

/// The long convolution: shapes, equations and options at fft_conv_args. Throws shape_error before anything is written. Work
/// splits over channels and batch; the result does not depend on the split, bit for bit. Kernels of up to 48 taps are
/// summed as they are; of longer ones, u and k are read once, in transforms of the whole row or of pieces of it, whichever costs
/// less, and y is written once. float results lie within 2e-6 of a double computation, relative to the largest one of the row's
/// absolute convolution, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void fft_conv(const fft_conv_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const fft_conv_setup<T, Arch> s(a, concurrency(exec));
    if (s.tasks() == 0) return;
    const std::size_t workers = std::min(concurrency(exec), s.tasks());
    const scratch memory("fft_conv", lent, fft_conv_need<T, Arch>(a, s, workers));
    arena all(memory.memory());
    alignas(negacyclic<R, Arch>) std::byte place[sizeof(negacyclic<R, Arch>)];
    const negacyclic<R, Arch>* const ring = s.plan.direct() ? nullptr : new (place) negacyclic<R, Arch>(s.plan.size, all);
    arena sizes;
    fft_conv_slot<T, Arch>(s, packs_taps(a), sizes);
    const std::size_t bytes = sizes.size() == 0 ? 0 : sizes.size() - arena::alignment;
    std::byte* const slots = all.take<std::byte>(bytes * workers);
    run_tasks(exec, s.tasks(), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena own(workspace{slots + slot * bytes, bytes});
        const fft_conv_slot<T, Arch> mine(s, packs_taps(a), own);
        const index group = static_cast<index>(task) / s.parts(), part = static_cast<index>(task) % s.parts();
        const index h0 = group * s.group, b0 = part * s.batches;
        fft_conv_task<Arch>(a, s, ring, mine, h0, std::min(s.group, s.dim - h0), b0, std::min(s.batch, b0 + s.batches));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void fft_conv(const fft_conv_args<T>& a, Exec&& exec)
{
    fft_conv<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
