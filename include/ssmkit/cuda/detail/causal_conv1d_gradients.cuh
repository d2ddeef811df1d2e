#pragma once

// The fast kernels of causal_conv1d_backward, for up to four taps: channel-contiguous and time-contiguous words. Both make e_t (see
// args/causal_conv1d_backward.hpp) once a token, read x and dy once from memory, and leave sums for dweight and dbias of a part of
// the tokens, (parts, width + 1, dim), which are added afterwards in the parts' order. Neither knows of dfinal_states.

#include <cstdint>

#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/cuda/causal_conv1d.cuh>

namespace ssmkit::cuda::detail {

/// s (1 + x (1 - s)) with s = sigmoid(x); 1 - s is e^-x s, which loses nothing. Where s is zero e^-x is kept finite.
__device__ __forceinline__ float silu_derivative(float x)
{
    const float e = exp2_fast(fminf(-x * log2_e, 127.5f)), s = reciprocal_fast(1.0f + e);
    return s * fmaf(x, e * s, 1.0f);
}

/// Asks for a word to come from global to shared memory.
template <class Word>
__device__ __forceinline__ void copy_word_async(Word* to, const void* from)
{
    const auto address = static_cast<std::uint32_t>(__cvta_generic_to_shared(to));
    if constexpr (sizeof(Word) == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(address), "l"(from) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;\n" ::"r"(address), "l"(from), "n"(sizeof(Word)) : "memory");
    }
}

/// What this thread asked for since the last time is a group.
__device__ __forceinline__ void close_copies()
{
    asm volatile("cp.async.commit_group;\n" ::: "memory");
}

/// Waits until at most the newest so many groups of this thread are under way.
template <int Newest>
__device__ __forceinline__ void await_copies()
{
    asm volatile("cp.async.wait_group %0;\n" ::"n"(Newest) : "memory");
}

struct conv_gradient_layout {
    static constexpr int count = 4;    ///< channels of a thread
    static constexpr int rows = 4;     ///< chunks of tokens of a block, a warp each
    static constexpr int threads = 32 * rows, channels = 32 * count;
    static constexpr int group = 4, depth = 2 * group;  ///< tokens asked for at once, and under way
    static constexpr int halo = conv_taps - 1;
};

/// 45 KB for float, 4 more with sequences: four blocks a multiprocessor.
template <class T, bool Packed>
struct conv_gradient_memory {
    using layout = conv_gradient_layout;
    using word = word_of<T, layout::count>;

    word ring[layout::depth][2][layout::threads];  ///< a thread's own words of x and dy; at the end its sums
    std::int32_t ids[Packed ? layout::depth : 1][layout::threads];
    word x[layout::rows][layout::halo][32];        ///< the inputs before the end of a row's groups of tokens,
    float4 e[layout::rows][layout::halo][32];      ///< and e behind it: from the next row, or of its own making

