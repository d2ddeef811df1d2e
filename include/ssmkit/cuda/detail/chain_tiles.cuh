#pragma once

// First-order recurrences h ← a h + b on the device, many of them side by side: how a block of threads divides channels and tokens,
// and how what one thread's tokens do to the state reaches the next thread. The linear scan's two passes and S5 are written on it.

#include <algorithm>
#include <complex>
#include <cstdint>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/cuda/device.cuh>
#include <ssmkit/view.hpp>

namespace ssmkit::cuda::detail {

// ---- numbers: float, or a pair of them ------------------------------------------------------------------------------------

struct alignas(8) complex_number {
    float re, im;
};

/// What a stored T is computed as.
template <class T>
using number_of = std::conditional_t<ssmkit::detail::is_complex<T>, complex_number, float>;

/// What is loaded ahead of its use: elements as they are stored.
template <class T>
using raw_of = std::conditional_t<ssmkit::detail::is_complex<T>, complex_number, T>;

__device__ __forceinline__ float times(float x, float y) { return x * y; }
__device__ __forceinline__ complex_number times(complex_number x, complex_number y)
{
    return {fmaf(x.re, y.re, -(x.im * y.im)), fmaf(x.re, y.im, x.im * y.re)};
}
/// x y + z.
__device__ __forceinline__ float times_plus(float x, float y, float z) { return fmaf(x, y, z); }
__device__ __forceinline__ complex_number times_plus(complex_number x, complex_number y, complex_number z)
{
    return {fmaf(x.re, y.re, fmaf(-x.im, y.im, z.re)), fmaf(x.re, y.im, fmaf(x.im, y.re, z.im))};
}
__device__ __forceinline__ float plus(float x, float y) { return x + y; }
__device__ __forceinline__ complex_number plus(complex_number x, complex_number y) { return {x.re + y.re, x.im + y.im}; }
__device__ __forceinline__ float conjugate(float x) { return x; }
__device__ __forceinline__ complex_number conjugate(complex_number x) { return {x.re, -x.im}; }
__device__ __forceinline__ float chosen(bool first, float x, float y) { return first ? x : y; }
__device__ __forceinline__ complex_number chosen(bool first, complex_number x, complex_number y)
{
    return {first ? x.re : y.re, first ? x.im : y.im};
}

template <class Number>
__device__ __forceinline__ Number real_number(float x)
{
    if constexpr (std::is_same_v<Number, float>) {
        return x;
    } else {
        return {x, 0.0f};
    }
}

template <class T>
__device__ __forceinline__ number_of<T> number_from(raw_of<T> x)
{
    if constexpr (ssmkit::detail::is_complex<T>) {
        return x;
    } else {
        return widened(x);
    }
}

/// `pairs`: both parts of a complex number in one access of 8 bytes, which its address must allow.
template <class T>
__device__ __forceinline__ raw_of<T> load_raw(const T* at, bool pairs)
{
    if constexpr (ssmkit::detail::is_complex<T>) {
        const float* const parts = reinterpret_cast<const float*>(at);
        if (pairs) {
            const float2 both = *reinterpret_cast<const float2*>(parts);
            return {both.x, both.y};
        }
        return {parts[0], parts[1]};
    } else {
        return *at;
    }
}

template <class T>
__device__ __forceinline__ void store_number(number_of<T> x, T* at, bool pairs)
{
    if constexpr (ssmkit::detail::is_complex<T>) {
        float* const parts = reinterpret_cast<float*>(at);
        if (pairs) {
            *reinterpret_cast<float2*>(parts) = make_float2(x.re, x.im);
        } else {
            parts[0] = x.re, parts[1] = x.im;
        }
    } else {
        *at = narrowed<T>(x);
    }
}

template <class T, std::size_t Rank>
bool allows_pairs(const view<T, Rank>& v)
{
    return reinterpret_cast<std::uintptr_t>(v.data()) % 8 == 0;
}

// ---- a block of threads -----------------------------------------------------------------------------------------------------

/// 16 rows of threads of 16 channels: the threads of a row have the same Tokens successive tokens, row after row. Turned: a warp
/// has all rows of two channels, loads successive tokens by neighbouring threads and hands them over in shared memory; otherwise
/// neighbouring threads have neighbouring channels, and each loads its own tokens.
template <int Tokens, bool Turned, class Number>
struct chain_tiles {
    static constexpr int rows = 16, channels = 16, threads = rows * channels, tokens = Tokens, tile = rows * Tokens;
    static constexpr int turned_channels = 2, words = tile / 32;  // of flags; also: loads of a thread and channel where turned
    static constexpr int pitch = tile + rows;                     // of a channel: a word more each row, against bank conflicts

