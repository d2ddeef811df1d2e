#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <ssmkit/args/s4d_kernel_backward.hpp>
#include <ssmkit/cuda/s4d_kernel.cuh>
#include <ssmkit/workspace.hpp>

namespace ssmkit::cuda {
namespace detail {

/// What the kernels below share. A row is one of dK, (channels), or behind these of dK_state, (batch, channels).
struct s4d_sums {
    float* parts;       ///< (segments, rows, dim, state, 4): T0 and T1 of a segment, real and imaginary
    double* gradients;  ///< (5, dim, state): of A and B, real and imaginary, and of delta, of each channel's own use
    index segments, rows;
};

/// Taps behind the first one, in segments of kernel_taps.
inline index moment_segments(index length) { return length > 1 ? (length - 2) / kernel_taps + 1 : 0; }

/// T0 = Σ_j v_j λ^j and T1 = Σ_j j v_j λ^j of v_j = u_{j+1}, so that no pole is divided by:
///
///     Σ_l u_l λ^l = u_0 + λ T0,      Σ_l l u_l λ^{l-1} = T0 + T1
///
/// With j = first + 64 b + a and Λ = λ^64, a block takes M_a = Σ_b v Λ^b and P_a = Σ_b b v Λ^b for 32 poles and 64 values of a, then
/// T0 = Σ_a λ^{first+a} M_a and T1 = Σ_a λ^{first+a} ((first + a) M_a + 64 P_a). A thread has 4 poles and 4 values of a: 64 sums of
/// float, for which a step reads 12 numbers of shared memory. Four multiply-adds a tap and pole bound it. Poles of dss that grow are
/// their reciprocals and read the row from its end.
static __global__ void __launch_bounds__(kernel_threads, 4)
    s4d_moments_kernel(const __grid_constant__ s4d_kernel_backward_args<float> args, const s4d_sums sums)
{
    __shared__ __align__(16) float taps[kernel_steps][kernel_rows];               // v of step b, a
    __shared__ __align__(16) float steps[kernel_steps][2 * kernel_poles];         // Λ^b: real parts, then imaginary parts
    __shared__ __align__(16) float starts[kernel_rows][2 * kernel_poles];         // λ^{first + a}
    const s4d_kernel_args<float>& a = args.forward;
    const index channels = a.C.extent(0), dim = a.C.extent(1), state = a.C.extent(2), length = args.dK.extent(2);
    const index blocks = sums.segments * dim * sums.rows;
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;                   // of the tables: pole, 16 powers
    const int pole = threadIdx.x % 8 * 4, at = threadIdx.x / 8 * 4;               // of the sums: 4 poles of 4 values of a
    for (index block = blockIdx.x; block < blocks; block += gridDim.x) {
        const index segment = block % sums.segments, h = block / sums.segments % dim, row = block / sums.segments / dim;
        const index first = segment * kernel_taps, c = row % channels, b_of_state = row / channels - 1;  // < 0: dK itself
        const int count = static_cast<int>(min(length - 1 - first, index{kernel_taps}));
        const int used = (count + kernel_rows - 1) / kernel_rows;
        const float* const u = b_of_state < 0 ? args.dK.pointer(c, h, 0) : args.dK_state.pointer(b_of_state, c, h, 0);
        const index stride = b_of_state < 0 ? args.dK.stride(2) : args.dK_state.stride(3);
        const int directions = a.method == s4d_discretization::dss ? 2 : 1;
        for (int reversed = 0; reversed < directions; ++reversed) {
            __syncthreads();  // the taps before are used up
            for (int i = threadIdx.x; i < used * kernel_rows; i += kernel_threads) {
                const index l = reversed ? length - 2 - first - i : first + i + 1;
                taps[i / kernel_rows][i % kernel_rows] = i < count ? u[l * stride] : 0.0f;
            }
            for (index n0 = 0; n0 < state; n0 += kernel_poles) {
                const int poles = static_cast<int>(min(state - n0, index{kernel_poles}));
                __syncthreads();  // the sums before are read
                bool mine = false;
                if (lane < poles) {
                    const index n = n0 + lane;
                    const complex_double A = load_complex(a.A.pointer(h % a.A.extent(0), n));
                    const diagonal_pole p = discretise(a.method, A, a.rate * a.delta(h, n), static_cast<double>(length));
                    mine = p.growing == (reversed != 0);
                    const complex_double step = power(p.log, kernel_rows);
                    complex_double coarse = power(p.log, static_cast<double>(kernel_rows * 16 * part));
                    complex_double fine = power(p.log, static_cast<double>(first + 16 * part));
                    for (int i = 16 * part; i < 16 * part + 16; ++i) {
                        steps[i][lane] = static_cast<float>(coarse.re);
                        steps[i][kernel_poles + lane] = static_cast<float>(coarse.im);
                        // Beyond the end of a short row is no power at all: it may be infinite, and its tap is zero.
                        starts[i][lane] = i < count ? static_cast<float>(fine.re) : 0.0f;
                        starts[i][kernel_poles + lane] = i < count ? static_cast<float>(fine.im) : 0.0f;
                        coarse = coarse * step;
                        fine = fine * p.value;
                    }
                } else {
                    for (int i = 16 * part; i < 16 * part + 16; ++i) {
                        steps[i][lane] = steps[i][kernel_poles + lane] = 0;
                        starts[i][lane] = starts[i][kernel_poles + lane] = 0;
                    }
                }
                if (!__syncthreads_or(mine)) continue;
                float m_re[4][4] = {}, m_im[4][4] = {}, p_re[4][4] = {}, p_im[4][4] = {};  // [pole][a]
#pragma unroll 2
                for (int b = 0; b < used; ++b) {
                    const float4 v4 = *reinterpret_cast<const float4*>(&taps[b][at]);
                    const float4 re4 = *reinterpret_cast<const float4*>(&steps[b][pole]);
                    const float4 im4 = *reinterpret_cast<const float4*>(&steps[b][kernel_poles + pole]);
                    const float v[4] = {v4.x, v4.y, v4.z, v4.w};
                    const float re[4] = {re4.x, re4.y, re4.z, re4.w}, im[4] = {im4.x, im4.y, im4.z, im4.w};
                    const auto times_b = static_cast<float>(b);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const float vb = times_b * v[j];
#pragma unroll
                        for (int i = 0; i < 4; ++i) {
                            m_re[i][j] = fmaf(re[i], v[j], m_re[i][j]);
                            m_im[i][j] = fmaf(im[i], v[j], m_im[i][j]);
                            p_re[i][j] = fmaf(re[i], vb, p_re[i][j]);
                            p_im[i][j] = fmaf(im[i], vb, p_im[i][j]);
                        }
                    }
                }
                float t[4][4] = {};  // of each pole: T0 and T1, real and imaginary
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const float4 re4 = *reinterpret_cast<const float4*>(&starts[at + j][pole]);
                    const float4 im4 = *reinterpret_cast<const float4*>(&starts[at + j][kernel_poles + pole]);
                    const float re[4] = {re4.x, re4.y, re4.z, re4.w}, im[4] = {im4.x, im4.y, im4.z, im4.w};
                    const auto j_first = static_cast<float>(first + at + j);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float w_re = fmaf(j_first, m_re[i][j], kernel_rows * p_re[i][j]);
                        const float w_im = fmaf(j_first, m_im[i][j], kernel_rows * p_im[i][j]);
                        t[i][0] = fmaf(re[i], m_re[i][j], fmaf(-im[i], m_im[i][j], t[i][0]));
                        t[i][1] = fmaf(re[i], m_im[i][j], fmaf(im[i], m_re[i][j], t[i][1]));
                        t[i][2] = fmaf(re[i], w_re, fmaf(-im[i], w_im, t[i][2]));
                        t[i][3] = fmaf(re[i], w_im, fmaf(im[i], w_re, t[i][3]));
                    }
                }
                __syncthreads();  // all powers are used up: their place takes the threads' sums
                float* const gathered = &steps[0][0];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    *reinterpret_cast<float4*>(gathered + (threadIdx.x / 8 * kernel_poles + pole + i) * 4) =
                        make_float4(t[i][0], t[i][1], t[i][2], t[i][3]);
                }
                __syncthreads();
                if (static_cast<int>(threadIdx.x) / 4 >= poles) continue;
                float sum = 0;
#pragma unroll
                for (int i = 0; i < kernel_threads / 8; ++i) sum += gathered[i * 4 * kernel_poles + threadIdx.x];
                const index n = n0 + threadIdx.x / 4;
                // Of dss, either direction has the poles of its own.
                const bool grows = directions == 2 && load_complex(a.A.pointer(h % a.A.extent(0), n)).re > 0;
                const index to = ((segment * sums.rows + row) * dim + h) * state + n;
                if (grows == (reversed != 0)) sums.parts[4 * to + threadIdx.x % 4] = sum;
            }
        }
    }
}

