#pragma once

// S4's layer over chunks of a sequence, as S4D's (s4d_chunks.hpp), without a diagonal form, which would need eigenvectors and cost
// digits: inputs to states and states to outputs are tables as there, whatever the system; only the state's way over a chunk is a
// full matrix, Ā^32 over real and imaginary parts. With Ā = diag(λ) - Σ_r U_r <V_r, ·> of s4_transition.hpp,
//     Ā^m = diag(λ^m) - Σ_r Σ_{j < m} Ā^{m-1-j} U_r <V_r λ^j, ·>
// A map c is <c, x> = 2 Re Σ c_n x_n, a row (2 Re c, -2 Im c) of what multiplies (Re x, Im x).

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <numbers>
#include <span>
#include <utility>

#include <ssmkit/args/s4.hpp>
#include <ssmkit/detail/complex_vec.hpp>
#include <ssmkit/detail/s4_transition.hpp>
#include <ssmkit/detail/s4d_chunks.hpp>
#include <ssmkit/detail/vandermonde_tables.hpp>

namespace ssmkit::detail {

/// Ā and B̄ of a channel in double, their powers, and maps through them.
template <class Arch>
class s4_system_powers {
    using d = vec<double, Arch>;
    static constexpr index n = lanes<double, Arch>;

public:
    index state, rank, pitch;
    planar<double> pole, gain;

    s4_system_powers(arena& memory, index states, index ranks)
        : state(states), rank(ranks), pitch(pole_pitch<Arch>(states)), pole(take_planar(memory, pitch)),
          gain(take_planar(memory, pitch)), power_(take_planar(memory, pitch)),
          numbers_(memory.take<std::complex<double>>(s4_transition::size(states, ranks))),
          U_(take(memory, ranks)), V_(take(memory, ranks)), ahead_(take(memory, s4d_chunk * ranks)),
          behind_(take(memory, s4d_chunk * ranks)), products_(memory.take<double>(static_cast<std::size_t>(ranks)))
    {
    }

    index width() const { return 2 * pitch; }
    planar<double> row(double* rows, index i) const { return {rows + i * width(), rows + i * width() + pitch}; }
    planar<double> U(index r) const { return row(U_, r); }
    planar<double> V(index r) const { return row(V_, r); }

    /// Channel h.
    template <class T>
    void fill(const s4_args<T>& a, index h) const
    {
        const s4_transition t(a.delta, a.rate, a.A, a.B, a.P, h, std::span(numbers_, s4_transition::size(state, rank)));
        const auto copy = [&](std::span<const std::complex<double>> from, index first, planar<double> to) {
            load_planar(view<const std::complex<double>, 1>(from.data() + first, state), to, pitch);
        };
        copy(t.pole, 0, pole);
        copy(t.gain, 0, gain);
        for (index r = 0; r < rank; ++r) copy(t.U, r * state, U(r)), copy(t.V, r * state, V(r));
        for (index r = 0; r < rank; ++r) {
            copy(t.U, r * state, row(ahead_, r));
            copy(t.V, r * state, row(behind_, r));
        }
        for (index i = rank; i < s4d_chunk * rank; ++i) {
            std::copy_n(ahead_ + (i - rank) * width(), width(), ahead_ + i * width());
            advance(row(ahead_, i));
            multiply(row(behind_, i - rank), row(behind_, i));
        }
        for (index i = 0; i < s4d_chunk * rank; ++i) as_row(row(behind_, i), -1);
    }

    /// <a, x>
    [[gnu::flatten]] double product(planar<const double> a, planar<const double> x) const
    {
        d re(0.0);
        for (index k = 0; k < pitch; k += n) re = re + (load_complex<Arch>(a + k) * load_complex<Arch>(x + k)).re;
        return 2 * sum<double, Arch>(re);
    }

    void advance(planar<double> x) const { advance(x, U_, V_); }      ///< a state: x ← Ā x
    void advance_map(planar<double> c) const { advance(c, V_, U_); }  ///< a map: c ← c Ā

    /// A map as a row of reals, times `factor`.
    void as_row(planar<double> x, double factor = 1) const
    {
        for (index k = 0; k < pitch; ++k) x.re[k] *= 2 * factor, x.im[k] *= -2 * factor;
    }

