#pragma once

#include <complex>

#include <ssmkit/args/linear_scan_backward.hpp>

namespace ssmkit::reference {

namespace parts {

template <class T>
T linear_scan_conjugate(const T& x)
{
    if constexpr (ssmkit::detail::is_complex<T>) {
        return std::conj(x);
    } else {
        return x;
    }
}

}  // namespace parts

/// The gradients of the linear scan as their equations say it (args/linear_scan_backward.hpp): the oracle of the tests.
template <class T>
void linear_scan_backward(const linear_scan_backward_args<T>& a)
{
    check(a);
    using state_type = linear_scan_state_t<T>;
    const linear_scan_args<T>& f = a.forward;
    const index batch = a.dh.extent(0), length = a.dh.extent(1), state = a.dh.extent(2);
    for (index b = 0; b < batch && a.da.data(); ++b) {  // elements that several indices share are sums
        for (index t = 0; t < length; ++t) {
            for (index n = 0; n < state; ++n) a.da(b, t, n) = state_type(0);
        }
    }
    for (index b = 0; b < batch; ++b) {
        for (index n = 0; n < state; ++n) {
            state_type later = a.dfinal_state.data() ? a.dfinal_state(b, n) : state_type(0);  // reaches h_t from what follows
            for (index step = length - 1; step >= 0; --step) {
                const index t = f.reverse ? length - 1 - step : step, before = f.reverse ? t + 1 : t - 1;
                const bool reset = f.reset.data() && f.reset(b, t) != 0;
                const state_type s = static_cast<state_type>(a.dh(b, t, n)) + later;
                if (a.da.data() && !reset) {
                    const state_type initial = f.initial_state.data() ? f.initial_state(b, n) : state_type(0);
                    const state_type h = step > 0 ? static_cast<state_type>(f.h(b, before, n)) : initial;
                    a.da(b, t, n) += s * parts::linear_scan_conjugate(h);
                }
                if (a.db.data()) a.db(b, t, n) = static_cast<T>(s);
                later = reset ? state_type(0) : parts::linear_scan_conjugate(f.a(b, t, n)) * s;
            }
            if (a.dinitial_state.data()) a.dinitial_state(b, n) = later;
        }
    }
}

}  // namespace ssmkit::reference
