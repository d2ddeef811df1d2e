#pragma once

// HiPPO: operators that remember a signal by its coefficients in an orthogonal basis (Gu et al., arXiv:2008.07669; Gu et al.,
// "How to train your HiPPO", arXiv:2206.12037), and the initialisations of S4, S4D, DSS and S5 made from them. Everything is
// computed in double; round at the end. Needs Eigen, 3.4 or newer. `Lazy` makes functions templates, so that only who calls one
// waits for the compiler to get through Eigen's decompositions (half a minute for all of them).

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ssmkit/eigen.hpp>

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

#include <ssmkit/check.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/discretize_dense.hpp>

namespace ssmkit {

/// What a HiPPO operator remembers the past by: the weight it gives to time, and the basis that is orthogonal under it.
enum class hippo_measure {
    legs,           ///< Legendre polynomials over the whole past, scaled to its length
    legsd,          ///< the normal part of legs
    legt,           ///< Legendre polynomials over a sliding window of 2 / delta steps
    lmu,            ///< legt as the Legendre memory unit scales it
    lagt,           ///< Laguerre polynomials, exponentially fading
    tlagt,          ///< lagt with the tilt beta
    glagt,          ///< generalised Laguerre polynomials of order alpha < 1 with the tilt beta
    fout,           ///< Fourier series over a sliding window of 2 / delta steps; the paper's "fourier"
    foud,           ///< its diagonal relative; "fourier_diag"
    fourier_decay,  ///< fout with half the low-rank term
    fourier2,       ///< fout with twice the low-rank term: a window of 1 / delta steps
};

/// The order alpha (glagt, -1 < alpha < 1) and the tilt beta (glagt, tlagt; for lagt a factor of B). Without a beta, glagt takes
/// 0.01 and the others 1.
struct hippo_options {
    double alpha = 0;
    std::optional<double> beta{};
};

namespace detail {

/// The frequency of pair q is this times π q; 0 for measures outside the Fourier family.
inline double fourier_spacing(hippo_measure measure)
{
    switch (measure) {
        case hippo_measure::fout:
        case hippo_measure::fourier_decay: return 1;
        case hippo_measure::foud:
        case hippo_measure::fourier2: return 2;
        default: return 0;
    }
}

/// The s in A = A0 - s b b' and B of the Fourier family; foud has none, and B = b.
inline double fourier_weight(hippo_measure measure)
{
    switch (measure) {
        case hippo_measure::fout: return 1;
        case hippo_measure::fourier_decay: return 0.5;
        case hippo_measure::fourier2: return 2;
        default: return 0;
    }
}

inline void require_hippo_state(const char* op, hippo_measure measure, index state)
{
    require(state >= 0, op, "state", "is " + std::to_string(state) + ", expected a size");
    require(fourier_spacing(measure) == 0 || state <= 1 || state % 2 == 0, op, "state",
            "is " + std::to_string(state) + ", expected an even size: a Fourier measure has pairs");
}

/// b of the Fourier family: 1, 0, √2, 0, √2, 0, ...
template <class Lazy = void>
Eigen::VectorXd fourier_input(index state)
{
    Eigen::VectorXd b = Eigen::VectorXd::Zero(state);
    for (index n = 0; n < state; n += 2) b[n] = n == 0 ? 1 : std::numbers::sqrt2;
    return b;
}

/// The squares of the norms of the generalised Laguerre polynomials, up to the factor Γ(1 + α): binom(n + α, n) for n < state.
/// A running product is exact to a few roundings where differences of log Γ lose digits.
template <class Lazy = void>
Eigen::VectorXd laguerre_norms(index state, double alpha)
{
    Eigen::VectorXd norms(state);
    double product = 1;
    for (index n = 0; n < state; ++n) {
        norms[n] = product;
        product *= 1 + alpha / static_cast<double>(n + 1);
    }
    return norms;
}

inline double beta_of(hippo_measure measure, const hippo_options& options)
{
    return options.beta.value_or(measure == hippo_measure::glagt ? 0.01 : 1.0);
}

inline void require_laguerre(const char* op, hippo_measure measure, const hippo_options& options)
{
    if (measure != hippo_measure::glagt) return;
    require(options.alpha > -1 && options.alpha < 1, op, "alpha", "is not between -1 and 1");
    require(beta_of(measure, options) > 0, op, "beta", "is not positive");
}

}  // namespace detail

/// The continuous operator x' = A x + B u: A (state, state), B (state, 1). arXiv:2008.07669, theorems 1 to 6, and
/// arXiv:2206.12037, corollary 3.4 (legs as a time-invariant system) and section 3.3 (Fourier). Throws shape_error for
/// a negative state, an odd one >= 3 in a Fourier measure, or options out of range.
template <class Lazy = void>
dense_system<double> hippo_transition(hippo_measure measure, index state, const hippo_options& options = {})
{
    constexpr const char* op = "hippo_transition";
    detail::require_hippo_state(op, measure, state);
    detail::require_laguerre(op, measure, options);
    const double beta = detail::beta_of(measure, options);
    dense_system<double> s{Eigen::MatrixXd::Zero(state, state), Eigen::MatrixXd::Zero(state, 1)};
    const auto fill = [&](auto element, auto input) {
        for (index n = 0; n < state; ++n) {
            s.B(n, 0) = input(n);
            for (index k = 0; k < state; ++k) s.A(n, k) = element(n, k);
        }
    };
    const auto odd = [](index n) { return static_cast<double>(2 * n + 1); };
    const auto sign = [](index n) { return n % 2 ? -1.0 : 1.0; };
    const auto root = [&](index n, index k) { return std::sqrt(odd(n) * odd(k)); };
    const auto legs = [&](index n, index k) { return n > k ? -root(n, k) : n == k ? -static_cast<double>(n + 1) : 0.0; };
    switch (measure) {
        case hippo_measure::legs: fill(legs, [&](index n) { return std::sqrt(odd(n)); }); break;
        case hippo_measure::legsd:
            fill([&](index n, index k) { return legs(n, k) + 0.5 * root(n, k); },
                 [&](index n) { return 0.5 * std::sqrt(odd(n)); });
            break;
        case hippo_measure::legt:
            fill([&](index n, index k) { return -0.5 * root(n, k) * (n >= k ? 1 : sign(k - n)); },
                 [&](index n) { return 0.5 * std::sqrt(odd(n)); });
            break;
        case hippo_measure::lmu:
            fill([&](index n, index k) { return odd(n) * (n < k ? -1 : sign(n - k + 1)); },
                 [&](index n) { return sign(n) * odd(n); });
            break;
        case hippo_measure::lagt:
            fill([](index n, index k) { return n > k ? -1.0 : n == k ? -0.5 : 0.0; }, [&](index) { return beta; });
            break;
        case hippo_measure::tlagt:
            fill([&](index n, index k) { return n > k ? -1.0 : n == k ? -(1 + beta) / 2 : 0.0; }, [&](index) { return beta; });
            break;
        case hippo_measure::glagt: {
            const double alpha = options.alpha;
            const Eigen::VectorXd norms = detail::laguerre_norms(state, alpha);
            const double scale = std::pow(beta, (1 - alpha) / 2) / std::sqrt(std::tgamma(1 - alpha) * std::tgamma(1 + alpha));
            fill([&](index n, index k) {
                return -std::sqrt(norms[k] / norms[n]) * (n > k ? 1.0 : n == k ? (1 + beta) / 2 : 0.0);
            }, [&](index n) { return std::sqrt(norms[n]) * scale; });
            break;
        }
        default: {
            const Eigen::VectorXd b = detail::fourier_input(state);
            const double weight = detail::fourier_weight(measure), spacing = detail::fourier_spacing(measure);
            s.B.col(0) = measure == hippo_measure::foud ? b : Eigen::VectorXd(weight * b);
            s.A = -weight * b * b.transpose();
            if (measure == hippo_measure::foud) s.A.diagonal().array() -= 0.5;
            for (index q = 0; 2 * q + 1 < state; ++q) {
                const double omega = spacing * std::numbers::pi * static_cast<double>(q);
                s.A(2 * q, 2 * q + 1) -= omega;
                s.A(2 * q + 1, 2 * q) += omega;
            }
        }
    }
    return s;
}

/// The correction P (rank, state), real, that makes a HiPPO operator normal: A + Σ_r P_r P_r' = σ I + K with K skew-symmetric
/// (S4, arXiv:2111.00396, theorem 1). `rank` asks for zero rows beyond the measure's own, 0 for none. Throws shape_error for
/// a rank too small, for lmu, tlagt and glagt, which have no such correction, and for sizes as hippo_transition does.
template <class Lazy = void>
Eigen::MatrixXd hippo_low_rank(hippo_measure measure, index state, index rank = 0)
{
    constexpr const char* op = "hippo_low_rank";
    detail::require_hippo_state(op, measure, state);
    const index own = measure == hippo_measure::legt ? 2 : 1;
    if (rank == 0) rank = own;
    detail::require(rank >= own, op, "rank", "is " + std::to_string(rank) + ", the measure needs " + std::to_string(own));
    Eigen::MatrixXd P = Eigen::MatrixXd::Zero(rank, state);
    const auto root = [](index n) { return std::sqrt(static_cast<double>(n) + 0.5); };
    switch (measure) {
        case hippo_measure::legs:
            for (index n = 0; n < state; ++n) P(0, n) = root(n);
            break;
        case hippo_measure::legt:
            for (index n = 0; n < state; ++n) P(n % 2 ? 0 : 1, n) = root(n);
            break;
        case hippo_measure::lagt: P.row(0).setConstant(std::sqrt(0.5)); break;
        case hippo_measure::lmu:
        case hippo_measure::tlagt:
        case hippo_measure::glagt: detail::fail(std::string(op) + ": the measure has no low-rank correction");
        default: P.row(0) = std::sqrt(detail::fourier_weight(measure)) * detail::fourier_input(state).transpose();
    }
    return P;
}

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

/// One step of the LegS memory, c_k = Ā_k c_{k-1} + B̄_k f_k for k >= 1: the operator over the step 1/k, or for zoh over
/// ln((k + 1) / k), which makes time's own logarithm the clock (arXiv:2008.07669, section 3.2). A is triangular, so every solve
/// is a substitution. Throws shape_error for a negative state, k < 1 or an event method.
template <class Lazy = void>
dense_system<double> legs_ltv(index state, index k, discretization method)
{
    constexpr const char* op = "legs_ltv";
    detail::require(k >= 1, op, "k", "is " + std::to_string(k) + ", the first step is 1");
    const dense_system<double> s = hippo_transition(hippo_measure::legs, state);
    const double delta = 1 / static_cast<double>(k);
    if (method == discretization::zoh) return zero_order_hold(s.A, s.B, std::log1p(delta));
    const double alpha = detail::alpha_of(method);
    detail::require(alpha >= 0, op, "method", "is for events");
    const Eigen::MatrixXd identity = Eigen::MatrixXd::Identity(state, state), behind = identity - alpha * delta * s.A;
    return {behind.triangularView<Eigen::Lower>().solve(identity + (1 - alpha) * delta * s.A),
            behind.triangularView<Eigen::Lower>().solve(delta * s.B)};
}

/// The coefficients c (length, state) by which LegS remembers f (length) after each sample; c_0 = 0 before the first. Throws as
/// the step does.
template <class Lazy = void>
Eigen::MatrixXd legs_memory(std::span<const double> f, index state, discretization method = discretization::bilinear)
{
    detail::require(state >= 0, "legs_memory", "state", "is negative");
    Eigen::MatrixXd c(static_cast<index>(f.size()), state);
    Eigen::VectorXd now = Eigen::VectorXd::Zero(state);
    for (index k = 0; k < c.rows(); ++k) {
        const dense_system<double> step = legs_ltv(state, k + 1, method);
        now = (step.A * now + step.B * f[static_cast<std::size_t>(k)]).eval();
        c.row(k) = now.transpose();
    }
    return c;
}

/// One step of the LegT memory, whose operator (measure lmu) does not change with time: over a step delta, in units of the
/// window's length. Throws shape_error for a negative state.
template <class Lazy = void>
dense_system<double> legt_lti(index state, double delta, discretization method)
{
    const dense_system<double> s = hippo_transition(hippo_measure::lmu, state);
    return discretize(s.A, s.B, delta, method);
}

/// The coefficients c (length, state) by which LegT remembers the last window of f (length) after each sample.
template <class Lazy = void>
Eigen::MatrixXd legt_memory(std::span<const double> f, index state, double delta,
                                   discretization method = discretization::bilinear)
{
    const dense_system<double> step = legt_lti(state, delta, method);
    Eigen::MatrixXd c(static_cast<index>(f.size()), state);
    Eigen::VectorXd now = Eigen::VectorXd::Zero(state);
    for (index k = 0; k < c.rows(); ++k) {
        now = (step.A * now + step.B * f[static_cast<std::size_t>(k)]).eval();
        c.row(k) = now.transpose();
    }
    return c;
}

/// The basis functions κ(t) = e^(tA) B (state) of a HiPPO operator at t >= 0: the generalised orthogonal bases of
/// arXiv:2206.12037, section 3. Exact for legs, lagt, tlagt, glagt and foud; for legt, fout and fourier2 the limit of a large
/// state, which vanishes beyond their window. Throws shape_error for the other measures and as hippo_transition does.
template <class Lazy = void>
Eigen::VectorXd hippo_basis(hippo_measure measure, index state, double t, const hippo_options& options = {})
{
    constexpr const char* op = "hippo_basis";
    detail::require_hippo_state(op, measure, state);
    detail::require_laguerre(op, measure, options);
    detail::require(t >= 0, op, "t", "is not a time >= 0");
    const double beta = detail::beta_of(measure, options), alpha = measure == hippo_measure::glagt ? options.alpha : 0;
    Eigen::VectorXd kappa = Eigen::VectorXd::Zero(state);
    const auto legendre = [&](double x, double scale) {
        double before = 0, now = 1;
        for (index n = 0; n < state; ++n) {
            const double i = static_cast<double>(n);
            kappa[n] = scale * std::sqrt(2 * i + 1) * now;
            before = std::exchange(now, ((2 * i + 1) * x * now - i * before) / (i + 1));
        }
    };
    const auto laguerre = [&](double scale, const Eigen::VectorXd& norms) {
        double before = 0, now = 1;
        for (index n = 0; n < state; ++n) {
            const double i = static_cast<double>(n);
            kappa[n] = scale * now / std::sqrt(norms[n]);
            before = std::exchange(now, ((2 * i + 1 + alpha - t) * now - (i + alpha) * before) / (i + 1));
        }
    };
    const auto fourier = [&](double spacing, double scale) {
        const Eigen::VectorXd b = detail::fourier_input(state);
        for (index n = 0; n < state; ++n) {
            const double phase = spacing * std::numbers::pi * static_cast<double>(n / 2) * t;
            kappa[n] = scale * b[n / 2 * 2] * (n % 2 ? std::sin(phase) : std::cos(phase));
        }
    };
    switch (measure) {
        case hippo_measure::legs: legendre(2 * std::exp(-t) - 1, std::exp(-t)); break;
        case hippo_measure::legt:
            if (t <= 2) legendre(1 - t, 0.5);
            break;
        case hippo_measure::lagt: laguerre(beta * std::exp(-t / 2), Eigen::VectorXd::Ones(state)); break;
        case hippo_measure::tlagt: laguerre(beta * std::exp(-(1 + beta) * t / 2), Eigen::VectorXd::Ones(state)); break;
        case hippo_measure::glagt:
            laguerre(std::exp(-(1 + beta) * t / 2) * std::pow(beta, (1 - alpha) / 2) /
                         std::sqrt(std::tgamma(1 - alpha) * std::tgamma(1 + alpha)),
                     detail::laguerre_norms(state, alpha));
            break;
        case hippo_measure::foud: fourier(2, std::exp(-t / 2)); break;
        case hippo_measure::fout:
            if (t <= 2) fourier(1, 0.5);
            break;
        case hippo_measure::fourier2:
            if (t <= 1) fourier(2, 1);
            break;
        default: detail::fail(std::string(op) + ": the measure has no basis in closed form");
    }
    return kappa;
}

/// The spectra of S4D (arXiv:2206.11893, section 4): A_n = -re_n - i im_n for the pairs n < M = state / 2.
enum class s4d_spectrum {
    lin,   ///< re ½, im π n
    inv,   ///< re ½, im (state / π) (state / (2n + 1) - 1)
    inv2,  ///< re ½, im (state / π) (state / (n + 1) - 1)
    quad,  ///< re ½, im (2n + 1)² / π
    real,  ///< re n + 1, im 0
    legs,  ///< re ½, im those of hippo_nplr(legs): S4D-LegS
    rand,  ///< re ½, im e^normal
};

/// What may be random in a spectrum, from the caller's numbers, and factors of both parts.
struct s4d_options {
    std::span<const double> real_numbers{};  ///< (pairs) uniform on [0, 1): re becomes the number, for `real` M times it
    std::span<const double> imag_numbers{};  ///< (pairs) uniform: M times the number replaces n; for `rand` normal, required
    double real_scale = 1, imag_scale = 1;
};

/// A (pairs) of a spectrum, as values, before they are stored (see from_positive, which has a floor). Throws shape_error unless
/// the state is even and the numbers are as many as the pairs.
template <class Lazy = void>
Eigen::VectorXcd s4d_A(s4d_spectrum spectrum, index state, const s4d_options& options = {})
{
    constexpr const char* op = "s4d_A";
    detail::require(state >= 0 && state % 2 == 0, op, "state", "is " + std::to_string(state) + ", expected an even size");
    const index pairs = state / 2;
    const auto fits = [&](std::span<const double> numbers) {
        return numbers.empty() || static_cast<index>(numbers.size()) == pairs;
    };
    detail::require(fits(options.real_numbers), op, "real_numbers", "are not one a pair");
    detail::require(fits(options.imag_numbers), op, "imag_numbers", "are not one a pair");
    detail::require(spectrum != s4d_spectrum::rand || !options.imag_numbers.empty() || pairs == 0, op, "imag_numbers",
                    "are missing");
    Eigen::VectorXcd legs;
    if (spectrum == s4d_spectrum::legs) legs = hippo_nplr(hippo_measure::legs, state).Lambda;
    const double size = static_cast<double>(state), M = static_cast<double>(pairs), pi = std::numbers::pi;
    Eigen::VectorXcd A(pairs);
    for (index k = 0; k < pairs; ++k) {
        const auto i = static_cast<std::size_t>(k);
        const double n = options.imag_numbers.empty() ? static_cast<double>(k) : M * options.imag_numbers[i];
        double re = 0.5, im = 0;
        switch (spectrum) {
            case s4d_spectrum::lin: im = pi * n; break;
            case s4d_spectrum::inv: im = size / pi * (size / (2 * n + 1) - 1); break;
            case s4d_spectrum::inv2: im = size / pi * (size / (n + 1) - 1); break;
            case s4d_spectrum::quad: im = (2 * n + 1) * (2 * n + 1) / pi; break;
            case s4d_spectrum::real: re = static_cast<double>(k + 1); break;
            case s4d_spectrum::legs: im = -legs[k].imag(); break;
            case s4d_spectrum::rand: im = std::exp(options.imag_numbers[i]); break;
        }
        if (!options.real_numbers.empty()) re = options.real_numbers[i] * (spectrum == s4d_spectrum::real ? M : 1);
        A[k] = {-options.real_scale * re, -options.imag_scale * im};
    }
    return A;
}

/// The input maps of S4D.
enum class s4d_input {
    constant,     ///< 1
    alternating,  ///< 1, -1, 1, ...: needs an even number of pairs
    unit_cw,      ///< e^(-2 π i n / state)
    unit_ccw,     ///< e^(+2 π i n / state)
    legs,         ///< B of hippo_nplr(legs), clipped at 2 and, as in the authors' code, not halved: goes with the legs spectrum
};

/// B (pairs). Throws shape_error unless the state is even, for alternating a multiple of 4.
template <class Lazy = void>
Eigen::VectorXcd s4d_B(s4d_input input, index state)
{
    constexpr const char* op = "s4d_B";
    detail::require(state >= 0 && state % 2 == 0, op, "state", "is " + std::to_string(state) + ", expected an even size");
    detail::require(input != s4d_input::alternating || state % 4 == 0, op, "state",
                    "has an odd number of pairs, which cannot alternate");
    if (input == s4d_input::legs) return clip_imaginary(hippo_nplr(hippo_measure::legs, state).B);
    Eigen::VectorXcd B(state / 2);
    for (index n = 0; n < B.size(); ++n) {
        const double angle = 2 * std::numbers::pi * static_cast<double>(n) / static_cast<double>(state);
        switch (input) {
            case s4d_input::alternating: B[n] = n % 2 ? -1 : 1; break;
            case s4d_input::unit_cw: B[n] = std::polar(1.0, -angle); break;
            case s4d_input::unit_ccw: B[n] = std::polar(1.0, angle); break;
            default: B[n] = 1;
        }
    }
    return B;
}

/// B (pairs) over (2 Σ |B_n / A_n|²)^½, so that the state has unit energy whatever A (pairs) is. Throws shape_error unless
/// they are equally many.
template <class Lazy = void>
Eigen::VectorXcd s4d_normalize(const Eigen::VectorXcd& B, const Eigen::VectorXcd& A)
{
    detail::require(A.size() == B.size(), "s4d_normalize", "A", "is not as long as B");
    return B / std::sqrt(2 * B.cwiseQuotient(A).squaredNorm());
}

/// The spectrum of DSS (state), complex numbers that are no halves of pairs: Λ = -½ + iω with the `state` positive frequencies of
/// the normal part of LegT at twice the size, falling (arXiv:2203.14343, section 4.1, "skew-HiPPO"). Throws shape_error for
/// a negative state.
template <class Lazy = void>
Eigen::VectorXcd dss_init(index state)
{
    detail::require(state >= 0, "dss_init", "state", "is negative");
    Eigen::MatrixXd K = Eigen::MatrixXd::Zero(2 * state, 2 * state);
    for (index n = 0; n < K.rows(); ++n) {
        for (index k = 0; k < n; ++k) {
            K(n, k) = 0.5 * std::sqrt(static_cast<double>(2 * n + 1) * static_cast<double>(2 * k + 1));
            K(k, n) = -K(n, k);
        }
    }
    Eigen::VectorXcd Lambda(state);
    Lambda.real().setConstant(-0.5);
    Lambda.imag() = detail::skew_eigen(K).omega;
    return Lambda;
}

/// S5's start: `blocks` copies of the normal part of LegS along the diagonal.
struct s5_parameters {
    Eigen::VectorXcd Lambda;    ///< (state)            of one block after the other, by increasing imaginary part
    Eigen::MatrixXcd V;         ///< (ssm_size, state)  block-diagonal; C̃ = C V
    Eigen::MatrixXcd V_inverse; ///< (state, ssm_size)  V*; B̃ = V_inverse B
    Eigen::VectorXcd P_block;   ///< (block)            V* P and
    Eigen::VectorXcd B_block;   ///< (block)            V* B of LegS itself, for one block with both halves of its pairs
};

/// S5's initialisation (arXiv:2208.04933, sections 3.3 and 4.3): state = ssm_size / 2 with conjugate symmetry, where one of
/// each pair is kept, otherwise ssm_size. Throws shape_error unless the blocks divide ssm_size into even sizes.
template <class Lazy = void>
s5_parameters s5_init(index ssm_size, index blocks, bool conj_sym = true)
{
    constexpr const char* op = "s5_init";
    detail::require(blocks >= 1, op, "blocks", "is " + std::to_string(blocks) + ", expected at least one");
    detail::require(ssm_size >= 0 && ssm_size % (2 * blocks) == 0, op, "ssm_size",
                    "is " + std::to_string(ssm_size) + ", expected " + std::to_string(blocks) + " blocks of even size");
    const index block = ssm_size / blocks, kept = conj_sym ? block / 2 : block;
    const diagonal_plus_low_rank d = hippo_nplr(hippo_measure::legs, block);
    const auto both = [](const Eigen::MatrixXcd& half) {  // by increasing imaginary part, along the columns
        Eigen::MatrixXcd full(half.rows(), 2 * half.cols());
        full << half, half.conjugate().rowwise().reverse();
        return full;
    };
    const Eigen::MatrixXcd V = both(d.V).leftCols(kept);
    const Eigen::VectorXcd Lambda = both(d.Lambda.transpose()).leftCols(kept).transpose();
    s5_parameters p{Lambda.replicate(blocks, 1), Eigen::MatrixXcd::Zero(ssm_size, kept * blocks), {},
                    both(d.P).transpose(), both(d.B.transpose()).transpose()};
    for (index b = 0; b < blocks; ++b) p.V.block(b * block, b * kept, block, kept) = V;
    p.V_inverse = p.V.adjoint();
    return p;
}

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
