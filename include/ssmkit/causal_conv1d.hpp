#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <ssmkit/args/causal_conv1d.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Widths up to this one keep their taps in registers; wider filters take them from memory.
inline constexpr index conv_register_width = 4;

/// The inputs of one batch row, tokens in the order of visiting.
template <class T>
struct conv_row {
    view<const T, 2> x;                  // (length, dim)
    view<const T, 2> initial_states;     // (dim, width - 1) or empty
    view<const std::int32_t, 1> seq_idx; // (length) or empty
    index width;

    conv_row(const causal_conv1d_args<T>& a, index b)
        : x(as_visited(a.x, a.reverse)[b]), initial_states(a.initial_states.data() ? a.initial_states[b] : view<const T, 2>{}),
          seq_idx(a.seq_idx.data() ? as_visited(a.seq_idx, a.reverse)[b] : view<const std::int32_t, 1>{}),
          width(a.weight.extent(1))
    {
    }

    index length() const { return x.extent(0); }
    index dim() const { return x.extent(1); }

    /// The sequence that token t belongs to, also for t < 0.
    std::int32_t sequence(index t) const { return seq_idx.data() ? seq_idx[t < 0 ? 0 : t] : 0; }

    /// True if every tap of token t reads its own sequence: nothing is masked.
    bool whole(index t) const
    {
        const std::int32_t own = seq_idx[t];
        if (own < 0) return false;
        for (index k = 1; k < width && k <= t; ++k) {
            if (seq_idx[t - k] != own) return false;
        }
        return true;
    }

    /// Calls f(first, last, whole) for runs of tokens that are all whole, or all not.
    template <class F>
    void for_each_run(index first, index last, F&& f) const
    {
        if (seq_idx.data() == nullptr) return f(first, last, true);
        for (index end; first < last; first = end) {
            const bool kind = whole(first);
            for (end = first + 1; end < last && whole(end) == kind; ++end) {
            }
            f(first, end, kind);
        }
    }
};

/// silu(x) = x / (1 + e^-x), for kernels that copying alone would bound. The bound keeps the reciprocal a normal number: an x
/// below it, -infinity too, gives -4e-36 for 0. float: 1.1e-6 relative from -20 on, 4e-6 down to -80.
template <class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> bounded_silu(const vec<R, Arch>& x)
{
    using v = vec<R, Arch>;
    // With the bound first, the x86 maximum returns a NaN in x.
    const v bounded = xsimd::max(v(R(std::is_same_v<R, float> ? -86 : -700)), x);
    return bounded * inverse(v(R(1)) + fast_exp2(bounded * v(R(-log2_e))));
}

/// Any width, any layout, tokens of any sequence: y of tokens [first, last) for up to a register of channels from c on. The
/// lanes run along the channels, which are independent. Sums grow in the order of the taps here and below: the same bits.
template <class Arch, class T, class Lanes>
void conv_any(const causal_conv1d_args<T>& a, const conv_row<T>& row, const view<T, 2>& y, index first, index last, Lanes channels)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index tokens = 32, taps = 16;  // sums that are under way, and taps that are loaded for them
    const index past = row.width - 1;
    const v bias = a.bias.data() ? channels.load(a.bias.data(), a.bias.stride(0)) : v(R(0));
    for (; first < last; first += tokens) {
        const index n = std::min(tokens, last - first);
        v sums[tokens];
        for (index i = 0; i < n; ++i) sums[i] = bias;
        for (index tap = 0; tap < row.width; tap += taps) {
            const index m = std::min(taps, row.width - tap);
            v w[taps];
            for (index j = 0; j < m; ++j) w[j] = channels.load(a.weight.pointer(0, tap + j), a.weight.stride(0));
            for (index i = 0; i < n; ++i) {
                const std::int32_t own = row.sequence(first + i);
                for (index j = 0; j < m; ++j) {
                    const index t = first + i + tap + j - past;
                    if (row.sequence(t) != own) continue;
                    v x(R(0));
                    if (t >= 0) {
                        x = channels.load(row.x.pointer(t), row.x.stride(1));
                    } else if (row.initial_states.data()) {
                        x = channels.load(row.initial_states.pointer(0, past + t), row.initial_states.stride(0));
                    }
                    sums[i] = multiply_add(w[j], x, sums[i]);
                }
            }
        }
        for (index i = 0; i < n; ++i) {
            v out = a.silu ? bounded_silu(sums[i]) : sums[i];
            if (row.sequence(first + i) < 0) out = v(R(0));
            channels.store(out, y.pointer(first + i), y.stride(1));
        }
    }
}

