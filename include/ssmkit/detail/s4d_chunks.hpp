#pragma once

// A diagonal time-invariant system over chunks of a sequence: inputs to states, states to outputs and a short Toeplitz part, all
// of them matrix products with tables that a channel builds once.

#include <algorithm>

#include <ssmkit/detail/tile.hpp>
#include <ssmkit/detail/tile_product.hpp>
#include <ssmkit/detail/vandermonde_tables.hpp>

namespace ssmkit::detail {

/// Tokens in a chunk. Per token, a chunk costs 4 multiply-adds a conjugate pair, half a chunk for the Toeplitz part and 8 a
/// pair and chunk for the carry.
inline constexpr index s4d_chunk = 32;

/// Chunks whose inputs become states before their outputs are computed.
inline constexpr index s4d_block_chunks = 8;
inline constexpr index s4d_block = s4d_chunk * s4d_block_chunks;

/// A channel's tables. A state of R is a row: real parts, padded to whole registers, then imaginary parts.
template <class Arch, class R>
struct s4d_tables {
    static constexpr index n = lanes<R, Arch>, chunk = s4d_chunk;

    index state = 0, padded = 0, channels = 0;
    R* input = nullptr;   // [chunk][2 padded]            βB λ^(chunk - 1 - j): from token j to the state behind the chunk
    R* output = nullptr;  // [channels][2 padded][chunk]  fC λ^(i + 1): from the state before the chunk to token i
    R* mixing = nullptr;  // [channels][chunk][chunk]     (j, i): from input j to output i, 0 for i < j
    R* carry = nullptr;   // [4][padded]                  λ^chunk: real part and what rounding took of it, imaginary part likewise
    R* tail = nullptr;    // [4][padded]                  the same for the tokens behind the last whole chunk
    R* pole = nullptr;    // [4][padded]                  the same for a token

    s4d_tables() = default;
    s4d_tables(arena& memory, index states, index maps) : state(states), padded(pole_pitch<Arch>(states)), channels(maps)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count)); };
        input = take(chunk * 2 * padded);
        output = take(channels * 2 * padded * chunk);
        mixing = take(channels * chunk * chunk);
        carry = take(4 * padded);
        tail = take(4 * padded);
        pole = take(4 * padded);
    }

    index width() const { return 2 * padded; }

    /// The input's table and the powers, for sequences whose last chunk has `rest` tokens. Powers are products in double precision:
    /// 32 of them lose at most 5 of its 53 bits. `power` is scratch memory.
    void build(planar<const double> poles, planar<const double> in, planar<double> power, index rest)
    {
        std::fill_n(power.re, padded, 1.0);
        std::fill_n(power.im, padded, 0.0);
        for (index j = 0; j < chunk; ++j) {
            if (j == 1) round(power, pole);
            if (j == rest) round(power, tail);
            next_input(chunk - 1 - j, poles, in, power);
        }
        round(power, carry);
    }

    /// An output's table, and the beginning of its kernel K_i = Re Σ out in λ^i, D added to K_0. out is used up; turned is scratch
    /// memory of chunk * width().
    void build_output(index c, planar<const double> poles, planar<const double> in, planar<double> out, double D, R* turned)
    {
        R kernel[2 * chunk] = {};
        kernel_and_powers(poles, in, out, kernel + chunk, turned);
        kernel[chunk] += static_cast<R>(D);
        arrange_output(c, kernel, turned);
    }

    /// From [chunk][2 padded] to [2 padded][chunk].
    [[gnu::noinline, gnu::flatten]] void turn(const R* from, R* to) const
    {
        for (index k = 0; k < width(); k += n) {
            for (index i = 0; i < chunk; i += n) {
                vec<R, Arch> r[static_cast<std::size_t>(n)];
                for (index j = 0; j < n; ++j) r[j] = load<R, Arch>(from + (i + j) * width() + k);
                transpose<R, Arch>(r);
                for (index j = 0; j < n; ++j) store(r[j], to + (k + j) * chunk + i);
            }
        }
    }

