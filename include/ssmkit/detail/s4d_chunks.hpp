#pragma once

// A diagonal time-invariant system over chunks of a sequence: inputs to states, states to outputs and a short Toeplitz part, all
// of them matrix products with tables that a channel builds once.

#include <algorithm>
#include <cmath>
#include <complex>

#include <ssmkit/detail/tile.hpp>
#include <ssmkit/detail/tile_product.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// Tokens in a chunk. Per token, a chunk costs 4 multiply-adds a conjugate pair, half a chunk for the Toeplitz part and 8 a
/// pair and chunk for the carry.
inline constexpr index s4d_chunk = 32;

/// Chunks whose inputs become states before their outputs are computed.
inline constexpr index s4d_block_chunks = 8;
inline constexpr index s4d_block = s4d_chunk * s4d_block_chunks;

/// What a channel's system is, discretised: x_t = pole x_{t-1} + input u_t, y_t = Re Σ output x_t + D u_t.
struct s4d_modes {
    std::complex<double>* pole;    // [state]
    std::complex<double>* input;   // [state]
    std::complex<double>* output;  // [outputs][state], with the factor of a conjugate pair
    double* D;                     // [outputs]
};

/// A channel's tables. A state of R is a row: real parts, padded to whole registers, then imaginary parts.
template <class Arch, class R>
struct s4d_tables {
    static constexpr index n = lanes<R, Arch>, chunk = s4d_chunk;

    index state = 0, padded = 0, outputs = 0;
    R* input = nullptr;    // [chunk][2 padded]            input λ^(chunk - 1 - j): from token j to the state behind the chunk
    R* output = nullptr;   // [outputs][2 padded][chunk]   output λ^(i + 1): from the state before the chunk to token i
    R* mixing = nullptr;   // [outputs][chunk][chunk]      (j, i): from input j to output i, 0 for i < j
    R* carry = nullptr;    // [4][padded]                  λ^chunk: real part and what rounding took of it, imaginary part likewise
    R* tail = nullptr;     // [4][padded]                  the same for the tokens behind the last whole chunk
    R* pole = nullptr;     // [4][padded]                  the same for a token

    s4d_tables() = default;
    s4d_tables(arena& memory, index states, index outs) : state(states), padded(tiles_for<R, Arch>(states) * n), outputs(outs)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        input = take(chunk * 2 * padded);
        output = take(outputs * 2 * padded * chunk);
        mixing = take(outputs * chunk * chunk);
        carry = take(4 * padded);
        tail = take(4 * padded);
        pole = take(4 * padded);
    }

    index width() const { return 2 * padded; }

    /// Scratch memory of build(), in doubles.
    static index scratch_size(index states) { return (8 + 2 * chunk) * tiles_for<R, Arch>(states) * n; }

    /// For sequences whose last chunk has `rest` tokens. Powers of λ are products in double precision: 32 of them lose at most 5 of
    /// its 53 bits.
    void build(const s4d_modes& m, index rest, double* scratch)
    {
        const auto part = [&](index i) { return scratch + i * padded; };
        std::fill_n(scratch, 8 * padded, 0.0);
        const parts l{part(0), part(1)}, power{part(2), part(3)}, in{part(4), part(5)}, out{part(6), part(7)};
        split(m.pole, l);
        split(m.input, in);
        std::fill_n(power.re, state, 1.0);
        for (index j = 0; j < chunk; ++j) {
            if (j == 1) round(power, pole);
            if (j == rest) round(power, tail);
            next_input(chunk - 1 - j, l, in, power);
        }
        round(power, carry);
        R* const turned = reinterpret_cast<R*>(part(8));  // [chunk][2 padded]
        for (index o = 0; o < outputs; ++o) {
            split(m.output + o * state, out);
            build_output(o, l, in, out, m.D[o], turned);
        }
    }

