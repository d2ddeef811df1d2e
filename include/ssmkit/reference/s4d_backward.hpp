#pragma once

#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/s4d_backward.hpp>
#include <ssmkit/discretize.hpp>

namespace ssmkit::reference {

/// The gradients of S4D's layer as their equations say it (args/s4d_backward.hpp), in double precision throughout: the oracle of
/// the tests.
template <class T>
void s4d_backward(const s4d_backward_args<T>& a)
{
    check(a);
    using complex = std::complex<double>;
    using stored = typename s4d_backward_args<T>::complex;
    using real = compute_t<T>;
    const s4d_args<T>& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(1), dim = f.u.extent(2);
    const index channels = f.C.extent(0), copies = f.A.extent(0), state = f.A.extent(1);
    const double factor = f.conjugate_pairs ? 2 : 1;
    const auto method = f.method == s4d_discretization::zoh ? discretization::zoh : discretization::bilinear;
    const auto sized = [](index count) { return static_cast<std::size_t>(count); };
    const bool tied = a.ddelta.data() && a.ddelta.stride(1) == 0;
    std::vector<complex> dA(sized(copies * state)), dB(sized(copies * state));
    for (index h = 0; h < dim; ++h) {
        const index copy = h % copies;
        std::vector<double> dD(sized(channels));
        std::vector<std::vector<double>> du(sized(batch), std::vector<double>(sized(length)));
        for (index b = 0; b < batch; ++b) {
            for (index t = 0; t < length; ++t) {
                for (index c = 0; c < channels; ++c) {
                    const double dy = static_cast<double>(a.dy(b, t, c * dim + h));
                    dD[sized(c)] += dy * static_cast<double>(f.u(b, t, h));
                    du[sized(b)][sized(t)] += f.D.data() ? static_cast<double>(f.D(c, h)) * dy : 0;
                }
            }
        }
        double ddelta = 0;
        for (index n = 0; n < state; ++n) {
            const complex A = f.A(copy, n), B(f.B(copy, n));
            const auto [pole, gain] = discretize(A, f.rate * f.delta(h, n), method);
            std::vector<complex> dC(sized(channels)), x(sized(length + 1));  // x[step]: before the token visited then
            complex dpole = 0, dinput = 0;
            for (index b = 0; b < batch; ++b) {
                const auto token = [&](index step) { return f.reverse ? length - 1 - step : step; };
                x[0] = f.initial_state.data() ? complex(f.initial_state(b, h, n)) : complex(0);
                for (index step = 0; step < length; ++step) {
                    x[sized(step + 1)] = pole * x[sized(step)] + gain * B * static_cast<double>(f.u(b, token(step), h));
                }
                complex s = a.dfinal_state.data() ? complex(a.dfinal_state(b, h, n)) : complex(0);
                for (index step = length; step-- > 0;) {
                    const index t = token(step);
                    for (index c = 0; c < channels; ++c) {
                        const double dy = factor * static_cast<double>(a.dy(b, t, c * dim + h));
                        s += dy * std::conj(complex(f.C(c, h, n)));
                        dC[sized(c)] += dy * std::conj(x[sized(step + 1)]);
                    }
                    du[sized(b)][sized(t)] += (std::conj(gain * B) * s).real();
                    dinput += s * static_cast<double>(f.u(b, t, h));
                    dpole += s * std::conj(x[sized(step)]);
                    s *= std::conj(pole);
                }
                if (a.dinitial_state.data()) a.dinitial_state(b, h, n) = static_cast<stored>(s);
            }
            const auto g = discretize_backward(A, f.rate * f.delta(h, n), method, 1.0,
                                               discrete<complex>{dpole, dinput * std::conj(B)});
            dA[sized(copy * state + n)] += g.A;
            dB[sized(copy * state + n)] += dinput * std::conj(gain);
            ddelta = f.rate * g.delta + (tied ? ddelta : 0);
            if (a.ddelta.data()) a.ddelta(h, n) = ddelta;
            for (index c = 0; c < channels && a.dC.data(); ++c) a.dC(c, h, n) = static_cast<stored>(dC[sized(c)]);
        }
        for (index c = 0; c < channels && a.dD.data(); ++c) a.dD(c, h) = static_cast<real>(dD[sized(c)]);
        for (index b = 0; b < batch && a.du.data(); ++b) {
            for (index t = 0; t < length; ++t) a.du(b, t, h) = static_cast<T>(static_cast<real>(du[sized(b)][sized(t)]));
        }
    }
    for (index i = 0; i < copies; ++i) {
        for (index n = 0; n < state; ++n) {
            if (a.dA.data()) a.dA(i, n) = dA[sized(i * state + n)];
            if (a.dB.data()) a.dB(i, n) = static_cast<stored>(dB[sized(i * state + n)]);
        }
    }
}

}  // namespace ssmkit::reference
