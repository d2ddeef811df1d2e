#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

#include <ssmkit/args/fft_conv_backward.hpp>
#include <ssmkit/fft_conv.hpp>

namespace ssmkit {
namespace detail {

/// What the channels of a call share.
template <class T, class Arch>
struct fft_conv_backward_setup {
    using R = compute_t<T>;

    fft_conv_plan plan;
    index batch, dim, channels, group, kernels;
    bool wants_input, wants_kernel, wants_gate;     // gradients of v, of the taps, of the output gate
    bool packs_input, packs_dy, packs_output, adds;  // adds: pieces of a row's dv overlap

    explicit fft_conv_backward_setup(const fft_conv_backward_args<T>& a)
        : plan(plan_fft_conv<R, Arch>(a.forward.u.extent(2), a.forward.k.extent(2),
                                      a.forward.k_reverse.data() ? a.forward.k_reverse.extent(2) : 0,
                                      a.forward.reverse_includes_current, false)),
          batch(a.forward.u.extent(0)), dim(a.forward.u.extent(1)), channels(a.forward.k.extent(0))
    {
        constexpr bool numbers = std::is_same_v<T, R>;
        const fft_conv_args<T>& f = a.forward;
        const auto dense = [](const auto& v, std::size_t axis) { return v.data() == nullptr || v.stride(axis) == 1; };
        wants_input = !a.du.empty() || !a.dinput_gate.empty();
        wants_kernel = !a.dk.empty() || !a.dk_reverse.empty() || !a.dD.empty();
        wants_gate = !a.doutput_gate.empty();
        packs_input = !numbers || !dense(f.u, 2) || !dense(f.input_gate, 2);
        packs_dy = !numbers || !dense(a.dy, 3) || !dense(f.output_gate, 2);
        adds = plan.step < plan.length;
        packs_output = !numbers || !dense(a.du, 2) || a.du.empty() || f.input_gate.data() != nullptr;
        const auto turned = [](const auto& v, std::size_t axis) {
            return v.data() && v.stride(axis) == 1 && v.stride(axis + 1) != 1;
        };
        group = turned(f.u, 1) || turned(a.dy, 2) || turned(a.du, 1) ? std::min(lanes<R, Arch>, std::max<index>(dim, 1)) : 1;
        kernels = batch > 1 ? group : 1;
    }

    index pitch() const { return (plan.length + 15) / 16 * 16; }
    index buffer() const { return 2 * plan.size; }
    std::size_t tasks() const
    {
        const bool any = wants_input || wants_kernel || wants_gate;
        return any && batch > 0 && channels > 0 && plan.length > 0 ? static_cast<std::size_t>((dim + group - 1) / group) : 0;
    }
};

/// The memory of one worker.
template <class T, class Arch>
struct fft_conv_backward_slot {
    using R = compute_t<T>;
    R *kernels, *sums, *x, *v, *w, *taps, *inputs, *dp, *dv, *p;

