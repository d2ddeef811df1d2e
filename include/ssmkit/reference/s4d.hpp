#pragma once

#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/s4d.hpp>
#include <ssmkit/discretize.hpp>

namespace ssmkit::reference {

/// S4D's layer as its equations say it (args/s4d.hpp), in double precision throughout: the oracle of the tests.
template <class T>
void s4d(const s4d_args<T>& a)
{
    check(a);
    using complex = std::complex<double>;
    using stored = typename s4d_args<T>::complex;
    const index batch = a.u.extent(0), length = a.u.extent(1), dim = a.u.extent(2);
    const index channels = a.C.extent(0), copies = a.A.extent(0), state = a.A.extent(1);
    const double factor = a.conjugate_pairs ? 2 : 1;
    const auto method = a.method == s4d_discretization::zoh ? discretization::zoh : discretization::bilinear;
    std::vector<complex> x(static_cast<std::size_t>(state));
    std::vector<discrete<complex>> system(static_cast<std::size_t>(state));
    for (index h = 0; h < dim; ++h) {
        for (index n = 0; n < state; ++n) {
            system[static_cast<std::size_t>(n)] = discretize(a.A(h % copies, n), a.rate * a.delta(h, n), method);
        }
        for (index b = 0; b < batch; ++b) {
            for (index n = 0; n < state; ++n) {
                x[static_cast<std::size_t>(n)] = a.initial_state.data() ? complex(a.initial_state(b, h, n)) : complex(0);
            }
            for (index step = 0; step < length; ++step) {
                const index t = a.reverse ? length - 1 - step : step;
                const double u = static_cast<double>(a.u(b, t, h));
                for (index n = 0; n < state; ++n) {
                    const auto& [pole, gain] = system[static_cast<std::size_t>(n)];
                    x[static_cast<std::size_t>(n)] = pole * x[static_cast<std::size_t>(n)] + gain * complex(a.B(h % copies, n)) * u;
                }
                for (index c = 0; c < channels; ++c) {
                    double sum = 0;
                    for (index n = 0; n < state; ++n) sum += (complex(a.C(c, h, n)) * x[static_cast<std::size_t>(n)]).real();
                    const double direct = a.D.data() ? static_cast<double>(a.D(c, h)) * u : 0;
                    a.y(b, t, c * dim + h) = static_cast<T>(static_cast<compute_t<T>>(factor * sum + direct));
                }
            }
            if (!a.final_state.data()) continue;
            for (index n = 0; n < state; ++n) a.final_state(b, h, n) = static_cast<stored>(x[static_cast<std::size_t>(n)]);
        }
    }
}

}  // namespace ssmkit::reference
