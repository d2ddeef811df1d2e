#pragma once

// The gradients of ssd on the device: how a call is laid out, the chunks' steps before everything else, and the sums at its end.

#include <ssmkit/args/ssd_backward.hpp>
#include <ssmkit/cuda/detail/ssd_chunks.cuh>

namespace ssmkit::cuda::detail {

/// What a chunk's tokens do. Sums of logarithms to base 2 run from the chunk's or its sequence's first token; steps that are not
/// numbers are left out of them and counted, so that they reach no decay but those that they take part in.
struct alignas(16) ssd_backward_steps {
    float high[ssd_piece], low[ssd_piece];  // the sum, in two floats
    float step[ssd_piece];                  // what the input is multiplied by
    float in[ssd_piece];                    // what is left of the state before the chunk; negative: it does not reach the token
    float tail[ssd_piece];                  // decay to the chunk's end; negative: the token does not reach it
    int sequence[ssd_piece];                // how many sequences began in the chunk so far; -1: padding, or behind the end
    int crossed[ssd_piece];                 // how many steps up to this one are not numbers
    float through;                          // decay of the whole chunk; negative: the state was set to zero
    int cut;                                // not all tokens are there and of one sequence
    int odd;                                // how many steps are not numbers
};

template <class T>
inline constexpr int ssd_backward_strip = std::is_same_v<T, bfloat16> ? 128 : 64;  // states at a time: what shared memory holds

/// A unit is a strip of at most 64 channels of a head. A slot is a chunk: with cu_seqlens, whose values the host does not know, some
/// stay empty.
struct ssd_backward_plan {
    index sequences = 0, row_chunks = 0, slots = 0;
    index strips = 0, units = 0, group_units = 0;  // of a head, in all, of a group
    index state_strips = 1;
    index parts = 0, part_units = 0;               // a group's units are cut into parts, a block each
    index segments = 1, segment_chunks = 0;        // of the walks along the chunks
    int stages = 1;
    bool vector_u = false, vector_dy = false, vector_B = false, vector_C = false, pairs_du = false;
    ssd_backward_steps* steps = nullptr;           // (slots, nheads)
    void* states = nullptr;                        // (2, slots, units, state strips, 64, strip): before, and gradients behind a chunk
    float* summaries = nullptr;                    // (rows of a walk, segments, strip / 8, 128, 4)
    float* decays = nullptr;                       // (rows of a walk, segments); negative: the state was set to zero
    float2* dsteps = nullptr;                      // (slots, units, 64): u·w and the gradient of the logarithm of the decay
    float *dB = nullptr, *dC = nullptr;            // (parts, batch * length, ngroups, state strips * strip)
    float *dA = nullptr, *ddelta_bias = nullptr;   // (nheads, slots)
    float* dD = nullptr;                           // (units, 64, slots)
};

/// The chunk of a slot.
struct ssd_backward_place {
    index sequence, chunk;

