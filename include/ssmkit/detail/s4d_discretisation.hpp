#pragma once

// From the parameters of one channel of a diagonal system to its discrete poles, λ and log λ, and gains β, and the gradients back:
// discretize.hpp's formulas, and DSS's, on registers of poles and in double. With w = C B β the channel's convolution kernel is
// K_l = f Re Σ_n w_n λ_n^l (vandermonde_rows.hpp) and its recurrence x ← λ x + B β u, y = f Re Σ_n C_n x_n.

#include <algorithm>

#include <ssmkit/detail/vandermonde_tables.hpp>

namespace ssmkit::detail {

/// What a pole's gain is.
enum class pole_gain {
    zoh,          ///< Δ φ(z), λ = e^z, z = Δ A
    bilinear,     ///< Δ / (1 - z/2), λ = (1 + z/2) / (1 - z/2)
    softmax,      ///< conj(x) / (|x|² + ε) (e^z - 1), x = A (e^{zL} - 1); of -z, with A as it is, where Re A > 0
    regularised,  ///< (e^z - 1) conj(A) / max(|A|², ε)
    one           ///< 1
};

struct pole_gain_rule {
    pole_gain kind = pole_gain::zoh;
    double epsilon = 0;  ///< ε
    double length = 0;   ///< L
};

/// One channel. Planar arrays of a pitch, zeros behind the last pole.
struct channel_system {
    planar<double> delta;  ///< step size of the real and of the imaginary part of A; the same, but for DSS
    planar<double> A;
    pole_row poles;  ///< of those that grow under softmax, the reciprocal: their powers count from the other end
    planar<double> gain;

