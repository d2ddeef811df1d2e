#pragma once

// The inner loop of Cauchy sums. The lanes run along the nodes, which are independent; poles and numerators are broadcast from a
// table, a record a pole. All numerators of a pole share its reciprocal.

#include <algorithm>
#include <cmath>
#include <complex>
#include <type_traits>

#include <ssmkit/detail/simd.hpp>

namespace ssmkit::detail {

/// Nodes z = iy and pairs of conjugate poles w, w̄: with D = (z - w)(z - w̄) = (|w|² - y²) - 2iy Re w,
///     v / (z - w) + v̄ / (z - w̄) = 2 (z Re v - Re v w̄) / D.
/// Near a pole |w|² - y² is a small difference of large numbers: it is formed as (|w| - y)(|w| + y) where both are sums of two
/// floats, so that poles and nodes computed in double keep their distance. double has no second part.
template <class T>
struct imaginary_nodes {
    static constexpr bool pairs = true;
    static constexpr index pole_numbers = 3;  // |w|, what rounding it left, 2 Re w
    const T *y, *y_low;

    static void put_pole(std::complex<double> w, T* record)
    {
        const double size = std::hypot(w.real(), w.imag());
        record[0] = static_cast<T>(size);
        record[1] = static_cast<T>(size - static_cast<double>(record[0]));
        record[2] = static_cast<T>(2 * w.real());
    }

    static void put_numerator(std::complex<double> v, std::complex<double> w, T* two)
    {
        two[0] = static_cast<T>(-2 * (v.real() * w.real() + v.imag() * w.imag()));
        two[1] = static_cast<T>(-2 * v.real());
    }

    /// What a record's two numbers p and q are multiplied with: the sum is p re_p + q re_q + i (p im_p + q im_q).
    template <class Arch>
    struct factors {
        using V = vec<T, Arch>;
        V re_p, re_q, im_p, im_q;

        factors() = default;

        [[gnu::always_inline]] factors(const imaginary_nodes& nodes, index first, const T* pole)
        {
            const V y_ = load<T, Arch>(nodes.y + first), size(pole[0]);
            V difference = size - y_;
            if constexpr (std::is_same_v<T, float>) difference = difference + (V(pole[1]) - load<T, Arch>(nodes.y_low + first));
            const V re = difference * (size + y_), im = y_ * V(pole[2]);
            const V g = inverse(multiply_add(re, re, im * im));
            re_p = g * re;
            im_p = g * im;
            re_q = y_ * im_p;
            im_q = -(y_ * re_p);
        }
    };
};

/// Any nodes; of conjugate pairs each pole has a record of its own.
template <class T>
struct complex_nodes {
    static constexpr bool pairs = false;
    static constexpr index pole_numbers = 2;
    const T *re, *im;

    static void put_pole(std::complex<double> w, T* record)
    {
        record[0] = static_cast<T>(w.real());
        record[1] = static_cast<T>(w.imag());
    }

    static void put_numerator(std::complex<double> v, std::complex<double>, T* two)
    {
        two[0] = static_cast<T>(v.real());
        two[1] = static_cast<T>(v.imag());
    }

    template <class Arch>
    struct factors {
        using V = vec<T, Arch>;
        V re_p, re_q, im_p, im_q;

        factors() = default;

