#pragma once

// The selective scan of one block of threads: tiles of tokens on their way through shared memory, and the recurrence over them.

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda::detail {

/// How a block is laid over channels and states. Of `Runners` threads, `Lanes` neighbouring ones share a channel; each has every
/// Lanes-th state, `States` of them, in registers. `Movers` further threads bring tiles of `Tokens` tokens into shared memory and
/// take results away while the runners work; without any, the runners do both in turn. `Group` tokens' decays are computed ahead
/// of the recurrence. At least `Blocks` blocks fit a multiprocessor's registers.
template <int Runners, int Movers, int Lanes, int States, int Tokens, int Group = (States <= 2 ? 8 : 4), int Blocks = 1>
struct scan_layout {
    static constexpr int runners = Runners, movers = Movers, threads = Runners + Movers, moving = Movers ? Movers : Runners;
    static constexpr int lanes = Lanes, states = States, tokens = Tokens, group = Group, blocks = Blocks;
    static constexpr int channels = runners / lanes, padded_state = lanes * states;
    static constexpr int quads = tokens / 4;  // registers of four tokens move between global and shared memory
    static constexpr int row = tokens + 4;    // of shared memory: neighbouring threads read 16 bytes each without conflicts
    static constexpr int plane = channels * row;
};

/// What a kernel asks for at every token: all options; none of reset, snapshots, order and maps of several groups; nor strides that
/// words do not fit, nor states that are not there, in words along channels or (turned) along time.
enum class scan_form { general, plain, words, turned_words };

/// The position that is visited at a step.
template <class Args>
__device__ __forceinline__ index visited(const Args& a, index step)
{
    const index i = a.reverse ? a.u.extent(1) - 1 - step : step;
    return a.order.data() ? a.order[i] : i;
}

__device__ __forceinline__ float4 four_at(const float* at) { return *reinterpret_cast<const float4*>(at); }
__device__ __forceinline__ void store_four(float* at, float x, float y, float z, float w)
{
    *reinterpret_cast<float4*>(at) = make_float4(x, y, z, w);
}
__device__ __forceinline__ float element(const float4& q, int j) { return j == 0 ? q.x : j == 1 ? q.y : j == 2 ? q.z : q.w; }

/// Which batch row and channels a block has, and where things lie in its shared memory: a tile, or two where movers work ahead.
template <class Layout, scan_form Form, class T, class Param>
struct scan_block {
    using layout = Layout;
    using args = selective_scan_args<T, Param>;
    static constexpr bool general = Form == scan_form::general, turned = Form == scan_form::turned_words;
    static constexpr bool words = Form == scan_form::words || turned;
    static constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1, map_rows = Layout::padded_state * parts;
    // Planes of a tile: delta, delta u, D u, silu(z), each (channels, row); then B, C, (states, row) each; then the lanes' sums.
    // In words, D u and silu(z) stay with the thread that finishes them.
    static constexpr int delta_u = Layout::plane, skipped = 2 * Layout::plane, gate = 3 * Layout::plane;
    static constexpr int B = (words ? 2 : 4) * Layout::plane;
    static constexpr int C = B + (general ? 0 : map_rows * Layout::row), sums = C + (general ? 0 : map_rows * Layout::row);
    // A lane's shares of the outputs: eight threads that write together meet eight different groups of banks.
    static constexpr int lane_plane = Layout::plane + 4 * (words ? 2 : Layout::lanes < 8 ? 8 / Layout::lanes : 1);
    static constexpr int tile = sums + Layout::lanes * lane_plane, bytes = (Layout::movers ? 2 : 1) * 4 * tile;

    /// What lies in a row of so many: neighbours that came in one word lie half of the rows apart, which keeps banks apart.
    __device__ __forceinline__ static int in_row(int r, int rows) { return words ? 2 * (r % (rows / 2)) + r / (rows / 2) : r; }

    const args& a;
    index length, dim, state, b, c0;

    __device__ explicit scan_block(const args& arguments)
        : a(arguments), length(a.u.extent(1)), dim(a.u.extent(2)), state(a.A.extent(1))
    {
        const index blocks = (dim + Layout::channels - 1) / Layout::channels;
        b = blockIdx.x / blocks;
        c0 = blockIdx.x % blocks * Layout::channels;
    }
};

/// Tiles between global and shared memory. The loads of the next tile are under way in registers while one is worked on; step sizes
/// and gates are computed here, once a token and channel.
template <class Block>
struct scan_mover {
    using layout = typename Block::layout;
    using args = typename Block::args;
    using T = typename decltype(args::u)::value_type;
    static constexpr int parts = Block::parts, channels = layout::channels, quads = layout::quads, row = layout::row;
    static constexpr int threads = layout::moving, map_rows = Block::map_rows;
    struct kept_type {};  ///< of a tile, from prepare to finish
    static constexpr int items = (channels * quads + threads - 1) / threads;
    static constexpr int map_items = Block::general ? 1 : (map_rows * quads + threads - 1) / threads;
    using map_element = std::conditional_t<parts == 2, float, std::remove_const_t<T>>;
    using element_type = std::remove_const_t<T>;

    const Block& block;
    const args& a;
    const int first_item;
    const bool turned, maps_turned, gated, kept;
    const index way;  // to the next token
    element_type u[items][4], delta[items][4], z[items][4];
    map_element B[map_items][4], C[map_items][4];
    // Addresses of the next tile's first token; without an order a step ahead is always as far.
    const element_type *u_at[items], *delta_at[items], *z_at[items];
    const map_element *B_at[map_items], *C_at[map_items];
    element_type* y_at[items];
    float bias[items], skip[items];

    // Item i is four tokens of one channel. Neighbouring threads take neighbouring channels, or tokens where those are contiguous.
    __device__ __forceinline__ int channel_of(int i) const { return turned ? i / quads : i % channels; }
    __device__ __forceinline__ int quad_of(int i) const { return turned ? i % quads : i / channels; }
    __device__ __forceinline__ int map_row_of(int i) const { return maps_turned ? i / quads : i % map_rows; }
    __device__ __forceinline__ int map_quad_of(int i) const { return maps_turned ? i % quads : i / map_rows; }

    __device__ __forceinline__ scan_mover(const Block& block, int thread)
        : block(block), a(block.a), first_item(thread), turned(a.u.stride(2) != 1 && a.u.stride(1) == 1),
          maps_turned(a.B.stride(3) != 1 && a.B.stride(1) == 1), gated(a.z.data() != nullptr), kept(a.y_ungated.data() != nullptr),
          way(a.reverse ? -1 : 1)
    {
        const index b = block.b, start = a.reverse ? block.length - 1 : 0;
        for_each_item([&](int k, int i) {
            const index channel = min(block.c0 + channel_of(i), block.dim - 1), t = start + way * 4 * quad_of(i);
            bias[k] = a.delta_bias.data() ? a.delta_bias[channel] : 0.0f;
            skip[k] = a.D.data() ? a.D[channel] : 0.0f;
            u_at[k] = a.u.pointer(b, t, channel);
            delta_at[k] = a.delta.pointer(b, t, channel);
            z_at[k] = a.z.pointer(b, t, channel);
            y_at[k] = a.y.pointer(b, t, channel);
        });
        if constexpr (!Block::general) {
            const index group_of_B = block.c0 / (block.dim / a.B.extent(2)), group_of_C = block.c0 / (block.dim / a.C.extent(2));
            for_each_map_item([&](int k, int i) {
                const index n = min(static_cast<index>(map_row_of(i) / parts), max(block.state - 1, index{0}));
                const index t = start + way * 4 * map_quad_of(i);
                B_at[k] = reinterpret_cast<const map_element*>(a.B.pointer(b, t, group_of_B, n)) + map_row_of(i) % parts;
                C_at[k] = reinterpret_cast<const map_element*>(a.C.pointer(b, t, group_of_C, n)) + map_row_of(i) % parts;
            });
        }
    }

    template <class F>
    __device__ __forceinline__ void for_each_item(F f)
    {
#pragma unroll
        for (int k = 0; k < items; ++k) {
            const int i = first_item + k * threads;
            if constexpr (channels * quads % threads != 0) {
                if (i >= channels * quads) break;
            }
            f(k, i);
        }
    }

    template <class F>
    __device__ __forceinline__ void for_each_map_item(F f)
    {
#pragma unroll
        for (int k = 0; k < map_items; ++k) {
            const int i = first_item + k * threads;
            if constexpr (map_rows * quads % threads != 0) {
                if (i >= map_rows * quads) break;
            }
            f(k, i);
        }
    }

    /// How many of four tokens are there.
    __device__ __forceinline__ int tokens_there(index first, int quad, bool row_there) const
    {
        const index left = block.length - first - 4 * quad;
        return !row_there || left <= 0 ? 0 : left < 4 ? static_cast<int>(left) : 4;
    }
    __device__ __forceinline__ bool whole(index first) const
    {
        return first + layout::tokens <= block.length && block.c0 + channels <= block.dim;
    }
    __device__ __forceinline__ int count_of(index first, int i) const
    {
        return tokens_there(first, quad_of(i), block.c0 + channel_of(i) < block.dim);
    }

    /// The next four elements of a row, of which those before `count` are there.
    template <class U>
    __device__ __forceinline__ static void fetch_row(const U* at, index stride, int count, U (&to)[4])
    {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if (j < count) to[j] = *at;
            at += stride;
        }
    }

    /// Issues the loads of the tile whose first token is `first`, one tile after the other.
    __device__ __forceinline__ void fetch(index first)
    {
        if (Block::general && a.order.data()) {
            for_each_item([&](int k, int i) {
                const index channel = min(block.c0 + channel_of(i), block.dim - 1);
                const int count = count_of(first, i);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (j >= count) break;
                    const index t = visited(a, first + 4 * quad_of(i) + j);
                    u[k][j] = a.u(block.b, t, channel);
                    delta[k][j] = a.delta(block.b, t, channel);
                    if (gated) z[k][j] = a.z(block.b, t, channel);
                }
            });
            return;
        }
        const bool all = whole(first);
        const index far_u = way * a.u.stride(1), far_delta = way * a.delta.stride(1), far_z = way * a.z.stride(1);
        for_each_item([&](int k, int i) {
            const auto fetch_items = [&](int count) {
                fetch_row(u_at[k], far_u, count, u[k]);
                fetch_row(delta_at[k], far_delta, count, delta[k]);
                if (gated) fetch_row(z_at[k], far_z, count, z[k]);
            };
            if (all) {
                fetch_items(4);
            } else {
                fetch_items(count_of(first, i));
            }
            u_at[k] += layout::tokens * far_u;
            delta_at[k] += layout::tokens * far_delta;
            if (gated) z_at[k] += layout::tokens * far_z;
        });
        if constexpr (!Block::general) {
            const index far_B = way * a.B.stride(1) * parts, far_C = way * a.C.stride(1) * parts;
            for_each_map_item([&](int k, int i) {
                const bool row_there = map_row_of(i) < block.state * parts;
                if (all && row_there) {
                    fetch_row(B_at[k], far_B, 4, B[k]);
                    fetch_row(C_at[k], far_C, 4, C[k]);
                } else {
                    const int count = tokens_there(first, map_quad_of(i), row_there);
#pragma unroll
                    for (int j = 0; j < 4; ++j) B[k][j] = C[k][j] = map_element{};
                    fetch_row(B_at[k], far_B, count, B[k]);
                    fetch_row(C_at[k], far_C, count, C[k]);
                }
                B_at[k] += layout::tokens * far_B;
                C_at[k] += layout::tokens * far_C;
            });
        }
    }

    /// What was fetched, ready for the recurrence. Beyond the last token the step is 0, which leaves the state as it is.
    __device__ __forceinline__ kept_type prepare(index first, float* tile)
    {
        const bool all = whole(first);
        for_each_item([&](int k, int i) {
            float d[4], x[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                d[j] = widened(delta[k][j]) + bias[k];
                x[j] = widened(u[k][j]);
            }
            if (a.delta_softplus) {
#pragma unroll
                for (int j = 0; j < 4; ++j) d[j] = softplus(d[j]);
            }
            if (!all) {
                const int count = count_of(first, i);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (j >= count) d[j] = x[j] = 0.0f;
                }
            }
            float* const at = tile + channel_of(i) * row + 4 * quad_of(i);
            store_four(at, d[0], d[1], d[2], d[3]);
            store_four(at + Block::delta_u, d[0] * x[0], d[1] * x[1], d[2] * x[2], d[3] * x[3]);
            store_four(at + Block::skipped, skip[k] * x[0], skip[k] * x[1], skip[k] * x[2], skip[k] * x[3]);
            if (gated) {
                float gate[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) gate[j] = silu(widened(z[k][j]));
                store_four(at + Block::gate, gate[0], gate[1], gate[2], gate[3]);
            }
        });
        if constexpr (!Block::general) {
            for_each_map_item([&](int k, int i) {
                float* const at = tile + map_row_of(i) * row + 4 * map_quad_of(i);
                store_four(at + Block::B, widened(B[k][0]), widened(B[k][1]), widened(B[k][2]), widened(B[k][3]));
                store_four(at + Block::C, widened(C[k][0]), widened(C[k][1]), widened(C[k][2]), widened(C[k][3]));
            });
        }
        return {};
    }

    /// The lanes' sums, in their order; gate; store.
    __device__ __forceinline__ void finish(index first, const float* tile, kept_type)
    {
        const bool all = whole(first);
        const index far_y = way * a.y.stride(1);
        for_each_item([&](int k, int i) {
            const float* const at = tile + channel_of(i) * row + 4 * quad_of(i);
            const float4 skipped = four_at(at + Block::skipped), gate = gated ? four_at(at + Block::gate) : float4{};
            float p[4] = {skipped.x, skipped.y, skipped.z, skipped.w};
            constexpr int together = layout::lanes < 8 ? layout::lanes : 8;  // loads before the first sum waits for one
#pragma unroll
            for (int lane = 0; lane < layout::lanes; lane += together) {
                float4 share[together];
#pragma unroll
                for (int l = 0; l < together; ++l) share[l] = four_at(at + Block::sums + (lane + l) * Block::lane_plane);
#pragma unroll
                for (int l = 0; l < together; ++l) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) p[j] += element(share[l], j);
                }
            }
            const auto at_token = [&](int j) { return visited(a, first + 4 * quad_of(i) + j); };
            const auto store = [&](int count) {
                if (kept) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if (j < count) a.y_ungated(block.b, at_token(j), block.c0 + channel_of(i)) = narrowed<element_type>(p[j]);
                    }
                }
                if (gated) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) p[j] *= element(gate, j);
                }
                element_type* y = y_at[k];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (j >= count) break;
                    if (Block::general && a.order.data()) y = a.y.pointer(block.b, at_token(j), block.c0 + channel_of(i));
                    *y = narrowed<element_type>(p[j]);
                    y += far_y;
                }
            };
            if (all) {
                store(4);
            } else {
                store(count_of(first, i));
            }
            y_at[k] += layout::tokens * far_y;
        });
    }
};

