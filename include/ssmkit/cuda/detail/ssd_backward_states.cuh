#pragma once

// The states before each chunk, and the gradients of the states behind each: a block walks along the chunks of 64 channels, either way.

#include <ssmkit/cuda/detail/ssd_backward_steps.cuh>

namespace ssmkit::cuda::detail {

/// dp = dy silu(z).
template <class T>
__device__ __forceinline__ float ssd_gated(const ssd_args<T>& f, index b, index t, index head, index channel, float dy)
{
    return channel < f.u.extent(3) ? dy * silu(widened(f.z(b, t, head, channel))) : 0.0f;
}

template <class T, int N>
struct ssd_walk_tiles {
    using element = typename ssd_products<T>::element;
    static constexpr int stages = sizeof(element) == 2 ? 2 : 1;
    static constexpr int x_row = ssd_piece + 8, w_row = N + 8, w_at = ssd_piece * x_row, stage = w_at + ssd_piece * w_row;
    static constexpr int elements = stages * stage;
    static constexpr int bytes = elements * static_cast<int>(sizeof(element)) + stages * static_cast<int>(sizeof(ssd_backward_steps));
};

/// Forwards: H = (decay of the chunk) H + Σ_j e_j κ_j u_j ⊗ B_j, from the initial state on. Backwards, from the final state's gradient
/// on: R = (decay of the chunk) R + Σ_i s_i dp_i ⊗ C_i. The two differ in their arguments only. What is met before a chunk is kept,
/// as the products that follow want it. `summary`: one segment from zero, whose end is kept instead.
///
/// What bounds it is memory: states go out with twice the elements that inputs come in with.
template <class T, int N>
__global__ void __launch_bounds__(ssd_threads, 3) ssd_backward_states_kernel(const __grid_constant__ ssd_backward_args<T> a,
                                                                             const __grid_constant__ ssd_backward_plan plan, bool summary)
{
    using products = ssd_products<T>;
    using tiles = ssd_walk_tiles<T, N>;
    using element = typename tiles::element;
    constexpr int depth = products::depth, state_tiles = N / 8, terms = ssd_piece / depth;
    extern __shared__ float4 shared_memory[];
    element* const memory = reinterpret_cast<element*>(shared_memory);
    ssd_backward_steps* const all_steps = reinterpret_cast<ssd_backward_steps*>(memory + tiles::elements);

    const ssd_args<T>& f = a.forward;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = lane / 4, pair = lane % 4 * 2;
    const index nheads = f.u.extent(2), headdim = f.u.extent(3), state = f.B.extent(3);
    const index segments = summary ? plan.segments - 1 : plan.segments;
    index rest = blockIdx.x;
    const index unit = rest % plan.units;
    rest /= plan.units;
    const bool adjoint = rest % 2 != 0;
    rest /= 2;
    const index strip = rest % plan.state_strips;
    rest /= plan.state_strips;
    const index segment = rest % segments, sequence = rest / segments;
    const index row = ((sequence * plan.state_strips + strip) * 2 + adjoint) * plan.units + unit;
    const index head = unit / plan.strips, p0 = unit % plan.strips * ssd_piece, n0 = strip * N, group = head / (nheads / f.B.extent(2));
    const ssd_sequence place(f, sequence);
    const index b = place.row, way = f.reverse ? -1 : 1, length = place.length(), chunks = ssd_chunk_count(length, ssd_piece);
    const index begin = segment * plan.segment_chunks, end = segment + 1 == plan.segments ? chunks : min(chunks, begin + plan.segment_chunks);
    const index first_slot = ssd_backward_first_slot(f, plan, sequence);
    const view<const T, 4>& xs = adjoint ? a.dy : f.u;
    const view<const T, 4>& ws = adjoint ? f.C : f.B;
    const bool vector_x = adjoint ? plan.vector_dy : plan.vector_u, vector_w = adjoint ? plan.vector_C : plan.vector_B;

    // ---- the state: row own (+ 8) of the warp's 16 channels, columns pair, pair + 1 of each tile -------------------------------
    float h[state_tiles][4];
    const auto each_state = [&](const view<float, 4>& of, auto&& take) {
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const index p = p0 + 16 * warp + own + c / 2 * 8, at = n0 + 8 * n + pair + c % 2;
                if (p < headdim && at < state) take(of(sequence, head, p, at), h[n][c]);
            }
        }
    };