    /// Ā^m, m up to a chunk, as real numbers: row k of `to` is the image of the state's element k.
    [[gnu::flatten]] void transition(index m, double* to) const
    {
        std::fill_n(power_.re, pitch, 0.0), std::fill_n(power_.im, pitch, 0.0);
        std::fill_n(power_.re, state, 1.0);
        for (index j = 0; j < m; ++j) multiply(power_, power_);
        for (index k = 0; k < width(); k += 4) {  // rows; widths are multiples of 8
            for (index i = 0; i < width(); i += n) {
                d sums[4] = {d(0.0), d(0.0), d(0.0), d(0.0)};
                for (index r = 0; r < rank && m > 0; ++r) {
                    const index step = rank * width();
                    add_product<Arch, 4, 1>(sums, broadcast_rows<double>{behind_ + r * width() + k, 1, step},
                                            tiled_rows<double>{ahead_ + (m - 1) * step + r * width() + i, n, -step}, m);
                }
                for (index row = 0; row < 4; ++row) store(sums[row], to + (k + row) * width() + i);
            }
        }
        for (index k = 0; k < pitch; ++k) {
            double *const of_re = to + k * width() + k, *const of_im = of_re + pitch * width();
            of_re[0] += power_.re[k], of_re[pitch] += power_.im[k];
            of_im[0] -= power_.im[k], of_im[pitch] += power_.re[k];
        }
    }

private:
    double* take(arena& memory, index rows) const { return memory.take<double>(static_cast<std::size_t>(rows * width())); }

    /// x λ
    [[gnu::flatten]] void multiply(planar<const double> x, planar<double> to) const
    {
        for (index k = 0; k < pitch; k += n) store_complex(load_complex<Arch>(x + k) * load_complex<Arch>(pole + k), to + k);
    }

    [[gnu::flatten]] void advance(planar<double> x, double* along, double* into) const
    {
        for (index r = 0; r < rank; ++r) products_[r] = product(row(into, r), x);
        multiply(x, x);
        for (index r = 0; r < rank; ++r) {
            const planar<const double> u = row(along, r);
            for (index k = 0; k < pitch; k += n) {
                store_complex(load_complex<Arch>(x + k) - scaled(d(products_[r]), load_complex<Arch>(u + k)), x + k);
            }
        }
    }

    planar<double> power_;
    std::complex<double>* numbers_;
    double *U_, *V_, *ahead_, *behind_, *products_;  // rows; of Ā^j U_r and V_r λ^j, j = 0 ... chunk - 1, rank rows for each j
};

/// C from C̃: rows c of reals with c (1 - Ā^length) = c̃.
template <class Arch>
struct s4_recovery {
    using d = vec<double, Arch>;
    static constexpr index n = lanes<double, Arch>;

    index width;
    double *power, *square, *other;  // (width, width)

    s4_recovery(arena& memory, index w, bool needed) : width(w)
    {
        const auto count = needed ? static_cast<std::size_t>(w * w) : 0;
        power = memory.take<double>(count), square = memory.take<double>(count), other = memory.take<double>(count);
    }

    void solve(const s4_system_powers<Arch>& system, index length, double* rows, index count)
    {
        system.transition(length % s4d_chunk, power);
        system.transition(s4d_chunk, square);
        for (index rest = length / s4d_chunk; rest > 0; rest /= 2) {
            if (rest % 2 == 1) multiply(power, power, square);
            if (rest > 1) multiply(square, square, square);
        }
        // Rows of powers are images of elements, so that c Ā^length is their product with c as a column.
        for (index k = 0; k < width; ++k) {
            for (index i = 0; i < width; ++i) power[k * width + i] = (k == i ? 1.0 : 0.0) - power[k * width + i];
        }
        eliminate(rows, count);
    }

private:
    /// to ← a b
    [[gnu::flatten]] void multiply(double*& to, const double* a, const double* b)
    {
        std::fill_n(other, width * width, 0.0);
        for (index i = 0; i < width; i += 4) {  // rows; widths are multiples of 8
            for (index j = 0; j < width; j += n) {
                d sums[4] = {d(0.0), d(0.0), d(0.0), d(0.0)};
                add_product<Arch, 4, 1>(sums, broadcast_rows<double>{a + i * width, width, 1}, tiled_rows<double>{b + j, n, width},
                                        width);
                for (index r = 0; r < 4; ++r) store(sums[r], other + (i + r) * width + j);
            }
        }
        std::swap(to, other);
    }