/// conj(Σ_l u_l λ^l) and conj(Σ_l l u_l λ^{l-1}).
struct pole_moments {
    complex_double sum, derivative;
};

__device__ __forceinline__ pole_moments moments_of(const s4d_sums& s, index row, index pole, index poles, const diagonal_pole& p,
                                                   float u_0, bool empty)
{
    complex_double t0{0, 0}, t1{0, 0};
    const float4* part = reinterpret_cast<const float4*>(s.parts) + row * poles + pole;
#pragma unroll 4
    for (index i = 0; i < s.segments; ++i, part += s.rows * poles) {
        const float4 x = *part;
        t0 = t0 + complex_double{x.x, x.y};
        t1 = t1 + complex_double{x.z, x.w};
    }
    if (empty) return {{0, 0}, {0, 0}};
    return {conj(complex_double{u_0, 0} + p.value * t0), conj(t0 + t1)};
}

/// A thread a pole of a channel: from its sums to its gradients.
static __global__ void __launch_bounds__(128)
    s4d_kernel_backward_kernel(const __grid_constant__ s4d_kernel_backward_args<float> args, const s4d_sums sums)
{
    const s4d_kernel_args<float>& a = args.forward;
    const index channels = a.C.extent(0), dim = a.C.extent(1), state = a.C.extent(2), length = args.dK.extent(2);
    const index batch = args.dK_state.data() ? args.dK_state.extent(0) : 0;
    const double factor = a.conjugate_pairs && a.method != s4d_discretization::dss ? 2 : 1;
    for (index i = blockIdx.x * index{blockDim.x} + threadIdx.x; i < dim * state; i += index{gridDim.x} * blockDim.x) {
        const index h = i / state, n = i % state, copy = h % a.A.extent(0);
        const complex_double A = load_complex(a.A.pointer(copy, n)), B = load_complex(a.B.pointer(copy, n));
        const double delta = a.rate * a.delta(h, n);
        const diagonal_pole p = discretise(a.method, A, delta, static_cast<double>(length));
        const bool dropped = beyond_band(a.delta(h, n), A.im, a.bandlimit);
        const complex_double input = B * p.gain;
        const index l_0 = p.growing ? length - 1 : 0;
        const auto moments = [&](index b, index c) {
            float u_0 = 0;
            if (length > 0) u_0 = b < 0 ? args.dK(c, h, l_0) : args.dK_state(b, c, h, l_0);
            return moments_of(sums, (b + 1) * channels + c, i, dim * state, p, u_0, length == 0);
        };
        complex_double dinput{0, 0}, dpole{0, 0};
        for (index c = 0; c < channels; ++c) {
            const complex_double C = dropped ? complex_double{0, 0} : load_complex(a.C.pointer(c, h, n));
            const pole_moments m = moments(-1, c);
            dpole = dpole + factor * (m.derivative * conj(C * input));
            dinput = dinput + factor * (m.sum * conj(C));
            complex_double dC = factor * (m.sum * conj(input));
            for (index b = 0; b < batch; ++b) {  // weights C λ s
                const complex_double start = load_complex(a.initial_state.pointer(b, h, n));
                const pole_moments k = moments(b, c);
                dpole = dpole + factor * (k.sum * conj(C * start) + k.derivative * conj(C * start * p.value));
                dC = dC + factor * (k.sum * conj(start * p.value));
            }
            if (args.dC.data()) store_complex(dropped ? complex_double{0, 0} : dC, args.dC.pointer(c, h, n));
        }
        for (index b = 0; args.dinitial_state.data() && b < args.dinitial_state.extent(0); ++b) {
            complex_double d{0, 0};
            for (index c = 0; c < channels && b < batch; ++c) {
                const complex_double C = dropped ? complex_double{0, 0} : load_complex(a.C.pointer(c, h, n));
                d = d + factor * (moments(b, c).sum * conj(C * p.value));
            }
            store_complex(d, args.dinitial_state.pointer(b, h, n));
        }
        const complex_double dB = dinput * conj(p.gain);
        const pole_gradient g = discretise_backward(a.method, A, delta, static_cast<double>(length), p, dpole, dinput * conj(B));
        const double all[5] = {g.A.re, g.A.im, dB.re, dB.im, a.rate * g.delta};
#pragma unroll
        for (int k = 0; k < 5; ++k) sums.gradients[k * dim * state + i] = all[k];
    }
}

