#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <numbers>
#include <vector>

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/reference/dss_kernel.hpp>

namespace ssmkit::reference {

namespace parts {

/// One pole of S4D: weights times gain times e^{log (l - origin)}.
struct s4d_pole {
    std::complex<double> value, log, gain;
    double origin = 0;

    /// λ^{l - origin}
    std::complex<double> power(index l) const
    {
        const double at = static_cast<double>(l) - origin;
        return at == 0 ? 1 : std::exp(at * log);
    }
};

inline discretization s4d_method(s4d_discretization method)
{
    return method == s4d_discretization::bilinear ? discretization::bilinear : discretization::zoh;
}

template <class T>
s4d_pole s4d_pole_of(const s4d_kernel_args<T>& a, index h, index n, index length)
{
    const std::complex<double> A = a.A(h % a.A.extent(0), n);
    const double delta = a.rate * a.delta(h, n);
    if (a.method == s4d_discretization::dss) {
        const dss_pole p = dss_pole_of(A, delta, delta, dss_scaling::softmax, 1e-7, static_cast<double>(length));
        return {std::exp(p.log), p.log, p.gain, p.origin};
    }
    const discrete<std::complex<double>> d = discretize(A, delta, s4d_method(a.method));
    return {d.pole, a.method == s4d_discretization::zoh ? delta * A : std::log(d.pole), d.gain};
}

template <class T>
bool s4d_beyond_band(const s4d_kernel_args<T>& a, index h, index n)
{
    return a.delta(h, n) * std::abs(a.A(h % a.A.extent(0), n).imag()) / (2 * std::numbers::pi) >= a.bandlimit / 2;
}

template <class T>
std::complex<double> s4d_output(const s4d_kernel_args<T>& a, index c, index h, index n)
{
    return s4d_beyond_band(a, h, n) ? 0 : std::complex<double>(a.C(c, h, n));
}

template <class T>
double s4d_factor(const s4d_kernel_args<T>& a)
{
    return a.conjugate_pairs && a.method != s4d_discretization::dss ? 2 : 1;
}

}  // namespace parts

/// The kernel of S4D as its equations say it (args/s4d_kernel.hpp): the oracle of the tests. Adds up in double.
template <class T>
void s4d_kernel(const s4d_kernel_args<T>& a)
{
    check(a);
    using complex = std::complex<double>;
    const index length = a.K.extent(2), state = a.C.extent(2);
    for (index h = 0; h < a.C.extent(1); ++h) {
        std::vector<parts::s4d_pole> poles;
        for (index n = 0; n < state; ++n) poles.push_back(parts::s4d_pole_of(a, h, n, length));
        for (index c = 0; c < a.C.extent(0); ++c) {
            for (index l = 0; l < length; ++l) {
                double sum = 0;
                for (index n = 0; n < state; ++n) {
                    const parts::s4d_pole& p = poles[static_cast<std::size_t>(n)];
                    sum += (parts::s4d_output(a, c, h, n) * complex(a.B(h % a.A.extent(0), n)) * p.gain * p.power(l)).real();
                }
                a.K(c, h, l) = static_cast<T>(parts::s4d_factor(a) * sum);
                for (index b = 0; b < a.K_state.extent(0); ++b) {
                    sum = 0;
                    for (index n = 0; n < state; ++n) {
                        const complex power = poles[static_cast<std::size_t>(n)].power(l + 1);
                        sum += (parts::s4d_output(a, c, h, n) * power * complex(a.initial_state(b, h, n))).real();
                    }
                    a.K_state(b, c, h, l) = static_cast<T>(parts::s4d_factor(a) * sum);
                }
            }
        }
    }
}

}  // namespace ssmkit::reference
