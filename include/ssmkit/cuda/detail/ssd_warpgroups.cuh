#pragma once

// The chunked form of ssd by products of a warpgroup, for bfloat16 on sm_90a.

#include <ssmkit/cuda/detail/ssd_block.cuh>
#include <ssmkit/cuda/detail/warpgroup.cuh>

namespace ssmkit::cuda::detail {

/// Shared memory of a block, whose first tile is at a multiple of 1024 bytes.
template <int State, bool Summary>
struct ssd_warpgroup_tiles {
    using tile = swizzled_tile<ssd_piece>;
    static constexpr int B_at = tile::panel, C_at = B_at + State / 64 * tile::panel;
    static constexpr int stage = C_at + (Summary ? 0 : State / 64 * tile::panel);
    static constexpr int M_at = 2 * stage, elements = M_at + (Summary ? 0 : tile::panel);
    static constexpr int bytes = 1024 + elements * static_cast<int>(sizeof(bfloat16)) + 2 * static_cast<int>(sizeof(ssd_steps));
};

/// u (channel, token) of the warp's 16 channels and all tokens, as left operands of 16 tokens each.
template <class Block>
__device__ __forceinline__ void load_inputs(left_operand (&to)[4], const Block& block, const bfloat16* u)
{
    using tile = swizzled_tile<ssd_piece>;
    const bfloat16* const at = u + tile::at(block.lane % 8 + block.lane / 16 * 8, 16 * block.warp + block.lane / 8 % 2 * 8);
#pragma unroll
    for (int k = 0; k < 4; ++k) load_matrices<true>(to[k].v, at + tile::far(16 * k));
}

/// Whether any of the inputs is a NaN or infinite: 0 times it is a NaN then.
__device__ __forceinline__ bool any_not_finite(const left_operand (&inputs)[4])
{
    __nv_bfloat162 zeros = __floats2bfloat162_rn(0.0f, 0.0f);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            zeros = __hfma2(reinterpret_cast<const __nv_bfloat162&>(inputs[k].v[i]), __floats2bfloat162_rn(0.0f, 0.0f), zeros);
        }
    }
    const float2 both = __bfloat1622float2(zeros);
    return !(both.x + both.y == 0.0f);
}

