#pragma once

#include <complex>

#include <ssmkit/args/s4d_discretize.hpp>

namespace ssmkit::reference {

namespace parts {

/// (e^z - 1) / z by its series, after halving z until that converges: φ(2z) = φ(z) (e^z + 1) / 2.
inline std::complex<long double> mean_exponential(std::complex<long double> z)
{
    if (std::abs(z) > 0.5L) return mean_exponential(z / 2.0L) * (std::exp(z / 2.0L) + 1.0L) / 2.0L;
    std::complex<long double> sum = 0, term = 1;
    for (int k = 1; k < 20; ++k) {  // z^{k-1} / k!
        sum += term;
        term *= z / static_cast<long double>(k + 1);
    }
    return sum;
}

}  // namespace parts

/// The recurrence of S4D as its equations say it (args/s4d_discretize.hpp), in long double: the oracle of the tests.
template <class T>
void s4d_discretize(const s4d_discretize_args<T>& a)
{
    check(a);
    using number = std::complex<long double>;
    for (index h = 0; h < a.delta.extent(0); ++h) {
        for (index n = 0; n < a.delta.extent(1); ++n) {
            const index copy = h % a.A.extent(0);
            const long double delta = static_cast<long double>(a.rate) * a.delta(h, n);
            const number z = delta * number(a.A(copy, n)), B(a.B(copy, n).real(), a.B(copy, n).imag());
            const bool bilinear = a.method == s4d_discretization::bilinear;
            const number pole = bilinear ? (1.0L + z / 2.0L) / (1.0L - z / 2.0L) : std::exp(z);
            const number gain = delta * (bilinear ? 1.0L / (1.0L - z / 2.0L) : parts::mean_exponential(z));
            a.pole(h, n) = std::complex<T>(pole);
            a.input(h, n) = std::complex<T>(gain * B);
        }
    }
}

}  // namespace ssmkit::reference