    /// Gaussian elimination with row pivots; rows are the right-hand sides, then the solutions.
    [[gnu::flatten]] void eliminate(double* rows, index count)
    {
        const auto m = [&](index i) { return power + i * width; };
        for (index k = 0; k < width; ++k) {
            index pivot = k;
            for (index i = k + 1; i < width; ++i) {
                if (std::abs(m(i)[k]) > std::abs(m(pivot)[k])) pivot = i;
            }
            if (pivot != k) {
                std::swap_ranges(m(k) + k, m(k) + width, m(pivot) + k);
                for (index c = 0; c < count; ++c) std::swap(rows[c * width + k], rows[c * width + pivot]);
            }
            const double over = 1 / m(k)[k];
            for (index i = k + 1; i < width; ++i) {
                const double factor = m(i)[k] * over;
                if (factor == 0) continue;
                for (index j = k / n * n; j < width; j += n) {
                    store(multiply_add(d(-factor), load<double, Arch>(m(k) + j), load<double, Arch>(m(i) + j)), m(i) + j);
                }
                for (index c = 0; c < count; ++c) rows[c * width + i] -= factor * rows[c * width + k];
            }
        }
        for (index c = 0; c < count; ++c) {
            double* const x = rows + c * width;
            for (index k = width; k-- > 0;) {
                for (index j = k + 1; j < width; ++j) x[k] -= m(k)[j] * x[j];
                x[k] /= m(k)[k];
            }
        }
    }
};

/// A channel's tables: those of a diagonal system, and the state's way over a chunk.
template <class Arch, class R>
struct s4_tables : s4d_tables<Arch, R> {
    using base = s4d_tables<Arch, R>;
    using base::chunk, base::padded, base::width;

    index rank = 0;
    R* matrix = nullptr;  // [width][width] row k: the image of the state's element k behind a chunk, less the element itself
    R* last = nullptr;    // [width][width] the same for the tokens behind the last whole chunk
    R* U = nullptr;       // [rank][width]
    R* V = nullptr;       // [rank][width]  rows of reals
    R* next = nullptr;    // [width]        scratch memory of step_state

    s4_tables() = default;
    s4_tables(arena& memory, index states, index maps, index ranks) : base(memory, states, maps), rank(ranks)
    {
        const auto take = [&](index count) { return memory.take<R>(static_cast<std::size_t>(count * width())); };
        matrix = take(width());
        last = take(width());
        U = take(ranks);
        V = take(ranks);
        next = take(1);
    }

    /// All but outputs. x and square are scratch memory of width() and width()² numbers.
    void build(const s4_system_powers<Arch>& system, index rest, planar<double> x, double* square)
    {
        std::copy_n(system.gain.re, padded, x.re);
        std::copy_n(system.gain.im, padded, x.im);
        for (index j = chunk; j-- > 0; system.advance(x)) put(x, base::input + j * width());
        for (const auto& [m, to] : {std::pair{chunk, matrix}, std::pair{rest, last}}) {
            system.transition(m, square);
            for (index k = 0; k < width(); ++k) square[k * width() + k] -= 1;
            for (index i = 0; i < width() * width(); ++i) to[i] = static_cast<R>(square[i]);
        }
        for (index k = 0; k < padded; ++k) {
            base::pole[k] = static_cast<R>(system.pole.re[k]);
            base::pole[2 * padded + k] = static_cast<R>(system.pole.im[k]);
        }
        for (index r = 0; r < rank; ++r) {
            put(system.U(r), U + r * width());
            put(system.V(r), V + r * width());
            for (index k = 0; k < padded; ++k) V[r * width() + k] *= 2, V[r * width() + padded + k] *= -2;
        }
    }

    /// The table of map number c, whose row x is; D is added to the first element of its kernel. x is used up; turned is scratch
    /// memory of chunk * width().
    void build_output(index c, const s4_system_powers<Arch>& system, planar<double> x, double D, R* turned)
    {
        R kernel[2 * chunk] = {};
        for (index k = 0; k < padded; ++k) x.re[k] /= 2, x.im[k] /= -2;
        for (index i = 0; i < chunk; ++i) {
            kernel[chunk + i] = static_cast<R>(system.product(x, system.gain) + (i == 0 ? D : 0));
            system.advance_map(x);
            for (index k = 0; k < padded; ++k) {
                turned[i * width() + k] = static_cast<R>(2 * x.re[k]);
                turned[i * width() + padded + k] = static_cast<R>(-2 * x.im[k]);
            }
        }
        base::arrange_output(c, kernel, turned);
    }

private:
    void put(planar<const double> x, R* to) const
    {
        for (index k = 0; k < padded; ++k) to[k] = static_cast<R>(x.re[k]), to[padded + k] = static_cast<R>(x.im[k]);
    }
};

/// S4: how a channel's tables are made, with the memory for that.
template <class Arch, class T>
struct s4_model {
    using R = compute_t<T>;
    using args = s4_args<T>;
    using tables = s4_tables<Arch, R>;

    s4_system_powers<Arch> system;
    s4_recovery<Arch> recovery;
    double *maps, *x, *square;
    R* turned;

    s4_model(arena& memory, const args& a)
        : system(memory, a.A.extent(1), a.P.extent(0)), recovery(memory, system.width(), !a.true_C.data())
    {
        const auto width = static_cast<std::size_t>(system.width());
        maps = memory.take<double>(static_cast<std::size_t>(channels(a)) * width);
        x = memory.take<double>(width);
        square = memory.take<double>(width * width);
        turned = memory.take<R>(static_cast<std::size_t>(s4d_chunk) * width);
    }

