#pragma once

// Tiles of the selective scan whose rows are read and written in words of several elements.

#include <cstring>
#include <type_traits>

#include <ssmkit/cuda/detail/scan_tiles.cuh>
#include <ssmkit/cuda/detail/words.cuh>

namespace ssmkit::cuda::detail {

/// Two neighbours by four tokens as they came from memory: a word of both neighbours for each token or, of time-contiguous data
/// (turned), a word of four tokens for each neighbour.
template <class T, bool Turned>
struct scan_patch {
    word_of<T, 2> words[4];

    /// Of row `at` and the row `across` behind it the tokens before `count`, `far` apart, and zeros beyond.
    __device__ __forceinline__ void fetch(const T* at, index far, index across, int count)
    {
        if (count < 4) {
#pragma unroll
            for (int j = 0; j < 4; ++j) words[j] = word_of<T, 2>{};
        }
        if constexpr (Turned) {  // count is 0 or 4
            if (count == 0) return;
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const word_of<T, 4> both = load_word<4>(at + c * across);
                std::memcpy(words + 2 * c, &both, sizeof(both));
            }
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                if (j < count) words[j] = load_word<2>(at);
                at += far;
            }
        }
    }

    __device__ __forceinline__ void unpack_to(float (&to)[2][4]) const
    {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float two[2];
            if constexpr (std::is_same_v<T, bfloat16>) {  // an instruction each; unpack takes the word apart first
                two[0] = __uint_as_float(words[j] << 16), two[1] = __uint_as_float(words[j] & 0xffff0000u);
            } else {
                unpack<T, 2>(words[j], two);
            }
#pragma unroll
            for (int i = 0; i < 2; ++i) (Turned ? to[j / 2][j % 2 * 2 + i] : to[i][j]) = two[i];
        }
    }

    __device__ __forceinline__ static void store(T* at, index far, index across, int count, const float (&from)[2][4])
    {
        if constexpr (Turned) {
            if (count == 0) return;
#pragma unroll
            for (int c = 0; c < 2; ++c) store_word<T, 4>(at + c * across, from[c]);
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float two[2] = {from[0][j], from[1][j]};
                if (j < count) store_word<T, 2>(at, two);
                at += far;
            }
        }
    }

    /// Forgets that it was unpacked before: a compiler that remembers keeps twice the registers.
    __device__ __forceinline__ void keep()
    {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            if constexpr (sizeof(words[0]) == 4) {
                asm volatile("" : "+r"(words[j]));
            } else {
                asm volatile("" : "+r"(words[j].x), "+r"(words[j].y));
            }
        }
    }
};

/// As scan_mover, in words, always from the first token to the last: a thread has patches of the same place in u, delta, z and y,
/// and others of B or C.
template <class Block>
struct scan_word_mover {
    using layout = typename Block::layout;
    using args = typename Block::args;
    using T = typename decltype(args::u)::value_type;
    using patch = scan_patch<T, Block::turned>;
    static constexpr int channels = layout::channels, quads = layout::quads, row = layout::row, threads = layout::moving;
    static constexpr int pairs = channels / 2, map_pairs = Block::map_rows / 2;
    static constexpr int all_items = pairs * quads, all_map_items = 2 * map_pairs * quads;
    static constexpr int items = (all_items + threads - 1) / threads, map_items = (all_map_items + threads - 1) / threads;
    static_assert(Block::C - Block::B == Block::map_rows * row, "B's rows, then C's");
    struct kept_type {  ///< of a tile, from prepare to finish
        patch u[items], z[items];
    };

    const Block& block;
    const args& a;
    const int thread;
    const bool gated, kept;
    patch u[items], delta[items], maps[map_items];
    // Addresses of the next tile's first token, of z and y of the tile that is to be finished.
    const T *u_at[items], *delta_at[items], *z_at[items], *map_at[map_items];
    T* y_at[items];
    float bias[items][2], skip[items][2];

    // Neighbouring threads have neighbouring words.
    __device__ __forceinline__ int item(int k) const { return thread + k * threads; }
    __device__ __forceinline__ int pair_of(int k) const { return Block::turned ? item(k) / quads : item(k) % pairs; }
    __device__ __forceinline__ int quad_of(int k) const { return Block::turned ? item(k) % quads : item(k) / pairs; }
    // Of maps, first all patches of B, then those of C.
    __device__ __forceinline__ const auto& map_of(int k) const { return item(k) >= all_map_items / 2 ? a.C : a.B; }
    __device__ __forceinline__ int map_item(int k) const { return item(k) % (all_map_items / 2); }
    __device__ __forceinline__ int map_pair_of(int k) const { return Block::turned ? map_item(k) / quads : map_item(k) % map_pairs; }
    __device__ __forceinline__ int map_quad_of(int k) const { return Block::turned ? map_item(k) % quads : map_item(k) / map_pairs; }

