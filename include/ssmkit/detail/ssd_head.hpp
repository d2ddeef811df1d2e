#pragma once

// ssd on registers: a piece of one sequence for one head, chunked or token by token. Lanes run along headdim; the state lies
// as tiles [tile of headdim][state][lane].

#include <ssmkit/detail/ssd_decays.hpp>
#include <ssmkit/detail/tile.hpp>
#include <ssmkit/detail/tile_product.hpp>

namespace ssmkit::detail {

/// Tokens between which the state of a head stays where it is, and for which B and C are prepared for all heads of a group.
inline constexpr index ssd_block_tokens = 256;

/// Rows in memory that are going to be read or written: asked for a few at a time, between products.
struct rows_to_come {
    const char* data;
    index step, lines;  // bytes from a row to the next; cache lines of a row

    void ask(index first, index rows) const
    {
        for (index i = first; i < first + rows; ++i) {
            for (index k = 0; k < lines; ++k) prefetch(data + i * step + 64 * k);
        }
    }
};

/// A piece for one head. Tiles of tokens are [tile of headdim][token][lane], `token_tile` elements each.
template <class R>
struct ssd_head_piece {
    index count, headdim_tiles, state;
    index token_tile, state_tile;
    bool live;                  // the state is not zero
    broadcast_rows<R> B, C;     // (token, state)
    const R* mixing;            // [token][token] M of the chunked form, rows of ssd_piece_tokens, zero above the diagonal
    const R* decay;             // [token] chunked: from before the piece to behind the token; recurrent: of the token
    broadcast_rows<R> decays{}; // (token, state) in its place, for a state whose columns decay each at their own rate
    const R *beta = nullptr, *CB = nullptr;  // [token] delta rule: its step, and C_t·B_t
    const R* u;                 // tiles
    const R* input;             // tiles; chunked: u decayed to the end of the piece; recurrent: Δ u
    R* y;                       // tiles, out: H C
    const R* h;                 // the state before the piece
    R* h_after;                 // out: behind it; may be h
    rows_to_come ahead[2];
};

/// C_i·B_j for `Rows` tokens i.
template <class Arch, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_map_product_tile(broadcast_rows<R> C, tiled_rows<R> B, index state, R* to)
{
    using v = vec<R, Arch>;
    v sums[Rows * Columns];
    unrolled<Rows * Columns>([&](auto k) __attribute__((always_inline)) { sums[k] = v(R(0)); });
    add_product<Arch, Rows, Columns>(sums, C, B, state);
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            store(sums[r * Columns + c], to + r * ssd_piece_tokens + c * lanes<R, Arch>);
        });
    });
}

/// C_i·B_j for all tokens i and j of a piece, in rows of ssd_piece_tokens. Tokens lie along the lanes of B.
template <class Arch, class R>
void ssd_map_product(index count, broadcast_rows<R> C, tiled_rows<R> B, index state, R* to)
{
    constexpr index n = lanes<R, Arch>;
    for_each_column_group<Arch>(tiles_for<R, Arch>(count), [&](index first, auto columns) {
        for_each_row_group<Arch>(count, [&](index i, auto rows) {
            ssd_map_product_tile<Arch, R, rows(), columns()>({C.data + i * C.row, C.row, C.step},
                                                            {B.data + first * B.tile, B.tile, B.step}, state,
                                                            to + i * ssd_piece_tokens + first * n);
        });
    });
}

/// y_i = decay_i C_i H + Σ_{j <= i} M_ij u_j for `Rows` tokens.
template <class Arch, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_output_tile(const ssd_head_piece<R>& p, index i, index first)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, row = ssd_piece_tokens;
    v sums[Rows * Columns];
    unrolled<Rows * Columns>([&](auto k) __attribute__((always_inline)) { sums[k] = v(R(0)); });
    if (p.live) {
        const broadcast_rows<R> C{p.C.data + i * p.C.row, p.C.row, p.C.step};
        add_product<Arch, Rows, Columns>(sums, C, tiled_rows<R>{p.h + first * p.state_tile, p.state_tile, n}, p.state);
        unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            const v decay(p.decay[i + r]);
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) { sums[r * Columns + c] *= decay; });
        });
    }
    const R *const M = p.mixing + i * row, *const u = p.u + first * p.token_tile;
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{M, row, 1}, tiled_rows<R>{u, p.token_tile, n}, i);
    // The triangle: what is above the diagonal is not multiplied, a NaN does not reach back.
    unrolled<Rows>([&](auto d) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            const v right = load<R, Arch>(u + c * p.token_tile + (i + d) * n);
            unrolled<Rows - d>([&](auto below) __attribute__((always_inline)) {
                constexpr index r = d + below;
                sums[r * Columns + c] = multiply_add(v(M[r * row + i + d]), right, sums[r * Columns + c]);
            });
        });
    });
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            store(sums[r * Columns + c], p.y + (first + c) * p.token_tile + (i + r) * n);
        });
    });
}