    static index channels(const args& a) { return s4_maps(a).extent(0); }
    static tables make_tables(arena& memory, const args& a) { return {memory, a.A.extent(1), channels(a), a.P.extent(0)}; }

    void build(const args& a, index h, tables& table) const
    {
        system.fill(a, h);
        table.build(system, a.u.extent(1) % s4d_chunk, system.row(x, 0), square);
        const index length = s4_transform_length(s4_layer_kernel(a), a.u.extent(1));
        for (index c = 0; c < channels(a); ++c) {
            const planar<double> map = system.row(maps, c);
            load_planar((a.true_C.data() ? a.true_C : a.C)[c][h], map, system.pitch);
            for (index k = 0; k < system.state; ++k) {
                const double frequency = a.delta(h, k) * std::abs(a.A(h % a.A.extent(0), k).imag()) / (2 * std::numbers::pi);
                if (frequency >= a.bandlimit / 2) map.re[k] = map.im[k] = 0;
            }
            system.as_row(map);
        }
        if (!a.true_C.data() && length > 0) s4_recovery<Arch>(recovery).solve(system, length, maps, channels(a));
        for (index c = 0; c < channels(a); ++c) {
            table.build_output(c, system, system.row(maps, c), a.D.data() ? static_cast<double>(a.D(c, h)) : 0, turned);
        }
    }
};

/// Some registers of the next state: x + Σ_k state_k matrix_k, in two sums a register, that of real and that of imaginary parts.
template <class Arch, index Columns, class R>
[[gnu::noinline, gnu::flatten]] void s4_carry_columns(const s4_tables<Arch, R>& m, const R* matrix, const R* state, R* x)
{
    using v = vec<R, Arch>;
    constexpr index n = lanes<R, Arch>;
    const index width = m.width(), half = m.padded * width;
    v re[Columns], im[Columns];
    unrolled<Columns>([&](auto c) { re[c] = load<R, Arch>(x + c * n), im[c] = v(R(0)); });
    for (index k = 0; k < m.state; ++k) {
        const R* const row = matrix + k * width;
        const v a(state[k]), b(state[m.padded + k]);
        unrolled<Columns>([&](auto c) __attribute__((always_inline)) {
            re[c] = multiply_add(a, load<R, Arch>(row + c * n), re[c]);
            im[c] = multiply_add(b, load<R, Arch>(row + half + c * n), im[c]);
        });
    }
    unrolled<Columns>([&](auto c) { store(re[c] + im[c], x + c * n); });
}

/// The state walks through the chunks: x[r] becomes the state before chunk r, whose inputs' share it held.
template <class Arch, class R>
[[gnu::flatten]] void carry_states(const s4_tables<Arch, R>& m, bool whole, index rows, R* x, R* state)
{
    constexpr index n = lanes<R, Arch>;
    const R* const matrix = whole ? m.matrix : m.last;
    for (index r = 0; r < rows; ++r, x += m.width()) {
        for_each_column_group<Arch, 4>(m.width() / n, [&](index c, auto columns) {
            s4_carry_columns<Arch, columns()>(m, matrix + c * n, state, x + c * n);
        });
        for (index k = 0; k < m.width(); k += n) {
            const auto before = load<R, Arch>(state + k);
            store(before + load<R, Arch>(x + k), state + k);
            store(before, x + k);
        }
    }
}

/// The state after one more token.
template <class Arch, class R>
void step_state(const s4_tables<Arch, R>& m, R now, R* state)
{
    const index padded = m.padded;
    R* const next = m.next;
    for (index k = 0; k < m.state; ++k) {
        const R a = m.pole[k], b = m.pole[2 * padded + k], re = state[k], im = state[padded + k];
        const R* const in = m.input + (m.chunk - 1) * m.width();
        next[k] = a * re - b * im + in[k] * now;
        next[padded + k] = a * im + b * re + in[padded + k] * now;
    }
    for (index r = 0; r < m.rank; ++r) {
        const R *const U = m.U + r * m.width(), *const V = m.V + r * m.width();
        R product = 0;
        for (index k = 0; k < m.state; ++k) product += V[k] * state[k] + V[padded + k] * state[padded + k];
        for (index k = 0; k < m.state; ++k) next[k] -= U[k] * product, next[padded + k] -= U[padded + k] * product;
    }
    for (index k = 0; k < m.state; ++k) state[k] = next[k], state[padded + k] = next[padded + k];
}

}  // namespace ssmkit::detail
