#pragma once

// The elementary functions of the kernels on SIMD registers. float: own polynomials (minimax, relative error stated with
// each; ulp figures are exhaustive over float, tests/math.cpp). double: xsimd's, below 2 ulp. All are inlined whatever the
// compiler thinks of their size: as calls they pass registers through memory and cost half as much again.

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
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

/// A number rounded to a multiple of 1 / table_entries, in two forms: as it is, and with its last bits in the last bits of a
/// float's fraction, where look_up and the exponent of a power of 2 find them.
template <class Arch>
struct table_position {
    static constexpr float magic = 0x1.8p23f / static_cast<float>(table_entries<Arch>);
    vec<float, Arch> bits, value;

    explicit table_position(const vec<float, Arch>& x_plus_magic)
        : bits(x_plus_magic), value(x_plus_magic - vec<float, Arch>(magic))
    {
    }
};

/// 2^(j / N) for j = 0 ... N - 1; where powers of 2 are made from bits, less the bits of j next to the exponent's.
template <class Arch>
constexpr float_table<Arch> powers_of_2()
{
    constexpr double root = table_entries<Arch> == 32 ? 1.0218971486541166782 : 1.0905077326652576592;
    float_table<Arch> table{};
    double power = 1;
    for (std::size_t j = 0; j < table.size(); ++j, power *= root) {
        table[j] = static_cast<float>(power);
        if (scales_exponents<Arch>) continue;
        table[j] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(table[j]) -
                                        static_cast<std::uint32_t>((j << 23) / table.size()));
    }
    return table;
}

/// 2^n (1 + f tail) for |n| <= 128. Infinity from n = 128, 0 for n = -127. Exponents are rounded to the nearest entry of the
/// table, so that decays close to 1, whose errors gather over thousands of steps, are the most accurate.
template <class Arch>
[[gnu::always_inline]] inline vec<float, Arch> scaled_power(const table_position<Arch>& n, const vec<float, Arch>& f,
                                                           const vec<float, Arch>& tail)
{
    using v = vec<float, Arch>;
    static constexpr auto table = powers_of_2<Arch>();
    if constexpr (scales_exponents<Arch>) {
        const v power = look_up<Arch>(table, n.bits);
        return scale_by_floor(multiply_add(power, f * tail, power), n.value);
    } else {
        constexpr int shift = 23 - std::countr_zero(static_cast<unsigned>(table_entries<Arch>));
        const auto power = (bit_cast<std::int32_t>(n.bits) << shift) + bit_cast<std::int32_t>(look_up<Arch>(table, n.bits));
        return bit_cast<float>(power) * multiply_add(f, tail, v(1.0f));
    }
}

/// 2^z. float: at most 2.5 ulp, exactly 1 at 0, zero below z = -126 if subnormal numbers are flushed, infinity from z = 127.5
/// or 128. The decay of the scans: rates are multiplied by log2_e once, which saves every step a multiplication.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> fast_exp2(const vec<T, Arch>& z)
{
    if constexpr (!std::is_same_v<T, float>) {
        return xsimd::exp2(z);
    } else if constexpr (scales_exponents<Arch>) {
        const table_position<Arch> n(z + vec<T, Arch>(table_position<Arch>::magic));
        const vec<T, Arch> f = distance_to_32nd(z);
        return scaled_power(n, f, polynomial(f, 0.6931573f, 0.24022642f));  // relative error 5.3e-8
    } else {
        using v = vec<T, Arch>;
        // With the bound first, the x86 minimum and maximum return a NaN in z.
        const v bounded = xsimd::max(v(-127.0f), xsimd::min(v(128.0f), z));
        const table_position<Arch> n(bounded + v(table_position<Arch>::magic));
        const v f = bounded - n.value;
        if constexpr (table_entries<Arch> == 8) {
            return scaled_power(n, f, polynomial(f, 0.69314724f, 0.24025752f, 0.055489004f));  // 2.6e-8
        } else {
            return scaled_power(
                n, f, polynomial(f, 0.693147f, 0.24022247f, 0.055507112f, 0.009671294f, 0.0013269406f));  // 9.3e-8
        }
    }
}

