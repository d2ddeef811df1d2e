#pragma once

// Long convolutions through memory: how many rows are under way at a time, and the launches that take them from end to end.

#include <ssmkit/cuda/detail/fft_conv_columns.cuh>

namespace ssmkit::cuda::detail {

/// Bytes of rows under way, if what belongs together needs no more: many blocks a launch matter more than rows that the next pass
/// still finds in the L2 cache. 256 rows of 2^20 samples on an H200, of the peer's time: 64 MB 0.59, 128 MB 0.54, 256 MB 0.51,
/// 512 MB 0.47, 1 GB 0.44.
inline constexpr index long_flight_bytes = index{512} << 20;

/// Which N1 rows of which N2 a transform is made of.
inline int long_columns_of(index size) { return size > (index{1} << 22) ? 4096 : 256; }

/// The smallest size that holds so many samples, twice: N2 is one of with_row_size's.
inline index long_size(index samples)
{
    index n = std::max<index>(static_cast<index>(std::bit_ceil(static_cast<std::uint64_t>(samples + 1) / 2)), 65536);
    return n == 131072 ? 262144 : n;
}
inline constexpr index longest_ring = index{1} << 26;

/// How many units and pieces go at a time, where each unit has `kernels` rows of its own and `rows` of every piece.
struct long_share {
    index units, pieces, rows;

