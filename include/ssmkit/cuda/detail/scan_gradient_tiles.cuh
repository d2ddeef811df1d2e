#pragma once

// What the passes of the selective scan's gradients are written on: how the work is cut, what lies in the workspace, and a block of
// channels with a tile of tokens in its registers.

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <type_traits>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/cuda/detail/scan_tiles.cuh>

namespace ssmkit::cuda::detail {

template <class Param>
struct scan_backward_layout {
    static constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1;
    static constexpr int together = 2 / parts;                             // states that a thread works on at a time
    static constexpr int tokens = 8, tiles = 8, segment = tiles * tokens;  // of a tile; of a segment, and its tokens
    static constexpr int chunk = 16;                                       // states whose B and C lie in shared memory together
    static constexpr int map_row = segment + 4, map = chunk * parts * map_row;
    static constexpr int places = 5, row = places * tokens + 4;  // a thread's row: eight write 16 bytes each without conflicts
    static constexpr int values = together * 2 * parts * tokens;  // a channel's shares of dB and dC, of the states that go together
    static constexpr int sums = chunk / together * (values + 1);
    static constexpr int most_threads = 128;
    static_assert(values == 32, "a warp's lanes are left with one sum each");

    /// Shared memory: maps; a row a thread; in the main pass the warps' sums.
    static constexpr int carry_bytes(int threads) { return 4 * (2 * map + threads * row); }
    static constexpr int main_bytes(int threads) { return carry_bytes(threads) + 4 * threads / 32 * sums; }
};

/// How the work is cut, and what lies in the workspace.
struct scan_backward_plan {
    index segments = 0;        ///< of the sequence, scan_backward_layout::segment tokens each
    index unit = 0;            ///< channels that share their group of B and that of C
    int threads = 0;           ///< of a block: so many channels of a unit at most
    index blocks_of_unit = 0;  ///< that these channels take
    index blocks = 0;          ///< that all channels take
    index pairs = 0;           ///< of two states, or of a complex state's parts, side by side; a last one may be half there
    // Each (batch, segments, ...), but for the rates and the shares of dB and dC:
    float2* rates = nullptr;             ///< (pairs, dim): A
    float2* starts = nullptr;            ///< (tiles - 1, pairs, dim): the state before a tile, from zero before its segment
    float2* h = nullptr;                 ///< (pairs, dim): a segment's last state from zero; then the state it starts with
    float2* K = nullptr;                 ///< (pairs, dim): the gradient before a segment from zero after it; then that after it
    float2* dA = nullptr;                ///< (pairs, dim): a segment's share
    float2* steps = nullptr;             ///< (tiles, dim): the sum of steps from the segment's start to a tile's end, in two floats
    float* sums = nullptr;               ///< (2, dim): a segment's share of dD and of ddelta_bias
    float *dB = nullptr, *dC = nullptr;  ///< (blocks, batch, length, state, parts): a block's share
    std::uint32_t* severed = nullptr;    ///< (): a reset lies in the segment
};

/// The plan over `memory`, and the bytes it takes.
template <class T, class Param>
std::size_t plan_scan_backward(const selective_scan_backward_args<T, Param>& a, std::byte* memory, scan_backward_plan& plan)
{
    using layout = scan_backward_layout<Param>;
    const auto& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(1) * layout::parts;
    plan.segments = (length + layout::segment - 1) / layout::segment;
    if (dim > 0) {
        plan.unit = std::gcd(dim / f.B.extent(2), dim / f.C.extent(2));
        plan.threads = plan.unit >= layout::most_threads ? layout::most_threads : static_cast<int>((plan.unit + 31) / 32 * 32);
        plan.blocks_of_unit = (plan.unit + plan.threads - 1) / plan.threads;
        plan.blocks = dim / plan.unit * plan.blocks_of_unit;
    }
    plan.pairs = (state + 1) / 2;
    if (memory) memory += (~reinterpret_cast<std::uintptr_t>(memory) + 1) % 16;
    std::size_t bytes = 15;  // of which some go to the alignment
    const auto take = [&](auto*& p, index count) {
        p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(memory ? memory + (bytes - 15) : nullptr);
        bytes += (sizeof(*p) * static_cast<std::size_t>(count) + 255) / 256 * 256;
    };
    const index terms = batch * plan.segments, shares = plan.blocks * batch * length * state, carried = plan.pairs * dim;
    take(plan.rates, carried);
    take(plan.starts, terms * (layout::tiles - 1) * carried);
    take(plan.h, terms * carried);
    take(plan.K, terms * carried);
    take(plan.dA, terms * carried);
    take(plan.steps, terms * layout::tiles * dim);
    take(plan.sums, terms * 2 * dim);
    take(plan.severed, terms);
    take(plan.dB, a.dB.data() ? shares : 0);
    take(plan.dC, a.dC.data() ? shares : 0);
    return bytes;
}

/// exp(d A): complex numbers as pairs.
template <int Parts>
__device__ __forceinline__ void scan_decay(float d, const float (&A)[Parts], float (&to)[Parts])
{
    const float size = exp2_fast(d * (A[0] * log2_e));
    if constexpr (Parts == 2) {
        float sine, cosine;
        sincosf(size == 0.0f ? 0.0f : d * A[1], &sine, &cosine);  // what an infinite step forgets does not turn
        to[0] = size * cosine;
        to[1] = size * sine;
    } else {
        to[0] = size;
    }
}

/// exp(d A) over several tokens, whose steps' sum is in two floats: the second turns a complex number a little further.
template <int Parts>
__device__ __forceinline__ void scan_decay(const float2& d, const float (&A)[Parts], float (&to)[Parts])
{
    scan_decay<Parts>(d.x, A, to);
    if constexpr (Parts == 2) {
        const float phase = d.x * A[1], more = to[0] == 0.0f && to[1] == 0.0f ? 0.0f : fmaf(d.y, A[1], fmaf(d.x, A[1], -phase));
        const float re = to[0];
        to[0] = fmaf(-more, to[1], re);
        to[1] = fmaf(more, re, to[1]);
    }
}

/// sum + x, sum being two floats. An infinite one has no second part.
__device__ __forceinline__ void add_step(float2& sum, float x)
{
    const float total = sum.x + x, of_x = total - sum.x;
    const float lost = (sum.x - (total - of_x)) + (x - of_x) + sum.y;
    sum = make_float2(total, fabsf(total) <= 3.402823466e38f ? lost : 0.0f);
}

/// to = x y + z, or conj(x) y + z.
template <bool Conjugate, int Parts>
__device__ __forceinline__ void multiply_add(const float (&x)[Parts], const float (&y)[Parts], const float (&z)[Parts],
                                             float (&to)[Parts])
{
    if constexpr (Parts == 2) {
        const float im = Conjugate ? -x[1] : x[1];
        const float re = fmaf(x[0], y[0], fmaf(-im, y[1], z[0]));
        to[1] = fmaf(x[0], y[1], fmaf(im, y[0], z[1]));
        to[0] = re;
    } else {
        to[0] = fmaf(x[0], y[0], z[0]);
    }
}

/// Halves `count` values between threads `distance` apart: the upper one keeps the upper half, of both.
template <int Count>
__device__ __forceinline__ void exchange_halves(float* v, int distance)
{
    const bool upper = threadIdx.x & distance;
#pragma unroll
    for (int i = 0; i < Count / 2; ++i) {
        const float sent = upper ? v[i] : v[i + Count / 2], kept = upper ? v[i + Count / 2] : v[i];
        v[i] = kept + __shfl_xor_sync(0xffffffffu, sent, distance);
    }
}

/// What both passes have of a block: where it is, a tile's tokens in registers and the segment's maps in shared memory. `General` has
/// what the plain case need not ask for at every token: resets, snapshots, an order.
template <bool General, class T, class Param>
struct scan_backward_block {
    using layout = scan_backward_layout<Param>;
    using element_type = std::remove_const_t<T>;
    static constexpr int parts = layout::parts, tokens = layout::tokens, row = layout::row;
    const selective_scan_backward_args<T, Param>& a;
    const scan_backward_plan& plan;
    const int threads;
    float *const B, *const C;  // (chunk, parts, map_row)
    float* const rows;         // (threads, row)
    index length, dim, state, tile_of_channels, segment, b, first, c, c_last;
    int count, channels;  // of tokens and channels that are there
    bool active, turned;
    std::uint64_t resets = 0, stops = 0;  // bit i: before token i of the segment lies a reset, a snapshot
    // Of a tile: steps, steps times inputs, gradients of p (twice that of complex states).
    float d[tokens], x[tokens], g[tokens];

