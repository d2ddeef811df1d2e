#pragma once

// Operators in the basis of eigenvectors of their normal part: diagonal plus low rank.

#include <cmath>
#include <complex>
#include <numbers>
#include <string>

#include <ssmkit/hippo/operators.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Eigenvalues>
#include <Eigen/SVD>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace ssmkit {

/// A real system in the basis of eigenvectors of its normal part,
///
///     A = V_full [diag(Λ_full) - Σ_r P_full,r P_full,r*] V_full*,   B = V_full B_full,   V_full = (V, conj V) unitary,
///
/// of which the half with Im Λ <= 0 is kept: `pairs` = state / 2 columns. S4's parameters, arXiv:2111.00396, section 3.
struct diagonal_plus_low_rank {
    Eigen::VectorXcd Lambda;  ///< (pairs)        by increasing imaginary part; 1 / time
    Eigen::MatrixXcd V;       ///< (state, pairs) the first element of each column beyond 1e-6 is real and positive
    Eigen::MatrixXcd P;       ///< (rank, pairs)  P̃_r = V* P_r, each as a row
    Eigen::MatrixXcd B;       ///< (pairs, dim)   V* B, not clipped: see clip_imaginary
};

namespace detail {

/// Turns every column so that its first element beyond 1e-6 is real and positive: eigenvectors without a free phase.
template <class Lazy = void>
void fix_phases(Eigen::MatrixXcd& V)
{
    for (index k = 0; k < V.cols(); ++k) {
        for (index n = 0; n < V.rows(); ++n) {
            const double modulus = std::abs(V(n, k));
            if (modulus <= 1e-6) continue;
            V.col(k) *= std::conj(V(n, k)) / modulus;
            V(n, k) = modulus;
            break;
        }
    }
}

/// V* X for a real X, (V's columns, X's columns), as two real products: Eigen's mixed ones bring the compiler kernels of
/// their own.
template <class Lazy = void>
Eigen::MatrixXcd adjoint_times(const Eigen::MatrixXcd& V, const Eigen::MatrixXd& X)
{
    Eigen::MatrixXcd product(V.cols(), X.cols());
    product.real() = V.real().transpose() * X;
    product.imag() = -(V.imag().transpose() * X);
    return product;
}

/// The eigenvalues -i ω of a real skew-symmetric matrix of even size, ω >= 0 and falling, with unit eigenvectors.
struct skew_eigenpairs {
    Eigen::VectorXd omega;  // (pairs)
    Eigen::MatrixXcd V;     // (state, pairs)
};

/// In real arithmetic: reflections take K to a tridiagonal T = Q' K Q, which couples even places with odd ones only. Sorted so,
/// T is [[0, M], [-M', 0]] with M bidiagonal, and M = U Ω W' gives the eigenvectors (u, -iw)/√2 of -iω. The conjugate
/// half of the spectrum, and V orthogonal to it, hold by construction; a general eigensolver loses both, and LegS itself
/// (condition 2^state) altogether. The error of ω is a few roundings of ||K||.
template <class Lazy = void>
skew_eigenpairs skew_eigen(const Eigen::MatrixXd& K)
{
    const index state = K.rows(), pairs = state / 2;
    skew_eigenpairs found{Eigen::VectorXd(pairs), Eigen::MatrixXcd(state, pairs)};
    if (pairs == 0) return found;
    Eigen::MatrixXd Q = Eigen::MatrixXd::Identity(state, state), T = K;
    if (state > 2) {
        const Eigen::HessenbergDecomposition<Eigen::MatrixXd> reduced(K);
        Q = reduced.matrixQ();
        T = reduced.matrixH();
    }
    const auto above = [&](index n) { return (T(n, n + 1) - T(n + 1, n)) / 2; };
    Eigen::MatrixXd M = Eigen::MatrixXd::Zero(pairs, pairs);
    for (index k = 0; k < pairs; ++k) {
        M(k, k) = above(2 * k);
        if (k > 0) M(k, k - 1) = -above(2 * k - 1);
    }
    const Eigen::BDCSVD<Eigen::MatrixXd> svd(M, Eigen::ComputeFullU | Eigen::ComputeFullV);
    found.omega = svd.singularValues();
    Eigen::MatrixXd even(state, pairs), odd(state, pairs);
    for (index k = 0; k < pairs; ++k) {
        even.col(k) = Q.col(2 * k);
        odd.col(k) = Q.col(2 * k + 1);
    }
    found.V.real() = even * svd.matrixU() * std::sqrt(0.5);
    found.V.imag() = -(odd * svd.matrixV()) * std::sqrt(0.5);
    fix_phases(found.V);
    return found;
}

}  // namespace detail

