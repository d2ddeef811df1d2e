#pragma once

// The gradients of the selective scan within a segment of time, a thread a channel: a tile of tokens lies in registers with the
// sums over states and, of two states at a time, the decays and states. Sums over channels cross a warp in shared memory.
// Tiles of 16 tokens, a state at a time, with steps and inputs in shared memory: that memory's rate bound them. Blocks for 16 warps
// a multiprocessor instead of 12 spill, blocks for 8 wait: 1.5 and 1.1 times as long.

#include <cstddef>
#include <type_traits>

#include <ssmkit/cuda/detail/scan_gradient_tiles.cuh>

namespace ssmkit::cuda::detail {

/// A as (pairs, dim), so that neighbouring threads, which are channels, read neighbouring numbers.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_rates_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                  const __grid_constant__ scan_backward_plan plan)
{
    const auto& A = a.forward.A;
    const index i = blockIdx.x * index{blockDim.x} + threadIdx.x, c = i % A.extent(0), pair = i / A.extent(0);
    if (pair >= plan.pairs) return;
    if constexpr (ssmkit::detail::is_complex<Param>) {
        const Param x = A(c, pair);
        plan.rates[i] = make_float2(x.real(), x.imag());
    } else {
        plan.rates[i] = make_float2(A(c, 2 * pair), 2 * pair + 1 < A.extent(1) ? A(c, 2 * pair + 1) : 0.0f);
    }
}

/// Pass 1: what each segment does to a state before it and to a gradient after it, both from zero, and the states between its tiles.
template <bool General, class T, class Param>
__global__ void __launch_bounds__(128, 5) scan_backward_carry_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                     const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, tokens = layout::tokens, together = layout::together;
    extern __shared__ float4 shared_memory[];
    using block_type = scan_backward_block<General, T, Param>;
    block_type block(a, plan, reinterpret_cast<float*>(shared_memory));
    if (block.tile_of_channels == 0 && threadIdx.x == 0) plan.severed[block.term()] = block.resets != 0;
    float2 steps{};  // from the segment's start
    for (int tile = 0; tile < layout::tiles; ++tile) {
        const unsigned resets = block.bits_of(block.resets, tile), stops = block.bits_of(block.stops, tile);
        const bool open = !block.reset_before(tile * tokens);
        block.load_tokens(tile);
        if (tile + 1 < layout::tiles) block.prefetch_tokens(tile + 1);
        // What states have in memory; under way while those before are worked on.
        typename block_type::pair next_A, next_start, next_K;
        block.clear(next_start);
        block.clear(next_K);
        const float2 *rates = plan.rates + min(block.c, block.c_last), *starts = plan.starts + block.start(tile);
        float2* to = tile + 1 < layout::tiles ? plan.starts + block.start(tile + 1) : plan.h + block.carried();
        float2* K_from = plan.K + block.carried();
        const auto bring = [&] {
            block.load(rates, next_A);
            if (tile > 0) block.load(starts, next_start);
            if (tile > 0) block.load(K_from, next_K);
        };
        if (block.state > 0) bring();
        const auto over_states = [&]<bool Full>(std::bool_constant<Full>) {
            const auto there = [here = block.count - tile * tokens](int j) { return Full || j < here; };
            for (index n0 = 0; n0 < block.state; n0 += layout::chunk) {
                block.load_maps(tile, tile == 0, n0);
                const int states = static_cast<int>(min(block.state - n0, index{layout::chunk}));
                for (int n = 0; n < states; n += together) {
                    float A[together][parts], K[together][parts] = {};
                    float decay[together][tokens][parts], h[together][tokens + 1][parts];
                    float before[together][parts];
#pragma unroll
                    for (int s = 0; s < together; ++s) {
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            A[s][part] = next_A[s][part], h[s][0][part] = next_start[s][part], before[s][part] = next_K[s][part];
                        }
                    }
                    float2* const K_to = K_from;
                    if (n0 + n + together < block.state) {
                        rates += block.dim, starts += block.dim, K_from += block.dim;
                        bring();
                    }
                    typename block_type::pair after;
#pragma unroll
                    for (int s = 0; s < together; ++s) {
                        block.run_forward(n + s, tile, A[s], resets, decay[s], h[s]);
#pragma unroll
                        for (int part = 0; part < parts; ++part) after[s][part] = h[s][tokens][part];
                    }
                    block.store(to, after);
                    to += block.dim;
#pragma unroll
                    for (int q = tokens / 4; q-- > 0;) {
                        float4 C[together][parts];
#pragma unroll
                        for (int s = 0; s < together; ++s) {
#pragma unroll
                            for (int part = 0; part < parts; ++part) C[s][part] = block.four_of(block.C, n + s, part, tile, q);
                        }
#pragma unroll
                        for (int i = 4; i-- > 0;) {
                            const int j = 4 * q + i;
#pragma unroll
                            for (int s = 0; s < together; ++s) {
                                const float zero[parts] = {};
                                float G[parts];
#pragma unroll
                                for (int part = 0; part < parts; ++part) {
                                    G[part] = fmaf(part == 0 ? block.g[j] : -block.g[j], element(C[s][part], i), K[s][part]);
                                }
                                if (!there(j)) continue;
                                multiply_add<true>(decay[s][j], G, zero, K[s]);
                                block.amend(n0 + n + s, tile, j, resets, stops, K[s]);
                            }
                        }
                    }
#pragma unroll
                    for (int s = 0; s < together; ++s) {
                        if (open) {
                            float passed[parts];
                            scan_decay<parts>(steps, A[s], passed);
                            multiply_add<true>(passed, K[s], before[s], before[s]);
                        }
                    }
                    block.store(K_to, before);
                }
            }
        };
        if ((tile + 1) * tokens <= block.count) {
            over_states(std::true_type{});
        } else {
            over_states(std::false_type{});
        }
#pragma unroll
        for (int k = 0; k < tokens; ++k) add_step(steps, block.d[k]);
        if (block.active) plan.steps[block.step(tile)] = steps;
    }
}