    template <class T>
    __device__ ssd_backward_place(const ssd_args<T>& f, const ssd_backward_plan& plan, index slot)
    {
        if (f.cu_seqlens.data() == nullptr) {
            sequence = slot / plan.row_chunks, chunk = slot % plan.row_chunks;
            return;
        }
        index low = 0, high = plan.sequences;  // the last sequence whose slots begin at or before this one
        while (high - low > 1) {
            const index middle = (low + high) / 2;
            (f.cu_seqlens[middle] / ssd_piece + middle <= slot ? low : high) = middle;
        }
        sequence = low, chunk = slot - (f.cu_seqlens[low] / ssd_piece + low);
    }
};

template <class T>
__device__ __forceinline__ index ssd_backward_first_slot(const ssd_args<T>& f, const ssd_backward_plan& plan, index sequence)
{
    return f.cu_seqlens.data() ? f.cu_seqlens[sequence] / ssd_piece + sequence : sequence * plan.row_chunks;
}

/// A warp a chunk and head, two tokens a lane.
template <class T>
__global__ void __launch_bounds__(128) ssd_backward_steps_kernel(const __grid_constant__ ssd_args<T> f,
                                                                 const __grid_constant__ ssd_backward_plan plan)
{
    constexpr unsigned all = 0xffffffffu;
    const index nheads = f.u.extent(2), task = blockIdx.x * index{4} + threadIdx.x / 32;
    if (task >= plan.slots * nheads) return;
    const int lane = threadIdx.x % 32;
    const index head = task % nheads;
    const ssd_backward_place at(f, plan, task / nheads);
    const ssd_sequence place(f, at.sequence);
    const index first_token = at.chunk * ssd_piece, left = place.length() - first_token;
    if (left <= 0) return;
    const bool packed = f.seq_idx.data() != nullptr;
    const float rate = f.A[head], bias = f.delta_bias.data() ? f.delta_bias[head] : 0.0f;
    ssd_backward_steps& to = plan.steps[task];

    float delta[2];
    double log_decay[2];
    bool real[2], odd[2];
    std::int32_t id[2] = {0, 0};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        real[j] = 2 * lane + j < left;
        delta[j] = 0;
        if (real[j]) {
            const index t = place.token(first_token + 2 * lane + j);
            if (packed) id[j] = f.seq_idx(place.row, t);
            real[j] = id[j] >= 0;
            if (real[j]) delta[j] = ssd_delta(f, widened(f.delta(place.row, t, head)), bias);
        }
        const double l = static_cast<double>(delta[j]) * rate * 1.4426950408889634;
        odd[j] = real[j] && l != l;
        log_decay[j] = !real[j] || odd[j] ? 0.0 : l < -4000.0 ? -4000.0 : l;  // -infinity would leave no differences
    }
    bool first[2] = {false, false};
    int begun = 0, crossed = odd[0] + odd[1];
    if (packed) {
        const std::int32_t owner = place.owner(f, first_token);
        bool known = real[0] || real[1];  // the number of the last token that is no padding, up to this lane's
        std::int32_t last = real[1] ? id[1] : id[0];
        for (int distance = 1; distance < 32; distance *= 2) {
            const std::int32_t other = __shfl_up_sync(all, last, distance);
            const bool other_known = __shfl_up_sync(all, static_cast<int>(known), distance) != 0;
            if (!known && lane >= distance) last = other, known = other_known;
        }
        std::int32_t before = __shfl_up_sync(all, last, 1);
        const bool before_known = __shfl_up_sync(all, static_cast<int>(known), 1) != 0;
        if (lane == 0 || !before_known) before = owner;
        first[0] = real[0] && id[0] != before;
        first[1] = real[1] && id[1] != (real[0] ? id[0] : before);
        begun = first[0] + first[1];
    }
    double sum = first[1] ? log_decay[1] : log_decay[0] + log_decay[1];
    bool cut = first[0] || first[1];
    for (int distance = 1; distance < 32; distance *= 2) {
        const double other = __shfl_up_sync(all, sum, distance);
        const bool other_cut = __shfl_up_sync(all, static_cast<int>(cut), distance) != 0;
        const int other_begun = __shfl_up_sync(all, begun, distance), other_crossed = __shfl_up_sync(all, crossed, distance);
        if (lane < distance) continue;
        if (!cut) sum += other, cut = other_cut;
        begun += other_begun;
        crossed += other_crossed;
    }
    double before = __shfl_up_sync(all, sum, 1);
    if (lane == 0) before = 0;
    double upto[2];
    upto[0] = first[0] ? log_decay[0] : before + log_decay[0];
    upto[1] = first[1] ? log_decay[1] : upto[0] + log_decay[1];
    const double end = __shfl_sync(all, upto[1], 31);
    const int sequences = __shfl_sync(all, begun, 31), numberless = __shfl_sync(all, crossed, 31);
    const float nan = __uint_as_float(0x7fffffffu);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int s = 2 * lane + j, sequence = j == 0 ? begun - first[1] : begun, upto_here = j == 0 ? crossed - odd[1] : crossed;
        const float high = static_cast<float>(upto[j]);
        to.high[s] = high;
        to.low[s] = static_cast<float>(upto[j] - high);
        to.step[s] = f.prescaled ? 1.0f : delta[j];
        to.in[s] = !real[j] || sequence != 0 ? -1.0f : upto_here > 0 ? nan : exp2_fast(high);
        const bool reaches = real[j] && sequence == sequences;
        to.tail[s] = !reaches ? -1.0f : upto_here < numberless ? nan : exp2_fast(static_cast<float>(end - upto[j]));
        to.sequence[s] = real[j] ? sequence : -1;
        to.crossed[s] = upto_here;
    }
    if (lane == 0) {
        to.through = sequences != 0 ? -1.0f : numberless > 0 ? nan : exp2_fast(static_cast<float>(end));
        to.cut = packed || left < ssd_piece;
        to.odd = numberless;
    }
}

/// ddelta, and a chunk's share of dA and ddelta_bias: a warp a chunk and head, two tokens a lane.
template <class T>
__global__ void __launch_bounds__(128) ssd_backward_finish_kernel(const __grid_constant__ ssd_backward_args<T> a,
                                                                  const __grid_constant__ ssd_backward_plan plan)
{
    const ssd_args<T>& f = a.forward;
    const index nheads = f.u.extent(2), task = blockIdx.x * index{4} + threadIdx.x / 32;
    if (task >= plan.slots * nheads) return;
    const int lane = threadIdx.x % 32;
    const index head = task % nheads, slot = task / nheads;
    const ssd_backward_place at(f, plan, slot);
    const ssd_sequence place(f, at.sequence);
    const index first = at.chunk * ssd_piece, left = place.length() - first;
    const float rate = f.A[head], bias = f.delta_bias.data() ? f.delta_bias[head] : 0.0f;
    const bool matters = f.u.extent(3) * f.B.extent(3) > 0;  // there is a state that the step changes
    float dA = 0, dbias = 0;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int i = 2 * lane + j;
        if (i >= left) continue;
        const index t = place.token(first + i);
        float ddelta = 0;
        if (matters && !(f.seq_idx.data() && f.seq_idx(place.row, t) < 0)) {
            float direct = 0, decayed = 0;
            for (index strip = 0; strip < plan.strips; ++strip) {
                const float2 d = plan.dsteps[(slot * plan.units + head * plan.strips + strip) * ssd_piece + i];
                direct += d.x, decayed += d.y;
            }
            const float raw = widened(f.delta(place.row, t, head)) + bias, r = f.delta_softplus ? softplus(raw) : raw;
            const float delta = r < f.delta_min ? f.delta_min : r > f.delta_max ? f.delta_max : r;
            if (f.prescaled) direct = 0;
            if (decayed != 0.0f) direct = fmaf(rate, decayed, direct), dA += delta * decayed;
            if (!(r < f.delta_min || r > f.delta_max)) {
                ddelta = f.delta_softplus ? __fdividef(direct, 1.0f + exp2_fast(-fmaxf(raw, -87.0f) * log2_e)) : direct;
            }
            if (raw != raw) ddelta = raw;
        }
        if (a.ddelta.data()) a.ddelta(place.row, t, head) = narrowed<T>(ddelta);
        dbias += ddelta;
    }
    for (int distance = 16; distance > 0; distance /= 2) {
        dA += __shfl_xor_sync(0xffffffffu, dA, distance);
        dbias += __shfl_xor_sync(0xffffffffu, dbias, distance);
    }
    if (lane == 0) {
        plan.dA[head * plan.slots + slot] = dA;
        plan.ddelta_bias[head * plan.slots + slot] = dbias;
    }
}