#pragma unroll
    for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
        for (int c = 0; c < 4; ++c) h[n][c] = 0;
    }
    if (!summary) {
        const view<const float, 4>& given = adjoint ? a.dfinal_state : f.initial_state;
        if (given.data()) {
            const view<float, 4> from(const_cast<float*>(given.data()), given.extents(), given.strides());
            each_state(from, [](const float& x, float& to) { to = x; });
        }
        for (index k = 0; k < segment; ++k) {
            const float decay = plan.decays[row * plan.segments + k];
            const float4* const part =
                reinterpret_cast<const float4*>(plan.summaries) + (row * plan.segments + k) * (state_tiles * ssd_threads) + threadIdx.x;
#pragma unroll
            for (int n = 0; n < state_tiles; ++n) {
                const float4 q = part[n * ssd_threads];
                const float from_zero[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
                for (int c = 0; c < 4; ++c) h[n][c] = decay < 0 ? from_zero[c] : fmaf(decay, h[n][c], from_zero[c]);
            }
        }
    }

    const auto chunk_of = [&](index visit) { return adjoint ? chunks - 1 - visit : visit; };
    const auto load = [&](index visit, int stage) {
        const index chunk = chunk_of(visit), first = chunk * ssd_piece, left = length - first, t = place.token(first);
        element* const to = memory + stage * tiles::stage;
        ssd_load<ssd_piece, padded_tile<tiles::x_row>>(to, xs.pointer(b, t, head, p0), way * xs.stride(1), xs.stride(3), left, headdim - p0, vector_x);
        if (state > 0) {
            ssd_load<N, padded_tile<tiles::w_row>>(to + tiles::w_at, ws.pointer(b, t, group, n0), way * ws.stride(1), ws.stride(3), left, state - n0,
                                      vector_w);
        } else {
            for (int i = threadIdx.x; i < ssd_piece * N; i += ssd_threads) to[tiles::w_at + i / N * tiles::w_row + i % N] = element{};
        }
        const char* const from = reinterpret_cast<const char*>(plan.steps + (first_slot + chunk) * nheads + head);
        for (int i = threadIdx.x * 16; i < static_cast<int>(sizeof(ssd_backward_steps)); i += ssd_threads * 16) {
            copy_async(reinterpret_cast<char*>(all_steps + stage) + i, from + i, true);
        }
        commit_copies();
    };
    if (tiles::stages == 2 && begin < end) load(begin, 0);
    float total = 1;
    for (index visit = begin; visit < end; ++visit) {
        const int stage = tiles::stages == 2 ? static_cast<int>((visit - begin) % 2) : 0;
        if (tiles::stages == 1) {
            __syncthreads();  // all are done with the tokens before
            load(visit, 0);
        }
        wait_for_copies();
        __syncthreads();
        if (tiles::stages == 2 && visit + 1 < end) load(visit + 1, stage ^ 1);
        element* const x = memory + stage * tiles::stage;
        element* const w = x + tiles::w_at;
        const ssd_backward_steps& now = all_steps[stage];
        const index chunk = chunk_of(visit), first = chunk * ssd_piece, left = length - first;

        if ((adjoint && f.z.data()) || now.cut) {  // what must not reach the state is not even multiplied by zero
            const float* const reaching = adjoint ? now.in : now.tail;
            for (int i = threadIdx.x; i < ssd_piece * ssd_piece; i += ssd_threads) {
                const int t = i / ssd_piece, p = i % ssd_piece;
                element& cell = x[t * tiles::x_row + p];
                if (reaching[t] < 0) {
                    cell = element{};
                } else if (adjoint && f.z.data() && t < left) {
                    cell = narrowed<element>(ssd_gated(f, b, place.token(first + t), head, p0 + p, widened(cell)));
                }
            }
            for (int i = threadIdx.x; i < ssd_piece * N; i += ssd_threads) {
                if (reaching[i / N] < 0) w[i / N * tiles::w_row + i % N] = element{};
            }
            __syncthreads();
        }

        if (!summary) {
            const index slot = first_slot + chunk;
            element* const to = static_cast<element*>(plan.states) +
                                (((adjoint * plan.slots + slot) * plan.units + unit) * plan.state_strips + strip) * (ssd_piece * N) +
                                (16 * warp + own) * N;
            if constexpr (sizeof(element) == 2) {  // two lanes change halves, so that rows go out 32 bytes at a time
                const bool odd = lane % 2 != 0;
#pragma unroll
                for (int n = 0; n < state_tiles; n += 2) {
#pragma unroll
                    for (int r = 0; r < 2; ++r) {
                        const std::uint32_t here = products::pack(h[n][2 * r], h[n][2 * r + 1]);
                        const std::uint32_t next = products::pack(h[n + 1][2 * r], h[n + 1][2 * r + 1]);
                        const std::uint32_t other = __shfl_xor_sync(0xffffffffu, odd ? here : next, 1);
                        const uint2 out = odd ? make_uint2(other, next) : make_uint2(here, other);
                        *reinterpret_cast<uint2*>(to + 8 * r * N + 8 * (n + odd) + pair / 4 * 4) = out;
                    }
                }
            } else {
#pragma unroll
                for (int n = 0; n < state_tiles; ++n) {
                    *reinterpret_cast<float2*>(to + 8 * n + pair) = make_float2(h[n][0], h[n][1]);
                    *reinterpret_cast<float2*>(to + 8 * N + 8 * n + pair) = make_float2(h[n][2], h[n][3]);
                }
            }
        }

        const float through = now.through;
        total = total < 0 || through < 0 ? -1.0f : total * through;
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) h[n][c] = through < 0 ? 0.0f : h[n][c] * through;
        }
#pragma unroll
        for (int k = 0; k < terms; ++k) {
            const left_operand s = products::map(products::left_columns(x, tiles::x_row, 16 * warp, k * depth, lane), lane,
                                                 [&](float v, int at) {
                                                     const int t = k * depth + at;
                                                     const float weight = adjoint ? now.in[t] : now.tail[t] * now.step[t];
                                                     return (adjoint ? weight : now.tail[t]) < 0 ? 0.0f : v * weight;
                                                 });
#pragma unroll
            for (int n = 0; n < state_tiles / 2; ++n) {
                products::multiply(h[2 * n], h[2 * n + 1], s, products::right_columns(w, tiles::w_row, 16 * n, k * depth, lane));
            }
        }
    }

    if (summary) {
        float4* const to =
            reinterpret_cast<float4*>(plan.summaries) + (row * plan.segments + segment) * (state_tiles * ssd_threads) + threadIdx.x;
#pragma unroll
        for (int n = 0; n < state_tiles; ++n) to[n * ssd_threads] = make_float4(h[n][0], h[n][1], h[n][2], h[n][3]);
        if (threadIdx.x == 0) plan.decays[row * plan.segments + segment] = total;
    } else if (adjoint && a.dinitial_state.data() && segment + 1 == segments) {
        each_state(a.dinitial_state, [](float& to, const float& from) { to = from; });
    }
}

}  // namespace ssmkit::cuda::detail
