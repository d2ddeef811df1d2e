#pragma once

// The long convolution where a transform does not fit a block: N = N1 N2 numbers lie in memory as N1 rows of N2. A step of radix N1
// over the whole ring is, for every column n2, the ring of X^N1 - i with X = x^N2, and has no other factors; its leaf l is the ring
// x^N2 - e^(2 pi i (1/4 + part) / N1), a row of N2 numbers, which a block takes as it takes a short row, with a table of its own.
// So a convolution is three passes over memory: columns forth, rows forth and back with the product between, columns back.

#include <ssmkit/cuda/detail/fft_conv_rows.cuh>

namespace ssmkit::cuda::detail {

/// Columns of 256 are two steps of radix 16, 16 of them side by side: a warp's accesses are 64 bytes of float, 128 of float2.
/// Those of 4096 are there for transforms of more than 2^22 numbers.
template <int N1>
using column_ring = ring<N1, (N1 > 256 ? 2 : 1), (N1 > 256 ? 4 : 16)>;
template <int N1>
inline constexpr int column_threads = column_ring<N1>::threads * column_ring<N1>::columns;
template <int N1>
inline constexpr int column_bytes = column_ring<N1>::exchange_bytes + column_ring<N1>::table_bytes;

/// What is under way at a time: `units` kernels (or groups of `together` of them, where channels are summed) and `pieces` of each
/// one's rows. Row (i pieces + j) together + s of a workspace belongs to piece j of unit i, and kernel s of it.
struct long_flight {
    index first_unit, units, first_piece, pieces, together;
    index outer, pieces_of_row;  // unit = h outer + c0; piece = b pieces_of_row + its place in the row

    struct row {
        index b, c, h, piece;
    };
    /// In 32 bits, whose divisions cost a third: rows that are this long are fewer than 2^31 in any memory.
    __device__ row of(unsigned r) const
    {
        const auto part = [](index n) { return static_cast<unsigned>(n); };
        const unsigned s = r % part(together), i = r / part(together);
        const unsigned j = part(first_piece) + i % part(pieces), unit = part(first_unit) + i / part(pieces);
        return {j / part(pieces_of_row), unit % part(outer) + s, unit / part(outer), j % part(pieces_of_row)};
    }
    __host__ __device__ index rows() const { return units * pieces * together; }
};

/// A launch over columns: rows of x are read, or of out are written, or taps.
struct long_columns {
    long_flight flight;
    stored type;
    conv_rows x, gate, out[2], factor[2];
    conv_taps taps;
    bool of_taps, sum_in_time, outputs_only;  // the last: of x, only what a piece's outputs lie at
    index length, step, lead;
    int n2;
    float2* numbers;    // rows of N
    index row_stride;   // of `numbers` in rows
};

/// What both ways share: a block has neighbouring columns of a row.
template <int N1>
struct column_block {
    using R = column_ring<N1>;
    int column = threadIdx.x % R::columns, thread = threadIdx.x / R::columns;
    float2* memory;
    node_factors* table;

    __device__ explicit column_block(float4* shared)
        : memory(reinterpret_cast<float2*>(shared)), table(reinterpret_cast<node_factors*>(memory + N1 * R::columns))
    {
        R::fill_table(table, 0, 1, threadIdx.x, column_threads<N1>);
        __syncthreads();
    }