/// An output of this size or more goes around the caches.
inline constexpr index conv_streaming_bytes = index{4} << 20;

/// Stores to elements of a stride; where they are contiguous and aligned, around the caches if so asked.
template <class Lanes, class T, class Arch, class E>
[[gnu::always_inline]] inline void conv_store(Lanes lanes, const vec<T, Arch>& x, E* p, index stride, bool streaming)
{
    if constexpr (Lanes::full && std::is_same_v<T, E>) {
        if (streaming) return store_streaming(x, p + lanes.first);
    }
    lanes.store(x, p, stride);
}

// ---- Channel-contiguous: lanes along the channels ------------------------------------------------------------------

/// Taps and bias of neighbouring channels, turned so that registers load them: element (j, c) of (width + 1, channels).
template <class R, index Width>
struct conv_taps {
    static constexpr index channels = 4096 / static_cast<index>(sizeof(R));  // a page of x; 20 KB of taps for width 4
    alignas(64) R values[static_cast<std::size_t>((Width + 1) * channels)];

    void load(const view<const R, 2>& weight, const view<const R, 1>& bias, index first, index count)
    {
        for (index c = 0; c < count; ++c) {
            for (index j = 0; j < Width; ++j) values[j * channels + c] = weight(first + c, j);
        }
        for (index c = 0; c < count; ++c) values[Width * channels + c] = bias.data() ? bias[first + c] : R(0);
    }

    const R* operator[](index j) const { return values + j * channels; }
};

/// A few tokens of neighbouring channels, from `first` on: every element of x is loaded once. With one token at a time the
/// rows would be read from L2 `width` times (2.2 times the cost); with 16, the processor does not recognise so many streams
/// (1.5 times). Prefetching two steps ahead saves 10 to 20 %. All rows are read before one is written: where their addresses
/// agree in the low bits, as with rows of 20 KB, a load would wait for the store before it.
///
/// Stride is that of the channels in x and y: std::integral_constant<index, 1>, or an index if one of the two is another.
template <class Arch, index Width, index Tokens, class T, class Stride, class Lanes>
[[gnu::always_inline]] inline void conv_rows_step(const conv_row<T>& row, const conv_taps<compute_t<T>, Width>& taps,
                                                  const view<T, 2>& y, bool silu, bool streaming, index first, index c0,
                                                  Stride x_stride, Stride y_stride, Lanes channels)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    constexpr index ahead = 8;
    v x[Width - 1 + Tokens];  // of tokens first - (Width - 1) ...
    unrolled<Width - 1>([&](auto j) {
        const index t = first + j - (Width - 1);
        if (t >= 0) {
            x[j] = channels.load(row.x.pointer(t, c0), x_stride);
        } else if (row.initial_states.data()) {
            x[j] = channels.load(row.initial_states.pointer(c0, Width - 1 + t), row.initial_states.stride(0));
        } else {
            x[j] = v(R(0));
        }
    });
    const T* const from = row.x.pointer(first, c0);
    T* const to = y.pointer(first, c0);
    const index from_step = row.x.stride(0), to_step = y.stride(0);
    unrolled<Tokens>([&](auto i) {
        prefetch(from + channels.first + (ahead + i) * from_step);
        x[Width - 1 + i] = channels.load(from + i * from_step, x_stride);
    });
    v w[Width], sums[Tokens];
    unrolled<Width>([&](auto j) { w[j] = channels.load(taps[j]); });
    const v bias = channels.load(taps[Width]);
    unrolled<Tokens>([&](auto i) {
        sums[i] = bias;
        unrolled<Width>([&](auto j) { sums[i] = multiply_add(w[j], x[i + j], sums[i]); });
    });
    if (silu) unrolled<Tokens>([&](auto i) { sums[i] = bounded_silu(sums[i]); });
    unrolled<Tokens>([&](auto i) { conv_store(channels, sums[i], to + i * to_step, y_stride, streaming); });
}

