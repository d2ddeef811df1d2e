#pragma once

#include <algorithm>
#include <complex>
#include <vector>

#include <ssmkit/args/dense_kernel.hpp>
#include <ssmkit/detail/dense_solve.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

template <class T>
bilinear_system<std::complex<double>> dense_kernel_system(const dense_kernel_args<T>& a, index h)
{
    using number = std::complex<double>;
    return {widened_matrix<number>(a.A[h]), widened_vector<number>(a.B[h]), a.delta[h], 0.5};
}

/// The rows of C of channel h, (channels, state).
template <class T>
std::vector<std::complex<double>> dense_kernel_maps(const dense_kernel_args<T>& a, index h)
{
    std::vector<std::complex<double>> C;
    for (index c = 0; c < a.C.extent(0); ++c) {
        for (index n = 0; n < a.C.extent(2); ++n) C.emplace_back(a.C(c, h, n));
    }
    return C;
}

}  // namespace detail

/// Kernels of dense systems: shapes and equations at dense_kernel_args. Throws shape_error before anything is written. state²
/// complex products a token. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void dense_kernel(const dense_kernel_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    using number = std::complex<double>;
    const index state = a.A.extent(1), length = a.K.extent(2), batch = a.K_state.data() ? a.initial_state.extent(0) : 0;
    run_tasks(exec, static_cast<std::size_t>(a.A.extent(0)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        const auto system = dense_kernel_system(a, h);
        const std::vector<number> C = dense_kernel_maps(a, h);
        for (index i = -1; i < batch; ++i) {
            std::vector<number> x = system.B_bar, next(x.size());
            if (i >= 0) system.A_bar.times(widened_vector<number>(a.initial_state[i][h]).data(), x.data());
            for (index l = 0; l < length; ++l) {
                for (index c = 0; c < a.C.extent(0); ++c) {
                    number sum = 0;
                    for (index n = 0; n < state; ++n)
                        sum += C[static_cast<std::size_t>(c * state + n)] * x[static_cast<std::size_t>(n)];
                    (i < 0 ? a.K(c, h, l) : a.K_state(i, c, h, l)) = static_cast<T>(sum.real());
                }
                system.A_bar.times(x.data(), next.data());
                std::swap(x, next);
            }
        }
    });
}

/// The gradients of dense_kernel: equations at dense_kernel_backward_args. Throws shape_error before anything is written. Keeps
/// 2 state * length doubles for each task that runs at once. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void dense_kernel_backward(const dense_kernel_backward_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    using number = std::complex<double>;
    const dense_kernel_args<T>& f = a.forward;
    const index state = f.A.extent(1), length = a.dK.extent(2), batch = a.dK_state.data() ? f.initial_state.extent(0) : 0;
    const auto narrow = [](number x) { return std::complex<T>(static_cast<T>(x.real()), static_cast<T>(x.imag())); };
    run_tasks(exec, static_cast<std::size_t>(f.A.extent(0)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        const auto at = [&](index l) { return static_cast<std::size_t>(l * state); };
        const auto system = dense_kernel_system(f, h);
        const std::vector<number> C = dense_kernel_maps(f, h);
        std::vector<number> dC(C.size()), dB(at(1)), x(at(length + 1)), psi(at(1)), earlier(at(1));
        small_matrix<number> dA(state);
        for (index i = -1; i < batch; ++i) {
            // x_0 = B̄, or Ā s, for which the state before is kept in front.
            if (i >= 0) std::ranges::copy(widened_vector<number>(f.initial_state[i][h]), x.begin());
            if (i >= 0 && length > 0) system.A_bar.times(x.data(), x.data() + at(1));
            if (i < 0 && length > 0) std::ranges::copy(system.B_bar, x.begin() + static_cast<std::ptrdiff_t>(at(1)));
            for (index l = 1; l < length; ++l) system.A_bar.times(x.data() + at(l), x.data() + at(l + 1));
            std::fill(psi.begin(), psi.end(), 0.0);
            for (index l = length - 1; l >= 0; --l) {
                std::fill(earlier.begin(), earlier.end(), 0.0);
                system.A_bar.add_adjoint_times(psi.data(), earlier.data());
                std::swap(psi, earlier);
                for (index c = 0; c < f.C.extent(0); ++c) {
                    const auto g = static_cast<double>(i < 0 ? a.dK(c, h, l) : a.dK_state(i, c, h, l));
                    for (std::size_t n = 0; n < at(1); ++n) {
                        psi[n] += g * std::conj(C[at(c) + n]);
                        dC[at(c) + n] += g * std::conj(x[at(l + 1) + n]);
                    }
                }
                if (l > 0 || i >= 0) dA.add_outer(psi.data(), x.data() + at(l));
            }
            if (i < 0) dB = psi;
            if (i < 0 || a.dinitial_state.data() == nullptr) continue;
            std::fill(earlier.begin(), earlier.end(), 0.0);
            system.A_bar.add_adjoint_times(psi.data(), earlier.data());
            for (index n = 0; n < state; ++n) a.dinitial_state(i, h, n) = narrow(earlier[static_cast<std::size_t>(n)]);
        }
        const auto g = system.backward(dA, dB);
        if (a.ddelta.data()) a.ddelta[h] = g.delta;
        for (index n = 0; n < state; ++n) {
            if (a.dB.data()) a.dB(h, n) = narrow(g.B[static_cast<std::size_t>(n)]);
            for (index k = 0; k < state && a.dA.data(); ++k) a.dA(h, n, k) = narrow(g.A(n, k));
            for (index c = 0; c < f.C.extent(0) && a.dC.data(); ++c)
                a.dC(c, h, n) = narrow(dC[at(c) + static_cast<std::size_t>(n)]);
        }
    });
    // Without an upstream gradient of K_state, a state has none.
    for (index i = 0; i < a.dinitial_state.extent(0) && batch == 0; ++i) {
        for (index h = 0; h < f.A.extent(0); ++h) {
            for (index n = 0; n < state; ++n) a.dinitial_state(i, h, n) = 0;
        }
    }
}

}  // namespace ssmkit
