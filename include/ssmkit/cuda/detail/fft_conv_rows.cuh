#pragma once

// Kernels of the long convolution whose transforms fit a block's shared memory: whole rows, or pieces of longer rows.

#include <algorithm>
#include <bit>

#include <ssmkit/args/fft_conv.hpp>
#include <ssmkit/cuda/detail/ring.cuh>

namespace ssmkit::cuda::detail {

enum class stored : int { f32, bf16, f16 };

template <class T>
inline constexpr stored stored_as = std::is_same_v<T, float> ? stored::f32 : std::is_same_v<T, bfloat16> ? stored::bf16 : stored::f16;

/// Rows along time of (batch, channels, dim, length), elements as `stored` says: kernels are compiled once for all types.
struct conv_rows {
    const void* data = nullptr;
    index batch = 0, channel = 0, dim = 0, time = 0;  // strides

    __host__ __device__ index offset(index b, index c, index h) const { return b * batch + c * channel + h * dim; }
};

template <class T>
conv_rows rows_of(const view<T, 3>& v)
{
    return {v.data(), v.stride(0), 0, v.stride(1), v.stride(2)};
}

template <class T>
conv_rows rows_of(const view<T, 4>& v)
{
    return {v.data(), v.stride(0), v.stride(1), v.stride(2), v.stride(3)};
}

/// Where a thread's 16 numbers lie in a row: z[j] holds samples first + n and first + n + half as its two parts, with
/// n = n0 + j * step; those with n < low or n >= high are not there.
struct conv_place {
    index first;
    int n0, step, half, low, high;
};

__host__ __device__ inline conv_place place_in_row(index first, index begin, index end, int n0, int step, int half)
{
    const index low = begin - first, high = end - first, all = 2 * index{half};
    return {first, n0, step, half, static_cast<int>(low < 0 ? 0 : low), static_cast<int>(high < 0 ? 0 : high < all ? high : all)};
}

template <class F>
__device__ __forceinline__ void with_type(stored type, F&& f)
{
    if (type == stored::f32) {
        f(float{});
    } else if (type == stored::bf16) {
        f(bfloat16{});
    } else {
        f(float16{});
    }
}

/// z = the row, or z times the row; zero where nothing is there.
template <bool Multiply>
__device__ __forceinline__ void fetch_row(float2 (&z)[16], const conv_rows& rows, index offset, stored type, const conv_place& p)
{
    with_type(type, [&]<class T>(T) {
        const T* const row = static_cast<const T*>(rows.data) + offset + p.first * rows.time;
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            const int n = p.n0 + j * p.step, m = n + p.half;
            const float re = n >= p.low && n < p.high ? widened(row[n * rows.time]) : 0.0f;
            const float im = m >= p.low && m < p.high ? widened(row[m * rows.time]) : 0.0f;
            z[j] = Multiply ? float2{z[j].x * re, z[j].y * im} : float2{re, im};
        }
    });
}

/// The row = z, times `factor` if that is given.
static __device__ __forceinline__ void store_row(const float2 (&z)[16], const conv_rows& rows, index offset, const conv_rows& factor,
                                                 index factor_offset, stored type, const conv_place& p)
{
    with_type(type, [&]<class T>(T) {
        T* const row = static_cast<T*>(const_cast<void*>(rows.data)) + offset + p.first * rows.time;
        const T* const by = static_cast<const T*>(factor.data) + (factor.data ? factor_offset + p.first * factor.time : 0);
        const auto put = [&](int n, float value) {
            if (n < p.low || n >= p.high) return;
            row[n * rows.time] = narrowed<T>(factor.data ? value * widened(by[n * factor.time]) : value);
        };
#pragma unroll
        for (int j = 0; j < 16; ++j) {
            const int n = p.n0 + j * p.step;
            put(n, z[j].x);
            put(n + p.half, z[j].y);
        }
    });
}

/// The taps of all kernels in the ring of `size` numbers: lag q at sample q, lag -q at sample 2 size - q with its sign changed.
struct conv_taps {
    const float *k, *reverse, *D;
    index k_channel, k_dim, k_tap, reverse_channel, reverse_dim, reverse_tap, D_channel, D_dim;
    index width, reverse_width, behind, ahead;  // the last two: lags that can meet a sample
    int skipped;                                // s of fft_conv_args
    float scale;

    __device__ float operator()(index c, index h, index n, index all) const
    {
        float v = 0;
        if (n <= behind) {
            if (n < width) v = k[c * k_channel + h * k_dim + n * k_tap];
            if (n == 0 && D) v += D[c * D_channel + h * D_dim];
            if (n == 0 && skipped == 0 && reverse_width > 0) v += reverse[c * reverse_channel + h * reverse_dim];
        } else if (all - n <= ahead) {
            v = -reverse[c * reverse_channel + h * reverse_dim + (all - n - skipped) * reverse_tap];
        }
        return v * scale;
    }

