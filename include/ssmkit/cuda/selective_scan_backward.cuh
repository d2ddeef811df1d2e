#pragma once

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/cuda/selective_scan.cuh>

namespace ssmkit::cuda {
namespace detail {

/// A block has `channels` channels of one group for `tokens` tokens (a segment), four neighbouring threads a channel; sixteen
/// states at a time, four a thread. Decays and states of `tile` tokens stay in registers.
template <class Param>
struct scan_backward_layout {
    static constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1;
    static constexpr int threads = 128, warps = 4, lanes = 4, states = 4, chunk = 16, channels = 32, tokens = 32;
    static constexpr int tile = 8 / parts, tiles = tokens / tile;
    static constexpr int row = tokens + 1;  // neighbouring channels lie in neighbouring banks
    static constexpr int plane = channels * row, map = tokens * chunk * parts;
    static constexpr int checkpoints = tiles * states * parts * threads, sums = warps * tokens * 2 * chunk * parts;
    static constexpr int carry_bytes = 4 * (3 * plane + 2 * map), main_bytes = 4 * (6 * plane + 2 * map + checkpoints + sums);
};

/// How the work is cut, and what lies in the workspace. h, decay and K are (batch, segments, dim, state) each.
struct scan_backward_plan {
    index segments = 0;       ///< of the sequence, scan_backward_layout::tokens each
    index unit = 0;           ///< channels that share their group of B and that of C
    index tiles_of_unit = 0;  ///< blocks that these channels take
    index tiles = 0;          ///< of all channels
    float *h = nullptr;       ///< a segment's last state from zero; then the state it starts with; then its share of dA
    float *decay = nullptr;   ///< the product of a segment's decays
    float *K = nullptr;       ///< the gradient before a segment from zero after it; then the one after it
    float *sums = nullptr;    ///< (batch, segments, 2, dim): a segment's share of dD and of ddelta_bias
    float *dB = nullptr, *dC = nullptr;  ///< (tiles, batch, length, state): a block's share
    std::uint32_t* severed = nullptr;    ///< (batch, segments): a reset lies in the segment
};

/// The plan over `memory`, and the bytes it takes.
template <class T, class Param>
std::size_t plan_scan_backward(const selective_scan_backward_args<T, Param>& a, std::byte* memory, scan_backward_plan& plan)
{
    using layout = scan_backward_layout<Param>;
    const auto& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(1) * layout::parts;
    plan.segments = (length + layout::tokens - 1) / layout::tokens;
    if (dim > 0) {
        plan.unit = std::gcd(dim / f.B.extent(2), dim / f.C.extent(2));
        plan.tiles_of_unit = (plan.unit + layout::channels - 1) / layout::channels;
        plan.tiles = dim / plan.unit * plan.tiles_of_unit;
    }
    std::size_t bytes = 0;
    const auto take = [&](auto*& p, index count) {
        p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(memory ? memory + bytes : nullptr);
        bytes += (4 * static_cast<std::size_t>(count) + 255) / 256 * 256;
    };
    const index carried = batch * plan.segments * dim * state, shares = plan.tiles * batch * length * state;
    take(plan.h, carried);
    take(plan.decay, carried);
    take(plan.K, carried);
    take(plan.sums, batch * plan.segments * 2 * dim);
    take(plan.severed, batch * plan.segments);
    take(plan.dB, a.dB.data() ? shares : 0);
    take(plan.dC, a.dC.data() ? shares : 0);
    return bytes;
}

/// exp(d A), given d log2(e): complex numbers as pairs.
template <int Parts>
__device__ __forceinline__ void scan_decay(float d, float d_log2_e, const float (&A)[Parts], float (&to)[Parts])
{
    const float size = exp2_fast(d_log2_e * A[0]);
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

/// sum + Re(x conj(y)).
template <int Parts>
__device__ __forceinline__ float add_product(const float (&x)[Parts], const float (&y)[Parts], float sum)
{
#pragma unroll
    for (int part = 0; part < Parts; ++part) sum = fmaf(x[part], y[part], sum);
    return sum;
}

/// What both passes have of a block: where it is, and its segment in shared memory.
template <class T, class Param>
struct scan_backward_block {
    using layout = scan_backward_layout<Param>;
    static constexpr int parts = layout::parts;
    const selective_scan_backward_args<T, Param>& a;
    const scan_backward_plan& plan;
    float *delta, *u, *dp, *B, *C;  // (channels, row) and (tokens, chunk)
    index length, dim, state, tile, segment, b, first, c0, c_end;
    int count;                          // of tokens that are there
    int lane, own;
    std::uint32_t resets = 0, stops = 0;  // bit i: before token i lies a reset, a snapshot

    __device__ scan_backward_block(const selective_scan_backward_args<T, Param>& args, const scan_backward_plan& p, float* memory)
        : a(args), plan(p), delta(memory), u(delta + layout::plane), dp(u + layout::plane), B(dp + layout::plane), C(B + layout::map)
    {
        length = a.forward.u.extent(1), dim = a.forward.u.extent(2), state = a.forward.A.extent(1);
        tile = blockIdx.x % plan.tiles;
        segment = blockIdx.x / plan.tiles % plan.segments;
        b = blockIdx.x / plan.tiles / plan.segments;
        first = segment * layout::tokens;
        count = static_cast<int>(min(length - first, index{layout::tokens}));
        c0 = tile / plan.tiles_of_unit * plan.unit + tile % plan.tiles_of_unit * layout::channels;
        c_end = (tile / plan.tiles_of_unit + 1) * plan.unit;
        lane = threadIdx.x % layout::lanes;
        own = threadIdx.x / layout::lanes;
    }

    __device__ bool active() const { return c0 + own < c_end; }
    __device__ index carried(index n) const { return (((b * plan.segments + segment) * dim + c0 + own) * state + n) * parts; }

    /// Every channel and token once: neighbouring threads take neighbouring channels, or tokens where those are contiguous.
    template <class F>
    __device__ void for_each_element(F f) const
    {
        const bool turned = a.forward.u.stride(2) != 1 && a.forward.u.stride(1) == 1;
#pragma unroll 2
        for (int i = threadIdx.x; i < layout::channels * layout::tokens; i += layout::threads) {
            const int channel = turned ? i / layout::tokens : i % layout::channels;
            const int token = turned ? i % layout::tokens : i / layout::channels;
            f(channel, token, c0 + channel < c_end && token < count);
        }
    }

    __device__ float raw_step(index t, index c) const
    {
        return widened(a.forward.delta(b, t, c)) + (a.forward.delta_bias.data() ? a.forward.delta_bias[c] : 0.0f);
    }

    /// Steps, inputs and gradients of p; a step of 0 beyond the last token leaves states as they are. Synchronised by load_maps
    /// or the caller.
    __device__ void load_tokens()
    {
        const auto& f = a.forward;
        for_each_element([&](int channel, int token, bool there) {
            float step = 0.0f, input = 0.0f, gradient = 0.0f;
            if (there) {
                const index t = visited(f, first + token), c = c0 + channel;
                step = raw_step(t, c);
                if (f.delta_softplus) step = softplus(step);
                input = widened(f.u(b, t, c));
                gradient = widened(a.dy(b, t, c));
                if (f.z.data()) gradient *= silu(widened(f.z(b, t, c)));
            }
            const int at = channel * layout::row + token;
            delta[at] = step;
            u[at] = input;
            dp[at] = gradient;
        });
        if (f.reset.data()) {
            // Each warp asks for itself.
            const int token = threadIdx.x % 32;
            resets = __ballot_sync(0xffffffffu, token < count && f.reset(b, visited(f, first + token)) != 0);
        }
        if (a.dsnapshots.data()) {
            for (index i = 0; i < f.snapshot_after.extent(1); ++i) {
                const index at = f.snapshot_after(b, i) - first;
                if (at >= 0 && at < count) stops |= 1u << at;
            }
        }
    }

    /// The states n0 to n0 + 15 of B and C; no thread may still read earlier ones.
    __device__ void load_maps(index n0)
    {
        const auto& f = a.forward;
        const index group_of_B = c0 / (dim / f.B.extent(2)), group_of_C = c0 / (dim / f.C.extent(2));
        constexpr int width = layout::chunk * parts;
        for (int i = threadIdx.x; i < layout::map; i += layout::threads) {
            const int token = i / width, part = i % width % parts;
            const index n = n0 + i % width / parts;
            float x = 0.0f, y = 0.0f;
            if (token < count && n < state) {
                const index t = visited(f, first + token);
                if constexpr (parts == 2) {
                    x = reinterpret_cast<const float*>(f.B.pointer(b, t, group_of_B, n))[part];
                    y = reinterpret_cast<const float*>(f.C.pointer(b, t, group_of_C, n))[part];
                } else {
                    x = widened(f.B(b, t, group_of_B, n));
                    y = widened(f.C(b, t, group_of_C, n));
                }
            }
            B[i] = x;
            C[i] = y;
        }
        __syncthreads();
    }

    /// This thread's four states of a token's map.
    __device__ __forceinline__ void map_of(const float* map, int token, float (&to)[layout::states][parts]) const
    {
        const float4* const at = reinterpret_cast<const float4*>(map + (token * layout::chunk + lane * layout::states) * parts);
#pragma unroll
        for (int k = 0; k < parts; ++k) {
            const float4 x = at[k];
            const float values[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) to[(4 * k + i) / parts][(4 * k + i) % parts] = values[i];
        }
    }

    __device__ __forceinline__ void rates(index n0, float (&A)[layout::states][parts]) const
    {
#pragma unroll
        for (int s = 0; s < layout::states; ++s) {
            const index n = n0 + lane * layout::states + s;
            const Param x = active() && n < state ? a.forward.A(c0 + own, n) : Param(0);
#pragma unroll
            for (int part = 0; part < parts; ++part) A[s][part] = reinterpret_cast<const float*>(&x)[part];
        }
    }

    /// The gradients of the snapshots before a token, of state n.
    __device__ void stopped(int token, index n, float (&sum)[parts]) const
    {
#pragma unroll
        for (int part = 0; part < parts; ++part) sum[part] = 0.0f;
        if (!active() || n >= state) return;
        for (index i = 0; i < a.forward.snapshot_after.extent(1); ++i) {
            if (a.forward.snapshot_after(b, i) != first + token) continue;
            const float* const x = reinterpret_cast<const float*>(a.dsnapshots.pointer(b, i, c0 + own, n));
#pragma unroll
            for (int part = 0; part < parts; ++part) sum[part] += x[part];
        }
    }

    /// h of the next token.
    __device__ __forceinline__ void advance(bool reset, const float (&decay)[parts], float x, const float (&map)[parts],
                                            const float (&h)[parts], float (&to)[parts]) const
    {
        float in[parts], next[parts];
#pragma unroll
        for (int part = 0; part < parts; ++part) in[part] = x * map[part];
        multiply_add<false>(decay, h, in, next);
#pragma unroll
        for (int part = 0; part < parts; ++part) to[part] = reset ? in[part] : next[part];  // 0 times NaN would be NaN
    }
};

/// Pass 1: what each segment does to a state before it and to a gradient after it, both from zero. Both go forward: the gradient
/// before the segment is the sum of its tokens' own, each times the product of the decays up to it.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_carry_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                  const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, states = layout::states;
    constexpr float m = parts;
    extern __shared__ float4 shared_memory[];
    scan_backward_block<T, Param> block(a, plan, reinterpret_cast<float*>(shared_memory));
    block.load_tokens();
    if (block.tile == 0 && threadIdx.x == 0) plan.severed[block.b * plan.segments + block.segment] = block.resets != 0;
    const float *const delta = block.delta + block.own * layout::row, *const u = block.u + block.own * layout::row;
    const float* const dp = block.dp + block.own * layout::row;
    for (index n0 = 0; n0 < block.state; n0 += layout::chunk) {
        block.load_maps(n0);
        float A[states][parts], h[states][parts] = {}, product[states][parts] = {}, K[states][parts] = {};
        block.rates(n0, A);
#pragma unroll
        for (int s = 0; s < states; ++s) product[s][0] = 1.0f;
        bool open = true;
#pragma unroll 4
        for (int j = 0; j < block.count; ++j) {
            if (open && (block.stops >> j & 1)) {
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    float x[parts];
                    block.stopped(j, n0 + block.lane * states + s, x);
                    multiply_add<true>(product[s], x, K[s], K[s]);
                }
            }
            const bool reset = block.resets >> j & 1;
            open = open && !reset;
            const float d = delta[j], d_log2_e = d * log2_e, x = d * u[j], g = m * dp[j];
            float B[states][parts], C[states][parts];
            block.map_of(block.B, j, B);
            block.map_of(block.C, j, C);
#pragma unroll
            for (int s = 0; s < states; ++s) {
                float decay[parts];
                scan_decay<parts>(d, d_log2_e, A[s], decay);
                block.advance(reset, decay, x, B[s], h[s], h[s]);
                float zero[parts] = {}, next[parts], gradient[parts], sum[parts];
                multiply_add<false>(decay, product[s], zero, next);
                // conj(product) times conj(C) is the conjugate of their product.
#pragma unroll
                for (int part = 0; part < parts; ++part) gradient[part] = part == 0 ? g * C[s][part] : -g * C[s][part];
                multiply_add<true>(next, gradient, K[s], sum);
#pragma unroll
                for (int part = 0; part < parts; ++part) {
                    product[s][part] = open ? next[part] : 0.0f;
                    K[s][part] = open ? sum[part] : K[s][part];
                }
            }
        }
#pragma unroll
        for (int s = 0; s < states; ++s) {
            const index n = n0 + block.lane * states + s;
            if (!block.active() || n >= block.state) continue;
            const index at = block.carried(n);
#pragma unroll
            for (int part = 0; part < parts; ++part) {
                plan.h[at + part] = h[s][part];
                plan.decay[at + part] = product[s][part];
                plan.K[at + part] = K[s][part];
            }
        }
        __syncthreads();
    }
}

/// Pass 2: from segment to segment, a thread a state: the state that each starts with, the gradient after each, and that of the
/// initial state. Loads do not wait for the chain of products: sixteen segments' are under way together.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_chain_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                  const __grid_constant__ scan_backward_plan plan)
{
    constexpr int parts = scan_backward_layout<Param>::parts, ahead = 16 / parts;
    const index batch = a.forward.u.extent(0), length = a.forward.u.extent(1), dim = a.forward.u.extent(2), state = a.forward.A.extent(1);
    const index i = blockIdx.x * index{blockDim.x} + threadIdx.x;
    if (i >= batch * dim * state) return;
    const index n = i % state, c = i / state % dim, b = i / state / dim, stride = dim * state * parts;
    const index start = (b * plan.segments * dim + c) * state * parts + n * parts;
    const std::uint32_t* const severed = plan.severed + b * plan.segments;
    float x[parts] = {};
    const auto walk = [&]<bool Back>(std::bool_constant<Back>, float* values) {
        for (index first = 0; first < plan.segments; first += ahead) {
            float decay[ahead][parts], own[ahead][parts];
            bool cut[ahead];
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
                if (first + k >= plan.segments) break;
                const index segment = Back ? plan.segments - 1 - first - k : first + k;
                cut[k] = severed[segment] != 0;
#pragma unroll
                for (int part = 0; part < parts; ++part) {
                    decay[k][part] = plan.decay[start + segment * stride + part];
                    own[k][part] = values[start + segment * stride + part];
                }
            }
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
                if (first + k >= plan.segments) break;
                const index segment = Back ? plan.segments - 1 - first - k : first + k;
#pragma unroll
                for (int part = 0; part < parts; ++part) values[start + segment * stride + part] = x[part];
                float next[parts];
                multiply_add<Back>(decay[k], x, own[k], next);
#pragma unroll
                for (int part = 0; part < parts; ++part) x[part] = cut[k] ? own[k][part] : next[part];
            }
        }
    };
    const auto add = [&](const Param* from) {
#pragma unroll
        for (int part = 0; part < parts; ++part) x[part] += reinterpret_cast<const float*>(from)[part];
    };
    if (a.forward.initial_state.data()) add(a.forward.initial_state.pointer(b, c, n));
    walk(std::false_type{}, plan.h);
