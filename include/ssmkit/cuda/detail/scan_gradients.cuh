#pragma once

// The gradients of the selective scan within a segment of time, a thread a channel. The first pass walks along time with a chunk of
// states in registers. The main pass has a tile of tokens there with the sums over states and, of two states at a time, the decays
// and states; sums over channels cross a warp in shared memory.
// Tiles of 16 tokens, a state at a time, with steps and inputs in shared memory: that memory's rate bound them. Blocks for 16 warps
// a multiprocessor instead of 12 spill, blocks for 8 wait: 1.5 and 1.1 times as long.

#include <cstddef>
#include <type_traits>

#include <ssmkit/cuda/detail/scan_gradient_tiles.cuh>

namespace ssmkit::cuda::detail {

/// Pass 1: what each segment does to a state before it and to a gradient after it, both from zero, and the states between its
/// tiles.
template <bool General, class T, class Param>
__global__ void __launch_bounds__(128, 4)
    scan_backward_carry_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                               const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    using block_type = scan_backward_block<General, T, Param>;
    using element_type = typename block_type::element_type;
    constexpr int parts = layout::parts, tokens = layout::tokens, width = layout::width, chunk = layout::chunk;
    constexpr int pitch = block_type::pitch;
    extern __shared__ float4 shared_memory[];
    float *const lines = reinterpret_cast<float*>(shared_memory), *const B = lines + 4 * layout::lines;
    float* const C = B + layout::window * width;
    block_type block(a, plan, B, C, lines, 1);
    const auto tile_memory = [&](int tile) {
        return reinterpret_cast<element_type*>(C + layout::window * width) + tile % 2 * layout::arrays * tokens * pitch;
    };
    block.bring(0, tile_memory(0));
    const index n0 = block.chunk * chunk;

    float A[chunk][parts], h[chunk][parts] = {}, K[chunk][parts] = {}, decays[chunk][parts] = {};  // all decays until now
    const int pairs = static_cast<int>(min(plan.pairs - block.chunk * layout::pairs, index{layout::pairs}));
#pragma unroll
    for (int pair = 0; pair < layout::pairs; ++pair) {
        const float2 both = pair < pairs ? rate_pair(a.forward.A, min(block.c, block.c_last), block.chunk * layout::pairs + pair)
                                         : float2{};
        A[2 * pair / parts][0] = both.x;
        A[(2 * pair + 1) / parts][parts - 1] = both.y;
    }
#pragma unroll
    for (int n = 0; n < chunk; ++n) decays[n][0] = 1.0f;
    const auto store = [&](float2* to, const float (&from)[chunk][parts]) {
        if (!block.active) return;
        to += block.chunk * layout::pairs * block.dim;
#pragma unroll
        for (int pair = 0; pair < layout::pairs; ++pair, to += block.dim) {
            if (pair < pairs) *to = make_float2(from[2 * pair / parts][0], from[(2 * pair + 1) / parts][parts - 1]);
        }
    };
    const bool reports = block.active && block.chunk == 0;  // what all chunks share
    float2 steps{};                                         // from the segment's start
    bool open = true;                                       // no reset until now
    const int tiles = block.tiles();
    for (int tile = 0; tile < tiles; ++tile) {
        const unsigned resets = block.bits_of(block.resets, tile), stops = block.bits_of(block.stops, tile);
        const int in_window = tile * tokens % layout::window;
        if (in_window == 0) {
            __syncthreads();  // lines are there, earlier maps are read
            block.template load_maps<1, width>(tile * tokens, tile * tokens + layout::window, n0);
            __syncthreads();
        }
        if (tile > 0) store(plan.starts + block.start(tile), h);
        wait_for_copies();
        __syncwarp();
        if (tile + 1 < tiles) block.bring(tile + 1, tile_memory(tile + 1));
        block.load_tokens(tile, tile_memory(tile));
        const int here = block.count - tile * tokens;
#pragma unroll
        for (int j = 0; j < tokens; ++j) {
            if (j >= here) break;
            const bool reset = General && (resets >> j & 1);
            if constexpr (General) {
                if (open && (stops >> j & 1)) {
#pragma unroll
                    for (int n = 0; n < chunk; ++n) {
                        float S[parts] = {};
                        block.add_snapshots(n0 + n, tile * tokens + j, S);
                        multiply_add<true>(decays[n], S, K[n], K[n]);
                    }
                }
                open = open && !reset;
            }
            const float *const B_row = B + (in_window + j) * width, *const C_row = C + (in_window + j) * width;
#pragma unroll
            for (int i = 0; i < width; i += 4) {
                const float4 B_here = four_at(B_row + i), C_here = four_at(C_row + i);
#pragma unroll
                for (int k = 0; k < 4; k += parts) {
                    const int n = (i + k) / parts;
                    const float zero[parts] = {};
                    float decay[parts], in[parts], out[parts];
                    scan_decay<parts>(block.d[j], A[n], decay);
#pragma unroll
                    for (int part = 0; part < parts; ++part) {
                        in[part] = block.x[j] * element(B_here, k + part);
                        out[part] = (part == 0 ? block.g[j] : -block.g[j]) * element(C_here, k + part);
                    }
                    multiply_add<false>(decay, h[n], in, h[n]);
                    if (reset) {
#pragma unroll
                        for (int part = 0; part < parts; ++part) h[n][part] = in[part];  // 0 times NaN would be NaN
                    }
                    if (General && !open) continue;
                    multiply_add<false>(decays[n], decay, zero, decays[n]);
                    multiply_add<true>(decays[n], out, K[n], K[n]);
                }
            }
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) add_step<parts>(steps, block.d[k]);
        if (reports) plan.steps[block.step(tile)] = steps;
    }
    store(plan.h + block.carried(), h);
    store(plan.K + block.carried(), K);
    if (reports) plan.steps[block.step(plan.tiles - 1)] = steps;
    if (reports && block.tile_of_channels == 0 && threadIdx.x == 0) plan.severed[block.term()] = block.resets != 0;
}