    /// The other way: a sample of the gradient to the tap, or taps, that it belongs to; null pointers are not asked for.
    __device__ void put(index c, index h, index n, index all, float v) const
    {
        v *= scale;
        if (n <= behind) {
            if (n < width && k) const_cast<float*>(k)[c * k_channel + h * k_dim + n * k_tap] = v;
            if (n == 0 && D) const_cast<float*>(D)[c * D_channel + h * D_dim] = v;
            if (n == 0 && skipped == 0 && reverse_width > 0 && reverse)
                const_cast<float*>(reverse)[c * reverse_channel + h * reverse_dim] = v;
        } else if (all - n <= ahead && reverse) {
            const_cast<float*>(reverse)[c * reverse_channel + h * reverse_dim + (all - n - skipped) * reverse_tap] = -v;
        }
    }

    /// Zeros for taps that meet no sample.
    __device__ void put_zeros(index c, index h, index thread, index threads) const
    {
        for (index m = behind + 1 + thread; k && m < width; m += threads)
            const_cast<float*>(k)[c * k_channel + h * k_dim + m * k_tap] = 0;
        for (index m = ahead + 1 - skipped + thread; reverse && m < reverse_width; m += threads)
            const_cast<float*>(reverse)[c * reverse_channel + h * reverse_dim + m * reverse_tap] = 0;
    }
};

/// One launch: out = factor * (kernels (*) (gate * x)) for rows of (batch, channels, dim), in pieces.
struct conv_job {
    stored type;
    conv_rows x, gate, out[2], factor[2];
    conv_taps taps;
    const float2* spectra;     // (channels, dim, size)
    float2* scratch;           // sums over channels: size numbers a row that is under way
    index batch, dim, length;
    index channels;            // of the kernels
    bool summed, sum_in_time;  // over channels; of products with factor[0], rather than of spectra
    bool backwards;            // correlation in place of convolution
    index pieces, step, lead;
    index tasks;
};

struct cross_job {
    stored type;
    conv_rows x, gate, dy, dy_gate;
    conv_taps taps;
    float2* scratch;  // twice size numbers a row that is under way
    index batch, dim, length, pieces, step, lead, tasks;
};

template <int Size>
using row_ring = ring<Size, (Size > 8192 ? 2 : 1)>;

/// Small rings share a block.
template <int Size>
inline constexpr int rows_of_block = row_ring<Size>::threads < 128 ? 128 / row_ring<Size>::threads : 1;
template <int Size>
inline constexpr int block_threads = row_ring<Size>::threads * rows_of_block<Size>;
template <int Size>
inline constexpr int block_bytes = row_ring<Size>::exchange_bytes * rows_of_block<Size> + row_ring<Size>::table_bytes;
/// Blocks that must fit a multiprocessor: bounds registers to 128 a thread.
template <int Size>
inline constexpr int blocks_wanted = block_threads<Size> >= 512 ? 1 : block_threads<Size> == 256 ? 2 : 4;

/// What all kernels below begin with.
template <int Size>
struct row_block {
    using R = row_ring<Size>;
    static constexpr int G = R::groups;
    int thread, row;
    float2* memory;
    node_factors* table;

    __device__ explicit row_block(float4* shared)
        : thread(threadIdx.x % R::threads), row(threadIdx.x / R::threads),
          memory(reinterpret_cast<float2*>(shared) + row * Size),
          table(reinterpret_cast<node_factors*>(reinterpret_cast<float2*>(shared) + rows_of_block<Size> * Size))
    {
        R::fill_table(table, 0, 1, threadIdx.x, block_threads<Size>);
        __syncthreads();
    }

    __device__ __forceinline__ conv_place place(int g, index first, index begin, index end) const
    {
        return place_in_row(first, begin, end, R::place(thread, g), Size / 16, Size);
    }

    /// f(number, where) for a group's numbers of a spectrum, which nobody else reads or writes but in the same order.
    template <class F>
    static __device__ __forceinline__ void each(float2 (&z)[16], int g, int thread, F&& f)
    {
#pragma unroll
        for (int j = 0; j < 16; ++j) f(z[j], (g * 16 + j) * R::threads + thread);
    }
    template <class F>
    __device__ __forceinline__ void each(float2 (&z)[16], int g, F&& f) const
    {
        each(z, g, thread, f);
    }

