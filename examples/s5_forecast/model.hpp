#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/s5.hpp>
#include <ssmkit/s5_backward.hpp>

namespace s5_forecast {

using ssmkit::index, ssmkit::view;

/// An S5 layer with one output, its parameters and their gradients in two arrays of real numbers for the optimiser.
class layer {
public:
    using complex = std::complex<double>;

    layer(index dim, index state) : dim_(dim), state_(state), parameters(size()), gradients(size())
    {
        // Poles: from a constant over a year's harmonics, half of them with a memory of years, the others of months.
        for (index n = 0; n < state; ++n) {
            const double harmonic = static_cast<double>(n / 2);
            A()[n] = {n % 2 ? -0.3 : -0.01, 2 * std::acos(-1.0) * harmonic / 12};
            log_delta()[n] = 0;
            for (index c = 0; c < dim; ++c)
                B()(n, c) = {0.1 * std::cos(static_cast<double>(n + c)), 0.1 * std::sin(static_cast<double>(n - c))};
        }
    }

    /// y (batch, length, 1) of u (batch, length, dim).
    void forward(const view<const double, 3>& u, const view<double, 3>& y)
    {
        ssmkit::s5(args(u, y));
    }

    /// The gradients of all parameters given dy.
    void backward(const view<const double, 3>& u, const view<const double, 3>& dy)
    {
        ssmkit::s5_backward(ssmkit::s5_backward_args<double>{.forward = args(u, {}),
                                                             .dy = dy,
                                                             .dA = A(gradients),
                                                             .ddelta = log_delta(gradients),
                                                             .dB = B(gradients),
                                                             .dC = C(gradients)});
        for (index n = 0; n < state_; ++n) log_delta(gradients)[n] *= delta_[static_cast<std::size_t>(n)];
    }

private:
    index dim_, state_;

public:
    std::vector<double> parameters, gradients;  // A, B, C, then the logarithms of delta

private:
    std::size_t size() const { return static_cast<std::size_t>(2 * state_ + 2 * state_ * dim_ + 2 * state_ + state_); }

    /// Complex parameters are pairs of real ones.
    static complex* at(std::vector<double>& values, index offset) { return reinterpret_cast<complex*>(values.data() + offset); }
    view<complex, 1> A(std::vector<double>& v) const { return {at(v, 0), state_}; }
    view<complex, 2> B(std::vector<double>& v) const { return {at(v, 2 * state_), state_, dim_}; }
    view<complex, 2> C(std::vector<double>& v) const { return {at(v, 2 * state_ * (1 + dim_)), 1, state_}; }
    view<double, 1> log_delta(std::vector<double>& v) const { return {v.data() + 2 * state_ * (2 + dim_), state_}; }
    view<complex, 1> A() { return A(parameters); }
    view<complex, 2> B() { return B(parameters); }
    view<double, 1> log_delta() { return log_delta(parameters); }

    ssmkit::s5_args<double> args(const view<const double, 3>& u, const view<double, 3>& y)
    {
        delta_.resize(static_cast<std::size_t>(state_));
        for (index n = 0; n < state_; ++n) delta_[static_cast<std::size_t>(n)] = std::exp(log_delta()[n]);
        return {.A = A(), .delta = {delta_, state_}, .B = B(), .C = C(parameters), .u = u, .clip_eigs = true, .y = y};
    }

    std::vector<double> delta_;
};

/// Kingma & Ba's Adam, arXiv:1412.6980, algorithm 1.
class adam {
public:
    explicit adam(std::size_t parameters) : mean_(parameters), square_(parameters) {}

    void step(std::vector<double>& parameters, const std::vector<double>& gradients, double rate)
    {
        ++steps_;
        const double unbias_mean = 1 - std::pow(0.9, steps_), unbias_square = 1 - std::pow(0.999, steps_);
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            mean_[i] += 0.1 * (gradients[i] - mean_[i]);
            square_[i] += 0.001 * (gradients[i] * gradients[i] - square_[i]);
            parameters[i] -= rate * mean_[i] / unbias_mean / (std::sqrt(square_[i] / unbias_square) + 1e-8);
        }
    }

private:
    std::vector<double> mean_, square_;
    int steps_ = 0;
};

}  // namespace s5_forecast
