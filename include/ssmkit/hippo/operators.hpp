#pragma once

// The operators themselves, what makes them normal, and the functions that they remember by.

#include <cmath>
#include <numbers>
#include <optional>
#include <string>
#include <utility>

#include <ssmkit/eigen.hpp>

#include <ssmkit/check.hpp>
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

}  // namespace ssmkit
