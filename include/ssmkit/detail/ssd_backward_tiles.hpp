#pragma once

// The products of ssd's backward pass on registers, beside those of the forward pass (detail/ssd_head.hpp).

#include <algorithm>

#include <ssmkit/detail/ssd_head.hpp>

namespace ssmkit::detail {

/// to_rc = Σ_p left(r, p) right(p, c) over headdim, `tiles` tiles of it, for `Rows` rows; column c times scales_c unless null.
/// left(r, p) lies at left[tile of p][r][lane of p], right as tiles of columns, one row for every p.
template <class Arch, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_headdim_product_tile(const R* left, index left_tile, const R* right, index headdim,
                                                              index tiles, const R* scales, R* to, index to_row, index to_tile)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    v sums[Rows * Columns];
    unrolled<Rows * Columns>([&](auto k) __attribute__((always_inline)) { sums[k] = v(R(0)); });
    for (index t = 0; t < tiles; ++t) {
        add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{left + t * left_tile, n, 1},
                                         tiled_rows<R>{right + t * n * n, tiles * n * n, n}, std::min(n, headdim - t * n));
    }
    unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
        const v scale = scales ? load<R, Arch>(scales + c * n) : v(R(1));
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            store(sums[r * Columns + c] * scale, to + r * to_row + c * to_tile);
        });
    });
}

/// The whole product of `rows` rows and `column_tiles` tiles of columns.
template <class Arch, class R>
void ssd_headdim_product(index rows, index column_tiles, const R* left, index left_tile, const R* right, index headdim,
                         index tiles, const R* scales, R* to, index to_row, index to_tile)
{
    constexpr index n = lanes<R, Arch>;
    for_each_column_group<Arch>(column_tiles, [&](index first, auto columns) {
        for_each_row_group<Arch>(rows, [&](index i, auto together) {
            ssd_headdim_product_tile<Arch, R, together(), columns()>(
                left + i * n, left_tile, right + first * tiles * n * n, headdim, tiles, scales ? scales + first * n : nullptr,
                to + i * to_row + first * to_tile, to_row, to_tile);
        });
    });
}

/// w_j = Σ_{i >= j} pairs_ij dp_i + e_j B_j R for `Rows` tokens.
template <class Arch, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_input_gradient_tile(const ssd_head_piece<R>& p, index j, index first)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, row = ssd_piece_tokens;
    v sums[Rows * Columns];
    unrolled<Rows * Columns>([&](auto k) __attribute__((always_inline)) { sums[k] = v(R(0)); });
    if (p.live) {
        const broadcast_rows<R> B{p.B.data + j * p.B.row, p.B.row, p.B.step};
        add_product<Arch, Rows, Columns>(sums, B, tiled_rows<R>{p.h + first * p.state_tile, p.state_tile, n}, p.state);
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            const v to_end(p.decay[j + r]);
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) { sums[r * Columns + c] *= to_end; });
        });
    }
    const R *const pairs = p.mixing + j, *const dp = p.u + first * p.token_tile;
    unrolled<Rows>([&](auto d) __attribute__((always_inline)) {  // the triangle: tokens j ... j + d of row j + d
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            const v right = load<R, Arch>(dp + c * p.token_tile + (j + d) * n);
            unrolled<d + 1>([&](auto r) __attribute__((always_inline)) {
                sums[r * Columns + c] = multiply_add(v(pairs[(j + d) * row + r]), right, sums[r * Columns + c]);
            });
        });
    });
    const index below = j + Rows;
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{pairs + below * row, 1, row},
                                     tiled_rows<R>{dp + below * n, p.token_tile, n}, p.count - below);
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            store(sums[r * Columns + c], p.y + (first + c) * p.token_tile + (j + r) * n);
        });
    });
}

}  // namespace ssmkit::detail
