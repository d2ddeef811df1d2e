#pragma once

// Registers of complex numbers, real and imaginary parts apart.

#include <ssmkit/detail/math.hpp>

namespace ssmkit::detail {

template <class R, class Arch>
struct complex_register {
    using v = vec<R, Arch>;
    v re, im;

    complex_register() = default;
    [[gnu::always_inline]] complex_register(const v& real, const v& imaginary) : re(real), im(imaginary) {}
    [[gnu::always_inline]] explicit complex_register(const v& real) : re(real), im(R(0)) {}

    /// Real parts at p, imaginary ones `part` further on.
    [[gnu::always_inline]] static complex_register load(const R* p, index part)
    {
        return {detail::load<R, Arch>(p), detail::load<R, Arch>(p + part)};
    }
    [[gnu::always_inline]] void store(R* p, index part) const { re.store_unaligned(p), im.store_unaligned(p + part); }

    [[gnu::always_inline]] friend complex_register operator+(const complex_register& a, const complex_register& b)
    {
        return {a.re + b.re, a.im + b.im};
    }
    [[gnu::always_inline]] friend complex_register operator-(const complex_register& a, const complex_register& b)
    {
        return {a.re - b.re, a.im - b.im};
    }
    [[gnu::always_inline]] friend complex_register operator*(const v& a, const complex_register& b) { return {a * b.re, a * b.im}; }
    [[gnu::always_inline]] friend complex_register operator*(const complex_register& a, const complex_register& b)
    {
        return {multiply_add(a.re, b.re, -(a.im * b.im)), multiply_add(a.re, b.im, a.im * b.re)};
    }
};

template <class R, class Arch>
[[gnu::always_inline]] inline complex_register<R, Arch> conj(const complex_register<R, Arch>& z)
{
    return {z.re, -z.im};
}

/// a b + c
template <class R, class Arch>
[[gnu::always_inline]] inline complex_register<R, Arch> multiply_add(const complex_register<R, Arch>& a,
                                                                     const complex_register<R, Arch>& b,
                                                                     const complex_register<R, Arch>& c)
{
    return {multiply_add(-a.im, b.im, multiply_add(a.re, b.re, c.re)), multiply_add(a.im, b.re, multiply_add(a.re, b.im, c.im))};
}

/// Re(a conj(b))
template <class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> real_product(const complex_register<R, Arch>& a, const complex_register<R, Arch>& b)
{
    return multiply_add(a.re, b.re, a.im * b.im);
}

template <class R, class Arch>
[[gnu::always_inline]] inline vec<R, Arch> squared_size(const complex_register<R, Arch>& z)
{
    return real_product(z, z);
}

/// 1 / z
template <class R, class Arch>
[[gnu::always_inline]] inline complex_register<R, Arch> inverse(const complex_register<R, Arch>& z)
{
    const vec<R, Arch> scale = vec<R, Arch>(R(1)) / squared_size(z);
    return {z.re * scale, -z.im * scale};
}

}  // namespace ssmkit::detail