/// Sums over chunks: a block for each head's dA and ddelta_bias, then one for each element of dD.
template <class T>
__global__ void __launch_bounds__(128) ssd_backward_parameters_kernel(const __grid_constant__ ssd_backward_args<T> a,
                                                                      const __grid_constant__ ssd_backward_plan plan)
{
    __shared__ float sums[128];
    const index nheads = a.forward.u.extent(2), headdim = a.forward.u.extent(3);
    const auto total = [&](index count, auto&& value) {  // the same tree whatever the device does
        float sum = 0;
        for (index i = threadIdx.x; i < count; i += 128) sum += value(i);
        __syncthreads();
        sums[threadIdx.x] = sum;
        for (int half = 64; half > 0; half /= 2) {
            __syncthreads();
            if (static_cast<int>(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        __syncthreads();
        return sums[0];
    };
    index block = blockIdx.x;
    if (block < nheads) {
        const float dA = total(plan.slots, [&](index i) { return plan.dA[block * plan.slots + i]; });
        const float dbias = total(plan.slots, [&](index i) { return plan.ddelta_bias[block * plan.slots + i]; });
        if (threadIdx.x == 0 && a.dA.data()) a.dA[block] = dA;
        if (threadIdx.x == 0 && a.ddelta_bias.data()) a.ddelta_bias[block] = dbias;
        return;
    }
    block -= nheads;
    const index channels = a.dD.stride(1) == 0 ? 1 : headdim;  // distinct ones
    const index head = block / channels, channel = block % channels;
    const index heads = a.dD.stride(0) == 0 ? nheads : 1, across = a.dD.stride(1) == 0 ? headdim : 1;  // that are summed
    const float dD = total(heads * across * plan.slots, [&](index i) {
        const index h = head + i / (across * plan.slots), c = channel + i / plan.slots % across;
        return plan.dD[((h * plan.strips + c / ssd_piece) * ssd_piece + c % ssd_piece) * plan.slots + i % plan.slots];
    });
    if (threadIdx.x == 0) a.dD(head, channel) = dD;
}

/// dB and dC: a thread an element adds up parts, and what lies along axes of stride 0.
template <class T>
__global__ void __launch_bounds__(128) ssd_backward_maps_kernel(const __grid_constant__ ssd_backward_args<T> a,
                                                                const __grid_constant__ ssd_backward_plan plan)
{
    const view<float, 4>& to = blockIdx.y == 0 ? a.dB : a.dC;
    if (to.data() == nullptr) return;
    const float* const from = blockIdx.y == 0 ? plan.dB : plan.dC;
    const index batch = to.extent(0), length = to.extent(1), groups = to.extent(2), state = to.extent(3);
    const auto distinct = [&](int axis) { return to.stride(axis) == 0 ? index{1} : to.extent(axis); };
    const index row = plan.state_strips * ssd_backward_strip<T>, part = batch * length * groups * row;
    for (index i = blockIdx.x * index{128} + threadIdx.x; i < distinct(0) * distinct(1) * distinct(2) * state;
         i += gridDim.x * index{128}) {
        const index n = i % state, g = i / state % distinct(2), t = i / state / distinct(2) % distinct(1);
        const index b = i / state / distinct(2) / distinct(1);
        float sum = 0;
        for (index at_b = b; at_b < batch; at_b += distinct(0)) {
            for (index at_t = t; at_t < length; at_t += distinct(1)) {
                for (index at_g = g; at_g < groups; at_g += distinct(2)) {
                    const float* const at = from + ((at_b * length + at_t) * groups + at_g) * row + n;
                    for (index p = 0; p < plan.parts; ++p) sum += at[p * part];
                }
            }
        }
        to(b, t, g, n) = sum;
    }
}

}  // namespace ssmkit::cuda::detail