    template <class Load, class Use>
    __device__ __forceinline__ void forth(Load&& load, Use&& use) const
    {
        R::forth(memory, table, thread, 0, load, use);
    }
    __device__ __forceinline__ void turn_back(float2 (&z)[16], int g) const { R::turn_back(z, g, memory, table, thread, 0); }
    template <class Store>
    __device__ __forceinline__ void back(Store&& store) const
    {
        R::back(memory, table, thread, 0, store);
    }
};

template <int Size>
__global__ void __launch_bounds__(block_threads<Size>, blocks_wanted<Size>)
    conv_spectra_kernel(const __grid_constant__ conv_taps taps, float2* spectra, index dim, index tasks)
{
    extern __shared__ float4 shared_memory[];
    const row_block<Size> block(shared_memory);
    for (index base = index{blockIdx.x} * rows_of_block<Size>; base < tasks; base += index{gridDim.x} * rows_of_block<Size>) {
        const index task = base + block.row, c = task / dim, h = task % dim;
        const auto load = [&](float2 (&z)[16], int g) {
#pragma unroll
            for (int j = 0; j < 16; ++j) {
                const int n = row_ring<Size>::place(block.thread, g) + j * (Size / 16);
                z[j] = task < tasks ? float2{taps(c, h, n, 2 * Size), taps(c, h, n + Size, 2 * Size)} : float2{0, 0};
            }
        };
        __syncthreads();
        block.forth(load, [&](float2 (&z)[16], int g) {
            if (task < tasks) block.each(z, g, [&](float2& v, int i) { spectra[task * Size + i] = v; });
        });
    }
}

/// A row, or a piece of one, from load to store: transform, product with the kernel's spectrum, transform back, gates. Blocks
/// stay for many rows and keep their table. Neighbouring tasks are sequences of one channel, which find its spectrum in the cache.
template <int Size>
__global__ void __launch_bounds__(block_threads<Size>, blocks_wanted<Size>) conv_rows_kernel(const __grid_constant__ conv_job a)
{
    extern __shared__ float4 shared_memory[];
    const row_block<Size> block(shared_memory);
    float2* const scratch = a.scratch + (index{blockIdx.x} * rows_of_block<Size> + block.row) * Size;
    const auto tasks = static_cast<unsigned>(a.tasks), batch = static_cast<unsigned>(a.batch);
    const auto pieces = static_cast<unsigned>(a.pieces), outer = static_cast<unsigned>(a.summed ? 1 : a.channels);
    const int sums = a.summed ? static_cast<int>(a.channels) : 1;
    for (unsigned base = blockIdx.x * rows_of_block<Size>; base < tasks; base += gridDim.x * rows_of_block<Size>) {
        unsigned task = base + block.row;
        const bool active = task < tasks;
        const index b = task % batch;
        task /= batch;
        const index piece = task % pieces;
        task /= pieces;
        const index c0 = task % outer, h = task / outer;
        const index begin = piece * a.step, end = active ? min(a.length, begin + a.step) : begin;
        const index first = begin - a.lead, there = active ? a.length : min(first, index{0});
        for (int s = 0; s < sums; ++s) {
            const index c = c0 + s;
            const bool add = s > 0, last = s + 1 == sums;
            const float2* const spectrum = a.spectra + (active ? c * a.dim + h : 0) * Size;
            const auto load = [&](float2 (&z)[16], int g) {
                const conv_place in = block.place(g, first, 0, there);
                fetch_row<false>(z, a.x, a.x.offset(b, c, h), a.type, in);
                if (a.gate.data) fetch_row<true>(z, a.gate, a.gate.offset(b, c, h), a.type, in);
            };
            const auto multiply = [&](float2 (&z)[16], int g) {
                if (a.backwards) {
                    block.each(z, g, [&](float2& v, int i) { v = times<true>(v, spectrum[i]); });
                } else {
                    block.each(z, g, [&](float2& v, int i) { v = times(v, spectrum[i]); });
                }
                if (!a.sum_in_time) {
                    if (add) block.each(z, g, [&](float2& v, int i) { v = plus(v, scratch[i]); });
                    if (!last) return block.each(z, g, [&](float2& v, int i) { scratch[i] = v; });
                }
                block.turn_back(z, g);
            };
            if (add && !a.sum_in_time) __syncthreads();
            block.forth(load, multiply);
            if (!last && !a.sum_in_time) continue;
            block.back([&](float2 (&z)[16], int g) {
                const conv_place out = block.place(g, first, begin, end);
                const conv_rows none{};
                if (a.sum_in_time && sums > 1) {
                    fetch_row<true>(z, a.factor[0], a.factor[0].offset(b, c, h), a.type, out);
                    if (add) block.each(z, g, [&](float2& v, int i) { v = plus(v, scratch[i]); });
                    if (!last) return block.each(z, g, [&](float2& v, int i) { scratch[i] = v; });
                }
                if (!active) return;
                const auto store = [&](const conv_rows& to, const conv_rows& by) {
                    store_row(z, to, to.offset(b, c0, h), by, by.offset(b, c0, h), a.type, out);
                };
                store(a.out[0], sums > 1 && a.sum_in_time ? none : a.factor[0]);
                if (a.out[1].data) store(a.out[1], a.factor[1]);
            });
        }
    }
}

