#pragma once

// How S4, S4D, S5 and LRU store what must be positive, and the step sizes and spectra that training starts from and that need
// no linear algebra. Random numbers are the caller's, or come from a seed by a generator that is the same everywhere.

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// How a positive number p is stored as an unconstrained θ: p = T(θ).
enum class positive_transform {
    none,      ///< p = θ
    exp,       ///< p = e^θ
    relu,      ///< p = max(θ, 0) + 1e-4
    sigmoid,   ///< p = 1 / (1 + e^-θ): p < 1
    softplus,  ///< p = ln(1 + e^θ), θ itself beyond 20
};

/// The smallest p that is stored: below, also at the zero imaginary part of S4D-Lin, this takes its place.
inline constexpr double positive_floor = 1e-4;

/// p = T(θ). A NaN gives NaN.
template <class T>
T to_positive(positive_transform transform, T theta)
{
    switch (transform) {
        case positive_transform::exp: return std::exp(theta);
        case positive_transform::relu: return (theta < T(0) ? T(0) : theta) + T(positive_floor);
        case positive_transform::sigmoid: {
            const T e = std::exp(-std::abs(theta));
            return (theta < T(0) ? e : T(1)) / (T(1) + e);
        }
        case positive_transform::softplus: return theta > T(20) ? theta : std::log1p(std::exp(theta));
        default: return theta;
    }
}

/// T'(θ), for gradients: dℒ/dθ = T'(θ) dℒ/dp. That of relu at 0 is 0.
template <class T>
T to_positive_derivative(positive_transform transform, T theta)
{
    switch (transform) {
        case positive_transform::exp: return std::exp(theta);
        case positive_transform::relu: return theta <= T(0) ? T(0) : theta > T(0) ? T(1) : theta;
        case positive_transform::sigmoid: {
            const T e = std::exp(-std::abs(theta));
            return e / ((T(1) + e) * (T(1) + e));
        }
        case positive_transform::softplus: return theta > T(20) ? T(1) : to_positive(positive_transform::sigmoid, theta);
        default: return theta != theta ? theta : T(1);
    }
}

/// θ = T^-1(max(p, 1e-4)), what p is initialised as; relu stores p itself, so that T gives p + 1e-4, as S4's code has it. With
/// sigmoid p >= 1 has no θ: infinite or NaN. A NaN gives NaN.
template <class T>
T from_positive(positive_transform transform, T p)
{
    if (p < T(positive_floor)) p = T(positive_floor);
    switch (transform) {
        case positive_transform::exp: return std::log(p);
        case positive_transform::sigmoid: return std::log(p / (T(1) - p));
        case positive_transform::softplus: return p + std::log(-std::expm1(-p));
        default: return p;
    }
}

/// `count` numbers, uniform on [0, 1) in steps of 2^-53: the same for a seed on every machine, which std's distributions
/// do not promise.
inline std::vector<double> uniform_numbers(index count, std::uint64_t seed)
{
    detail::require(count >= 0, "uniform_numbers", "count", "is negative");
    std::mt19937_64 bits(seed);
    std::vector<double> numbers(static_cast<std::size_t>(count));
    for (double& u : numbers) u = std::ldexp(static_cast<double>(bits() >> 11), -53);
    return numbers;
}

/// The same from the standard normal distribution (Box and Muller).
inline std::vector<double> normal_numbers(index count, std::uint64_t seed)
{
    detail::require(count >= 0, "normal_numbers", "count", "is negative");
    const std::vector<double> u = uniform_numbers(count + count % 2, seed);
    std::vector<double> numbers(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        const double radius = std::sqrt(-2 * std::log1p(-u[i / 2 * 2])), angle = 2 * std::numbers::pi * u[i / 2 * 2 + 1];
        numbers[i] = radius * (i % 2 ? std::sin(angle) : std::cos(angle));
    }
    return numbers;
}

/// The range that step sizes are drawn from, in units of 1 / A.
struct delta_range {
    double min = 1e-3, max = 1e-1;
};

namespace detail {

inline void require_range(const char* op, const delta_range& range)
{
    require(range.min > 0 && range.max >= range.min && std::isfinite(range.max), op, "range", "is not 0 < min <= max");
}

}  // namespace detail