    fft_conv_backward_slot(const fft_conv_backward_setup<T, Arch>& s, arena& memory)
    {
        const auto take = [&](bool needed, index count) { return memory.take<R>(needed ? static_cast<std::size_t>(count) : 0); };
        const index rows = s.group * s.pitch();
        kernels = take(s.wants_input || s.wants_gate, s.kernels * s.channels * s.buffer());
        sums = take(s.wants_kernel, s.kernels * s.channels * s.buffer());
        x = take(true, s.buffer());
        v = take(s.wants_kernel || s.wants_gate, s.buffer());
        w = take(s.channels > 1, s.buffer());
        taps = take(true, s.buffer());
        inputs = take(s.packs_input, rows);
        dp = take(s.packs_dy, s.channels * rows);
        dv = take(s.wants_input && s.packs_output, rows);
        p = take(s.wants_gate, s.channels * rows);
    }
};

/// The gradients of the taps (c, h) from the spectrum of their sums.
template <class Arch, class T, class R>
void fft_conv_tap_gradients(const fft_conv_backward_args<T>& a, const fft_conv_plan& p, const negacyclic<R, Arch>& ring, index c,
                            index h, const R* sums, R* x, R* taps)
{
    using number = complex_lanes<vec<R, Arch>>;
    const auto read = [sums](index o) { return number::load(sums + o); };
    const auto write = [taps](index j, const vec<R, Arch>& z) { store(z, taps + j); };
    p.ahead == 0 && p.behind < p.size ? ring.template inverse<true>(read, x, write) : ring.template inverse<false>(read, x, write);
    const R scale = R(1) / static_cast<R>(p.size);
    const auto tap = [&](index o) {  // of offsets that no two samples of the row have, 0
        if (o > p.behind || o < -p.ahead) return R(0);
        return o >= 0 ? scale * taps[o] : -scale * taps[2 * p.size + o];
    };
    const index s = a.forward.reverse_includes_current ? 0 : 1;
    for (index m = 0; m < a.dk.extent(2); ++m) a.dk(c, h, m) = tap(m);
    for (index m = 0; m < a.dk_reverse.extent(2); ++m) a.dk_reverse(c, h, m) = tap(-m - s);
    if (!a.dD.empty()) a.dD(c, h) = tap(0);
}

/// Channels [h0, h0 + count) of all sequences.
template <class Arch, class T>
void fft_conv_backward_task(const fft_conv_backward_args<T>& a, const fft_conv_backward_setup<T, Arch>& s,
                            const negacyclic<compute_t<T>, Arch>& ring, const fft_conv_backward_slot<T, Arch>& memory, index h0,
                            index count)
{
    using R = compute_t<T>;
    using number = complex_lanes<vec<R, Arch>>;
    const fft_conv_args<T>& f = a.forward;
    const fft_conv_plan& p = s.plan;
    const index pitch = s.pitch(), buffer = s.buffer();
    const auto rows = [&](const view<const T, 3>& v, index b) { return v.data() ? v[b].slice(0, h0, count) : view<const T, 2>{}; };
    const auto keep = [](index, const number& z) { return z; };
    for (index b = 0; b < s.batch; ++b) {
        if (s.packs_input) pack_rows<Arch, T, R>(rows(f.u, b), rows(f.input_gate, b), memory.inputs, pitch);
        for (index c = 0; c < s.channels && s.packs_dy; ++c) {
            pack_rows<Arch, T, R>(a.dy[b][c].slice(0, h0, count), rows(f.output_gate, b), memory.dp + c * count * pitch, pitch);
        }
        for (index i = 0; i < count; ++i) {
            const index h = h0 + i, first_kernel = (i % s.kernels) * s.channels * buffer;
            R *const kernels = memory.kernels + first_kernel, *const sums = memory.sums + first_kernel;
            if (b == 0) {
                if (s.wants_kernel) std::fill_n(sums, s.channels * buffer, R(0));
                for (index c = 0; c < s.channels && (s.wants_input || s.wants_gate); ++c) {
                    transform_kernel<Arch, T, R>(f, p, ring, c, h, memory.taps, kernels + c * buffer);
                }
            }
            const R* const row = s.packs_input ? memory.inputs + i * pitch : dense_row<T, R>(f.u, b, h);
            const R* const input_gate = s.packs_input ? nullptr : dense_row<T, R>(f.input_gate, b, h);
            const R* const output_gate = s.packs_dy ? nullptr : dense_row<T, R>(f.output_gate, b, h);
            const auto dp_row = [&](index c) -> const R* {
                if constexpr (std::is_same_v<T, R>) {
                    if (!s.packs_dy) return a.dy.pointer(b, c, h);
                }
                return memory.dp + (c * count + i) * pitch;
            };
            R* dv = s.wants_input ? memory.dv + i * pitch : nullptr;
            if constexpr (std::is_same_v<T, R>) {
                if (!s.packs_output) dv = a.du.pointer(b, h);
            }
            if (s.wants_input && s.adds) std::fill_n(dv, p.length, R(0));
            const auto segment = [&](auto low, index t) {
                const index end = std::min(p.length, t + p.step), first = t - p.lead;
                const R* const v = memory.v;
                if (s.wants_kernel || s.wants_gate) {
                    ring.template forward<low()>(fft_conv_source<R, Arch>{row, input_gate, first, p.length}, memory.v, keep);
                }
                for (index c = 0; c < s.channels && s.wants_gate; ++c) {
                    const R* const k = kernels + c * buffer;
                    ring.template inverse<low()>([&](index o) {
                        const number z = number::load(k + o);
                        return number::load(v + o).times(z.re, z.im);
                    }, memory.x, fft_conv_target<R, Arch>{memory.p + (c * count + i) * pitch, nullptr, first, t, end});
                }
                if (!s.wants_input && !s.wants_kernel) return;
                for (index c = 0; c < s.channels; ++c) {
                    const R* const k = kernels + c * buffer;
                    R *const sum = sums + c * buffer, *const w = memory.w;
                    // Only what the segment's outputs received; the rest of the window belongs to others.
                    const fft_conv_source<R, Arch> source{dp_row(c) + t, output_gate ? output_gate + t : nullptr, -p.lead, end - t};
                    const bool begins = c == 0, last = c + 1 == s.channels;
                    const auto product = [&, begins](index o, const number& z) {
                        if (s.wants_kernel) {
                            const number y = number::load(v + o);
                            (number::load(sum + o) + z.times_conjugate(y.re, y.im)).store(sum + o);
                        }
                        if (!s.wants_input) return z;
                        const number y = number::load(k + o), back = z.times_conjugate(y.re, y.im);
                        return begins ? back : back + number::load(w + o);
                    };
                    if (last && s.wants_input) {
                        if (s.adds) {
                            ring.template convolve<low()>(source, memory.x, product,
                                                          fft_conv_target<R, Arch, true>{dv, nullptr, first, 0, p.length});
                        } else {
                            ring.template convolve<low()>(source, memory.x, product,
                                                          fft_conv_target<R, Arch>{dv, nullptr, first, 0, p.length});
                        }
                    } else {
                        ring.template forward<low()>(source, memory.x, [&](index o, const number& z) {
                            const number y = product(o, z);
                            if (s.wants_input) y.store(w + o);
                            return y;
                        });
                    }
                }
            };
            for (index t = 0; t < p.length; t += p.step) p.low() ? segment(std::true_type{}, t) : segment(std::false_type{}, t);
            for (index c = 0; c < s.channels && s.wants_kernel && b + 1 == s.batch; ++c) {
                fft_conv_tap_gradients<Arch, T, R>(a, p, ring, c, h, sums + c * buffer, memory.x, memory.taps);
            }
            for (index t = 0; t < p.length && s.wants_gate; ++t) {
                R sum = 0;
                for (index c = 0; c < s.channels; ++c)
                    sum += static_cast<R>(a.dy(b, c, h, t)) * memory.p[(c * count + i) * pitch + t];
                a.doutput_gate(b, h, t) = static_cast<T>(sum);
            }
        }
        if (!s.wants_input || !s.packs_output) continue;
        if (!a.du.empty()) unpack_rows<Arch, T, R>(memory.dv, pitch, rows(f.input_gate, b), a.du[b].slice(0, h0, count));
        if (!a.dinput_gate.empty()) unpack_rows<Arch, T, R>(memory.dv, pitch, rows(f.u, b), a.dinput_gate[b].slice(0, h0, count));
    }
}

template <class T, class Arch>
std::size_t fft_conv_backward_need(const fft_conv_backward_setup<T, Arch>& s, std::size_t workers)
{
    arena sizes;
    if (s.tasks() == 0) return 0;
    negacyclic<compute_t<T>, Arch>(s.plan.size, sizes);
    for (std::size_t i = 0; i < std::min(workers, s.tasks()); ++i) fft_conv_backward_slot<T, Arch>(s, sizes);
    return sizes.size();
}

template <class V>
void fill_zeros(const V& v)
{
    if constexpr (V::rank == 1) {
        for (index i = 0; i < v.extent(0); ++i) v[i] = typename V::value_type(0);
    } else {
        for (index i = 0; i < v.extent(0); ++i) fill_zeros(v[i]);
    }
}

}  // namespace detail

/// Bytes of workspace that fft_conv_backward takes with this many workers.
template <class Arch = xsimd::default_arch, class T>
std::size_t fft_conv_backward_workspace_size(const fft_conv_backward_args<T>& a, std::size_t workers = 1)
{
    return detail::fft_conv_backward_need<T, Arch>(detail::fft_conv_backward_setup<T, Arch>(a), workers);
}

/// The gradients of the long convolution: shapes and equations at fft_conv_backward_args. Throws shape_error before anything is
/// written. Work splits over channels; sums over the batch are taken in its order, so that the result does not depend on the
/// split, bit for bit. The accuracy is that of fft_conv, relative to the largest element of each gradient.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void fft_conv_backward(const fft_conv_backward_args<T>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    using R = compute_t<T>;
    check(a);
    const fft_conv_backward_setup<T, Arch> s(a);
    if (s.batch == 0 || s.plan.length == 0 || s.channels == 0) {  // sums without terms
        fill_zeros(a.dk);
        fill_zeros(a.dk_reverse);
        fill_zeros(a.dD);
        fill_zeros(a.du);
        fill_zeros(a.dinput_gate);
        fill_zeros(a.doutput_gate);
    }
    if (s.tasks() == 0) return;
    const std::size_t workers = std::min(concurrency(exec), s.tasks());
    const scratch memory("fft_conv_backward", lent, fft_conv_backward_need<T, Arch>(s, workers));
    arena all(memory.memory());
    const negacyclic<R, Arch> ring(s.plan.size, all);
    arena sizes;
    fft_conv_backward_slot<T, Arch>(s, sizes);
    const std::size_t bytes = sizes.size() - arena::alignment;
    std::byte* const slots = all.take<std::byte>(bytes * workers);
    run_tasks(exec, s.tasks(), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena own(workspace{slots + slot * bytes, bytes});
        const fft_conv_backward_slot<T, Arch> mine(s, own);
        const index h0 = static_cast<index>(task) * s.group;
        fft_conv_backward_task<Arch>(a, s, ring, mine, h0, std::min(s.group, s.dim - h0));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void fft_conv_backward(const fft_conv_backward_args<T>& a, Exec&& exec)
{
    fft_conv_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
