#pragma once

#include <complex>

#include <ssmkit/args/s5_step.hpp>

namespace ssmkit::reference {

/// One token of S5 as its equations say it (args/s5_step.hpp): the oracle of the tests, and what the operation does for strides
/// that it has no kernel for.
template <class T>
void s5_step(const s5_step_args<T>& a)
{
    check(a);
    using real = typename s5_step_args<T>::real;
    using complex = typename s5_step_args<T>::complex;
    const real f = a.conjugate_pairs ? real(2) : real(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index n = 0; n < a.A.extent(0); ++n) {
            complex input(0);
            for (index c = 0; c < a.u.extent(1); ++c) input += a.B(n, c) * static_cast<real>(a.u(b, c));
            a.h(b, n) = (a.liquid ? a.A[n] + input : a.A[n]) * a.h(b, n) + input;
        }
        for (index o = 0; o < a.C.extent(0); ++o) {
            real y = a.D.data() ? a.D[o] * static_cast<real>(a.u(b, o)) : real(0);
            for (index n = 0; n < a.A.extent(0); ++n) y += f * (a.C(o, n) * a.h(b, n)).real();
            a.y(b, o) = static_cast<T>(y);
        }
    }
}

}  // namespace ssmkit::reference
