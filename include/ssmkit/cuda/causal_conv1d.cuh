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

/// Channel-contiguous tokens: a thread has a word of channels and `chunk` tokens, whose loads are issued eight at a time. The
/// three tokens before a chunk are read twice, the second time from a cache. What bounds it is memory.
template <class T, int Count>
__global__ void __launch_bounds__(128) conv_channels_kernel(const __grid_constant__ causal_conv1d_args<T> a, index chunks, int chunk,
                                                             bool weight_words)
{
    constexpr int ahead = 8;
    const index length = a.x.extent(1), words = a.x.extent(2) / Count;
    const index flat = index{blockIdx.x} * 128 + threadIdx.x, row = flat / words;
    const index c = flat % words * Count, b = row / chunks, first = row % chunks * chunk;
    if (b >= a.x.extent(0)) return;
    const int count = static_cast<int>(min(index{chunk}, length - first));
    const int missing = conv_taps - static_cast<int>(a.weight.extent(1));
    float weight[conv_taps][Count], bias[Count], past[conv_taps - 1][Count];
    conv_weights(a, c, weight_words, weight);
#pragma unroll
    for (int i = 0; i < Count; ++i) bias[i] = a.bias.data() ? a.bias[c + i] : 0.0f;
#pragma unroll
    for (int k = 0; k < conv_taps - 1; ++k) {
        const index t = first - (conv_taps - 1) + k;
        if (t >= 0) {
            unpack<T, Count>(load_word<Count>(a.x.pointer(b, t, c)), past[k]);
        } else {
#pragma unroll
            for (int i = 0; i < Count; ++i) past[k][i] = widened(conv_input(a, b, t, c + i));
        }
    }
    const T* x = a.x.pointer(b, first, c);
    T* y = a.y.pointer(b, first, c);
    const index far_x = a.x.stride(1), far_y = a.y.stride(1);
    const auto advance = [&](int there) {
        word_of<T, Count> word[ahead];
#pragma unroll
        for (int k = 0; k < ahead; ++k) {
            if (k < there) word[k] = load_word<Count>(x);
            x += far_x;
        }
#pragma unroll
        for (int k = 0; k < ahead; ++k) {
            if (k >= there) break;
            float now[Count], out[Count];
            unpack<T, Count>(word[k], now);
#pragma unroll
            for (int i = 0; i < Count; ++i) {
                float sum = bias[i];
                // A tap that is missing is skipped, not zero: what it would meet may be NaN.
#pragma unroll
                for (int j = 0; j < conv_taps - 1; ++j) {
                    if (j >= missing) sum = fmaf(weight[j][i], past[j][i], sum);
                }
                sum = fmaf(weight[conv_taps - 1][i], now[i], sum);
                out[i] = a.silu ? silu(sum) : sum;
#pragma unroll
                for (int j = 0; j < conv_taps - 2; ++j) past[j][i] = past[j + 1][i];
                past[conv_taps - 2][i] = now[i];
            }
            store_word<T, Count>(y, out);
            y += far_y;
        }
    };
    int done = 0;
    for (; done + ahead <= count; done += ahead) advance(ahead);
    if (done < count) advance(count - done);
}

/// Elements t to t + Count - 1 of a time-contiguous row; zero where there are none, the initial state before the first.
template <class T, int Count>
__device__ __forceinline__ void conv_tokens(const causal_conv1d_args<T>& a, const view<const T, 3>& from, bool state, index b,
                                            index t, index c, float (&to)[Count])
{
    const index length = from.extent(1);
    if (t >= 0 && t + Count <= length) {
        unpack<T, Count>(load_word<Count>(from.pointer(b, t, c)), to);
        return;
    }
#pragma unroll
    for (int i = 0; i < Count; ++i) {
        const index at = t + i;
        to[i] = at >= length ? 0.0f : at >= 0 ? widened(from(b, at, c)) : state ? widened(conv_input(a, b, at, c)) : 0.0f;
    }
}

/// Time-contiguous rows: a thread has words of one channel's tokens, 128 words apart; each word before its own is read again,
/// from the first-level cache, where a neighbour has put it.
template <class T, int Count>
__global__ void __launch_bounds__(128) conv_times_kernel(const __grid_constant__ causal_conv1d_args<T> a, index tiles)
{
    constexpr int ahead = sizeof(T) == 4 ? 4 : 2;
    const index length = a.x.extent(1), row = blockIdx.x / tiles, dim = a.x.extent(2), b = row / dim, c = row % dim;
    const index first = (blockIdx.x % tiles) * (128 * ahead * Count) + threadIdx.x * Count;
    const int missing = conv_taps - static_cast<int>(a.weight.extent(1));
    float weight[conv_taps][1];
    conv_weights(a, c, false, weight);
    const float bias = a.bias.data() ? a.bias[c] : 0.0f;
    float before[ahead][Count], now[ahead][Count];
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
        const index t = first + k * 128 * Count;
        if (t >= length) break;
        conv_tokens(a, a.x, true, b, t - Count, c, before[k]);
        conv_tokens(a, a.x, true, b, t, c, now[k]);
    }
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
        const index t = first + k * 128 * Count;
        if (t >= length) break;
        float out[Count];
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            float sum = bias;
#pragma unroll
            for (int j = 0; j < conv_taps; ++j) {
                const int at = i + j - (conv_taps - 1);
                if (j >= missing) sum = fmaf(weight[j][0], at < 0 ? before[k][(at + Count) % Count] : now[k][at < 0 ? 0 : at], sum);
            }
            out[i] = a.silu ? silu(sum) : sum;
        }
        T* const y = a.y.pointer(b, t, c);
        if (t + Count <= length) {
            store_word<T, Count>(y, out);
        } else {
#pragma unroll
            for (int i = 0; i < Count; ++i) {
                if (t + i < length) y[i] = narrowed<T>(out[i]);
            }
        }
    }
}

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
    // Words of four channels leave registers for twice the warps that words of eight bfloat16 do; rows along time are read in whole
    // words of 16 bytes.
    constexpr int channels = 4, count = wide<T>;
    const bool plain = a.weight.extent(1) <= conv_taps && !a.seq_idx.data();
    if (batch * length * dim == 0) {
    } else if (plain && dim % channels == 0 && in_words(a.x, 2, channels) && in_words(a.y, 2, channels)) {
        const bool weight_words = a.weight.extent(1) == conv_taps && in_words(a.weight, 1, 4);
        // Long chunks read fewer tokens twice; 700 blocks keep 132 multiprocessors busy. On an H200, of a copy's rate: float, chunks of
        // 16, 32, 64 tokens: 0.98, 0.93, 0.94; bfloat16: 0.84, 0.87, 0.88.
        int chunk = sizeof(T) == 4 ? 16 : 64;
        const auto chunks = [&] { return (length + chunk - 1) / chunk; };
        const auto items = [&] { return batch * chunks() * (dim / channels); };
        while (chunk > 8 && items() < 700 * 128) chunk /= 2;
        conv_channels_kernel<T, channels><<<blocks_for(op, "x", items(), 128), 128, 0, stream>>>(a, chunks(), chunk, weight_words);
    } else if (plain && in_words(a.x, 1, count) && in_words(a.y, 1, count)) {
        const index tile = 128 * count * (sizeof(T) == 4 ? 4 : 2), tiles = (length + tile - 1) / tile;
        conv_times_kernel<T, count><<<blocks_for(op, "x", batch * dim * tiles, 1), 128, 0, stream>>>(a, tiles);
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