    struct memory {
        Number factor[2][threads], sum[2][threads];  // what each row does to the state; the halves take turns
        unsigned closed[2][threads];
        Number hand_over[Turned ? channels * pitch : 1];
    };

    memory& shared;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int row = Turned ? threadIdx.x % rows : threadIdx.x / channels;
    const int channel = Turned ? threadIdx.x / rows : threadIdx.x % channels;
    int half = 0;

    __device__ explicit chain_tiles(memory& m) : shared(m) {}

    /// Token and channel, within the tile, of a thread's load i.
    __device__ __forceinline__ int token_of(int i) const { return Turned ? i % words * 32 + lane : row * Tokens + i; }
    __device__ __forceinline__ int channel_of(int i) const { return Turned ? warp * turned_channels + i / words : channel; }

    /// Where a thread's load 0 of the tile at `first` is.
    template <class T>
    __device__ __forceinline__ T* place(const view<T, 3>& v, index b, index first, index c0) const
    {
        return v.pointer(b, first + token_of(0), c0 + channel_of(0));
    }

    /// The thread's elements of a tile; those of tokens from `count` on and channels from `there` on are zeros.
    template <class T>
    __device__ __forceinline__ void fetch(raw_of<T> (&to)[Tokens], const T* at, index time, index across, index count, index there,
                                          bool pairs) const
    {
        const bool whole = count >= tile && there >= channels;
        const auto all = [&](auto whole_constant, bool together) {
#pragma unroll
            for (int i = 0; i < Tokens; ++i) {
                if constexpr (!decltype(whole_constant)::value) {
                    to[i] = raw_of<T>{};
                    if (token_of(i) >= count || channel_of(i) >= there) continue;
                }
                to[i] = load_raw(Turned ? at + i % words * (32 * time) + i / words * across : at + i * time, together);
            }
        };
        if (!whole) {
            all(std::false_type{}, false);
        } else if (!ssmkit::detail::is_complex<T> || pairs) {
            all(std::true_type{}, true);
        } else {
            all(std::true_type{}, false);
        }
    }

    /// Those of the thread's own tokens out of what all have fetched.
    template <class T>
    __device__ __forceinline__ void arrange(const raw_of<T> (&from)[Tokens], Number (&to)[Tokens])
    {
        if constexpr (Turned) {
            __syncwarp();  // what the warp has handed over before is taken
#pragma unroll
            for (int i = 0; i < Tokens; ++i) shared.hand_over[over(channel_of(i), token_of(i))] = number_from<T>(from[i]);
            __syncwarp();
#pragma unroll
            for (int i = 0; i < Tokens; ++i) to[i] = shared.hand_over[over(channel, row * Tokens + i)];
        } else {
#pragma unroll
            for (int i = 0; i < Tokens; ++i) to[i] = number_from<T>(from[i]);
        }
    }

    template <class T>
    __device__ __forceinline__ void store(Number (&from)[Tokens], T* at, index time, index across, index count, index there,
                                          bool pairs)
    {
        if constexpr (Turned) {
            __syncwarp();
#pragma unroll
            for (int i = 0; i < Tokens; ++i) shared.hand_over[over(channel, row * Tokens + i)] = from[i];
            __syncwarp();
#pragma unroll
            for (int i = 0; i < Tokens; ++i) from[i] = shared.hand_over[over(channel_of(i), token_of(i))];
        }
        const bool whole = count >= tile && there >= channels;
        const auto all = [&](auto whole_constant, bool together) {
#pragma unroll
            for (int i = 0; i < Tokens; ++i) {
                if constexpr (!decltype(whole_constant)::value) {
                    if (token_of(i) >= count || channel_of(i) >= there) continue;
                }
                store_number<T>(from[i], Turned ? at + i % words * (32 * time) + i / words * across : at + i * time, together);
            }
        };
        if (!whole) {
            all(std::false_type{}, false);
        } else if (!ssmkit::detail::is_complex<T> || pairs) {
            all(std::true_type{}, true);
        } else {
            all(std::true_type{}, false);
        }
    }

