#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iterator>
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

/// The arguments where 32 bits hold the strides, and the offsets but those of h: a launch waits for each line of constant memory
/// that its kernel reads, and for each step of a product of 64 bits.
template <class T>
struct state_update_step {
    float* h;
    const T *B, *C;
    const float* A;
    const T *delta, *u, *z;
    const float *delta_bias, *D;
    T* y;
    const std::int32_t* entries;
    int h_strides[3], B_strides[2], C_strides[2], A_strides[2];  // all but the state's
    int delta_strides[3], u_strides[3], z_strides[3], bias_strides[2], D_strides[2], y_strides[3];
    int batch, headdim, state, groups, heads_of_group, channels_of_group;
    bool delta_softplus;

    /// Channels have groups where there is one head, heads where there are several.
    __device__ __forceinline__ int group_of(int head, int c) const
    {
        return groups == 1 ? 0 : heads_of_group ? head / heads_of_group : c / channels_of_group;
    }
};

/// Of offsets that 32 bits hold.
template <class U>
__device__ __forceinline__ U* at_strides(U* data, const int (&strides)[2], int i, int j)
{
    return data + (i * strides[0] + j * strides[1]);
}
template <class U>
__device__ __forceinline__ U* at_strides(U* data, const int (&strides)[3], int i, int j, int k)
{
    return data + (i * strides[0] + j * strides[1] + k * strides[2]);
}

/// `Lanes` neighbouring threads share a channel; each has `Words` times four neighbouring states, a word every 4 Lanes of them,
/// of `Rows` batch rows, which share A. With a row for each lane, that lane alone has what a row's states share. All loads of a
/// thread are under way before the first is used. What bounds it is memory.
template <class T, int Lanes, int Words, int Rows, bool Tied>
__global__ void __launch_bounds__(128) state_update_kernel(const __grid_constant__ state_update_step<T> a)
{
    static_assert(Rows == 1 || Rows == Lanes);
    const int lane = threadIdx.x % Lanes, head = blockIdx.y, b0 = blockIdx.z * Rows;
    const int channel = blockIdx.x * (128 / Lanes) + threadIdx.x / Lanes, c = min(channel, a.headdim - 1);
    const int mine = Rows == 1 ? b0 : b0 + lane, b_mine = min(mine, a.batch - 1);
    const auto n_of = [&](int k) { return (k * Lanes + lane) * 4; };
    const int group = a.group_of(head, c);
    float4 h[Rows][Words], rate[Words];
    word_of<T, 4> B[Rows][Words], C[Rows][Words];
    float* to[Rows];
    bool there[Rows], padding_mine = false;
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
        const int b = min(b0 + r, a.batch - 1), entry = a.entries ? a.entries[b] : b;
        if (b == b_mine) padding_mine = entry < 0;
        there[r] = channel < a.headdim && b0 + r < a.batch && entry >= 0;
        to[r] = a.h + (index{entry} * a.h_strides[0] + index{head} * a.h_strides[1] + index{c} * a.h_strides[2]) + 4 * lane;
        const T* const B_at = at_strides(a.B, a.B_strides, b, group) + 4 * lane;
        const T* const C_at = at_strides(a.C, a.C_strides, b, group) + 4 * lane;
#pragma unroll
        for (int k = 0; k < Words; ++k) {
            h[r][k] = make_float4(0, 0, 0, 0);
            B[r][k] = C[r][k] = word_of<T, 4>{};
            if (n_of(k) >= a.state || !there[r]) continue;
            h[r][k] = *reinterpret_cast<const float4*>(to[r] + 4 * Lanes * k);
            B[r][k] = load_word<4>(B_at + 4 * Lanes * k);
            C[r][k] = load_word<4>(C_at + 4 * Lanes * k);
        }
    }
    const float* const A = at_strides(a.A, a.A_strides, head, c);
#pragma unroll
    for (int k = 0; k < Words; ++k) {
        rate[k] = make_float4(0, 0, 0, 0);
        if (n_of(k) < a.state) rate[k] = Tied ? make_float4(*A, 0, 0, 0) : *reinterpret_cast<const float4*>(A + n_of(k));
    }

    const float delta = widened(*at_strides(a.delta, a.delta_strides, b_mine, head, c));
    const float u = widened(*at_strides(a.u, a.u_strides, b_mine, head, c));
    const float z = a.z ? widened(*at_strides(a.z, a.z_strides, b_mine, head, c)) : 0.0f;
    const float bias = a.delta_bias ? *at_strides(a.delta_bias, a.bias_strides, head, c) : 0.0f;
    const float skip = a.D ? *at_strides(a.D, a.D_strides, head, c) : 0.0f;
    __syncwarp();  // or the compiler moves loads behind what waits for others

    const float step = a.delta_softplus ? softplus(delta + bias) : delta + bias, input = step * u;
    float y[Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
        float d = step, x = input;
        if constexpr (Rows > 1) {
            d = __shfl_sync(0xffffffffu, step, r, Lanes);
            x = __shfl_sync(0xffffffffu, input, r, Lanes);
        }
        d *= log2_e;
        const float once = Tied ? exp2_fast(d * rate[0].x) : 0.0f;
        y[r] = 0;
#pragma unroll
        for (int k = 0; k < Words; ++k) {
            float B4[4], C4[4];
            unpack<T, 4>(B[r][k], B4);
            unpack<T, 4>(C[r][k], C4);
            float4& s = h[r][k];
            s.x = fmaf(Tied ? once : exp2_fast(d * rate[k].x), s.x, x * B4[0]);
            s.y = fmaf(Tied ? once : exp2_fast(d * rate[k].y), s.y, x * B4[1]);
            s.z = fmaf(Tied ? once : exp2_fast(d * rate[k].z), s.z, x * B4[2]);
            s.w = fmaf(Tied ? once : exp2_fast(d * rate[k].w), s.w, x * B4[3]);
            if (n_of(k) >= a.state || !there[r]) continue;
            y[r] = fmaf(s.x, C4[0], fmaf(s.y, C4[1], fmaf(s.z, C4[2], fmaf(s.w, C4[3], y[r]))));
            *reinterpret_cast<float4*>(to[r] + 4 * Lanes * k) = s;
        }
    }

    // Sums over lanes: each keeps half of its rows and gives the others away until its own is left.
