#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <ssmkit/args/causal_conv1d.hpp>
#include <ssmkit/cuda/detail/words.cuh>

namespace ssmkit::cuda {
namespace detail {

// The kernels see tokens as visited: a reversed convolution's views have been turned on the host.

inline constexpr int conv_taps = 4;  ///< that the fast kernels hold in registers; a narrower weight's are the last of them

/// The input at position t, which is negative in the initial state; zero before that.
template <class T>
__device__ __forceinline__ T conv_input(const causal_conv1d_args<T>& a, index b, index t, index c)
{
    if (t >= 0) return a.x(b, t, c);
    const index place = a.weight.extent(1) - 1 + t;
    return a.initial_states.data() && place >= 0 ? a.initial_states(b, c, place) : T{};
}

template <class T>
__device__ __forceinline__ std::int32_t conv_sequence(const causal_conv1d_args<T>& a, index b, index t)
{
    return a.seq_idx.data() ? a.seq_idx(b, t < 0 ? 0 : t) : 0;
}

/// bias + Σ_j weight_j X[t + j] over the taps that read the token's own sequence.
template <class T>
__device__ __forceinline__ float conv_sum(const causal_conv1d_args<T>& a, index b, index t, index c)
{
    const index width = a.weight.extent(1);
    const std::int32_t own = conv_sequence(a, b, t);
    float sum = a.bias.data() ? a.bias[c] : 0.0f;
    for (index j = 0; j < width; ++j) {
        const index from = t + j - (width - 1);
        if (conv_sequence(a, b, from) == own) sum = fmaf(a.weight(c, j), widened(conv_input(a, b, from, c)), sum);
    }
    return sum;
}

/// The taps of `Count` channels, right-aligned. Rows of four floats are read as one word.
template <int Count, class T>
__device__ __forceinline__ void conv_weights(const causal_conv1d_args<T>& a, index c, bool words, float (&weight)[conv_taps][Count])
{
    const int width = static_cast<int>(a.weight.extent(1));
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        if (words) {
            const float4 row = *reinterpret_cast<const float4*>(a.weight.pointer(c + i));
            weight[0][i] = row.x, weight[1][i] = row.y, weight[2][i] = row.z, weight[3][i] = row.w;
            continue;
        }
#pragma unroll
        for (int j = 0; j < conv_taps; ++j) {
            const int tap = j - (conv_taps - width);
            weight[j][i] = tap >= 0 ? a.weight(c + i, tap) : 0.0f;
        }
    }
}

/// As unpack; a pair of bfloat16 is a shift and a mask, of single elements the compiler makes three instructions.
template <class T, int Count>
__device__ __forceinline__ void conv_unpack(const word_of<T, Count>& word, float (&to)[Count])
{
    if constexpr (std::is_same_v<T, bfloat16>) {
        std::uint32_t pairs[Count / 2];
        std::memcpy(pairs, &word, sizeof(word));
#pragma unroll
        for (int i = 0; i < Count; ++i) to[i] = __uint_as_float(i % 2 ? pairs[i / 2] & 0xffff0000u : pairs[i / 2] << 16);
    } else {
        unpack<T, Count>(word, to);
    }
}

template <class T>
struct conv_channels_layout {
    // Words of four channels leave registers for twice the warps that words of eight bfloat16 do.
    static constexpr int count = 4, threads = 128;
    static constexpr int group = sizeof(T) == 2 ? 8 : 4;  ///< tokens asked for at once; four of 16 bits are 2 % slower
    static constexpr int blocks = 4;                      ///< of a multiprocessor, whose registers they share
};

/// Channel-contiguous tokens: a thread has a word of channels and `chunk` tokens of the batch rows one behind the other, one to
/// two groups of them under way. The three tokens before a chunk are read twice. Plain, here and below: four taps and silu, without
/// questions, which take a quarter of the instructions. What bounds it is memory.
template <class T, bool Plain>
__global__ void __launch_bounds__(conv_channels_layout<T>::threads, conv_channels_layout<T>::blocks)
    conv_channels_kernel(const __grid_constant__ causal_conv1d_args<T> a, int chunk, bool weight_words)
{
    using layout = conv_channels_layout<T>;
    constexpr int count = layout::count, group = layout::group;
    const index length = a.x.extent(1), words = a.x.extent(2) / count, all = a.x.extent(0) * length;
    const index flat = index{blockIdx.x} * layout::threads + threadIdx.x, row = flat / words, c = (flat - row * words) * count;
    const int missing = Plain ? 0 : conv_taps - static_cast<int>(a.weight.extent(1));
    const bool silu_wanted = Plain || a.silu;
    const index far_x = a.x.stride(1), far_y = a.y.stride(1);
    float weight[conv_taps][count], bias[count], past[conv_taps][count];  // past: token k of a run in place k % 4
    conv_weights(a, c, weight_words, weight);
#pragma unroll
    for (int i = 0; i < count; ++i) bias[i] = a.bias.data() ? a.bias[c + i] : 0.0f;
    /// Tokens first to first + left - 1 of a batch row.
    const auto run = [&](index b, index first, int left) {
        const T* x = a.x.pointer(b, first, c);
        T* y = a.y.pointer(b, first, c);
        word_of<T, count> coming[2][group];  // in turn: reloaded one by one, words are copied, and the copy waits for them
        const auto ask = [&](int turn, int there) {
#pragma unroll
            for (int k = 0; k < group; ++k) {
                if (k >= there) break;
                coming[turn][k] = load_word<count>(x);
                x += far_x;
            }
        };
        ask(0, left);
#pragma unroll
        for (int k = 1; k < conv_taps; ++k) {
            const index t = first - conv_taps + k;
            if (t >= 0) {
                conv_unpack<T, count>(load_word<count>(a.x.pointer(b, t, c)), past[k]);
            } else {
#pragma unroll
                for (int i = 0; i < count; ++i) past[k][i] = widened(conv_input(a, b, t, c + i));
            }
        }
        const auto advance = [&](int turn, int there) {
#pragma unroll
            for (int k = 0; k < group; ++k) {
                if (k >= there) break;
                float out[count];
                conv_unpack<T, count>(coming[turn][k], past[k % conv_taps]);
#pragma unroll
                for (int i = 0; i < count; ++i) {
                    float sum = bias[i];
                    // A tap that is missing is skipped, not zero: what it would meet may be NaN.
#pragma unroll
                    for (int j = 0; j < conv_taps; ++j) {
                        if (j >= missing) sum = fmaf(weight[j][i], past[(k + 1 + j) % conv_taps][i], sum);
                    }
                    out[i] = silu_wanted ? silu(sum) : sum;
                }
                store_word<T, count>(y, out);
                y += far_y;
            }
        };
        for (; left >= 3 * group; left -= 2 * group) {
            ask(1, group);
            advance(0, group);
            ask(0, group);
            advance(1, group);
        }
        ask(1, left - group);
        advance(0, left);
        ask(0, left - 2 * group);
        advance(1, left - group);
        advance(0, left - 2 * group);
    };
    const index end = min((row + 1) * chunk, all);
    for (index at = row * chunk; at < end;) {
        const index b = at / length, first = at - b * length;
        const int n = static_cast<int>(min(end - at, length - first));
        run(b, first, n);
        at += n;
    }
}

/// Time-contiguous rows: a warp has `tiles` times 32 words of one channel's tokens, four tiles under way. The three inputs before a
/// word are read again, from the first-level cache, where a neighbour has put them. What bounds it is memory.
template <class T, int Count, bool Plain>
__global__ void __launch_bounds__(128) conv_times_kernel(const __grid_constant__ causal_conv1d_args<T> a, unsigned segments,
                                                          int tiles)
{
    constexpr int ahead = 4, tile = 32 * Count;
    const index length = a.x.extent(1), dim = a.x.extent(2);
    const unsigned fours = static_cast<unsigned>((dim + 3) / 4), segment = blockIdx.x % segments, four = blockIdx.x / segments;
    const index b = four / fours, c = index{four % fours} * 4 + threadIdx.x / 32;
    if (c >= dim) return;
    const index begin = index{segment} * tiles * tile, own = begin + threadIdx.x % 32 * Count;
    const int whole = static_cast<int>(min(index{tiles}, (length - begin) / tile));  // tiles that no token is missing of
    const int missing = Plain ? 0 : conv_taps - static_cast<int>(a.weight.extent(1));
    const bool silu_wanted = Plain || a.silu;
    const T* const x = a.x.pointer(b, own, c);
    T* const y = a.y.pointer(b, own, c);

    struct words {
        word_of<T, Count> x;
        word_of<T, conv_taps> before;  ///< the four inputs before x
    };
    const auto load_before = [&](index t) {
        T elements[conv_taps];
#pragma unroll
        for (int i = 0; i < conv_taps; ++i) elements[i] = conv_input(a, b, t - conv_taps + i, c);
        word_of<T, conv_taps> word;
        std::memcpy(&word, elements, sizeof(word));
        return word;
    };
    // Tile k, or the last whole one again: that costs less than a question. What is before the first token is of another memory.
    const auto load = [&](int k) {
        const int at = min(k, whole - 1);
        return words{load_word<Count>(x + index{at} * tile),
                     load_word<conv_taps>(x + (index{max(at, own == 0 ? 1 : 0)} * tile - conv_taps))};
    };
    words coming[ahead] = {};
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
        if (whole > 0) coming[k] = load(k);
    }
    if (own == 0) coming[0].before = load_before(0);
    float weight[conv_taps][1];
    conv_weights(a, c, false, weight);
    const float bias = a.bias.data() ? a.bias[c] : 0.0f;
    const auto filtered = [&](const words& w, float (&out)[Count]) {
        float before[conv_taps], now[Count];
        conv_unpack<T, conv_taps>(w.before, before);
        conv_unpack<T, Count>(w.x, now);
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            float sum = bias;
#pragma unroll
            for (int j = 0; j < conv_taps; ++j) {
                const int at = i + j - (conv_taps - 1);
                const float x_at = at < 0 ? before[(at + conv_taps) % conv_taps] : now[max(at, 0)];
                if (j >= missing) sum = fmaf(weight[j][0], x_at, sum);
            }
            out[i] = silu_wanted ? silu(sum) : sum;
        }
    };
    for (int start = 0; start < whole; start += ahead) {
#pragma unroll
        for (int k = 0; k < ahead; ++k) {
            if (start + k >= whole) break;
            float out[Count];
            filtered(coming[k], out);
            coming[k] = load(start + k + ahead);
            store_word<T, Count>(y + index{start + k} * tile, out);
        }
    }
    if (whole == tiles) return;
    // The row's last tile, some of whose tokens are missing.
    const index t = own + index{whole} * tile;
    if (t >= length) return;
    T elements[Count];
