#pragma once

#include <ssmkit/args/vandermonde_backward.hpp>
#include <ssmkit/reference/vandermonde.hpp>

namespace ssmkit::reference {

/// The gradients of vandermonde as their equations say it (args/vandermonde_backward.hpp): the oracle of the tests.
template <class T>
void vandermonde_backward(const vandermonde_backward_args<T>& a)
{
    check(a);
    const vandermonde_args<T>& f = a.forward;
    const double factor = f.conjugate_pairs ? 2 : 1;
    for (index h = 0; h < f.log_pole.extent(0); ++h) {
        for (index n = 0; n < f.log_pole.extent(1); ++n) {
            std::complex<double> dlog_pole = 0;
            for (index c = 0; c < a.dK.extent(0); ++c) {
                std::complex<double> sum = 0, weighted = 0;
                for (index l = 0; l < a.dK.extent(2); ++l) {
                    const double dK = static_cast<double>(a.dK(c, h, l));
                    const std::complex<double> power = std::conj(parts::power_of_pole(f.log_pole(h, n), l));
                    sum += dK * power;
                    weighted += static_cast<double>(l) * dK * power;
                }
                if (a.dw.data()) a.dw(c, h, n) = std::complex<T>(factor * sum);
                dlog_pole += factor * std::conj(std::complex<double>(f.w(c, h, n))) * weighted;
            }
            if (a.dlog_pole.data()) a.dlog_pole(h, n) = dlog_pole;
        }
    }
}

}  // namespace ssmkit::reference