#pragma unroll
    for (int half = Lanes / 2; half >= 1; half /= 2) {
        if constexpr (Rows == 1) {
            y[0] += __shfl_xor_sync(0xffffffffu, y[0], half);
        } else {
            const bool upper = lane & half;
#pragma unroll
            for (int i = 0; i < half; ++i) {
                const float others = __shfl_xor_sync(0xffffffffu, upper ? y[i] : y[i + half], half);
                y[i] = (upper ? y[i + half] : y[i]) + others;
            }
        }
    }
    if (channel >= a.headdim || mine >= a.batch || (Rows == 1 && lane != 0)) return;
    if (a.D) y[0] = fmaf(skip, u, y[0]);
    if (a.z) y[0] *= silu(z);
    *at_strides(a.y, a.y_strides, mine, head, c) = narrowed<T>(padding_mine ? 0.0f : y[0]);
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

/// The arguments for state_update_kernel; false where their states are no words of four or 32 bits do not hold a stride.
template <class T>
bool in_step_words(const selective_state_update_args<T>& a, state_update_step<T>& step)
{
    const index nheads = a.u.extent(1), headdim = a.u.extent(2), groups = a.B.extent(1), state = a.h.extent(3);
    const bool tied = a.A.stride(2) == 0;
    bool fits = state > 0 && state <= 256 && state % 4 == 0 && in_words(a.h, 3, 4) && (tied || in_words(a.A, 2, 4)) &&
                in_words(a.B, 2, 4) && in_words(a.C, 2, 4);
    const auto narrow = [&](index x) {
        fits = fits && x == static_cast<int>(x);
        return static_cast<int>(x);
    };
    for (std::size_t axis = 0; axis < 3; ++axis) step.h_strides[axis] = narrow(a.h.stride(axis));
    const auto strides = [&](const auto& v, auto& to) {
        index farthest = 0;
        for (std::size_t axis = 0; axis < std::size(to); ++axis) {
            to[axis] = narrow(v.stride(axis));
            farthest += std::abs(v.stride(axis)) * v.extent(axis);
        }
        narrow(farthest);
        return v.data();
    };
    step.h = a.h.data();
    step.B = strides(a.B, step.B_strides);
    step.C = strides(a.C, step.C_strides);
    step.A = strides(a.A, step.A_strides);
    step.delta = strides(a.delta, step.delta_strides);
    step.u = strides(a.u, step.u_strides);
    step.z = strides(a.z, step.z_strides);
    step.delta_bias = strides(a.delta_bias, step.bias_strides);
    step.D = strides(a.D, step.D_strides);
    step.y = strides(a.y, step.y_strides);
    step.entries = a.state_batch_indices.data();
    step.batch = narrow(a.u.extent(0));
    step.headdim = narrow(headdim);
    step.state = static_cast<int>(state);
    step.groups = narrow(groups);
    step.heads_of_group = nheads == 1 ? 0 : narrow(nheads / groups);
    step.channels_of_group = narrow(headdim / std::min(groups, headdim));
    step.delta_softplus = a.delta_softplus;
    // Of a grid's second and third axis, and indices that are counted up to a block beyond the last.
    return fits && nheads <= 65535 && a.u.extent(0) <= 65535 && headdim <= (index{1} << 30) &&
           (!step.entries || a.state_batch_indices.stride(0) == 1);
}

template <int Lanes, int Words, int Rows, class T>
void launch_state_update(const selective_state_update_args<T>& a, const state_update_step<T>& step, cudaStream_t stream)
{
    const dim3 grid(blocks_for("cuda::selective_state_update", "u", a.u.extent(2), 128 / Lanes),
                    static_cast<unsigned>(a.u.extent(1)), static_cast<unsigned>((a.u.extent(0) + Rows - 1) / Rows));
    if (a.A.stride(2) == 0) {
        state_update_kernel<T, Lanes, Words, Rows, true><<<grid, 128, 0, stream>>>(step);
    } else {
        state_update_kernel<T, Lanes, Words, Rows, false><<<grid, 128, 0, stream>>>(step);
    }
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
    if (state_update_step<T> step; in_step_words(a, step)) {
        if (state <= 16) {
            // Rows together read A once and have four times the bytes under way; with few, threads are needed more.
            batch * channels >= 132 * 2048 / 2 && batch >= 4 ? launch_state_update<4, 1, 4>(a, step, stream)
                                                             : launch_state_update<4, 1, 1>(a, step, stream);
        } else if (state <= 64) {
            launch_state_update<8, 2, 1>(a, step, stream);
        } else if (state <= 128) {
            launch_state_update<8, 4, 1>(a, step, stream);
        } else {
            launch_state_update<16, 4, 1>(a, step, stream);
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
