#pragma once

// The chunked form of ssd by products of warps: a block walks along the tokens of one head, 64 at a time, its state in registers.

#include <ssmkit/cuda/detail/ssd_block.cuh>

namespace ssmkit::cuda::detail {

template <class T>
using ssd_products = std::conditional_t<std::is_same_v<T, bfloat16>, bfloat16_products, float_products>;

/// Shared memory of a block. Rows are padded so that matrices are read without bank conflicts (float: B's in one of its two ways).
template <class T, int State, bool Summary>
struct ssd_tiles {
    using element = typename ssd_products<T>::element;
    static constexpr bool narrow = sizeof(element) == 2;
    static constexpr int u_row = ssd_piece + (narrow ? 8 : 4), B_row = State + (narrow ? 8 : 4), C_row = State + 8;
    static constexpr int M_row = ssd_piece + 8;
    static constexpr int stages = narrow ? 2 : 1;  // so many blocks fit into a multiprocessor's memory
    static constexpr int B_at = ssd_piece * u_row, C_at = B_at + ssd_piece * B_row, stage = C_at + (Summary ? 0 : ssd_piece * C_row);
    static constexpr int M_at = stages * stage, elements = M_at + (Summary ? 0 : ssd_piece * M_row);
    static constexpr int bytes = elements * static_cast<int>(sizeof(element)) + 2 * static_cast<int>(sizeof(ssd_steps));
};

/// M = C B^T, decayed, (token of C, token of B), as far as tokens do not come before those they look at: of the 16 x 16 pieces those
/// under and on the diagonal, shared between the four warps.
template <class Tiles, class Products, class Block>
__device__ __forceinline__ void ssd_mix(const Block& block, typename Tiles::element* M, const typename Tiles::element* C,
                                        const typename Tiles::element* B, const ssd_steps& now)
{
    const auto pairs = [&]<int Last, int From, int To>(std::integral_constant<int, Last>, std::integral_constant<int, From>,
                                                       std::integral_constant<int, To>) {
        float g[2 * (To - From)][4] = {};
#pragma unroll 4
        for (int k = 0; k < 8 * Block::state_tiles; k += Products::depth) {
            const left_operand x = Products::left_rows(C, Tiles::C_row, 16 * Last, k, block.lane);
#pragma unroll
            for (int j = From; j < To; ++j) {
                Products::multiply(g[2 * (j - From)], g[2 * (j - From) + 1], x,
                                   Products::right_rows(B, Tiles::B_row, 16 * j, k, block.lane));
            }
        }
        const int row = 16 * Last + block.own;
        const typename Block::pair_steps of(now, row);
#pragma unroll
        for (int j = 2 * From; j < 2 * To; ++j) {
            float(&m)[4] = g[j - 2 * From];
            const typename Block::column_steps from(now, 8 * j + block.pair);
            if (j < 2 * Last) {
                Block::template decay_pairs<true>(m, of, from);
            } else {
                Block::template decay_pairs<false>(m, of, from);
            }
            Products::store_two(M + row * Tiles::M_row + from.column, m[0], m[1]);
            Products::store_two(M + (row + 8) * Tiles::M_row + from.column, m[2], m[3]);
        }
    };
    constexpr std::integral_constant<int, 0> zero;
    constexpr std::integral_constant<int, 1> one;
    constexpr std::integral_constant<int, 2> two;
    constexpr std::integral_constant<int, 3> three;
    constexpr std::integral_constant<int, 4> four;
    if (block.warp == 0) {
        pairs(three, zero, two);
    } else if (block.warp == 1) {
        pairs(three, two, four);
    } else if (block.warp == 2) {
        pairs(two, zero, three);
    } else {
        pairs(one, zero, two);
        pairs(zero, zero, one);
    }
}

/// The four steps of listing 1 (section 6), a chunk at a time, for 64 channels of a head. A warp has 16 of them: their states are the
/// sums of one product and the left operand of the next without leaving its registers. `Summary` stops after the states.
///
/// What bounds it is shared memory, from which every warp reads B, C and the mixing matrix; traffic with memory is u and y.
/// bfloat16: u and the mixing matrix, rounded, are what the tensor cores multiply, and the states where outputs are made from them.
/// `Packed`: rows hold several sequences, and every token and pair of them is asked for its own.
template <class T, int State, bool Summary, bool Packed>
__device__ __forceinline__ void ssd_chunks(const ssd_args<T>& a, const ssd_plan& plan)
{
    using products = ssd_products<T>;
    using tiles = ssd_tiles<T, State, Summary>;
    using element = typename tiles::element;
    using u_tile = padded_tile<tiles::u_row>;
    using B_tile = padded_tile<tiles::B_row>;
    using C_tile = padded_tile<tiles::C_row>;
    constexpr int depth = products::depth, state_tiles = State / 8, token_terms = ssd_piece / depth;
    extern __shared__ float4 shared_memory[];
    element* const memory = reinterpret_cast<element*>(shared_memory);
    ssd_steps* const steps = reinterpret_cast<ssd_steps*>(memory + tiles::elements);
    element* const M = memory + tiles::M_at;

    using block_type = ssd_block<T, State, Summary, Packed, false>;
    const block_type block{a, plan};
    const int warp = block.warp, lane = block.lane;
    const index begin = block.begin, end = block.end;
    float h[state_tiles][4];
    block.load_state(h);
    typename block_type::template operands<u_tile, B_tile, C_tile> rows{block};
    const auto load = [&](index first, element* to) { rows.load(end - first, to, to + tiles::B_at, to + tiles::C_at); };
    float skip[2];
    block.load_skip(skip);
    ssd_stepper<Packed, T> stepper(a, block.place, block.head, begin, end);
    bool forgotten = false;
    if (begin < end) {
        if (tiles::stages == 2) load(begin, memory);
        if (warp == 0) {
            stepper.fetch(begin);
            stepper.prepare(steps[0], begin);
        }
    }

    int half = 0;
    for (index first = begin; first < end; first += ssd_piece, half ^= 1) {
        element* const u = memory + (tiles::stages == 2 ? half * tiles::stage : 0);
        element* const B = u + tiles::B_at;
        const element* const C = u + tiles::C_at;
        const ssd_steps& now = steps[half];
        const bool more = first + ssd_piece < end;
        if (tiles::stages == 1) {
            __syncthreads();  // all are done with the tokens before
            load(first, memory);
        }
        wait_for_copies();
        __syncthreads();
        if (tiles::stages == 2 && more) load(first + ssd_piece, memory + (half ^ 1) * tiles::stage);
        if (warp == 0 && more) stepper.fetch(first + ssd_piece);
        if constexpr (!Summary) ssd_mix<tiles, products>(block, M, C, B, now);
        if (warp == 0 && more) stepper.prepare(steps[half ^ 1], first + ssd_piece);  // it has few products above

        const auto inputs = [&](int k) { return products::left_columns(u, tiles::u_row, 16 * warp, k * depth, lane); };
        float y[8][4];
        bool clean = false;
        if constexpr (!Summary) {
            // Products with M's zeros turn a NaN of an input into one of tokens before it: where an output is NaN, once more without
            // the inputs that are not finite, which then reach the outputs by their places.
            for (;; clean = true) {
#pragma unroll
                for (int i = 0; i < 8; ++i) {
#pragma unroll
                    for (int c = 0; c < 4; ++c) y[i][c] = 0;
                }
#pragma unroll
                for (int k = 0; k < State / depth; ++k) {
                    const left_operand s = products::left_sums(h, k);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        products::multiply(y[2 * i], y[2 * i + 1], s, products::right_rows(C, tiles::C_row, 16 * i, k * depth, lane));
                    }
                }
                float2 in[8];
                block.load_columns(in, now.in);
                block.decay_outputs(y, in);
                if (!clean) __syncthreads();  // M is there
#pragma unroll
                for (int k = 0; k < token_terms; ++k) {
                    left_operand s = inputs(k);
                    if (clean) s = products::map(s, lane, [](float v, int) { return finite_or_zero(v); });
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        if (k * depth >= 16 * (i + 1)) continue;
                        products::multiply(y[2 * i], y[2 * i + 1], s, products::right_rows(M, tiles::M_row, 16 * i, k * depth, lane));
                    }
                }
                float sum = 0;
#pragma unroll
                for (int i = 0; i < 8; ++i) sum += (y[i][0] + y[i][1]) + (y[i][2] + y[i][3]);
                if (clean || !__any_sync(0xffffffffu, sum != sum)) break;
            }
        }

