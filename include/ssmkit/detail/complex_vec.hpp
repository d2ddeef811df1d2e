#pragma once

// Registers of complex numbers, real and imaginary parts apart, and what the poles of a diagonal system are made from: powers
// and exponentials in double, whose phases hold for millions of steps.

#include <algorithm>
#include <type_traits>

#include <ssmkit/detail/math.hpp>

namespace ssmkit::detail {

/// As many complex numbers as a register has lanes.
template <class R, class Arch>
struct complex_vec {
    vec<R, Arch> re, im;
};

template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> operator+(const complex_vec<R, Arch>& a, const complex_vec<R, Arch>& b)
{
    return {a.re + b.re, a.im + b.im};
}

template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> operator-(const complex_vec<R, Arch>& a, const complex_vec<R, Arch>& b)
{
    return {a.re - b.re, a.im - b.im};
}

template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> operator*(const complex_vec<R, Arch>& a, const complex_vec<R, Arch>& b)
{
    return {a.re * b.re - a.im * b.im, multiply_add(a.re, b.im, a.im * b.re)};
}

/// a conj(b)
template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> times_conj(const complex_vec<R, Arch>& a, const complex_vec<R, Arch>& b)
{
    return {multiply_add(a.re, b.re, a.im * b.im), a.im * b.re - a.re * b.im};
}

template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> scaled(const vec<R, Arch>& factor, const complex_vec<R, Arch>& a)
{
    return {factor * a.re, factor * a.im};
}

template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> conj(const complex_vec<R, Arch>& a)
{
    return {a.re, -a.im};
}

/// |a|²
template <class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> squared_magnitude(const complex_vec<R, Arch>& a)
{
    return multiply_add(a.re, a.re, a.im * a.im);
}

/// 1 / a for an a whose squared magnitude is a normal number.
template <class R, class Arch>
[[gnu::always_inline]] inline complex_vec<R, Arch> reciprocal(const complex_vec<R, Arch>& a)
{
    const vec<R, Arch> over = vec<R, Arch>(R(1)) / squared_magnitude(a);
    return {a.re * over, -a.im * over};
}

/// Complex numbers in memory, real and imaginary parts apart: as a rule those of one channel's state, with zeros behind the last
/// up to a whole register.
template <class R>
struct planar {
    R *re, *im;

    operator planar<const R>() const
        requires(!std::is_const_v<R>)
    {
        return {re, im};
    }
    planar operator+(index i) const { return {re + i, im + i}; }
};

template <class Arch, class R>
[[gnu::always_inline]] inline auto load_complex(planar<R> p)
{
    using real = std::remove_const_t<R>;
    return complex_vec<real, Arch>{load<real, Arch>(p.re), load<real, Arch>(p.im)};
}

template <class Arch, class E, class R>
[[gnu::always_inline]] inline void store_complex(const complex_vec<E, Arch>& x, planar<R> p)
{
    store(x.re, p.re);
    store(x.im, p.im);
}

/// to <- f(values at the same pole of each row)
template <class Arch, class F, class... Rows>
[[gnu::always_inline]] inline void for_poles(index pitch, planar<double> to, F&& f, const Rows&... rows)
{
    for (index i = 0; i < pitch; i += lanes<double, Arch>) {
        store_complex(f(load_complex<Arch>(planar<const double>{rows.re + i, rows.im + i})...), to + i);
    }
}

template <class Arch>
[[gnu::noinline, gnu::flatten]] void multiply_poles(index pitch, planar<double> to, planar<const double> a, planar<const double> b,
                                                    double factor = 1)
{
    using c = complex_vec<double, Arch>;
    const vec<double, Arch> f(factor);
    for_poles<Arch>(pitch, to, [&](const c& x, const c& y) __attribute__((always_inline)) { return scaled(f, x * y); }, a, b);
}

/// sum <- sum + factor a conj(b)
template <class Arch>
[[gnu::noinline, gnu::flatten]] void add_conj_product(index pitch, planar<double> sum, planar<const double> a,
                                                      planar<const double> b, double factor = 1)
{
    using c = complex_vec<double, Arch>;
    const vec<double, Arch> f(factor);
    const auto add = [&](const c& s, const c& x, const c& y) __attribute__((always_inline)) {
        return s + scaled(f, times_conj(x, y));
    };
    for_poles<Arch>(pitch, sum, add, sum, a, b);
}

inline void clear_planar(planar<double> row, index pitch)
{
    std::fill_n(row.re, pitch, 0.0);
    std::fill_n(row.im, pitch, 0.0);
}

/// Cosine and sine of k Im z / 2: half the angle of e^{kz}, whole turns of which are removed exactly.
template <class Arch>
[[gnu::always_inline]] inline cos_sin<double, Arch> half_angle(const vec<double, Arch>& imaginary, double steps)
{
    using v = vec<double, Arch>;
    // 1 / (4 pi) in two numbers: half turns of a half angle.
    const v over(0.079577471545947667884), over_low(-4.9196691687956215e-18);
    const v rate = imaginary * over;
    const v rate_low = multiply_add(imaginary, over_low, product_error(imaginary, over, rate));
    return cos_sin_of_turns(v(steps), rate, rate_low);
}

/// e^{kz}. z = -infinity is not asked for.
template <class Arch>
[[gnu::always_inline]] inline complex_vec<double, Arch> exp_multiple(const complex_vec<double, Arch>& z, double steps)
{
    using v = vec<double, Arch>;
    const auto [cosine, sine] = half_angle(z.im, steps);
    const v size = xsimd::exp(v(steps) * z.re), twice = sine + sine;
    return {size * multiply_add(-twice, sine, v(1.0)), size * (twice * cosine)};
}

/// e^{kz} and e^{kz} - 1, the latter accurate to a few roundings of itself.
template <class Arch>
struct exp_and_less_1 {
    complex_vec<double, Arch> value, less_1;
};

template <class Arch>
[[gnu::always_inline]] inline exp_and_less_1<Arch> exp_with_expm1(const complex_vec<double, Arch>& z, double steps = 1)
{
    using v = vec<double, Arch>;
    const auto [cosine, sine] = half_angle(z.im, steps);
    const v growth = xsimd::expm1(v(steps) * z.re), size = growth + v(1.0), twice = sine + sine;
    const v turned = multiply_add(-twice, sine, v(1.0)), across = size * (twice * cosine);
    return {{size * turned, across}, {multiply_add(growth, turned, -twice * sine), across}};
}

}  // namespace ssmkit::detail