/// Pass 3: every gradient of a segment, tile by tile from the last: the states are computed again and met by the gradients.
template <bool General, class T, class Param>
__global__ void __launch_bounds__(128, 3) scan_backward_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                               const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    using block_type = scan_backward_block<General, T, Param>;
    using element_type = typename block_type::element_type;
    constexpr int parts = layout::parts, tokens = layout::tokens, together = layout::together, chunk = layout::chunk;
    constexpr int row = layout::row, map_row = layout::map_row, pitch = block_type::pitch;
    extern __shared__ float4 shared_memory[];
    const int threads = plan.threads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* const B = reinterpret_cast<float*>(shared_memory);
    float *const C = B + layout::map, *const rows = C + layout::map;
    float* const sums = rows + threads * row;  // of each warp's parties: (values / 4, pairs), in fours
    float4* const carried_here = reinterpret_cast<float4*>(sums + threads / 32 * layout::parties * layout::sums) + threadIdx.x;
    element_type* const tile_memory = reinterpret_cast<element_type*>(carried_here - threadIdx.x + layout::pairs * threads);
    block_type block(a, plan, B, C, rows + layout::values, row / 4);
    const auto& f = a.forward;
    const bool maps = plan.dB || plan.dC, active = block.active, few = plan.chunks <= 1;
    const float skip = f.D.data() ? f.D[min(block.c, block.c_last)] : 0.0f;

    const int tiles = block.tiles();
    block.bring(tiles - 1, tile_memory);
    float* const share = rows + threadIdx.x * row;  // of dB and dC; stays zero where there is no channel
#pragma unroll
    for (int v = 0; v < layout::values; v += 4) store_four(share + v, 0.0f, 0.0f, 0.0f, 0.0f);
    // K and dA of all states, every thread its own.
    float4* const carried_far =
        plan.carried + (block.term() * plan.blocks + block.tile_of_channels) * plan.pairs * threads + threadIdx.x;
    float4* const carried = few ? carried_here : carried_far;
    const auto begin_carrying = [&](float4* to) {
        for (index first = 0; first < plan.pairs; first += layout::pairs) {
            float2 K[layout::pairs];
#pragma unroll
            for (int i = 0; i < layout::pairs; ++i) {
                if (first + i < plan.pairs) K[i] = plan.K[block.carried() + (first + i) * block.dim];
            }
#pragma unroll
            for (int i = 0; i < layout::pairs; ++i) {
                if (first + i < plan.pairs) to[(first + i) * threads] = make_float4(K[i].x, K[i].y, 0.0f, 0.0f);
            }
        }
    };
    if (few) {
        begin_carrying(carried_here);
    } else {
        begin_carrying(carried_far);
    }
    // Sums over the channels of what a tile adds to dB and dC, for the states from n0 on: two threads share four tokens' sums of a
    // state, each has every other party.
    const auto sum_maps = [&](int tile, index n0) {
        for (int i = threadIdx.x; i < 2 * layout::sums / 4; i += threads) {
            const int pair = i % 8, half = i / 8 % 2, four = i / 16, own = four % 2, q = four / 2 % 2, which = four / 4;
            const int number = 2 * pair + own, parties = threads / 32 * layout::parties;
            const float* const at = sums + half * layout::sums + four * 4 * layout::pairs + (pair + four) % layout::pairs * 4;
            float sum[4] = {};
#pragma unroll 8
            for (int party = 0; party < parties; party += 2) {
                const float4 more = four_at(at + party * layout::sums);
#pragma unroll
                for (int k = 0; k < 4; ++k) sum[k] += element(more, k);
            }
#pragma unroll
            for (int k = 0; k < 4; ++k) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], 8);
            float* const to = which == 0 ? plan.dB : plan.dC;
            if (!to || n0 * parts + number >= block.state * parts) continue;
            const int token = tile * tokens + 4 * q + 2 * half;
            const scan_backward_line line = block.lines[block_type::of_shares * block.pitch_of_lines];
            float* at_token = to + (line.first + token * line.step + n0 * parts + number);