private:
    using d = vec<double, Arch>;
    struct parts {
        double *re, *im;
    };

    void split(const std::complex<double>* from, parts to) const
    {
        for (index k = 0; k < state; ++k) to.re[k] = from[k].real(), to.im[k] = from[k].imag();
    }

    /// x as a pair of R, to [4][padded].
    void round(parts x, R* to) const
    {
        for (index k = 0; k < padded; ++k) {
            to[k] = static_cast<R>(x.re[k]);
            to[padded + k] = static_cast<R>(x.re[k] - static_cast<double>(to[k]));
            to[2 * padded + k] = static_cast<R>(x.im[k]);
            to[3 * padded + k] = static_cast<R>(x.im[k] - static_cast<double>(to[2 * padded + k]));
        }
    }

    /// Row j of the input's table; power moves on by one.
    [[gnu::noinline, gnu::flatten]] void next_input(index j, parts l, parts in, parts power)
    {
        R* const row = input + j * width();
        for_each_lanes<double, Arch>(padded, [&](auto range) __attribute__((always_inline)) {
            const d x = range.load(power.re), y = range.load(power.im), a = range.load(l.re), b = range.load(l.im);
            const d u = range.load(in.re), v = range.load(in.im);
            range.store(x * u - y * v, row);
            range.store(x * v + y * u, row + padded);
            range.store(x * a - y * b, power.re);
            range.store(x * b + y * a, power.im);
        });
    }

    /// One output's table and the beginning of its kernel, K_i = Re Σ output input λ^i; out is used up.
    [[gnu::noinline, gnu::flatten]] void build_output(index o, parts l, parts in, parts out, double D, R* turned)
    {
        R kernel[2 * chunk] = {};
        for (index i = 0; i < chunk; ++i) {
            d sum(0.0);
            R* const row = turned + i * width();
            for_each_lanes<double, Arch>(padded, [&](auto range) __attribute__((always_inline)) {
                const d x = range.load(out.re), y = range.load(out.im), a = range.load(l.re), b = range.load(l.im);
                sum = sum + (x * range.load(in.re) - y * range.load(in.im));
                const d re = x * a - y * b, im = x * b + y * a;
                range.store(re, out.re);
                range.store(im, out.im);
                range.store(re, row);
                range.store(-im, row + padded);  // Re (c x) = Re c Re x - Im c Im x
            });
            kernel[chunk + i] = static_cast<R>(detail::sum<double, Arch>(sum) + (i == 0 ? D : 0.0));
        }
        R* const table = output + o * width() * chunk;
        for (index k = 0; k < width(); k += n) {
            for (index i = 0; i < chunk; i += n) {
                vec<R, Arch> rows[static_cast<std::size_t>(n)];
                for (index r = 0; r < n; ++r) rows[r] = load<R, Arch>(turned + (i + r) * width() + k);
                transpose<R, Arch>(rows);
                for (index r = 0; r < n; ++r) store(rows[r], table + (k + r) * chunk + i);
            }
        }
        for (index j = 0; j < chunk; ++j) std::copy_n(kernel + chunk - j, chunk, mixing + (o * chunk + j) * chunk);
    }
};

/// u or y of some tokens: token t at data[t / lanes * tile + t % lanes].
template <class R>
struct s4d_tokens {
    R* data;
    index tile;
};

/// Rows of states from rows of inputs: to[r] = Σ_j u(r, j) input[j], for tokens `first` ... of each chunk's table.
template <class Arch, index Rows, index Columns, class R>
[[gnu::noinline, gnu::flatten]] void s4d_states_tile(s4d_tokens<const R> u, const R* table, index width, index first, R* to)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, tiles = s4d_chunk / n;
    v sums[Rows * Columns];
    for (v& s : sums) s = v(R(0));
    // The tokens of a chunk end in line with the table: a short one has its first token at `first`.
    for (index t = 0; first < s4d_chunk; ++t, first += n) {
        const index count = std::min(n, s4d_chunk - first);
        add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{u.data + t * u.tile, tiles * u.tile, 1},
                                         tiled_rows<R>{table + first * width, n, width}, count);
    }
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) { store(sums[r * Columns + c], to + r * width + c * n); });
    });
}

/// Columns registers of outputs of some chunks, from register `column` of each: states of `x` to outputs, then inputs up to each.
template <class Arch, index Rows, index Columns, class R>
[[gnu::noinline, gnu::flatten]] void s4d_outputs_tile(const s4d_tables<Arch, R>& m, index o, index column, const R* x,
                                                      s4d_tokens<const R> u, s4d_tokens<R> y)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, tiles = s4d_chunk / n, chunk = s4d_chunk;
    v sums[Rows * Columns];
    for (v& s : sums) s = v(R(0));
    const R* const table = m.output + o * m.width() * chunk + column * n;
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{x, m.width(), 1}, tiled_rows<R>{table, n, chunk}, m.state);
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{x + m.padded, m.width(), 1},
                                     tiled_rows<R>{table + m.padded * chunk, n, chunk}, m.state);
    const R* const mixing = m.mixing + o * chunk * chunk + column * n;
    for (index t = 0; t <= column; ++t) {
        add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{u.data + t * u.tile, tiles * u.tile, 1},
                                         tiled_rows<R>{mixing + t * n * chunk, n, chunk}, n);
    }
    unrolled<Columns - 1>([&](auto before) __attribute__((always_inline)) {  // what only the last registers see
        constexpr index c = before + 1;
        const R* q = mixing + (column + c) * n * chunk + c * n;
        const R* p = u.data + (column + c) * u.tile;
        for (index k = 0; k < n; ++k, ++p, q += chunk) {
            unrolled<Columns - c>([&](auto d) __attribute__((always_inline)) {
                const v right = load<R, Arch>(q + d * n);
                unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                    sums[r * Columns + c + d] = multiply_add(v(p[r * tiles * u.tile]), right, sums[r * Columns + c + d]);
                });
            });
        }
    });
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            store(sums[r * Columns + c], y.data + (r * tiles + column + c) * y.tile);
        });
    });
}

