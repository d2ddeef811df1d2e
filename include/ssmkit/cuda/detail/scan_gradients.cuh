#pragma once

// The gradients of the selective scan within a segment of time, a thread a channel: the decays and states of a tile of tokens lie
// in registers, so do the sums over states, and states follow one another. Sums over channels cross a warp in shared memory.

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
    static constexpr int tokens = 16 / parts, tiles = 4, segment = tiles * tokens;  // of a tile; of a segment, and its tokens
    static constexpr int quads = tokens / 4, row = tokens + 4;  // of shared memory: eight threads read 16 bytes each without conflicts
    static constexpr int chunk = 16, map = chunk * parts * row;  // states whose B and C lie in shared memory together
    static constexpr int values = 2 * tokens * parts, values_row = values + 4;  // a channel's shares of dB and dC, of one state
    static constexpr int most_threads = 128;
    static_assert(values == 32, "a warp's lanes are left with one sum each");

    /// Shared memory: planes of steps, inputs and gradients of p; maps; in the main pass the channels' shares and the warps' sums.
    static constexpr int carry_bytes(int threads) { return 4 * (3 * threads * row + 2 * map); }
    static constexpr int main_bytes(int threads) { return carry_bytes(threads) + 4 * threads / 32 * (32 * values_row + chunk * (values + 1)); }
};

/// How the work is cut, and what lies in the workspace.
struct scan_backward_plan {
    index segments = 0;        ///< of the sequence, scan_backward_layout::segment tokens each
    index unit = 0;            ///< channels that share their group of B and that of C
    int threads = 0;           ///< of a block: so many channels of a unit at most
    index blocks_of_unit = 0;  ///< that these channels take
    index blocks = 0;          ///< that all channels take
    // (batch, segments, ...): real and imaginary parts of a state follow one another, channels are contiguous
    float *rates = nullptr;    ///< (state, parts, dim): A
    float *starts = nullptr;   ///< (tiles - 1, state, parts, dim): the state before a tile, from zero before its segment
    float *steps = nullptr;    ///< (tiles, dim): the sum of steps from the segment's start to a tile's end
    float *h = nullptr;        ///< (state, parts, dim): a segment's last state from zero; then the state it starts with
    float *K = nullptr;        ///< (state, parts, dim): the gradient before a segment from zero after it; then that after it
    float *dA = nullptr;       ///< (state, parts, dim): a segment's share
    float *sums = nullptr;     ///< (2, dim): a segment's share of dD and of ddelta_bias
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
    std::size_t bytes = 0;
    const auto take = [&](auto*& p, index count) {
        p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(memory ? memory + bytes : nullptr);
        bytes += (4 * static_cast<std::size_t>(count) + 255) / 256 * 256;
    };
    const index terms = batch * plan.segments, shares = plan.blocks * batch * length * state;
    take(plan.rates, dim * state);
    take(plan.starts, terms * (layout::tiles - 1) * dim * state);
    take(plan.steps, terms * layout::tiles * dim);
    take(plan.h, terms * dim * state);
    take(plan.K, terms * dim * state);
    take(plan.dA, terms * dim * state);
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

/// to = x y + z, or conj(x) y + z.
template <bool Conjugate, int Parts>
__device__ __forceinline__ void multiply_add(const float (&x)[Parts], const float (&y)[Parts], const float (&z)[Parts], float (&to)[Parts])
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

/// What both passes have of a block: where it is, and a tile in shared memory. `General` has what the plain case need not ask for at
/// every token: resets and snapshots.
template <bool General, class T, class Param>
struct scan_backward_block {
    using layout = scan_backward_layout<Param>;
    static constexpr int parts = layout::parts, tokens = layout::tokens, row = layout::row;
    const selective_scan_backward_args<T, Param>& a;
    const scan_backward_plan& plan;
    const int threads;
    float* const planes;                 // (3, threads, row): steps, steps times inputs, gradients of p
    float *const B, *const C;            // (chunk, parts, row)
    index length, dim, state, tile_of_channels, segment, b, first, c, c_last;
    int count, channels;                 // of tokens and channels that are there
    bool active, turned;
    std::uint64_t resets = 0, stops = 0;  // bit i: before token i of the segment lies a reset, a snapshot