        [[gnu::always_inline]] factors(const complex_nodes& nodes, index first, const T* pole)
        {
            const V x = load<T, Arch>(nodes.re + first) - V(pole[0]), y = load<T, Arch>(nodes.im + first) - V(pole[1]);
            const V g = inverse(multiply_add(x, x, y * y));
            re_p = im_q = g * x;
            re_q = g * y;
            im_p = -re_q;
        }
    };
};

/// Numerators that a pass takes at once.
inline constexpr index cauchy_terms = 4;

/// Registers of nodes side by side: as many sums as there are registers for, and several chains of additions for few numerators.
template <class Arch, index Terms>
inline constexpr index cauchy_registers = many_registers<Arch> ? (Terms > 2 ? 1 : 2) : (Terms > 2 ? 1 : 2);

/// Nodes that a table of nodes must be padded to a multiple of.
template <class T, class Arch>
inline constexpr index cauchy_padding = 4 * lanes<T, Arch>;

/// The sums of `Terms` numerators over one pole or more at a few registers of nodes from `first` on: real parts of a term at
/// out, its imaginary parts at out + pitch, the next term's at out + 2 pitch.
template <class Arch, index Terms, class Nodes, class T>
[[gnu::noinline, gnu::flatten]] void cauchy_block(const Nodes& where, index first, const T* table, index record, index poles,
                                                  T* out, index pitch)
{
    using V = vec<T, Arch>;
    constexpr index registers = cauchy_registers<Arch, Terms>, n = lanes<T, Arch>;
    using factors = typename Nodes::template factors<Arch>;
    const Nodes nodes = where;
    V re[static_cast<std::size_t>(registers * Terms)], im[static_cast<std::size_t>(registers * Terms)];
    unrolled<registers * Terms>([&](auto i) { re[i] = im[i] = V(T(0)); });
    const auto add = [&](auto r, const factors& f, const T* numerators) __attribute__((always_inline)) {
        unrolled<Terms>([&](auto i) __attribute__((always_inline)) {
            const V p(numerators[2 * i]), q(numerators[2 * i + 1]);
            V& x = re[r * Terms + i];
            V& y = im[r * Terms + i];
            x = multiply_add(q, f.re_q, multiply_add(p, f.re_p, x));
            y = multiply_add(q, f.im_q, multiply_add(p, f.im_p, y));
        });
    };
    // A reciprocal takes as long as several poles' additions: each is begun a pole ahead, or the processor waits for it.
    factors f[static_cast<std::size_t>(registers)];
    unrolled<registers>([&](auto r) __attribute__((always_inline)) { f[r] = factors(nodes, first + r * n, table); });
    for (index k = 1; k < poles; ++k) {
        const T* const numerators = table + Nodes::pole_numbers;
        table += record;
        unrolled<registers>([&](auto r) __attribute__((always_inline)) {
            const factors next(nodes, first + r * n, table);
            add(r, f[r], numerators);
            f[r] = next;
        });
    }
    unrolled<registers>([&](auto r) __attribute__((always_inline)) { add(r, f[r], table + Nodes::pole_numbers); });
    unrolled<registers>([&](auto r) {
        unrolled<Terms>([&](auto i) {
            re[r * Terms + i].store_unaligned(out + 2 * i * pitch + r * n);
            im[r * Terms + i].store_unaligned(out + (2 * i + 1) * pitch + r * n);
        });
    });
}

/// The sums of `terms` numerators, at most cauchy_terms, at nodes [first, first + count); count must be a multiple of
/// cauchy_padding. `table` holds a record a pole: the pole's numbers, then two a term.
template <class Arch, class Nodes, class T>
void cauchy_sums(const Nodes& nodes, index first, index count, const T* table, index poles, index terms, T* out, index pitch)
{
    const index record = Nodes::pole_numbers + 2 * terms;
    const auto zero = [&](index rows) {
        for (index i = 0; i < 2 * rows; ++i) std::fill_n(out + i * pitch, count, T(0));
    };
    const auto run = [&](auto t) {
        if (poles == 0) return static_cast<void>(zero(t()));
        constexpr index step = cauchy_registers<Arch, t()> * lanes<T, Arch>;
        for (index i = 0; i < count; i += step) cauchy_block<Arch, t()>(nodes, first + i, table, record, poles, out + i, pitch);
    };
    if (terms == 1) return run(std::integral_constant<index, 1>{});
    if (terms == 2) return run(std::integral_constant<index, 2>{});
    if (terms == 3) return run(std::integral_constant<index, 3>{});
    if (terms == 4) return run(std::integral_constant<index, 4>{});
}

}  // namespace ssmkit::detail
