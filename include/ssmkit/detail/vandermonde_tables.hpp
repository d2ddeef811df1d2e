#pragma once

// Sums of powers, K_l = Re Σ_n w_n λ_n^l, and their transpose, for the poles λ of one channel: with l = 64 a + b both are matrix
// products, λ^l = λ^{64 a} λ^b. What follows makes the two factors. Powers come from double by few products, so that float
// results carry three roundings at any l; start values every 1024 steps are products of double powers or, for double results,
// exponentials.

#include <algorithm>
#include <complex>
#include <cstddef>
#include <type_traits>

#include <ssmkit/detail/complex_vec.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// Steps of a row of the products, rows of a segment (at most 16 powers are made at once), and steps of a segment.
inline constexpr index vandermonde_steps = 64, vandermonde_rows = 16, vandermonde_segment = vandermonde_steps * vandermonde_rows;

/// Segments from one exact start value to the next: in between, products of start values lose less than a float's rounding.
template <class R>
inline constexpr index vandermonde_exact_every = std::is_same_v<R, double> ? 1 : 64;

/// Complex numbers of a channel as they are laid out: a multiple of a register of floats, and so of doubles.
template <class Arch>
constexpr index pole_pitch(index state)
{
    constexpr index n = lanes<float, Arch>;
    return (state + n - 1) / n * n;
}

inline planar<double> take_planar(arena& memory, index pitch)
{
    return {memory.take<double>(static_cast<std::size_t>(pitch)), memory.take<double>(static_cast<std::size_t>(pitch))};
}

/// A row of complex numbers, times `factor`, real and imaginary parts apart and zeros behind the last.
template <class E>
void load_planar(const view<const std::complex<E>, 1>& from, planar<double> to, index pitch, double factor = 1)
{
    const index count = from.extent(0);
    for (index n = 0; n < count; ++n) {
        const std::complex<E>& x = from[n];
        to.re[n] = factor * static_cast<double>(x.real());
        to.im[n] = factor * static_cast<double>(x.imag());
    }
    for (index n = count; n < pitch; ++n) to.re[n] = to.im[n] = 0;
}

template <class T>
void store_planar(planar<const double> from, const view<std::complex<T>, 1>& to)
{
    for (index n = 0; n < to.extent(0); ++n) to[n] = {static_cast<T>(from.re[n]), static_cast<T>(from.im[n])};
}

/// The poles of one channel.
struct pole_row {
    planar<double> log, value;  ///< log λ and λ; zeros behind the last

    pole_row(arena& memory, index pitch) : log(take_planar(memory, pitch)), value(take_planar(memory, pitch)) {}
};

/// λ from log λ.
template <class Arch>
[[gnu::noinline, gnu::flatten]] void exponentiate_poles(const pole_row& poles, index pitch)
{
    for (index i = 0; i < pitch; i += lanes<double, Arch>) {
        store_complex(exp_multiple<Arch>(load_complex<Arch>(poles.log + i), 1.0), poles.value + i);
    }
}

/// Rows b = 0 ... 15 of `rows`: base^b rounded to R, `pitch` real parts and as many imaginary ones. And base^16.
template <class Arch, class R>
[[gnu::noinline, gnu::flatten]] void fill_powers(planar<const double> base, index pitch, R* rows, planar<double> sixteenth)
{
    using v = vec<double, Arch>;
    for (index i = 0; i < pitch; i += lanes<double, Arch>) {
        complex_vec<double, Arch> p[vandermonde_rows + 1];
        p[0] = {v(1.0), v(0.0)};
        p[1] = load_complex<Arch>(base + i);
        unrolled<vandermonde_rows - 1>([&](auto k) __attribute__((always_inline)) {  // by the shortest chains
            constexpr index b = k + 2;
            p[b] = p[b / 2] * p[b - b / 2];
        });
        unrolled<vandermonde_rows>([&](auto b) __attribute__((always_inline)) {
            store(p[b].re, rows + b * 2 * pitch + i);
            store(p[b].im, rows + b * 2 * pitch + pitch + i);
        });
        store_complex(p[vandermonde_rows], sixteenth + i);
    }
}

/// Powers of the poles of one channel.
template <class R, class Arch>
class vandermonde_tables {
public:
    using v = vec<R, Arch>;
    static constexpr index n = lanes<R, Arch>, Q = vandermonde_steps, G = vandermonde_rows;

    /// `fine_rows`: room for λ^b, b = 0 ... fine_rows - 1, 16 or 64. `real`: imaginary parts are zero, of poles and weights.
    vandermonde_tables(arena& memory, index state, index length, index fine_rows, bool real)
        : state_(state), pitch_(pole_pitch<Arch>(state)), length_(length), real_(real), fine_(count(memory, 2 * fine_rows)),
          coarse_(count(memory, length > Q ? 2 * G : 0)), quarters_(count(memory, 6)), sixteenth_(take_planar(memory, pitch_)),
          step_(take_planar(memory, pitch_)), start_(take_planar(memory, pitch_))
    {
    }

    index state() const { return state_; }
    index pitch() const { return pitch_; }
    index length() const { return length_; }
    bool real() const { return real_; }

