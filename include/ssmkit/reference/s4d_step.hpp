#pragma once

#include <ssmkit/args/s4d_step.hpp>

namespace ssmkit::reference {

/// The diagonal recurrence as its equations say it (args/s4d_step.hpp): the oracle of the tests.
template <class T>
void s4d_step(const s4d_step_args<T>& a)
{
    check(a);
    const T factor = a.conjugate_pairs ? T(2) : T(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index h = 0; h < a.u.extent(2); ++h) {
            for (index t = 0; t < a.u.extent(1); ++t) {
                const T u = a.u(b, t, h);
                for (index n = 0; n < a.h.extent(2); ++n) a.h(b, h, n) = a.pole(h, n) * a.h(b, h, n) + a.input(h, n) * u;
                for (index c = 0; c < a.C.extent(0); ++c) {
                    T sum(0);
                    for (index n = 0; n < a.h.extent(2); ++n) sum += (a.C(c, h, n) * a.h(b, h, n)).real();
                    a.y(b, t, c, h) = factor * sum + (a.D.data() ? a.D(c, h) * u : T(0));
                }
            }
        }
    }
}

}  // namespace ssmkit::reference
