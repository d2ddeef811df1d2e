#pragma once

#include <vector>

#include <ssmkit/args/s7_scan_backward.hpp>

namespace ssmkit::reference {

/// The gradients of S7's scan as their equations say it (args/s7_scan_backward.hpp), all states kept: the oracle of the tests.
template <class T>
void s7_scan_backward(const s7_scan_backward_args<T>& a)
{
    check(a);
    using real = typename s7_scan_args<T>::real;
    const auto value = [](T x) { return static_cast<real>(x); };
    const s7_scan_args<T>& f = a.forward;
    const index length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(2), out = f.C.extent(2);
    std::vector<real> h(static_cast<std::size_t>((length + 1) * state)), du(static_cast<std::size_t>(length * dim));
    const auto at = [&](index t, index n) -> real& { return h[static_cast<std::size_t>(t * state + n)]; };
    for (index b = 0; b < f.u.extent(0); ++b) {
        for (real& x : du) x = 0;
        for (index n = 0; n < state; ++n) {
            const auto factor = [&](index t) { return 1 - 1 / (value(f.A(b, t, n)) * value(f.A(b, t, n)) + real(0.5)); };
            at(0, n) = f.initial_state.data() ? f.initial_state(b, n) : real(0);
            for (index t = 0; t < length; ++t) {
                real next = factor(t) * at(t, n) + (f.bias.data() ? value(f.bias(b, t, n)) : real(0));
                for (index c = 0; c < dim; ++c) next += value(f.B(b, t, c, n)) * value(f.u(b, t, c));
                at(t + 1, n) = next;
            }
            real later = a.dfinal_state.data() ? a.dfinal_state(b, n) : real(0);
            for (index t = length - 1; t >= 0; --t) {
                real s = later;
                for (index o = 0; o < out; ++o) {
                    s += value(f.C(b, t, o, n)) * value(a.dy(b, t, o));
                    if (a.dC.data()) a.dC(b, t, o, n) = static_cast<T>(value(a.dy(b, t, o)) * at(t + 1, n));
                }
                const real A = value(f.A(b, t, n)), d = A * A + real(0.5);
                if (a.dA.data()) a.dA(b, t, n) = static_cast<T>(s * at(t, n) * 2 * A / (d * d));
                if (a.dbias.data()) a.dbias(b, t, n) = static_cast<T>(s);
                for (index c = 0; c < dim; ++c) {
                    du[static_cast<std::size_t>(t * dim + c)] += value(f.B(b, t, c, n)) * s;
                    if (a.dB.data()) a.dB(b, t, c, n) = static_cast<T>(value(f.u(b, t, c)) * s);
                }
                later = factor(t) * s;
            }
            if (a.dinitial_state.data()) a.dinitial_state(b, n) = later;
        }
        for (index t = 0; t < length; ++t) {
            for (index c = 0; c < dim && a.du.data(); ++c)
                a.du(b, t, c) = static_cast<T>(du[static_cast<std::size_t>(t * dim + c)]);
        }
    }
}

}  // namespace ssmkit::reference