/// A normal-plus-low-rank system, A (state, state), B (state, dim), P (rank, state), in diagonal-plus-low-rank form. The
/// eigenvectors are those of the skew-symmetric part of A + Σ P_r P_r' (see detail::skew_eigen), never of A. Throws
/// shape_error if the shapes do not fit, the state is odd, or A + Σ P_r P_r' is not σ I plus a skew-symmetric matrix to
/// 1e-9 of its norm, as with a NaN.
template <class Lazy = void>
diagonal_plus_low_rank nplr_to_dplr(const Eigen::MatrixXd& A, const Eigen::MatrixXd& B, const Eigen::MatrixXd& P)
{
    constexpr const char* op = "nplr_to_dplr";
    const index state = A.rows();
    detail::require_system(op, A, B);
    detail::require(P.cols() == state, op, "P",
                    "has " + std::to_string(P.cols()) + " columns, expected state = " + std::to_string(state));
    detail::require(state % 2 == 0, op, "A", "is of odd size: its real eigenvalue would be lost");
    if (state == 0)
        return {Eigen::VectorXcd(0), Eigen::MatrixXcd(0, 0), Eigen::MatrixXcd(P.rows(), 0), Eigen::MatrixXcd(0, B.cols())};
    const Eigen::MatrixXd S = A + P.transpose() * P;
    const double sigma = S.diagonal().mean();
    Eigen::MatrixXd symmetric = (S + S.transpose()) / 2;
    symmetric.diagonal().array() -= sigma;
    detail::require(symmetric.norm() <= 1e-9 * S.norm(), op, "P", "does not make A normal");
    const detail::skew_eigenpairs skew = detail::skew_eigen((S - S.transpose()) / 2);
    diagonal_plus_low_rank d;
    d.Lambda = std::complex<double>(0, -1) * skew.omega;
    d.Lambda.array() += sigma;
    d.V = skew.V;
    d.P = detail::adjoint_times(d.V, P.transpose()).transpose();
    d.B = detail::adjoint_times(d.V, B);
    return d;
}

/// The diagonal-plus-low-rank form of a HiPPO operator, `rank` as in hippo_low_rank. The Fourier family's is in closed form:
/// its eigenvectors (1, i)/√2 of pair q, by falling q; the pair q = 0 has two equal eigenvalues and would have any. Throws
/// shape_error unless the state is even and the measure has a low-rank correction.
template <class Lazy = void>
diagonal_plus_low_rank hippo_nplr(hippo_measure measure, index state, index rank = 0)
{
    detail::require(state >= 0 && state % 2 == 0, "hippo_nplr", "state", "is " + std::to_string(state) + ", expected an even size");
    const Eigen::MatrixXd P = hippo_low_rank(measure, state, rank);
    const dense_system<double> s = hippo_transition(measure, state);
    const double spacing = detail::fourier_spacing(measure);
    if (spacing == 0) {
        diagonal_plus_low_rank d = nplr_to_dplr(s.A, s.B, P);
        // σ as it is, not its rounded mean: that could leave legt and lagt a pole to the right of the axis.
        d.Lambda.real().setConstant(measure == hippo_measure::legs || measure == hippo_measure::legsd ? -0.5 : 0);
        return d;
    }
    const index pairs = state / 2;
    diagonal_plus_low_rank d{Eigen::VectorXcd(pairs), Eigen::MatrixXcd::Zero(state, pairs), {}, {}};
    for (index k = 0; k < pairs; ++k) {
        const index q = pairs - 1 - k;
        d.Lambda[k] = {measure == hippo_measure::foud ? -0.5 : 0.0, -spacing * std::numbers::pi * static_cast<double>(q)};
        d.V(2 * q, k) = std::sqrt(0.5);
        d.V(2 * q + 1, k) = std::complex<double>(0, std::sqrt(0.5));
    }
    d.P = detail::adjoint_times(d.V, P.transpose()).transpose();
    d.B = detail::adjoint_times(d.V, s.B);
    return d;
}

/// B with imaginary parts clamped to [-bound, bound], as S4 starts from (the authors' code: 2). It depends on the phases of the
/// eigenvectors, which is why they are fixed. A NaN stays one.
template <class Lazy = void>
Eigen::MatrixXcd clip_imaginary(Eigen::MatrixXcd B, double bound = 2)
{
    for (std::complex<double>& b : B.reshaped()) {
        if (b.imag() > bound) b.imag(bound);
        if (b.imag() < -bound) b.imag(-bound);
    }
    return B;
}

}  // namespace ssmkit
