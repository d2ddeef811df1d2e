#pragma once

// Rows of long convolutions: how they are cut into transforms, read, gated, written and turned.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include <ssmkit/detail/negacyclic.hpp>
#include <ssmkit/element.hpp>

namespace ssmkit::detail {

/// Taps of offsets -ahead ... behind over a row of `length` samples: one transform of the whole row, or segments of `step`
/// outputs each, of which the window begins `lead` samples before (overlap-save).
struct fft_conv_plan {
    index length = 0, behind = 0, ahead = 0;
    index size = 0;  // N; 0 if the sums are computed as they are
    index step = 0, lead = 0;

    bool direct() const { return size == 0; }
    index taps() const { return behind + ahead + 1; }
    bool low() const { return lead == 0 && step == length && length <= size; }  // the row fits into half of the ring
};

/// Up to this many taps, sums cost less than transforms: measured in bench/fft_conv.cpp.
template <class T, class Arch>
inline constexpr index fft_conv_direct_taps = 24;

/// The plan of least cost. A transform takes time in proportion to N log N, more if it leaves the second-level cache.
template <class T, class Arch>
fft_conv_plan plan_fft_conv(index length, index width, index reverse, bool includes_current, bool may_be_direct)
{
    using ring = negacyclic<T, Arch>;
    fft_conv_plan p;
    p.length = length;
    p.behind = std::max<index>(width, 1) - 1;
    p.ahead = reverse > 0 ? reverse - (includes_current ? 1 : 0) : 0;
    // Taps that reach beyond the row meet nothing.
    p.behind = std::min(p.behind, std::max<index>(length - 1, 0));
    p.ahead = std::min(p.ahead, std::max<index>(length - 1, 0));
    if (may_be_direct && p.taps() <= fft_conv_direct_taps<T, Arch>) return p;
    const auto cost = [](index size) {
        const double n = static_cast<double>(size), bytes = 4 * n * sizeof(T);
        return n * (std::log2(n) + 3) * (bytes > (1 << 19) ? 1.3 : 1.0);
    };
    p.size = ring::size_for(length + std::max(p.behind, p.ahead));
    p.step = length;
    double least = cost(p.size);
    // Whole registers, so that the rows' alignment is the windows': 0.7 times the time.
    constexpr index n = lanes<T, Arch>;
    const index lead = (p.behind + n - 1) / n * n;
    for (index real = 2 * ring::size_for(1), one = p.size; real < 2 * one;) {
        const index size = ring::size_for(real), step = (2 * size - lead - p.ahead) / n * n;
        real = 2 * size + 1;
        if (step <= 0 || size >= one) continue;
        const double all = cost(size) * std::ceil(static_cast<double>(length) / static_cast<double>(step));
        if (all < least) {
            least = all;
            p.size = size;
            p.step = step;
            p.lead = lead;
        }
    }
    return p;
}

/// Samples of a row from number `first` on, zero outside 0 ... count - 1, times the gate's if there is one.
template <class R, class Arch>
struct fft_conv_source {
    const R *row, *gate;
    index first, count;

    [[gnu::always_inline]] vec<R, Arch> operator()(index j) const
    {
        const index t = first + j;
        if (t >= 0 && t + lanes<R, Arch> <= count) [[likely]] {
            const auto x = load<R, Arch>(row + t);
            return gate ? x * load<R, Arch>(gate + t) : x;
        }
        return edge(t);
    }

    [[gnu::noinline]] vec<R, Arch> edge(index t) const
    {
        alignas(64) R x[static_cast<std::size_t>(lanes<R, Arch>)] = {};
        for (index i = std::max<index>(0, -t); i < std::min(lanes<R, Arch>, count - t); ++i) {
            x[i] = gate ? row[t + i] * gate[t + i] : row[t + i];
        }
        return vec<R, Arch>::load_aligned(x);
    }
};

/// Where results go: number j of a segment to sample first + j if that is one of begin ... end - 1, times the gate's, or added to
/// what is there.
template <class R, class Arch, bool Add = false>
struct fft_conv_target {
    R* row;
    const R* gate;
    index first, begin, end;
    bool streams = false;  // around the caches: row + first is aligned

    [[gnu::always_inline]] void operator()(index j, const vec<R, Arch>& x) const
    {
        const index t = first + j;
        if (t >= begin && t + lanes<R, Arch> <= end) [[likely]] {
            vec<R, Arch> value = gate ? x * load<R, Arch>(gate + t) : x;
            if constexpr (Add) value += load<R, Arch>(row + t);
            streams ? store_streaming(value, row + t) : store(value, row + t);
        } else if (t < end && t + lanes<R, Arch> > begin) {
            edge(t, x);
        }
    }

    [[gnu::noinline]] void edge(index t, const vec<R, Arch>& x) const
    {
        alignas(64) R values[static_cast<std::size_t>(lanes<R, Arch>)];
        x.store_aligned(values);
        for (index i = std::max<index>(0, begin - t); i < std::min(lanes<R, Arch>, end - t); ++i) {
            const R value = gate ? values[i] * gate[t + i] : values[i];
            row[t + i] = Add ? row[t + i] + value : value;
        }
    }
};

/// A kernel as the ring sees it: the tap of offset o at place o, those of negative offsets with the other sign at 2N + o.
template <class R, class Arch>
struct fft_conv_taps {
    const R *k, *reverse;  // with their steps; reverse may be null
    index width, k_step, reverse_width, reverse_step;
    R D, scale;
    bool includes_current;

    /// Tap of an offset, unscaled.
    R operator()(index o) const
    {
        R tap = o >= 0 && o < width ? k[o * k_step] : R(0);
        if (o == 0) tap += D;
        const index m = -o - (includes_current ? 0 : 1);
        if (m >= 0 && m < reverse_width) tap += reverse[m * reverse_step];
        return tap;
    }