/// The state walks through the chunks, each time multiplied by `power`: x[r] becomes the state before chunk r, whose inputs' share
/// it held.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void s4d_carry(const R* power, index all, index rows, R* x, R* state)
{
    using v = vec<R, Arch>;
    for_each_lanes<R, Arch>(all, [&](auto range) __attribute__((always_inline)) {
        const v a = range.load(power), a_low = range.load(power + all);
        const v b = range.load(power + 2 * all), b_low = range.load(power + 3 * all);
        v re = range.load(state), im = range.load(state + all);
        R* row = x;
        for (index r = 0; r < rows; ++r, row += 2 * all) {
            v next_re = range.load(row), next_im = range.load(row + all);
            range.store(re, row);
            range.store(im, row + all);
            // Small terms first: what rounding took of λ^chunk would otherwise turn the phase by as much every time.
            next_re = multiply_add(a_low, re, multiply_add(-b_low, im, next_re));
            next_im = multiply_add(a_low, im, multiply_add(b_low, re, next_im));
            next_re = multiply_add(a, re, multiply_add(-b, im, next_re));
            next_im = multiply_add(a, im, multiply_add(b, re, next_im));
            re = next_re;
            im = next_im;
        }
        range.store(re, state);
        range.store(im, state + all);
    });
}

/// Chunks of a channel, or less than one: x (rows, 2 padded) is scratch memory, state the one before, then the one behind them.
/// What lies behind the last token of a chunk that is not whole must be zero.
template <class Arch, class R>
void s4d_run_chunks(const s4d_tables<Arch, R>& m, index tokens, s4d_tokens<const R> u, s4d_tokens<R> y, index y_output, R* x, R* state)
{
    constexpr index n = lanes<R, Arch>, tiles = s4d_chunk / n;
    const bool whole = tokens >= s4d_chunk;
    const index rows = whole ? tokens / s4d_chunk : 1, first = whole ? 0 : s4d_chunk - tokens;
    for_each_row_group<Arch>(rows, [&](index r, auto count) {
        for_each_column_group<Arch>(m.width() / n, [&](index c, auto columns) {
            s4d_states_tile<Arch, count(), columns()>(s4d_tokens<const R>{u.data + r * tiles * u.tile, u.tile}, m.input + c * n,
                                                      m.width(), first, x + r * m.width() + c * n);
        });
    });
    s4d_carry<Arch>(whole ? m.carry : m.tail, m.padded, rows, x, state);
    for (index o = 0; o < m.outputs; ++o) {
        for_each_row_group<Arch>(rows, [&](index r, auto count) {
            for_each_column_group<Arch>(tiles, [&](index c, auto columns) {
                s4d_outputs_tile<Arch, count(), columns()>(m, o, c, x + r * m.width(),
                                                           s4d_tokens<const R>{u.data + r * tiles * u.tile, u.tile},
                                                           s4d_tokens<R>{y.data + o * y_output + r * tiles * y.tile, y.tile});
            });
        });
    }
}

/// The same token by token, so that an infinity or a NaN reaches nothing before it.
template <class Arch, class R>
void s4d_run_tokens(const s4d_tables<Arch, R>& m, index tokens, s4d_tokens<const R> u, s4d_tokens<R> y, index y_output, R* state)
{
    constexpr index n = lanes<R, Arch>, chunk = s4d_chunk;
    const R* const in = m.input + (chunk - 1) * m.width();
    for (index t = 0; t < tokens; ++t) {
        const R now = u.data[t / n * u.tile + t % n];
        for (index o = 0; o < m.outputs; ++o) {
            R sum = now * m.mixing[o * chunk * chunk];
            const R* const out = m.output + o * m.width() * chunk;
            for (index k = 0; k < m.state; ++k) {
                sum += out[k * chunk] * state[k] + out[(m.padded + k) * chunk] * state[m.padded + k];
            }
            y.data[o * y_output + t / n * y.tile + t % n] = sum;
        }
        for (index k = 0; k < m.state; ++k) {
            const R a = m.pole[k], b = m.pole[2 * m.padded + k], re = state[k], im = state[m.padded + k];
            state[k] = a * re - b * im + in[k] * now;
            state[m.padded + k] = a * im + b * re + in[m.padded + k] * now;
        }
    }
}

}  // namespace ssmkit::detail
