#pragma once

#include <algorithm>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <span>

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/cuda/detail/diagonal_pole.cuh>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda {
namespace detail {

/// A block makes 64 rows of 64 taps of one channel, 32 poles at a time: with l = 64 a + b, K_l = Re Σ_n (w_n λ_n^{64 a}) λ_n^b is a
/// matrix product over the real and imaginary parts of the poles. Rows of shared memory are 4 longer: a warp's 16-byte accesses
/// down a column then meet no bank twice.
inline constexpr int kernel_steps = 64, kernel_rows = 64, kernel_taps = kernel_steps * kernel_rows, kernel_poles = 32;
inline constexpr int kernel_threads = 128, kernel_pitch = kernel_steps + 4;

/// λ^k for k = first, first + 1, ... first + 15, times `factor`, rounded from double: one exponential and 15 products. im_sign
/// is -1 where imaginary parts are to be negated. With reversed, the values go to entries 63 - k.
__device__ __forceinline__ void fill_powers(complex_double factor, complex_double log, complex_double base, double first, float im_sign,
                                            bool reversed, int at, float* re_row, float* im_row)
{
    complex_double p = factor * power(log, first);
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
        float re[4], im[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            re[j] = static_cast<float>(p.re);
            im[j] = im_sign * static_cast<float>(p.im);
            p = p * base;
        }
        if (reversed) {
            const int to = kernel_steps - 4 - at - i;
            *reinterpret_cast<float4*>(re_row + to) = make_float4(re[3], re[2], re[1], re[0]);
            *reinterpret_cast<float4*>(im_row + to) = make_float4(im[3], im[2], im[1], im[0]);
        } else {
            *reinterpret_cast<float4*>(re_row + at + i) = make_float4(re[0], re[1], re[2], re[3]);
            *reinterpret_cast<float4*>(im_row + at + i) = make_float4(im[0], im[1], im[2], im[3]);
        }
    }
}

/// Poles take 16 powers of each table a thread, in double; the product takes 64 multiply-adds of float a tap for 32 poles, which
/// is what bounds it.
static __global__ void __launch_bounds__(kernel_threads) s4d_kernel_kernel(const __grid_constant__ s4d_kernel_args<float> a)
{
    __shared__ __align__(16) float fine[2 * kernel_poles][kernel_pitch];    // λ^b: real parts, then imaginary parts
    __shared__ __align__(16) float coarse[2 * kernel_poles][kernel_pitch];  // w λ^{64 a}: the imaginary parts negated
    const index channels = a.C.extent(0), dim = a.C.extent(1), state = a.C.extent(2), length = a.K.extent(2);
    const index segments = (length + kernel_taps - 1) / kernel_taps, outputs = channels * (1 + a.K_state.extent(0));
    const index blocks = segments * dim * outputs;
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;            // of the tables: pole, 16 powers
    const int column = threadIdx.x % 16 * 4, row = threadIdx.x / 16 * 8;   // of the product: 8 rows of 4 taps
    for (index block = blockIdx.x; block < blocks; block += gridDim.x) {
        const index first = block % segments * kernel_taps, h = block / segments % dim, output = block / segments / dim;
        const index c = output % channels, b = output / channels - 1;  // b < 0: K itself
        const int taps = static_cast<int>(min(length - first, index{kernel_taps})), rows = (taps + kernel_steps - 1) / kernel_steps;
        float sums[8][4] = {};
        for (index n0 = 0; n0 < state; n0 += kernel_poles) {
            const int poles = static_cast<int>(min(state - n0, index{kernel_poles}));
            __syncthreads();  // the tables before are used up
            bool growing = false;
            if (lane < poles) {
                const index n = n0 + lane, copy = h % a.A.extent(0);
                const complex_double A = load_complex(a.A.pointer(copy, n));
                const double delta = a.delta(h, n);
                const diagonal_pole p = discretise(a.method, A, a.rate * delta, static_cast<double>(length));
                growing = p.growing;
                complex_double w = load_complex(a.C.pointer(c, h, n));
                if (beyond_band(delta, A.im, a.bandlimit)) w = {0, 0};
                w = w * (b < 0 ? load_complex(a.B.pointer(copy, n)) * p.gain : load_complex(a.initial_state.pointer(b, h, n)) * p.value);
                if (a.conjugate_pairs && a.method != s4d_discretization::dss) w = 2.0 * w;
                const int at = 16 * part;
                fill_powers({1, 0}, p.log, p.value, at, 1, growing, at, fine[lane], fine[kernel_poles + lane]);
                const complex_double row_step = power(p.log, kernel_steps);
                if (at < rows) {
                    if (growing) {
                        // Row r begins with the power length - 1 - first - 64 r, and ends 63 below it. A row that does not
                        // fill is 0 here and added below: its powers would end below 0, where they overflow.
                        for (int i = 0; i < 16; ++i) {
                            const double last = static_cast<double>(length - first - kernel_steps * (at + i + 1));
                            const complex_double x = last < 0 ? complex_double{0, 0} : w * power(p.log, last);
                            coarse[lane][at + i] = static_cast<float>(x.re);
                            coarse[kernel_poles + lane][at + i] = -static_cast<float>(x.im);
                        }
                    } else {
                        fill_powers(w, p.log, row_step, static_cast<double>(first + kernel_steps * at), -1, false, at, coarse[lane],
                                    coarse[kernel_poles + lane]);
                    }
                }
                if (growing && part == 0) {  // behind the rows' end: the weight itself, and that this pole grows
                    coarse[lane][kernel_steps] = static_cast<float>(w.re);
                    coarse[kernel_poles + lane][kernel_steps] = -static_cast<float>(w.im);
                }
                if (part == 0) coarse[lane][kernel_steps + 1] = growing ? 1.0f : 0.0f;
            }
            const bool any_growing = __syncthreads_or(growing);
            if (row >= rows) continue;
            for (int of = 0; of < 2; ++of) {
                const float *f = fine[of * kernel_poles] + column, *g = coarse[of * kernel_poles] + row;
#pragma unroll 4
                for (int n = 0; n < poles; ++n, f += kernel_pitch, g += kernel_pitch) {
                    const float4 f4 = *reinterpret_cast<const float4*>(f);
                    const float4 g0 = *reinterpret_cast<const float4*>(g), g1 = *reinterpret_cast<const float4*>(g + 4);
                    const float power[4] = {f4.x, f4.y, f4.z, f4.w}, weight[8] = {g0.x, g0.y, g0.z, g0.w, g1.x, g1.y, g1.z, g1.w};
#pragma unroll
                    for (int i = 0; i < 8; ++i) {
#pragma unroll
                        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(weight[i], power[j], sums[i][j]);
                    }
                }
            }
            const int rest = taps % kernel_steps;  // the last row, if it does not fill; only the last segment has one
            if (any_growing && rest > 0) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    if (row + i != rows - 1) continue;
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if (column + j >= rest) continue;
                        const int at = column + j + kernel_steps - rest;  // λ^{rest - 1 - b}
                        for (int n = 0; n < poles; ++n) {
                            if (coarse[n][kernel_steps + 1] == 0.0f) continue;
                            sums[i][j] = fmaf(coarse[n][kernel_steps], fine[n][at], sums[i][j]);
                            sums[i][j] = fmaf(coarse[kernel_poles + n][kernel_steps], fine[kernel_poles + n][at], sums[i][j]);
                        }
                    }
                }
            }
        }
        const index stride = b < 0 ? a.K.stride(2) : a.K_state.stride(3);
        float* const to = b < 0 ? a.K.pointer(c, h, first) : a.K_state.pointer(b, c, h, first);
        const bool quads = stride == 1 && reinterpret_cast<std::uintptr_t>(to) % 16 == 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int tap = (row + i) * kernel_steps + column;
            if (quads && tap + 4 <= taps) {
                *reinterpret_cast<float4*>(to + tap) = make_float4(sums[i][0], sums[i][1], sums[i][2], sums[i][3]);
                continue;
            }
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (tap + j < taps) to[(tap + j) * stride] = sums[i][j];
            }
        }
    }
}

