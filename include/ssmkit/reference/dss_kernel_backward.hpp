#pragma once

#include <algorithm>
#include <cmath>
#include <complex>

#include <ssmkit/args/dss_kernel_backward.hpp>
#include <ssmkit/reference/dss_kernel.hpp>

namespace ssmkit::reference {

namespace parts {

/// g(z) and what A gets beside it, of the gradient of the gain.
struct dss_gain_gradient {
    std::complex<double> z, A;
};

inline dss_gain_gradient dss_gain_backward(std::complex<double> A, double delta_re, double delta_im, dss_scaling scaling,
                                           double epsilon, double length, std::complex<double> dgain)
{
    using complex = std::complex<double>;
    const complex z(delta_re * A.real(), delta_im * A.imag());
    if (scaling == dss_scaling::none) return {0, 0};
    if (scaling == dss_scaling::exponential) {
        const complex e = expm1(z);
        const complex inverse = std::conj(A) / std::max(epsilon, std::norm(A));
        const complex dinverse = dgain * std::conj(e);
        // 1 / A is holomorphic, conj(A) / ε is not.
        const complex dA = std::norm(A) > epsilon ? -dinverse * std::conj(inverse * inverse) : std::conj(dinverse) / epsilon;
        return {dgain * std::conj(std::exp(z) * inverse), dA};
    }
    const double sign = A.real() > 0 ? -1 : 1;
    const complex down = sign * z, e = expm1(down), whole = expm1(down * length), x = A * whole;
    const double below = std::norm(x) + epsilon;
    const complex ratio = std::conj(x) / below;
    const complex dratio = dgain * std::conj(e);
    const complex dx = -dratio * x * x / (below * below) + std::conj(dratio) * epsilon / (below * below);
    const complex dwhole = dx * std::conj(A);
    const complex ddown = dgain * std::conj(ratio * std::exp(down)) + dwhole * std::conj(length * std::exp(down * length));
    return {sign * ddown, dx * std::conj(whole)};
}

}  // namespace parts

/// The gradients of DSS's kernel (args/dss_kernel_backward.hpp): the oracle of the tests.
template <class T>
void dss_kernel_backward(const dss_kernel_backward_args<T>& a)
{
    check(a);
    using complex = std::complex<double>;
    const dss_kernel_args<T>& f = a.forward;
    const index length = a.dK.extent(2);
    const auto steps = static_cast<double>(length);
    for (index h = 0; h < a.ddelta.extent(0); ++h) a.ddelta(h, 0) = a.ddelta(h, 1) = 0;
    for (index n = 0; n < f.A.extent(0); ++n) {
        complex dA = 0;
        for (index h = 0; h < f.W.extent(1); ++h) {
            const complex A = f.A[n];
            const double re = f.delta(h, 0), im = f.delta(h, 1);
            const parts::dss_pole p = parts::dss_pole_of(A, re, im, f.scaling, f.epsilon, steps);
            complex dz = 0, dgain = 0;
            for (index c = 0; c < f.W.extent(0); ++c) {
                const complex W(f.W(c, h, n));
                complex sum = 0, weighted = 0;
                for (index l = 0; l < length; ++l) {
                    const complex term = static_cast<double>(a.dK(c, h, l)) * std::conj(p.power(l));
                    sum += term;
                    if (p.steps(l) != 0) weighted += p.steps(l) * term;
                }
                if (a.dW.data()) a.dW(c, h, n) = std::complex<T>(sum * std::conj(p.gain));
                dgain += sum * std::conj(W);
                dz += weighted * std::conj(W * p.gain);
            }
            const parts::dss_gain_gradient g = parts::dss_gain_backward(A, re, im, f.scaling, f.epsilon, steps, dgain);
            dz += g.z;
            dA += g.A + complex(re * dz.real(), im * dz.imag());
            if (!a.ddelta.data()) continue;
            a.ddelta(h, 0) += A.real() * dz.real();
            a.ddelta(h, 1) += A.imag() * dz.imag();
        }
        if (a.dA.data()) a.dA[n] = dA;
    }
}

}  // namespace ssmkit::reference