protected:
    using d = vec<double, Arch>;

    /// An output's table from that turned by 90 degrees, and of its kernel, which has as many zeros before it.
    void arrange_output(index c, const R* kernel, const R* turned)
    {
        turn(turned, output + c * width() * chunk);
        for (index j = 0; j < chunk; ++j) std::copy_n(kernel + chunk - j, chunk, mixing + (c * chunk + j) * chunk);
    }

    /// x as pairs of R, to [4][padded].
    void round(planar<const double> x, R* to) const
    {
        for (index k = 0; k < padded; ++k) {
            to[k] = static_cast<R>(x.re[k]);
            to[padded + k] = static_cast<R>(x.re[k] - static_cast<double>(to[k]));
            to[2 * padded + k] = static_cast<R>(x.im[k]);
            to[3 * padded + k] = static_cast<R>(x.im[k] - static_cast<double>(to[2 * padded + k]));
        }
    }

    /// Row j of the input's table; power moves on by one.
    [[gnu::noinline, gnu::flatten]] void next_input(index j, planar<const double> poles, planar<const double> in,
                                                    planar<double> power)
    {
        R* const row = input + j * width();
        for (index k = 0; k < padded; k += lanes<double, Arch>) {
            const auto p = load_complex<Arch>(planar<const double>(power + k));
            store_complex(p * load_complex<Arch>(in + k), planar<R>{row + k, row + padded + k});
            store_complex(p * load_complex<Arch>(poles + k), power + k);
        }
    }

    /// K_i and row i of `turned`, out λ^(i + 1): real parts, then what imaginary parts are multiplied by.
    [[gnu::noinline, gnu::flatten]] void kernel_and_powers(planar<const double> poles, planar<const double> in, planar<double> out,
                                                           R* kernel, R* turned)
    {
        for (index i = 0; i < chunk; ++i, turned += width()) {
            d sum(0.0);
            for (index k = 0; k < padded; k += lanes<double, Arch>) {
                const auto now = load_complex<Arch>(planar<const double>(out + k));
                sum = sum + (now * load_complex<Arch>(in + k)).re;
                const auto next = now * load_complex<Arch>(poles + k);
                store_complex(next, out + k);
                store(next.re, turned + k);
                store(-next.im, turned + padded + k);
            }
            kernel[i] = static_cast<R>(detail::sum<double, Arch>(sum));
        }
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
[[gnu::noinline, gnu::flatten]] void s4d_outputs_tile(const s4d_tables<Arch, R>& m, index channel, index column, const R* x,
                                                      s4d_tokens<const R> u, s4d_tokens<R> y)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>, tiles = s4d_chunk / n, chunk = s4d_chunk;
    v sums[Rows * Columns];
    for (v& s : sums) s = v(R(0));
    const R* const table = m.output + channel * m.width() * chunk + column * n;
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{x, m.width(), 1}, tiled_rows<R>{table, n, chunk}, m.state);
    add_product<Arch, Rows, Columns>(sums, broadcast_rows<R>{x + m.padded, m.width(), 1},
                                     tiled_rows<R>{table + m.padded * chunk, n, chunk}, m.state);
    const R* const mixing = m.mixing + channel * chunk * chunk + column * n;
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

template <class Arch, class R>
void carry_states(const s4d_tables<Arch, R>& m, bool whole, index rows, R* x, R* state)
{
    s4d_carry<Arch>(whole ? m.carry : m.tail, m.padded, rows, x, state);
}

/// The state after one more token.
template <class Arch, class R>
void step_state(const s4d_tables<Arch, R>& m, R now, R* state)
{
    const R* const in = m.input + (m.chunk - 1) * m.width();
    for (index k = 0; k < m.state; ++k) {
        const R a = m.pole[k], b = m.pole[2 * m.padded + k], re = state[k], im = state[m.padded + k];
        state[k] = a * re - b * im + in[k] * now;
        state[m.padded + k] = a * im + b * re + in[m.padded + k] * now;
    }
}

/// Chunks of a channel, or less than one: x (rows, 2 padded) is scratch memory, state the one before, then the one behind them.
/// What lies behind the last token of a chunk that is not whole must be zero.
template <class Arch, class Tables, class R>
void s4d_run_chunks(const Tables& m, index tokens, s4d_tokens<const R> u, s4d_tokens<R> y, index y_channel, R* x, R* state)
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
    carry_states(m, whole, rows, x, state);
    for (index c = 0; c < m.channels; ++c) {
        for_each_row_group<Arch>(rows, [&](index r, auto count) {
            for_each_column_group<Arch>(tiles, [&](index column, auto columns) {
                s4d_outputs_tile<Arch, count(), columns()>(m, c, column, x + r * m.width(),
                                                           s4d_tokens<const R>{u.data + r * tiles * u.tile, u.tile},
                                                           s4d_tokens<R>{y.data + c * y_channel + r * tiles * y.tile, y.tile});
            });
        });
    }
}

/// The same token by token, so that an infinity or a NaN reaches nothing before it.
template <class Arch, class Tables, class R>
void s4d_run_tokens(const Tables& m, index tokens, s4d_tokens<const R> u, s4d_tokens<R> y, index y_channel, R* state)
{
    constexpr index n = lanes<R, Arch>, chunk = s4d_chunk;
    for (index t = 0; t < tokens; ++t) {
        const R now = u.data[t / n * u.tile + t % n];
        for (index c = 0; c < m.channels; ++c) {
            R sum = now * m.mixing[c * chunk * chunk];
            const R* const out = m.output + c * m.width() * chunk;
            for (index k = 0; k < m.state; ++k) {
                sum += out[k * chunk] * state[k] + out[(m.padded + k) * chunk] * state[m.padded + k];
            }
            y.data[c * y_channel + t / n * y.tile + t % n] = sum;
        }
        step_state(m, now, state);
    }
}

}  // namespace ssmkit::detail