    /// Where a thread's n-th number of the sums lies.
    __device__ float& sum(int thread, int n)
    {
        constexpr int per = sizeof(word) / 4;
        return reinterpret_cast<float*>(ring)[(n / per * layout::threads + thread) * per + n % per];
    }
};

/// The word at position t of X, which may lie in the initial state.
template <class T>
__device__ __forceinline__ word_of<T, 4> conv_word(const causal_conv1d_args<T>& a, index b, index t, index c)
{
    if (t >= 0) return load_word<4>(a.x.pointer(b, t, c));
    T elements[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) elements[i] = conv_input(a, b, t, c + i);
    word_of<T, 4> word;
    std::memcpy(&word, elements, sizeof(word));
    return word;
}

/// A thread has four neighbouring channels and `chunk` tokens, in ascending order; a warp 128 channels, a block four chunks. Tokens
/// come through a ring of the thread's own in shared memory, so that 64 KB of a multiprocessor (of float; half of that otherwise)
/// are under way while registers hold three tokens. dx_t needs e of three tokens more, and e of the chunk's first three the inputs
/// before it: neighbouring warps hand both to each other, and nothing is read twice but around a block's ends. What bounds it is
/// memory.
template <class T, bool Packed>
__global__ void __launch_bounds__(conv_gradient_layout::threads, 4)
    conv_gradient_channels_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a, float* __restrict__ partial,
                                  index parts, int chunk, bool weight_words)
{
    using layout = conv_gradient_layout;
    constexpr int count = layout::count, halo = layout::halo, group = layout::group, depth = layout::depth, rows = layout::rows;
    using word = word_of<T, count>;
    __shared__ conv_gradient_memory<T, Packed> memory;

    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), dim = f.x.extent(2), columns = (dim + layout::channels - 1) / layout::channels;
    const int lane = threadIdx.x, row = threadIdx.y, thread = row * 32 + lane;
    const index column = blockIdx.x % columns, b = blockIdx.x / columns / parts, part = blockIdx.x / columns % parts;
    const index c = column * layout::channels + lane * count, first = (part * rows + row) * chunk;
    const bool there = c < dim && first <= length;
    const int n = there ? static_cast<int>(min(index{chunk}, length - first)) : 0, grouped = n / group * group;
    const index tail = first + grouped;
    const int missing = conv_taps - static_cast<int>(f.weight.extent(1));
    const bool silu = f.silu, wants_dx = a.dx.data() != nullptr;

    // ---- Tokens asked for ahead of time: the last three inputs of the groups are another's to bring ----------------------
    const index far_x = f.x.stride(1), far_dy = a.dy.stride(1), far_dx = a.dx.stride(1);
    const T* x = n > 0 ? f.x.pointer(b, first, c) : nullptr;
    const T* dy = n > 0 ? a.dy.pointer(b, first, c) : nullptr;
    const std::int32_t* ids = Packed && n > 0 ? f.seq_idx.pointer(b, first) : nullptr;
    const auto ask = [&](int k) {
        if (k < grouped) {
            const int slot = k & (depth - 1);
            if (k < grouped - halo) copy_word_async(&memory.ring[slot][0][thread], x);
            copy_word_async(&memory.ring[slot][1][thread], dy);
            if constexpr (Packed) copy_word_async(&memory.ids[slot][thread], ids);
        }
        x += far_x;
        dy += far_dy;
        if constexpr (Packed) ids += f.seq_idx.stride(1);
    };
