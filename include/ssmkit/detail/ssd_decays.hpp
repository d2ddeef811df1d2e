#pragma once

// Step sizes and decays of ssd: what a head does to its state between the tokens of a piece.

#include <algorithm>
#include <array>

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/detail/math.hpp>
#include <ssmkit/detail/tile.hpp>

namespace ssmkit::detail {

/// Tokens of a piece in the chunked form: the state products cost the same at any number, those within the piece half of it.
/// 16: 2 % faster, 48: 1 % slower, 64: 4 %.
inline constexpr index ssd_piece_tokens = 32;

/// Δ from delta + delta_bias. Reads and writes whole registers.
template <class Arch, class T, class R>
[[gnu::flatten]] void ssd_limit_steps(const ssd_args<T>& a, const R* raw, index tokens, R* delta)
{
    using v = vec<R, Arch>;
    const v least(a.delta_min), most(a.delta_max);
    for (index i = 0; i < tokens; i += lanes<R, Arch>) {
        const v given = load<R, Arch>(raw + i), r = a.delta_softplus ? softplus(given) : given;
        store(xsimd::select(r < least, least, xsimd::select(r > most, most, r)), delta + i);  // a NaN is neither
    }
}

/// Running sums of log2 decays, high[i] + low[i] up to token i: taken in double and kept as pairs, since the decay between two
/// tokens is a small difference of what a strong one before them makes large. A decay below 2^-1200 is none. Zeros follow for a
/// register. Returns whether no state grows more than 2^64-fold.
template <class Arch, class R>
bool ssd_sum_decays(const R* delta, index count, R A, R* high, R* low)
{
    const double rate = static_cast<double>(A) * log2_e;
    double sum = 0, most = 0;
    for (index i = 0; i < count; ++i) {
        const double decay = static_cast<double>(delta[i]) * rate;
        sum += decay < -1200 ? -1200 : decay;
        most = std::max(most, sum);
        high[i] = static_cast<R>(sum);
        low[i] = static_cast<R>(sum - static_cast<double>(high[i]));
    }
    std::fill_n(high + count, lanes<R, Arch>, R(0));
    std::fill_n(low + count, lanes<R, Arch>, R(0));
    return most <= 64;
}

/// The decays from before the piece to behind each token, and from each token to the piece's end.
template <class Arch, class R>
[[gnu::flatten]] void ssd_exponentiate_sums(const R* high, const R* low, index count, R* decay, R* to_end)
{
    using v = vec<R, Arch>;
    const v last_high(high[count - 1]), last_low(low[count - 1]);
    for (index i = 0; i < count; i += lanes<R, Arch>) {
        const v h = load<R, Arch>(high + i), l = load<R, Arch>(low + i);
        store(fast_exp2(h), decay + i);
        store(fast_exp2((last_high - h) + (last_low - l)), to_end + i);
    }
}

/// out_ij = products_ij times the decay from token j to token i for j <= i, otherwise 0; matrices have rows of
/// ssd_piece_tokens.
template <class Arch, class R>
[[gnu::flatten]] void ssd_decay_pairs(const R* products, const R* high, const R* low, index count, R* out)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    alignas(64) static constexpr auto numbers = [] {
        std::array<R, static_cast<std::size_t>(n)> lane{};
        for (std::size_t i = 0; i < lane.size(); ++i) lane[i] = static_cast<R>(i);
        return lane;
    }();
    const v lane = load<R, Arch>(numbers.data());
    for (index i = 0; i < count; ++i, products += ssd_piece_tokens, out += ssd_piece_tokens) {
        const v h(high[i]), l(low[i]);
        for (index j = 0; j <= i; j += n) {
            const v decay = fast_exp2((h - load<R, Arch>(high + j)) + (l - load<R, Arch>(low + j)));
            store(xsimd::select(lane <= v(static_cast<R>(i - j)), load<R, Arch>(products + j) * decay, v(R(0))), out + j);
        }
    }
}

/// The columns j <= i of every row i of a matrix, rounded up to registers, times a factor each.
template <class Arch, class R>
[[gnu::flatten]] void ssd_scale_columns(const R* from, const R* factors, index count, R* to)
{
    for (index i = 0; i < count; ++i, from += ssd_piece_tokens, to += ssd_piece_tokens) {
        for (index j = 0; j <= i; j += lanes<R, Arch>) store(load<R, Arch>(from + j) * load<R, Arch>(factors + j), to + j);
    }
}

/// Rows of tiles, `tile` elements each, times a factor a row.
template <class Arch, class R>
[[gnu::flatten]] void ssd_scale_rows(const R* from, const R* factors, index tiles, index tile, index count, R* to)
{
    for (index t = 0; t < tiles; ++t) {
        for (index i = 0; i < count; ++i) {
            const index at = t * tile + i * lanes<R, Arch>;
            store(load<R, Arch>(from + at) * vec<R, Arch>(factors[i]), to + at);
        }
    }
}

/// [tile of columns][row][lane] to [tile of rows][column][lane]; columns are rounded up to registers.
template <class Arch, class R>
void transpose_tiles(const R* from, index from_tile, index rows, index column_tiles, R* to)
{
    constexpr index n = lanes<R, Arch>;
    for (index t = 0; t < column_tiles; ++t) {
        load_tiles<Arch, R, R>({from + t * from_tile, 1, n, n, rows}, to + t * n * n, column_tiles * n * n);
    }
}

}  // namespace ssmkit::detail
