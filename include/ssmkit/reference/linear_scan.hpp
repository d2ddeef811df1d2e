#pragma once

#include <ssmkit/args/linear_scan.hpp>

namespace ssmkit::reference {

/// The linear scan as its equation says it (args/linear_scan.hpp): the oracle of the tests.
template <class T>
void linear_scan(const linear_scan_args<T>& a)
{
    check(a);
    using state_type = linear_scan_state_t<T>;
    const index length = a.b.extent(1);
    for (index b = 0; b < a.b.extent(0); ++b) {
        for (index n = 0; n < a.b.extent(2); ++n) {
            state_type h = a.initial_state.data() ? a.initial_state(b, n) : state_type(0);
            for (index step = 0; step < length; ++step) {
                const index t = a.reverse ? length - 1 - step : step;
                const state_type input = static_cast<state_type>(a.b(b, t, n));
                const bool reset = a.reset.data() && a.reset(b, t) != 0;
                h = reset ? input : a.a(b, t, n) * h + input;
                a.h(b, t, n) = static_cast<T>(h);
            }
            if (a.final_state.data()) a.final_state(b, n) = h;
        }
    }
}

}  // namespace ssmkit::reference
