#pragma once

// The gradients of a diagonal time-invariant system over chunks (s4d_chunks.hpp): products of the gradients of outputs, inputs and
// states with the forward's tables turned, gradients of those tables, and from them those of poles, inputs and outputs.

#include <algorithm>
#include <complex>

#include <ssmkit/detail/s4d_chunks.hpp>

namespace ssmkit::detail {

/// A channel's tables and their gradients, which grow over chunks in R and over sequences in double.
template <class Arch, class R>
struct s4d_adjoint_tables {
    static constexpr index n = lanes<R, Arch>, chunk = s4d_chunk;

    s4d_tables<Arch, R> forward;
    R* back = nullptr;          // [channels][chunk][2 padded]  conj(fC λ^(i + 1)): what output i hands to the state before
    R* input = nullptr;         // [2 padded][chunk]            the forward's, turned: what the state behind hands to inputs
    R* mixing = nullptr;        // [channels][chunk][chunk]     the forward's, turned
    R* gradients = nullptr;     // of the forward's input, [chunk][2 padded], of carry and tail, [2 padded]; and the conjugates of
                                // those of fC λ^(i + 1), [channels][chunk][2 padded]
    R* dmixing = nullptr;       // [channels][chunk][chunk]
    double* sums = nullptr;     // as `gradients`
    double* dkernel = nullptr;  // [channels][chunk]

    s4d_adjoint_tables() = default;
    s4d_adjoint_tables(arena& memory, index states, index maps) : forward(memory, states, maps)
    {
        const auto take = [&](index size) { return memory.take<R>(static_cast<std::size_t>(size)); };
        back = take(maps * chunk * forward.width());
        input = take(chunk * forward.width());
        mixing = take(maps * chunk * chunk);
        gradients = take(count());
        dmixing = take(maps * chunk * chunk);
        sums = memory.take<double>(static_cast<std::size_t>(count()));
        dkernel = memory.take<double>(static_cast<std::size_t>(maps * chunk));
    }

    index channels() const { return forward.channels; }
    index width() const { return forward.width(); }
    index count() const { return (chunk * (1 + channels()) + 2) * width(); }
    index carry_offset() const { return chunk * width(); }
    index tail_offset() const { return (chunk + 1) * width(); }
    index output_offset(index c) const { return (chunk * (1 + c) + 2) * width(); }

    /// What follows from the forward's tables; and zero gradients.
    void turn()
    {
        forward.turn(forward.input, input);
        for (index c = 0; c < channels(); ++c) {
            const R* const from = forward.mixing + c * chunk * chunk;
            R* const to = mixing + c * chunk * chunk;
            for (index i = 0; i < chunk; ++i) {
                for (index j = 0; j < chunk; ++j) to[i * chunk + j] = from[j * chunk + i];
            }
        }
        std::fill_n(sums, count(), 0.0);
        std::fill_n(dkernel, channels() * chunk, 0.0);
        clear();
    }

    /// Adds gradients to the sums.
    void fold()
    {
        add(gradients, count(), sums);
        for (index c = 0; c < channels(); ++c) {
            const R* row = dmixing + c * chunk * chunk;
            double* const to = dkernel + c * chunk;
            for (index j = 0; j < chunk; ++j, row += chunk) {
                for (index i = j; i < chunk; ++i) to[i - j] += static_cast<double>(row[i]);
            }
        }
        clear();
    }

private:
    void clear()
    {
        std::fill_n(gradients, count(), R(0));
        std::fill_n(dmixing, channels() * chunk * chunk, R(0));
    }

    [[gnu::noinline, gnu::flatten]] static void add(const R* from, index count, double* to)
    {
        for (index i = 0; i < count; i += lanes<double, Arch>) {
            store(load<double, Arch>(to + i) + load<double, Arch>(from + i), to + i);
        }
    }
};

/// to[r] = Σ_k left(r, k) right[k], k < count, or += that; a row of `right` and of `to` is Columns registers.
template <class Arch, index Rows, index Columns, class R>
[[gnu::noinline, gnu::flatten]] void s4d_product_tile(broadcast_rows<R> left, index count, const R* right, index step, R* to,
                                                      index pitch, bool add)
{
    constexpr index n = lanes<R, Arch>;
    vec<R, Arch> sums[Rows * Columns];
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            sums[r * Columns + c] = add ? load<R, Arch>(to + r * pitch + c * n) : vec<R, Arch>(R(0));
        });
    });
    add_product<Arch, Rows, Columns>(sums, left, tiled_rows<R>{right, n, step}, count);
    unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) { store(sums[r * Columns + c], to + r * pitch + c * n); });
    });
}

