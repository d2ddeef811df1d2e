#pragma once

// What LegS and LegT remember of a sequence, step by step.

#include <cmath>
#include <span>
#include <string>

#include <ssmkit/discretize.hpp>
#include <ssmkit/hippo/operators.hpp>

namespace ssmkit {

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

}  // namespace ssmkit
