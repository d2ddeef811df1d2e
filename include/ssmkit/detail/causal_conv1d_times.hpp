#pragma once

// The causal convolution where time is contiguous: lanes along time, one channel after the other.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include <ssmkit/detail/causal_conv1d_tokens.hpp>

namespace ssmkit::detail {

/// Tokens [first, last) of one channel, all whole, whose taps are tap(0), tap(1), ... A tap is one unaligned load; the loads
/// of one register overlap those of the next. Width 0: any; then first is at least width - 1.
///
/// Where the taps reach before the first token, and up to the first aligned address of y, a copy of the inputs is read.
template <class Arch, index Width, class T, class Tap>
void conv_times(const conv_row<T>& row, const view<T, 2>& y, const Tap& tap, compute_t<T> bias, bool silu, bool streaming,
                index first, index last, index c)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const index width = Width ? Width : row.width, past = width - 1;
    const index step = row.x.stride(0);  // 1, or -1 where the tokens are visited against their order in memory
    const auto output = [&](auto range, const auto* inputs, index direction) {
        // The tokens of a register lie upwards in memory from the first or, in the other direction, from the last of them.
        const auto* const p = direction < 0 ? inputs - (range.count - 1) : inputs;
        v sum(bias);
        for (index j = 0; j < width; ++j) {
            sum = multiply_add(v(tap(j)), lane_range<R, Arch, decltype(range)::full>{0, range.count}.load(p + j * direction), sum);
        }
        return silu ? bounded_silu(sum) : sum;
    };

    if (Width > 0 && (first < past || streaming)) {
        index head = std::max(first, past);  // the token from which on everything is read in place
        if (streaming) {
            const auto lowest = reinterpret_cast<std::uintptr_t>(y.pointer(step < 0 ? head + n - 1 : head, c));
            const auto misaligned = static_cast<index>(lowest / sizeof(T) % static_cast<std::uintptr_t>(n));
            head += step < 0 ? misaligned : (n - misaligned) % n;
        } else {
            head = std::max(head, first + n);  // a full register while at it
        }
        head = std::min(head, last);
        R inputs[static_cast<std::size_t>(2 * Width + n)];  // of tokens first - past ... head - 1
        for (index t = first - past; t < head; ++t) {
            const bool initial = t < 0 && row.initial_states.data();
            inputs[t - (first - past)] = t >= 0    ? static_cast<R>(row.x(t, c))
                                         : initial ? static_cast<R>(row.initial_states(c, past + t))
                                                   : R(0);
        }
        for_each_lanes<R, Arch>(head - first, [&](auto range) {
            range.store(output(range, static_cast<const R*>(inputs) + range.first, 1), y.pointer(first, c), step);
        });
        first = head;
    }
    const T* from = row.x.pointer(first - past, c);
    T* to = y.pointer(first, c);
    // Four registers are read before the first is stored: where x and y agree in the low bits of their addresses, a load
    // waits for the stores before it (Zen 4: 4 times the cost, one register at a time). Upwards in memory in both directions.
    constexpr index group = 4;
    const index grouped = (last - first) / (group * n) * (group * n);
    for (index k = 0; k < grouped; k += group * n) {
        const index lowest = step < 0 ? k - (grouped - 1) : k;
        v sums[group];
        unrolled<group>([&](auto m) { sums[m] = v(bias); });
        for (index j = 0; j < width; ++j) {
            const v w(tap(j));
            const T* const inputs = from + lowest + j * step;
            unrolled<group>([&](auto m) { sums[m] = multiply_add(w, load<R, Arch>(inputs + m * n), sums[m]); });
        }
        unrolled<group>([&](auto m) {
            conv_store(lane_range<R, Arch, true>{m * n}, silu ? bounded_silu(sums[m]) : sums[m], to + lowest, 1, streaming);
        });
    }
    from += grouped * step;
    to += grouped * step;
    for_each_lanes<R, Arch>(last - first - grouped, [&](auto range) {
        const index i = range.first * step;
        const v out = output(range, from + i, step);
        T* const target = to + i - (step < 0 ? range.count - 1 : 0);
        conv_store(lane_range<R, Arch, decltype(range)::full>{0, range.count}, out, target, 1, streaming);
    });
}

/// Tokens [first, last) of channels [c0, c0 + count), one channel after the other.
template <class Arch, index Width, class T>
void conv_channels(const causal_conv1d_args<T>& a, const conv_row<T>& row, const view<T, 2>& y, index first, index last,
                   index c0, index count, bool streaming)
{
    using R = compute_t<T>;
    const auto any = [&](index begin, index end) {
        for_each_lanes<R, Arch>(begin < end ? count : 0, [&](auto channels) {
            channels.first += c0;
            conv_any<Arch>(a, row, y, begin, end, channels);
        });
    };
    row.for_each_run(first, last, [&](index begin, index end, bool whole) {
        if (!whole) return any(begin, end);
        if constexpr (Width == 0) {
            any(begin, std::min(end, row.width - 1));
            begin = std::max(begin, row.width - 1);
            if (begin >= end) return;
        }
        for (index c = c0; c < c0 + count; ++c) {
            const R bias = a.bias.data() ? a.bias[c] : R(0);
            if constexpr (Width == 0) {
                const auto tap = [&](index j) { return a.weight(c, j); };
                conv_times<Arch, Width>(row, y, tap, bias, a.silu, false, begin, end, c);
            } else {
                std::array<R, Width> taps;
                for (index j = 0; j < Width; ++j) taps[static_cast<std::size_t>(j)] = a.weight(c, j);
                const auto tap = [&](index j) { return taps[static_cast<std::size_t>(j)]; };
                conv_times<Arch, Width>(row, y, tap, bias, a.silu, streaming, begin, end, c);
            }
        }
    });
}

}  // namespace ssmkit::detail
