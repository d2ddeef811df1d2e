#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/dense_kernel.hpp>
#include <ssmkit/reference/dense_system.hpp>

namespace ssmkit::reference {

namespace parts {

template <class T>
bilinear_steps<std::complex<double>> dense_kernel_steps(const dense_kernel_args<T>& a, index h)
{
    using number = std::complex<double>;
    return {widened<number>(a.A[h]), widened<number>(a.B[h]), a.delta[h], 0.5};
}

/// The input whose response is the kernel: 1 at first.
inline std::vector<double> impulse(index length, double size)
{
    std::vector<double> u(at(length));
    if (length > 0) u[0] = size;
    return u;
}

}  // namespace parts

/// Kernels of dense systems (args/dense_kernel.hpp), step by step: the response to an impulse, and what initial states leave. The
/// oracle of the tests; double inside.
template <class T>
void dense_kernel(const dense_kernel_args<T>& a)
{
    check(a);
    using number = std::complex<double>;
    const index length = a.K.extent(2), batch = a.K_state.data() ? a.initial_state.extent(0) : 0;
    for (index h = 0; h < a.A.extent(0); ++h) {
        const auto system = parts::dense_kernel_steps(a, h);
        for (index b = -1; b < batch; ++b) {
            const auto before = b < 0 ? std::vector<number>(system.B.size()) : parts::widened<number>(a.initial_state[b][h]);
            const auto x = system.states(before, parts::impulse(length, b < 0 ? 1 : 0));
            for (index c = 0; c < a.C.extent(0); ++c) {
                const std::vector<number> map = parts::widened<number>(a.C[c][h]);
                for (index l = 0; l < length; ++l) {
                    const double value = parts::sum_of_products(map, x[parts::at(l + 1)]).real();
                    (b < 0 ? a.K(c, h, l) : a.K_state(b, c, h, l)) = static_cast<T>(value);
                }
            }
        }
    }
}

/// The gradients of dense_kernel (args/dense_kernel.hpp): the oracle of the tests.
template <class T>
void dense_kernel_backward(const dense_kernel_backward_args<T>& a)
{
    check(a);
    using number = std::complex<double>;
    using E = std::complex<T>;
    const dense_kernel_args<T>& f = a.forward;
    const index state = f.A.extent(1), length = a.dK.extent(2), channels = f.C.extent(0);
    for (index h = 0; h < f.A.extent(0); ++h) {
        const auto system = parts::dense_kernel_steps(f, h);
        double ddelta = 0;
        std::vector<number> dA(system.A.size()), dB(system.B.size()), dC(parts::at(channels * state));
        for (index b = -1; b < f.initial_state.extent(0); ++b) {
            const auto before = b < 0 ? std::vector<number>(system.B.size()) : parts::widened<number>(f.initial_state[b][h]);
            std::vector<number> dstate(system.B.size());
            for (index c = 0; c < channels && (b < 0 || a.dK_state.data()); ++c) {
                std::vector<double> upstream;
                for (index l = 0; l < length; ++l)
                    upstream.push_back(static_cast<double>(b < 0 ? a.dK(c, h, l) : a.dK_state(b, c, h, l)));
                const parts::bilinear_gradients<number> g(system, before, parts::impulse(length, b < 0 ? 1 : 0),
                                                          parts::widened<number>(f.C[c][h]), upstream);
                ddelta += g.delta;
                for (std::size_t i = 0; i < dA.size(); ++i) dA[i] += g.A[i];
                for (std::size_t i = 0; i < dB.size(); ++i) {
                    dB[i] += g.B[i];
                    dstate[i] += g.before[i];
                    dC[parts::at(c * state) + i] += g.c[i];
                }
            }
            for (index n = 0; n < state && b >= 0 && a.dinitial_state.data(); ++n)
                a.dinitial_state(b, h, n) = parts::narrowed<E>(dstate[parts::at(n)]);
        }
        if (a.ddelta.data()) a.ddelta[h] = ddelta;
        for (index n = 0; n < state; ++n) {
            if (a.dB.data()) a.dB(h, n) = parts::narrowed<E>(dB[parts::at(n)]);
            for (index k = 0; k < state && a.dA.data(); ++k) a.dA(h, n, k) = parts::narrowed<E>(dA[parts::at(n * state + k)]);
            for (index c = 0; c < channels && a.dC.data(); ++c)
                a.dC(c, h, n) = parts::narrowed<E>(dC[parts::at(c * state + n)]);
        }
    }
}

}  // namespace ssmkit::reference
