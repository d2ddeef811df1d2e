#pragma once

// The fast kernels of causal_conv1d_backward, for up to four taps: channel-contiguous and time-contiguous words. Both make e_t (see
// args/causal_conv1d_backward.hpp) once a token, read x and dy once from memory, and leave sums for dweight and dbias of a part of
// the tokens, (parts, width + 1, dim), which are added afterwards in the parts' order. Neither knows of dfinal_states.

#include <cstdint>

#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/cuda/causal_conv1d.cuh>

namespace ssmkit::cuda::detail {

/// -ln 2 silu'(p) from q = -p log2 e. silu'(p) = s (1 + p (1 - s)) with s = sigmoid(p); 1 - s is e^-p s, which loses nothing. Where
/// s is zero e^-p is kept finite. What is computed is r = -s ln 2, so that q e^-p r = p e^-p s.
__device__ __forceinline__ float silu_derivative_scaled(float q)
{
    const float e = exp2_fast(fminf(q, 127.0f)), r = reciprocal_fast(fmaf(e, -log2_e, -log2_e));
    return r * fmaf(q, e * r, 1.0f);
}

__device__ __forceinline__ float silu_derivative(float p)
{
    return -log2_e * silu_derivative_scaled(-p * log2_e);
}

/// With silu the fast kernels have weights, bias and p times -log2 e, and e times -ln 2: one product an element less. Products of
/// weights and e are what they should be, and the sums are scaled back once.
__device__ __forceinline__ float conv_scale(bool silu)
{
    return silu ? -log2_e : 1.0f;
}

/// Asks for 128 bytes to come to the second-level cache.
__device__ __forceinline__ void prefetch_line(const void* line)
{
    asm volatile("prefetch.global.L2 [%0];\n" ::"l"(line));
}

/// A thread has four neighbouring channels of 16 bits, or two of 32: 8 bytes a token.
template <class T>
struct conv_gradient_layout {
    static constexpr int count = 8 / sizeof(T);  ///< channels of a thread
    static constexpr int rows = 4;               ///< chunks of tokens of a block, a warp each
    static constexpr int threads = 32 * rows, channels = 32 * count;
    static constexpr int blocks = sizeof(T) == 2 ? 4 : 5;  ///< of a multiprocessor, whose registers they share
    static constexpr int far = sizeof(T) == 2 ? 2 : 0;     ///< groups ahead for the second-level cache; 0, 1 and 4 are slower
};

/// A thread has a word of channels and `chunk` tokens of the batch rows one behind the other, in ascending order, four of them
/// under way while four are worked on; a block has 32 words of channels and four chunks. x and e of the last four tokens lie in
/// registers, token k of a run in slot k % 4. dx_t needs e of three tokens more, so a run goes on for three that are another's.
/// As many blocks as run at once share all tokens: blocks that take turns pay for their starts and ends each time. Plain: four
/// taps and silu, no sequences. What bounds it is memory. Tried: words through shared memory by cp.async (float 6 % slower), two
/// channels of 16 bits a thread (15 % slower).
template <class T, bool Plain>
__global__ void __launch_bounds__(conv_gradient_layout<T>::threads, Plain ? conv_gradient_layout<T>::blocks : 2)
    conv_gradient_channels_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a, float* __restrict__ partial, int chunk,
                                  bool weight_words)
{
    using layout = conv_gradient_layout<T>;
    constexpr int count = layout::count, halo = conv_taps - 1, group = conv_taps, rows = layout::rows;
    using word = word_of<T, count>;
    __shared__ float sums[conv_taps + 1][count][layout::threads];

    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), dim = f.x.extent(2);
    const unsigned columns = static_cast<unsigned>((dim + layout::channels - 1) / layout::channels);
    const unsigned column = blockIdx.x % columns, part = blockIdx.x / columns;
    const int lane = threadIdx.x, row = threadIdx.y, thread = row * 32 + lane;
    const index c = index{column} * layout::channels + lane * count;
    const int missing = Plain ? 0 : conv_taps - static_cast<int>(f.weight.extent(1));
    const bool silu = Plain || f.silu, packed = !Plain && f.seq_idx.data(), wants_dx = a.dx.data() != nullptr;

    const float scale = conv_scale(silu);
    float weight[conv_taps][count], bias[count], dweight[conv_taps][count] = {}, dbias[count] = {};
    float x[conv_taps][count], e[conv_taps][count];
    std::int32_t id[conv_taps] = {};
    if (c < dim) {
        conv_weights(f, c, weight_words, weight);
#pragma unroll
        for (int i = 0; i < count; ++i) {
            bias[i] = f.bias.data() ? scale * f.bias[c + i] : 0.0f;
#pragma unroll
            for (int j = 0; j < conv_taps; ++j) weight[j][i] *= scale;
        }
    }
    /// e of the next token. Its share of the sums, if `own`. A tap that reads nothing is skipped, not zero: NaN times zero is NaN.
    const auto advance = [&](int slot, const word& x_word, const word& dy_word, std::int32_t now, bool own) {
        id[slot] = now;
        conv_unpack<T, count>(x_word, x[slot]);
        conv_unpack<T, count>(dy_word, e[slot]);
        bool reads[conv_taps];
#pragma unroll
        for (int j = 0; j < conv_taps; ++j) reads[j] = !packed || (now >= 0 && id[(slot + 1 + j) % conv_taps] == now);
        if (silu) {
#pragma unroll
            for (int i = 0; i < count; ++i) {
                float p = bias[i];
#pragma unroll
                for (int j = 0; j < conv_taps; ++j) {
                    if (j >= missing && reads[j]) p = fmaf(weight[j][i], x[(slot + 1 + j) % conv_taps][i], p);
                }
                e[slot][i] *= silu_derivative_scaled(p);
            }
        }
        if (packed && now < 0) {
#pragma unroll
            for (int i = 0; i < count; ++i) e[slot][i] = 0;
        }
        if (!own) return;
#pragma unroll
        for (int i = 0; i < count; ++i) {
            dbias[i] += e[slot][i];
#pragma unroll
            for (int j = 0; j < conv_taps; ++j) {
                if (reads[j]) dweight[j][i] = fmaf(e[slot][i], x[(slot + 1 + j) % conv_taps][i], dweight[j][i]);
            }
        }
    };
    /// dx of the token in a slot from e of itself and of the next three, as far as `exist` says.
    const auto store_dx = [&](bool wanted, T* to, int slot, auto&& exist) {
        float out[count] = {};
#pragma unroll
        for (int d = 0; d < conv_taps; ++d) {
            const int other = (slot + d) % conv_taps, j = halo - d;
            const bool reads = exist(d) && (!packed || (id[other] >= 0 && id[other] == id[slot]));
#pragma unroll
            for (int i = 0; i < count; ++i) {
                if (j >= missing && reads) out[i] = fmaf(weight[j][i], e[other][i], out[i]);
            }
        }
        if (wanted) store_word<T, count>(to, out);
    };
    // What a lane asks the second-level cache for: one of the two lines that a warp's words of x or dy of one of four tokens fill.
    constexpr int far = layout::far * group;
    const index line_c = index{column} * layout::channels + lane / 8 % 2 * (layout::channels / 2);
    /// Tokens first to first + n - 1 of a batch row.
    const auto run = [&](index b, index first, int n) {
        const int exist = static_cast<int>(min(index{n} + halo, length - first));
        const T* x_from = f.x.pointer(b, first, c);
        const T* dy_from = a.dy.pointer(b, first, c);
        word next_x[group], next_dy[group];
        const auto ask = [&](int k) {
            next_x[k] = load_word<count>(x_from);
            next_dy[k] = load_word<count>(dy_from);
            x_from += f.x.stride(1);
            dy_from += a.dy.stride(1);
        };
#pragma unroll
        for (int k = 0; k < group; ++k) {
            if (k < exist) ask(k);
        }
#pragma unroll
        for (int k = 1; k < conv_taps; ++k) {
            const index t = first - conv_taps + k;
            if (packed) id[k] = conv_sequence(f, b, t);
            if (t >= 0) {
                conv_unpack<T, count>(load_word<count>(f.x.pointer(b, t, c)), x[k]);
            } else {
#pragma unroll
                for (int i = 0; i < count; ++i) x[k][i] = widened(conv_input(f, b, t, c + i));
            }
        }
        T* to = wants_dx ? a.dx.pointer(b, first - halo, c) : nullptr;
        const view<const T, 3>& source = lane % 2 == 0 ? f.x : a.dy;
        const T* line = source.pointer(b, first + far + lane / 2 % group, line_c);
        int start = 0, lines = line_c < dim && lane < 4 * group ? exist - far - lane / 2 % group : 0;  // tokens from there on
        for (; start + 2 * group <= n; start += group) {
            if (far > 0 && start < lines) prefetch_line(line);
            if (far > 0) line += group * source.stride(1);
#pragma unroll
            for (int k = 0; k < group; ++k) {
                advance(k, next_x[k], next_dy[k], packed ? f.seq_idx(b, first + start + k) : 0, true);
                ask(k);
                store_dx(wants_dx && (k == halo || start > 0), to, (k + 1) % conv_taps, [](int) { return true; });
                to += a.dx.stride(1);
            }
        }
        for (; start < n + halo; start += group) {
#pragma unroll
            for (int k = 0; k < group; ++k) {
                const int t = start + k;
                if (t < exist) advance(k, next_x[k], next_dy[k], packed ? f.seq_idx(b, first + t) : 0, t < n);
                if (t + group < exist) ask(k);
                store_dx(wants_dx && t >= halo && t < n + halo, to, (k + 1) % conv_taps,
                         [&](int d) { return t - halo + d < exist; });
                to += a.dx.stride(1);
            }
        }
    };

    const index all = f.x.extent(0) * length;
    index at = (index{part} * rows + row) * chunk;
    const index end = c < dim ? min(at + index{chunk}, all) : 0;
    while (at < end) {
        const index b = at / length, first = at - b * length;
        const int n = static_cast<int>(min(end - at, length - first));
        run(b, first, n);
        at += n;
    }

    if (!partial) return;