    __device__ scan_backward_block(const selective_scan_backward_args<T, Param>& args, const scan_backward_plan& p, float* memory)
        : a(args), plan(p), threads(p.threads), planes(memory), B(memory + 3 * p.threads * row), C(B + layout::map)
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
                for (int word = 0; word < (layout::segment + 31) / 32; ++word) {
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
    /// Of the arrays (batch, segments, state, parts, dim), this thread's channel.
    __device__ index carried(index n) const { return (term() * state + n) * parts * dim + min(c, c_last); }
    __device__ index start(int tile, index n) const
    {
        return ((term() * (layout::tiles - 1) + tile - 1) * state + n) * parts * dim + min(c, c_last);
    }
    __device__ index step(int tile) const { return (term() * layout::tiles + tile) * dim + min(c, c_last); }
    __device__ __forceinline__ void load(const float* from, float (&to)[parts]) const
    {
#pragma unroll
        for (int part = 0; part < parts; ++part) to[part] = from[part * dim];
    }
    __device__ __forceinline__ void store(float* to, const float (&from)[parts]) const
    {
        if (!active) return;
#pragma unroll
        for (int part = 0; part < parts; ++part) to[part * dim] = from[part];
    }

    __device__ __forceinline__ float* plane(int which) const { return planes + (which * threads + threadIdx.x) * row; }
    __device__ bool reset_before(int token) const { return General && (resets & ((std::uint64_t{1} << token) - 1)) != 0; }
    __device__ unsigned bits_of(std::uint64_t mask, int tile) const
    {
        return static_cast<unsigned>(mask >> (tile * tokens)) & ((1u << tokens) - 1);
    }

    /// A tile's elements that a thread moves between global and shared memory, layout::tokens items. They are the tokens of its channel;
    /// or, where time is contiguous, one token of every `apart`-th channel, so that neighbouring threads have neighbouring tokens.
    struct items {
        index t, channel;  // of the first item
        int there;         // so many from the first
        int apart;         // channels from one to the next; 0 if tokens follow
        index step;        // at which the first is visited
        float* at;         // in a plane (threads, row), from its beginning
        int far;
    };
    __device__ __forceinline__ items items_of(int tile) const
    {
        const int from = tile * tokens, own = threadIdx.x;
        items i;
        if (turned) {
            i.apart = threads / tokens;
            i.step = first + min(from + own % tokens, count - 1);
            i.channel = c - own + min(own / tokens, channels - 1);
            i.there = from + own % tokens < count && own / tokens < channels ? (channels - own / tokens + i.apart - 1) / i.apart : 0;
            i.at = planes + own / tokens * row + own % tokens;
            i.far = i.apart * row;
        } else {
            i.apart = 0;
            i.step = first + min(from, count - 1);
            i.channel = min(c, c_last);
            i.there = active ? max(count - from, 0) : 0;
            i.at = planes + own * row;
            i.far = 1;
        }
        i.there = min(i.there, tokens);
        i.t = visited(a.forward, i.step);
        return i;
    }
    template <class F, class U>
    __device__ __forceinline__ void for_each_element(const items& i, const view<U, 3>& v, F f) const
    {
        const auto& scan = a.forward;
        if (!i.apart && scan.order.data()) {
            for (int k = 0; k < tokens; ++k) {
                if (k < i.there) f(k, v.pointer(b, visited(scan, i.step + k), i.channel));
            }
            return;
        }
        U* at = v.pointer(b, i.t, i.channel);
        const index far = i.apart ? i.apart * v.stride(2) : scan.reverse ? -v.stride(1) : v.stride(1);
        if (i.there == tokens) {
#pragma unroll
            for (int k = 0; k < tokens; ++k, at += far) f(k, at);
        } else {
#pragma unroll
            for (int k = 0; k < tokens; ++k, at += far) {
                if (k < i.there) f(k, at);
            }
        }
    }
    using element_type = std::remove_const_t<T>;
    __device__ __forceinline__ void fetch(const items& i, const view<const T, 3>& v, element_type (&to)[tokens]) const
    {
#pragma unroll
        for (int k = 0; k < tokens; ++k) to[k] = element_type{};
        for_each_element(i, v, [&](int k, const T* at) { to[k] = *at; });
    }
    __device__ __forceinline__ void put(const items& i, const view<T, 3>& v, const float (&from)[tokens]) const
    {
        for_each_element(i, v, [&](int k, T* at) { *at = narrowed<T>(from[k]); });
    }
    /// Items in a plane, or in rows like a plane's.
    __device__ __forceinline__ void read_items(const items& i, const float* at, int far, float (&to)[tokens]) const
    {
        if (i.apart) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) to[k] = at[k * far];
        } else {
#pragma unroll
            for (int k = 0; k < tokens; ++k) to[k] = element(four_at(at + k / 4 * 4), k % 4);
        }
    }
    __device__ __forceinline__ void write_items(const items& i, float* at, int far, const float (&from)[tokens]) const
    {
        if (i.apart) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) at[k * far] = from[k];
        } else {
#pragma unroll
            for (int k = 0; k < tokens; k += 4) store_four(at + k, from[k], from[k + 1], from[k + 2], from[k + 3]);
        }
    }
    __device__ __forceinline__ index channel_of(const items& i, int k) const { return i.channel + k * i.apart; }
    __device__ __forceinline__ float of_channel(const items& i, int k, const view<const float, 1>& v) const
    {
        return v.data() && k < i.there ? v[channel_of(i, k)] : 0.0f;
    }

    /// The steps, the inputs times them and the gradients of p (twice that of complex states) of a tile; zeros, which leave states as
    /// they are, where there is no token. If `turned`, no thread may still read the planes.
    __device__ void load_tokens(int tile)
    {
        const auto& f = a.forward;
        const items i = items_of(tile);
        element_type delta[tokens], u[tokens], dy[tokens], z[tokens];
        fetch(i, f.delta, delta);
        fetch(i, f.u, u);
        fetch(i, a.dy, dy);
        if (f.z.data()) fetch(i, f.z, z);
        float step[tokens], input[tokens], gradient[tokens];
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            step[k] = widened(delta[k]) + of_channel(i, k, f.delta_bias);
            gradient[k] = parts * widened(dy[k]);
        }
        if (f.delta_softplus) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) step[k] = softplus(step[k]);
        }
        if (f.z.data()) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) gradient[k] *= silu(widened(z[k]));
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            step[k] = k < i.there ? step[k] : 0.0f;
            input[k] = step[k] * widened(u[k]);
        }
        write_items(i, i.at, i.far, step);
        write_items(i, i.at + threads * row, i.far, input);
        write_items(i, i.at + 2 * threads * row, i.far, gradient);
        if (turned) __syncthreads();
    }

    /// B and C of a tile for the states n0 to n0 + 15, once no thread reads earlier ones.
    __device__ void load_maps(int tile, index n0)
    {
        const auto& f = a.forward;
        const index group_of_B = c_last / (dim / f.B.extent(2)), group_of_C = c_last / (dim / f.C.extent(2));
        constexpr int width = layout::chunk * parts;
        __syncthreads();
        for (int i = threadIdx.x; i < width * tokens; i += threads) {
            const int own = i % width, token = i / width, part = own % parts;
            const index n = n0 + own / parts;
            float x = 0.0f, y = 0.0f;
            if (tile * tokens + token < count && n < state) {
                const index t = visited(f, first + tile * tokens + token);
                if constexpr (parts == 2) {
                    x = reinterpret_cast<const float*>(f.B.pointer(b, t, group_of_B, n))[part];
                    y = reinterpret_cast<const float*>(f.C.pointer(b, t, group_of_C, n))[part];
                } else {
                    x = widened(f.B(b, t, group_of_B, n));
                    y = widened(f.C(b, t, group_of_C, n));
                }
            }
            B[own * row + token] = x;
            C[own * row + token] = y;
        }
        __syncthreads();
    }

    __device__ __forceinline__ static float4 four_of(const float* map, int n, int part, int q)
    {
        return four_at(map + (n * parts + part) * row + 4 * q);
    }

    /// From h[0] through a tile: the decays, and the state after each token.
    __device__ __forceinline__ void run_forward(int n, const float (&A)[parts], unsigned resets_here, float (&decay)[tokens][parts],
                                                float (&h)[tokens + 1][parts]) const
    {
#pragma unroll
        for (int q = 0; q < layout::quads; ++q) {
            const float4 d = four_at(plane(0) + 4 * q), x = four_at(plane(1) + 4 * q);
            float4 map[parts];
#pragma unroll
            for (int part = 0; part < parts; ++part) map[part] = four_of(B, n, part, q);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int j = 4 * q + i;
                scan_decay<parts>(element(d, i), A, decay[j]);
                float in[parts];
#pragma unroll
                for (int part = 0; part < parts; ++part) in[part] = element(x, i) * element(map[part], i);
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
    __device__ __forceinline__ void amend(index n, int tile, int j, unsigned resets_here, unsigned stops_here, float (&K)[parts]) const
    {
        if constexpr (General) {
            if (resets_here >> j & 1) {
#pragma unroll
                for (int part = 0; part < parts; ++part) K[part] = 0.0f;
            }
            if (stops_here >> j & 1 && active) {
                for (index i = 0; i < a.forward.snapshot_after.extent(1); ++i) {
                    if (a.forward.snapshot_after(b, i) != first + tile * tokens + j) continue;
                    const float* const x = reinterpret_cast<const float*>(a.dsnapshots.pointer(b, i, c, n));
#pragma unroll
                    for (int part = 0; part < parts; ++part) K[part] += x[part];
                }
            }
        }
    }
};

/// A as (state, parts, dim), so that neighbouring threads, which are channels, read neighbouring numbers.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_rates_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                  const __grid_constant__ scan_backward_plan plan)
{
    constexpr int parts = scan_backward_layout<Param>::parts;
    const index dim = a.forward.A.extent(0), i = blockIdx.x * index{blockDim.x} + threadIdx.x, n = i / dim, c = i % dim;
    if (n >= a.forward.A.extent(1)) return;
    const Param x = a.forward.A(c, n);
#pragma unroll
    for (int part = 0; part < parts; ++part) plan.rates[(n * parts + part) * dim + c] = reinterpret_cast<const float*>(&x)[part];
}

/// Pass 1: what each segment does to a state before it and to a gradient after it, both from zero, and the states between its tiles.
template <bool General, class T, class Param>
__global__ void __launch_bounds__(128, 4) scan_backward_carry_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                     const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, tokens = layout::tokens;
    extern __shared__ float4 shared_memory[];
    scan_backward_block<General, T, Param> block(a, plan, reinterpret_cast<float*>(shared_memory));
    if (block.tile_of_channels == 0 && threadIdx.x == 0) plan.severed[block.term()] = block.resets != 0;
    float steps = 0.0f;  // from the segment's start
    for (int tile = 0; tile < layout::tiles; ++tile) {
        const unsigned resets = block.bits_of(block.resets, tile), stops = block.bits_of(block.stops, tile);
        const bool open = !block.reset_before(tile * tokens);
        if (block.turned) __syncthreads();
        block.load_tokens(tile);
        float steps_here = 0.0f;
#pragma unroll
        for (int q = 0; q < layout::quads; ++q) {
            const float4 d = four_at(block.plane(0) + 4 * q);
            steps_here += (d.x + d.y) + (d.z + d.w);
        }
        // What a state has in memory; under way while the one before is worked on.
        struct state_values {
            float A[parts], start[parts], K[parts];
        } next;
        const auto brought = [&](index n) {
            state_values v{};
            block.load(plan.rates + n * parts * block.dim + min(block.c, block.c_last), v.A);
            if (tile > 0) block.load(plan.starts + block.start(tile, n), v.start);
            if (tile > 0) block.load(plan.K + block.carried(n), v.K);
            return v;
        };
        for (index n0 = 0; n0 < block.state; n0 += layout::chunk) {
            block.load_maps(tile, n0);
            const int states = static_cast<int>(min(block.state - n0, index{layout::chunk}));
            if (n0 == 0) next = brought(0);
            for (int n = 0; n < states; ++n) {
                float A[parts], decay[tokens][parts], h[tokens + 1][parts], K[parts] = {}, before[parts];
#pragma unroll
                for (int part = 0; part < parts; ++part) A[part] = next.A[part], h[0][part] = next.start[part], before[part] = next.K[part];
                next = brought(min(n0 + n + 1, block.state - 1));
                float* const kept = plan.K + block.carried(n0 + n);
                block.run_forward(n, A, resets, decay, h);
                block.store(tile + 1 < layout::tiles ? plan.starts + block.start(tile + 1, n0 + n) : plan.h + block.carried(n0 + n), h[tokens]);
#pragma unroll
                for (int q = layout::quads; q-- > 0;) {
                    const float4 g = four_at(block.plane(2) + 4 * q);
                    float4 C[parts];
#pragma unroll
                    for (int part = 0; part < parts; ++part) C[part] = block.four_of(block.C, n, part, q);
#pragma unroll
                    for (int i = 4; i-- > 0;) {
                        float G[parts];
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            G[part] = fmaf(part == 0 ? element(g, i) : -element(g, i), element(C[part], i), K[part]);
                        }
                        const float zero[parts] = {};
                        multiply_add<true>(decay[4 * q + i], G, zero, K);
                        block.amend(n0 + n, tile, 4 * q + i, resets, stops, K);
                    }
                }
                if (open) {
                    float passed[parts];
                    scan_decay<parts>(steps, A, passed);
                    multiply_add<true>(passed, K, before, before);
                }
                block.store(kept, before);
            }
        }
        steps += steps_here;
        if (block.active) plan.steps[block.step(tile)] = steps;
    }
}