#pragma unroll
    for (int part = 0; part < parts; ++part) x[part] = 0.0f;
    if (a.dfinal_state.data()) add(a.dfinal_state.pointer(b, c, n));
    if (a.dsnapshots.data()) {
        for (index k = a.forward.snapshot_after.extent(1); k-- > 0 && a.forward.snapshot_after(b, k) == length;) {
            add(a.dsnapshots.pointer(b, k, c, n));
        }
    }
    walk(std::true_type{}, plan.K);
    if (a.dinitial_state.data()) {
#pragma unroll
        for (int part = 0; part < parts; ++part) reinterpret_cast<float*>(a.dinitial_state.pointer(b, c, n))[part] = x[part];
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

/// Pass 3: every gradient of a segment. The states go forward once, leaving one a tile of tokens in shared memory; then tile by tile
/// from the last, they are computed again, kept in registers and met by the gradients.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                            const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, states = layout::states, tile = layout::tile, row = layout::row, width = 2 * layout::chunk * parts;
    constexpr float m = parts;
    extern __shared__ float4 shared_memory[];
    float* const memory = reinterpret_cast<float*>(shared_memory);
    scan_backward_block<T, Param> block(a, plan, memory);
    float* const sums = memory + 3 * layout::plane + 2 * layout::map;  // three planes: of du, ddelta and p, over the states
    float* const checkpoints = sums + 3 * layout::plane;
    float* const shares = checkpoints + layout::checkpoints;           // (warps, tokens, dB and dC)
    for (int i = threadIdx.x; i < 3 * layout::plane; i += layout::threads) sums[i] = 0.0f;
    block.load_tokens();
    const float *const delta = block.delta + block.own * row, *const u = block.u + block.own * row, *const dp = block.dp + block.own * row;
    const int tiles = (block.count + tile - 1) / tile, lane = block.lane, warp = threadIdx.x / 32;
    const bool maps = plan.dB || plan.dC, active = block.active();
    const index batch = a.forward.u.extent(0);

    for (index n0 = 0; n0 < block.state; n0 += layout::chunk) {
        block.load_maps(n0);
        float A[states][parts], h[tile + 1][states][parts], K[states][parts], dA[states][parts] = {};
        block.rates(n0, A);
#pragma unroll
        for (int s = 0; s < states; ++s) {
            const index n = n0 + lane * states + s;
            const bool there = active && n < block.state;
#pragma unroll
            for (int part = 0; part < parts; ++part) {
                h[0][s][part] = there ? plan.h[block.carried(n) + part] : 0.0f;
                K[s][part] = there ? plan.K[block.carried(n) + part] : 0.0f;
            }
        }
        const auto checkpoint = [&](int k, int s, int part) -> float& {
            return checkpoints[((k * states + s) * parts + part) * layout::threads + threadIdx.x];
        };
        for (int k = 0; k < tiles; ++k) {
#pragma unroll
            for (int s = 0; s < states; ++s) {
#pragma unroll
                for (int part = 0; part < parts; ++part) checkpoint(k, s, part) = h[0][s][part];
            }
            if (k + 1 == tiles) break;
#pragma unroll
            for (int j = 0; j < tile; ++j) {
                const int at = k * tile + j;
                const float d = delta[at], d_log2_e = d * log2_e, x = d * u[at];
                float B[states][parts];
                block.map_of(block.B, at, B);
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    float decay[parts];
                    scan_decay<parts>(d, d_log2_e, A[s], decay);
                    block.advance(block.resets >> at & 1, decay, x, B[s], h[0][s], h[0][s]);
                }
            }
        }
        for (int k = tiles; k-- > 0;) {
            float decay[tile][states][parts];
#pragma unroll
            for (int s = 0; s < states; ++s) {
#pragma unroll
                for (int part = 0; part < parts; ++part) h[0][s][part] = checkpoint(k, s, part);
            }
#pragma unroll
            for (int j = 0; j < tile; ++j) {
                const int at = k * tile + j;
                const float d = delta[at], d_log2_e = d * log2_e, x = d * u[at];
                float B[states][parts];
                block.map_of(block.B, at, B);
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    scan_decay<parts>(d, d_log2_e, A[s], decay[j][s]);
                    block.advance(block.resets >> at & 1, decay[j][s], x, B[s], h[j][s], h[j + 1][s]);
                }
            }
#pragma unroll
            for (int j = tile; j-- > 0;) {
                const int at = k * tile + j;
                const bool reset = block.resets >> at & 1;
                const float d = delta[at], input = u[at], x = d * input, g = m * dp[at];
                float B[states][parts], C[states][parts];
                block.map_of(block.B, at, B);
                block.map_of(block.C, at, C);
                float over_states[4] = {}, over_channels[4 * states * parts / 2];
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    const float zero[parts] = {};
                    float kept[parts], G[parts], change[parts], back[parts];
                    multiply_add<false>(decay[j][s], h[j][s], zero, kept);
#pragma unroll
                    for (int part = 0; part < parts; ++part) {
                        kept[part] = reset ? 0.0f : kept[part];
                        G[part] = fmaf(part == 0 ? g : -g, C[s][part], K[s][part]);
                        change[part] = B[s][part] * input;
                    }
                    multiply_add<false>(A[s], kept, change, change);
                    over_states[0] = add_product(G, B[s], over_states[0]);
                    over_states[1] = add_product(G, change, over_states[1]);
                    float step_G[parts];
#pragma unroll
                    for (int part = 0; part < parts; ++part) {
                        over_states[2] = fmaf(part == 0 ? m * C[s][part] : -m * C[s][part], h[j + 1][s][part], over_states[2]);
                        step_G[part] = d * G[part];
                        over_channels[s * parts + part] = x * G[part];
                        over_channels[(states + s) * parts + part] = part == 0 ? g * h[j + 1][s][part] : -g * h[j + 1][s][part];
                    }
                    multiply_add<true>(kept, step_G, dA[s], dA[s]);
                    multiply_add<true>(decay[j][s], G, zero, back);
#pragma unroll
                    for (int part = 0; part < parts; ++part) K[s][part] = reset ? 0.0f : back[part];
                }
                if (block.stops >> at & 1) {
#pragma unroll
                    for (int s = 0; s < states; ++s) {
                        float stopped[parts];
                        block.stopped(at, n0 + lane * states + s, stopped);
#pragma unroll
                        for (int part = 0; part < parts; ++part) K[s][part] += stopped[part];
                    }
                }
                // Four values over four threads: thread l is left with the sum of value l.
                exchange_halves<4>(over_states, 2);
                exchange_halves<2>(over_states, 1);
                if (lane < 3) sums[lane * layout::plane + block.own * row + at] += over_states[0];
                if (maps) {
                    // Over the warp's eight channels; a channel that is not there has no NaN to give.
                    constexpr int values = 2 * states * parts, left = values / 8;
                    if (!active) {
#pragma unroll
                        for (int i = 0; i < values; ++i) over_channels[i] = 0.0f;
                    }
                    exchange_halves<values>(over_channels, 16);
                    exchange_halves<values / 2>(over_channels, 8);
                    exchange_halves<values / 4>(over_channels, 4);
#pragma unroll
                    for (int i = 0; i < left; ++i) {
                        const int value = threadIdx.x % 32 / 4 * left + i, which = value / (values / 2);
                        shares[(warp * layout::tokens + at) * width + which * (width / 2) + lane * states * parts + value % (values / 2)] =
                            over_channels[i];
                    }
                }
            }
        }
