#pragma once

// From continuous to discrete time for a dense A: LSSL, HiPPO's memories, oracles for the diagonal forms. Apart from
// discretize.hpp because it needs Eigen, 3.4 or newer.

#include <cmath>
#include <complex>
#include <limits>
#include <type_traits>

#include <ssmkit/eigen.hpp>  // first: it includes Eigen's Core without the warnings that g++ 12 has about it

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/LU>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <ssmkit/check.hpp>
#include <ssmkit/discretize.hpp>

namespace ssmkit {

/// A matrix of real or complex elements, of any size.
template <class E>
using dense = Eigen::Matrix<E, Eigen::Dynamic, Eigen::Dynamic>;

/// A dense system, continuous or discrete.
template <class E>
struct dense_system {
    dense<E> A;  ///< (state, state)
    dense<E> B;  ///< (state, dim); one column for one input
};

namespace detail {

template <class E>
void require_system(const char* op, const dense<E>& A, const dense<E>& B)
{
    const view<const E, 2> a{A.data(), {A.rows(), A.cols()}}, b{B.data(), {B.rows(), B.cols()}};
    require_shape(op, "A", a, {{"state"}, {"state", A.rows()}});
    require_shape(op, "B", b, {{"state", A.rows()}, {"dim"}});
}

}  // namespace detail

/// e^A by scaling and squaring with the diagonal Padé approximant of degree 13 (Higham, SIAM J. Matrix Anal. Appl. 26, 2005,
/// algorithm 2.3), (state, state). Backward stable for ||A||_1 up to 5.37, beyond by squaring. Throws shape_error unless A is
/// square and its elements finite.
template <class E>
dense<E> matrix_exponential(const dense<E>& A)
{
    using T = real_t<E>;
    constexpr const char* op = "matrix_exponential";
    detail::require(A.rows() == A.cols(), op, "A", "is not square");
    detail::require(A.allFinite(), op, "A", "has an element that is not finite");
    if (A.size() == 0) return A;
    constexpr double theta = 5.371920351148152;  // Higham's θ_13
    constexpr double b[] = {64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000,
                            10559470521600,    670442572800,      33522128640,      1323241920,       40840800,
                            960960,            16380,             182,              1};
    const double norm = static_cast<double>(A.cwiseAbs().colwise().sum().maxCoeff());
    int squarings = 0;
    if (norm > theta) squarings = std::ilogb(norm / theta) + 1;
    // The coefficients over b_0, so that float does not overflow.
    const auto c = [&](int k) { return static_cast<T>(b[k] / b[0]); };
    const dense<E> X = A * static_cast<T>(std::ldexp(1.0, -squarings)), identity = dense<E>::Identity(A.rows(), A.cols());
    const dense<E> X2 = X * X, X4 = X2 * X2, X6 = X4 * X2;
    const dense<E> odd = X6 * (c(13) * X6 + c(11) * X4 + c(9) * X2) + c(7) * X6 + c(5) * X4 + c(3) * X2 + c(1) * identity;
    const dense<E> U = X * odd;
    const dense<E> V = X6 * (c(12) * X6 + c(10) * X4 + c(8) * X2) + c(6) * X6 + c(4) * X4 + c(2) * X2 + c(0) * identity;
    dense<E> result = dense<E>(V - U).partialPivLu().solve(V + U);
    for (; squarings > 0; --squarings) result = dense<E>(result * result);
    return result;
}

/// The generalised bilinear transform, Ā = (I - αΔA)^-1 (I + (1-α)ΔA), B̄ = (I - αΔA)^-1 ΔB (LSSL, arXiv:2110.13985, eq. 3), of
/// A (state, state) and B (state, dim) over the step delta. alpha = 0 is forward Euler, 1/2 bilinear, 1 backward Euler. Throws
/// shape_error if the shapes do not fit; a NaN passes through.
template <class E>
dense_system<E> generalized_bilinear(const dense<E>& A, const std::type_identity_t<dense<E>>& B,
                                     std::type_identity_t<real_t<E>> delta, std::type_identity_t<real_t<E>> alpha)
{
    detail::require_system("generalized_bilinear", A, B);
    if (A.size() == 0) return {A, B};
    const dense<E> identity = dense<E>::Identity(A.rows(), A.cols()), ahead = identity + (1 - alpha) * delta * A;
    if (alpha == 0) return {ahead, delta * B};
    const Eigen::PartialPivLU<dense<E>> behind(identity - alpha * delta * A);
    return {behind.solve(ahead), behind.solve(delta * B)};
}

/// Zero-order hold, Ā = e^(ΔA), B̄ = ∫_0^Δ e^(sA) ds B, from one exponential of [[A, B], [0, 0]] Δ (Van Loan, IEEE Trans. Autom.
/// Control 23, 1978): no inverse of A, which may be singular. Shapes as above; throws shape_error if they do not fit or an
/// element is not finite.
template <class E>
dense_system<E> zero_order_hold(const dense<E>& A, const std::type_identity_t<dense<E>>& B,
                                std::type_identity_t<real_t<E>> delta)
{
    detail::require_system("zero_order_hold", A, B);
    const auto state = A.rows(), dim = B.cols();
    dense<E> block = dense<E>::Zero(state + dim, state + dim);
    block.topLeftCorner(state, state) = delta * A;
    block.topRightCorner(state, dim) = delta * B;
    block = matrix_exponential(block);
    return {block.topLeftCorner(state, state), block.topRightCorner(state, dim)};
}

/// Any of the methods over a step delta: those above, dirac (Ā of zoh, B̄ = B) and async (B̄ of zoh, Ā = e^(Δ interval A)), with
/// `interval` as in discretize() for one eigenvalue. Throws as the above do.
template <class E>
dense_system<E> discretize(const dense<E>& A, const std::type_identity_t<dense<E>>& B,
                           std::type_identity_t<real_t<E>> delta, discretization method,
                           std::type_identity_t<real_t<E>> interval = 1)
{
    const real_t<E> step = delta * interval;
    if (const double alpha = detail::alpha_of(method); alpha >= 0) {
        return generalized_bilinear(A, B, step, static_cast<real_t<E>>(alpha));
    }
    detail::require_system("discretize", A, B);
    switch (method) {
        case discretization::dirac: return {matrix_exponential(dense<E>(step * A)), B};
        case discretization::async: return {matrix_exponential(dense<E>(step * A)), zero_order_hold(A, B, delta).B};
        default: return zero_order_hold(A, B, step);
    }
}

}  // namespace ssmkit