/// The recurrence of a thread's states, which stay in registers from the first token to the last. In words, neighbouring
/// threads are two channels of a lane, then come the lanes.
template <class Block>
struct scan_runner {
    using layout = typename Block::layout;
    using args = typename Block::args;
    using Param = typename decltype(args::final_state)::value_type;
    static constexpr int parts = Block::parts, states = layout::states, row = layout::row;
    static constexpr int group = Block::general ? 4 : layout::group;

    /// What a group of tokens needs that does not depend on the state: computed while the recurrence of the group before it runs.
    struct prepared {
        float decay[states][group][parts], input[states][group][parts], C[states][group][parts];
    };

    const Block& block;
    const args& a;
    const int lane, own;
    const index c;
    const bool active;
    index snapshot = 0;
    float rate[states][parts], h[states][parts];

    __device__ __forceinline__ explicit scan_runner(const Block& block)
        : block(block), a(block.a),
          lane(Block::words ? threadIdx.x / 2 % layout::lanes : threadIdx.x % layout::lanes),
          own(Block::words ? threadIdx.x / (2 * layout::lanes) * 2 + threadIdx.x % 2 : threadIdx.x / layout::lanes),
          c(block.c0 + Block::in_row(own, layout::channels)), active(c < block.dim)
    {
#pragma unroll
        for (int s = 0; s < states; ++s) {
            const Param A = has(s) ? a.A(c, state_of(s)) : Param(0);
            const Param first = has(s) && a.initial_state.data() ? a.initial_state(block.b, c, state_of(s)) : Param(0);
#pragma unroll
            for (int part = 0; part < parts; ++part) {
                rate[s][part] = reinterpret_cast<const float*>(&A)[part] * (part == 0 ? log2_e : 1.0f);
                h[s][part] = reinterpret_cast<const float*>(&first)[part];
            }
        }
    }