/// e^x. float: at most 2.5 ulp, zero below x = -87.34 if subnormal numbers are flushed, infinity from x = 88.37 or 88.73.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> fast_exp(const vec<T, Arch>& x)
{
    if constexpr (std::is_same_v<T, float>) {
        using v = vec<float, Arch>;
        // The lower bound, where the result is zero by itself, is what can be scaled.
        const v bounded = xsimd::max(v(scales_exponents<Arch> ? -110.0f : -88.04f), xsimd::min(v(88.73f), x));
        const table_position<Arch> n(multiply_add(bounded, v(1.44269504f), v(table_position<Arch>::magic)));
        // f = x - n ln 2 in two steps (Cody and Waite), the first one exact: n has 13 bits, the constant 10.
        const v f = multiply_add(n.value, v(2.12194440e-4f), multiply_add(n.value, v(-0.693359375f), bounded));
        if constexpr (table_entries<Arch> == 32) {
            return scaled_power(n, f, polynomial(f, 1.0000147f, 0.50000167f));  // relative error 5.3e-8
        } else if constexpr (table_entries<Arch> == 8) {
            return scaled_power(n, f, polynomial(f, 1.0f, 0.5000645f, 0.16666882f));  // 2.6e-8
        } else {
            return scaled_power(
                n, f, short_polynomial(f, 1.0f, 0.49999994f, 0.16666523f, 0.041668292f, 0.008368532f, 0.0013818296f));  // 3.1e-9
        }
    } else {
        return xsimd::exp(x);
    }
}

/// log(1 + t) for t in [0, 1]. float: at most 2.5 ulp, relative accuracy kept down to t = 0.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> log1p_unit(const vec<T, Arch>& t)
{
    using v = vec<T, Arch>;
    if constexpr (!std::is_same_v<T, float>) {
        return xsimd::log1p(t);
    } else if constexpr (table_entries<Arch> == 32) {
        // With c near 1 / (1 + j / 16), j = round(16 t): r = (1 + t) c - 1 is small and log(1 + t) = log(1 + r) - log(c).
        static constexpr float_table<Arch> inverse = {
            1.0f, 0.9411765f, 0.8888889f, 0.84210527f, 0.8f, 0.7619048f, 0.72727275f, 0.6956522f, 0.6666667f,
            0.64f, 0.61538464f, 0.5925926f, 0.5714286f, 0.55172414f, 0.53333336f, 0.516129f, 0.5f};
        static constexpr float_table<Arch> logarithm = {
            0.0f, 0.060624618f, 0.117783028f, 0.17185025f, 0.22314354f, 0.2719337f, 0.3184537f, 0.36290548f,
            0.40546508f, 0.44628712f, 0.4855078f, 0.52324814f, 0.55961574f, 0.59470711f, 0.6286086f,
            0.66139851f, 0.6931472f};
        const v nearest = t + v(0x1.8p19f), c = look_up<Arch>(inverse, nearest);
        const v r = multiply_add(t, c, c - v(1.0f));
        const v tail = polynomial(r, -0.49999997f, 0.33349523f, -0.25017723f);  // relative error 3.3e-8
        return look_up<Arch>(logarithm, nearest) + multiply_add(r * r, tail, r);
    } else {
        const v tail = short_polynomial(t, -0.4999993f, 0.33330464f, -0.24958019f, 0.19692102f, -0.1534488f, 0.10661128f,
                                        -0.05745723f, 0.020086242f, -0.0032904686f);  // relative error 5.3e-9
        return multiply_add(t * t, tail, t);
    }
}

/// -|x|
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> minus_abs(const vec<T, Arch>& x)
{
    return x | vec<T, Arch>(T(-0.0));
}

