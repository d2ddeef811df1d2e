#pragma once

// The causal convolution where channels are contiguous: lanes along the channels, a few tokens of every channel at a time.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ssmkit/detail/causal_conv1d_tokens.hpp>

namespace ssmkit::detail {

/// Taps and bias of neighbouring channels, turned so that registers load them: element (j, c) of (width + 1, channels).
template <class R, index Width>
struct conv_taps {
    static constexpr index channels = 4096 / static_cast<index>(sizeof(R));  // a page of float x; 20 KB of taps for width 4
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

/// Where a block of tokens reads and writes, from the chunk's first channel on. XStride and YStride are those of the channels:
/// std::integral_constant<index, 1>, or an index.
template <class T, index Width, class XStride, class YStride>
struct conv_block_rows {
    const T* past[static_cast<std::size_t>(Width)];  // the inputs of the width - 1 tokens before
    const T* x;                                      // of the first token
    T* y;
    index x_step, y_step;  // from a token to the next
    XStride x_stride;
    YStride y_stride;
};

/// A block of tokens of neighbouring channels: every element of x is loaded once, and those of the tokens before again. With
/// one token at a time the rows would be read from L2 `width` times (2.2 times the cost of 4), 8 save 15 to 25 % over 4; with
/// 16, the processor does not recognise so many streams (1.5 times). Prefetching 8 tokens ahead saves 10 to 20 %. All rows are
/// read before one is written: where their addresses agree in the low bits, as with rows of 20 KB, a load would wait for the
/// store before it.
template <class Arch, index Tokens, class T, index Width, class XStride, class YStride, class Lanes>
[[gnu::always_inline]] inline void conv_rows_step(const conv_block_rows<T, Width, XStride, YStride>& block,
                                                  const conv_taps<compute_t<T>, Width>& taps, bool silu, bool streaming,
                                                  Lanes channels)
{
    using v = vec<compute_t<T>, Arch>;
    constexpr index ahead = 8;
    v x[Width - 1 + Tokens];
    unrolled<Width - 1>([&](auto j) { x[j] = channels.load(block.past[j], block.x_stride); });
    unrolled<Tokens>([&](auto i) {
        prefetch(block.x + channels.first + (ahead + i) * block.x_step);
        x[Width - 1 + i] = channels.load(block.x + i * block.x_step, block.x_stride);
    });
    v w[Width], sums[Tokens];
    unrolled<Width>([&](auto j) { w[j] = channels.load(taps[j]); });
    const v bias = channels.load(taps[Width]);
    unrolled<Tokens>([&](auto i) {
        sums[i] = bias;
        unrolled<Width>([&](auto j) { sums[i] = multiply_add(w[j], x[i + j], sums[i]); });
    });
    if (silu) unrolled<Tokens>([&](auto i) { sums[i] = bounded_silu(sums[i]); });
    unrolled<Tokens>([&](auto i) { conv_store(channels, sums[i], block.y + i * block.y_step, block.y_stride, streaming); });
}

/// All channels of a block; `lead` of them come before the first aligned address of y.
template <class Arch, index Tokens, class T, index Width, class XStride, class YStride>
[[gnu::noinline, gnu::flatten]] void conv_rows_block(const conv_block_rows<T, Width, XStride, YStride>& where,
                                                     const conv_taps<compute_t<T>, Width>& taps, bool silu, bool streaming,
                                                     index lead, index count)
{
    using R = compute_t<T>;
    constexpr index n = lanes<R, Arch>;
    const conv_block_rows<T, Width, XStride, YStride> block = where;
    const index full = lead + (count - lead) / n * n;
    for (index c = lead; c < full; c += n) {
        conv_rows_step<Arch, Tokens>(block, taps, silu, streaming, lane_range<R, Arch, true>{c});
    }
    for (const auto edge : {lane_range<R, Arch, false>{0, lead}, lane_range<R, Arch, false>{full, count - full}}) {
        if (edge.count > 0) conv_rows_step<Arch, Tokens>(block, taps, silu, streaming, edge);
    }
}

/// Tokens [first, last) of channels [c0, c0 + count), no more than conv_taps holds: sweeps over whole rows of the chunk, a
/// few at a time.
template <class Arch, index Width, class T>
class conv_rows {
    using R = compute_t<T>;

public:
    conv_rows(const causal_conv1d_args<T>& a, const conv_row<T>& row, const view<T, 2>& y, index c0, index count, bool streaming)
        : a_(a), row_(row), y_(y), c0_(c0), count_(count), streaming_(streaming)
    {
        taps_.load(a.weight, a.bias, c0, count);
    }