#pragma unroll
    for (int k = 0; k < depth; ++k) {
        ask(k);
        if ((k + 1) % group == 0) close_copies();
    }

    float weight[conv_taps][count], bias[count];
    float past_x[halo][count], past_e[halo][count] = {}, dweight[conv_taps][count] = {}, dbias[count] = {};
    std::int32_t past_id[halo] = {};
    if (n > 0) {
        conv_weights(f, c, weight_words, weight);
#pragma unroll
        for (int i = 0; i < count; ++i) bias[i] = f.bias.data() ? f.bias[c + i] : 0.0f;
    }
    /// The inputs, and their sequences, before token t, which `keep` gets as they are.
    const auto look_back = [&](index t, auto&& keep) {
#pragma unroll
        for (int k = 0; k < halo; ++k) {
            const word w = conv_word(f, b, t - halo + k, c);
            keep(k, w);
            unpack<T, count>(w, past_x[k]);
            if constexpr (Packed) past_id[k] = conv_sequence(f, b, t - halo + k);
        }
    };
    /// e of the next token. Its share of the sums, if `own`. A tap that reads nothing is skipped, not zero: NaN times zero is NaN.
    const auto advance = [&](const word& x_word, const word& dy_word, std::int32_t id, bool own, float (&now)[count],
                             float (&e)[count]) {
        bool reads[conv_taps];
#pragma unroll
        for (int j = 0; j < conv_taps; ++j) reads[j] = !Packed || (id >= 0 && (j == halo || past_id[j < halo ? j : 0] == id));
        unpack<T, count>(x_word, now);
        unpack<T, count>(dy_word, e);
        if (silu) {
#pragma unroll
            for (int i = 0; i < count; ++i) {
                float p = bias[i];
#pragma unroll
                for (int j = 0; j < conv_taps; ++j) {
                    if (j >= missing && reads[j]) p = fmaf(weight[j][i], j < halo ? past_x[j < halo ? j : 0][i] : now[i], p);
                }
                e[i] *= silu_derivative(p);
            }
        }
        if (Packed && id < 0) {
#pragma unroll
            for (int i = 0; i < count; ++i) e[i] = 0;
        }
        if (!own) return;
#pragma unroll
        for (int i = 0; i < count; ++i) {
            dbias[i] += e[i];
#pragma unroll
            for (int j = 0; j < conv_taps; ++j) {
                if (reads[j]) dweight[j][i] = fmaf(e[i], j < halo ? past_x[j < halo ? j : 0][i] : now[i], dweight[j][i]);
            }
        }
    };
    const auto shift = [&](const float (&now)[count], const float (&e)[count], std::int32_t id) {
#pragma unroll
        for (int i = 0; i < count; ++i) {
#pragma unroll
            for (int k = 0; k < halo - 1; ++k) past_x[k][i] = past_x[k + 1][i], past_e[k][i] = past_e[k + 1][i];
            past_x[halo - 1][i] = now[i];
            past_e[halo - 1][i] = e[i];
        }
#pragma unroll
        for (int k = 0; k < halo - 1; ++k) past_id[k] = past_id[k + 1];
        past_id[halo - 1] = id;
    };
    const auto as_float4 = [](const float (&e)[count]) { return make_float4(e[0], e[1], e[2], e[3]); };

    // ---- Up to three tokens behind the groups that no other row has: the sequence's last ones, or the next block's first --
    const bool last_row = row == rows - 1 || n < chunk;
    if (n > 0 && last_row) {
        look_back(tail, [&](int k, const word& w) { memory.x[row][k][lane] = w; });
        word x_word[halo], dy_word[halo];
        std::int32_t id[halo] = {};
#pragma unroll
        for (int k = 0; k < halo; ++k) {
            x_word[k] = dy_word[k] = word{};
            if (tail + k >= length) continue;
            x_word[k] = load_word<count>(f.x.pointer(b, tail + k, c));
            dy_word[k] = load_word<count>(a.dy.pointer(b, tail + k, c));
            if constexpr (Packed) id[k] = f.seq_idx(b, tail + k);
        }
#pragma unroll
        for (int k = 0; k < halo; ++k) {
            if (tail + k >= length) break;
            float now[count], e[count];
            advance(x_word[k], dy_word[k], id[k], n < chunk, now, e);
            memory.e[row][k][lane] = as_float4(e);
            if (grouped == 0 && row > 0) memory.e[row - 1][k][lane] = as_float4(e);
            shift(now, e, id[k]);
        }
    }
    if (there) {
        look_back(first, [&](int k, const word& w) {
            if (row > 0) memory.x[row - 1][k][lane] = w;
        });
    }
    __syncthreads();

    // ---- The groups ----------------------------------------------------------------------------------------------------
    T* dx = n > 0 && wants_dx ? a.dx.pointer(b, first, c) : nullptr;
    for (int start = 0; start < grouped; start += group) {
        await_copies<1>();
        const bool last = start + group == grouped;
#pragma unroll
        for (int pair = 0; pair < group; pair += 2) {
            word x_word[2], dy_word[2];
            std::int32_t id[2] = {};
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int k = pair + h, slot = (start & (depth - 1)) + k;
                x_word[h] = *(last && k > 0 ? &memory.x[row][k > 0 ? k - 1 : 0][lane] : &memory.ring[slot][0][thread]);
                dy_word[h] = memory.ring[slot][1][thread];
                if constexpr (Packed) id[h] = memory.ids[slot][thread];
            }
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int k = pair + h;
                float now[count], e[count];
                advance(x_word[h], dy_word[h], id[h], true, now, e);
                if (k < halo && start == 0 && row > 0) memory.e[row - 1][k < halo ? k : 0][lane] = as_float4(e);
                if (wants_dx && (k == halo || start > 0)) {
                    float out[count];
#pragma unroll
                    for (int i = 0; i < count; ++i) {
                        out[i] = 0;
#pragma unroll
                        for (int d = 0; d < conv_taps; ++d) {  // of the token d places further on
                            const int j = halo - d;
                            const std::int32_t at = d < halo ? past_id[d < halo ? d : 0] : id[h];
                            const bool reads = !Packed || (at >= 0 && at == past_id[0]);
                            const float error = d < halo ? past_e[d < halo ? d : 0][i] : e[i];
                            if (j >= missing && reads) out[i] = fmaf(weight[j][i], error, out[i]);
                        }
                    }
                    store_word<T, count>(dx, out);
                    dx += far_dx;
                }
                shift(now, e, id[h]);
            }
            ask(start + pair + depth);
            ask(start + pair + 1 + depth);
        }
        close_copies();
    }
    await_copies<0>();
    const bool sums = partial != nullptr;
    if (sums) {
#pragma unroll
        for (int i = 0; i < count; ++i) {
#pragma unroll
            for (int j = 0; j < conv_taps; ++j) memory.sum(thread, j * count + i) = dweight[j][i];
            memory.sum(thread, conv_taps * count + i) = dbias[i];
        }
    }
    __syncthreads();

    // ---- The last three tokens of the groups, and those behind them ------------------------------------------------------
    if (n > 0 && wants_dx) {
        float e[2 * halo][count];
        std::int32_t id[2 * halo];
#pragma unroll
        for (int k = 0; k < halo; ++k) {
            id[k] = past_id[k];
            id[halo + k] = Packed && tail + k < length ? f.seq_idx(b, tail + k) : 0;
            const float4 next = memory.e[row][k][lane];
            e[halo + k][0] = next.x, e[halo + k][1] = next.y, e[halo + k][2] = next.z, e[halo + k][3] = next.w;
#pragma unroll
            for (int i = 0; i < count; ++i) e[k][i] = past_e[k][i];
        }
#pragma unroll
        for (int m = 0; m < 2 * halo; ++m) {
            const index s = tail - halo + m;
            if (m >= halo + (n - grouped) || s < first) continue;
            float out[count] = {};
#pragma unroll
            for (int d = 0; d < conv_taps && m + d < 2 * halo; ++d) {
                const int j = halo - d;
                const bool reads = s + d < length && (!Packed || (id[m + d] >= 0 && id[m + d] == id[m]));
#pragma unroll
                for (int i = 0; i < count; ++i) {
                    if (j >= missing && reads) out[i] = fmaf(weight[j][i], e[m + d][i], out[i]);
                }
            }
            store_word<T, count>(a.dx.pointer(b, s, c), out);
        }
    }

    if (!sums) return;
    const index own = column * layout::channels + thread;
    if (own >= dim) return;
    float* const to = partial + (b * parts + part) * (f.weight.extent(1) + 1) * dim + own;
