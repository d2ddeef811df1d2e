#pragma once

#include <ssmkit/args/vandermonde_transpose.hpp>
#include <ssmkit/reference/vandermonde.hpp>

namespace ssmkit::reference {

/// The transpose of vandermonde as its equations say it (args/vandermonde_transpose.hpp): the oracle of the tests.
template <class T>
void vandermonde_transpose(const vandermonde_transpose_args<T>& a)
{
    check(a);
    for (index c = 0; c < a.u.extent(0); ++c) {
        for (index h = 0; h < a.u.extent(1); ++h) {
            for (index n = 0; n < a.log_pole.extent(1); ++n) {
                std::complex<double> sum = 0, weighted = 0;
                for (index l = 0; l < a.u.extent(2); ++l) {
                    const std::complex<double> term =
                        static_cast<double>(a.u(c, h, l)) * parts::power_of_pole(a.log_pole(h, n), l);
                    sum += term;
                    weighted += static_cast<double>(l) * term;
                }
                if (a.sum.data()) a.sum(c, h, n) = std::complex<T>(sum);
                if (a.weighted.data()) a.weighted(c, h, n) = std::complex<T>(weighted);
            }
        }
    }
}

}  // namespace ssmkit::reference