/// A table [..][step] and what a product with it is written or added to, [rows][pitch]; `width` elements of each row.
template <class R>
struct s4d_table {
    const R* data;
    index step, width;
};

template <class Arch, class R>
void s4d_product(broadcast_rows<R> left, index count, s4d_table<R> right, index rows, R* to, index pitch, bool add)
{
    constexpr index n = lanes<R, Arch>;
    for_each_row_group<Arch>(rows, [&](index r, auto height) {
        for_each_column_group<Arch>(right.width / n, [&](index c, auto columns) {
            s4d_product_tile<Arch, height(), columns()>(broadcast_rows<R>{left.data + r * left.row, left.row, left.step}, count,
                                                        right.data + c * n, right.step, to + r * pitch + c * n, pitch, add);
        });
    });
}

/// to[j] += Σ_r tokens[r][j] right[r], j < chunk. Upper: only what lies on or above the diagonal, as far as whole registers allow.
template <class Arch, bool Upper = false, class R>
void s4d_add_outer(const R* tokens, s4d_table<R> right, index rows, R* to)
{
    constexpr index n = lanes<R, Arch>;
    for_each_row_group<Arch>(s4d_chunk, [&](index j, auto height) {
        const index begin = Upper ? j / n : 0;
        for_each_column_group<Arch>(right.width / n - begin, [&](index c, auto columns) {
            const index at = (begin + c) * n;
            s4d_product_tile<Arch, height(), columns()>(broadcast_rows<R>{tokens + j, 1, s4d_chunk}, rows, right.data + at,
                                                        right.step, to + j * right.width + at, right.width, true);
        });
    });
}

/// The gradient walks back through the chunks: p[r] becomes that of the state behind chunk r, whose outputs' share it held.
/// dpower += that times conj(x[r]), x the states before the chunks.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void s4d_carry_back(const R* power, index all, index rows, const R* x, R* p, R* gradient, R* dpower)
{
    using v = vec<R, Arch>;
    for_each_lanes<R, Arch>(all, [&](auto range) __attribute__((always_inline)) {
        const v a = range.load(power), a_low = range.load(power + all);
        const v b = range.load(power + 2 * all), b_low = range.load(power + 3 * all);
        v re = range.load(gradient), im = range.load(gradient + all);
        v sum_re = range.load(dpower), sum_im = range.load(dpower + all);
        for (index r = rows; r-- > 0;) {
            R* const row = p + r * 2 * all;
            if (x) {
                const v x_re = range.load(x + r * 2 * all), x_im = range.load(x + r * 2 * all + all);
                sum_re = multiply_add(re, x_re, multiply_add(im, x_im, sum_re));
                sum_im = multiply_add(im, x_re, multiply_add(-re, x_im, sum_im));
            }
            v next_re = range.load(row), next_im = range.load(row + all);
            range.store(re, row);
            range.store(im, row + all);
            // Small terms first, as s4d_carry has them.
            next_re = multiply_add(a_low, re, multiply_add(b_low, im, next_re));
            next_im = multiply_add(a_low, im, multiply_add(-b_low, re, next_im));
            next_re = multiply_add(a, re, multiply_add(b, im, next_re));
            next_im = multiply_add(a, im, multiply_add(-b, re, next_im));
            re = next_re;
            im = next_im;
        }
        range.store(re, gradient);
        range.store(im, gradient + all);
        range.store(sum_re, dpower);
        range.store(sum_im, dpower + all);
    });
}

