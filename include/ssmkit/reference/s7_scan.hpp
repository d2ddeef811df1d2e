#pragma once

#include <vector>

#include <ssmkit/args/s7_scan.hpp>

namespace ssmkit::reference {

/// The scan of S7 as its equations say it (args/s7_scan.hpp): the oracle of the tests.
template <class T>
void s7_scan(const s7_scan_args<T>& a)
{
    check(a);
    using real = typename s7_scan_args<T>::real;
    const auto value = [](T x) { return static_cast<real>(x); };
    const index length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(2), out = a.C.extent(2);
    for (index b = 0; b < a.u.extent(0); ++b) {
        std::vector<real> h(static_cast<std::size_t>(state));
        const auto at = [&](index n) -> real& { return h[static_cast<std::size_t>(n)]; };
        for (index n = 0; n < state && a.initial_state.data(); ++n) at(n) = a.initial_state(b, n);
        for (index t = 0; t < length; ++t) {
            for (index n = 0; n < state; ++n) {
                const real A = value(a.A(b, t, n));
                real next = (1 - 1 / (A * A + real(0.5))) * at(n) + (a.bias.data() ? value(a.bias(b, t, n)) : real(0));
                for (index c = 0; c < dim; ++c) next += value(a.B(b, t, c, n)) * value(a.u(b, t, c));
                at(n) = next;
            }
            for (index o = 0; o < out; ++o) {
                real y = 0;
                for (index n = 0; n < state; ++n) y += value(a.C(b, t, o, n)) * at(n);
                a.y(b, t, o) = static_cast<T>(y);
            }
        }
        for (index n = 0; n < state && a.final_state.data(); ++n) a.final_state(b, n) = at(n);
    }
}

}  // namespace ssmkit::reference
