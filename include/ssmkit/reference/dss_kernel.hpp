#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/dss_kernel.hpp>
#include <ssmkit/discretize.hpp>

namespace ssmkit::reference {

namespace parts {

/// One pole of DSS: K_l = Re Σ W gain e^{log (l - origin)}.
struct dss_pole {
    std::complex<double> log, gain;
    double origin;

    double steps(index l) const { return static_cast<double>(l) - origin; }

    /// e^{log (l - origin)}; 1 where that is no step, whatever the pole
    std::complex<double> power(index l) const { return steps(l) == 0 ? 1 : std::exp(log * steps(l)); }
};

inline dss_pole dss_pole_of(std::complex<double> A, double delta_re, double delta_im, dss_scaling scaling, double epsilon,
                            double length)
{
    const std::complex<double> z(delta_re * A.real(), delta_im * A.imag());
    if (scaling == dss_scaling::none) return {z, 1, 0};
    if (scaling == dss_scaling::exponential) return {z, expm1(z) * std::conj(A) / std::max(epsilon, std::norm(A)), 0};
    const bool grows = A.real() > 0;
    const std::complex<double> down = grows ? -z : z, x = A * expm1(down * length);
    return {z, expm1(down) * std::conj(x) / (std::norm(x) + epsilon), grows ? length - 1 : 0};
}

}  // namespace parts

/// The kernel of DSS as its equation says it (args/dss_kernel.hpp): the oracle of the tests. Adds up in double.
template <class T>
void dss_kernel(const dss_kernel_args<T>& a)
{
    check(a);
    const index length = a.K.extent(2);
    for (index h = 0; h < a.W.extent(1); ++h) {
        std::vector<parts::dss_pole> poles;
        for (index n = 0; n < a.W.extent(2); ++n) {
            poles.push_back(
                parts::dss_pole_of(a.A[n], a.delta(h, 0), a.delta(h, 1), a.scaling, a.epsilon, static_cast<double>(length)));
        }
        for (index c = 0; c < a.W.extent(0); ++c) {
            for (index l = 0; l < length; ++l) {
                double sum = 0;
                for (index n = 0; n < a.W.extent(2); ++n) {
                    const parts::dss_pole& p = poles[static_cast<std::size_t>(n)];
                    sum += (std::complex<double>(a.W(c, h, n)) * p.gain * p.power(l)).real();
                }
                a.K(c, h, l) = static_cast<T>(sum);
            }
        }
    }
}

}  // namespace ssmkit::reference
