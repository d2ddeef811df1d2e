#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "matrix.hpp"

namespace mamba {

/// Small numbers without pattern, the same on every machine.
struct numbers {
    std::uint32_t bits = 1;

    double operator()()
    {
        bits = bits * 1664525u + 1013904223u;  // Knuth and Lewis
        return static_cast<double>(bits >> 8) / (1 << 24) - 0.5;
    }

    matrix<double> operator()(index rows, index columns)
    {
        return matrix<double>::NullaryExpr(rows, columns, [this] { return (*this)(); });
    }
};

/// Holds the gradients of loss() against difference quotients and prints each: its slope along the gradient g of an argument
/// is |g|^2.
template <class Loss>
class gradient_check {
public:
    explicit gradient_check(Loss loss) : loss_(std::move(loss)) {}

    template <class Argument, class Gradient>
    void operator()(const char* name, Argument& argument, const Gradient& gradient)
    {
        const Argument here = argument;
        const double norm = gradient.norm(), step = 1e-5 / norm;
        argument = here + step * gradient;
        const double above = loss_();
        argument = here - step * gradient;
        const double below = loss_();
        argument = here;
        const double slope = (above - below) / (2 * step) / (norm * norm);
        std::printf("%-20s |gradient| %9.4f   slope / |gradient|^2 = %.8f\n", name, norm, slope);
        const double deviation = std::abs(slope - 1);
        worst_ = deviation <= worst_ ? worst_ : deviation;  // a NaN stays
    }

    /// Largest deviation of a printed quotient from 1.
    double worst() const { return worst_; }

private:
    Loss loss_;
    double worst_ = 0;
};

}  // namespace mamba
