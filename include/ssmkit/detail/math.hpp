#pragma once

// The elementary functions of the kernels on SIMD registers. float: own polynomials (minimax, relative error stated with
// each; ulp figures are exhaustive over float, tests/math.cpp). double: xsimd's, below 2 ulp. All are inlined whatever the
// compiler thinks of their size: as calls they pass registers through memory and cost half as much again.

#include <array>
#include <type_traits>

#include <ssmkit/detail/simd.hpp>

namespace ssmkit::detail {

template <class V>
[[gnu::always_inline]] inline V polynomial(const V&, typename V::value_type c0)
{
    return V(c0);
}

/// c0 + c1 x + c2 x^2 + ..., by Horner's rule.
template <class V, class... C>
[[gnu::always_inline]] inline V polynomial(const V& x, typename V::value_type c0, C... rest)
{
    return multiply_add(polynomial(x, rest...), x, V(c0));
}

/// The same by Estrin's scheme: products of pairs, pairs of pairs, ... A third of Horner's latency, for functions that stand
/// alone in a loop; the scheduler of a core sees too few iterations at once to hide a chain of 20 dependent operations.
template <class V, std::size_t N>
[[gnu::always_inline]] inline V estrin(const V& x, const std::array<V, N>& c)
{
    if constexpr (N == 1) {
        return c[0];
    } else {
        std::array<V, (N + 1) / 2> pairs;
        for (std::size_t i = 0; i < N / 2; ++i) pairs[i] = multiply_add(c[2 * i + 1], x, c[2 * i]);
        if constexpr (N % 2) pairs[N / 2] = c[N - 1];
        return estrin(V(x * x), pairs);
    }
}

template <class V, class... C>
[[gnu::always_inline]] inline V short_polynomial(const V& x, C... c)
{
    return estrin(x, std::array<V, sizeof...(C)>{V(typename V::value_type(c))...});
}

inline constexpr double log2_e = 1.4426950408889634074;

/// scale * 2^z. float: at most 2.5 ulp, exactly scale at 0, zero below z = -126, infinity from z = 128. The decay of the scans:
/// rates are multiplied by log2_e once, which saves every step a multiplication. A constant scale costs nothing.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> fast_exp2(const vec<T, Arch>& z, std::type_identity_t<T> scale = 1)
{
    if constexpr (std::is_same_v<T, float>) {
        return scaled_by_exponent(z, [scale](const auto& f) {
            // Absolute error 1.2e-7 on [0, 1], coefficients refined as floats; degree 4 gains 10 % of speed for 2.7e-6 of
            // error. With narrower registers one degree more: without it, slow decays gathered 3e-6 of error in the golden
            // gradients.
            if constexpr (lanes<float, Arch> >= 16) {
                return polynomial(f, scale, scale * 0.693152487f, scale * 0.240152791f, scale * 0.0558359101f,
                                  scale * 0.00897335913f, scale * 0.00188534393f);
            } else {
                return polynomial(f, scale, scale * 0.693147004f, scale * 0.240229905f, scale * 0.0554824881f,
                                  scale * 0.00968116894f, scale * 0.00124149234f, scale * 0.000217946595f);
            }
        });
    } else {
        return vec<T, Arch>(scale) * xsimd::exp2(z);
    }
}

/// e^x. float: at most 2.5 ulp, zero below x = -87.34, infinity from x = 88.73.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> fast_exp(const vec<T, Arch>& x)
{
    if constexpr (std::is_same_v<T, float>) {
        using v = vec<float, Arch>;
        // n = floor(x log2 e) in [-127, 128]; g = x - n ln 2 in two steps (Cody and Waite), the first one exact.
        const v bounded = xsimd::max(v(-87.5f), xsimd::min(v(89.0f), x));
        const v n = xsimd::floor(bounded * v(1.44269504f));
        const v g = multiply_add(n, v(2.12194440e-4f), multiply_add(n, v(-0.693359375f), bounded));
        // Relative error 2.9e-9 on [0, ln 2].
        const v p = short_polynomial(g, 1.0f, 1.0f, 0.500002265f, 0.166631892f, 0.0418550671f, 0.00786828063f, 0.00191257382f);
        return scale_by_power_of_2(p, n);
    } else {
        return xsimd::exp(x);
    }
}

/// log(1 + t) for t in [0, 1]. float: at most 2.5 ulp, relative accuracy kept down to t = 0.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> log1p_unit(const vec<T, Arch>& t)
{
    if constexpr (std::is_same_v<T, float>) {
        // Relative error 4.7e-9.
        return t * short_polynomial(t, 1.0f, -0.499999017f, 0.333299637f, -0.249541327f, 0.196759358f, -0.153055847f, 0.106036417f,
                              -0.056959413f, 0.0198513996f, -0.00324401189f);
    } else {
        return xsimd::log1p(t);
    }
}

/// log(1 + e^x) up to x = 20, x beyond, as max(x, 0) + log1p(e^-|x|): accurate for every x, a NaN stays one.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> softplus(const vec<T, Arch>& x)
{
    using v = vec<T, Arch>;
    const v log_term = log1p_unit(fast_exp(-xsimd::abs(x)));
    return xsimd::select(x > v(T(20)), x, xsimd::max(v(T(0)), x) + log_term);
}

/// 1 / (1 + e^-x); exp never sees a positive number.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> sigmoid(const vec<T, Arch>& x)
{
    using v = vec<T, Arch>;
    const v e = fast_exp(-xsimd::abs(x));
    return xsimd::select(x < v(T(0)), e, v(T(1))) / (v(T(1)) + e);
}

/// The derivative of softplus: sigmoid(x) up to 20, 1 beyond.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> softplus_derivative(const vec<T, Arch>& x)
{
    using v = vec<T, Arch>;
    return xsimd::select(x > v(T(20)), v(T(1)), sigmoid(x));
}

template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> silu(const vec<T, Arch>& x)
{
    return x * sigmoid(x);
}

/// sigmoid(x) (1 + x sigmoid(-x)). 1 - sigmoid(x) in place of sigmoid(-x) would lose 1e-6 around x = 16.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> silu_derivative(const vec<T, Arch>& x)
{
    using v = vec<T, Arch>;
    const v e = fast_exp(-xsimd::abs(x)), one(T(1)), reciprocal = one / (one + e);
    const auto negative = x < v(T(0));
    const v s = xsimd::select(negative, e, one) * reciprocal, rest = xsimd::select(negative, one, e) * reciprocal;
    return s * multiply_add(x, rest, one);
}

template <class T, class Arch>
struct cos_sin {
    vec<T, Arch> cosine, sine;
};

/// The cosine and sine of 2 pi * step * rate, where rate, in turns, is the sum of two numbers. The product is carried in
/// double the precision, so that only whole turns are lost. float: absolute error below 8e-7 up to 2^15 turns, 4e-6 up to 2^20.
template <class T, class Arch>
[[gnu::always_inline]] inline cos_sin<T, Arch> cos_sin_of_turns(const vec<T, Arch>& step, const vec<T, Arch>& rate, const vec<T, Arch>& rate_low)
{
    using v = vec<T, Arch>;
    const v turns = step * rate;
    const v whole = xsimd::nearbyint(turns);
    v r;
    if constexpr (fused_multiply_add<Arch>) {
        r = multiply_add(step, rate_low, multiply_add(step, rate, -whole));
    } else {
        r = (turns - whole) + (step * rate_low + product_error(step, rate, turns));
    }
    if constexpr (std::is_same_v<T, float>) {
        // sin and cos of the half angle pi r, |r| <= 1/2, relative error 5.3e-9 and absolute 2.4e-10; then double it.
        const v r2 = r * r;
        const v s = r * polynomial(r2, 3.14159274f, -5.16770983f, 2.55006981f, -0.598242104f, 0.0775603876f);
        const v c = polynomial(r2, 1.0f, -4.93480206f, 4.05870963f, -1.33521605f, 0.234953925f, -0.0244206991f);
        const v twice = s + s;
        return {xsimd::fnma(twice, s, v(1.0f)), twice * c};
    } else {
        const auto [sine, cosine] = xsimd::sincos(r * v(6.283185307179586477));
        return {cosine, sine};
    }
}

}  // namespace ssmkit::detail
