#pragma once

// What the passes of the selective scan's gradients are written on: how the work is cut, what lies in the workspace, and a block of
// channels whose tiles of tokens come and go through shared memory.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <type_traits>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/cuda/detail/scan_tiles.cuh>
#include <ssmkit/cuda/detail/tensor_core.cuh>
#include <ssmkit/cuda/detail/words.cuh>

namespace ssmkit::cuda::detail {

template <class Param>
struct scan_backward_layout {
    static constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1;
    static constexpr int together = 2 / parts;     // states that the main pass works on at a time
    static constexpr int tokens = 8, window = 64;  // of a tile; of which B and C lie in shared memory together,
    static constexpr int width = 16, chunk = width / parts, pairs = width / 2;  // of a chunk of states
    static constexpr int map_row = window + 4, map = width * map_row;
    static constexpr int values = together * 2 * parts * tokens;  // a channel's shares of dB and dC, of the states that go together
    static constexpr int row = values + 4;                        // eight threads write 16 bytes each without conflicts
    static constexpr int parties = 4, sums = pairs * values;      // a warp's channels are summed in so many parties
    static constexpr int arrays = 4, lines = arrays + 4;          // by token: u, delta, dy, z; beside them du, ddelta, dz, shares
    static constexpr int most_threads = 128;
    static_assert(values == 32, "eight lanes have four sums each");