#pragma unroll
    for (int i = 0; i < Count; ++i) elements[i] = t + i < length ? a.x(b, t + i, c) : T{};
    words last{.x = {}, .before = load_before(t)};
    std::memcpy(&last.x, elements, sizeof(last.x));
    float out[Count];
    filtered(last, out);
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        if (t + i < length) a.y(b, t + i, c) = narrowed<T>(out[i]);
    }
}

/// How time-contiguous rows are cut: a warp has a segment of `tiles` tiles, 32 words each, a block those of four channels.
struct conv_times_plan {
    int tiles;
    index segments, blocks;  ///< segments of a row

    /// Segments are as long as they may be while there are enough warps.
    conv_times_plan(index batch, index length, index dim, int tile, int most, index enough)
    {
        for (tiles = most;; tiles /= 2) {
            segments = (length + tiles * tile - 1) / (tiles * tile);
            blocks = batch * ((dim + 3) / 4) * segments;
            if (tiles == 1 || 4 * blocks >= enough) break;
        }
    }
};

/// Any width, strides and options: a thread a token and channel.
template <class T>
__global__ void __launch_bounds__(256) conv_any_kernel(const __grid_constant__ causal_conv1d_args<T> a, bool times_first)
{
    const index length = a.x.extent(1), dim = a.x.extent(2), total = a.x.extent(0) * length * dim;
    for (index i = index{blockIdx.x} * 256 + threadIdx.x; i < total; i += index{gridDim.x} * 256) {
        const index c = times_first ? i / length % dim : i % dim, t = times_first ? i % length : i / dim % length;
        const index b = i / (length * dim);
        float out = 0;
        if (conv_sequence(a, b, t) >= 0) {
            const float sum = conv_sum(a, b, t, c);
            out = a.silu ? silu(sum) : sum;
        }
        a.y(b, t, c) = narrowed<T>(out);
    }
}

