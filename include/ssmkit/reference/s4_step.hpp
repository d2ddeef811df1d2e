#pragma once

#include <ssmkit/args/s4_step.hpp>

namespace ssmkit::reference {

namespace parts {

/// <a, h> = 2 Re Σ a_n h_n
template <class T, class A>
T s4_product(const view<A, 1>& a, const view<std::complex<T>, 1>& h)
{
    T sum = 0;
    for (index n = 0; n < h.extent(0); ++n) sum += 2 * (a[n] * h[n]).real();
    return sum;
}

}  // namespace parts

/// Steps of S4 as their equations say it (args/s4_step.hpp): the oracle of the tests.
template <class T>
void s4_step(const s4_step_args<T>& a)
{
    check(a);
    for (index b = 0; b < a.h.extent(0); ++b) {
        for (index d = 0; d < a.h.extent(1); ++d) {
            const view<std::complex<T>, 1> h = a.h[b][d];
            for (index t = 0; t < a.u.extent(2); ++t) {
                T products[ssmkit::detail::s4_step_rank];
                for (index r = 0; r < a.U.extent(0); ++r) products[r] = parts::s4_product<T>(a.V[r][d], h);
                for (index n = 0; n < h.extent(0); ++n) {
                    std::complex<T> next = a.pole(d, n) * h[n] + a.gain(d, n) * a.u(b, d, t);
                    for (index r = 0; r < a.U.extent(0); ++r) next -= a.U(r, d, n) * products[r];
                    h[n] = next;
                }
                for (index c = 0; c < a.y.extent(1); ++c) a.y(b, c, d, t) = parts::s4_product<T>(a.C[c][d], h);
            }
        }
    }
}

}  // namespace ssmkit::reference