#pragma unroll
    for (int j = 0; j <= conv_taps; ++j) {
        if (j < missing) continue;
        float sum = 0;
#pragma unroll
        for (int r = 0; r < rows; ++r) sum += memory.sum(r * 32 + thread / count, j * count + thread % count);
        to[(j - missing) * dim] = sum;
    }
}

/// Time-contiguous rows: a warp has `tiles` times 32 words of one channel's tokens, from the last to the first. What a lane needs
/// of its neighbours' words comes by shuffles, across tiles from what is asked for ahead and from what is done. What bounds it is
/// memory.
template <class T, int Count>
__global__ void __launch_bounds__(128) conv_gradient_times_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a,
                                                                  float* __restrict__ partial, index segments, int tiles)
{
    constexpr int halo = conv_taps - 1, ahead = 2;
    constexpr unsigned all = 0xffffffffu;
    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), dim = f.x.extent(2), batch = f.x.extent(0);
    const index warp = index{blockIdx.x} * 4 + threadIdx.x / 32, segment = warp % segments, c = warp / segments % dim;
    const index b = warp / segments / dim;
    if (b >= batch) return;
    const int lane = threadIdx.x % 32, missing = conv_taps - static_cast<int>(f.weight.extent(1));
    constexpr index tile = 32 * Count;
    const index begin = segment * tiles * tile, end = min(begin + tiles * tile, length);
    float weight[conv_taps][1], dweight[conv_taps] = {}, dbias = 0;
    conv_weights(f, c, false, weight);
    const float bias = f.bias.data() ? f.bias[c] : 0.0f;

    struct words {
        word_of<T, Count> x{}, dy{};
    };
    /// Elements as they are stored: nothing waits for them before they are used. Of the tile before the segment only the last word
    /// of x is wanted.
    const auto read = [&](int k) {
        words to;
        const index t = begin + (index{k} * 32 + lane) * Count;
        if (t >= length || k < -1 || (k == -1 && lane < 31)) return to;
        if (t >= 0 && t + Count <= length) {
            to.x = load_word<Count>(f.x.pointer(b, t, c));
            if (k >= 0) to.dy = load_word<Count>(a.dy.pointer(b, t, c));
            return to;
        }
        T x[Count], dy[Count];
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            x[i] = t + i < length ? conv_input(f, b, t + i, c) : T{};
            dy[i] = t >= 0 && t + i < length ? a.dy(b, t + i, c) : T{};
        }
        std::memcpy(&to.x, x, sizeof(to.x));
        std::memcpy(&to.dy, dy, sizeof(to.dy));
        return to;
    };
    const auto error = [&](const float* x, float dy) {  // x: of the token and the three before
        if (!f.silu) return dy;
        float p = bias;
#pragma unroll
        for (int j = 0; j < conv_taps; ++j) {
            if (j >= missing) p = fmaf(weight[j][0], x[j], p);
        }
        return dy * silu_derivative(p);
    };

    // Lane 0 starts with e of the three tokens behind the segment, as if they had been its own in a tile that was done before.
    float e[Count] = {};
    if (lane == 0 && end < length) {
        float x[2 * halo];
#pragma unroll
        for (int k = 0; k < 2 * halo; ++k) x[k] = end - halo + k < length ? widened(conv_input(f, b, end - halo + k, c)) : 0.0f;
#pragma unroll
        for (int k = 0; k < halo; ++k) {
            if (end + k < length) e[k] = error(x + k, widened(a.dy(b, end + k, c)));
        }
    }

    words coming[ahead];  // of tiles k and k - 1
    int k = static_cast<int>((end - begin + tile - 1) / tile) - 1;