/// A function and its derivative, which share their exponential.
template <class T, class Arch>
struct value_and_derivative {
    vec<T, Arch> value, derivative;
};

/// e^-|x| and 1 / (1 + e^x), 1 / (1 + e^-x): accurate for every x, exp never sees a positive number.
template <class T, class Arch>
struct logistic {
    vec<T, Arch> exponential, below, above;

    [[gnu::always_inline]] explicit logistic(const vec<T, Arch>& x) : exponential(fast_exp(minus_abs(x)))
    {
        const vec<T, Arch> one(T(1)), over = inverse(one + exponential);
        const auto negative = x < vec<T, Arch>(T(0));
        above = xsimd::select(negative, exponential, one) * over;
        below = xsimd::select(negative, one, exponential) * over;
    }
};

/// log(1 + e^x) given e = e^-|x|, as max(x, 0) + log1p(e); x beyond x = 20.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> softplus_of(const vec<T, Arch>& x, const vec<T, Arch>& e)
{
    using v = vec<T, Arch>;
    const v sum = xsimd::max(v(T(0)), x) + log1p_unit(e);
    if constexpr (std::is_same_v<T, float>) return sum;  // beyond 20 the logarithm is less than half a unit of x
    return xsimd::select(x > v(T(20)), x, sum);
}

/// log(1 + e^x) up to x = 20, x beyond: accurate for every x, a NaN stays one.
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> softplus(const vec<T, Arch>& x)
{
    return softplus_of(x, fast_exp(minus_abs(x)));
}

/// 1 / (1 + e^-x)
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> sigmoid(const vec<T, Arch>& x)
{
    return logistic<T, Arch>(x).above;
}

/// The derivative is sigmoid(x) up to 20, 1 beyond.
template <class T, class Arch>
[[gnu::always_inline]] inline value_and_derivative<T, Arch> softplus_with_derivative(const vec<T, Arch>& x)
{
    using v = vec<T, Arch>;
    const logistic<T, Arch> l(x);
    return {softplus_of(x, l.exponential), xsimd::select(x > v(T(20)), v(T(1)), l.above)};
}

/// x sigmoid(x)
template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> silu(const vec<T, Arch>& x)
{
    return x * sigmoid(x);
}

/// The derivative is sigmoid(x) (1 + x sigmoid(-x)). 1 - sigmoid(x) in place of sigmoid(-x) would lose 1e-6 around x = 16.
template <class T, class Arch>
[[gnu::always_inline]] inline value_and_derivative<T, Arch> silu_with_derivative(const vec<T, Arch>& x)
{
    const logistic<T, Arch> l(x);
    return {x * l.above, l.above * multiply_add(x, l.below, vec<T, Arch>(T(1)))};
}

template <class T, class Arch>
[[gnu::always_inline]] inline vec<T, Arch> silu_derivative(const vec<T, Arch>& x)
{
    return silu_with_derivative(x).derivative;
}

template <class T, class Arch>
struct cos_sin {
    vec<T, Arch> cosine, sine;
};

/// The cosine and sine of 2 pi * step * rate, where rate, in turns, is the sum of two numbers. The product is carried in
/// double the precision, so that only whole turns are lost. float: absolute error below 8e-7 up to 2^15 turns, 4e-6 up to
/// 2^20. An infinite step makes no turn: it comes with a size of zero, whose product must not be NaN.
template <class T, class Arch>
[[gnu::always_inline]] inline cos_sin<T, Arch> cos_sin_of_turns(const vec<T, Arch>& steps, const vec<T, Arch>& rate,
                                                                const vec<T, Arch>& rate_low)
{
    using v = vec<T, Arch>;
    const v step = xsimd::select(steps == v(std::numeric_limits<T>::infinity()), v(T(0)), steps);
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
        return {multiply_add(-twice, s, v(1.0f)), twice * c};
    } else {
        const auto [sine, cosine] = xsimd::sincos(r * v(6.283185307179586477));
        return {cosine, sine};
    }
}

}  // namespace ssmkit::detail
