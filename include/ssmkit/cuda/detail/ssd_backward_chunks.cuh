#pragma once

// The gradients of a chunk's tokens, once the states before it and the gradients behind it are known.

#include <ssmkit/cuda/detail/ssd_backward_states.cuh>

namespace ssmkit::cuda::detail {

inline constexpr int ssd_gradient_threads = 512;

/// What warps hand to the one that adds a chunk's sums up.
struct ssd_gradient_sums {
    float direct[4][ssd_piece];           // u·w: from each 16 channels
    float later[4][ssd_piece];            // s_i dp_i·(S C_i): from each quarter of the states
    float earlier[4][ssd_piece];          // e_j κ_j u_j·(R B_j)
    float dD[4][ssd_piece];               // from each 16 tokens, for each channel
    float rows[16][16], columns[16][16];  // of pairs of 16 tokens each: sums from a row on, sums before a column
    float pairs[16];                      // all of them
    float within[ssd_piece];              // of 16 tokens with themselves
    float across[16];                     // <R, S>: from each warp
    float through;
};

template <class T, int N>
struct ssd_gradient_tiles {
    using element = typename ssd_products<T>::element;
    static constexpr int x_row = ssd_piece + 8, w_row = N + 8, h_row = N + 8;
    static constexpr int B_at = 0, C_at = ssd_piece * w_row, M_at = 2 * ssd_piece * w_row, stage_at = M_at + ssd_piece * x_row;
    static constexpr int u_at = 0, dp_at = ssd_piece * x_row, S_at = 2 * ssd_piece * x_row, R_at = S_at + ssd_piece * h_row;
    static constexpr int stage = R_at + ssd_piece * h_row;
    static constexpr int square = 16 * 17;  // of pairs of 16 tokens, for each of four warps
    static constexpr int bytes(int stages)
    {
        return (stage_at + stages * stage) * static_cast<int>(sizeof(element)) + stages * static_cast<int>(sizeof(ssd_backward_steps)) +
               2 * static_cast<int>(sizeof(ssd_gradient_sums)) + 4 * square * static_cast<int>(sizeof(float));
    }
};

/// Two neighbours, the first at an even place.
template <class E>
__device__ __forceinline__ float2 ssd_two(const E* at)
{
    if constexpr (sizeof(E) == 2) {
        const std::uint32_t both = *reinterpret_cast<const std::uint32_t*>(at);
        return make_float2(bfloat16_products::low(both), bfloat16_products::high(both));
    } else {
        return *reinterpret_cast<const float2*>(at);
    }
}

/// A warp's sum of what its lanes have.
__device__ __forceinline__ float ssd_warp_sum(float x)
{
    for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

/// The sums of a chunk, by one warp, two tokens a lane; no term is a difference:
///     dα_t = Σ_{i >= t} s_i dp_i·(S C_i) + s_last <R, S> + Σ_{j < t} e_j κ_j u_j·(R B_j) + Σ_{i >= t > j} F_ij C_i·B_j
__device__ __forceinline__ void ssd_add_up(const ssd_gradient_sums& s, float2* dsteps, float* dD, index slots, int lane)
{
    constexpr unsigned all = 0xffffffffu;
    float later[2], earlier[2], direct[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int t = 2 * lane + j;
        later[j] = (s.later[0][t] + s.later[1][t]) + (s.later[2][t] + s.later[3][t]);
        earlier[j] = (s.earlier[0][t] + s.earlier[1][t]) + (s.earlier[2][t] + s.earlier[3][t]);
        direct[j] = (s.direct[0][t] + s.direct[1][t]) + (s.direct[2][t] + s.direct[3][t]);
        dD[t * slots] = (s.dD[0][t] + s.dD[1][t]) + (s.dD[2][t] + s.dD[3][t]);
    }
    float from = later[0] + later[1], upto = earlier[0] + earlier[1];
    for (int distance = 1; distance < 32; distance *= 2) {
        const float behind = __shfl_down_sync(all, from, distance), before = __shfl_up_sync(all, upto, distance);
        if (lane + distance < 32) from += behind;
        if (lane >= distance) upto += before;
    }
    float behind = __shfl_down_sync(all, from, 1), before = __shfl_up_sync(all, upto, 1);
    if (lane == 31) behind = 0;
    if (lane == 0) before = 0;
    const float sum_later[2] = {(behind + later[1]) + later[0], behind + later[1]}, sum_earlier[2] = {before, before + earlier[0]};
    float across = 0;
    if (!(s.through < 0)) across = s.through * ssd_warp_sum(lane < 16 ? s.across[lane] : 0.0f);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        const int t = 2 * lane + j, tile = t / 16, in_tile = t % 16;
        float pairs = s.within[t];
        for (int i = tile + 1; i < 4; ++i) {
            pairs += s.columns[4 * i + tile][in_tile];
            for (int k = 0; k < tile; ++k) pairs += s.pairs[4 * i + k];
        }
        for (int k = 0; k < tile; ++k) pairs += s.rows[4 * tile + k][in_tile];
        dsteps[t] = make_float2(direct[j], (sum_later[j] + sum_earlier[j]) + (across + pairs));
    }
}

/// A block has a chunk and some units of a group, one after the other; 16 warps, of which each has 16 rows of every product: with the
/// names of the gradient's header on the CPU, E_ij the decay from token j to token i,
///
///     M_ij  = E_ij C_i·B_j                                  F_ij = E_ij κ_j dp_i·u_j, summed over the units before it meets B and C
///     w_j   = Σ_{i >= j} M_ij dp_i + e_j R B_j              du_j = D dp_j + κ_j w_j
///     dC_i  = s_i S^T dp_i + Σ_{j <= i} F_ij B_j            dB_j = e_j κ_j R^T u_j + Σ_{i >= j} F_ij C_i
///
/// C B^T is found once. With more states than a strip has (Several), there is one unit a block, B and C come strip by strip.
///
/// What bounds it is shared memory, out of which the tensor cores are fed (every operand of 16 x 16 is read for two instructions of
/// them or four), and the two states a chunk that come from memory.
template <class T, int N, bool Several>
__global__ void __launch_bounds__(ssd_gradient_threads, 1)
    ssd_backward_chunks_kernel(const __grid_constant__ ssd_backward_args<T> a, const __grid_constant__ ssd_backward_plan plan)
{
    using products = ssd_products<T>;
    using tiles = ssd_gradient_tiles<T, N>;
    using element = typename tiles::element;
    constexpr int depth = products::depth, threads = ssd_gradient_threads;
    constexpr int x_row = tiles::x_row, w_row = tiles::w_row, h_row = tiles::h_row;
    constexpr int columns = N / 4, column_tiles = columns / 16;  // of states: a warp's
    extern __shared__ float4 shared_memory[];
    element* const memory = reinterpret_cast<element*>(shared_memory);
    element *const B = memory + tiles::B_at, *const C = memory + tiles::C_at, *const M = memory + tiles::M_at;
    element* const stages = memory + tiles::stage_at;
    ssd_backward_steps* const all_steps = reinterpret_cast<ssd_backward_steps*>(stages + plan.stages * tiles::stage);
    ssd_gradient_sums* const all_sums = reinterpret_cast<ssd_gradient_sums*>(all_steps + plan.stages);
    float* const squares = reinterpret_cast<float*>(all_sums + 2);

    const ssd_args<T>& f = a.forward;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, own = lane / 4, pair = lane % 4 * 2;
    const int ti = warp / 4, tj = warp % 4;  // the warp's 16 rows, and its 16 columns or quarter of the states
    const index nheads = f.u.extent(2), headdim = f.u.extent(3), state = f.B.extent(3), groups = f.B.extent(2);
    const index part = blockIdx.x % plan.parts, group = blockIdx.x / plan.parts % groups, slot = blockIdx.x / plan.parts / groups;
    const int first_unit = static_cast<int>(group * plan.group_units + part * plan.part_units);
    const int units = static_cast<int>(min(plan.part_units, (group + 1) * plan.group_units - first_unit));
    const int state_strips = Several ? static_cast<int>(plan.state_strips) : 1, strips = static_cast<int>(plan.strips);
    const ssd_backward_place at(f, plan, slot);
    const ssd_sequence place(f, at.sequence);
    const index b = place.row, way = f.reverse ? -1 : 1, first = at.chunk * ssd_piece;
    const index behind = place.length() - first;
    const int left = static_cast<int>(min(behind, index{ssd_piece}));
    if (left <= 0) {  // a slot that stays empty
        for (int i = threadIdx.x; i < units * ssd_piece; i += threads) {
            plan.dD[(first_unit * index{ssd_piece} + i) * plan.slots + slot] = 0;
        }
        return;
    }
    const index t0 = place.token(first);
    const bool from_state = at.chunk > 0 || f.initial_state.data() != nullptr;
    const bool to_state = behind > ssd_piece || a.dfinal_state.data() != nullptr;
    const bool packed = f.seq_idx.data() != nullptr, gated = f.z.data() != nullptr, gate_gradient = a.dz.data() != nullptr;
    const auto token = [&](int i) { return place.token(first + i); };

    const auto load_maps = [&](int strip) {
        const auto one = [&](const view<const T, 4>& from, element* to, bool vectors) {
            if (state > 0) {
                ssd_load<N, padded_tile<w_row>, threads>(to, from.pointer(b, t0, group, strip * N), way * from.stride(1), from.stride(3), left,
                                            state - strip * N, vectors);
            } else {
                for (int i = threadIdx.x; i < ssd_piece * N; i += threads) to[i / N * w_row + i % N] = element{};
            }
        };
        one(f.B, B, plan.vector_B);
        one(f.C, C, plan.vector_C);
    };
    const auto leave_out_padding = [&] {  // of B and C
        for (int i = threadIdx.x; packed && i < ssd_piece * N; i += threads) {
            if (i / N >= left || f.seq_idx(b, token(i / N)) >= 0) continue;
            B[i / N * w_row + i % N] = element{};
            C[i / N * w_row + i % N] = element{};
        }
    };
    const auto load_unit = [&](int item, int stage) {
        const int unit = first_unit + item / state_strips, strip = item % state_strips;
        const int head = unit / strips, p0 = unit % strips * ssd_piece;
        element* const to = stages + stage * tiles::stage;
        ssd_load<ssd_piece, padded_tile<x_row>, threads>(to + tiles::u_at, f.u.pointer(b, t0, head, p0), way * f.u.stride(1), f.u.stride(3), left,
                                            headdim - p0, plan.vector_u);
        ssd_load<ssd_piece, padded_tile<x_row>, threads>(to + tiles::dp_at, a.dy.pointer(b, t0, head, p0), way * a.dy.stride(1), a.dy.stride(3), left,
                                            headdim - p0, plan.vector_dy);
        const element* const states = static_cast<const element*>(plan.states);
        const index one = (slot * plan.units + unit) * plan.state_strips + strip;
        const index half = plan.slots * plan.units * plan.state_strips;
        if (from_state) {
            ssd_load<N, padded_tile<h_row>, threads>(to + tiles::S_at, states + one * (ssd_piece * N), N, 1, ssd_piece, N, true);
        }
        if (to_state) {
            ssd_load<N, padded_tile<h_row>, threads>(to + tiles::R_at, states + (half + one) * (ssd_piece * N), N, 1, ssd_piece, N, true);
        }
        const char* const from = reinterpret_cast<const char*>(plan.steps + slot * nheads + head);
        for (int i = threadIdx.x * 16; i < static_cast<int>(sizeof(ssd_backward_steps)); i += threads * 16) {
            copy_async(reinterpret_cast<char*>(all_steps + stage) + i, from + i, true);
        }
        commit_copies();
    };

    // ---- C B^T: tokens 16 ti on and those before them, 16 tj on ----------------------------------------------------------------
    float cb[2][4] = {};
    const int items = units * state_strips;
    for (int strip = 0; strip < state_strips; ++strip) {
        if (strip > 0) __syncthreads();
        load_maps(strip);
        commit_copies();
        wait_for_copies();
        __syncthreads();
        if (packed) {
            leave_out_padding();
            __syncthreads();
        }
        if (strip + 1 == state_strips && plan.stages == 2) load_unit(0, 0);
        if (tj > ti) continue;
#pragma unroll 4
        for (int k = 0; k < N; k += depth) {
            products::multiply(cb[0], cb[1], products::left_rows(C, w_row, 16 * ti, k, lane),
                               products::right_rows(B, w_row, 16 * tj, k, lane));
        }
    }

    const int row[2] = {16 * ti + own, 16 * ti + own + 8};
    float F[2][4] = {};                                       // summed over the units
    float dB[2 * column_tiles][4] = {}, dC[2 * column_tiles][4] = {};
    float w[2][4], p[2][4];                                   // tokens 16 ti on, channels 16 tj on
    float later[2] = {0, 0}, earlier[2] = {0, 0}, across = 0;
    const auto has_nan = [](const auto& s) {
        float sum = 0;
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof(s) / sizeof(s[0])); ++i) sum += (s[i][0] + s[i][1]) + (s[i][2] + s[i][3]);
        return __any_sync(0xffffffffu, sum != sum) != 0;
    };
    /// Products with zeros turn a NaN into one where it does not belong: where there is one, once more over pairs that there are.
    const auto exactly = [&](auto& s, int column0, const element* tile, int tile_row, bool from_later, const ssd_backward_steps& now,
                             bool scaled) {
#pragma unroll
        for (int n = 0; n < static_cast<int>(sizeof(s) / sizeof(s[0])); ++n) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                const int r = row[c / 2], column = column0 + 8 * n + pair + c % 2;
                float sum = 0;
#pragma unroll 1
                for (int k = from_later ? r : 0; k < (from_later ? ssd_piece : r + 1); ++k) {
                    if (now.cut && (now.sequence[r] < 0 || now.sequence[r] != now.sequence[k])) continue;
                    const float m = widened(from_later ? M[k * x_row + r] : M[r * x_row + k]);
                    sum = fmaf(scaled ? m * now.step[k] : m, widened(tile[k * tile_row + column]), sum);
                }
                s[n][c] = sum;
            }
        }
    };
    /// dB and dC of the block's units, or of a strip of states of its unit.
    const auto finish_maps = [&](int strip, const ssd_backward_steps& now) {
        __syncthreads();  // all are done with M
        if (tj <= ti) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                products::store_two(M + row[0] * x_row + 16 * tj + 8 * h + pair, F[h][0], F[h][1]);
                products::store_two(M + row[1] * x_row + 16 * tj + 8 * h + pair, F[h][2], F[h][3]);
            }
        }
        __syncthreads();
        const auto add = [&](float (&to)[2 * column_tiles][4], const element* tile, bool from_later) {
            float s[2 * column_tiles][4] = {};
            for (int k = from_later ? 16 * ti : 0; k < (from_later ? ssd_piece : 16 * ti + 16); k += depth) {
                const left_operand x = from_later ? products::left_columns(M, x_row, 16 * ti, k, lane)
                                                  : products::left_rows(M, x_row, 16 * ti, k, lane);
#pragma unroll
                for (int n = 0; n < column_tiles; ++n) {
                    products::multiply(s[2 * n], s[2 * n + 1], x, products::right_columns(tile, w_row, columns * tj + 16 * n, k, lane));
                }
            }
            if (has_nan(s)) exactly(s, columns * tj, tile, w_row, from_later, now, false);
#pragma unroll
            for (int n = 0; n < 2 * column_tiles; ++n) {
#pragma unroll
                for (int c = 0; c < 4; ++c) to[n][c] += s[n][c];
            }
        };
        add(dB, C, true);
        add(dC, B, false);
        const index wide = plan.state_strips * N;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            if (row[r] >= left) continue;
            const bool there = now.sequence[row[r]] >= 0;
            const index to = ((part * f.u.extent(0) * f.u.extent(1) + b * f.u.extent(1) + token(row[r])) * groups + group) * wide +
                             strip * N + columns * tj + pair;