/// Sums of the channels' gradients: of a copy's A and B over its channels, a block 32 poles, eight threads a pole, which take every
/// eighth channel and are then added in their order; behind these blocks, of the step sizes, a warp a channel.
static __global__ void __launch_bounds__(256)
    s4d_gradient_sums_kernel(const __grid_constant__ s4d_kernel_backward_args<float> args, const double* gradients)
{
    __shared__ double partial[4][8][32];
    const index dim = args.forward.C.extent(1), state = args.forward.C.extent(2), copies = args.forward.A.extent(0);
    const index tiles = (state + 31) / 32, blocks = args.dA.data() || args.dB.data() ? tiles * copies : 0;
    const index steps = args.ddelta.data() ? (dim + 7) / 8 : 0;
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32;
    for (index block = blockIdx.x; block < blocks + steps; block += gridDim.x) {
        if (block >= blocks) {
            const index h = (block - blocks) * 8 + part;
            if (h >= dim) continue;
            const double* const row = gradients + (4 * dim + h) * state;
            if (args.ddelta.stride(1) != 0) {
                for (index n = lane; n < state; n += 32) *args.ddelta.pointer(h, n) = row[n];
                continue;
            }
            double sum = 0;
            for (index n = lane; n < state; n += 32) sum += row[n];
            for (int apart = 16; apart > 0; apart /= 2) sum += __shfl_xor_sync(~0u, sum, apart);
            if (lane == 0 && state > 0) *args.ddelta.pointer(h, 0) = sum;
            continue;
        }
        const index copy = block / tiles, n = block % tiles * 32 + lane;
        double sum[4] = {};
        for (index h = copy + part * copies; h < dim && n < state; h += 8 * copies) {
#pragma unroll
            for (int k = 0; k < 4; ++k) sum[k] += gradients[(k * dim + h) * state + n];
        }
        __syncthreads();  // the partial sums before are read
#pragma unroll
        for (int k = 0; k < 4; ++k) partial[k][part][lane] = sum[k];
        __syncthreads();
        if (part >= 2 || n >= state) continue;
        complex_double all{0, 0};
        for (int i = 0; i < 8; ++i) all = all + complex_double{partial[2 * part][i][lane], partial[2 * part + 1][i][lane]};
        if (part == 0 && args.dA.data()) store_complex(all, args.dA.pointer(copy, n));
        if (part == 1 && args.dB.data()) store_complex(all, args.dB.pointer(copy, n));
    }
}