/// Blocks beyond these loop.
inline unsigned kernel_grid(index blocks) { return static_cast<unsigned>(std::min<index>(blocks, index{1} << 30)); }

}  // namespace detail

/// Bytes of the device's memory that s4d_kernel needs beside its arguments: none.
template <class T>
std::size_t s4d_kernel_workspace_size(const s4d_kernel_args<T>&)
{
    return 0;
}

/// The convolution kernel of S4D on the device: shapes, equations and options at s4d_kernel_args, whose views hold device pointers.
/// Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit, and cuda::error if the launch
/// fails. Powers are rounded from double, so that results lie within 1e-6 of the largest sum of |C B β| at any length. Results are
/// the same bit for bit from run to run. Bound by the units of float: two multiply-adds a tap and pole.
template <class T>
void s4d_kernel(const s4d_kernel_args<T>& a, std::span<std::byte>, cudaStream_t stream)
{
    using namespace detail;
    static_assert(std::is_same_v<T, float>, "poles are double and kernels float");
    check(a);
    const index segments = (a.K.extent(2) + kernel_taps - 1) / kernel_taps;
    const index blocks = segments * a.C.extent(1) * a.C.extent(0) * (1 + a.K_state.extent(0));
    if (blocks == 0) return;
    s4d_kernel_kernel<<<kernel_grid(blocks), kernel_threads, 0, stream>>>(a);
    require_success("cuda::s4d_kernel", cudaGetLastError());
}

/// The same where s4d_kernel_workspace_size is 0; otherwise shape_error.
template <class T>
void s4d_kernel(const s4d_kernel_args<T>& a, cudaStream_t stream)
{
    s4d_kernel(a, {}, stream);
}

}  // namespace ssmkit::cuda
