#pragma once

#include <complex>

#include <ssmkit/args/s4d_kernel_backward.hpp>
#include <ssmkit/reference/dss_kernel_backward.hpp>
#include <ssmkit/reference/s4d_kernel.hpp>

namespace ssmkit::reference {

namespace parts {

/// Σ u_l conj(λ^l) and Σ l u_l conj(λ^{l-1}), powers l - origin.
struct s4d_moments {
    std::complex<double> sum = 0, derivative = 0;

    template <class T>
    s4d_moments(const s4d_pole& p, const view<const T, 1>& u)
    {
        for (index l = 0; l < u.extent(0); ++l) {
            const double at = static_cast<double>(l) - p.origin;
            sum += static_cast<double>(u[l]) * std::conj(p.power(l));
            if (at != 0) derivative += at * static_cast<double>(u[l]) * std::conj(p.power(l - 1));
        }
    }
};

/// g(A) and g(Δ) of g(λ) and g(β).
template <class T>
discretize_gradient<std::complex<double>> s4d_pole_backward(const s4d_kernel_args<T>& f, index h, index n, index length,
                                                            std::complex<double> dpole, std::complex<double> dgain)
{
    const std::complex<double> A = f.A(h % f.A.extent(0), n);
    const double delta = f.rate * f.delta(h, n);
    if (f.method != s4d_discretization::dss) {
        return ssmkit::discretize_backward(A, delta, s4d_method(f.method), 1.0, discrete<std::complex<double>>{dpole, dgain});
    }
    const dss_gain_gradient g = dss_gain_backward(A, delta, delta, dss_scaling::softmax, 1e-7, static_cast<double>(length), dgain);
    const std::complex<double> dz = g.z + dpole * std::conj(std::exp(delta * A));
    return {delta * dz + g.A, (dz * std::conj(A)).real(), 0};
}

}  // namespace parts

/// The gradients of S4D's kernel as their equations say it (args/s4d_kernel_backward.hpp): the oracle of the tests.
template <class T>
void s4d_kernel_backward(const s4d_kernel_backward_args<T>& a)
{
    check(a);
    using complex = std::complex<double>;
    const s4d_kernel_args<T>& f = a.forward;
    const index length = a.dK.extent(2), copies = f.A.extent(0), batch = a.dK_state.extent(0);
    const double factor = parts::s4d_factor(f);
    for (index h = 0; h < a.ddelta.extent(0); ++h) {  // elements that several indices share are sums
        for (index n = 0; n < a.ddelta.extent(1); ++n) a.ddelta(h, n) = 0;
    }
    for (index n = 0; n < f.C.extent(2); ++n) {
        for (index s = 0; s < copies; ++s) {
            complex dA = 0, dB = 0;
            const complex B(f.B(s, n));
            for (index h = s; h < f.C.extent(1); h += copies) {
                const parts::s4d_pole p = parts::s4d_pole_of(f, h, n, length);
                complex dpole = 0, dgain = 0;
                for (index b = 0; b < a.dinitial_state.extent(0); ++b) a.dinitial_state(b, h, n) = 0;
                for (index c = 0; c < f.C.extent(0); ++c) {
                    const complex C = parts::s4d_output(f, c, h, n);
                    const bool dropped = parts::s4d_beyond_band(f, h, n);
                    const parts::s4d_moments m(p, a.dK[c][h]);
                    complex dC = factor * m.sum * std::conj(B * p.gain);
                    dpole += factor * m.derivative * std::conj(C * B * p.gain);
                    dgain += factor * m.sum * std::conj(C * B);
                    dB += factor * m.sum * std::conj(C * p.gain);
                    for (index b = 0; b < batch; ++b) {  // weights C λ s
                        const complex state(f.initial_state(b, h, n));
                        const parts::s4d_moments k(p, a.dK_state[b][c][h]);
                        dC += factor * k.sum * std::conj(p.value * state);
                        dpole += factor * (k.derivative * std::conj(C * p.value * state) + k.sum * std::conj(C * state));
                        if (a.dinitial_state.data())
                            a.dinitial_state(b, h, n) += std::complex<T>(factor * k.sum * std::conj(C * p.value));
                    }
                    if (a.dC.data()) a.dC(c, h, n) = dropped ? std::complex<T>(0) : std::complex<T>(dC);
                }
                const auto g = parts::s4d_pole_backward(f, h, n, length, dpole, dgain);
                dA += g.A;
                if (a.ddelta.data()) a.ddelta(h, n) += f.rate * g.delta;
            }
            if (a.dA.data()) a.dA(s, n) = dA;
            if (a.dB.data()) a.dB(s, n) = std::complex<T>(dB);
        }
    }
}

}  // namespace ssmkit::reference