inline s4d_sums take_sums(const s4d_kernel_backward_args<float>& a, ssmkit::detail::arena& memory)
{
    const index poles = a.forward.C.extent(1) * a.forward.C.extent(2), batch = a.dK_state.data() ? a.dK_state.extent(0) : 0;
    s4d_sums s{nullptr, nullptr, moment_segments(a.dK.extent(2)), a.forward.C.extent(0) * (1 + batch)};
    s.parts = memory.take<float>(static_cast<std::size_t>(4 * s.segments * s.rows * poles));
    s.gradients = memory.take<double>(static_cast<std::size_t>(5 * poles));
    return s;
}

}  // namespace detail

/// Bytes of the device's memory that s4d_kernel_backward needs beside its arguments: 16 for every pole of a channel, 4096 taps and
/// row of dK and dK_state that it has, and 40 for every pole of a channel.
template <class T>
std::size_t s4d_kernel_backward_workspace_size(const s4d_kernel_backward_args<T>& a)
{
    ssmkit::detail::arena sizes;
    detail::take_sums(a, sizes);
    return sizes.size();
}

/// The gradients of s4d_kernel on the device: shapes, equations and options at s4d_kernel_backward_args, whose views hold device
/// pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the workspace is too
/// small, and cuda::error if a launch fails. Powers are rounded from double, and sums of more than 4096 taps are double. Results are
/// the same bit for bit from run to run: all sums have a fixed order. Bound by the units of float: four multiply-adds a tap and pole.
template <class T>
void s4d_kernel_backward(const s4d_kernel_backward_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(std::is_same_v<T, float>, "poles are double and kernels float");
    constexpr const char* op = "cuda::s4d_kernel_backward";
    check(a);
    const std::size_t need = s4d_kernel_backward_workspace_size(a);
    if (workspace.size() < need) {
        ssmkit::detail::fail(std::string(op) + ": workspace has " + std::to_string(workspace.size()) + " bytes, expected " +
                             std::to_string(need));
    }
    ssmkit::detail::arena memory(workspace);
    const s4d_sums sums = take_sums(a, memory);
    const index dim = a.forward.C.extent(1), state = a.forward.C.extent(2), copies = a.forward.A.extent(0);
    const index blocks = state > 0 ? sums.segments * dim * sums.rows : 0;
    if (blocks > 0) s4d_moments_kernel<<<kernel_grid(blocks), kernel_threads, 0, stream>>>(a, sums);
    require_success(op, cudaGetLastError());
    if (dim * state > 0) s4d_kernel_backward_kernel<<<kernel_grid((dim * state + 127) / 128), 128, 0, stream>>>(a, sums);
    require_success(op, cudaGetLastError());
    const index of_copies = a.dA.data() || a.dB.data() ? (state + 31) / 32 * copies : 0;
    const index last = of_copies + (a.ddelta.data() && state > 0 ? (dim + 7) / 8 : 0);
    if (last > 0) s4d_gradient_sums_kernel<<<kernel_grid(last), 256, 0, stream>>>(a, sums.gradients);
    require_success(op, cudaGetLastError());
}

/// The same where s4d_kernel_backward_workspace_size is 0; otherwise shape_error.
template <class T>
void s4d_kernel_backward(const s4d_kernel_backward_args<T>& a, cudaStream_t stream)
{
    s4d_kernel_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