/// A step size, log-uniform over the range, for a number u from [0, 1), as it is stored under a transform: ln Δ for exp, which
/// has no floor, otherwise T^-1(max(Δ, 1e-4)) (S4, arXiv:2111.00396; S5's log_step). Throws shape_error unless
/// 0 < min <= max.
inline double delta_init(double u, positive_transform transform = positive_transform::exp, const delta_range& range = {})
{
    detail::require_range("delta_init", range);
    const double log_delta = u * (std::log(range.max) - std::log(range.min)) + std::log(range.min);
    return transform == positive_transform::exp ? log_delta : from_positive(transform, std::exp(log_delta));
}

/// The same for all of u, one of a channel or one of a channel and state.
inline std::vector<double> delta_init(std::span<const double> u, positive_transform transform = positive_transform::exp,
                                      const delta_range& range = {})
{
    detail::require_range("delta_init", range);
    std::vector<double> stored;
    stored.reserve(u.size());
    for (const double x : u) stored.push_back(delta_init(x, transform, range));
    return stored;
}

/// S4's debugging option: `dim` steps in even ratios over the range, stored where ln Δ is expected, so that the exponential
/// is taken twice; kept for parity.
inline std::vector<double> delta_init_deterministic(index dim, const delta_range& range = {})
{
    constexpr const char* op = "delta_init_deterministic";
    detail::require(dim >= 0, op, "dim", "is negative");
    detail::require_range(op, range);
    std::vector<double> stored(static_cast<std::size_t>(dim));
    const double first = std::log(range.min), step = dim > 1 ? (std::log(range.max) - first) / static_cast<double>(dim - 1) : 0;
    for (std::size_t i = 0; i < stored.size(); ++i) stored[i] = std::exp(first + step * static_cast<double>(i));
    return stored;
}

/// LRU's parameters, each (state): λ = exp(-e^ν_log + i e^θ_log), B scaled by e^γ_log.
struct lru_parameters {
    std::vector<double> nu_log, theta_log, gamma_log;
};

/// Eigenvalues uniform on the ring r_min <= |λ| <= r_max up to the phase max_phase (radians), γ such that a white input keeps
/// the state's variance 1 (LRU, arXiv:2303.06349, lemma 3.2 and section 3.4). u_nu and u_theta (state) are from (0, 1); an exact
/// 0 gives an infinity at θ. Throws shape_error unless they are equally many and 0 <= r_min <= r_max <= 1, max_phase > 0.
inline lru_parameters lru_init(std::span<const double> u_nu, std::span<const double> u_theta, double r_min = 0,
                               double r_max = 1, double max_phase = 2 * std::numbers::pi)
{
    constexpr const char* op = "lru_init";
    detail::require(u_theta.size() == u_nu.size(), op, "u_theta",
                    "has " + std::to_string(u_theta.size()) + " elements, u_nu has " + std::to_string(u_nu.size()));
    detail::require(r_min >= 0 && r_max >= r_min && r_max <= 1, op, "r_min, r_max", "are not 0 <= r_min <= r_max <= 1");
    detail::require(max_phase > 0, op, "max_phase", "is not positive");
    lru_parameters p;
    for (std::size_t n = 0; n < u_nu.size(); ++n) {
        const double nu = -0.5 * std::log(u_nu[n] * (r_max * r_max - r_min * r_min) + r_min * r_min);
        p.nu_log.push_back(std::log(nu));
        p.theta_log.push_back(std::log(max_phase * u_theta[n]));
        p.gamma_log.push_back(0.5 * std::log(-std::expm1(-2 * nu)));  // 1 - |λ|², exact also near the circle
    }
    return p;
}

/// Random complex maps: `count` numbers, real and imaginary part each normal with `variance`. LRU's B (state, dim) takes
/// 1 / (2 dim), its C (dim, state) 1 / state (arXiv:2303.06349, section 3.4); S4's and S4D's C and S4D's random B take 1/2, as
/// does the C of S5 that is drawn in eigenvectors. Throws shape_error for a negative count or unless the variance is a
/// number >= 0.
inline std::vector<std::complex<double>> complex_normal_numbers(index count, std::uint64_t seed, double variance = 0.5)
{
    constexpr const char* op = "complex_normal_numbers";
    detail::require(count >= 0, op, "count", "is negative");
    detail::require(variance >= 0 && std::isfinite(variance), op, "variance", "is not a number >= 0");
    const std::vector<double> parts = normal_numbers(2 * count, seed);
    const double deviation = std::sqrt(variance);
    std::vector<std::complex<double>> numbers;
    for (std::size_t i = 0; i < parts.size(); i += 2) numbers.emplace_back(deviation * parts[i], deviation * parts[i + 1]);
    return numbers;
}