/// The gradient of a kernel: products of dy's spectra with the conjugates of the input's, summed over the batch in its order.
template <int Size>
__global__ void __launch_bounds__(block_threads<Size>, blocks_wanted<Size>) conv_cross_kernel(const __grid_constant__ cross_job a)
{
    extern __shared__ float4 shared_memory[];
    const row_block<Size> block(shared_memory);
    float2* const input = a.scratch + 2 * (index{blockIdx.x} * rows_of_block<Size> + block.row) * Size;
    float2* const sum = input + Size;
    for (index base = index{blockIdx.x} * rows_of_block<Size>; base < a.tasks; base += index{gridDim.x} * rows_of_block<Size>) {
        const index task = base + block.row, c = task / a.dim, h = task % a.dim;
        const bool active = task < a.tasks;
        const index all = a.batch * a.pieces;
        for (index i = 0; i < all; ++i) {
            const index b = i / a.pieces, begin = i % a.pieces * a.step, first = begin - a.lead;
            const index nowhere = min(first, index{0});
            const auto load_from = [&](const conv_rows& x, const conv_rows& gate, index from, index to) {
                return [&, from, to](float2 (&z)[16], int g) {
                    const conv_place in = block.place(g, first, from, to);
                    fetch_row<false>(z, x, x.offset(b, c, h), a.type, in);
                    if (gate.data) fetch_row<true>(z, gate, gate.offset(b, c, h), a.type, in);
                };
            };
            __syncthreads();
            block.forth(load_from(a.x, a.gate, 0, active ? a.length : nowhere),
                        [&](float2 (&z)[16], int g) { block.each(z, g, [&](float2& v, int at) { input[at] = v; }); });
            __syncthreads();
            const index end = active ? min(a.length, begin + a.step) : nowhere;
            block.forth(load_from(a.dy, a.dy_gate, begin, end), [&](float2 (&z)[16], int g) {
                block.each(z, g, [&](float2& v, int at) { v = times<true>(v, input[at]); });
                if (i > 0) block.each(z, g, [&](float2& v, int at) { v = plus(v, sum[at]); });
                if (i + 1 < all) return block.each(z, g, [&](float2& v, int at) { sum[at] = v; });
                block.turn_back(z, g);
            });
        }
        const auto store = [&](float2 (&z)[16], int g) {
            if (!active) return;
#pragma unroll
            for (int j = 0; j < 16; ++j) {
                const int n = row_ring<Size>::place(block.thread, g) + j * (Size / 16);
                a.taps.put(c, h, n, 2 * Size, z[j].x);
                a.taps.put(c, h, n + Size, 2 * Size, z[j].y);
            }
        };
        if (all > 0) {
            block.back(store);
        } else {
            for (int g = 0; g < row_block<Size>::G; ++g) {
                float2 z[16] = {};
                store(z, g);
            }
        }
        if (active) a.taps.put_zeros(c, h, block.thread, row_ring<Size>::threads);
    }
}

/// Calls f with a constant of the size.
template <class F>
void with_row_size(index size, F&& f)
{
    switch (size) {
    case 256: return f(std::integral_constant<int, 256>{});
    case 1024: return f(std::integral_constant<int, 1024>{});
    case 2048: return f(std::integral_constant<int, 2048>{});
    case 4096: return f(std::integral_constant<int, 4096>{});
    case 8192: return f(std::integral_constant<int, 8192>{});
    default: return f(std::integral_constant<int, 16384>{});
    }
}

/// Rows of at most this many blocks have scratch memory. Two multiprocessors' worth of the smallest and many times the largest.
inline constexpr index most_blocks = 1024;

template <int Size>
unsigned grid_of(index tasks)
{
    return static_cast<unsigned>(std::min((tasks + rows_of_block<Size> - 1) / rows_of_block<Size>, most_blocks));
}

template <class Kernel, class... Args>
void launch_rows(const char* op, Kernel kernel, dim3 grid, int threads, int bytes, cudaStream_t stream, const Args&... args)
{
    require_success(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<grid, threads, static_cast<std::size_t>(bytes), stream>>>(args...);
    require_success(op, cudaGetLastError());
}

}  // namespace ssmkit::cuda::detail