/// Tokens [first, last) of channels [c0, c0 + count), no more than conv_taps holds: sweeps over whole rows of the block, a
/// few at a time.
template <class Arch, index Width, class T>
void conv_rows(const causal_conv1d_args<T>& a, const conv_row<T>& row, const view<T, 2>& y, index first, index last, index c0,
               index count, bool streaming)
{
    using R = compute_t<T>;
    conv_taps<R, Width> taps;
    taps.load(a.weight, a.bias, c0, count);
    // Streaming stores need aligned addresses: a short register up to the first of them.
    const auto address = reinterpret_cast<std::uintptr_t>(y.pointer(first, c0)) / sizeof(T);
    const index n = lanes<R, Arch>, lead = streaming ? (n - static_cast<index>(address % static_cast<std::uintptr_t>(n))) % n : 0;
    const auto sweep = [&](auto&& f) {
        if (lead > 0) f(lane_range<R, Arch, false>{0, std::min(lead, count)});
        for_each_lanes<R, Arch>(count - lead, [&](auto channels) {
            channels.first += lead;
            f(channels);
        });
    };
    row.for_each_run(first, last, [&](index begin, index end, bool whole) {
        if (!whole) {
            return sweep([&](auto channels) {
                channels.first += c0;
                conv_any<Arch>(a, row, y, begin, end, channels);
            });
        }
        const auto blocks = [&](auto x_stride, auto y_stride) {
            const auto block = [&](index t, auto tokens) {
                sweep([&](auto channels) {
                    conv_rows_step<Arch, Width, tokens()>(row, taps, y, a.silu, streaming, t, c0, x_stride, y_stride, channels);
                });
            };
            index t = begin;
            for (; t + 4 <= end; t += 4) block(t, std::integral_constant<index, 4>{});
            if (t + 2 <= end) {
                block(t, std::integral_constant<index, 2>{});
                t += 2;
            }
            if (t < end) block(t, std::integral_constant<index, 1>{});
        };
        if (row.x.stride(1) == 1 && y.stride(1) == 1) {
            blocks(std::integral_constant<index, 1>{}, std::integral_constant<index, 1>{});
        } else {
            blocks(row.x.stride(1), y.stride(1));
        }
    });
}

// ---- Time-contiguous: lanes along time -----------------------------------------------------------------------------

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

// ---- The whole problem ---------------------------------------------------------------------------------------------

/// How a call is cut into tasks, whatever the number of threads.
template <class T>
struct conv_partition {
    bool along_time;               // lanes along time, otherwise along the channels
    index tokens, channels;        // of a task
    index token_tasks, channel_tasks;

    explicit conv_partition(const causal_conv1d_args<T>& a)
    {
        const index length = a.x.extent(1), dim = a.x.extent(2);
        const auto contiguous = [&](std::size_t axis) {
            return (a.x.stride(axis) == 1 || a.x.stride(axis) == -1) && a.x.stride(axis) == a.y.stride(axis);
        };
        along_time = contiguous(1) && !(contiguous(2) && dim >= length);
        // Along the channels a task sweeps over rows of a page; along time it keeps to few channels, each a stream.
        tokens = along_time ? 8192 : 256;
        channels = along_time ? 8 : conv_taps<compute_t<T>, conv_register_width>::channels;
        token_tasks = (length + tokens - 1) / tokens;
        channel_tasks = (dim + channels - 1) / channels;
    }

