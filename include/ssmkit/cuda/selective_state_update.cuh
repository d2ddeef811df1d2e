#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/cuda/detail/words.cuh>

namespace ssmkit::cuda {
namespace detail {

/// The group of B and C that a channel of a head reads.
template <class T>
__device__ __forceinline__ index step_group(const selective_state_update_args<T>& a, index head, index c)
{
    const unsigned groups = static_cast<unsigned>(a.B.extent(1));
    if (groups == 1) return 0;
    return a.u.extent(1) == 1 ? c / (a.u.extent(2) / groups)
                              : static_cast<unsigned>(head) / (static_cast<unsigned>(a.u.extent(1)) / groups);
}

template <class T>
__device__ __forceinline__ index step_entry(const selective_state_update_args<T>& a, index b)
{
    return a.state_batch_indices.data() ? a.state_batch_indices[b] : b;
}

/// `Lanes` neighbouring threads share a channel; each has `Words` times four neighbouring states, a word every 4 Lanes of them,
/// of `Rows` batch rows, which share A. All loads of a thread are under way before the first is used. What bounds it is memory.
template <class T, int Lanes, int Words, int Rows>
__global__ void __launch_bounds__(128) state_update_kernel(const __grid_constant__ selective_state_update_args<T> a, bool tied)
{
    const index batch = a.u.extent(0), nheads = a.u.extent(1), headdim = a.u.extent(2);
    const int state = static_cast<int>(a.h.extent(3)), lane = threadIdx.x % Lanes;
    const index channel = index{blockIdx.x} * (128 / Lanes) + threadIdx.x / Lanes;
    const bool channel_there = channel < headdim;
    const index c = channel_there ? channel : headdim - 1;
    const auto n_of = [&](int k) { return (k * Lanes + lane) * 4; };
    for (index head = blockIdx.y; head < nheads; head += gridDim.y) {
        for (index b0 = index{blockIdx.z} * Rows; b0 < batch; b0 += index{gridDim.z} * Rows) {
            const index group = step_group(a, head, c);
            float4 h[Rows][Words], rate[Words];
            float u[Rows], delta[Rows], z[Rows], y[Rows];
            word_of<T, 4> B[Rows][Words], C[Rows][Words];
            float* to[Rows];
            bool there[Rows], padding[Rows];
#pragma unroll
            for (int r = 0; r < Rows; ++r) {
                const index b = min(b0 + r, batch - 1), entry = step_entry(a, b);
                padding[r] = entry < 0;
                there[r] = channel_there && b0 + r < batch;
                to[r] = a.h.pointer(padding[r] ? 0 : entry, head, c);
#pragma unroll
                for (int k = 0; k < Words; ++k) {
                    h[r][k] = make_float4(0, 0, 0, 0);
                    B[r][k] = C[r][k] = word_of<T, 4>{};
                    if (n_of(k) >= state || padding[r] || !there[r]) continue;
                    h[r][k] = *reinterpret_cast<const float4*>(to[r] + n_of(k));
                    B[r][k] = load_word<4>(a.B.pointer(b, group, n_of(k)));
                    C[r][k] = load_word<4>(a.C.pointer(b, group, n_of(k)));
                }
                u[r] = widened(a.u(b, head, c));
                delta[r] = widened(a.delta(b, head, c));
                z[r] = a.z.data() ? widened(a.z(b, head, c)) : 0.0f;
            }
            const float bias = a.delta_bias.data() ? a.delta_bias(head, c) : 0.0f, skip = a.D.data() ? a.D(head, c) : 0.0f;
            const float* const A = a.A.pointer(head, c);
            if (tied) {
                rate[0].x = state > 0 ? *A * log2_e : 0.0f;
            } else {
#pragma unroll
                for (int k = 0; k < Words; ++k) {
                    rate[k] = make_float4(0, 0, 0, 0);
                    if (n_of(k) < state) rate[k] = *reinterpret_cast<const float4*>(A + n_of(k));
                    rate[k].x *= log2_e, rate[k].y *= log2_e, rate[k].z *= log2_e, rate[k].w *= log2_e;
                }
            }
#pragma unroll
            for (int r = 0; r < Rows; ++r) {
                float d = delta[r] + bias;
                if (a.delta_softplus) d = softplus(d);
                const float x = d * u[r], once = tied ? exp2_fast(d * rate[0].x) : 0.0f;
                float sum = 0;
#pragma unroll
                for (int k = 0; k < Words; ++k) {
                    float B4[4], C4[4];
                    unpack<T, 4>(B[r][k], B4);
                    unpack<T, 4>(C[r][k], C4);
                    if (n_of(k) >= state || padding[r] || !there[r]) continue;
                    float4& s = h[r][k];
                    s.x = fmaf(tied ? once : exp2_fast(d * rate[k].x), s.x, x * B4[0]);
                    s.y = fmaf(tied ? once : exp2_fast(d * rate[k].y), s.y, x * B4[1]);
                    s.z = fmaf(tied ? once : exp2_fast(d * rate[k].z), s.z, x * B4[2]);
                    s.w = fmaf(tied ? once : exp2_fast(d * rate[k].w), s.w, x * B4[3]);
                    sum = fmaf(s.x, C4[0], fmaf(s.y, C4[1], fmaf(s.z, C4[2], fmaf(s.w, C4[3], sum))));
                    *reinterpret_cast<float4*>(to[r] + n_of(k)) = s;
                }
                y[r] = sum;
            }
#pragma unroll
            for (int r = 0; r < Rows; ++r) {
#pragma unroll
                for (int distance = 1; distance < Lanes; distance *= 2) y[r] += __shfl_xor_sync(0xffffffffu, y[r], distance);
                if (lane != 0 || !there[r]) continue;
                if (a.D.data()) y[r] = fmaf(skip, u[r], y[r]);
                if (a.z.data()) y[r] *= silu(z[r]);
                a.y(b0 + r, head, c) = narrowed<T>(padding[r] ? 0.0f : y[r]);
            }
        }
    }
}

/// Any strides and number of states: 8 threads a channel, an element each at a time.
template <class T>
__global__ void __launch_bounds__(128) state_update_any_kernel(const __grid_constant__ selective_state_update_args<T> a)
{
    const index nheads = a.u.extent(1), headdim = a.u.extent(2), state = a.h.extent(3), total = a.u.extent(0) * nheads * headdim;
    const int lane = threadIdx.x % 8;
    // A block's 16 channels go through the loop together, for the sums over lanes.
    for (index first = index{blockIdx.x} * 16; first < total; first += index{gridDim.x} * 16) {
        const index i = first + threadIdx.x / 8;
        float sum = 0, u = 0;
        index b = 0, head = 0, c = 0, entry = -1;
        if (i < total) {
            c = i % headdim, head = i / headdim % nheads, b = i / (headdim * nheads), entry = step_entry(a, b);
            const index group = step_group(a, head, c);
            u = widened(a.u(b, head, c));
            float d = widened(a.delta(b, head, c)) + (a.delta_bias.data() ? a.delta_bias(head, c) : 0.0f);
            if (a.delta_softplus) d = softplus(d);
            for (index n = lane; n < state && entry >= 0; n += 8) {
                float& h = a.h(entry, head, c, n);
                const float next = fmaf(exp2_fast(d * (a.A(head, c, n) * log2_e)), h, d * u * widened(a.B(b, group, n)));
                h = next;
                sum = fmaf(next, widened(a.C(b, group, n)), sum);
            }
        }
#pragma unroll
        for (int distance = 1; distance < 8; distance *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        if (i >= total || lane != 0) continue;
        if (a.D.data()) sum = fmaf(a.D(head, c), u, sum);
        if (a.z.data()) sum *= silu(widened(a.z(b, head, c)));
        a.y(b, head, c) = narrowed<T>(entry < 0 ? 0.0f : sum);
    }
}

template <int Lanes, int Words, int Rows, class T>
void launch_state_update(const selective_state_update_args<T>& a, bool tied, cudaStream_t stream)
{
    constexpr index most = 65535;  // of a grid's second and third axis; kernels loop beyond
    const dim3 grid(blocks_for("cuda::selective_state_update", "u", a.u.extent(2), 128 / Lanes),
                    static_cast<unsigned>(std::min(a.u.extent(1), most)),
                    static_cast<unsigned>(std::min((a.u.extent(0) + Rows - 1) / Rows, most)));
    state_update_kernel<T, Lanes, Words, Rows><<<grid, 128, 0, stream>>>(a, tied);
}

}  // namespace detail

/// Bytes of the device's memory that selective_state_update needs beside its arguments: none.
template <class T>
std::size_t selective_state_update_workspace_size(const selective_state_update_args<T>&)
{
    return 0;
}

/// One decoding step on the device: shapes, equations and options at selective_state_update_args, whose views hold device
/// pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit, and cuda::error if the
/// launch fails; the values of state_batch_indices are trusted. Results are the same bit for bit from run to run.
///
/// Up to 256 states, a multiple of four, contiguous and aligned to 16 bytes (B and C to four elements) run at the speed of memory.
template <class T>
void selective_state_update(const selective_state_update_args<T>& a, std::span<std::byte>, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::selective_state_update";
    ssmkit::detail::check_selective_state_update(a, ssmkit::detail::memory::device);
    const index batch = a.u.extent(0), channels = a.u.extent(1) * a.u.extent(2), state = a.h.extent(3);
    if (batch * channels == 0) return;
    const bool tied = a.A.stride(2) == 0;
    if (state > 0 && state <= 256 && state % 4 == 0 && in_words(a.h, 3, 4) && (tied || in_words(a.A, 2, 4)) && in_words(a.B, 2, 4) &&
        in_words(a.C, 2, 4)) {
        if (state <= 16) {
            // Rows together read A once and have four times the bytes under way; with few, threads are needed more.
            batch * channels >= 132 * 2048 / 2 && batch >= 4 ? launch_state_update<4, 1, 4>(a, tied, stream)
                                                             : launch_state_update<4, 1, 1>(a, tied, stream);
        } else if (state <= 64) {
            launch_state_update<8, 2, 1>(a, tied, stream);
        } else if (state <= 128) {
            launch_state_update<8, 4, 1>(a, tied, stream);
        } else {
            launch_state_update<16, 4, 1>(a, tied, stream);
        }
    } else {
        const index blocks = std::min<index>((batch * channels + 15) / 16, index{1} << 30);
        state_update_any_kernel<<<static_cast<unsigned>(blocks), 128, 0, stream>>>(a);
    }
    require_success(op, cudaGetLastError());
}

/// The same where selective_state_update_workspace_size is 0; otherwise shape_error.
template <class T>
void selective_state_update(const selective_state_update_args<T>& a, cudaStream_t stream)
{
    selective_state_update(a, {}, stream);
}

}  // namespace ssmkit::cuda
