#pragma once

#include <complex>

#include <ssmkit/args/s4d_discretize.hpp>
#include <ssmkit/discretize.hpp>

namespace ssmkit {

/// Poles and input maps of S4D's recurrence: shapes at s4d_discretize_args. Computed in double and rounded once; throws as check()
/// does; allocates nothing. For models that are set up once: it is not vectorised.
template <class T>
void s4d_discretize(const s4d_discretize_args<T>& a)
{
    check(a);
    const discretization method = a.method == s4d_discretization::bilinear ? discretization::bilinear : discretization::zoh;
    for (index h = 0; h < a.delta.extent(0); ++h) {
        for (index n = 0; n < a.delta.extent(1); ++n) {
            const index copy = h % a.A.extent(0);
            const discrete<std::complex<double>> d = discretize(a.A(copy, n), a.rate * a.delta(h, n), method);
            a.pole(h, n) = std::complex<T>(d.pole);
            a.input(h, n) = std::complex<T>(d.gain * std::complex<double>(a.B(copy, n)));
        }
    }
}

}  // namespace ssmkit