    __device__ __forceinline__ index state_of(int s) const
    {
        return Block::in_row(lane + s * layout::lanes, layout::padded_state);
    }
    __device__ __forceinline__ bool has(int s) const { return active && (Block::words || state_of(s) < block.state); }

    __device__ __forceinline__ void store_state(Param* to, index stride) const
    {
#pragma unroll
        for (int s = 0; s < states; ++s) {
            if (!has(s)) continue;
            float* const at = reinterpret_cast<float*>(to + state_of(s) * stride);
#pragma unroll
            for (int part = 0; part < parts; ++part) at[part] = h[s][part];
        }
    }

    __device__ __forceinline__ void store_snapshots(index tokens)
    {
        for (; snapshot < a.snapshot_after.extent(1) && a.snapshot_after(block.b, snapshot) == tokens; ++snapshot) {
            store_state(a.snapshots.pointer(block.b, snapshot, min(c, block.dim - 1)), a.snapshots.stride(3));
        }
    }

    /// exp(d A), and what a step adds to the state.
    __device__ __forceinline__ void decay_and_input(float d, float x, int s, const float (&B)[parts], float (&decay)[parts],
                                                    float (&input)[parts]) const
    {
        const float size = exp2_fast(d * rate[s][0]);
        if constexpr (parts == 2) {
            float sine, cosine;
            sincosf(d * rate[s][1], &sine, &cosine);
            decay[0] = size * cosine;
            decay[1] = size * sine;
        } else {
            decay[0] = size;
        }
#pragma unroll
        for (int part = 0; part < parts; ++part) input[part] = x * B[part];
    }