#pragma unroll
        for (int s = 0; s < states; ++s) {
            const index n = n0 + lane * states + s;
            if (!active || n >= block.state) continue;
#pragma unroll
            for (int part = 0; part < parts; ++part) plan.h[block.carried(n) + part] = dA[s][part];
        }
        __syncthreads();
        if (maps) {
            for (int i = threadIdx.x; i < block.count * width; i += layout::threads) {
                const int token = i / width, value = i % width, which = value / (width / 2), own = value % (width / 2);
                if (n0 + own / parts >= block.state) continue;
                float sum = 0.0f;
#pragma unroll
                for (int w = 0; w < layout::warps; ++w) sum += shares[(w * layout::tokens + token) * width + value];
                float* const to = which == 0 ? plan.dB : plan.dC;
                const index t = visited(a.forward, block.first + token);
                if (to) to[(((block.tile * batch + block.b) * block.length + t) * block.state + n0) * parts + own] = sum;
            }
            __syncthreads();
        }
    }

    __syncthreads();
    const auto& f = a.forward;
    block.for_each_element([&](int channel, int token, bool there) {
        if (!there) return;
        const int at = channel * row + token;
        const index t = visited(f, block.first + token), c = block.c0 + channel;
        const float skip = f.D.data() ? f.D[c] : 0.0f;
        float step = sums[layout::plane + at];
        if (f.delta_softplus) {
            const float e = exp2_fast(-fabsf(block.raw_step(t, c)) * log2_e);  // sigmoid without overflow
            step *= __fdividef(block.raw_step(t, c) >= 0.0f ? 1.0f : e, 1.0f + e);
        }
        sums[layout::plane + at] = step;
        if (a.du.data()) a.du(block.b, t, c) = narrowed<T>(fmaf(block.delta[at], sums[at], skip * block.dp[at]));
        if (a.ddelta.data()) a.ddelta(block.b, t, c) = narrowed<T>(step);
        if (a.dz.data()) {
            const float z = widened(f.z(block.b, t, c)), e = exp2_fast(-fabsf(z) * log2_e);
            const float small = __fdividef(e, 1.0f + e), large = __fdividef(1.0f, 1.0f + e);
            const float s = z >= 0.0f ? large : small, rest = z >= 0.0f ? small : large;
            const float p = fmaf(skip, block.u[at], sums[2 * layout::plane + at]);
            a.dz(block.b, t, c) = narrowed<T>(widened(a.dy(block.b, t, c)) * p * s * fmaf(z, rest, 1.0f));
        }
    });
    __syncthreads();
    if (threadIdx.x < 2 * layout::channels) {
        const int channel = threadIdx.x % layout::channels, which = threadIdx.x / layout::channels, at = channel * row;
        if (block.c0 + channel < block.c_end) {
            float sum = 0.0f;
            for (int j = 0; j < block.count; ++j) {
                sum = which == 0 ? fmaf(block.dp[at + j], block.u[at + j], sum) : sum + sums[layout::plane + at + j];
            }
            plan.sums[((block.b * plan.segments + block.segment) * 2 + which) * block.dim + block.c0 + channel] = sum;
        }
    }
}

