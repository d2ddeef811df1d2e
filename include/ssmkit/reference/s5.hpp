#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/s5.hpp>

namespace ssmkit::reference {

/// S5 as its equations say it (args/s5.hpp): the oracle of the tests.
template <class T>
void s5(const s5_args<T>& a)
{
    check(a);
    using real = typename s5_args<T>::real;
    using complex = typename s5_args<T>::complex;
    const index batch = a.u.extent(0), length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(0), out = a.C.extent(0);
    const real f = a.conjugate_pairs ? real(2) : real(1);
    std::vector<real> y(static_cast<std::size_t>(length * out));  // y may be u
    for (index b = 0; b < batch; ++b) {
        for (index t = 0; t < length; ++t) {
            for (index o = 0; o < out; ++o) {
                y[static_cast<std::size_t>(t * out + o)] = a.D.data() ? a.D[o] * static_cast<real>(a.u(b, t, o)) : real(0);
            }
        }
        for (index scan = 0; scan < detail::s5_scans(a); ++scan) {
            const bool backwards = a.reverse || scan == 1;
            for (index n = 0; n < state; ++n) {
                const index column = scan * state + n;
                auto system = detail::s5_system(a, n);
                complex h = a.initial_state.data() ? a.initial_state(b, column) : complex(0);
                for (index step = 0; step < length; ++step) {
                    const index t = backwards ? length - 1 - step : step;
                    if (a.interval.data()) system = detail::s5_system(a, n, static_cast<double>(a.interval(b, t)));
                    complex input(0);
                    for (index c = 0; c < dim; ++c) input += a.B(n, c) * static_cast<real>(a.u(b, t, c));
                    if (a.delta.data()) input *= complex(system.gain);
                    complex pole(system.pole);
                    if (a.liquid) pole += input;
                    h = detail::s5_begins(a, b, t, backwards) ? input : pole * h + input;
                    for (index o = 0; o < out; ++o) y[static_cast<std::size_t>(t * out + o)] += f * (a.C(o, column) * h).real();
                }
                if (a.final_state.data()) a.final_state(b, column) = h;
            }
        }
        for (index t = 0; t < length; ++t) {
            for (index o = 0; o < out; ++o) a.y(b, t, o) = static_cast<T>(y[static_cast<std::size_t>(t * out + o)]);
        }
    }
}

}  // namespace ssmkit::reference