#pragma unroll
            for (int n = 0; n < 2 * column_tiles; ++n) {
                const float2 zero = make_float2(0, 0);
                if (a.dB.data()) {
                    *reinterpret_cast<float2*>(plan.dB + to + 8 * n) = there ? make_float2(dB[n][2 * r], dB[n][2 * r + 1]) : zero;
                }
                if (a.dC.data()) {
                    *reinterpret_cast<float2*>(plan.dC + to + 8 * n) = there ? make_float2(dC[n][2 * r], dC[n][2 * r + 1]) : zero;
                }
            }
        }
    };
    const auto add_up = [&](int item) {  // of the last strip of a unit
        const index unit = first_unit + item / state_strips;
        ssd_add_up(all_sums[item / state_strips % 2], plan.dsteps + (slot * plan.units + unit) * ssd_piece, plan.dD + unit * ssd_piece * plan.slots + slot,
                   plan.slots, lane);
    };
    const auto last_strip = [&](int item) { return item % state_strips == state_strips - 1; };

    for (int item = 0; item < items; ++item) {
        const int stage = plan.stages == 2 ? item % 2 : 0;
        const int strip = item % state_strips, unit = first_unit + item / state_strips;
        const int head = unit / strips, p0 = unit % strips * ssd_piece;
        if (Several || plan.stages == 1) __syncthreads();  // all are done with what lies there
        if (Several) {
            load_maps(strip);
            commit_copies();
        }
        if (plan.stages == 1) load_unit(item, 0);
        wait_for_copies();
        __syncthreads();
        if (plan.stages == 2 && item + 1 < items) load_unit(item + 1, stage ^ 1);
        element *const u = stages + stage * tiles::stage + tiles::u_at, *const dp = stages + stage * tiles::stage + tiles::dp_at;
        const element *const S = u + tiles::S_at, *const R = u + tiles::R_at;
        const ssd_backward_steps& now = all_steps[stage];
        ssd_gradient_sums& sums = all_sums[item / state_strips % 2];
        if (warp == 3 && item > 0 && last_strip(item - 1)) add_up(item - 1);  // it has no pairs below
        if (gated || packed) {
            for (int i = threadIdx.x; i < ssd_piece * ssd_piece; i += threads) {
                const int t = i / ssd_piece, c = i % ssd_piece;
                if (now.sequence[t] < 0) {
                    u[t * x_row + c] = dp[t * x_row + c] = element{};
                } else if (gated) {
                    element& cell = dp[t * x_row + c];
                    cell = narrowed<element>(ssd_gated(f, b, token(t), head, p0 + c, widened(cell)));
                }
            }
            if (Several && packed) leave_out_padding();
            __syncthreads();
        }

        // ---- pairs of tokens ---------------------------------------------------------------------------------------------------
        if (strip == 0 && tj <= ti) {
            float g[2][4] = {};
#pragma unroll
            for (int k = 0; k < ssd_piece; k += depth) {
                products::multiply(g[0], g[1], products::left_rows(dp, x_row, 16 * ti, k, lane),
                                   products::right_rows(u, x_row, 16 * tj, k, lane));
            }
            const float high[2] = {now.high[row[0]], now.high[row[1]]}, low[2] = {now.low[row[0]], now.low[row[1]]};
            const int of[2] = {now.sequence[row[0]], now.sequence[row[1]]};
            float decay[2][4], step[2][2];  // without a branch: each would wait for the loads before it
            unsigned reaching = 0;
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int j = 16 * tj + 8 * h + pair;
                const float2 highs = *reinterpret_cast<const float2*>(now.high + j), lows = *reinterpret_cast<const float2*>(now.low + j);
                const float2 both = *reinterpret_cast<const float2*>(now.step + j);
                const int2 sequence = *reinterpret_cast<const int2*>(now.sequence + j);
                step[h][0] = both.x, step[h][1] = both.y;
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const int r = c / 2, that = c % 2 ? sequence.y : sequence.x;
                    const bool reaches = (j + c % 2 <= row[r]) & (of[r] >= 0) & (of[r] == that);
                    reaching |= static_cast<unsigned>(reaches) << (4 * h + c);
                    decay[h][c] = exp2_fast((high[r] - (c % 2 ? highs.y : highs.x)) + (low[r] - (c % 2 ? lows.y : lows.x)));
                }
            }
            if (now.odd) {
#pragma unroll
                for (int c = 0; c < 8; ++c) {
                    const int j = 16 * tj + 8 * (c / 4) + pair + c % 2;
                    if (now.crossed[row[c % 4 / 2]] != now.crossed[j]) decay[c / 4][c % 4] = __uint_as_float(0x7fffffffu);
                }
            }
            float q[2][4];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float m[4];
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const bool reaches = reaching >> (4 * h + c) & 1;
                    const float one = reaches ? decay[h][c] * step[h][c % 2] * g[h][c] : 0.0f;
                    m[c] = reaches ? decay[h][c] * cb[h][c] : 0.0f;
                    F[h][c] += one;
                    q[h][c] = reaches ? one * cb[h][c] : 0.0f;
                }
                products::store_two(M + row[0] * x_row + 16 * tj + 8 * h + pair, m[0], m[1]);
                products::store_two(M + row[1] * x_row + 16 * tj + 8 * h + pair, m[2], m[3]);
            }
            constexpr unsigned all = 0xffffffffu;
            if (ti == tj) {
                float* const square = squares + ti * tiles::square;
#pragma unroll
                for (int h = 0; h < 2; ++h) {
#pragma unroll
                    for (int c = 0; c < 4; ++c) square[(own + c / 2 * 8) * 17 + 8 * h + pair + c % 2] = q[h][c];
                }
                __syncwarp();
                const int t = lane % 16;
                float within = 0;
                for (int i = t + lane / 16; i < 16; i += 2) {
                    for (int j = 0; j < t; ++j) within += square[i * 17 + j];
                }
                within += __shfl_xor_sync(all, within, 16);
                if (lane < 16) sums.within[16 * ti + t] = within;
                __syncwarp();
            } else {
                float upper = (q[0][0] + q[0][1]) + (q[1][0] + q[1][1]), lower = (q[0][2] + q[0][3]) + (q[1][2] + q[1][3]);
                for (int distance = 1; distance < 4; distance *= 2) {
                    upper += __shfl_xor_sync(all, upper, distance);
                    lower += __shfl_xor_sync(all, lower, distance);
                }
                for (int distance = 4; distance < 32; distance *= 2) {  // from a row on
                    const float more_upper = __shfl_down_sync(all, upper, distance), more_lower = __shfl_down_sync(all, lower, distance);
                    if (lane + distance < 32) upper += more_upper, lower += more_lower;
                }
                upper += __shfl_sync(all, lower, 0);
                if (lane % 4 == 0) sums.rows[warp][own] = upper, sums.rows[warp][own + 8] = lower;
                if (lane == 0) sums.pairs[warp] = upper;
                float column[4];  // halves, neighbours
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    column[c] = q[c / 2][c % 2] + q[c / 2][c % 2 + 2];
                    for (int distance = 4; distance < 32; distance *= 2) column[c] += __shfl_xor_sync(all, column[c], distance);
                }
                float left_half = column[0] + column[1], right_half = column[2] + column[3];
                for (int distance = 1; distance < 4; distance *= 2) {
                    const float more_left = __shfl_up_sync(all, left_half, distance, 4);
                    const float more_right = __shfl_up_sync(all, right_half, distance, 4);
                    if (lane % 4 >= distance) left_half += more_left, right_half += more_right;
                }
                const float whole = __shfl_sync(all, left_half, 3, 4);
                float before_left = __shfl_up_sync(all, left_half, 1, 4), before_right = __shfl_up_sync(all, right_half, 1, 4);
                if (lane % 4 == 0) before_left = before_right = 0;
                before_right += whole;
                if (lane < 4) {
                    sums.columns[warp][pair] = before_left, sums.columns[warp][pair + 1] = before_left + column[0];
                    sums.columns[warp][8 + pair] = before_right, sums.columns[warp][9 + pair] = before_right + column[2];
                }
            }
        }

        // ---- the states' share of dC and dB, and of the decays' gradients -------------------------------------------------------
        if (strip == 0) later[0] = later[1] = earlier[0] = earlier[1] = across = 0;
        const auto from_states = [&](float (&to)[2 * column_tiles][4], float (&dots)[2], const element* x, const element* h,
                                     const element* with, bool behind) {
            float s[2 * column_tiles][4] = {};
#pragma unroll
            for (int k = 0; k < ssd_piece; k += depth) {
                const left_operand of = products::left_rows(x, x_row, 16 * ti, k, lane);
#pragma unroll
                for (int n = 0; n < column_tiles; ++n) {
                    products::multiply(s[2 * n], s[2 * n + 1], of, products::right_columns(h, h_row, columns * tj + 16 * n, k, lane));
                }
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float decay = behind ? now.tail[row[r]] : now.in[row[r]];
                const float weight = behind ? decay * now.step[row[r]] : decay;
                float dot = 0;
#pragma unroll
                for (int n = 0; n < 2 * column_tiles; ++n) {
                    const float2 map = ssd_two(with + row[r] * w_row + columns * tj + 8 * n + pair);
                    const float v0 = decay < 0 ? 0.0f : weight * s[n][2 * r], v1 = decay < 0 ? 0.0f : weight * s[n][2 * r + 1];
                    to[n][2 * r] += v0;
                    to[n][2 * r + 1] += v1;
                    dot = fmaf(v0, map.x, fmaf(v1, map.y, dot));
                }
                dots[r] += decay < 0 ? 0.0f : dot;
            }
        };
        if (from_state) from_states(dC, later, dp, S, C, false);
        if (to_state) from_states(dB, earlier, u, R, B, true);
        if (from_state && to_state) {
            for (int i = threadIdx.x * 2; i < ssd_piece * N; i += threads * 2) {
                const float2 s = ssd_two(S + i / N * h_row + i % N), r = ssd_two(R + i / N * h_row + i % N);
                across = fmaf(s.x, r.x, fmaf(s.y, r.y, across));
            }
        }
        __syncthreads();  // M is there

        // ---- y for the gate's gradient, and w: tokens 16 ti on, channels 16 tj on -------------------------------------------------
        const auto through_state = [&](float (&to)[2][4], const element* map, const element* h, const float* decays) {
            float s[2][4] = {};
#pragma unroll 4
            for (int k = 0; k < N; k += depth) {
                products::multiply(s[0], s[1], products::left_rows(map, w_row, 16 * ti, k, lane),
                                   products::right_rows(h, h_row, 16 * tj, k, lane));
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const float decay = decays[row[c / 2]];
                    to[n][c] += decay < 0 ? 0.0f : decay * s[n][c];
                }
            }
        };
        /// Calls take(n, r, channel, inputs, gradients of the outputs, skips) for each pair of neighbours that a lane has.
        const auto each_pair = [&](auto&& take) {
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const int channel = p0 + 16 * tj + 8 * n + pair;
                float2 skip = make_float2(0, 0);
                if (f.D.data() && channel < headdim) skip.x = f.D(head, channel);
                if (f.D.data() && channel + 1 < headdim) skip.y = f.D(head, channel + 1);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    const int cell = row[r] * x_row + 16 * tj + 8 * n + pair;
                    take(n, r, channel, ssd_two(u + cell), ssd_two(dp + cell), skip);
                }
            }
        };
        if (gate_gradient) {
            if (!Several || strip == 0) {
#pragma unroll
                for (int c = 0; c < 8; ++c) p[c / 4][c % 4] = 0;
                for (int k = 0; k < 16 * ti + 16; k += depth) {
                    const left_operand x = products::map(products::left_rows(M, x_row, 16 * ti, k, lane), lane,
                                                         [&](float m, int at_k) { return m * now.step[k + at_k]; });
                    products::multiply(p[0], p[1], x, products::right_columns(u, x_row, 16 * tj, k, lane));
                }
                if (has_nan(p)) exactly(p, 16 * tj, u, x_row, false, now, true);
            }
            if (from_state) through_state(p, C, S, now.in);
            if (last_strip(item)) {
                each_pair([&](int n, int r, int channel, float2 in, float2, float2 skip) {
                    if (row[r] >= left) return;
                    const index t = token(row[r]);
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
                        if (channel + c >= headdim) continue;
                        float dz = 0;
                        if (now.sequence[row[r]] >= 0) {
                            const float z = widened(f.z(b, t, head, channel + c)), dy = widened(a.dy(b, t, head, channel + c));
                            float y = p[n][2 * r + c];
                            if (f.D.data()) y = fmaf(c == 0 ? skip.x : skip.y, c == 0 ? in.x : in.y, y);
                            const float sigmoid = __fdividef(1.0f, 1.0f + exp2_fast(-fmaxf(z, -87.0f) * log2_e));
                            dz = dy * y * (sigmoid * fmaf(z, 1.0f - sigmoid, 1.0f));
                        }
                        a.dz(b, t, head, channel + c) = narrowed<T>(dz);
                    }
                });
            }
        }
        if (!Several || strip == 0) {
#pragma unroll
            for (int c = 0; c < 8; ++c) w[c / 4][c % 4] = 0;
            for (int k = 16 * ti; k < ssd_piece; k += depth) {
                products::multiply(w[0], w[1], products::left_columns(M, x_row, 16 * ti, k, lane),
                                   products::right_columns(dp, x_row, 16 * tj, k, lane));
            }
            if (has_nan(w)) exactly(w, 16 * tj, dp, x_row, true, now, false);
        }
        if (to_state) through_state(w, B, R, now.tail);

        if (last_strip(item)) {
            float direct[2] = {0, 0}, dD[2][2] = {};
            each_pair([&](int n, int r, int channel, float2 in, float2 dout, float2 skip) {
                const bool real = now.sequence[row[r]] >= 0;
                const float w0 = w[n][2 * r], w1 = w[n][2 * r + 1], step = now.step[row[r]];
                float du[2] = {step * w0, step * w1};
                if (f.D.data()) du[0] = fmaf(skip.x, dout.x, du[0]), du[1] = fmaf(skip.y, dout.y, du[1]);
                if (real) {
                    direct[r] = fmaf(in.x, w0, fmaf(in.y, w1, direct[r]));
                    dD[n][0] = fmaf(in.x, dout.x, dD[n][0]);
                    dD[n][1] = fmaf(in.y, dout.y, dD[n][1]);
                } else {
                    du[0] = du[1] = 0;
                }
                if (!a.du.data() || row[r] >= left || channel >= headdim) return;
                const index t = token(row[r]);
                if (plan.pairs_du) {
                    struct alignas(2 * sizeof(T)) two {
                        T v[2];
                    };
                    *reinterpret_cast<two*>(a.du.pointer(b, t, head, channel)) = {{narrowed<T>(du[0]), narrowed<T>(du[1])}};
                } else {
                    a.du(b, t, head, channel) = narrowed<T>(du[0]);
                    if (channel + 1 < headdim) a.du(b, t, head, channel + 1) = narrowed<T>(du[1]);
                }
            });
            across = ssd_warp_sum(across);
            if (lane == 0) sums.across[warp] = across;
            if (threadIdx.x == 0) sums.through = now.through;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                for (int distance = 1; distance < 4; distance *= 2) {
                    direct[r] += __shfl_xor_sync(0xffffffffu, direct[r], distance);
                    later[r] += __shfl_xor_sync(0xffffffffu, later[r], distance);
                    earlier[r] += __shfl_xor_sync(0xffffffffu, earlier[r], distance);
                }
                if (lane % 4 == 0) {
                    sums.direct[tj][row[r]] = direct[r];
                    sums.later[tj][row[r]] = later[r];
                    sums.earlier[tj][row[r]] = earlier[r];
                }
            }
#pragma unroll
            for (int n = 0; n < 2; ++n) {
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    for (int distance = 4; distance < 32; distance *= 2) dD[n][c] += __shfl_xor_sync(0xffffffffu, dD[n][c], distance);
                    if (lane < 4) sums.dD[ti][16 * tj + 8 * n + pair + c] = dD[n][c];
                }
            }
        }
        if (Several) {
            finish_maps(strip, now);
#pragma unroll
            for (int n = 0; n < 2 * column_tiles; ++n) {
#pragma unroll
                for (int c = 0; c < 4; ++c) dB[n][c] = dC[n][c] = 0;
            }
        }
    }
    if (!Several) finish_maps(0, all_steps[plan.stages == 2 ? (items - 1) % 2 : 0]);
    __syncthreads();
    if (warp == 3) add_up(items - 1);
}

}  // namespace ssmkit::cuda::detail