/// Rows of a sum, in a fixed order: to(i / inner, i % inner / parts) = sum of from[k * stride + i] over k < terms.
template <int Rows>
__global__ void __launch_bounds__(32 * Rows) sum_rows_kernel(const float* from, index terms, index stride, float* to, index count, index inner,
                                                             index parts, index far_outer, index far_inner)
{
    __shared__ float partial[Rows][32];
    const index i = blockIdx.x * index{32} + threadIdx.x;
    float sum = 0.0f;
    if (i < count) {
#pragma unroll 4
        for (index k = threadIdx.y; k < terms; k += Rows) sum += from[k * stride + i];
    }
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || i >= count) return;
    for (int k = 1; k < Rows; ++k) sum += partial[k][threadIdx.x];
    to[(i / inner * far_outer + i % inner / parts * far_inner) * parts + i % parts] = sum;
}

/// dB or dC from the blocks' shares: over the tiles of a group and every axis along which the gradient has stride 0, in a fixed
/// order. `Wide`: a warp shares an element's sum.
template <bool Wide, class Param>
__global__ void __launch_bounds__(256) sum_maps_kernel(const float* shares, index tiles, const __grid_constant__ view<Param, 4> to)
{
    constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1, width = Wide ? 32 : 1;
    const index batch = to.extent(0), length = to.extent(1), groups = to.extent(2), row = to.extent(3) * parts, tiles_of_group = tiles / groups;
    const auto kept = [&](int axis) { return to.stride(axis) == 0 ? index{1} : to.extent(axis); };
    const index own_b = kept(0), own_t = kept(1), own_g = kept(2), count = own_b * own_t * own_g * row;
    const index summed_t = to.stride(1) == 0 ? length : 1, summed_g = to.stride(2) == 0 ? groups : 1;
    const index summed = (to.stride(0) == 0 ? batch : 1) * summed_t * summed_g, lane = threadIdx.x % width;
    const index step = index{gridDim.x} * blockDim.x / width;
    for (index i = (blockIdx.x * index{blockDim.x} + threadIdx.x) / width; i < count; i += step) {
        const index n = i % row, g = i / row % own_g, t = i / row / own_g % own_t, b = i / row / own_g / own_t;
        float sum = 0.0f;
        for (index k = lane; k < summed; k += width) {
            const index bb = b + k / summed_g / summed_t, tt = t + k / summed_g % summed_t, gg = g + k % summed_g;
            const float* at = shares + ((gg * tiles_of_group * batch + bb) * length + tt) * row + n;
#pragma unroll 8
            for (index tile = 0; tile < tiles_of_group; ++tile) sum += at[tile * batch * length * row];
        }
        if constexpr (Wide) {
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        }
        if (lane == 0) reinterpret_cast<float*>(to.pointer(b, t, g, n / parts))[n % parts] = sum;
    }
}