/// y_i = C_i H for `Rows` tokens.
template <class Arch, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_read_tile(const ssd_head_piece<R>& p, index i, index first)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    v sums[Rows * Columns];
    unrolled<Rows * Columns>([&](auto k) __attribute__((always_inline)) { sums[k] = v(R(0)); });
    const broadcast_rows<R> C{p.C.data + i * p.C.row, p.C.row, p.C.step};
    add_product<Arch, Rows, Columns>(sums, C, tiled_rows<R>{p.h + first * p.state_tile, p.state_tile, n}, p.state);
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            store(sums[r * Columns + c], p.y + (first + c) * p.token_tile + (i + r) * n);
        });
    });
}

/// What a state that stays as it is gives for the tokens of a piece.
template <class Arch, class R>
void ssd_read_piece(const ssd_head_piece<R>& p)
{
    for_each_column_group<Arch>(p.headdim_tiles, [&](index first, auto columns) {
        for_each_row_group<Arch>(p.count, [&](index i, auto rows) { ssd_read_tile<Arch, R, rows(), columns()>(p, i, first); });
    });
}

/// H = decay H + Σ_j input_j ⊗ B_j for `Rows` states.
template <class Arch, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_state_tile(const ssd_head_piece<R>& p, index i, index first)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const R* const h = p.h + first * p.state_tile + i * n;
    R* const after = p.h_after + first * p.state_tile + i * n;
    const v decay(p.decay[p.count - 1]);
    v sums[Rows * Columns];
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            sums[r * Columns + c] = p.live ? decay * load<R, Arch>(h + c * p.state_tile + r * n) : v(R(0));
        });
    });
    const broadcast_rows<R> B{p.B.data + i * p.B.step, p.B.step, p.B.row};
    add_product<Arch, Rows, Columns>(sums, B, tiled_rows<R>{p.input + first * p.token_tile, p.token_tile, n}, p.count);
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>(
            [&](auto c) __attribute__((always_inline)) { store(sums[r * Columns + c], after + c * p.state_tile + r * n); });
    });
}

/// The chunked form: section 6 of arXiv:2405.21060, for one chunk and head.
template <class Arch, class R>
void ssd_chunked_piece(const ssd_head_piece<R>& p, bool output)
{
    for_each_column_group<Arch>(p.headdim_tiles, [&](index first, auto columns) {
        if (output) {
            for_each_row_group<Arch>(p.count, [&](index i, auto rows) {
                if (first == 0) {
                    for (const rows_to_come& next : p.ahead) next.ask(i, rows());
                }
                ssd_output_tile<Arch, R, rows(), columns()>(p, i, first);
            });
        }
        for_each_row_group<Arch>(p.state, [&](index i, auto rows) { ssd_state_tile<Arch, R, rows(), columns()>(p, i, first); });
    });
}

/// `Rows` states through all tokens of a piece, in registers: H = decay_t H + Δ_t u_t ⊗ B_t, y_t += H C_t. With `Each`, every
/// state has a decay of its own.
template <class Arch, bool Each, class R, index Rows, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_recurrent_tile(const ssd_head_piece<R>& p, index i, index first)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const R* const state = p.h + first * p.state_tile + i * n;
    R* const after = p.h_after + first * p.state_tile + i * n;
    v h[Rows * Columns];
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            h[r * Columns + c] = p.live ? load<R, Arch>(state + c * p.state_tile + r * n) : v(R(0));
        });
    });
    const R *B = p.B.data + i * p.B.step, *C = p.C.data + i * p.C.step, *decays = Each ? p.decays.data + i : nullptr;
    const index step = p.B.step, C_step = p.C.step;
    for (index t = 0; t < p.count; ++t, B += p.B.row, C += p.C.row) {
        const R* const x = p.input + first * p.token_tile + t * n;
        R* const y = p.y + first * p.token_tile + t * n;
        const v decay(Each ? R(0) : p.decay[t]);
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            const v input = load<R, Arch>(x + c * p.token_tile);
            v sum = i == 0 ? v(R(0)) : load<R, Arch>(y + c * p.token_tile);
            unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                v& state_r = h[r * Columns + c];
                state_r = multiply_add(Each ? v(decays[r]) : decay, state_r, input * v(B[r * step]));
                sum = multiply_add(state_r, v(C[r * C_step]), sum);
            });
            store(sum, y + c * p.token_tile);
        });
        if constexpr (Each) decays += p.decays.row;
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>(
            [&](auto c) __attribute__((always_inline)) { store(h[r * Columns + c], after + c * p.state_tile + r * n); });
    });
}