#pragma unroll
            for (int k = 0; k < 2; ++k, at_token += line.step) {
                if (token + k >= block.count) break;
                if (General && f.order.data()) {
                    at_token = to + (block.shares_at(block.position(block.first + token + k)) + n0 * parts + number);
                }
                *at_token = half == 0 ? sum[k] : sum[2 + k];
            }
        }
    };

    const index carried_in_all = plan.pairs * block.dim;
    const index first_begins = kept(block.carried()), first_starts = kept(block.start(1)), first_steps = kept(block.step(0));
    float over_time[2] = {};  // of dD and ddelta_bias
    for (int tile = tiles; tile-- > 0;) {
        const unsigned resets = block.bits_of(block.resets, tile), stops = block.bits_of(block.stops, tile);
        const bool open = !block.reset_before(tile * tokens);
        const int here = block.count - tile * tokens;
        const int in_window = tile * tokens % layout::window;
        if (few && (tile == tiles - 1 || in_window == layout::window - tokens)) {
            block.template load_maps<map_row, 1>(tile * tokens - in_window, (tile + 1) * tokens, 0);
        }
        wait_for_copies();
        __syncwarp();
        block.load_tokens(tile, tile_memory);
        block.prefetch(tile - 1);
        // Of the first tile there are no starts, and nothing is made of those of the second.
        const float2* starts = plan.starts + (first_starts + max(tile - 1, 0) * carried_in_all);
        if (tile > 1 && active) {
            // A lane asks for eight channels' starts of two states.
            const int pair = lane / 4, first = warp * 32 + lane % 4 * 8;
            const float2* const at = starts - carried_in_all + (pair * block.dim + first - static_cast<int>(threadIdx.x));
            if (pair < plan.pairs && first + 8 <= block.channels) {
                asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
                asm volatile("prefetch.global.L2 [%0];" ::"l"(at + 4));
            }
        }
        __syncthreads();  // maps are there, sums are read
        const float2 steps = tile > 0 ? plan.steps[first_steps + (tile - 1) * block.dim] : float2{};
        float along_B[tokens] = {}, along_A[tokens] = {}, p[tokens] = {};  // sums over states
        // What states start with; under way while those before are worked on.
        const float4* begins = plan.begins + first_begins;
        float4 next_begin{};
        float2 next_start{};
        const auto bring = [&] {
            next_begin = *begins;
            next_start = *starts;
        };
        if (block.state > 0) bring();
        // `Whole`: nothing asks whether a token, a state or a channel is there, nor whether dB or dC is asked for.
        const auto over_states = [&]<bool Whole>(std::bool_constant<Whole>, float4* of_pair) {
            for (index n0 = 0; n0 < block.state; n0 += chunk) {
                if (!few) {
                    if (n0 > 0) {
                        __syncthreads();
                        if (maps) sum_maps(tile, n0 - chunk);
                    }
                    block.template load_maps<map_row, 1>(tile * tokens, (tile + 1) * tokens, n0);
                    __syncthreads();
                }
                const int states = static_cast<int>(min(block.state - n0, index{chunk}));
                for (int n = 0; n < states; n += together, of_pair += threads) {
                    float A[together][parts], K[together][parts], dA[together][parts];
                    float decay[together][tokens][parts], h[together][tokens + 1][parts];
                    // The half of a last pair that is no state may be NaN: 0 times infinity.
                    const bool both = Whole || n0 + n + together <= block.state;
                    const auto counts = [both](int s) { return s == 0 || both; };
                    const auto unpack = [](float first, float second, float(&to)[together][parts]) {
                        to[0][0] = first;
                        to[together - 1][parts - 1] = second;
                    };
                    const float4 K_and_dA = *of_pair;
                    unpack(K_and_dA.x, K_and_dA.y, K);
                    unpack(K_and_dA.z, K_and_dA.w, dA);
                    unpack(next_begin.x, next_begin.y, A);
                    float begin[together][parts], start[together][parts];
                    unpack(next_begin.z, next_begin.w, begin);
                    unpack(next_start.x, next_start.y, start);
#pragma unroll
                    for (int s = 0; s < together; ++s) {
                        float passed[parts], from_begin[parts];
                        scan_decay<parts>(steps, A[s], passed);
                        multiply_add<false>(passed, begin[s], start[s], from_begin);
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            h[s][0][part] = tile == 0 ? begin[s][part] : open ? from_begin[part] : start[s][part];
                        }
                    }
                    // The state after each token.
                    const float *const B_of = B + n * parts * map_row + in_window, *const C_of = C + (B_of - B);
#pragma unroll
                    for (int s = 0; s < together; ++s) {
#pragma unroll
                        for (int q = 0; q < tokens / 4; ++q) {
                            float4 map[parts];
#pragma unroll
                            for (int part = 0; part < parts; ++part) {
                                map[part] = four_at(B_of + (s * parts + part) * map_row + 4 * q);
                            }
#pragma unroll
                            for (int i = 0; i < 4; ++i) {
                                const int j = 4 * q + i;
                                scan_decay<parts>(block.d[j], A[s], decay[s][j]);
                                float in[parts];
#pragma unroll
                                for (int part = 0; part < parts; ++part) in[part] = block.x[j] * element(map[part], i);
                                multiply_add<false>(decay[s][j], h[s][j], in, h[s][j + 1]);
                                if (General && (resets >> j & 1)) {  // 0 times NaN would be NaN
#pragma unroll
                                    for (int part = 0; part < parts; ++part) h[s][j + 1][part] = in[part];
                                }
                            }
                        }
                    }
#pragma unroll
                    for (int q = tokens / 4; q-- > 0;) {
                        float4 B_here[2], C_here[2];
                        float to_B[2][4], to_C[2][4];  // (together, parts), tokens
#pragma unroll
                        for (int own = 0; own < 2; ++own) {
                            B_here[own] = four_at(B_of + own * map_row + 4 * q);
                            C_here[own] = four_at(C_of + own * map_row + 4 * q);
                        }
#pragma unroll
                        for (int i = 4; i-- > 0;) {
                            const int j = 4 * q + i;
#pragma unroll
                            for (int s = 0; s < together; ++s) {
                                const float zero[parts] = {};
                                float G[parts], w[parts];
#pragma unroll
                                for (int part = 0; part < parts; ++part) {
                                    const int own = s * parts + part;
                                    const float g = part == 0 ? block.g[j] : -block.g[j], C_part = element(C_here[own], i);
                                    G[part] = fmaf(g, C_part, K[s][part]);
                                    if (counts(s)) along_B[j] = fmaf(G[part], element(B_here[own], i), along_B[j]);
                                    if (counts(s)) p[j] = fmaf(part == 0 ? C_part : -C_part, h[s][j + 1][part], p[j]);
                                    to_B[own][i] = block.x[j] * G[part];
                                    to_C[own][i] = g * h[s][j + 1][part];
                                }
                                if (!Whole && j >= here) continue;
                                // w = G conj(exp(d A) h), of the state before the token.
                                multiply_add<true>(decay[s][j], G, zero, K[s]);
                                multiply_add<true>(h[s][j], K[s], zero, w);
                                const bool reset = General && (resets >> j & 1);
#pragma unroll
                                for (int part = 0; part < parts; ++part) {
                                    if (reset) w[part] = K[s][part] = 0.0f;  // past a reset nothing comes
                                    if (counts(s)) along_A[j] = fmaf(A[s][part], w[part], along_A[j]);
                                    dA[s][part] = fmaf(block.d[j], w[part], dA[s][part]);
                                }
                                if (General && (stops >> j & 1)) block.add_snapshots(n0 + n + s, tile * tokens + j, K[s]);
                            }
                        }
                        if (Whole || (maps && active)) {
#pragma unroll
                            for (int own = 0; own < 2; ++own) {
                                const auto &of_B = to_B[own], &of_C = to_C[own];
                                store_four(share + 4 * (2 * q + own), of_B[0], of_B[1], of_B[2], of_B[3]);
                                store_four(share + 4 * (4 + 2 * q + own), of_C[0], of_C[1], of_C[2], of_C[3]);
                            }
                        }
                        if (q == tokens / 8) {
                            // Here registers have become free. Without the barrier the compiler puts the loads where they are
                            // waited for; after the last states it has the same ones once more, so that nothing asks.
                            const index far = n0 + n + together < block.state ? block.dim : 0;
                            begins += far, starts += far;
                            bring();
                            __syncwarp();
                        }
                    }
                    *of_pair = make_float4(K[0][0], K[together - 1][parts - 1], dA[0][0], dA[together - 1][parts - 1]);
                    if (Whole || maps) {
                        // Four values of every fourth channel.
                        __syncwarp();
                        float v[4] = {};
                        const float* const at = rows + (warp * 32 + lane / 8) * row + lane % 8 * 4;
#pragma unroll
                        for (int k = 0; k < 8; ++k) {
                            const float4 own = four_at(at + layout::parties * k * row);
#pragma unroll
                            for (int i = 0; i < 4; ++i) v[i] += element(own, i);
                        }
                        __syncwarp();
                        float* const party = sums + (warp * layout::parties + lane / 8) * layout::sums;
                        const int pair = n / together;
                        store_four(party + 4 * (lane % 8 * layout::pairs + (pair + lane) % layout::pairs), v[0], v[1], v[2], v[3]);
                    }
                }
            }
        };
        const bool whole = here >= tokens && maps && block.channels == threads && block.state % together == 0;
        if (whole && few) {
            over_states(std::true_type{}, carried_here);
        } else if (whole) {
            over_states(std::true_type{}, carried_far);
        } else {
            over_states(std::false_type{}, carried);
        }

        // Of a tile that has been worked on, each thread's channel takes what is put out.
        const auto own = [&](typename block_type::array which) { return block.place(tile_memory, which) + threadIdx.x; };
        element_type *const u = own(block_type::of_u), *const delta = own(block_type::of_delta), *const z = own(block_type::of_z);
        const element_type* const dy = own(block_type::of_dy);
        float du[tokens];
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            along_A[k] = fmaf(widened(u[k * pitch]), along_B[k], along_A[k]);
            du[k] = block.d[k] * along_B[k];
        }
        if (f.delta_softplus) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) along_A[k] *= sigmoid(widened(delta[k * pitch]) + block.bias);
        }
        // What is not there is not multiplied by 0, which would pass a NaN on.
        if (block.state == 0) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) along_A[k] = du[k] = 0.0f;
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            block.g[k] *= 1.0f / parts;
            over_time[0] += k < here ? block.g[k] * widened(u[k * pitch]) : 0.0f;
            over_time[1] += k < here ? along_A[k] : 0.0f;
            p[k] *= parts;
        }
        if (f.D.data()) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                du[k] = fmaf(skip, block.g[k], du[k]);
                p[k] = fmaf(skip, widened(u[k * pitch]), p[k]);
            }
        }
        if (a.dz.data()) {
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                const float gate = widened(z[k * pitch]), s = sigmoid(gate);
                const float dz = widened(dy[k * pitch]) * p[k] * s * fmaf(gate, 1.0f - s, 1.0f);
                z[k * pitch] = narrowed<T>(dz);
            }
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) {
            u[k * pitch] = narrowed<T>(du[k]);
            delta[k * pitch] = narrowed<T>(along_A[k]);
        }
        __syncwarp();
        block.give(tile, tile_memory);
        if (tile > 0) block.bring(tile - 1, tile_memory);  // each thread where it took from
        __syncthreads();  // sums are there
        if (maps && block.state > 0) sum_maps(tile, (block.state - 1) / chunk * chunk);
    }
    if (!active) return;
    for (index pair = 0; pair < plan.pairs; ++pair) {
        const float4 K_and_dA = carried[pair * threads];
        plan.dA[block.carried() + pair * block.dim] = make_float2(K_and_dA.z, K_and_dA.w);
    }
    float* const to = plan.sums + block.term() * 2 * block.dim + block.c;
    to[0] = over_time[0];
    to[block.dim] = over_time[1];
}

}  // namespace ssmkit::cuda::detail
