#pragma once

// What the two ways through a causal convolution share, with lanes along the channels and along time: the inputs of a batch row,
// the way of a token whose taps are masked or whose layout is any, and the stores.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ssmkit/args/causal_conv1d.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/simd.hpp>

namespace ssmkit::detail {

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
/// below it, -infinity too, gives -4e-36 for 0, in double -7e-302. float: 1.1e-6 relative from -20 on, 4e-6 down to -80.
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

}  // namespace ssmkit::detail
