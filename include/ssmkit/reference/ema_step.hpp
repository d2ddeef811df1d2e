#pragma once

#include <ssmkit/args/ema_step.hpp>

namespace ssmkit::reference {

/// The moving average as its equations say it (args/ema_step.hpp): the oracle of the tests.
template <class T>
void ema_step(const ema_step_args<T>& a)
{
    check(a);
    for (index b = 0; b < a.x.extent(0); ++b) {
        for (index h = 0; h < a.x.extent(2); ++h) {
            for (index t = 0; t < a.x.extent(1); ++t) {
                const T x = a.x(b, t, h);
                T y(0);
                for (index n = 0; n < a.h.extent(2); ++n) {
                    a.h(b, h, n) = a.decay(h, n) * a.h(b, h, n) + a.input(h, n) * x;
                    y += a.output(h, n) * a.h(b, h, n);
                }
                a.y(b, t, h) = y;
            }
        }
    }
}

}  // namespace ssmkit::reference