#pragma unroll
    for (int i = 0; i < count; ++i) {
#pragma unroll
        for (int j = 0; j < conv_taps; ++j) sums[j][i][thread] = dweight[j][i];
        sums[conv_taps][i][thread] = dbias[i];
    }
    __syncthreads();
    float* const to = partial + index{part} * (f.weight.extent(1) + 1) * dim;
    for (int i = thread; i < (conv_taps + 1) * layout::channels; i += layout::threads) {
        const int j = i / layout::channels, channel = i % layout::channels;
        const index own = index{column} * layout::channels + channel;
        if (j < missing || own >= dim) continue;
        float sum = 0;
#pragma unroll
        for (int r = 0; r < rows; ++r) sum += sums[j][channel % count][r * 32 + channel / count];
        to[(j - missing) * dim + own] = scale * sum;
    }
}

/// Time-contiguous rows: a warp has `tiles` times 32 words of one channel's tokens, from the last to the first, two tiles under way
/// while one is worked on. The three inputs before a word are read again, from the first-level cache; e of the three tokens
/// behind it comes from the next lane, or the tile that was done before. Plain: four taps and silu. What bounds it is memory.
/// Tried: blocks that share a row's tiles and go on to the next batch row (15 to 40 % slower).
template <class T, int Count, bool Plain>
__global__ void __launch_bounds__(128) conv_gradient_times_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a,
                                                                  float* __restrict__ partial, unsigned segments, int tiles)
{
    constexpr int halo = conv_taps - 1, ahead = 2, tile = 32 * Count;
    constexpr unsigned all = 0xffffffffu;
    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), dim = f.x.extent(2);
    const unsigned fours = static_cast<unsigned>((dim + 3) / 4), segment = blockIdx.x % segments, four = blockIdx.x / segments;
    const index b = four / fours, c = index{four % fours} * 4 + threadIdx.x / 32;
    if (c >= dim) return;
    const int lane = threadIdx.x % 32, missing = Plain ? 0 : conv_taps - static_cast<int>(f.weight.extent(1));
    const bool silu = Plain || f.silu;
    const index begin = index{segment} * tiles * tile;
    const int count = static_cast<int>(min(index{tiles} * tile, length - begin)), whole = count / tile;
    const index own = begin + lane * Count;  // this lane's first token
    const T* const x_from = f.x.pointer(b, own, c);
    const T* const dy_from = a.dy.pointer(b, own, c);

    struct words {
        word_of<T, Count> x, dy;
        word_of<T, conv_taps> before;  ///< the four inputs before x
    };
    const auto load_before = [&](index t) {
        T elements[conv_taps];
#pragma unroll
        for (int i = 0; i < conv_taps; ++i) elements[i] = conv_input(f, b, t - conv_taps + i, c);
        word_of<T, conv_taps> word;
        std::memcpy(&word, elements, sizeof(word));
        return word;
    };
    // Tile k, or the first one again: that costs less than a question. What is before the first token is of another memory.
    const auto load = [&](int k) {
        const int at = max(k, 0);
        return words{load_word<Count>(x_from + index{at} * tile), load_word<Count>(dy_from + index{at} * tile),
                     load_word<conv_taps>(x_from + (index{max(at, own == 0 ? 1 : 0)} * tile - conv_taps))};
    };
    words coming[ahead] = {};
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
        if (whole > 0) coming[i] = load(whole - 1 - i);
    }

    float weight[conv_taps][1], dweight[conv_taps] = {}, dbias = 0;
    conv_weights(f, c, false, weight);
    const float scale = conv_scale(silu), bias = f.bias.data() ? scale * f.bias[c] : 0.0f;