    __device__ scan_backward_block(const selective_scan_backward_args<T, Param>& args, const scan_backward_plan& p, float* memory)
        : a(args), plan(p), threads(p.threads), B(memory), C(B + layout::map), rows(C + layout::map)
    {
        const auto& f = a.forward;
        length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(1);
        tile_of_channels = blockIdx.x % plan.blocks;
        segment = blockIdx.x / plan.blocks % plan.segments;
        b = blockIdx.x / plan.blocks / plan.segments;
        first = segment * layout::segment;
        count = static_cast<int>(min(length - first, index{layout::segment}));
        const index within = tile_of_channels % plan.blocks_of_unit * threads;
        const index c0 = tile_of_channels / plan.blocks_of_unit * plan.unit + within;
        channels = static_cast<int>(min(plan.unit - within, index{threads}));
        active = static_cast<int>(threadIdx.x) < channels;
        c_last = c0 + channels - 1;
        c = c0 + threadIdx.x;
        turned = f.u.stride(2) != 1 && f.u.stride(1) == 1;
        if constexpr (General) {
            if (f.reset.data()) {
                // Each warp asks for itself.
                for (int word = 0; word < layout::segment / 32; ++word) {
                    const int token = 32 * word + threadIdx.x % 32;
                    const bool here = token < count && f.reset(b, visited(f, first + token)) != 0;
                    resets |= std::uint64_t{__ballot_sync(0xffffffffu, here)} << (32 * word);
                }
            }
            if (a.dsnapshots.data()) {
                for (index i = 0; i < f.snapshot_after.extent(1); ++i) {
                    const index at = f.snapshot_after(b, i) - first;
                    if (at >= 0 && at < count) stops |= std::uint64_t{1} << at;
                }
            }
        }
    }