#pragma unroll
    for (int i = 0; i < ahead; ++i) coming[i] = read(k - i);
    for (; k >= 0; --k) {
        const words far = read(k - ahead);
        const index t = begin + (index{k} * 32 + lane) * Count;
        const auto work = [&](auto near_end) {
            constexpr bool guarded = decltype(near_end)::value;
            const int left = guarded ? static_cast<int>(max(index{0}, min(length - t, index{Count + halo}))) : Count + halo;
            float x[Count], dy[Count], before[Count];
            unpack<T, Count>(coming[0].x, x);
            unpack<T, Count>(coming[0].dy, dy);
            unpack<T, Count>(coming[1].x, before);
            float window[halo + Count], next[Count + halo];
#pragma unroll
            for (int i = 0; i < halo; ++i) {
                const float mine = lane == 31 ? before[Count - halo + i] : x[Count - halo + i];
                window[i] = __shfl_sync(all, mine, (lane + 31) % 32);
            }
#pragma unroll
            for (int i = 0; i < Count; ++i) window[halo + i] = x[i];
#pragma unroll
            for (int i = 0; i < Count; ++i) {
                next[i] = error(window + i, dy[i]);
                if (guarded && i >= left) continue;
                dbias += next[i];
#pragma unroll
                for (int j = 0; j < conv_taps; ++j) dweight[j] = fmaf(next[i], window[i + j], dweight[j]);
            }
#pragma unroll
            for (int i = 0; i < halo; ++i) next[Count + i] = __shfl_sync(all, lane == 0 ? e[i] : next[i], (lane + 1) % 32);
#pragma unroll
            for (int i = 0; i < halo; ++i) e[i] = next[i];
            if (!a.dx.data() || t >= length) return;
            float out[Count];
#pragma unroll
            for (int i = 0; i < Count; ++i) {
                out[i] = 0;
#pragma unroll
                for (int d = 0; d < conv_taps; ++d) {
                    if (halo - d >= missing && (!guarded || i + d < left)) out[i] = fmaf(weight[halo - d][0], next[i + d], out[i]);
                }
            }
            T* const to = a.dx.pointer(b, t, c);
            if (left >= Count) {
                store_word<T, Count>(to, out);
            } else {
#pragma unroll
                for (int i = 0; i < Count; ++i) {
                    if (i < left) to[i] = narrowed<T>(out[i]);
                }
            }
        };
        begin + (index{k} + 1) * tile + halo > length ? work(std::true_type{}) : work(std::false_type{});
        coming[0] = coming[1];
        coming[1] = far;
    }

    if (!partial) return;
    float* const to = partial + ((b * segments + segment) * (f.weight.extent(1) + 1)) * dim + c;
#pragma unroll
    for (int j = 0; j <= conv_taps; ++j) {
        float sum = j < conv_taps ? dweight[j < conv_taps ? j : 0] : dbias;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) sum += __shfl_xor_sync(all, sum, distance);
        if (lane == 0 && j >= missing) to[(j - missing) * dim] = sum;
    }
}

}  // namespace ssmkit::cuda::detail