/// Tokens up to the last that is not padding.
template <class T>
__device__ __forceinline__ index conv_unpadded(const causal_conv1d_args<T>& a, index b)
{
    index n = a.x.extent(1);
    if (a.seq_idx.data()) {
        while (n > 0 && a.seq_idx(b, n - 1) < 0) --n;
    }
    return n;
}

/// A thread an element of final_states.
template <class T>
__global__ void __launch_bounds__(128) conv_states_kernel(const __grid_constant__ causal_conv1d_args<T> a)
{
    const index dim = a.x.extent(2), states = a.weight.extent(1) - 1, i = index{blockIdx.x} * 128 + threadIdx.x;
    const index j = i % states, c = i / states % dim, b = i / (states * dim);
    if (b >= a.x.extent(0)) return;
    const index n = conv_unpadded(a, b), t = n + j - states;
    const bool held = n == 0 || conv_sequence(a, b, t) == conv_sequence(a, b, n - 1);
    a.final_states(b, c, j) = held ? conv_input(a, b, t, c) : T{};
}

template <class T>
causal_conv1d_args<T> conv_as_visited(causal_conv1d_args<T> a)
{
    using ssmkit::detail::as_visited;
    a.x = as_visited(a.x, a.reverse);
    a.y = as_visited(a.y, a.reverse);
    a.seq_idx = as_visited(a.seq_idx, a.reverse);
    a.reverse = false;
    return a;
}

}  // namespace detail