    /// h of the next token, and p + C h (twice its real part, of complex states).
    __device__ __forceinline__ void advance(int s, const float (&decay)[parts], const float (&input)[parts],
                                            const float (&C)[parts], float& p)
    {
        if constexpr (parts == 2) {
            const float before = h[s][0];
            h[s][0] = fmaf(decay[0], before, fmaf(-decay[1], h[s][1], input[0]));
            h[s][1] = fmaf(decay[0], h[s][1], fmaf(decay[1], before, input[1]));
            p = fmaf(2 * h[s][0], C[0], fmaf(-2 * h[s][1], C[1], p));
        } else {
            h[s][0] = fmaf(decay[0], h[s][0], input[0]);
            p = fmaf(h[s][0], C[0], p);
        }
    }

    __device__ __forceinline__ void prepare_group(const float* tile, int t0, prepared& to) const
    {
#pragma unroll
        for (int q = 0; q < group; q += 4) {
            const float* const at = tile + own * row + t0 + q;
            const float4 d = four_at(at), x = four_at(at + Block::delta_u);
#pragma unroll
            for (int s = 0; s < states; ++s) {
                const float* const map = tile + (lane + s * layout::lanes) * parts * row + t0 + q;
                float4 B[parts], C[parts];
#pragma unroll
                for (int part = 0; part < parts; ++part) {
                    B[part] = four_at(map + Block::B + part * row);
                    C[part] = four_at(map + Block::C + part * row);
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float B_j[parts];
#pragma unroll
                    for (int part = 0; part < parts; ++part) {
                        B_j[part] = element(B[part], j);
                        to.C[s][q + j][part] = element(C[part], j);
                    }
                    decay_and_input(element(d, j), element(x, j), s, B_j, to.decay[s][q + j], to.input[s][q + j]);
                }
            }
        }
    }