    /// Between the tokens of a tile in shared memory, however many threads there are; its bytes.
    template <class T>
    static constexpr int pitch = most_threads + wide<T>;
    template <class T>
    static constexpr int tile_bytes = static_cast<int>(sizeof(T)) * arrays * tokens * pitch<T>;
    /// Shared memory: lines, maps and two tiles; maps, a row a thread, the warps' sums, what threads carry from tile to tile, and a
    /// tile. There lines lie between rows.
    template <class T>
    static constexpr int carry_bytes = 16 * lines + 4 * 2 * window * width + 2 * tile_bytes<T>;
    static constexpr int carried_bytes(int threads) { return 16 * pairs * threads; }
    template <class T>
    static constexpr int main_bytes(int threads)
    {
        return 4 * (2 * map + threads * row + threads / 32 * parties * sums) + carried_bytes(threads) + tile_bytes<T>;
    }
};
static_assert(3 * (scan_backward_layout<float>::main_bytes<float>(128) + 1024) <= 228 * 1024, "three blocks fit a multiprocessor");

/// How the work is cut, and what lies in the workspace.
struct scan_backward_plan {
    int tiles = 0;             ///< of a segment
    index segments = 0;        ///< of the sequence
    index unit = 0;            ///< channels that share their group of B and that of C
    index sharing_B = 0;       ///< channels of a group of B
    index sharing_C = 0;       ///< channels of a group of C
    int threads = 0;           ///< of a block: so many channels of a unit at most
    index blocks_of_unit = 0;  ///< that these channels take
    index blocks = 0;          ///< that all channels take
    index pairs = 0;           ///< of two states, or of a complex state's parts, side by side; a last one may be half there
    index chunks = 0;          ///< of the states, scan_backward_layout::chunk each
    bool words = false;        ///< all arrays (batch, length, dim) may be accessed in words of 16 bytes along the channels
    // Each (batch, segments, ...), but for the shares of dB and dC:
    float2* starts = nullptr;            ///< (tiles - 1, pairs, dim): the state before a tile, from zero before its segment
    float2* h = nullptr;                 ///< (pairs, dim): a segment's last state from zero
    float4* begins = nullptr;            ///< (pairs, dim): A, and the state that a segment starts with
    float2* K = nullptr;                 ///< (pairs, dim): the gradient before a segment from zero after it; then that after it
    float2* dA = nullptr;                ///< (pairs, dim): a segment's share
    float4* carried = nullptr;           ///< (blocks, pairs, threads): K and dA from tile to tile, if they are more than a chunk
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
    if (dim > 0) {
        plan.sharing_B = dim / f.B.extent(2);
        plan.sharing_C = dim / f.C.extent(2);
        plan.unit = std::gcd(plan.sharing_B, plan.sharing_C);
        plan.threads = plan.unit >= layout::most_threads ? layout::most_threads : static_cast<int>((plan.unit + 31) / 32 * 32);
        plan.blocks_of_unit = (plan.unit + plan.threads - 1) / plan.threads;
        plan.blocks = dim / plan.unit * plan.blocks_of_unit;
    }
    // Long segments have fewer ends to work on, where there are enough of them for every multiprocessor; masks have 64 bits.
    const bool masks = f.reset.data() || a.dsnapshots.data();
    const auto segments = [length](int tiles) { return (length + tiles * layout::tokens - 1) / (tiles * layout::tokens); };
    plan.tiles = !masks && batch * segments(16) * plan.blocks >= 1024 ? 16 : 8;
    plan.segments = segments(plan.tiles);
    plan.pairs = (state + 1) / 2;
    plan.chunks = (state + layout::width - 1) / layout::width;
    // Within a segment 32 bits hold the way along words.
    const auto words = [](const auto& v) { return !v.data() || (in_words(v, 2, wide<T>) && std::abs(v.stride(1)) < 1 << 23); };
    plan.words = !f.order.data() && plan.unit % wide<T> == 0 && words(f.u) && words(f.delta) && words(f.z) && words(a.dy) &&
                 words(a.du) && words(a.ddelta) && words(a.dz);
    if (memory) memory += (~reinterpret_cast<std::uintptr_t>(memory) + 1) % 16;
    std::size_t bytes = 15;  // of which some go to the alignment
    const auto take = [&](auto*& p, index count) {
        p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(memory ? memory + (bytes - 15) : nullptr);
        bytes += (sizeof(*p) * static_cast<std::size_t>(count) + 255) / 256 * 256;
    };
    const index terms = batch * plan.segments, shares = plan.blocks * batch * length * state, carried = plan.pairs * dim;
    take(plan.starts, terms * (plan.tiles - 1) * carried);
    take(plan.h, terms * carried);
    take(plan.begins, terms * carried);
    take(plan.K, terms * carried);
    take(plan.dA, terms * carried);
    take(plan.carried, plan.chunks > 1 ? terms * plan.blocks * plan.pairs * plan.threads : 0);
    take(plan.steps, terms * plan.tiles * dim);
    take(plan.sums, terms * 2 * dim);
    take(plan.severed, terms);
    take(plan.dB, a.dB.data() ? shares : 0);
    take(plan.dC, a.dC.data() ? shares : 0);
    return bytes;
}

/// Has the compiler keep what it would rather compute again.
__device__ __forceinline__ index kept(index i)
{
    asm volatile("" : "+l"(i));
    return i;
}

/// Two states' A, or a complex one; zero for a state that is not there.
template <class Param>
__device__ __forceinline__ float2 rate_pair(const view<const Param, 2>& A, index c, index pair)
{
    if constexpr (ssmkit::detail::is_complex<Param>) {
        const float* const at = reinterpret_cast<const float*>(A.pointer(c, pair));
        return make_float2(at[0], at[1]);
    } else {
        return make_float2(A(c, 2 * pair), 2 * pair + 1 < A.extent(1) ? A(c, 2 * pair + 1) : 0.0f);
    }
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

/// sum + x; of steps that turn complex numbers in two floats, the second of which is none where the first is infinite.
template <int Parts>
__device__ __forceinline__ void add_step(float2& sum, float x)
{
    if constexpr (Parts == 1) {
        sum.x += x;
        return;
    }
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

/// Where a block's part of an array by token begins, at the segment's first step, and how far on the next step is.
struct alignas(16) scan_backward_line {
    index first, step;
};

/// What both passes have of a block: where it is, its tiles of tokens and the segment's maps in shared memory. Every warp moves the
/// tokens of its own channels. `General` has what the plain case need not ask for at every token: resets, snapshots, an order.
template <bool General, class T, class Param>
struct scan_backward_block {
    using layout = scan_backward_layout<Param>;
    using element_type = std::remove_const_t<T>;
    static constexpr int parts = layout::parts, tokens = layout::tokens, width = layout::width, word = wide<T>;
    static constexpr int pitch = layout::template pitch<T>;
    enum array { of_u, of_delta, of_dy, of_z, of_du, of_ddelta, of_dz, of_shares };
    const selective_scan_backward_args<T, Param>& a;
    const scan_backward_plan& plan;
    const int threads;
    float *const B, *const C;
    scan_backward_line* const lines;
    const int pitch_of_lines;
    index length, dim, state, tile_of_channels, segment, b, chunk, first, c0, c, c_last;
    int count, channels;  // of tokens and channels that are there
    bool active, turned;
    float bias;
    std::uint64_t resets = 0, stops = 0;  // bit i: before token i of the segment lies a reset, a snapshot
    // Of a tile: steps, steps times inputs, gradients of p (twice that of complex states).
    float d[tokens], x[tokens], g[tokens];

    __device__ scan_backward_block(const selective_scan_backward_args<T, Param>& args, const scan_backward_plan& p, float* B,
                                   float* C, float* first_line, int pitch_of_lines)
        : a(args), plan(p), threads(p.threads), B(B), C(C),
          lines(reinterpret_cast<scan_backward_line*>(first_line)), pitch_of_lines(pitch_of_lines)
    {
        const auto& f = a.forward;
        length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(1);
        // A grid has fewer than 2^31 blocks.
        unsigned i = blockIdx.x;
        const auto next_axis = [&i](index count) {
            const unsigned all = i;
            i /= static_cast<unsigned>(count);
            return all - i * static_cast<unsigned>(count);
        };
        tile_of_channels = next_axis(plan.blocks);
        segment = next_axis(plan.segments);
        b = next_axis(f.u.extent(0));
        chunk = i;
        first = segment * plan.tiles * tokens;
        count = static_cast<int>(min(length - first, index{plan.tiles * tokens}));
        const index unit = static_cast<unsigned>(tile_of_channels) / static_cast<unsigned>(plan.blocks_of_unit);
        const index within = (tile_of_channels - unit * plan.blocks_of_unit) * threads;
        c0 = unit * plan.unit + within;
        channels = static_cast<int>(min(plan.unit - within, index{threads}));
        active = static_cast<int>(threadIdx.x) < channels;
        c_last = c0 + channels - 1;
        c = c0 + threadIdx.x;
        turned = f.u.stride(2) != 1 && f.u.stride(1) == 1;
        bias = f.delta_bias.data() ? f.delta_bias[min(c, c_last)] : 0.0f;
        if (threadIdx.x == 0) {
            const index t = f.reverse ? length - 1 - first : first, way = f.reverse ? -1 : 1;
            const auto write_line = [&](const auto& v, array which) {
                lines[which * pitch_of_lines] = {v.pointer(b, t, c0) - v.data(), way * v.stride(1)};
            };
            for_each_input(write_line);
            for_each_output(write_line);
            lines[of_shares * pitch_of_lines] = {shares_at(t), way * state * parts};
        }
        __syncthreads();
        if constexpr (General) {
            if (f.reset.data()) {
                // Each warp asks for itself.
                for (int word = 0; word < 2; ++word) {
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

    __device__ int tiles() const { return (count + tokens - 1) / tokens; }
    __device__ index term() const { return b * plan.segments + segment; }
    /// Of the arrays (batch, segments, pairs, dim), this thread's channel.
    __device__ index carried() const { return term() * plan.pairs * dim + min(c, c_last); }
    __device__ index start(int tile) const { return (term() * (plan.tiles - 1) + tile - 1) * plan.pairs * dim + min(c, c_last); }
    __device__ index step(int tile) const { return (term() * plan.tiles + tile) * dim + min(c, c_last); }
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

    /// What this thread moves of an array's tile: f(place in global memory, place in the tile, whether it is there).
    template <class U, class F>
    __device__ __forceinline__ void for_each_word(int tile, const view<U, 3>& v, array which, F f) const
    {
        constexpr int row = 32 / word;  // words of a warp's channels
        const scan_backward_line line = lines[which * pitch_of_lines];
        const int thread = threadIdx.x, channel = thread / 32 * 32 + thread % row * word;
#pragma unroll
        for (int k = 0; k < tokens / word; ++k) {
            const int token = thread % 32 / row + k * word, step = tile * tokens + token;
            U* const at = v.data() + line.first + (step * static_cast<int>(line.step) + channel);
            f(at, token * pitch + channel, step < count && channel < channels);
        }
    }
    /// The same by elements; neighbouring threads have neighbouring tokens where those are contiguous, else channels.
    template <class U, class F>
    __device__ __forceinline__ void for_each_element(int tile, const view<U, 3>& v, array which, F f) const
    {
        const scan_backward_line line = lines[which * pitch_of_lines];
        const int thread = threadIdx.x, token = turned ? thread % tokens : 0, apart = 32 / tokens;
        const int channel = turned ? thread / 32 * 32 + thread % 32 / tokens : thread;
        const index far = turned ? apart * v.stride(2) : line.step;
        U* at = v.data() + (line.first + (tile * tokens + token) * line.step + channel * v.stride(2));
#pragma unroll
        for (int k = 0; k < tokens; ++k, at += far) {
            const int own = turned ? token : k, across = turned ? channel + k * apart : channel, step = tile * tokens + own;
            const bool there = step < count && across < channels;
            U* here = at;
            if (General && there && a.forward.order.data()) here = v.pointer(b, position(first + step), c0 + across);
            f(here, own * pitch + across, there);
        }
    }
    __device__ __forceinline__ element_type* place(element_type* tile_memory, array which) const
    {
        return tile_memory + which * tokens * pitch;
    }
    template <class F>
    __device__ __forceinline__ void for_each_input(F f) const
    {
        f(a.forward.u, of_u);
        f(a.forward.delta, of_delta);
        f(a.dy, of_dy);
        if (a.forward.z.data()) f(a.forward.z, of_z);
    }

    template <class F>
    __device__ __forceinline__ void for_each_output(F f) const
    {
        if (a.du.data()) f(a.du, of_du);
        if (a.ddelta.data()) f(a.ddelta, of_ddelta);
        if (a.dz.data()) f(a.dz, of_dz);
    }

    /// Of dB's and dC's shares, where a position's states begin.
    __device__ __forceinline__ index shares_at(index t) const
    {
        return ((tile_of_channels * a.forward.u.extent(0) + b) * length + t) * state * parts;
    }

    /// Asks for a tile; zeros where nothing is there.
    __device__ __forceinline__ void bring(int tile, element_type* to) const
    {
        for_each_input([&](const view<const T, 3>& v, array which) {
            element_type* const all = place(to, which);
            if (plan.words) {
                for_each_word(tile, v, which, [&](const T* from, int at, bool there) { copy_async(all + at, from, there); });
            } else {
                for_each_element(tile, v, which,
                                 [&](const T* from, int at, bool there) { all[at] = there ? *from : element_type{}; });
            }
        });
        commit_copies();
    }
    /// Asks for a tile to be in the L2 cache.
    __device__ __forceinline__ void prefetch(int tile) const
    {
        if (!plan.words || tile < 0) return;
        for_each_input([&](const view<const T, 3>& v, array which) {
            for_each_word(tile, v, which, [&](const T* from, int, bool there) {
                if (there) asm volatile("prefetch.global.L2 [%0];" ::"l"(from));
            });
        });
    }
    /// Takes away the outputs that threads have put into a tile in the places of u, delta and z.
    __device__ __forceinline__ void give(int tile, element_type* from) const
    {
        for_each_output([&](const view<T, 3>& v, array which) {
            const element_type* const all = place(from, which == of_du ? of_u : which == of_ddelta ? of_delta : of_z);
            if (plan.words) {
                for_each_word(tile, v, which, [&](T* to, int at, bool there) {
                    if (there) *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(all + at);
                });
            } else {
                for_each_element(tile, v, which, [&](T* to, int at, bool there) {
                    if (there) *to = all[at];
                });
            }
        });
    }

    /// A tile's d, x and g.
    __device__ __forceinline__ void load_tokens(int tile, element_type* from)
    {
        const auto& f = a.forward;
#pragma unroll
        for (int k = 0; k < tokens; ++k) d[k] = widened(place(from, of_delta)[k * pitch + threadIdx.x]) + bias;
        if (f.delta_softplus) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) d[k] = softplus(d[k]);
        }
        const int here = count - tile * tokens;
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            d[k] = k < here ? d[k] : 0.0f;
            x[k] = d[k] * widened(place(from, of_u)[k * pitch + threadIdx.x]);
            g[k] = parts * widened(place(from, of_dy)[k * pitch + threadIdx.x]);
        }
        if (f.z.data()) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) g[k] *= silu(widened(place(from, of_z)[k * pitch + threadIdx.x]));
        }
    }

    /// B and C of a chunk of states from n0 on, at tokens `from` to `to` of a window; zeros where nothing is there. `Own` lies
    /// between states and parts, `Token` between tokens.
    template <int Own, int Token>
    __device__ __forceinline__ void load_maps(int from, int to, index n0) const
    {
        const auto& f = a.forward;
        const int own = threadIdx.x % width;
        const index n = n0 + own / parts, group_of_B = c_last / plan.sharing_B, group_of_C = c_last / plan.sharing_C;
        const int apart = threads / width, start = from + threadIdx.x / width;
        const auto place = [&](const auto& v, index group, int token) {
            return v.pointer(b, position(first + min(token, count - 1)), group, min(n, state - 1));
        };
        auto *of_B = place(f.B, group_of_B, start), *of_C = place(f.C, group_of_C, start);
        const index way = f.reverse ? -apart : apart, far_B = way * f.B.stride(1), far_C = way * f.C.stride(1);
        const auto value = [&](const auto* at) {
            if constexpr (parts == 2) {
                return reinterpret_cast<const float*>(at)[own % parts];
            } else {
                return widened(*at);
            }
        };
#pragma unroll 4
        for (int token = start; token < to; token += apart, of_B += far_B, of_C += far_C) {
            if (General && f.order.data()) of_B = place(f.B, group_of_B, token), of_C = place(f.C, group_of_C, token);
            const bool there = n < state && token < count;
            B[own * Own + token % layout::window * Token] = there ? value(of_B) : 0.0f;
            C[own * Own + token % layout::window * Token] = there ? value(of_C) : 0.0f;
        }
    }

    /// Adds the gradients of the snapshots before a token of the segment.
    __device__ __forceinline__ void add_snapshots(index n, int token, float (&to)[parts]) const
    {
        if (!active || n >= state) return;
        for (index i = 0; i < a.forward.snapshot_after.extent(1); ++i) {
            if (a.forward.snapshot_after(b, i) != first + token) continue;
            const float* const from = reinterpret_cast<const float*>(a.dsnapshots.pointer(b, i, c, n));
#pragma unroll
            for (int part = 0; part < parts; ++part) to[part] += from[part];
        }
    }
};

}  // namespace ssmkit::cuda::detail