    /// The ring's numbers, of which only those of offsets -ahead ... behind are not zero.
    void fill(R* row, index count, index size, const fft_conv_plan& p) const
    {
        std::fill_n(row, count, R(0));
        for (index o = 0; o <= p.behind; ++o) row[o] = scale * (*this)(o);
        for (index o = 1; o <= p.ahead; ++o) row[2 * size - o] = -scale * (*this)(-o);
    }
};

/// Rows [0, rows) of x, times those of a gate, to dense rows of numbers; rows of neighbouring memory are turned in registers.
template <class Arch, class T, class R>
[[gnu::noinline]] void pack_rows(const view<const T, 2>& x, const view<const T, 2>& gate, R* out, index pitch)
{
    constexpr index n = lanes<R, Arch>;
    const index rows = x.extent(0), length = x.extent(1);
    const bool gated = gate.data() != nullptr;
    index done = 0;
    if (rows == n && x.stride(0) == 1 && (!gated || gate.stride(0) == 1)) {
        for (; done + n <= length; done += n) {
            vec<R, Arch> r[static_cast<std::size_t>(n)];
            unrolled<n>([&](auto i) {
                r[i] = load<R, Arch>(x.pointer(0, done + i));
                if (gated) r[i] = r[i] * load<R, Arch>(gate.pointer(0, done + i));
            });
            transpose<R, Arch>(r);
            unrolled<n>([&](auto i) { store(r[i], out + i * pitch + done); });
        }
    } else if (x.stride(1) == 1 && (!gated || gate.stride(1) == 1)) {
        for (index i = 0; i < rows; ++i) {
            for_each_lanes<R, Arch>(length, [&](auto range) {
                auto v = range.load(x.pointer(i, 0));
                if (gated) v = v * range.load(gate.pointer(i, 0));
                range.store(v, out + i * pitch);
            });
        }
        return;
    }
    for (index i = 0; i < rows; ++i) {
        for (index t = done; t < length; ++t) {
            const R v = static_cast<R>(x(i, t));
            out[i * pitch + t] = gated ? v * static_cast<R>(gate(i, t)) : v;
        }
    }
}

/// The way back: dense rows, times those of a gate, to x.
template <class Arch, class T, class R>
[[gnu::noinline]] void unpack_rows(const R* from, index pitch, const view<const T, 2>& gate, const view<T, 2>& x)
{
    constexpr index n = lanes<R, Arch>;
    const index rows = x.extent(0), length = x.extent(1);
    const bool gated = gate.data() != nullptr;
    index done = 0;
    if (rows == n && x.stride(0) == 1 && (!gated || gate.stride(0) == 1)) {
        for (; done + n <= length; done += n) {
            vec<R, Arch> r[static_cast<std::size_t>(n)];
            unrolled<n>([&](auto i) { r[i] = load<R, Arch>(from + i * pitch + done); });
            transpose<R, Arch>(r);
            unrolled<n>([&](auto i) {
                if (gated) r[i] = r[i] * load<R, Arch>(gate.pointer(0, done + i));
                store(r[i], x.pointer(0, done + i));
            });
        }
    } else if (x.stride(1) == 1 && (!gated || gate.stride(1) == 1)) {
        for (index i = 0; i < rows; ++i) {
            for_each_lanes<R, Arch>(length, [&](auto range) {
                auto v = range.load(from + i * pitch);
                if (gated) v = v * range.load(gate.pointer(i, 0));
                range.store(v, x.pointer(i, 0));
            });
        }
        return;
    }
    for (index i = 0; i < rows; ++i) {
        for (index t = done; t < length; ++t) {
            const R v = from[i * pitch + t];
            x(i, t) = static_cast<T>(gated ? v * static_cast<R>(gate(i, t)) : v);
        }
    }
}

/// Outputs of a row by sums: y_t = Σ_q w_q v_{t - behind + q}, q < taps. The lanes run along time.
template <class R, class Arch>
[[gnu::noinline, gnu::flatten]] void direct_row(const fft_conv_source<R, Arch>& v, const R* w, index taps, index behind,
                                                const fft_conv_target<R, Arch>& y)
{
    constexpr index n = lanes<R, Arch>, together = 8, tile = 64 * n;
    static constexpr index most = fft_conv_direct_taps<R, Arch>;
    alignas(64) R window[static_cast<std::size_t>(tile + (most / n + 2) * n)];
    for (index t0 = y.begin; t0 < y.end; t0 += tile) {
        const index outputs = std::min(tile, y.end - t0), needed = outputs + taps - 1;
        for (index j = 0; j < needed + n; j += n) store(v(t0 - behind + j), window + j);  // the last sums of a row read on
        index j = 0;
        for (; j + together * n <= outputs; j += together * n) {
            vec<R, Arch> sums[static_cast<std::size_t>(together)];
            unrolled<together>([&](auto i) { sums[i] = vec<R, Arch>(R(0)); });
            for (index q = 0; q < taps; ++q) {
                const vec<R, Arch> tap(w[q]);
                unrolled<together>([&](auto i) { sums[i] = multiply_add(tap, load<R, Arch>(window + j + q + i * n), sums[i]); });
            }
            unrolled<together>([&](auto i) { y(t0 + j + i * n, sums[i]); });
        }
        for (; j < outputs; j += n) {
            vec<R, Arch> sum(R(0));
            for (index q = 0; q < taps; ++q) sum = multiply_add(vec<R, Arch>(w[q]), load<R, Arch>(window + j + q), sum);
            y(t0 + j, sum);
        }
    }
}

}  // namespace ssmkit::detail