/// `count` numbers from the normal distribution truncated at two deviations, scaled so that `variance` is theirs: S5's B (state,
/// dim) takes 1 / state. Throws shape_error for a negative count or unless the variance is a number >= 0.
inline std::vector<double> truncated_normal_numbers(index count, std::uint64_t seed, double variance = 1)
{
    constexpr const char* op = "truncated_normal_numbers";
    detail::require(count >= 0, op, "count", "is negative");
    detail::require(variance >= 0 && std::isfinite(variance), op, "variance", "is not a number >= 0");
    constexpr double deviation = 0.87962566103423978;  // of what truncation leaves: (1 - 4 φ(2) / (2 Φ(2) - 1))^½
    const double scale = std::sqrt(variance) / deviation;
    std::vector<double> numbers;
    numbers.reserve(static_cast<std::size_t>(count));
    const auto wanted = static_cast<std::size_t>(count);
    for (std::uint64_t round = 0; numbers.size() < wanted; ++round) {  // 1 in 22 is drawn again
        for (const double x : normal_numbers(static_cast<index>(wanted - numbers.size()), seed + round * 0x9e3779b97f4a7c15)) {
            if (std::abs(x) <= 2) numbers.push_back(scale * x);
        }
    }
    return numbers;
}

/// How a long convolution's kernel starts.
enum class long_conv_start {
    random,              ///< 0.002 times normal numbers
    double_exponential,  ///< 0.02 times, under exp(-(l / length) floor(dim / 2)^(h / dim)): see double_exponential_args
};

/// A kernel (channels, dim, length), row by row, before it is smoothed and squashed (arXiv:2302.06646, section 3.2; `length` is
/// twice that of the sequence if it is not causal). Throws shape_error for negative sizes.
inline std::vector<double> long_conv_init(long_conv_start start, index channels, index dim, index length, std::uint64_t seed)
{
    constexpr const char* op = "long_conv_init";
    detail::require(channels >= 0, op, "channels", "is negative");
    detail::require(dim >= 0, op, "dim", "is negative");
    detail::require(length >= 0, op, "length", "is negative");
    std::vector<double> kernel = normal_numbers(channels * dim * length, seed);
    for (std::size_t i = 0; i < kernel.size(); ++i) {
        const auto l = static_cast<index>(i) % length, h = static_cast<index>(i) / length % dim;
        if (start == long_conv_start::random) {
            kernel[i] *= 0.002;
        } else {
            const double rate = std::pow(static_cast<double>(dim / 2), static_cast<double>(h) / static_cast<double>(dim));
            kernel[i] *= 0.02 * std::exp(-static_cast<double>(l) / static_cast<double>(length) * rate);
        }
    }
    return kernel;
}

/// Mega's parameters, each (dim, state) row by row, but omega (dim).
struct ema_parameters {
    std::vector<double> delta, alpha, beta, gamma, omega;
};

/// Mega's initialisation (arXiv:2209.10655): δ and α of deviation 0.2, β_n = (-1)^n + N(0, 0.02²), γ and ω standard normal.
/// With kernels for both directions `dim` is that of both, and the second half of omega is not used. Throws shape_error
/// for negative sizes.
inline ema_parameters ema_init(index dim, index state, std::uint64_t seed)
{
    constexpr const char* op = "ema_init";
    detail::require(dim >= 0, op, "dim", "is negative");
    detail::require(state >= 0, op, "state", "is negative");
    const auto count = static_cast<std::size_t>(dim * state);
    const std::vector<double> normals = normal_numbers(4 * dim * state + dim, seed);
    ema_parameters p;
    for (std::size_t i = 0; i < count; ++i) {
        p.delta.push_back(0.2 * normals[4 * i]);
        p.alpha.push_back(0.2 * normals[4 * i + 1]);
        p.beta.push_back((i % static_cast<std::size_t>(state) % 2 ? -1 : 1) + 0.02 * normals[4 * i + 2]);
        p.gamma.push_back(normals[4 * i + 3]);
    }
    p.omega.assign(normals.begin() + static_cast<std::ptrdiff_t>(4 * count), normals.end());
    return p;
}

}  // namespace ssmkit