/// The recurrent form.
template <class Arch, bool Each, class R>
void ssd_recurrent_piece(const ssd_head_piece<R>& p)
{
    for_each_column_group<Arch>(p.headdim_tiles, [&](index first, auto columns) {
        for_each_row_group<Arch>(p.state,
                           [&](index i, auto rows) { ssd_recurrent_tile<Arch, Each, R, rows(), columns()>(p, i, first); });
    });
}

/// Tiles of a head that the delta rule takes through a piece together. What a token puts in depends on all of the state, which
/// therefore lies in the first-level cache: two of 128 states are 16 KB.
inline constexpr index ssd_delta_columns = 2;

/// The delta rule for some tiles of a head through all tokens of a piece. With H' for a state that has decayed for its token:
///
///     x_t = β_t (u_t - H'_t B_t),  H'_{t+1} = decay_{t+1} (H'_t + x_t ⊗ B_t),  y_t = H'_t C_t + (B_t·C_t) x_t
///
/// so that one pass over the state ends a token and begins the next: four multiply-adds an element, one load, one store.
template <class Arch, bool Each, class R, index Columns>
[[gnu::noinline, gnu::flatten]] void ssd_delta_tile(const ssd_head_piece<R>& piece, index first)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const ssd_head_piece<R> p = piece;  // a copy: the compiler cannot know that stores leave the piece alone
    R* const h = p.h_after + first * p.state_tile;
    v taken_in[Columns], HB[Columns], HC[Columns];
    const auto pass = [&](index t, auto&& state_before) __attribute__((always_inline)) {  // from token t - 1 to token t
        const R *const B = p.B.data + t * p.B.row, *const C = p.C.data + t * p.C.row;
        const R* const decays = Each ? p.decays.data + t * p.decays.row : nullptr;
        const v decay(Each ? R(0) : p.decay[t]);
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) { HB[c] = HC[c] = v(R(0)); });
        for (index i = 0; i < p.state; ++i) {
            const v B_i(B[i * p.B.step]), C_i(C[i * p.C.step]), decay_i = Each ? v(decays[i]) : decay;
            unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
                const v next = decay_i * state_before(i, c);
                store(next, h + c * p.state_tile + i * n);
                HB[c] = multiply_add(B_i, next, HB[c]);
                HC[c] = multiply_add(C_i, next, HC[c]);
            });
        }
    };
    if (p.live) {
        pass(0, [&](index i, auto c) __attribute__((always_inline)) {
            return load<R, Arch>(p.h + (first + c) * p.state_tile + i * n);
        });
    } else {
        pass(0, [](index, auto) __attribute__((always_inline)) { return v(R(0)); });
    }
    for (index t = 0;; ++t) {
        const v beta(p.beta[t]), CB(p.CB[t]);
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            const index at = (first + c) * p.token_tile + t * n;
            taken_in[c] = beta * (load<R, Arch>(p.input + at) - HB[c]);
            store(multiply_add(CB, taken_in[c], HC[c]), p.y + at);
        });
        const R* const B = p.B.data + t * p.B.row;
        const auto ended = [&](index i, auto c) __attribute__((always_inline)) {
            return multiply_add(v(B[i * p.B.step]), taken_in[c], load<R, Arch>(h + c * p.state_tile + i * n));
        };
        if (t + 1 == p.count) {
            for (index i = 0; i < p.state; ++i) {
                unrolled<Columns>([&](auto c) __attribute__((always_inline)) { store(ended(i, c), h + c * p.state_tile + i * n); });
            }
            return;
        }
        pass(t + 1, ended);
    }
}

/// The delta rule for a piece of at least one token.
template <class Arch, bool Each, class R>
void ssd_delta_piece(const ssd_head_piece<R>& p)
{
    for_each_column_group<Arch, ssd_delta_columns>(
        p.headdim_tiles, [&](index first, auto columns) { ssd_delta_tile<Arch, Each, R, columns()>(p, first); });
}

}  // namespace ssmkit::detail