/// Bytes of the device's memory that causal_conv1d needs beside its arguments: none.
template <class T>
std::size_t causal_conv1d_workspace_size(const causal_conv1d_args<T>&)
{
    return 0;
}

/// The short causal convolution on the device: shapes, equations and options at causal_conv1d_args, whose views hold device
/// pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit, and cuda::error if a
/// launch fails. Results are the same bit for bit from run to run.
///
/// Up to four taps without seq_idx run at the speed of memory if x and y are contiguous along channels or along time, with rows
/// that start at 16 bytes (along channels: at four elements); everything else takes a thread an element.
template <class T>
void causal_conv1d(const causal_conv1d_args<T>& args, std::span<std::byte>, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::causal_conv1d";
    check(args);
    const causal_conv1d_args<T> a = conv_as_visited(args);
    const index batch = a.x.extent(0), length = a.x.extent(1), dim = a.x.extent(2), states = a.weight.extent(1) - 1;
    using layout = conv_channels_layout<T>;
    constexpr int count = wide<T>;  // of rows along time
    const bool fast = a.weight.extent(1) <= conv_taps && !a.seq_idx.data(), plain = a.weight.extent(1) == conv_taps && a.silu;
    const conv_times_plan times(batch, length, dim, 32 * count, sizeof(T) == 4 ? 8 : 16, 12000);
    if (batch * length * dim == 0) {
    } else if (fast && dim % layout::count == 0 && in_words(a.x, 2, layout::count) && in_words(a.y, 2, layout::count)) {
        const bool weight_words = a.weight.extent(1) == conv_taps && in_words(a.weight, 1, 4);
        // Chunks of all batch rows one behind the other, as many as run at once; of float short ones.
        const index words = dim / layout::count, at_once = index{132} * layout::blocks * layout::threads;
        const index rows = std::max<index>(1, at_once / words), even = (batch * length + rows - 1) / rows;
        const int chunk = static_cast<int>(std::clamp<index>(even, 8, sizeof(T) == 4 ? 8 : 1 << 20));
        const unsigned blocks = blocks_for(op, "x", (batch * length + chunk - 1) / chunk * words, layout::threads);
        (plain ? conv_channels_kernel<T, true> : conv_channels_kernel<T, false>)
            <<<blocks, layout::threads, 0, stream>>>(a, chunk, weight_words);
    } else if (fast && in_words(a.x, 1, count) && in_words(a.y, 1, count)) {
        (plain ? conv_times_kernel<T, count, true> : conv_times_kernel<T, count, false>)
            <<<blocks_for(op, "x", times.blocks, 1), 128, 0, stream>>>(
                a, static_cast<unsigned>(times.segments), times.tiles);
    } else {
        const bool times_first = (a.x.stride(1) == 1 || a.x.stride(1) == -1) && a.x.stride(2) != 1;
        const index blocks = std::min<index>((batch * length * dim + 255) / 256, index{1} << 30);
        conv_any_kernel<<<static_cast<unsigned>(blocks), 256, 0, stream>>>(a, times_first);
    }
    require_success(op, cudaGetLastError());
    if (a.final_states.data() && batch * dim * states > 0) {
        conv_states_kernel<<<blocks_for(op, "final_states", batch * dim * states, 128), 128, 0, stream>>>(a);
        require_success(op, cudaGetLastError());
    }
}

/// The same where causal_conv1d_workspace_size is 0; otherwise shape_error.
template <class T>
void causal_conv1d(const causal_conv1d_args<T>& a, cudaStream_t stream)
{
    causal_conv1d(a, {}, stream);
}

}  // namespace ssmkit::cuda
