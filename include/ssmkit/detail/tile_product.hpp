#pragma once

// Small matrix products on registers: a few rows times a few registers of columns, operands read where they lie. Rows of the
// right factor are tiles (detail/tile.hpp), the left factor is broadcast, and nothing is packed.

#include <ssmkit/detail/simd.hpp>

namespace ssmkit::detail {

/// The block of a product that stays in registers: 8 x 2 of 32, 4 x 2 of 16. 4 x 4 takes 20 % longer: four tiles of a head's
/// state, 128 rows each, are all of the first-level cache; 5 x 2 takes the same, 6 x 2 3 %, 12 x 2 15 % longer.
template <class Arch>
inline constexpr index product_rows = many_registers<Arch> ? 8 : 4;
inline constexpr index product_columns = 2;

/// The left factor, a(r, k) at data[r * row + k * step].
template <class R>
struct broadcast_rows {
    const R* data;
    index row, step;
};

/// The right factor: element (k, lane of tile c) at data[c * tile + k * step + lane].
template <class R>
struct tiled_rows {
    const R* data;
    index tile, step;
};

/// sums[r][c] += Σ_k a(r, k) b(k, c) for `count` k. Sums grow in the order of k.
template <class Arch, index Rows, index Columns, class R>
[[gnu::always_inline]] inline void add_product(vec<R, Arch>* sums, broadcast_rows<R> a, tiled_rows<R> b, index count)
{
    using v = vec<R, Arch>;
    const R *p = a.data, *q = b.data;
    for (index k = 0; k < count; ++k, p += a.step, q += b.step) {
        v right[Columns];
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) { right[c] = load<R, Arch>(q + c * b.tile); });
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            const v left(p[r * a.row]);
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
                sums[r * Columns + c] = multiply_add(left, right[c], sums[r * Columns + c]);
            });
        });
    }
}

/// Calls f(first, Columns) for groups of neighbouring tiles that cover 0 ... tiles - 1, Columns a constant: groups as even as
/// they can be, since a narrow one keeps too few sums under way to hide the latency of a multiply-add.
template <class Arch, index Most = product_columns, class F>
void for_each_column_group(index tiles, F&& f)
{
    const auto with_columns = [&]<index N>(std::integral_constant<index, N> columns, auto&& self, index first, index count) {
        if (count == N) return f(first, columns);
        if constexpr (N > 1) self(std::integral_constant<index, N - 1>{}, self, first, count);
    };
    for (index groups = (tiles + Most - 1) / Most, first = 0; groups > 0; --groups) {
        const index count = (tiles - first + groups - 1) / groups;
        with_columns(std::integral_constant<index, Most>{}, with_columns, first, count);
        first += count;
    }
}

/// Calls f(first, Rows) for groups of neighbouring rows that cover 0 ... rows - 1, Rows a constant: `Most`, then 4, then 1.
template <class Arch, index Most = product_rows<Arch>, class F>
void for_each_row_group(index rows, F&& f)
{
    index first = 0;
    for (; first + Most <= rows; first += Most) f(first, std::integral_constant<index, Most>{});
    if constexpr (Most > 4) {
        if (first + 4 <= rows) {
            f(first, std::integral_constant<index, 4>{});
            first += 4;
        }
    }
    for (; first < rows; ++first) f(first, std::integral_constant<index, 1>{});
}

}  // namespace ssmkit::detail