    __device__ index term() const { return b * plan.segments + segment; }
    /// Of the arrays (batch, segments, pairs, dim), this thread's channel.
    __device__ index carried() const { return term() * plan.pairs * dim + min(c, c_last); }
    __device__ index start(int tile) const
    {
        return (term() * (layout::tiles - 1) + max(tile, 1) - 1) * plan.pairs * dim + min(c, c_last);
    }
    __device__ index step(int tile) const { return (term() * layout::tiles + tile) * dim + min(c, c_last); }
    using pair = float[layout::together][parts];
    __device__ __forceinline__ static void load(const float2* from, pair& to)
    {
        const float2 both = *from;
        to[0][0] = both.x;
        to[layout::together - 1][parts - 1] = both.y;
    }
    __device__ __forceinline__ static void clear(pair& to) { to[0][0] = to[layout::together - 1][parts - 1] = 0.0f; }
    __device__ __forceinline__ void store(float2* to, const pair& from) const
    {
        if (active) *to = make_float2(from[0][0], from[layout::together - 1][parts - 1]);
    }

    __device__ __forceinline__ float* own_row() const { return rows + threadIdx.x * row; }
    __device__ bool reset_before(int token) const { return General && (resets & ((std::uint64_t{1} << token) - 1)) != 0; }
    __device__ unsigned bits_of(std::uint64_t mask, int tile) const
    {
        return static_cast<unsigned>(mask >> (tile * tokens)) & ((1u << tokens) - 1);
    }

    /// The position that is visited at a step.
    __device__ __forceinline__ index position(index step) const
    {
        if constexpr (General) return visited(a.forward, step);
        return a.forward.reverse ? length - 1 - step : step;
    }