    __device__ __forceinline__ void run_group(float* tile, int t0, const prepared& g)
    {
        float p[group] = {};
#pragma unroll
        for (int j = 0; j < group; ++j) {
#pragma unroll
            for (int s = 0; s < states; ++s) advance(s, g.decay[s][j], g.input[s][j], g.C[s][j], p[j]);
        }
        store_sums(tile, t0, p);
    }

    __device__ __forceinline__ void store_sums(float* tile, int t0, const float (&p)[group]) const
    {
        float* const at = tile + Block::sums + lane * Block::lane_plane + own * row + t0;
#pragma unroll
        for (int q = 0; q < group; q += 4) store_four(at + q, p[q], p[q + 1], p[q + 2], p[q + 3]);
    }

    /// A tile. Sums of C h over a thread's states go to shared memory: summing them over lanes by shuffles took a quarter of all
    /// instructions.
    __device__ __forceinline__ void run(index first, float* tile)
    {
        if constexpr (Block::general) {
            run_general(first, tile);
        } else if constexpr (Block::words && layout::movers == 0) {
            // Warps of other blocks fill the gaps: a group ahead took 1.1 times as long.
#pragma unroll 2
            for (int t0 = 0; t0 < layout::tokens; t0 += group) {
                prepared now;
                prepare_group(tile, t0, now);
                run_group(tile, t0, now);
            }
        } else {
            prepared now;
            prepare_group(tile, 0, now);
#pragma unroll 2
            for (int t0 = 0; t0 + group < layout::tokens; t0 += group) {
                prepared next;
                prepare_group(tile, t0 + group, next);
                run_group(tile, t0, now);
                now = next;
            }
            run_group(tile, layout::tokens - group, now);
        }
    }