inline unsigned scan_backward_grid(index blocks)
{
    ssmkit::detail::require(blocks < (index{1} << 31), "cuda::selective_scan_backward", "u", "needs more blocks than a grid has");
    return static_cast<unsigned>(blocks);
}

}  // namespace detail

/// Bytes of the device's memory that selective_scan_backward needs beside its arguments: three states every 32 tokens, and, for dB
/// and for dC each, (batch, length, state) numbers for every 32 channels of a group (for every channel of smaller groups).
template <class T, class Param>
std::size_t selective_scan_backward_workspace_size(const selective_scan_backward_args<T, Param>& a)
{
    ssmkit::detail::check_selective_scan_backward(a, ssmkit::detail::memory::device);
    detail::scan_backward_plan plan;
    return detail::plan_scan_backward(a, nullptr, plan);
}

/// The gradients of the selective scan on the device: shapes, equations and options at selective_scan_backward_args, whose views
/// hold device pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the
/// workspace is too small, and cuda::error if a launch fails; the values of order and snapshot_after are trusted. Results are
/// the same bit for bit from run to run: every sum has its order.
///
/// Time is cut into segments of 32 tokens, so that short batches fill the device too. Each state and token has three exponentials,
/// 16 a cycle and multiprocessor; some forty other instructions beside each state and token bind instead.
template <class T, class Param>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    using layout = scan_backward_layout<Param>;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::selective_scan_backward";
    ssmkit::detail::check_selective_scan_backward(a, ssmkit::detail::memory::device);
    scan_backward_plan plan;
    // Views into the workspace begin at a multiple of 4 bytes only if the workspace does; cudaMalloc's do.
    ssmkit::detail::require(plan_scan_backward(a, workspace.data(), plan) <= workspace.size(), op, "workspace", "is too small");
    if (!a.dB.data()) plan.dB = nullptr;
    if (!a.dC.data()) plan.dC = nullptr;
    const auto& f = a.forward;
    const index batch = f.u.extent(0), dim = f.u.extent(2), state = f.A.extent(1), states = dim * state * layout::parts;
    const index blocks = batch * plan.segments * plan.tiles, chains = (batch * dim * state + 127) / 128, terms = batch * plan.segments;
    const unsigned grid = scan_backward_grid(blocks), chain_grid = scan_backward_grid(chains), rows_grid = scan_backward_grid((states + 31) / 32);
    const auto carry = scan_backward_carry_kernel<T, Param>;
    const auto main = scan_backward_kernel<T, Param>;
    require_success(op, cudaFuncSetAttribute(carry, cudaFuncAttributeMaxDynamicSharedMemorySize, layout::carry_bytes));
    require_success(op, cudaFuncSetAttribute(main, cudaFuncAttributeMaxDynamicSharedMemorySize, layout::main_bytes));
    if (blocks > 0) carry<<<grid, layout::threads, layout::carry_bytes, stream>>>(a, plan);
    if (chains > 0) scan_backward_chain_kernel<T, Param><<<chain_grid, 128, 0, stream>>>(a, plan);
    if (blocks > 0) main<<<grid, layout::threads, layout::main_bytes, stream>>>(a, plan);
    const auto sum_rows = [&](const float* from, index stride, float* to, index count, index inner, index parts, index outer, index within) {
        if (!to || count == 0) return;
        sum_rows_kernel<8><<<static_cast<unsigned>((count + 31) / 32), dim3(32, 8), 0, stream>>>(from, terms, stride, to, count, inner, parts,
                                                                                                  outer, within);
    };
    if (rows_grid > 0) {
        sum_rows(plan.h, states, reinterpret_cast<float*>(a.dA.data()), states, state * layout::parts, layout::parts, a.dA.stride(0),
                 a.dA.stride(1));
    }
    sum_rows(plan.sums, 2 * dim, a.dD.data(), dim, 1, 1, a.dD.stride(0), 0);
    sum_rows(plan.sums + dim, 2 * dim, a.ddelta_bias.data(), dim, 1, 1, a.ddelta_bias.stride(0), 0);
    const auto sum_maps = [&](const float* shares, const view<Param, 4>& to) {
        if (!to.data()) return;
        index count = state * layout::parts;
        bool wide = false;
        for (int axis = 0; axis < 3; ++axis) {
            count *= to.stride(axis) == 0 ? 1 : to.extent(axis);
            wide = wide || (to.stride(axis) == 0 && to.extent(axis) > 1);
        }
        if (count == 0) return;
        const unsigned maps_grid = static_cast<unsigned>(std::min<index>((count * (wide ? 32 : 1) + 255) / 256, 1 << 20));
        if (wide) {
            sum_maps_kernel<true><<<maps_grid, 256, 0, stream>>>(shares, plan.tiles, to);
        } else {
            sum_maps_kernel<false><<<maps_grid, 256, 0, stream>>>(shares, plan.tiles, to);
        }
    };
    sum_maps(plan.dB, a.dB);
    sum_maps(plan.dC, a.dC);
    require_success(op, cudaGetLastError());
}

/// The same where selective_scan_backward_workspace_size is 0; otherwise shape_error.
template <class T, class Param>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a, cudaStream_t stream)
{
    selective_scan_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