    void run(index first, index last)
    {
        // Streaming stores need aligned addresses: a short register up to the first of them.
        constexpr index n = lanes<R, Arch>;
        const auto address = reinterpret_cast<std::uintptr_t>(y_.pointer(first, c0_)) / sizeof(T);
        lead_ = streaming_ ? std::min(count_, (n - static_cast<index>(address % static_cast<std::uintptr_t>(n))) % n) : 0;
        const bool together = row_.x.stride(1) == 1 && y_.stride(1) == 1;
        if (first < Width - 1 && together) load_past();
        row_.for_each_run(first, last, [&](index begin, index end, bool whole) {
            if (!whole) return any(begin, end);
            if (together) {
                blocks(begin, end, std::integral_constant<index, 1>{}, std::integral_constant<index, 1>{});
            } else {
                any(begin, std::min(end, Width - 1));
                blocks(std::max(begin, Width - 1), end, row_.x.stride(1), y_.stride(1));
            }
        });
    }

private:
    /// The inputs before the first token, as rows.
    void load_past()
    {
        for (index j = 0; j < Width - 1; ++j) {
            for (index c = 0; c < count_; ++c) past(j)[c] = row_.initial_states.data() ? row_.initial_states(c0_ + c, j) : T(0);
        }
    }

    T* past(index j) { return past_ + j * conv_taps<R, Width>::channels; }

    void any(index begin, index end) const
    {
        for_each_lanes<R, Arch>(begin < end ? count_ : 0, [&](auto channels) {
            channels.first += c0_;
            conv_any<Arch>(a_, row_, y_, begin, end, channels);
        });
    }

    template <class XStride, class YStride>
    void blocks(index t, index end, XStride x_stride, YStride y_stride)
    {
        const auto advance = [&](auto tokens) {
            for (; t + tokens <= end; t += tokens) {
                conv_block_rows<T, Width, XStride, YStride> block{
                    {}, row_.x.pointer(t, c0_), y_.pointer(t, c0_), row_.x.stride(0), y_.stride(0), x_stride, y_stride};
                for (index j = 0; j < Width - 1; ++j) {
                    const index before = t + j - (Width - 1);
                    block.past[j] = before < 0 ? past(Width - 1 + before) : row_.x.pointer(before, c0_);
                }
                conv_rows_block<Arch, tokens()>(block, taps_, a_.silu, streaming_, lead_, count_);
            }
        };
        constexpr bool contiguous = !std::is_same_v<XStride, index>;  // otherwise what an element costs hides the rest
        if constexpr (many_registers<Arch> && contiguous) advance(std::integral_constant<index, 8>{});
        advance(std::integral_constant<index, 4>{});
        advance(std::integral_constant<index, 1>{});
    }

    const causal_conv1d_args<T>& a_;
    const conv_row<T>& row_;
    const view<T, 2>& y_;
    index c0_, count_, lead_ = 0;
    bool streaming_;
    conv_taps<R, Width> taps_;
    alignas(64) T past_[static_cast<std::size_t>((Width > 1 ? Width - 1 : 1) * conv_taps<R, Width>::channels)];
};

}  // namespace ssmkit::detail