/// ssd_chunks with products of the whole block, which read u's partners where they lie: B, C and the mixing matrix. Within a chunk
///     g = C B^T,  y = h C^T (both under way together),  M = g decayed,  y = y in + u M^T,  h = h through + (u out) B,
/// where y and h have channels for rows, as u and h in registers have. A warp decays 16 tokens' rows of g; the fewest are the first
/// warp's, which prepares the next chunk's steps. Operands are whole: ssd_block.
template <int State, bool Summary, bool Packed>
__device__ __forceinline__ void ssd_warpgroup_chunks(const ssd_args<bfloat16>& a, const ssd_plan& plan)
{
    static_assert(State == 128);
    using tiles = ssd_warpgroup_tiles<State, Summary>;
    using tile = typename tiles::tile;
    constexpr std::uint32_t panel_bytes = tile::panel * sizeof(bfloat16);
    constexpr int state_tiles = State / 8;
    extern __shared__ float4 shared_memory[];
    const auto start = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
    bfloat16* const memory = reinterpret_cast<bfloat16*>(reinterpret_cast<char*>(shared_memory) + (0u - start) % 1024);
    ssd_steps* const steps = reinterpret_cast<ssd_steps*>(memory + tiles::elements);
    bfloat16* const M = memory + tiles::M_at;

    using block_type = ssd_block<bfloat16, State, Summary, Packed, true>;
    const block_type block{a, plan};
    const int warp = block.warp, lane = block.lane;
    const index begin = block.begin, end = block.end;
    float h[state_tiles][4];
    block.load_state(h);
    typename block_type::template operands<tile, tile, tile> rows{block};
    const auto load = [&](index first, int half) {
        bfloat16* const to = memory + half * tiles::stage;
        rows.load(end - first, to, to + tiles::B_at, to + tiles::C_at);
    };
    float skip[2];
    block.load_skip(skip);
    ssd_stepper<Packed, bfloat16> stepper(a, block.place, block.head, begin, end);
    bool forgotten = false;
    if (begin < end) {
        load(begin, 0);
        if (warp == 0) {
            stepper.fetch(begin);
            stepper.prepare(steps[0], begin);
        }
    }
    if constexpr (!Summary) {  // pieces of M above the diagonal stay 0
        for (int i = threadIdx.x; i < tile::panel / 8; i += ssd_threads) reinterpret_cast<uint4*>(M)[i] = uint4{};
    }
    wait_for_copies();
    publish_tiles();

    int half = 0;
    for (index first = begin; first < end; first += ssd_piece, half ^= 1) {
        bfloat16 *const u = memory + half * tiles::stage, *const B = u + tiles::B_at;
        const ssd_steps& now = steps[half];
        const bool more = first + ssd_piece < end;
        __syncthreads();
        const operand_descriptor B_there = describe(B, panel_bytes), C_there = describe(u + tiles::C_at, panel_bytes);

        left_operand inputs[4];
        float y[8][4] = {};
        float2 out[8];
        bool finite = true;
        if constexpr (!Summary) {
            if (more) load(first + ssd_piece, half ^ 1);
            if (warp == 0 && more) stepper.fetch(first + ssd_piece);
            left_operand states[State / 16];
#pragma unroll
            for (int k = 0; k < State / 16; ++k) states[k] = bfloat16_products::left_sums(h, k);
            float g[8][4] = {};
            begin_products();
#pragma unroll
            for (int k = 0; k < State / 16; ++k) {
                multiply_tiles(g, term_columns<ssd_piece>(C_there, k), term_columns<ssd_piece>(B_there, k), k > 0);
            }
            end_products();
            begin_products();
#pragma unroll
            for (int k = 0; k < State / 16; ++k) multiply_tile(y, states[k], term_columns<ssd_piece>(C_there, k), k > 0);
            end_products();
            // What comes from shared memory is asked for before it is waited for something else.
            const typename block_type::pair_steps of(now, 16 * warp + block.own);
            typename block_type::column_steps from(now, block.pair);
            wait_for_products<1>(g);
            bfloat16* const M_row = M + tile::far(16 * warp + lane % 16);
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                if (j / 2 > warp) break;
                const typename block_type::column_steps here = from;
                if (j < 7) from = typename block_type::column_steps(now, 8 * (j + 1) + block.pair);
                if (j / 2 < warp) {
                    block.template decay_pairs<true>(g[j], of, here);
                } else {
                    block.template decay_pairs<false>(g[j], of, here);
                }
                if (j % 2 == 0) continue;
                const left_operand m = bfloat16_products::left_sums(g, j / 2);
                store_matrices<false>(M_row + ((j - 1 + lane / 16) ^ (lane % 8)) * 8, m.v[0], m.v[1], m.v[2], m.v[3]);
            }
            load_inputs(inputs, block, u);
            float2 in[8];
            block.load_columns(in, now.in);
            if (warp == 0 && more) stepper.prepare(steps[half ^ 1], first + ssd_piece);
            publish_tiles();
            // Products with M's zeros would turn a NaN of an input into one of tokens before it: inputs that are not finite are left out
            // and reach the outputs by their places.
            finite = !__syncthreads_or(any_not_finite(inputs));
            wait_for_products<0>(y);
            block.decay_outputs(y, in);
            left_operand finite_inputs[4];
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                finite_inputs[k] = inputs[k];
                if (!finite) {
                    finite_inputs[k] = bfloat16_products::map(inputs[k], lane, [](float v, int) { return finite_or_zero(v); });
                }
            }
            const operand_descriptor M_there = describe(M, panel_bytes);
            block.load_columns(out, now.out);
            begin_products();
#pragma unroll
            for (int k = 0; k < 4; ++k) multiply_tile(y, finite_inputs[k], term_columns<ssd_piece>(M_there, k), true);
            end_products();
        } else {
            if (more) load(first + ssd_piece, half ^ 1);
            if (warp == 0 && more) {
                stepper.fetch(first + ssd_piece);
                stepper.prepare(steps[half ^ 1], first + ssd_piece);
            }
            load_inputs(inputs, block, u);
            block.load_columns(out, now.out);
        }

        if constexpr (Packed) {
            block.template drop_rows<tile>(B, now);
            publish_tiles();
            __syncthreads();
        }
        forgotten = Packed && (forgotten || now.through < 0);
        block.decay_state(h, now.through);
        left_operand kept[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            kept[k] = bfloat16_products::map(inputs[k], 0, [&](float v, int at) {
                const float2 weights = out[2 * k + at / 8];
                const float weight = at % 2 ? weights.y : weights.x;
                return Packed ? weighted(v, weight) : v * weight;
            });
        }
        begin_products();
#pragma unroll
        for (int k = 0; k < 4; ++k) multiply_turned_tile(h, kept[k], term_rows(B_there, k));
        end_products();

        wait_for_copies();
        publish_tiles();  // before the outputs, for whose way to memory it would wait
        if constexpr (!Summary) {  // outputs take the place of the inputs, of which no other warp needs these
            wait_for_products<1>(y);
            if (!finite) block.template mark_outputs<tile>(y, u, now);
            if (a.D.data()) {
#pragma unroll
                for (int k = 0; k < 4; ++k) bfloat16_products::add_left(y, k, inputs[k], skip);
            }
            if constexpr (Packed) block.clear_padding(y, now);
            bfloat16* const cell = u + tile::at(lane % 8 + lane / 16 * 8, 16 * warp + lane / 8 % 2 * 8);
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const left_operand out = bfloat16_products::left_sums(y, k);
                store_matrices<true>(cell + tile::far(16 * k), out.v[0], out.v[1], out.v[2], out.v[3]);
            }
            __syncwarp();
            block.template store_outputs<tile>(u, first, now);
        }
        wait_for_products<0>(h);
    }
    block.store_state(h, stepper.total, forgotten);
}

}  // namespace ssmkit::cuda::detail