/// Pass 3: every gradient of a segment, tile by tile from the last: the states are computed again and met by the gradients.
template <bool General, class T, class Param>
__global__ void __launch_bounds__(128, 3) scan_backward_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                               const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, tokens = layout::tokens, row = layout::row, values = layout::values;
    extern __shared__ float4 shared_memory[];
    using block_type = scan_backward_block<General, T, Param>;
    block_type block(a, plan, reinterpret_cast<float*>(shared_memory));
    const int threads = block.threads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* const shares = block.C + layout::map;                        // (threads, values_row): channels' shares of dB and dC
    float* const sums = shares + threads * layout::values_row;          // (warps, chunk, values + 1): warps' sums of them
    float* const share = shares + threadIdx.x * layout::values_row;
    for (int v = 0; v < values; v += 4) store_four(share + v, 0.0f, 0.0f, 0.0f, 0.0f);  // stays so where there is no channel
    const bool maps = plan.dB || plan.dC, active = block.active;
    const auto& f = a.forward;
    const index batch = f.u.extent(0);
    float over_time[2] = {};  // of dD and ddelta_bias

    const int tiles = (block.count + tokens - 1) / tokens;
    for (int tile = tiles; tile-- > 0;) {
        const unsigned resets = block.bits_of(block.resets, tile), stops = block.bits_of(block.stops, tile);
        const bool open = !block.reset_before(tile * tokens);
        if (block.turned) __syncthreads();
        block.load_tokens(tile);
        const float steps = tile > 0 ? plan.steps[block.step(tile - 1)] : 0.0f;
        float along_B[tokens] = {}, along_A[tokens] = {}, p[tokens] = {};  // sums over states
        // What a state has in memory; under way while the one before is worked on.
        struct state_values {
            float A[parts], h[parts], start[parts], K[parts], dA[parts];
        } next;
        const auto brought = [&](index n) {
            state_values v{};
            const index carried = block.carried(n);
            block.load(plan.rates + n * parts * block.dim + min(block.c, block.c_last), v.A);
            block.load(plan.h + carried, v.h);
            block.load(plan.K + carried, v.K);
            if (tile + 1 < tiles) block.load(plan.dA + carried, v.dA);
            if (tile > 0) block.load(plan.starts + block.start(tile, n), v.start);
            return v;
        };
        for (index n0 = 0; n0 < block.state; n0 += layout::chunk) {
            block.load_maps(tile, n0);
            const int states = static_cast<int>(min(block.state - n0, index{layout::chunk}));
            if (n0 == 0) next = brought(0);
            for (int n = 0; n < states; ++n) {
                float A[parts], decay[tokens][parts], h[tokens + 1][parts], K[parts], dA[parts];
                const index carried = block.carried(n0 + n);
#pragma unroll
                for (int part = 0; part < parts; ++part) {
                    A[part] = next.A[part], h[0][part] = next.h[part], K[part] = next.K[part], dA[part] = next.dA[part];
                }
                if (tile > 0) {
                    float passed[parts], from_segment[parts];
                    scan_decay<parts>(steps, A, passed);
                    multiply_add<false>(passed, h[0], next.start, from_segment);
#pragma unroll
                    for (int part = 0; part < parts; ++part) h[0][part] = open ? from_segment[part] : next.start[part];
                }
                next = brought(min(n0 + n + 1, block.state - 1));
                block.run_forward(n, A, resets, decay, h);
#pragma unroll
                for (int q = layout::quads; q-- > 0;) {
                    const float4 d = four_at(block.plane(0) + 4 * q), x = four_at(block.plane(1) + 4 * q);
                    const float4 g = four_at(block.plane(2) + 4 * q);
                    float4 B[parts], C[parts];
#pragma unroll
                    for (int part = 0; part < parts; ++part) {
                        B[part] = block.four_of(block.B, n, part, q);
                        C[part] = block.four_of(block.C, n, part, q);
                    }
                    float to_B[parts][4], to_C[parts][4];
#pragma unroll
                    for (int i = 4; i-- > 0;) {
                        const int j = 4 * q + i;
                        float G[parts], w[parts];
                        const float zero[parts] = {};
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            const float g_part = part == 0 ? element(g, i) : -element(g, i);
                            G[part] = fmaf(g_part, element(C[part], i), K[part]);
                            along_B[j] = fmaf(G[part], element(B[part], i), along_B[j]);
                            p[j] = fmaf(part == 0 ? element(C[part], i) : -element(C[part], i), h[j + 1][part], p[j]);
                            to_B[part][i] = element(x, i) * G[part];
                            to_C[part][i] = g_part * h[j + 1][part];
                        }
                        // w = G conj(exp(d A) h), of the state before the token.
                        multiply_add<true>(decay[j], G, zero, K);
                        multiply_add<true>(h[j], K, zero, w);
                        if (General && (resets >> j & 1)) {
#pragma unroll
                            for (int part = 0; part < parts; ++part) w[part] = 0.0f;
                        }
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            along_A[j] = fmaf(A[part], w[part], along_A[j]);
                            dA[part] = fmaf(element(d, i), w[part], dA[part]);
                        }
                        block.amend(n0 + n, tile, j, resets, stops, K);
                    }
                    if (maps && active) {
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            float* const at = share + part * tokens + 4 * q;
                            store_four(at, to_B[part][0], to_B[part][1], to_B[part][2], to_B[part][3]);
                            store_four(at + values / 2, to_C[part][0], to_C[part][1], to_C[part][2], to_C[part][3]);
                        }
                    }
                }
                block.store(plan.K + carried, K);
                block.store(plan.dA + carried, dA);
                if (maps) {
                    // Four values of every fourth channel, then one of all.
                    __syncwarp();
                    float v[4] = {};
                    const float* const at = shares + (warp * 32 + lane / 8) * layout::values_row + lane % 8 * 4;
#pragma unroll
                    for (int k = 0; k < 8; ++k) {
                        const float4 own = four_at(at + 4 * k * layout::values_row);
#pragma unroll
                        for (int i = 0; i < 4; ++i) v[i] += element(own, i);
                    }
                    __syncwarp();
                    exchange_halves<4>(v, 16);
                    exchange_halves<2>(v, 8);
                    const int value = lane % 8 * 4 + lane / 16 * 2 + lane / 8 % 2;
                    sums[(warp * layout::chunk + n) * (values + 1) + value] = v[0];
                }
            }
            if (maps) {
                __syncthreads();
                constexpr int width = layout::chunk * parts;
                for (int i = threadIdx.x; i < width * 2 * tokens; i += threads) {
                    const int n = i % width / parts, part = i % parts, token = i / width % tokens, which = i / width / tokens;
                    if (n >= states || tile * tokens + token >= block.count) continue;
                    const int value = (which * parts + part) * tokens + token;
                    float sum = 0.0f;
                    for (int w = 0; w < threads / 32; ++w) sum += sums[(w * layout::chunk + n) * (values + 1) + value];
                    float* const to = which == 0 ? plan.dB : plan.dC;
                    const index t = visited(f, block.first + tile * tokens + token);
                    const index row_of_shares = (block.tile_of_channels * batch + block.b) * block.length + t;
                    if (to) to[(row_of_shares * block.state + n0 + n) * parts + part] = sum;
                }
            }
        }

        if (block.turned) __syncthreads();  // shares are summed
        if (active) {
            const auto keep = [](float* at, const float (&from)[tokens]) {
#pragma unroll
                for (int j = 0; j < tokens; j += 4) store_four(at + j, from[j], from[j + 1], from[j + 2], from[j + 3]);
            };
            keep(block.plane(1), along_B);
            keep(share, along_A);
            keep(share + tokens, p);
        }
        if (block.turned) __syncthreads();
        const typename block_type::items i = block.items_of(tile);
        const int share_far = block.turned ? i.apart * layout::values_row : 1;
        float* const share_at = block.turned ? shares + threadIdx.x / tokens * layout::values_row + threadIdx.x % tokens : share;
        std::remove_const_t<T> raw[tokens], u[tokens];
        block.fetch(i, f.delta, raw);
        block.fetch(i, f.u, u);
        float step[tokens], dp[tokens], out[tokens];
        block.read_items(i, i.at + threads * row, i.far, along_B);
        block.read_items(i, i.at + 2 * threads * row, i.far, dp);
        block.read_items(i, share_at, share_far, along_A);
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            dp[k] *= 1.0f / parts;
            step[k] = fmaf(widened(u[k]), along_B[k], along_A[k]);
        }
        if (f.delta_softplus) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                const float x = widened(raw[k]) + block.of_channel(i, k, f.delta_bias);
                const float e = exp2_fast(-fabsf(x) * log2_e);  // sigmoid without overflow
                step[k] *= __fdividef(x >= 0.0f ? 1.0f : e, 1.0f + e);
            }
        }
        if (a.ddelta.data()) block.put(i, a.ddelta, step);
        if (a.dz.data()) {
            std::remove_const_t<T> z[tokens], dy[tokens];
            block.fetch(i, f.z, z);
            block.fetch(i, a.dy, dy);
            block.read_items(i, share_at + tokens, share_far, p);
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                const float x = widened(z[k]), e = exp2_fast(-fabsf(x) * log2_e);
                const float small = __fdividef(e, 1.0f + e), large = __fdividef(1.0f, 1.0f + e);
                const float s = x >= 0.0f ? large : small, rest = x >= 0.0f ? small : large;
                out[k] = widened(dy[k]) * fmaf(block.of_channel(i, k, f.D), widened(u[k]), parts * p[k]) * s * fmaf(x, rest, 1.0f);
            }
            block.put(i, a.dz, out);
        }
        if (a.du.data()) {
            float d[tokens];
            block.read_items(i, i.at, i.far, d);
#pragma unroll
            for (int k = 0; k < tokens; ++k) out[k] = fmaf(d[k], along_B[k], block.of_channel(i, k, f.D) * dp[k]);
            block.put(i, a.du, out);
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            out[k] = k < i.there ? dp[k] * widened(u[k]) : 0.0f;
            step[k] = k < i.there ? step[k] : 0.0f;
        }
        if (block.turned) {
            block.write_items(i, i.at, i.far, out);
            block.write_items(i, i.at + threads * row, i.far, step);
            __syncthreads();
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                out[k] = block.plane(0)[k];
                step[k] = block.plane(1)[k];
            }
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            over_time[0] += out[k];
            over_time[1] += step[k];
        }
    }
    if (active) {
        float* const to = plan.sums + block.term() * 2 * block.dim + block.c;
        to[0] = over_time[0];
        to[block.dim] = over_time[1];
    }
}

}  // namespace ssmkit::cuda::detail