    channel_system(arena& memory, index pitch)
        : delta(take_planar(memory, pitch)), A(take_planar(memory, pitch)), poles(memory, pitch), gain(take_planar(memory, pitch))
    {
    }
};

/// -1 for poles whose powers are counted from the other end, otherwise 1.
template <class Arch>
[[gnu::always_inline]] inline vec<double, Arch> pole_direction(const vec<double, Arch>& real_part, pole_gain kind)
{
    using v = vec<double, Arch>;
    if (kind != pole_gain::softmax) return v(1.0);
    return xsimd::select(real_part > v(0.0), v(-1.0), v(1.0));
}

/// (e^z - 1) / z
template <class Arch>
[[gnu::always_inline]] inline complex_vec<double, Arch> quotient_of_exponential(const complex_vec<double, Arch>& less_1,
                                                                                const complex_vec<double, Arch>& z)
{
    using v = vec<double, Arch>;
    const v size = squared_magnitude(z);
    const auto tiny = size < v(1e-280);  // 1 to the last bit
    const complex_vec<double, Arch> product = times_conj(less_1, z);
    const v over = v(1.0) / xsimd::select(tiny, v(1.0), size);
    return {xsimd::select(tiny, v(1.0), product.re * over), xsimd::select(tiny, v(0.0), product.im * over)};
}

/// delta and A to poles and gain.
template <class Arch, pole_gain Kind>
[[gnu::noinline, gnu::flatten]] void discretise_poles(const channel_system& s, const pole_gain_rule& rule, index pitch)
{
    using v = vec<double, Arch>;
    using c = complex_vec<double, Arch>;
    const v one(1.0), half(0.5);
    for (index i = 0; i < pitch; i += lanes<double, Arch>) {
        const c A = load_complex<Arch>(s.A + i);
        const v delta = load<double, Arch>(s.delta.re + i), direction = pole_direction(A.re, Kind);
        const c z{direction * delta * A.re, direction * load<double, Arch>(s.delta.im + i) * A.im};
        c log = z, value, gain{one, v(0.0)};
        if constexpr (Kind == pole_gain::bilinear) {
            const c below{one - half * z.re, -half * z.im}, above{one + half * z.re, half * z.im};
            const v over = one / squared_magnitude(below);
            const c inverse{below.re * over, -below.im * over};
            value = above * inverse;
            gain = scaled(delta, inverse);
            // |λ|² = 1 + 2 Re z / |1 - z/2|²; the angle is that of (1 + z/2) conj(1 - z/2).
            log.re = half * xsimd::log1p(xsimd::max(v(-1.0), (z.re + z.re) * over));
            log.re = xsimd::max(v(-1000.0), log.re);
            log.im = xsimd::atan2(z.im, one - half * half * squared_magnitude(z));
        } else {
            const auto e = exp_with_expm1(z);
            value = e.value;
            if constexpr (Kind == pole_gain::zoh) gain = scaled(delta, quotient_of_exponential(e.less_1, z));
            if constexpr (Kind == pole_gain::regularised) {
                gain = scaled(one / xsimd::max(v(rule.epsilon), squared_magnitude(A)), times_conj(e.less_1, A));
            }
            if constexpr (Kind == pole_gain::softmax) {
                const c x = exp_with_expm1(z, rule.length).less_1 * A;
                gain = scaled(one / (squared_magnitude(x) + v(rule.epsilon)), times_conj(e.less_1, x));
            }
        }
        store_complex(log, s.poles.log + i);
        store_complex(value, s.poles.value + i);
        store_complex(gain, s.gain + i);
    }
}

template <class Arch>
void discretise_poles(const channel_system& s, const pole_gain_rule& rule, index pitch)
{
    switch (rule.kind) {
        case pole_gain::zoh: return discretise_poles<Arch, pole_gain::zoh>(s, rule, pitch);
        case pole_gain::bilinear: return discretise_poles<Arch, pole_gain::bilinear>(s, rule, pitch);
        case pole_gain::softmax: return discretise_poles<Arch, pole_gain::softmax>(s, rule, pitch);
        case pole_gain::regularised: return discretise_poles<Arch, pole_gain::regularised>(s, rule, pitch);
        case pole_gain::one: return discretise_poles<Arch, pole_gain::one>(s, rule, pitch);
    }
}

/// A row of step sizes, times `rate`, and of rates A.
template <class D, class E>
void load_system(const view<const D, 1>& delta_re, const view<const D, 1>& delta_im, double rate,
                 const view<const std::complex<E>, 1>& A, const channel_system& to, index pitch)
{
    for (index n = 0; n < pitch; ++n) {
        const bool there = n < A.extent(0);
        to.delta.re[n] = there ? rate * static_cast<double>(delta_re[n]) : 0;
        to.delta.im[n] = there ? rate * static_cast<double>(delta_im[n]) : 0;
        to.A.re[n] = there ? static_cast<double>(A[n].real()) : 0;
        to.A.im[n] = there ? static_cast<double>(A[n].imag()) : 0;
    }
}

/// φ'(z) = (e^z - φ(z)) / z, by its series near zero.
template <class Arch>
[[gnu::always_inline]] inline complex_vec<double, Arch> quotient_derivative(const complex_vec<double, Arch>& z,
                                                                           const complex_vec<double, Arch>& value,
                                                                           const complex_vec<double, Arch>& quotient)
{
    using v = vec<double, Arch>;
    using c = complex_vec<double, Arch>;
    const v size = squared_magnitude(z);
    const auto near = size < v(0.25);
    const c far = scaled(v(1.0) / xsimd::select(near, v(1.0), size), times_conj(value - quotient, z));
    c sum{v(1.0), v(0.0)};  // Σ (k+1) z^k / (k+2)!: each term is the one before times z (k+1) / (k (k+2))
    for (int k = 15; k > 0; --k) {
        const c term = scaled(v((k + 1.0) / (k * (k + 2.0))), sum * z);
        sum = {v(1.0) + term.re, term.im};
    }
    return {xsimd::select(near, v(0.5) * sum.re, far.re), xsimd::select(near, v(0.5) * sum.im, far.im)};
}

/// The way back: of g(λ) and g(β), which are complex gradients ∂/∂Re + i ∂/∂Im, to those of A and of the two step sizes.
template <class Arch, pole_gain Kind>
[[gnu::noinline, gnu::flatten]] void discretise_poles_backward(const channel_system& s, const pole_gain_rule& rule, index pitch,
                                                               planar<const double> dpole, planar<const double> dgain,
                                                               planar<double> dA, planar<double> ddelta)
{
    using v = vec<double, Arch>;
    using c = complex_vec<double, Arch>;
    const v one(1.0), half(0.5);
    for (index i = 0; i < pitch; i += lanes<double, Arch>) {
        const auto at = [&](planar<const double> p) __attribute__((always_inline)) {
            return load_complex<Arch>(planar<const double>{p.re + i, p.im + i});
        };
        const c A = at(s.A), value = at(s.poles.value), gain = at(s.gain), upper = at(dpole), up = at(dgain);
        const v delta = load<double, Arch>(s.delta.re + i), delta_im = load<double, Arch>(s.delta.im + i);
        const v direction = pole_direction(A.re, Kind);
        const c z{direction * delta * A.re, direction * delta_im * A.im};
        c dz = times_conj(upper, value), direct{v(0.0), v(0.0)};  // what z gets, and what A gets beside it
        v direct_delta(0.0);
        if constexpr (Kind == pole_gain::bilinear) {
            const c inverse = reciprocal(c{one - half * z.re, -half * z.im}), square = inverse * inverse;
            dz = times_conj(upper + scaled(half * delta, up), square);
            direct_delta = times_conj(up, inverse).re;
        }
        if constexpr (Kind == pole_gain::zoh) {
            const c quotient = quotient_of_exponential(exp_with_expm1(z).less_1, z);
            dz = dz + scaled(delta, times_conj(up, quotient_derivative(z, value, quotient)));
            direct_delta = times_conj(up, quotient).re;
        }
        if constexpr (Kind == pole_gain::regularised) {
            const v size = squared_magnitude(A), floor(rule.epsilon);
            const auto usual = size > floor;
            const v over = one / xsimd::max(floor, size);
            dz = dz + scaled(over, times_conj(up, c{value.re * A.re + value.im * A.im, value.im * A.re - value.re * A.im}));
            // 1 / A, or conj(A) / ε
            const c of_inverse = scaled(-over, times_conj(up, times_conj(gain, A)));
            const c of_conjugate = scaled(over, times_conj(exp_with_expm1(z).less_1, up));
            direct = {xsimd::select(usual, of_inverse.re, of_conjugate.re), xsimd::select(usual, of_inverse.im, of_conjugate.im)};
        }
        if constexpr (Kind == pole_gain::softmax) {
            const c numerator = exp_with_expm1(z).less_1;
            const auto whole = exp_with_expm1(z, rule.length);
            const c x = whole.less_1 * A;
            const v over = one / (squared_magnitude(x) + v(rule.epsilon));
            const c dr = times_conj(up, numerator);  // of r = conj(x) / (|x|² + ε)
            const c dx = scaled(over * over, scaled(v(rule.epsilon), conj(dr)) - dr * (x * x));
            direct = times_conj(dx, whole.less_1);
            dz = dz + times_conj(times_conj(up, scaled(over, conj(x))), value);
            dz = dz + scaled(v(rule.length), times_conj(times_conj(dx, A), whole.value));
        }
        dz = scaled(direction, dz);
        store_complex(c{multiply_add(delta, dz.re, direct.re), multiply_add(delta_im, dz.im, direct.im)}, dA + i);
        store_complex(c{multiply_add(A.re, dz.re, direct_delta), A.im * dz.im}, ddelta + i);
    }
}

template <class Arch, class... Rest>
void discretise_poles_backward(const channel_system& s, const pole_gain_rule& rule, const Rest&... rest)
{
    switch (rule.kind) {
        case pole_gain::zoh: return discretise_poles_backward<Arch, pole_gain::zoh>(s, rule, rest...);
        case pole_gain::bilinear: return discretise_poles_backward<Arch, pole_gain::bilinear>(s, rule, rest...);
        case pole_gain::softmax: return discretise_poles_backward<Arch, pole_gain::softmax>(s, rule, rest...);
        case pole_gain::regularised: return discretise_poles_backward<Arch, pole_gain::regularised>(s, rule, rest...);
        case pole_gain::one: return discretise_poles_backward<Arch, pole_gain::one>(s, rule, rest...);
    }
}

}  // namespace ssmkit::detail