    /// λ^b, b = 0 ... 15, λ^16, λ^32 and λ^48, and, for lengths beyond 64, λ^{64 a}, a = 0 ... 15.
    void prepare(const pole_row& poles)
    {
        poles_ = &poles;
        fill_powers<Arch>(planar<const double>(poles.value), pitch_, fine_, sixteenth_);
        square_up();
        if (length_ > Q) fill_powers<Arch>(planar<const double>(start_), pitch_, coarse_, step_);
    }

    /// Row a of the coarse powers, λ^{64 a}; a < 16.
    const R* coarse(index a) const { return coarse_ + a * 2 * pitch_; }
    const R* fine(index b) const { return fine_ + b * 2 * pitch_; }

    /// Row b of all fine powers, lanes along the poles: λ^b, b < 64, real parts, then imaginary ones.
    [[gnu::noinline, gnu::flatten]] void extend_along_poles()
    {
        const index steps = std::min(Q, length_);
        for (index b = G; b < steps; ++b) {
            const R *const low = fine_ + b % G * 2 * pitch_, *const high = quarters_ + (b / G - 1) * 2 * pitch_;
            R* const to = fine_ + b * 2 * pitch_;
            for (index i = 0; i < pitch_; i += n) {
                const auto p = load_complex<Arch>(planar<const R>{low + i, low + pitch_ + i}) *
                               load_complex<Arch>(planar<const R>{high + i, high + pitch_ + i});
                store_complex(p, planar<R>{to + i, to + pitch_ + i});
            }
        }
    }

    /// The same with lanes along b: row n of `table` holds the 64 real parts of pole n, those of the imaginary parts follow all of
    /// these.
    [[gnu::noinline, gnu::flatten]] void extend_along_steps(R* table) const
    {
        for (index part = 0; part < (real_ ? 1 : 2); ++part) {
            for (index i = 0; i < pitch_; i += n) {
                for (index b = 0; b < G; b += n) {
                    v r[static_cast<std::size_t>(n)];
                    for (index j = 0; j < n; ++j) r[j] = load<R, Arch>(fine_ + (b + j) * 2 * pitch_ + part * pitch_ + i);
                    transpose<R, Arch>(r);
                    R* const to = table + (part * pitch_ + i) * Q + b;
                    for (index j = 0; j < n; ++j) store(r[j], to + j * Q);
                }
            }
        }
        const index quarters = (std::min(Q, length_) - 1) / G;  // beyond the first
        for (index i = 0; i < state_; ++i) {
            R *const re = table + i * Q, *const im = re + pitch_ * Q;
            for (index b = 0; b < G; b += n) {
                const v base_re = load<R, Arch>(re + b), base_im = real_ ? v(R(0)) : load<R, Arch>(im + b);
                for (index j = 0; j < quarters; ++j) {
                    const complex_vec<R, Arch> turn{v(quarters_[j * 2 * pitch_ + i]), v(quarters_[j * 2 * pitch_ + pitch_ + i])};
                    const complex_vec<R, Arch> p = complex_vec<R, Arch>{base_re, base_im} * turn;
                    store(p.re, re + (j + 1) * G + b);
                    if (!real_) store(p.im, im + (j + 1) * G + b);
                }
            }
        }
    }

    /// λ^{1024 s} for s = 0, 1, ... in turn, left in start().
    [[gnu::noinline, gnu::flatten]] void start_segment(index s)
    {
        using d = vec<double, Arch>;
        for (index i = 0; i < pitch_; i += lanes<double, Arch>) {
            complex_vec<double, Arch> x{d(1.0), d(0.0)};
            if (s > 0 && s % vandermonde_exact_every<R> == 0) {
                x = exp_multiple<Arch>(load_complex<Arch>(poles_->log + i), static_cast<double>(s) * vandermonde_segment);
            } else if (s > 0) {
                x = load_complex<Arch>(start_ + i) * load_complex<Arch>(step_ + i);
            }
            store_complex(x, start_ + i);
        }
    }
    planar<const double> start() const { return start_; }

private:
    R* count(arena& memory, index rows) const { return memory.take<R>(static_cast<std::size_t>(rows * pitch_)); }

    /// From λ^16: λ^32 and λ^48 rounded, and λ^64, left in start_.
    [[gnu::noinline, gnu::flatten]] void square_up()
    {
        for (index i = 0; i < pitch_; i += lanes<double, Arch>) {
            const auto p16 = load_complex<Arch>(sixteenth_ + i), p32 = p16 * p16, p48 = p32 * p16;
            const complex_vec<double, Arch> quarters[] = {p16, p32, p48};
            for (index j = 0; j < 3; ++j) {
                R* const row = quarters_ + j * 2 * pitch_ + i;
                store_complex(quarters[j], planar<R>{row, row + pitch_});
            }
            store_complex(p32 * p32, start_ + i);
        }
    }

    index state_, pitch_, length_;
    bool real_;
    R *fine_, *coarse_, *quarters_;
    planar<double> sixteenth_, step_, start_;
    const pole_row* poles_ = nullptr;
};

}  // namespace ssmkit::detail