    /// f(k) for this thread's items of so many, which threads have in turn.
    template <int All, class F>
    __device__ __forceinline__ void for_each_item(F f) const
    {
#pragma unroll
        for (int k = 0; k < (All + threads - 1) / threads; ++k) {
            if (All % threads != 0 && item(k) >= All) break;
            f(k);
        }
    }

    __device__ __forceinline__ scan_word_mover(const Block& block, int thread)
        : block(block), a(block.a), thread(thread), gated(a.z.data() != nullptr), kept(a.y_ungated.data() != nullptr)
    {
        const index b = block.b;
        for_each_item<all_items>([&](int k) {
            const index channel = min(block.c0 + 2 * pair_of(k), block.dim - 2), t = 4 * quad_of(k);
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                bias[k][c] = a.delta_bias.data() ? a.delta_bias[channel + c] : 0.0f;
                skip[k][c] = a.D.data() ? a.D[channel + c] : 0.0f;
            }
            u_at[k] = a.u.pointer(b, t, channel);
            delta_at[k] = a.delta.pointer(b, t, channel);
            z_at[k] = a.z.pointer(b, t, channel);
            y_at[k] = a.y.pointer(b, t, channel);
        });
        const auto group_of = [&](const auto& map) { return map.extent(2) == 1 ? 0 : block.c0 / (block.dim / map.extent(2)); };
        const index groups[2] = {group_of(a.B), group_of(a.C)};
        for_each_item<all_map_items>([&](int k) {
            const index group = item(k) >= all_map_items / 2 ? groups[1] : groups[0];
            map_at[k] = map_of(k).pointer(b, 4 * map_quad_of(k), group, 2 * map_pair_of(k));
        });
    }

    /// How many of a patch's tokens are there.
    __device__ __forceinline__ int tokens_there(index first, int quad) const
    {
        return static_cast<int>(max(index{0}, min(index{4}, block.length - first - 4 * quad)));
    }
    __device__ __forceinline__ int count_of(index first, int k) const
    {
        return block.c0 + 2 * pair_of(k) < block.dim ? tokens_there(first, quad_of(k)) : 0;
    }
    /// f(all): whether all tokens and channels are there is asked once a tile.
    template <class F>
    __device__ __forceinline__ void whole_or_not(index first, F f) const
    {
        if (first + layout::tokens <= block.length && block.c0 + channels <= block.dim) {
            f(true);
        } else {
            f(false);
        }
    }

    /// Issues the loads of the tile whose first token is `first`, one tile after the other.
    __device__ __forceinline__ void fetch(index first)
    {
        whole_or_not(first, [&](bool all) {
            for_each_item<all_items>([&](int k) {
                const int count = all ? 4 : count_of(first, k);
                u[k].fetch(u_at[k], a.u.stride(1), a.u.stride(2), count);
                delta[k].fetch(delta_at[k], a.delta.stride(1), a.delta.stride(2), count);
            });
            for_each_item<all_map_items>([&](int k) {
                const int count = all ? 4 : tokens_there(first, map_quad_of(k));
                maps[k].fetch(map_at[k], map_of(k).stride(1), map_of(k).stride(3), count);
            });
        });
        for_each_item<all_items>([&](int k) {
            u_at[k] += layout::tokens * a.u.stride(1);
            delta_at[k] += layout::tokens * a.delta.stride(1);
        });
        for_each_item<all_map_items>([&](int k) { map_at[k] += layout::tokens * map_of(k).stride(1); });
    }

    /// Two rows of four tokens.
    template <int Apart>
    __device__ __forceinline__ static void store_rows(float* at, const float (&v)[2][4])
    {
#pragma unroll
        for (int c = 0; c < 2; ++c) store_four(at + c * Apart * row, v[c][0], v[c][1], v[c][2], v[c][3]);
    }

    /// What was fetched, ready for the recurrence. Beyond the last token the step is 0, which leaves the state as it is.
    __device__ __forceinline__ kept_type prepare(index first, float* tile)
    {
        kept_type own;
        whole_or_not(first, [&](bool all) {
            for_each_item<all_items>([&](int k) {
                const int count = all ? 4 : count_of(first, k);
                if (gated) {
                    own.z[k].fetch(z_at[k], a.z.stride(1), a.z.stride(2), count);
                    z_at[k] += layout::tokens * a.z.stride(1);
                }
                float d[2][4], x[2][4];
                delta[k].unpack_to(d);
                u[k].unpack_to(x);
#pragma unroll
                for (int c = 0; c < 2; ++c) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) d[c][j] += bias[k][c];
                }
                if (a.delta_softplus) {
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
#pragma unroll
                        for (int j = 0; j < 4; ++j) d[c][j] = softplus(d[c][j]);
                    }
                }
#pragma unroll
                for (int c = 0; c < 2; ++c) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        if (!all && j >= count) d[c][j] = 0.0f;
                        x[c][j] *= d[c][j];
                    }
                }
                float* const at = tile + pair_of(k) * row + 4 * quad_of(k);
                store_rows<pairs>(at, d);
                store_rows<pairs>(at + Block::delta_u, x);
                own.u[k] = u[k];
                own.u[k].keep();
            });
        });
        for_each_item<all_map_items>([&](int k) {
            float v[2][4];
            maps[k].unpack_to(v);
            const int r = item(k) / (all_map_items / 2) * Block::map_rows + map_pair_of(k);
            store_rows<map_pairs>(tile + Block::B + r * row + 4 * map_quad_of(k), v);
        });
        return own;
    }

    /// The lanes' sums, in their order; gate; store.
    __device__ __forceinline__ void finish(index first, const float* tile, const kept_type& own)
    {
        for_each_item<all_items>([&](int k) {
            float p[2][4], x[2][4];
            own.u[k].unpack_to(x);
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const float* const at = tile + Block::sums + (pair_of(k) + c * pairs) * row + 4 * quad_of(k);
                float4 share[layout::lanes];
#pragma unroll
                for (int lane = 0; lane < layout::lanes; ++lane) share[lane] = four_at(at + lane * Block::lane_plane);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    p[c][j] = element(share[0], j);
#pragma unroll
                    for (int lane = 1; lane < layout::lanes; ++lane) p[c][j] += element(share[lane], j);
                    if (a.D.data()) p[c][j] = fmaf(skip[k][c], x[c][j], p[c][j]);
                }
            }
            whole_or_not(first, [&](bool all) {
                const int count = all ? 4 : count_of(first, k);
                if (kept) {
                    T* const at = a.y_ungated.pointer(block.b, first + 4 * quad_of(k), block.c0 + 2 * pair_of(k));
                    patch::store(at, a.y_ungated.stride(1), a.y_ungated.stride(2), count, p);
                }
                if (gated) {
                    float gate[2][4];
                    own.z[k].unpack_to(gate);
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
#pragma unroll
                        for (int j = 0; j < 4; ++j) p[c][j] *= silu(gate[c][j]);
                    }
                }
                patch::store(y_at[k], a.y.stride(1), a.y.stride(2), count, p);
            });
            y_at[k] += layout::tokens * a.y.stride(1);
        });
    }
};

/// True if all rows are words of two neighbours or, where `turned`, of four tokens, and no thread's state is absent.
template <class T>
bool in_scan_words(const selective_scan_args<T, float>& a, bool turned, int padded_state)
{
    const auto fits = [&](const auto& v, std::size_t across) {
        return !v.data() || (turned ? in_words(v, 1, 4) : in_words(v, across, 2));
    };
    return a.A.extent(1) == padded_state && a.u.extent(2) % 2 == 0 && (!turned || a.u.extent(1) % 4 == 0) && fits(a.u, 2) &&
           fits(a.delta, 2) && fits(a.z, 2) && fits(a.y, 2) && fits(a.y_ungated, 2) && fits(a.B, 3) && fits(a.C, 3);
}

/// The same scan, its tokens visited from first to last.
template <class T, class Param>
selective_scan_args<T, Param> forwards(selective_scan_args<T, Param> a)
{
    if (!a.reverse) return a;
    a.reverse = false;
    const auto turn = [](auto& v) {
        if (v.data()) v = v.reversed(1);
    };
    turn(a.u), turn(a.delta), turn(a.z), turn(a.B), turn(a.C), turn(a.y), turn(a.y_ungated);
    return a;
}

}  // namespace ssmkit::cuda::detail