/// Gradients of inputs token by token, so that an infinity or a NaN reaches nothing behind it. The gradient behind the tokens is
/// used up; dy of channel c is `channel` elements behind that of c - 1.
template <class Arch, class R>
void s4d_input_gradients_by_token(const s4d_adjoint_tables<Arch, R>& m, index tokens, const R* dy, index channel, R* gradient,
                                  R* du)
{
    constexpr index chunk = s4d_chunk;
    const s4d_tables<Arch, R>& f = m.forward;
    const R* const in = f.input + (chunk - 1) * f.width();
    for (index t = tokens; t-- > 0;) {
        R sum = 0;
        for (index c = 0; c < f.channels; ++c) sum += dy[c * channel + t] * f.mixing[c * chunk * chunk];
        for (index k = 0; k < f.state; ++k) {
            const R a = f.pole[k], b = f.pole[2 * f.padded + k], re = gradient[k], im = gradient[f.padded + k];
            sum += in[k] * re + in[f.padded + k] * im;
            R next_re = a * re + b * im, next_im = a * im - b * re;
            for (index c = 0; c < f.channels; ++c) {
                const R* const back = m.back + c * chunk * f.width();
                next_re += back[k] * dy[c * channel + t];
                next_im += back[f.padded + k] * dy[c * channel + t];
            }
            gradient[k] = next_re;
            gradient[f.padded + k] = next_im;
        }
        du[t] = sum;
    }
}

/// A channel's discrete system and its gradients: poles, inputs w = β B and outputs fC, channel after channel.
struct s4d_discrete_system {
    planar<double> pole, input, output;
};

/// From the tables' gradients, folded, to those of the system: entries are w λ^a, fC λ^(i + 1), K_l = Re fC w λ^l and powers of λ.
/// `rest` as the tables were built with.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void s4d_system_gradients(const s4d_adjoint_tables<Arch, R>& m, index rest,
                                                          const s4d_discrete_system& system, const s4d_discrete_system& to)
{
    using d = vec<double, Arch>;
    using complex = complex_vec<double, Arch>;
    constexpr index chunk = s4d_chunk;
    const index padded = m.forward.padded;
    for (index k = 0; k < padded; k += lanes<double, Arch>) {
        const auto at = [&](const double* row) __attribute__((always_inline)) {
            return load_complex<Arch>(planar<const double>{row + k, row + padded + k});
        };
        const complex zero{d(0.0), d(0.0)}, pole = load_complex<Arch>(system.pole + k), w = load_complex<Arch>(system.input + k);
        complex power{d(1.0), d(0.0)}, before = zero, dpole = zero, dinput = zero;  // λ^p and λ^(p - 1)
        for (index c = 0; c < m.channels(); ++c) store_complex(zero, to.output + c * padded + k);
        for (index p = 0; p <= chunk; ++p) {
            complex of_power = zero, of_input = zero;
            if (p < chunk) {
                of_input = at(m.sums + (chunk - 1 - p) * m.width());
                of_power = times_conj(of_input, w);
            }
            for (index c = 0; c < m.channels(); ++c) {
                const complex out = load_complex<Arch>(system.output + c * padded + k);
                complex of_output = zero;
                if (p < chunk) {
                    const d kernel(m.dkernel[c * chunk + p]);
                    of_output = scaled(kernel, conj(w));
                    of_input = of_input + scaled(kernel, conj(out));
                }
                if (p > 0) of_output = of_output + conj(at(m.sums + m.output_offset(c) + (p - 1) * m.width()));
                of_power = of_power + times_conj(of_output, out);
                const planar<double> dout = to.output + c * padded + k;
                store_complex(load_complex<Arch>(dout) + times_conj(of_output, power), dout);
            }
            if (p == chunk) of_power = of_power + at(m.sums + m.carry_offset());
            if (p == rest) of_power = of_power + at(m.sums + m.tail_offset());
            dinput = dinput + times_conj(of_input, power);
            dpole = dpole + scaled(d(static_cast<double>(p)), times_conj(of_power, before));
            before = power;
            power = power * pole;
        }
        store_complex(dpole, to.pole + k);
        store_complex(dinput, to.input + k);
    }
}

}  // namespace ssmkit::detail