#pragma unroll
    for (int j = 0; j < conv_taps; ++j) weight[j][0] *= scale;
    const auto error = [&](const float* x, float dy) {  // x: of the token and the three before
        if (!silu) return dy;
        float p = bias;
#pragma unroll
        for (int j = 0; j < conv_taps; ++j) {
            if (j >= missing) p = fmaf(weight[j][0], x[j], p);
        }
        return dy * silu_derivative_scaled(p);
    };

    // Lane 0 starts with e of the three tokens behind the segment, as if they had been its own in a tile that was done before.
    float e[halo] = {};
    if (const index end = begin + count; lane == 0 && end < length) {
        float x[2 * halo];
#pragma unroll
        for (int k = 0; k < 2 * halo; ++k) x[k] = end - halo + k < length ? widened(conv_input(f, b, end - halo + k, c)) : 0.0f;
#pragma unroll
        for (int k = 0; k < halo; ++k) {
            if (end + k < length) e[k] = error(x + k, widened(a.dy(b, end + k, c)));
        }
    }

    const bool wants_dx = a.dx.data() != nullptr;
    T* const to = wants_dx ? a.dx.pointer(b, own, c) : nullptr;
    const int room = static_cast<int>(min(length - own, index{1} << 30));
    /// Tile k. Of a ragged one some of the tokens are missing.
    const auto work = [&](int k, const words& w, auto ragged) {
        constexpr bool guarded = decltype(ragged)::value;
        const int left = room - k * tile;
        bool behind[halo];  // are there tokens behind the word?
#pragma unroll
        for (int i = 0; i < halo; ++i) behind[i] = left > Count + i;
        float x[Count], dy[Count], before[conv_taps], window[halo + Count], next[Count + halo];
        conv_unpack<T, Count>(w.x, x);
        conv_unpack<T, Count>(w.dy, dy);
        conv_unpack<T, conv_taps>(w.before, before);
#pragma unroll
        for (int i = 0; i < halo; ++i) window[i] = before[i + 1];
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
        float out[Count];
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            out[i] = 0;
#pragma unroll
            for (int d = 0; d < conv_taps; ++d) {
                const bool exists = i + d < Count ? !guarded || i + d < left : behind[max(i + d - Count, 0)];
                if (halo - d >= missing && exists) out[i] = fmaf(weight[halo - d][0], next[i + d], out[i]);
            }
        }
        T* const at = to + index{k} * tile;
        if (wants_dx && !guarded) store_word<T, Count>(at, out);
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            if (wants_dx && guarded && i < left) at[i] = narrowed<T>(out[i]);
        }
    };

    if (whole * tile < count) {
        const index t = own + index{whole} * tile;
        T x[Count], dy[Count];
#pragma unroll
        for (int i = 0; i < Count; ++i) {
            x[i] = t + i < length ? f.x(b, t + i, c) : T{};
            dy[i] = t + i < length ? a.dy(b, t + i, c) : T{};
        }
        words last{};
        std::memcpy(&last.x, x, sizeof(last.x));
        std::memcpy(&last.dy, dy, sizeof(last.dy));
        if (t < length) last.before = load_before(t);
        work(whole, last, std::true_type{});
    }
    for (int k = whole - 1; k >= 0; k -= ahead) {
#pragma unroll
        for (int i = 0; i < ahead; ++i) {
            if (k < i) break;
            if (k == i && own == 0) coming[i].before = load_before(0);
            work(k - i, coming[i], std::false_type{});
            coming[i] = load(k - i - ahead);
        }
    }

    if (!partial) return;
    float* const sums = partial + ((b * segments + segment) * (f.weight.extent(1) + 1)) * dim + c;
#pragma unroll
    for (int j = 0; j <= conv_taps; ++j) {
        float sum = j < conv_taps ? dweight[j < conv_taps ? j : 0] : dbias;
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) sum += __shfl_xor_sync(all, sum, distance);
        if (lane == 0 && j >= missing) sums[(j - missing) * dim] = scale * sum;
    }
}

}  // namespace ssmkit::cuda::detail
