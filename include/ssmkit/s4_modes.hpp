#pragma once

// An S4 model as an explicit system over its full spectrum: dense, or diagonal in the basis of its discrete eigenvectors. Needs
// Eigen. s4_step, which needs neither, is what to step with; these are for analysis and for other engines.

#include <complex>

#include <ssmkit/discretize_dense.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Eigenvalues>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/args/s4_step.hpp>
#include <ssmkit/detail/s4_transition.hpp>

namespace ssmkit {

/// x ← A x + B u, y = Re C x with 2 state elements, the second half of which starts as the conjugate of the first.
struct s4_explicit {
    dense<std::complex<double>> A;  ///< (2 state, 2 state); only its diagonal in diagonal form
    dense<std::complex<double>> B;  ///< (2 state, 1)
    dense<std::complex<double>> C;  ///< (channels, 2 state)
};

/// Channel h as a dense system: Ā and B̄ of s4_step_setup_args, whose outputs are not looked at, written out over the full
/// spectrum; C is (channels, dim, state). Throws shape_error if the shapes do not fit.
template <class T>
s4_explicit s4_dense(const s4_step_setup_args<T>& a, const view<const std::complex<std::type_identity_t<T>>, 3>& C, index h)
{
    constexpr const char* op = "s4_dense";
    detail::check_s4_parameters(
        op, s4_kernel_args<T>{.delta = a.delta, .A = a.A, .B = a.B, .P = a.P, .C = C, .rate = a.rate}, 0);
    detail::require(h >= 0 && h < a.delta.extent(0), op, "h", "is no channel");
    const detail::s4_transition t(a.delta, a.rate, a.A, a.B, a.P, h);
    const index state = t.state, full = 2 * state;
    const auto both = [&](const auto& values, index offset, index n) {
        const std::complex<double> x = values[static_cast<std::size_t>(offset + n % state)];
        return n < state ? x : std::conj(x);
    };
    s4_explicit s{dense<std::complex<double>>::Zero(full, full), dense<std::complex<double>>(full, 1),
                  dense<std::complex<double>>(C.extent(0), full)};
    for (index n = 0; n < full; ++n) {
        s.A(n, n) = both(t.pole, 0, n);
        s.B(n, 0) = both(t.gain, 0, n);
        for (index m = 0; m < full; ++m) {
            for (index r = 0; r < t.rank; ++r) s.A(n, m) -= both(t.U, r * state, n) * both(t.V, r * state, m);
        }
        for (index c = 0; c < C.extent(0); ++c) {
            const std::complex<double> x(static_cast<double>(C(c, h, n % state).real()),
                                         static_cast<double>(C(c, h, n % state).imag()));
            s.C(c, n) = n < state ? x : std::conj(x);
        }
    }
    return s;
}

/// A dense system in the basis of its eigenvectors W: Ā = W Θ W^-1, B ← W^-1 B, C ← C W. Its states are not those of the other
/// forms, and its accuracy is limited by the condition of W: some 1e-9 for LegT of 16 states.
template <class Lazy = void>  // as in hippo.hpp: compiled where it is called
s4_explicit s4_diagonal(const s4_explicit& s)
{
    if (s.A.size() == 0) return s;
    const Eigen::ComplexEigenSolver<dense<std::complex<double>>> solver(s.A);
    detail::require(solver.info() == Eigen::Success, "s4_diagonal", "A", "has an element that is not finite");
    const dense<std::complex<double>> W = solver.eigenvectors();
    return {solver.eigenvalues().asDiagonal(), W.partialPivLu().solve(s.B), s.C * W};
}

}  // namespace ssmkit