    long_share(index all_units, index all_pieces, index kernels, index rows_of_piece, index size)
    {
        rows_of_piece = std::max<index>(rows_of_piece, 1);  // no channels, no rows
        const index most = long_flight_bytes / (8 * size);
        pieces = std::clamp<index>((most - kernels) / rows_of_piece, 1, std::max<index>(all_pieces, 1));
        units = std::clamp<index>(most / (kernels + pieces * rows_of_piece), 1, std::max<index>(all_units, 1));
        rows = units * (kernels + pieces * rows_of_piece);
    }
};

template <class F>
void with_columns(index size, F&& f)
{
    if (long_columns_of(size) == 256) return f(std::integral_constant<int, 256>{});
    return f(std::integral_constant<int, 4096>{});
}

inline void run_columns(const char* op, bool forth, const long_columns& a, index size, cudaStream_t stream)
{
    with_columns(size, [&](auto n) {
        constexpr int N = decltype(n)::value;
        const index rows = a.flight.rows() / (forth ? 1 : a.flight.together), tasks = rows * (a.n2 / column_ring<N>::columns);
        if (tasks == 0) return;
        const auto back = a.of_taps ? conv_columns_back_kernel<N, true> : conv_columns_back_kernel<N, false>;
        const auto grid = static_cast<unsigned>(std::min(tasks, 4 * most_blocks));
        launch_rows(op, forth ? conv_columns_forth_kernel<N> : back, grid, column_threads<N>, column_bytes<N>, stream, a);
    });
}

inline void run_leaves(const char* op, const long_leaves& a, index size, cudaStream_t stream)
{
    with_row_size(size / a.n1, [&](auto n) {
        constexpr int N = decltype(n)::value, together = rows_of_block<N>;
        constexpr int bytes = together * (row_ring<N>::exchange_bytes + row_ring<N>::table_bytes);
        // As many blocks as fit the device at once: a block keeps its leaf's table for several units.
        const index leaves = a.n1 / together, most = std::max<index>(a.units, 1);
        const index splits = std::clamp<index>(132 * blocks_wanted<N> / leaves, 1, most);
        const dim3 grid(static_cast<unsigned>(leaves), static_cast<unsigned>(splits));
        launch_rows(op, conv_leaves_kernel<N>, grid, block_threads<N>, bytes, stream, a);
    });
}

/// What a job of long rows takes of a workspace, in numbers.
inline index long_job_numbers(const conv_job& a, index size)
{
    const index together = a.summed ? a.channels : 1;
    return long_share(a.summed ? a.dim : a.channels * a.dim, a.batch * a.pieces, together, together, size).rows * size;
}

/// run_conv_job for rows whose transforms do not fit a block.
inline void run_long_job(const char* op, const conv_job& a, index size, float2* memory, cudaStream_t stream)
{
    const index together = a.summed ? a.channels : 1, outer = a.summed ? 1 : a.channels;
    const index units = outer * a.dim, pieces = a.batch * a.pieces;
    const long_share share(units, pieces, together, together, size);
    const int n1 = long_columns_of(size), n2 = static_cast<int>(size / n1);
    for (index u = 0; u < units; u += share.units) {
        for (index p = 0; p < pieces; p += share.pieces) {
            const index some = std::min(share.units, units - u), piece_count = std::min(share.pieces, pieces - p);
            float2 *const kernels = memory, *const rows = memory + some * together * size;
            long_columns columns{};
            columns.n2 = n2;
            columns.taps = a.taps;
            if (p == 0) {
                columns.flight = {u, some, 0, 1, together, outer, 1};
                columns.of_taps = true;
                columns.numbers = kernels;
                columns.row_stride = 1;
                run_columns(op, true, columns, size, stream);
            }
            columns.flight = {u, some, p, piece_count, together, outer, a.pieces};
            columns.of_taps = false;
            columns.numbers = rows;
            columns.row_stride = 1;
            columns.type = a.type;
            columns.x = a.x;
            columns.gate = a.gate;
            columns.length = a.length;
            columns.step = a.step;
            columns.lead = a.lead;
            run_columns(op, true, columns, size, stream);
            long_leaves leaves{};
            leaves.numbers = leaves.out = rows;
            leaves.kernels_numbers = kernels;
            leaves.units = some;
            leaves.kernels = together;
            leaves.sums = a.sum_in_time ? 1 : together;
            leaves.items = piece_count * together / leaves.sums;
            leaves.out_stride = leaves.sums;
            leaves.fresh = p == 0;
            leaves.conjugate = a.backwards;
            leaves.finish = true;
            leaves.n1 = n1;
            run_leaves(op, leaves, size, stream);
            columns.row_stride = together;
            columns.sum_in_time = a.sum_in_time && together > 1;
            for (int i = 0; i < 2; ++i) {
                columns.out[i] = a.out[i];
                columns.factor[i] = a.factor[i];
            }
            run_columns(op, false, columns, size, stream);
        }
    }
}

/// The same for the gradients of kernels.
inline index long_cross_numbers(const cross_job& a, index size)
{
    return long_share(a.tasks, a.batch * a.pieces, 1, 2, size).rows * size;
}

inline void run_long_cross(const char* op, const cross_job& a, index size, float2* memory, cudaStream_t stream)
{
    const index channels = a.dim > 0 ? a.tasks / a.dim : 0, pieces = a.batch * a.pieces;
    const long_share share(a.tasks, pieces, 1, 2, size);
    const int n1 = long_columns_of(size), n2 = static_cast<int>(size / n1);
    for (index u = 0; u < a.tasks; u += share.units) {
        const index some = std::min(share.units, a.tasks - u);
        float2* const sums = memory;
        const auto sum_bytes = static_cast<std::size_t>(some * size) * sizeof(float2);
        if (pieces == 0) require_success(op, cudaMemsetAsync(sums, 0, sum_bytes, stream));
        long_columns columns{};
        columns.n2 = n2;
        columns.row_stride = 1;
        columns.type = a.type;
        columns.length = a.length;
        columns.step = a.step;
        columns.lead = a.lead;
        for (index p = 0; p < pieces; p += share.pieces) {
            const index count = std::min(share.pieces, pieces - p);
            float2 *const inputs = sums + some * size, *const upstream = inputs + some * count * size;
            columns.flight = {u, some, p, count, 1, channels, a.pieces};
            columns.numbers = inputs;
            columns.x = a.x;
            columns.gate = a.gate;
            columns.outputs_only = false;
            run_columns(op, true, columns, size, stream);
            columns.numbers = upstream;
            columns.x = a.dy;
            columns.gate = a.dy_gate;
            columns.outputs_only = true;
            run_columns(op, true, columns, size, stream);
            long_leaves leaves{};
            leaves.numbers = upstream;
            leaves.kernels_numbers = inputs;
            leaves.out = sums;
            leaves.units = some;
            leaves.items = 1;
            leaves.sums = leaves.kernels = count;
            leaves.out_stride = 1;
            leaves.fresh = leaves.conjugate = true;
            leaves.add = p > 0;
            leaves.finish = p + count == pieces;
            leaves.n1 = n1;
            run_leaves(op, leaves, size, stream);
        }
        columns.flight = {u, some, 0, 1, 1, channels, 1};
        columns.of_taps = true;
        columns.taps = a.taps;
        columns.numbers = sums;
        run_columns(op, false, columns, size, stream);
    }
}

}  // namespace ssmkit::cuda::detail