    /// What a thread moves of a tile to and from global memory: the tokens of its channel; or, where time is contiguous, one token of
    /// every `apart`-th channel, so that neighbouring threads have neighbouring tokens.
    struct items {
        index t, channel;  // of the first item
        int there;         // so many from the first
        int apart;         // channels from one to the next; 0 if tokens follow
        index step;        // at which the first is visited
        int own, token;    // row and place in its groups
    };
    __device__ __forceinline__ items items_of(int tile) const
    {
        items i;
        if (turned) {
            i.token = threadIdx.x % tokens;
            i.apart = threads / tokens;
            i.own = threadIdx.x / tokens;
            i.there = tile * tokens + i.token < count && i.own < channels ? (channels - i.own + i.apart - 1) / i.apart : 0;
        } else {
            i.token = 0;
            i.apart = 0;
            i.own = threadIdx.x;
            i.there = active ? max(count - tile * tokens, 0) : 0;
        }
        i.there = min(i.there, tokens);
        i.step = first + min(tile * tokens + i.token, count - 1);
        i.channel = c - threadIdx.x + min(i.own, channels - 1);
        i.t = position(i.step);
        return i;
    }
    /// Whether a tile's tokens are there and each thread has its channel's: then nothing of `Whole` work asks whether an item is there,
    /// and threads without a channel repeat the last one's.
    __device__ bool is_whole(int tile) const
    {
        return !turned && (tile + 1) * tokens <= count && !(General && a.forward.order.data());
    }
    template <bool Whole, class F, class U>
    __device__ __forceinline__ void for_each_element(const items& i, const view<U, 3>& v, F f) const
    {
        U* at = v.pointer(b, i.t, i.channel);
        const index far = !Whole && i.apart ? i.apart * v.stride(2) : a.forward.reverse ? -v.stride(1)
                                                                                        : v.stride(1);
#pragma unroll
        for (int k = 0; k < tokens; ++k, at += far) {
            if (!Whole && k >= i.there) continue;
            if constexpr (General && !Whole) {
                if (!i.apart && a.forward.order.data()) at = v.pointer(b, position(i.step + k), i.channel);
            }
            f(k, at);
        }
    }
    template <bool Whole>
    __device__ __forceinline__ void fetch(const items& i, const view<const T, 3>& v, element_type (&to)[tokens]) const
    {
#pragma unroll
        for (int k = 0; k < tokens; ++k) to[k] = element_type{};
        for_each_element<Whole>(i, v, [&](int k, const T* at) { to[k] = *at; });
    }
    template <bool Whole>
    __device__ __forceinline__ void put(const items& i, const view<T, 3>& v, const float (&from)[tokens]) const
    {
        if (Whole && !active) return;
        for_each_element<Whole>(i, v, [&](int k, T* at) { *at = narrowed<T>(from[k]); });
    }
    /// What each item's channel has of a parameter that may not be given, else 0.
    template <bool Whole>
    __device__ __forceinline__ void read_channels(const items& i, const view<const float, 1>& v, float (&to)[tokens]) const
    {
        const float own = v.data() ? v[i.channel] : 0.0f;
#pragma unroll
        for (int k = 0; k < tokens; ++k) to[k] = own;
        if constexpr (!Whole) {
            if (!v.data() || !i.apart) return;
#pragma unroll
            for (int k = 0; k < tokens; ++k) to[k] = v[min(i.channel + k * i.apart, c_last)];
        }
    }
    /// Items of other threads' channels, in a group of their rows.
    __device__ __forceinline__ void read_items(const items& i, int group, float (&to)[tokens]) const
    {
#pragma unroll
        for (int k = 0; k < tokens; ++k) to[k] = rows[(i.own + k * i.apart) * row + group * tokens + i.token];
    }
    __device__ __forceinline__ void write_items(const items& i, int group, const float (&from)[tokens]) const
    {
#pragma unroll
        for (int k = 0; k < tokens; ++k) rows[(i.own + k * i.apart) * row + group * tokens + i.token] = from[k];
    }
    /// The tokens of this thread's channel.
    __device__ __forceinline__ void read_own(int group, float (&to)[tokens]) const
    {
#pragma unroll
        for (int k = 0; k < tokens; ++k) to[k] = element(four_at(own_row() + group * tokens + k / 4 * 4), k % 4);
    }
    __device__ __forceinline__ void write_own(int group, const float (&from)[tokens]) const
    {
#pragma unroll
        for (int k = 0; k < tokens; k += 4) {
            store_four(own_row() + group * tokens + k, from[k], from[k + 1], from[k + 2], from[k + 3]);
        }
    }