    /// The flags of a tile, loaded ahead: a thread's share of them.
    struct flags {
        unsigned loaded[Turned ? words : 1];
    };
    __device__ __forceinline__ void fetch_flags(flags& to, const view<const std::uint8_t, 2>& v, index b, index first,
                                                index count) const
    {
#pragma unroll
        for (int k = 0; k < (Turned ? words : 1); ++k) {
            const int token = Turned ? k * 32 + lane : row * Tokens + lane % 16;
            to.loaded[k] = (Turned || lane % 16 < Tokens) && token < count ? v(b, first + token) : 0;
        }
    }
    /// Bit i: the flag of the thread's token i.
    __device__ __forceinline__ unsigned own_flags(const flags& f) const
    {
        constexpr unsigned mask = (1u << Tokens) - 1;
        if constexpr (Turned) {
            unsigned own = 0;
#pragma unroll
            for (int k = 0; k < words; ++k) {
                const unsigned all = __ballot_sync(0xffffffffu, f.loaded[k] != 0);
                if (row * Tokens / 32 == k) own = all >> row * Tokens % 32;
            }
            return own & mask;
        } else {
            return __ballot_sync(0xffffffffu, f.loaded[0] != 0) >> (lane & 16) & mask;
        }
    }

    /// Each thread hands in what its row does to the state: h ← factor h + sum, or h ← sum where `closed`. From the state before
    /// the first row, `state`, it gets the one before its own, and state becomes that after the last. In the order of the rows,
    /// whoever comes first. Without `flags` no row is closed.
    __device__ __forceinline__ Number fold(Number factor, Number sum, bool closed, bool flags, Number& state)
    {
        const int base = Turned ? channel * rows : channel, step = Turned ? 1 : channels, own = base + row * step;
        shared.factor[half][own] = factor;
        shared.sum[half][own] = sum;
        if (flags) shared.closed[half][own] = closed;
        synchronise();
        Number before = state;
#pragma unroll
        for (int k = 0; k < rows; ++k) {
            if (k == row) before = state;
            const Number s = shared.sum[half][base + k * step];
            const Number next = times_plus(shared.factor[half][base + k * step], state, s);
            state = chosen(flags && shared.closed[half][base + k * step], s, next);
        }
        half ^= 1;
        return before;
    }