    __device__ __forceinline__ void run_general(index first, float* tile)
    {
        const index channel = min(c, block.dim - 1), B_group = channel / (block.dim / a.B.extent(2));
        const index C_group = channel / (block.dim / a.C.extent(2));
        for (int t0 = 0; t0 < layout::tokens && first + t0 < block.length; t0 += group) {
            float p[group] = {};
#pragma unroll
            for (int j = 0; j < group; ++j) {
                const index at = first + t0 + j;
                if (at >= block.length) break;
                const index t = visited(a, at);
                store_snapshots(at);
                const bool reset = a.reset.data() && a.reset(block.b, t) != 0;
                const float d = tile[own * row + t0 + j], x = tile[Block::delta_u + own * row + t0 + j];
#pragma unroll
                for (int s = 0; s < states; ++s) {
                    if (!has(s)) continue;
                    float B[parts], C[parts], decay[parts], input[parts];
                    if constexpr (parts == 2) {
#pragma unroll
                        for (int part = 0; part < 2; ++part) {
                            B[part] = reinterpret_cast<const float*>(a.B.pointer(block.b, t, B_group, state_of(s)))[part];
                            C[part] = reinterpret_cast<const float*>(a.C.pointer(block.b, t, C_group, state_of(s)))[part];
                        }
                    } else {
                        B[0] = widened(a.B(block.b, t, B_group, state_of(s)));
                        C[0] = widened(a.C(block.b, t, C_group, state_of(s)));
                    }
#pragma unroll
                    for (int part = 0; part < parts; ++part) h[s][part] = reset ? 0.0f : h[s][part];
                    decay_and_input(d, x, s, B, decay, input);
                    advance(s, decay, input, C, p[j]);
                }
            }
            store_sums(tile, t0, p);
        }
    }

    __device__ __forceinline__ void finish()
    {
        if constexpr (Block::general) store_snapshots(block.length);
        if (active && a.final_state.data()) store_state(a.final_state.pointer(block.b, c), a.final_state.stride(2));
    }
};

}  // namespace ssmkit::cuda::detail
