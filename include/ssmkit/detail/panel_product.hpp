#pragma once

// Products of a panel, a few dozen tokens of many channels that stay in the second-level cache, with a packed matrix. A panel
// is tiles (detail/tile.hpp): lanes run along the channels, rows are tokens; that of complex numbers has a tile of real parts and
// one of imaginary parts for the same states, one behind the other.

#include <algorithm>

#include <ssmkit/detail/tile.hpp>
#include <ssmkit/detail/tile_product.hpp>

namespace ssmkit::detail {

/// Tiles of a panel as the left factor of a product: element (token, k) at the lane k of a tile. `parts` is 2 for complex numbers.
template <class R>
struct panel {
    R* data;
    index tile;              // from a tile to the next
    index channels, parts = 1;

    operator panel<const R>() const
        requires(!std::is_const_v<R>)
    {
        return {data, tile, channels, parts};
    }
};

/// Where element (k, lane of column tile c) of a packed matrix with `rows` rows lies: pairs of column tiles side by side.
template <class R, class Arch>
index packed_offset(index rows, index tiles, index k, index c)
{
    constexpr index n = lanes<R, Arch>, most = product_columns;
    const index first = c / most * most, columns = std::min(most, tiles - first);
    return (first * rows + k * columns + c - first) * n;
}

template <class R, class Arch>
constexpr index packed_size(index rows, index tiles)
{
    return rows * tiles * lanes<R, Arch>;
}

/// Rows of the block [row, row + Rows) and Columns tiles: what stays in registers.
template <class Arch, index Rows, index Columns, class R>
[[gnu::noinline, gnu::flatten]] void multiply_block(panel<const R> left, index row, const R* right, R* out, index out_tile)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    v sums[static_cast<std::size_t>(Rows * Columns)];
    unrolled<Rows * Columns>([&](auto i) __attribute__((always_inline)) { sums[i] = v(R(0)); });
    const R* p = left.data + row * n;
    for (index channels = left.channels; channels > 0; channels -= n) {
        const index count = std::min(n, channels);
        for (index part = 0; part < left.parts; ++part, p += left.tile, right += count * Columns * n) {
            add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{p, n, 1}, tiled_rows<R>{right, n, Columns * n}, count);
        }
    }
    R* const o = out + row * n;
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c)
                              __attribute__((always_inline)) { sums[r * Columns + c].store_unaligned(o + c * out_tile + r * n); });
    });
}

/// out = left * matrix for `tokens` tokens; `tiles` column tiles, `out_tile` apart. A sum grows in the order of the left
/// factor's channels, whatever the number of tokens.
template <class Arch, class R>
void multiply_panel(panel<const R> left, index tokens, const R* matrix, index tiles, R* out, index out_tile)
{
    constexpr index n = lanes<R, Arch>;
    const index rows = left.channels * left.parts;
    for_each_column_group<Arch>(tiles, [&](index first, auto columns) {
        const R* const right = matrix + first * rows * n;
        for_each_row_group<Arch>(tokens, [&](index row, auto count) {
            multiply_block<Arch, count(), columns(), R>(left, row, right, out + first * out_tile, out_tile);
        });
    });
}

/// Lanes [lane, lane + Rows) of a tile as rows: out[row][column tile] += Σ over tokens of left(token, row) right(token, column).
/// Summed over the panel's tokens first: sums over all of a long sequence would lose digits.
template <class Arch, index Rows, index Columns, class R>
[[gnu::noinline, gnu::flatten]] void add_outer_block(const R* left, const R* right, index right_tile, index tokens, R* out)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    v sums[static_cast<std::size_t>(Rows * Columns)];
    unrolled<Rows * Columns>([&](auto i) __attribute__((always_inline)) { sums[i] = v(R(0)); });
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{left, 1, n}, tiled_rows<R>{right, right_tile, n}, tokens);
    unrolled<Rows * Columns>([&](auto i) __attribute__((always_inline)) {
        (sums[i] + load<R, Arch>(out + i * n)).store_unaligned(out + i * n);
    });
}

/// Column tiles [first, first + Columns) of out += left^T right, out packed as a matrix whose rows are all lanes of left's tiles.
template <class Arch, index Columns, class R>
void add_outer(panel<const R> left, const R* right, index right_tile, index first, index tokens, R* out)
{
    constexpr index n = lanes<R, Arch>, rows = std::min(product_rows<Arch>, n);
    const index tiles = tiles_for<R, Arch>(left.channels) * left.parts;
    R* o = out + first * tiles * n * n;
    for (index tile = 0; tile < tiles; ++tile) {
        for (index lane = 0; lane < n; lane += rows, o += rows * Columns * n) {
            add_outer_block<Arch, rows, Columns>(left.data + tile * left.tile + lane, right + first * right_tile, right_tile,
                                                 tokens, o);
        }
    }
}

}  // namespace ssmkit::detail