    std::size_t tasks(index batch) const { return static_cast<std::size_t>(batch * token_tasks * channel_tasks); }
};

template <class Arch, index Width, class T>
void conv_task(const causal_conv1d_args<T>& a, const conv_partition<T>& p, index task)
{
    using R = compute_t<T>;
    const index b = task / (p.token_tasks * p.channel_tasks), rest = task % (p.token_tasks * p.channel_tasks);
    const index first = rest / p.channel_tasks * p.tokens, c0 = rest % p.channel_tasks * p.channels;
    const index last = std::min(first + p.tokens, a.x.extent(1)), count = std::min(p.channels, a.x.extent(2) - c0);
    const conv_row<T> row(a, b);
    const view<T, 2> y = as_visited(a.y, a.reverse)[b];
    const bool streaming =
        std::is_same_v<T, R> && a.y.size() * static_cast<index>(sizeof(T)) >= conv_streaming_bytes &&
        reinterpret_cast<std::uintptr_t>(a.y.data()) % sizeof(T) == 0 && (p.along_time || y.stride(0) % lanes<R, Arch> == 0);
    if (p.along_time) {
        conv_channels<Arch, Width>(a, row, y, first, last, c0, count, streaming);
    } else if constexpr (Width == 0) {
        constexpr index step = 32;
        for (index t = first; t < last; t += step) {
            for_each_lanes<R, Arch>(count, [&](auto channels) {
                channels.first += c0;
                conv_any<Arch>(a, row, y, t, std::min(t + step, last), channels);
            });
        }
    } else {
        conv_rows<Arch, Width>(a, row, y, first, last, c0, count, streaming && y.stride(1) == 1);
    }
    if (streaming) streaming_fence();
}

/// Calls f with the width as a constant, 0 for those that stay in memory.
template <class F>
void with_conv_width(index width, F&& f)
{
    switch (width) {
    case 1: return f(std::integral_constant<index, 1>{});
    case 2: return f(std::integral_constant<index, 2>{});
    case 3: return f(std::integral_constant<index, 3>{});
    case 4: return f(std::integral_constant<index, 4>{});
    default: return f(std::integral_constant<index, 0>{});
    }
}

/// The inputs that a next call needs.
template <class T>
void conv_final_states(const causal_conv1d_args<T>& a)
{
    const index past = a.weight.extent(1) - 1;
    for (index b = 0; b < a.x.extent(0); ++b) {
        const conv_row<T> row(a, b);
        const view<T, 2> states = a.final_states[b];
        const index n = unpadded_length(row.seq_idx, row.length());
        for (index j = 0; j < past; ++j) {
            const index t = n + j - past;
            const bool held = n == 0 || row.sequence(t) == row.sequence(n - 1);
            for (index c = 0; c < row.dim(); ++c) {
                if (held && t >= 0) {
                    states(c, j) = row.x(t, c);
                } else {
                    states(c, j) = held && row.initial_states.data() ? row.initial_states(c, past + t) : T(0);
                }
            }
        }
    }
}

}  // namespace detail

/// The short causal convolution: shapes, equations and options at causal_conv1d_args. Throws shape_error before anything is
/// written. Work splits over batch, time and channels; the result does not depend on the split, bit for bit, and no memory
/// is allocated. float results lie within 2e-6 of the largest output of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void causal_conv1d(const causal_conv1d_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const conv_partition<T> partition(a);
    with_conv_width(a.weight.extent(1), [&](auto width) {
        run_tasks(exec, partition.tasks(a.x.extent(0)), [&](std::size_t task, std::size_t) {
            const flush_denormals guard;
            conv_task<Arch, width()>(a, partition, static_cast<index>(task));
        });
    });
    if (a.final_states.data()) conv_final_states(a);
}

}  // namespace ssmkit