    __device__ __forceinline__ conv_place place(int g, int n2, int at, index first, index begin, index end) const
    {
        return place_in_row(first, begin, end, R::place(thread, g) * n2 + at, N1 / 16 * n2, N1 * n2);
    }
};

template <int N1>
__global__ void __launch_bounds__(column_threads<N1>, (N1 > 256 ? 1 : 2))
    conv_columns_forth_kernel(const __grid_constant__ long_columns a)
{
    extern __shared__ float4 shared_memory[];
    using R = column_ring<N1>;
    const column_block<N1> block(shared_memory);
    const int n2 = a.n2, size = N1 * n2;
    const unsigned tiles = static_cast<unsigned>(n2) / R::columns, tasks = static_cast<unsigned>(a.flight.rows()) * tiles;
    for (unsigned task = blockIdx.x; task < tasks; task += gridDim.x) {
        const unsigned row = task / tiles;
        const int at = static_cast<int>(task % tiles) * R::columns + block.column;
        const long_flight::row r = a.flight.of(row);
        const index begin = r.piece * a.step, first = begin - a.lead;
        float2* const to = a.numbers + index{row} * a.row_stride * size + at;
        const auto load = [&](float2 (&z)[16], int g) {
            if (a.of_taps) {
#pragma unroll
                for (int j = 0; j < 16; ++j) {
                    const int n = (R::place(block.thread, g) + j * (N1 / 16)) * n2 + at;
                    z[j] = {a.taps(r.c, r.h, n, 2 * index{size}), a.taps(r.c, r.h, index{n} + size, 2 * index{size})};
                }
                return;
            }
            const conv_place in = block.place(g, n2, at, first, a.outputs_only ? begin : 0,
                                              a.outputs_only ? min(a.length, begin + a.step) : a.length);
            fetch_row<false>(z, a.x, a.x.offset(r.b, r.c, r.h), a.type, in);
            if (a.gate.data) fetch_row<true>(z, a.gate, a.gate.offset(r.b, r.c, r.h), a.type, in);
        };
        __syncthreads();
        R::forth(block.memory, block.table, block.thread, block.column, load, [&](float2 (&z)[16], int g) {
#pragma unroll
            for (int j = 0; j < 16; ++j) to[index{16 * R::place(block.thread, g) + j} * n2] = z[j];
        });
    }
}

/// Where rows are added up in time, their products go to the place of the first one, in the block's own columns.
template <int N1, bool OfTaps>
__global__ void __launch_bounds__(column_threads<N1>, (N1 > 256 ? 1 : 2))
    conv_columns_back_kernel(const __grid_constant__ long_columns a)
{
    extern __shared__ float4 shared_memory[];
    using R = column_ring<N1>;
    const column_block<N1> block(shared_memory);
    const int n2 = a.n2, size = N1 * n2;
    const auto together = static_cast<unsigned>(a.flight.together), sums = a.sum_in_time ? together : 1;
    const unsigned tiles = static_cast<unsigned>(n2) / R::columns;
    const unsigned tasks = static_cast<unsigned>(a.flight.units * a.flight.pieces) * tiles;
    for (unsigned task = blockIdx.x; task < tasks; task += gridDim.x) {
        const unsigned item = task / tiles;
        const int at = static_cast<int>(task % tiles) * R::columns + block.column;
        float2* const here = a.numbers + index{item} * a.row_stride * size + at;
        for (unsigned s = 0; s < sums; ++s) {
            const long_flight::row r = a.flight.of(item * together + s);
            const index begin = r.piece * a.step, first = begin - a.lead, end = min(a.length, begin + a.step);
#pragma unroll 1
            for (int g = 0; g < R::groups; ++g) {
                float2 z[16];
#pragma unroll
                for (int j = 0; j < 16; ++j) z[j] = here[index{s} * size + index{16 * R::place(block.thread, g) + j} * n2];
                if (g == 0) __syncthreads();  // what the column before read last
                R::turn_back(z, g, block.memory, block.table, block.thread, block.column);
            }
            R::back(block.memory, block.table, block.thread, block.column, [&](float2 (&z)[16], int g) {
                if constexpr (OfTaps) {
#pragma unroll
                    for (int j = 0; j < 16; ++j) {
                        const index n = index{R::place(block.thread, g) + j * (N1 / 16)} * n2 + at;
                        a.taps.put(r.c, r.h, n, 2 * index{size}, z[j].x);
                        a.taps.put(r.c, r.h, n + size, 2 * index{size}, z[j].y);
                    }
                    return;
                }
                const conv_place out = block.place(g, n2, at, first, begin, end);
                const conv_rows none{};
                if (a.sum_in_time) {
                    fetch_row<true>(z, a.factor[0], a.factor[0].offset(r.b, r.c, r.h), a.type, out);
                    const auto sum = [&](int j) -> float2& { return here[index{R::place(block.thread, g) + j * (N1 / 16)} * n2]; };
                    if (s > 0) {
#pragma unroll
                        for (int j = 0; j < 16; ++j) z[j] = plus(z[j], sum(j));
                    }
                    if (s + 1 < sums) {
#pragma unroll
                        for (int j = 0; j < 16; ++j) sum(j) = z[j];
                        return;
                    }
                }
                const auto store = [&](const conv_rows& to, const conv_rows& by) {
                    store_row(z, to, to.offset(r.b, r.c, r.h), by, by.offset(r.b, r.c, r.h), a.type, out);
                };
                store(a.out[0], a.sum_in_time ? none : a.factor[0]);
                if (a.out[1].data) store(a.out[1], a.factor[1]);
            });
        }
        if (!OfTaps || at >= R::columns) continue;
        const long_flight::row r = a.flight.of(item);
        a.taps.put_zeros(r.c, r.h, threadIdx.x, column_threads<N1>);
    }
}

/// A launch over rows of leaves. Item i, of `items` a unit, is the sum over s < sums of row i sums + s times the kernel's row
/// (unit kernels + (that row mod kernels)), which are transformed here before their first use.
struct long_leaves {
    float2 *numbers, *kernels_numbers, *out;
    index units, items, sums, kernels, out_stride;  // out_stride: rows from an item's sum to the next one's
    bool fresh, conjugate, add, finish;             // kernels are not transformed; products go on from, and end, the sum in `out`
    int n1;                                         // a power of 16
};

template <int N2>
__global__ void __launch_bounds__(block_threads<N2>, blocks_wanted<N2>) conv_leaves_kernel(const __grid_constant__ long_leaves a)
{
    extern __shared__ float4 shared_memory[];
    using R = row_ring<N2>;
    constexpr int together = rows_of_block<N2>;  // leaves of a block: each has a table
    const int thread = threadIdx.x % R::threads, mine = threadIdx.x / R::threads;
    float2* const memory = reinterpret_cast<float2*>(shared_memory) + mine * N2;
    auto* const table = reinterpret_cast<node_factors*>(reinterpret_cast<float2*>(shared_memory) + together * N2) +
                        mine * (R::table_bytes / 32);
    const int leaf = static_cast<int>(blockIdx.x) * together + mine;
    unsigned part = 0, rest = static_cast<unsigned>(leaf);
    for (int n = a.n1; n > 1; n /= 16, rest >>= 4) part = part << 4 | (rest & 15u);
    R::fill_table(table, part, static_cast<unsigned>(a.n1), thread, R::threads);
    __syncthreads();
    const index size = index{a.n1} * N2, place = index{leaf} * N2;
    const auto load_from = [&](const float2* from) {
        return [=](float2 (&z)[16], int g) {
#pragma unroll
            for (int j = 0; j < 16; ++j) z[j] = from[R::place(thread, g) + j * (N2 / 16)];
        };
    };
    const auto each = [&](float2 (&z)[16], int g, auto&& f) { row_block<N2>::each(z, g, thread, f); };
    for (index unit = blockIdx.y; unit < a.units; unit += gridDim.y) {
        float2* const kernels = a.kernels_numbers + unit * a.kernels * size + place;
        for (index k = 0; a.fresh && k < a.kernels; ++k) {
            float2* const kernel = kernels + k * size;
            __syncthreads();
            R::forth(memory, table, thread, 0, load_from(kernel),
                     [&](float2 (&z)[16], int g) { each(z, g, [&](float2& v, int at) { kernel[at] = v; }); });
        }
        for (index i = 0; i < a.items; ++i) {
            float2* const out = a.out + (unit * a.items + i) * a.out_stride * size + place;
            for (index s = 0; s < a.sums; ++s) {
                const index row = i * a.sums + s;
                const float2* const kernel = kernels + row % a.kernels * size;
                const bool add = s > 0 || a.add, last = s + 1 == a.sums && a.finish;
                __syncthreads();
                R::forth(memory, table, thread, 0, load_from(a.numbers + (unit * a.items * a.sums + row) * size + place),
                         [&](float2 (&z)[16], int g) {
                             if (a.conjugate) {
                                 each(z, g, [&](float2& v, int at) { v = times<true>(v, kernel[at]); });
                             } else {
                                 each(z, g, [&](float2& v, int at) { v = times(v, kernel[at]); });
                             }
                             if (add) each(z, g, [&](float2& v, int at) { v = plus(v, out[at]); });
                             if (!last) return each(z, g, [&](float2& v, int at) { out[at] = v; });
                             R::turn_back(z, g, memory, table, thread, 0);
                         });
            }
            if (!a.finish) continue;
            R::back(memory, table, thread, 0, [&](float2 (&z)[16], int g) {
#pragma unroll
                for (int j = 0; j < 16; ++j) out[R::place(thread, g) + j * (N2 / 16)] = z[j];
            });
        }
    }
}

}  // namespace ssmkit::cuda::detail