    /// A tile's d, x and g; zeros, which leave finite states as they are, where there is no token.
    __device__ __forceinline__ void load_tokens(int tile)
    {
        if (is_whole(tile)) {
            load_tokens<true>(tile);
        } else {
            load_tokens<false>(tile);
        }
    }
    template <bool Whole>
    __device__ __forceinline__ void load_tokens(int tile)
    {
        const auto& f = a.forward;
        const items i = items_of(tile);
        element_type delta[tokens], u[tokens], dy[tokens], z[tokens];
        fetch<Whole>(i, f.delta, delta);
        fetch<Whole>(i, f.u, u);
        fetch<Whole>(i, a.dy, dy);
        if (f.z.data()) fetch<Whole>(i, f.z, z);
        read_channels<Whole>(i, f.delta_bias, d);
#pragma unroll
        for (int k = 0; k < tokens; ++k) d[k] += widened(delta[k]);
        if (f.delta_softplus) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) d[k] = softplus(d[k]);
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            if (!Whole) d[k] = k < i.there ? d[k] : 0.0f;
            x[k] = d[k] * widened(u[k]);
            g[k] = parts * widened(dy[k]);
        }
        if (f.z.data()) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) g[k] *= silu(widened(z[k]));
        }
        if (Whole || !turned) return;
        __syncthreads();  // rows are read
        write_items(i, 0, d);
        write_items(i, 1, x);
        write_items(i, 2, g);
        __syncthreads();
        read_own(0, d);
        read_own(1, x);
        read_own(2, g);
    }

    /// Asks for a tile's tokens: they are in the L2 cache when they are loaded.
    __device__ void prefetch_tokens(int tile) const
    {
        const int apart = threads / tokens, token = turned ? 0 : threadIdx.x / apart;
        if (tile < 0 || tile * tokens + token >= count) return;
        const index t = position(first + tile * tokens + token);
        const index channel = min(c - threadIdx.x + (turned ? threadIdx.x : threadIdx.x % apart * tokens), c_last);
        const auto ask = [&](const view<const T, 3>& v) {
            asm volatile("prefetch.global.L2 [%0];" ::"l"(v.pointer(b, t, channel)));
        };
        ask(a.forward.delta);
        ask(a.forward.u);
        ask(a.dy);
        if (a.forward.z.data()) ask(a.forward.z);
    }

    /// B and C for the states n0 to n0 + 15: of the whole segment at its first tile if all states lie in a chunk, else of a tile.
    __device__ void load_maps(int tile, bool at_first, index n0)
    {
        const bool whole = state <= layout::chunk;
        if (whole && !at_first) return;
        const auto& f = a.forward;
        const index group_of_B = c_last / (dim / f.B.extent(2)), group_of_C = c_last / (dim / f.C.extent(2));
        constexpr int width = layout::chunk * parts;
        const int from = whole ? 0 : tile * tokens, to = whole ? layout::segment : from + tokens;
        __syncthreads();  // earlier ones are read
#pragma unroll 4
        for (int i = from * width + threadIdx.x; i < to * width; i += threads) {
            const int own = i % width, token = i / width, part = own % parts;
            const index n = n0 + own / parts;
            float x = 0.0f, y = 0.0f;
            if (token < count && n < state) {
                const index t = position(first + token);
                if constexpr (parts == 2) {
                    x = reinterpret_cast<const float*>(f.B.pointer(b, t, group_of_B, n))[part];
                    y = reinterpret_cast<const float*>(f.C.pointer(b, t, group_of_C, n))[part];
                } else {
                    x = widened(f.B(b, t, group_of_B, n));
                    y = widened(f.C(b, t, group_of_C, n));
                }
            }
            B[own * layout::map_row + token] = x;
            C[own * layout::map_row + token] = y;
        }
        __syncthreads();
    }
    /// Four tokens of a tile.
    __device__ __forceinline__ static float4 four_of(const float* map, int n, int part, int tile, int q)
    {
        return four_at(map + (n * parts + part) * layout::map_row + tile * tokens + 4 * q);
    }

    /// From h[0] through a tile: the decays, and the state after each token.
    __device__ __forceinline__ void run_forward(int n, int tile, const float (&A)[parts], unsigned resets_here,
                                                float (&decay)[tokens][parts], float (&h)[tokens + 1][parts]) const
    {
#pragma unroll
        for (int q = 0; q < tokens / 4; ++q) {
            float4 map[parts];
#pragma unroll
            for (int part = 0; part < parts; ++part) map[part] = four_of(B, n, part, tile, q);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int j = 4 * q + i;
                scan_decay<parts>(d[j], A, decay[j]);
                float in[parts];
#pragma unroll
                for (int part = 0; part < parts; ++part) in[part] = x[j] * element(map[part], i);
                multiply_add<false>(decay[j], h[j], in, h[j + 1]);
                if constexpr (General) {
#pragma unroll
                    for (int part = 0; part < parts; ++part) {
                        if (resets_here >> j & 1) h[j + 1][part] = in[part];  // 0 times NaN would be NaN
                    }
                }
            }
        }
    }

    /// The gradient before token j of a tile: past a reset nothing comes, to a snapshot its own is added.
    __device__ __forceinline__ void amend(index n, int tile, int j, unsigned resets_here, unsigned stops_here,
                                          float (&K)[parts]) const
    {
        if constexpr (General) {
            if (resets_here >> j & 1) {
#pragma unroll
                for (int part = 0; part < parts; ++part) K[part] = 0.0f;
            }
            if (stops_here >> j & 1 && active && n < state) {
                for (index i = 0; i < a.forward.snapshot_after.extent(1); ++i) {
                    if (a.forward.snapshot_after(b, i) != first + tile * tokens + j) continue;
                    const float* const from = reinterpret_cast<const float*>(a.dsnapshots.pointer(b, i, c, n));
#pragma unroll
                    for (int part = 0; part < parts; ++part) K[part] += from[part];
                }
            }
        }
    }
};

}  // namespace ssmkit::cuda::detail