        if constexpr (Packed) {
            __syncthreads();
            block.template drop_rows<B_tile>(B, now);
            __syncthreads();
        }
        forgotten = Packed && (forgotten || now.through < 0);
        block.decay_state(h, now.through);
#pragma unroll
        for (int k = 0; k < token_terms; ++k) {
            const left_operand s = products::map(inputs(k), lane, [&](float v, int at) {
                return Packed ? weighted(v, now.out[k * depth + at]) : v * now.out[k * depth + at];
            });
#pragma unroll
            for (int n = 0; n < state_tiles / 2; ++n) {
                products::multiply(h[2 * n], h[2 * n + 1], s, products::right_columns(B, tiles::B_row, 16 * n, k * depth, lane));
            }
        }

        if constexpr (!Summary) {  // outputs take the place of the inputs, of which no other warp needs these
            if (clean) block.template mark_outputs<u_tile>(y, u, now);
            if (a.D.data()) {
#pragma unroll
                for (int k = 0; k < token_terms; ++k) products::add_left(y, k, inputs(k), skip);
            }
            if constexpr (Packed) block.clear_padding(y, now);
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 8; ++i) products::store_turned(u + 8 * i * tiles::u_row + 16 * warp, tiles::u_row, y[i], lane);
            __syncwarp();
            block.template store_outputs<u_tile>(u, first, now);
        }
    }
    block.store_state(h, stepper.total, forgotten);
}

}  // namespace ssmkit::cuda::detail
