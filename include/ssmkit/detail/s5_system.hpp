#pragma once

// Poles and gains that change with the token: discretize() and its chain rule (discretize.hpp) on registers of states.

#include <complex>
#include <limits>

#include <ssmkit/args/s5.hpp>
#include <ssmkit/detail/complex_register.hpp>

namespace ssmkit::detail {

/// True if the gain follows the interval; otherwise it is one number per state and part of the packed B.
template <class T>
bool s5_gain_varies(const s5_args<T>& a)
{
    return a.interval.data() != nullptr && a.method != discretization::async && a.method != discretization::dirac;
}

/// What a tile of states needs for its poles: rows of a register each.
template <class R>
struct s5_rates {
    const R *re, *im, *delta;             // A and the step
    const R *turns_high, *turns_low;      // Im A delta / 2π as a sum of two numbers
    static constexpr index rows = 5;

    s5_rates(const R* first, index n)
        : re(first), im(first + n), delta(first + 2 * n), turns_high(first + 3 * n), turns_low(first + 4 * n)
    {
    }

    /// Writes the lane of one state.
    static void write(R* first, index n, index lane, std::complex<double> A, double step)
    {
        constexpr double turn = 6.283185307179586477;
        const double turns = A.imag() * step / turn;
        const R high = static_cast<R>(turns);
        const R values[] = {static_cast<R>(A.real()), static_cast<R>(A.imag()), static_cast<R>(step), high,
                            static_cast<R>(turns - static_cast<double>(high))};
        for (index i = 0; i < rows; ++i) first[i * n + lane] = values[i];
    }
};

/// A register of eigenvalues over a step: e^z or what stands in its place, and what pole, gain and their derivatives share.
template <class R, class Arch>
struct s5_step_lanes {
    using v = vec<R, Arch>;
    using c = complex_register<R, Arch>;
    c A, z, power;  // power: e^z, or e = 1 / (1 - α z) where the method is a quotient
    v delta, step;
    R alpha;        // negative for the exponential methods

    [[gnu::always_inline]] s5_step_lanes(const s5_rates<R>& r, discretization method, R interval)
        : A(load<R, Arch>(r.re), load<R, Arch>(r.im)), delta(load<R, Arch>(r.delta)), alpha(static_cast<R>(alpha_of(method)))
    {
        step = delta * v(interval);
        z = step * A;
        if (alpha >= 0) {
            power = inverse(c(v(R(1)) - v(alpha) * z.re, -(v(alpha) * z.im)));
        } else {
            const v size = fast_exp(z.re);
            const auto turn = cos_sin_of_turns<R, Arch>(v(interval), load<R, Arch>(r.turns_high), load<R, Arch>(r.turns_low));
            power = {size * turn.cosine, size * turn.sine};
        }
    }

    [[gnu::always_inline]] c pole() const
    {
        if (alpha < 0) return power;
        return c(multiply_add(v(1 - alpha), z.re, v(R(1))), v(1 - alpha) * z.im) * power;
    }

    /// The gain where it follows the step: zero-order hold and the quotients.
    [[gnu::always_inline]] c gain() const { return step * (alpha < 0 ? exprel() : power); }

    /// φ(z) = (e^z - 1) / z: its series below |z| = 1/2 (terms as in discretize.hpp).
    [[gnu::always_inline]] c exprel() const
    {
        constexpr int terms = sizeof(R) > sizeof(float) ? 16 : 8;
        c sum(v(R(1)));
        for (int k = terms; k > 1; --k) sum = multiply_add(v(R(1) / static_cast<R>(k)) * z, sum, c(v(R(1))));
        return choose(sum, (power - c(v(R(1)))) * inverse(z));
    }

    /// φ'(z) = (e^z (z - 1) + 1) / z² = (e^z - φ(z)) / z
    [[gnu::always_inline]] c exprel_derivative() const
    {
        constexpr int terms = sizeof(R) > sizeof(float) ? 16 : 8;
        c sum(v(R(1)));
        for (int k = terms - 1; k > 0; --k) {
            sum = multiply_add(v(static_cast<R>(k + 1) / (static_cast<R>(k) * static_cast<R>(k + 2))) * z, sum, c(v(R(1))));
        }
        return choose(v(R(0.5)) * sum, (power - exprel()) * inverse(z));
    }

private:
    [[gnu::always_inline]] c choose(const c& small, const c& large) const
    {
        const auto near = squared_size(z) < v(R(0.25));
        return {xsimd::select(near, small.re, large.re), xsimd::select(near, small.im, large.im)};
    }
};

/// Sums of the chain rule for a tile of states.
template <class R, class Arch>
struct s5_rate_gradients {
    complex_register<R, Arch> A{vec<R, Arch>(R(0))};
    vec<R, Arch> delta = vec<R, Arch>(R(0));

    /// Adds those of a token given the gradients of its pole and its gain (zero where the gain does not follow the step);
    /// returns that of its interval, state by state.
    [[gnu::always_inline]] vec<R, Arch> add(const s5_step_lanes<R, Arch>& s, R interval, const complex_register<R, Arch>& to_pole,
                                            const complex_register<R, Arch>& to_gain, bool gain_varies)
    {
        using v = vec<R, Arch>;
        using c = complex_register<R, Arch>;
        v to_step;
        if (s.alpha >= 0) {
            const c e2 = s.power * s.power;
            A = A + s.step * (conj(e2) * to_pole);
            to_step = real_product(to_pole, s.A * e2);
            if (gain_varies) {
                A = A + (v(s.alpha) * s.step * s.step) * (conj(e2) * to_gain);
                to_step += real_product(to_gain, e2);
            }
        } else {
            A = A + s.step * (conj(s.power) * to_pole);
            to_step = real_product(to_pole, s.A * s.power);
            if (gain_varies) {
                A = A + (s.step * s.step) * (conj(s.exprel_derivative()) * to_gain);
                to_step += real_product(to_gain, s.power);
            }
        }
        delta += v(interval) * to_step;
        return s.delta * to_step;
    }
};

}  // namespace ssmkit::detail
