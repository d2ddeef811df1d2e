#pragma once

// Perturb, then diagonalise.

#include <algorithm>
#include <complex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ssmkit/hippo/dplr.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Eigenvalues>
#include <Eigen/LU>
#include <Eigen/SVD>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace ssmkit {

/// A system in the eigenvectors of a perturbation of it, A + E = V diag(Λ) V^-1.
struct perturbed_diagonal {
    Eigen::VectorXcd Lambda;  ///< (state)        by imaginary, then real part
    Eigen::MatrixXcd V;       ///< (state, state) columns of unit length, phases as in diagonal_plus_low_rank
    Eigen::MatrixXcd B;       ///< (state, dim)   V^-1 B
    Eigen::MatrixXcd C;       ///< (dim, state)   C V
    double condition;         ///< κ₂(V): by how much rounding errors of B grow
};

/// Perturb, then diagonalise (S4-PTD and S5-PTD, arXiv:2310.01698, section 3): LegS itself has eigenvectors of condition 2^state,
/// a little E makes them moderate, at the price of a backward error ||E||. A, E (state, state), B (state, dim), C (dim, state).
/// Throws shape_error if the shapes do not fit or A + E is not finite.
template <class Lazy = void>
perturbed_diagonal perturb_then_diagonalize(const Eigen::MatrixXd& A, const Eigen::MatrixXd& E,
                                                   const Eigen::MatrixXd& B, const Eigen::MatrixXd& C)
{
    constexpr const char* op = "perturb_then_diagonalize";
    const index state = A.rows();
    detail::require_system(op, A, B);
    detail::require(E.rows() == state && E.cols() == state, op, "E", "is not as large as A");
    detail::require(C.cols() == state, op, "C",
                    "has " + std::to_string(C.cols()) + " columns, expected state = " + std::to_string(state));
    const Eigen::MatrixXd perturbed = A + E;
    detail::require(perturbed.allFinite(), op, "A + E", "has an element that is not finite");
    if (state == 0) return {Eigen::VectorXcd(0), Eigen::MatrixXcd(0, 0), B, C, 1};
    const Eigen::EigenSolver<Eigen::MatrixXd> solver(perturbed);
    detail::require(solver.info() == Eigen::Success, op, "A + E", "has eigenvalues that did not converge");
    const Eigen::VectorXcd values = solver.eigenvalues();
    const Eigen::MatrixXcd vectors = solver.eigenvectors();
    std::vector<index> order(static_cast<std::size_t>(state));
    for (std::size_t k = 0; k < order.size(); ++k) order[k] = static_cast<index>(k);
    std::stable_sort(order.begin(), order.end(), [&](index a, index b) {
        return std::pair(values[a].imag(), values[a].real()) < std::pair(values[b].imag(), values[b].real());
    });
    perturbed_diagonal d{Eigen::VectorXcd(state), Eigen::MatrixXcd(state, state), {}, {}, 0};
    for (index k = 0; k < state; ++k) {
        d.Lambda[k] = values[order[static_cast<std::size_t>(k)]];
        d.V.col(k) = vectors.col(order[static_cast<std::size_t>(k)]).normalized();
    }
    detail::fix_phases(d.V);
    d.B = d.V.partialPivLu().solve(B.cast<std::complex<double>>());
    d.C = detail::adjoint_times(d.V, C.transpose()).adjoint();
    Eigen::MatrixXd real(2 * state, 2 * state);  // V as a real matrix: the same singular values, each twice
    real << d.V.real(), -d.V.imag(), d.V.imag(), d.V.real();
    const Eigen::VectorXd stretch = Eigen::BDCSVD<Eigen::MatrixXd>(real).singularValues();
    d.condition = stretch[0] / stretch[2 * state - 1];
    return d;
}

/// What models keep of a perturbed system: of each pair of conjugate eigenvalues that with Im Λ < 0, and every real eigenvalue.
///
///     C e^(t (A + E)) B = 2 Re Σ_n C_n e^(t Λ_n) B_n
///
/// holds exactly as for pairs alone: the maps C of real eigenvalues, which have no partner, are halved.
struct perturbed_half {
    Eigen::VectorXcd Lambda;  ///< (kept)         kept: at least half of state, more where eigenvalues are real
    Eigen::MatrixXcd V;       ///< (state, kept)
    Eigen::MatrixXcd B;       ///< (kept, dim)
    Eigen::MatrixXcd C;       ///< (dim, kept)
};

/// The half of a perturbed system. Throws shape_error unless its spectrum is closed under conjugation, as that of real matrices is.
template <class Lazy = void>
perturbed_half conjugate_half(const perturbed_diagonal& d)
{
    std::vector<index> kept;
    index real = 0;
    for (index n = 0; n < d.Lambda.size(); ++n) {
        if (d.Lambda[n].imag() <= 0) kept.push_back(n);
        real += d.Lambda[n].imag() == 0;
    }
    const auto count = static_cast<index>(kept.size());
    detail::require(2 * count - real == d.Lambda.size(), "conjugate_half", "Lambda", "has eigenvalues without their conjugates");
    perturbed_half h{Eigen::VectorXcd(count), Eigen::MatrixXcd(d.V.rows(), count), Eigen::MatrixXcd(count, d.B.cols()),
                     Eigen::MatrixXcd(d.C.rows(), count)};
    for (index k = 0; k < count; ++k) {
        const index n = kept[static_cast<std::size_t>(k)];
        h.Lambda[k] = d.Lambda[n];
        h.V.col(k) = d.V.col(n);
        h.B.row(k) = d.B.row(n);
        h.C.col(k) = d.C.col(n) * (d.Lambda[n].imag() == 0 ? 0.5 : 1.0);
    }
    return h;
}

/// A perturbation of 2-norm `norm` from the direction of `normals` (state * state numbers, row by row), for
/// perturb_then_diagonalize: a Gaussian one is enough for moderate conditions. Throws shape_error unless they are that many,
/// norm >= 0 and not all numbers 0.
template <class Lazy = void>
Eigen::MatrixXd perturbation(index state, double norm, std::span<const double> normals)
{
    constexpr const char* op = "perturbation";
    detail::require(state >= 0 && static_cast<index>(normals.size()) == state * state, op, "normals",
                    "are not state * state numbers");
    detail::require(norm >= 0, op, "norm", "is not a size");
    if (state == 0) return Eigen::MatrixXd(0, 0);
    const Eigen::MatrixXd E = as_eigen(view<const double, 2>(normals.data(), state, state));
    const double length = Eigen::BDCSVD<Eigen::MatrixXd>(E).singularValues()[0];
    detail::require(length > 0, op, "normals", "are all 0");
    return norm / length * E;
}

}  // namespace ssmkit
