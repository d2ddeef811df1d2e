#pragma once

#include <complex>

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit::reference {

namespace parts {

/// e^{lz}
inline std::complex<double> power_of_pole(const std::complex<double>& log_pole, index l)
{
    if (l == 0) return 1;
    return std::exp(static_cast<double>(l) * log_pole);
}

}  // namespace parts

/// Sums of powers as their equation says it (args/vandermonde.hpp): the oracle of the tests. Adds up in double.
template <class T>
void vandermonde(const vandermonde_args<T>& a)
{
    check(a);
    for (index h = 0; h < a.K.extent(1); ++h) {
        for (index c = 0; c < a.K.extent(0); ++c) {
            for (index l = 0; l < a.K.extent(2); ++l) {
                double sum = 0;
                for (index n = 0; n < a.w.extent(2); ++n) {
                    const std::complex<double> power = parts::power_of_pole(a.log_pole(h, n), l), w(a.w(c, h, n));
                    sum += w.real() * power.real() - w.imag() * power.imag();
                }
                a.K(c, h, l) = static_cast<T>(a.conjugate_pairs ? 2 * sum : sum);
            }
        }
    }
}

}  // namespace ssmkit::reference
