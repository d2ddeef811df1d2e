#pragma once

// ssd token by token, for what the chunked kernel leaves: large states, the recurrent form, states at the edges of chunks, steps.

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda::detail {

/// The step of a token that is not padding.
template <class T>
__device__ __forceinline__ float ssd_delta(const ssd_args<T>& a, float raw, float bias)
{
    const float shifted = raw + bias, r = a.delta_softplus ? softplus(shifted) : shifted;
    return r < a.delta_min ? a.delta_min : r > a.delta_max ? a.delta_max : r;  // a NaN is neither
}

/// Where a sequence lies, and which of its tokens is visited at a step.
struct ssd_sequence {
    index row, begin, end;
    bool reverse;

    template <class T>
    __device__ ssd_sequence(const ssd_args<T>& a, index sequence)
        : row(a.cu_seqlens.data() ? 0 : sequence), begin(a.cu_seqlens.data() ? a.cu_seqlens[sequence] : 0),
          end(a.cu_seqlens.data() ? a.cu_seqlens[sequence + 1] : a.u.extent(1)), reverse(a.reverse)
    {
    }
    __device__ index length() const { return end - begin; }
    __device__ index token(index step) const { return reverse ? end - 1 - step : begin + step; }

    /// Whom the state belongs to before a step.
    template <class T>
    __device__ std::int32_t owner(const ssd_args<T>& a, index step) const
    {
        while (a.seq_idx.data() && step-- > 0) {
            const std::int32_t id = a.seq_idx(row, token(step));
            if (id >= 0) return id;
        }
        return 0;
    }
};

/// Which outputs a launch of the recurrence is for.
enum class ssd_wanted : int { outputs = 1, prev_states = 2, chunk_states = 4 };

/// A warp a channel, its lanes along the state; with chunk_states a warp a channel and chunk. Bound by the latency of a token.
template <int PerLane, class T>
__global__ void __launch_bounds__(128) ssd_recurrence_kernel(const __grid_constant__ ssd_args<T> a, index tasks, int wanted)
{
    const index task = blockIdx.x * index{4} + threadIdx.x / 32;
    if (task >= tasks) return;
    const int lane = threadIdx.x % 32;
    const index nheads = a.u.extent(2), headdim = a.u.extent(3), state = a.B.extent(3);
    const index channel = task % headdim, head = task / headdim % nheads, unit = task / headdim / nheads;
    const bool from_zero = wanted == static_cast<int>(ssd_wanted::chunk_states), out = wanted & static_cast<int>(ssd_wanted::outputs);
    const bool edges = wanted & static_cast<int>(ssd_wanted::prev_states);
    const index chunks = ssd_chunk_count(a.u.extent(1), a.chunk);
    const index sequence = from_zero ? unit / chunks : unit, piece = from_zero ? unit % chunks : 0;
    const ssd_sequence place(a, sequence);
    const index first = piece * a.chunk, last = from_zero ? min(place.length(), first + a.chunk) : place.length();
    const index b = place.row, group = head / (nheads / a.B.extent(2));
    const float rate = a.A[head], bias = a.delta_bias.data() ? a.delta_bias[head] : 0.0f;
    const float skip = a.D.data() ? a.D(head, channel) : 0.0f;

    float h[PerLane];
    const auto has = [&](int s) { return lane + 32 * s < state; };
#pragma unroll
    for (int s = 0; s < PerLane; ++s) {
        h[s] = has(s) && !from_zero && a.initial_state.data() ? a.initial_state(sequence, head, channel, lane + 32 * s) : 0.0f;
    }
    const auto keep = [&](float* to, index stride) {
#pragma unroll
        for (int s = 0; s < PerLane; ++s) {
            if (has(s)) to[(lane + 32 * s) * stride] = h[s];
        }
    };
    std::int32_t current = 0;
    for (index step = first; step < last; ++step) {
        const index t = place.token(step);
        if (edges && step % a.chunk == 0) keep(a.prev_states.pointer(b, step / a.chunk, head, channel), a.prev_states.stride(4));
        const std::int32_t id = a.seq_idx.data() ? a.seq_idx(b, t) : 0;
        float p = 0;
        if (id >= 0) {
            const bool fresh = id != current;
            current = id;
            const float u = widened(a.u(b, t, head, channel)), delta = ssd_delta(a, widened(a.delta(b, t, head)), bias);
            const float decay = expf(delta * rate), input = a.prescaled ? u : delta * u;
#pragma unroll
            for (int s = 0; s < PerLane; ++s) {
                if (!has(s)) continue;
                if (fresh) h[s] = 0;
                h[s] = fmaf(decay, h[s], input * widened(a.B(b, t, group, lane + 32 * s)));
                if (out) p = fmaf(h[s], widened(a.C(b, t, group, lane + 32 * s)), p);
            }
            for (int distance = 16; out && distance > 0; distance /= 2) p += __shfl_xor_sync(0xffffffffu, p, distance);
            if (a.D.data()) p = fmaf(skip, u, p);
        }
        if (out && lane == 0) {
            const float y = a.z.data() && id >= 0 ? p * silu(widened(a.z(b, t, head, channel))) : p;
            if (a.y_ungated.data()) a.y_ungated(b, t, head, channel) = narrowed<T>(p);
            a.y(b, t, head, channel) = narrowed<T>(y);
        }
    }
    if (from_zero) keep(a.chunk_states.pointer(b, piece, head, channel), a.chunk_states.stride(4));
    if (out && a.final_state.data()) keep(a.final_state.pointer(sequence, head, channel), a.final_state.stride(3));
}

/// delta_out and log_decay: a thread a chunk and head (with cu_seqlens, whose tokens need no chunks, they are cut all the same).
template <class T>
__global__ void __launch_bounds__(128) ssd_steps_kernel(const __grid_constant__ ssd_args<T> a, index tasks)
{
    const index task = blockIdx.x * index{128} + threadIdx.x;
    if (task >= tasks) return;
    const index nheads = a.u.extent(2), length = a.u.extent(1), chunks = ssd_chunk_count(length, a.chunk);
    const index head = task % nheads, piece = task / nheads % chunks, b = task / nheads / chunks;
    const index first = piece * a.chunk, last = min(length, first + a.chunk);
    const float rate = a.A[head], bias = a.delta_bias.data() ? a.delta_bias[head] : 0.0f;
    const auto token = [&](index step) { return a.reverse ? length - 1 - step : step; };
    std::int32_t current = 0;
    for (index step = first; a.seq_idx.data() && step-- > 0;) {
        const std::int32_t id = a.seq_idx(b, token(step));
        if (id < 0) continue;
        current = id;
        break;
    }
    double sum = 0;
    for (index step = first; step < last; ++step) {
        const index t = token(step);
        const std::int32_t id = a.seq_idx.data() ? a.seq_idx(b, t) : 0;
        float delta = 0;
        if (id >= 0) {
            delta = ssd_delta(a, widened(a.delta(b, t, head)), bias);
            if (id != current) sum = 0;
            current = id;
            sum += static_cast<double>(delta) * rate;
        }
        if (a.delta_out.data()) a.delta_out(b, t, head) = delta;
        if (a.log_decay.data()) a.log_decay(b, t, head) = static_cast<float>(sum);
    }
}

}  // namespace ssmkit::cuda::detail