/// Pass 3: every gradient of a segment, tile by tile from the last: the states are computed again and met by the gradients.
template <bool General, class T, class Param>
__global__ void __launch_bounds__(128, 3) scan_backward_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                               const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    using block_type = scan_backward_block<General, T, Param>;
    constexpr int parts = layout::parts, tokens = layout::tokens, together = layout::together;
    constexpr int values = layout::values, row = layout::row;
    extern __shared__ float4 shared_memory[];
    block_type block(a, plan, reinterpret_cast<float*>(shared_memory));
    const int threads = block.threads, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float* const sums = block.rows + threads * row + warp * layout::sums;               // of this warp: (chunk / together, values + 1)
    float* const share = block.own_row();                                               // of dB and dC: (together, 2, parts, tokens)
    for (int v = 0; v < values; v += 4) store_four(share + v, 0.0f, 0.0f, 0.0f, 0.0f);  // stays so where there is no channel
    const bool maps = plan.dB || plan.dC, active = block.active;
    const auto& f = a.forward;
    const index batch = f.u.extent(0);
    float over_time[2] = {};  // of dD and ddelta_bias

    const int tiles = (block.count + tokens - 1) / tokens;
    for (int tile = tiles; tile-- > 0;) {
        const bool last = tile + 1 == tiles;
        const unsigned resets = block.bits_of(block.resets, tile), stops = block.bits_of(block.stops, tile);
        const bool open = !block.reset_before(tile * tokens);
        block.load_tokens(tile);
        block.prefetch_tokens(tile - 1);
        const float2 steps = tile > 0 ? plan.steps[block.step(tile - 1)] : float2{};
        float along_B[tokens] = {}, along_A[tokens] = {}, p[tokens] = {};  // sums over states
        // What states have in memory; under way while those before are worked on.
        typename block_type::pair next_A, next_h, next_start, next_K, next_dA;
        block.clear(next_start);
        block.clear(next_dA);
        const float2 *rates = plan.rates + min(block.c, block.c_last), *h_from = plan.h + block.carried();
        const float2* starts = plan.starts + block.start(tile);
        float2 *K_from = plan.K + block.carried(), *dA_from = plan.dA + block.carried();
        const auto bring = [&] {
            block.load(rates, next_A);
            block.load(h_from, next_h);
            block.load(K_from, next_K);
            if (!last) block.load(dA_from, next_dA);
            if (tile > 0) block.load(starts, next_start);
        };
        if (block.state > 0) bring();
        const auto over_states = [&]<bool Full>(std::bool_constant<Full>) {
            const auto there = [here = block.count - tile * tokens](int j) { return Full || j < here; };
            for (index n0 = 0; n0 < block.state; n0 += layout::chunk) {
                block.load_maps(tile, last, n0);
                const int states = static_cast<int>(min(block.state - n0, index{layout::chunk}));
                for (int n = 0; n < states; n += together) {
                    float A[together][parts], K[together][parts], dA[together][parts];
                    float decay[together][tokens][parts], h[together][tokens + 1][parts];
                    float2 *const K_to = K_from, *const dA_to = dA_from;
                    // The half of a last pair that is no state may be NaN: 0 times infinity.
                    const bool both = n0 + n + together <= block.state;
                    const auto counts = [both](int s) { return s == 0 || both; };
#pragma unroll
                    for (int s = 0; s < together; ++s) {
#pragma unroll
                        for (int part = 0; part < parts; ++part) {
                            A[s][part] = next_A[s][part], h[s][0][part] = next_h[s][part];
                            K[s][part] = next_K[s][part], dA[s][part] = next_dA[s][part];
                        }
                        if (tile > 0) {
                            float passed[parts], from_segment[parts];
                            scan_decay<parts>(steps, A[s], passed);
                            multiply_add<false>(passed, h[s][0], next_start[s], from_segment);
#pragma unroll
                            for (int part = 0; part < parts; ++part) h[s][0][part] = open ? from_segment[part] : next_start[s][part];
                        }
                    }
                    if (n0 + n + together < block.state) {
                        rates += block.dim, h_from += block.dim, K_from += block.dim, dA_from += block.dim, starts += block.dim;
                        bring();
                    }
#pragma unroll
                    for (int s = 0; s < together; ++s) block.run_forward(n + s, tile, A[s], resets, decay[s], h[s]);
#pragma unroll
                    for (int q = tokens / 4; q-- > 0;) {
                        float4 B[together][parts], C[together][parts];
                        float to_B[together][parts][4], to_C[together][parts][4];
#pragma unroll
                        for (int s = 0; s < together; ++s) {
#pragma unroll
                            for (int part = 0; part < parts; ++part) {
                                B[s][part] = block.four_of(block.B, n + s, part, tile, q);
                                C[s][part] = block.four_of(block.C, n + s, part, tile, q);
                            }
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
                                    const float g = part == 0 ? block.g[j] : -block.g[j], C_part = element(C[s][part], i);
                                    G[part] = fmaf(g, C_part, K[s][part]);
                                    if (counts(s)) along_B[j] = fmaf(G[part], element(B[s][part], i), along_B[j]);
                                    if (counts(s)) p[j] = fmaf(part == 0 ? C_part : -C_part, h[s][j + 1][part], p[j]);
                                    to_B[s][part][i] = block.x[j] * G[part];
                                    to_C[s][part][i] = g * h[s][j + 1][part];
                                }
                                if (!there(j)) continue;
                                // w = G conj(exp(d A) h), of the state before the token.
                                multiply_add<true>(decay[s][j], G, zero, K[s]);
                                multiply_add<true>(h[s][j], K[s], zero, w);
                                if (General && (resets >> j & 1)) {
#pragma unroll
                                    for (int part = 0; part < parts; ++part) w[part] = 0.0f;
                                }
#pragma unroll
                                for (int part = 0; part < parts; ++part) {
                                    if (counts(s)) along_A[j] = fmaf(A[s][part], w[part], along_A[j]);
                                    dA[s][part] = fmaf(block.d[j], w[part], dA[s][part]);
                                }
                                block.amend(n0 + n + s, tile, j, resets, stops, K[s]);
                            }
                        }
                        if (maps && active) {
#pragma unroll
                            for (int s = 0; s < together; ++s) {
#pragma unroll
                                for (int part = 0; part < parts; ++part) {
                                    float* const at = share + (s * 2 * parts + part) * tokens + 4 * q;
                                    const auto &of_B = to_B[s][part], &of_C = to_C[s][part];
                                    store_four(at, of_B[0], of_B[1], of_B[2], of_B[3]);
                                    store_four(at + parts * tokens, of_C[0], of_C[1], of_C[2], of_C[3]);
                                }
                            }
                        }
                    }
                    block.store(K_to, K);
                    block.store(dA_to, dA);
                    if (maps) {
                        // Four values of every fourth channel, then one of all.
                        __syncwarp();
                        float v[4] = {};
                        const float* const at = block.rows + (warp * 32 + lane / 8) * row + lane % 8 * 4;
#pragma unroll
                        for (int k = 0; k < 8; ++k) {
                            const float4 own = four_at(at + 4 * k * row);
#pragma unroll
                            for (int i = 0; i < 4; ++i) v[i] += element(own, i);
                        }
                        __syncwarp();
                        exchange_halves<4>(v, 16);
                        exchange_halves<2>(v, 8);
                        sums[n / together * (values + 1) + lane % 8 * 4 + lane / 16 * 2 + lane / 8 % 2] = v[0];
                    }
                }
                if (maps) {
                    __syncthreads();
                    constexpr int width = layout::chunk * parts;
                    const float* const all = block.rows + threads * row;
                    for (int i = threadIdx.x; i < width * 2 * tokens; i += threads) {
                        const int n = i % width / parts, part = i % parts, token = i / width % tokens, which = i / width / tokens;
                        if (n >= states || tile * tokens + token >= block.count) continue;
                        const int value = ((n % together * 2 + which) * parts + part) * tokens + token;
                        float sum = 0.0f;
                        for (int w = 0; w < threads / 32; ++w) sum += all[w * layout::sums + n / together * (values + 1) + value];
                        float* const to = which == 0 ? plan.dB : plan.dC;
                        const index t = block.position(block.first + tile * tokens + token);
                        const index row_of_shares = (block.tile_of_channels * batch + block.b) * block.length + t;
                        if (to) to[(row_of_shares * block.state + n0 + n) * parts + part] = sum;
                    }
                    __syncthreads();
                }
            }
        };
        if ((tile + 1) * tokens <= block.count) {
            over_states(std::true_type{});
        } else {
            over_states(std::false_type{});
        }

        const auto finish = [&]<bool Whole>(std::bool_constant<Whole>) {
            const typename block_type::items i = block.items_of(tile);
            typename block_type::element_type u[tokens], delta[tokens], z[tokens], dy[tokens];
            block.template fetch<Whole>(i, f.u, u);
            block.template fetch<Whole>(i, f.delta, delta);
            if (a.dz.data()) {
                block.template fetch<Whole>(i, f.z, z);
                block.template fetch<Whole>(i, a.dy, dy);
            }
            auto &d = block.d, &dp = block.g;
            if (!Whole && block.turned) {
                if (active) {
                    block.write_own(0, d);
                    block.write_own(1, dp);
                    block.write_own(2, along_B);
                    block.write_own(3, along_A);
                    block.write_own(4, p);
                }
                __syncthreads();
                block.read_items(i, 0, d);
                block.read_items(i, 1, dp);
                block.read_items(i, 2, along_B);
                block.read_items(i, 3, along_A);
                block.read_items(i, 4, p);
            }
            float skip[tokens], out[tokens];
            block.template read_channels<Whole>(i, f.delta_bias, out);
            block.template read_channels<Whole>(i, f.D, skip);
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                dp[k] *= 1.0f / parts;
                along_A[k] = fmaf(widened(u[k]), along_B[k], along_A[k]);
                if (f.delta_softplus) along_A[k] *= sigmoid(widened(delta[k]) + out[k]);
                // What is not there is not multiplied by 0, which would pass a NaN on.
                along_A[k] = block.state > 0 ? along_A[k] : 0.0f;
                out[k] = block.state > 0 ? d[k] * along_B[k] : 0.0f;
                out[k] = f.D.data() ? fmaf(skip[k], dp[k], out[k]) : out[k];
            }
            if (a.ddelta.data()) block.template put<Whole>(i, a.ddelta, along_A);
            if (a.du.data()) block.template put<Whole>(i, a.du, out);
            if (a.dz.data()) {
#pragma unroll
                for (int k = 0; k < tokens; ++k) {
                    const float s = sigmoid(widened(z[k]));
                    const float sum = f.D.data() ? fmaf(skip[k], widened(u[k]), parts * p[k]) : parts * p[k];
                    out[k] = widened(dy[k]) * sum * s * fmaf(widened(z[k]), 1.0f - s, 1.0f);
                }
                block.template put<Whole>(i, a.dz, out);
            }
            // Terms of dD and ddelta_bias, for the thread of their channel.
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                out[k] = Whole || k < i.there ? dp[k] * widened(u[k]) : 0.0f;
                along_A[k] = Whole || k < i.there ? along_A[k] : 0.0f;
            }
            if (!Whole && block.turned) {
                block.write_items(i, 0, out);
                block.write_items(i, 1, along_A);
                __syncthreads();
                block.read_own(0, out);
                block.read_own(1, along_A);
            }
#pragma unroll
            for (int k = 0; k < tokens; ++k) {
                over_time[0] += out[k];
                over_time[1] += along_A[k];
            }
        };
        if (block.is_whole(tile)) {
            finish(std::true_type{});
        } else {
            finish(std::false_type{});
        }
    }
    if (active) {
        float* const to = plan.sums + block.term() * 2 * block.dim + block.c;
        to[0] = over_time[0];
        to[block.dim] = over_time[1];
    }
}

}  // namespace ssmkit::cuda::detail