    /// The same for a state that is not known: what all rows do to it joins what was done before.
    __device__ __forceinline__ void join(Number factor, Number sum, bool closed, Number& all_factor, Number& all_sum,
                                         bool& all_closed)
    {
        const int base = Turned ? channel * rows : channel, step = Turned ? 1 : channels, own = base + row * step;
        shared.factor[half][own] = factor;
        shared.sum[half][own] = sum;
        shared.closed[half][own] = closed;
        synchronise();
#pragma unroll
        for (int k = 0; k < rows; ++k) {
            const Number f = shared.factor[half][base + k * step], s = shared.sum[half][base + k * step];
            const bool closes = shared.closed[half][base + k * step];
            all_sum = chosen(closes, s, times_plus(f, all_sum, s));
            all_factor = times(all_factor, f);
            all_closed |= closes;
        }
        half ^= 1;
    }

private:
    /// Rows and their padding.
    __device__ static __forceinline__ int over(int channel, int token) { return channel * pitch + token + token / Tokens; }
    __device__ static __forceinline__ void synchronise()
    {
        if constexpr (Turned) {
            __syncwarp();
        } else {
            __syncthreads();
        }
    }
};

// ---- time in segments -------------------------------------------------------------------------------------------------------

/// Where there are few chains (a batch row's 16 channels), time is cut into segments: a first pass finds what each does to the
/// state, the second one begins each with the state that the earlier ones leave, folded in their order.
struct chain_plan {
    index groups = 0;          ///< of 16 channels
    index chains = 0;          ///< groups of all batch rows
    index segments = 1;
    index segment_tokens = 0;  ///< of all but the last
    /// (batch, segments, state) each: slot 0 has the state before the first segment, slot i what segment i - 1 does.
    void *factors = nullptr, *sums = nullptr;
    std::uint8_t* closed = nullptr;
};

/// 132 multiprocessors hold two blocks each. A chain of its own moves 48 KiB in the microsecond or so that a tile takes it; from 96
/// on they keep the memory busy, below that reading twice is cheaper than waiting.
inline chain_plan plan_chains(index batch, index length, index state, index tile)
{
    chain_plan p;
    p.groups = (state + 15) / 16;
    p.chains = batch * p.groups;
    const index tiles = (length + tile - 1) / tile;
    index segments = 1;
    if (p.chains > 0 && p.chains < 96 && tiles >= 8) segments = std::min({(264 + p.chains - 1) / p.chains, tiles / 2, index{256}});
    const index each = std::max<index>((tiles + segments - 1) / segments, 1);
    p.segments = std::max<index>((tiles + each - 1) / each, 1);
    p.segment_tokens = each * tile;
    return p;
}

/// Bytes of the plan's slots, from an address that is a multiple of 16.
inline std::size_t chain_slot_bytes(const chain_plan& p, index batch, index state, std::size_t number)
{
    if (p.segments == 1) return 0;
    return (static_cast<std::size_t>(batch * p.segments * state) * (2 * number + 1) + 15) / 16 * 16;
}

inline void place_chain_slots(chain_plan& p, std::byte* at, index batch, index state, std::size_t number)
{
    if (p.segments == 1) return;
    const std::size_t bytes = static_cast<std::size_t>(batch * p.segments * state) * number;
    p.factors = at;
    p.sums = at + bytes;
    p.closed = reinterpret_cast<std::uint8_t*>(at + 2 * bytes);
}

/// True if neighbouring threads had better take successive tokens: they are neighbours in memory, or there are few channels.
template <class T>
bool turned_chains(const view<T, 3>& v)
{
    const auto beside = [&](std::size_t axis) { return v.stride(axis) == 1 || v.stride(axis) == -1; };
    return v.extent(2) < 8 || (beside(1) && !beside(2));
}

inline std::byte* aligned_to_16(std::byte* at)
{
    return at + (16 - reinterpret_cast<std::uintptr_t>(at) % 16) % 16;
}

template <class Number>
__device__ __forceinline__ void write_chain_slot(const chain_plan& p, index b, index slot, index c, index state, Number factor,
                                                 Number sum, bool closed)
{
    const index at = (b * p.segments + slot) * state + c;
    static_cast<Number*>(p.factors)[at] = factor;
    static_cast<Number*>(p.sums)[at] = sum;
    p.closed[at] = closed;
}

/// The state that a segment begins with, out of the slots before it. Each row of threads folds its share of them.
template <class Tiles, class Number>
__device__ __forceinline__ Number state_of_segment(Tiles& tiles, const chain_plan& p, index b, index segment, index c, index state)
{
    const int slots = static_cast<int>(segment) + 1, each = (slots + Tiles::rows - 1) / Tiles::rows;
    const int first = tiles.row * each, last = min(first + each, slots);
    Number factor = real_number<Number>(1), sum = real_number<Number>(0), h = sum;
    bool closed = false;
#pragma unroll 4
    for (int i = first; i < last && c < state; ++i) {
        const index at = (b * p.segments + i) * state + c;
        const Number f = static_cast<const Number*>(p.factors)[at], s = static_cast<const Number*>(p.sums)[at];
        const bool closes = p.closed[at] != 0;
        sum = chosen(closes, s, times_plus(f, sum, s));
        factor = times(factor, f);
        closed |= closes;
    }
    tiles.fold(factor, sum, closed, true, h);
    return h;
}

}  // namespace ssmkit::cuda::detail
