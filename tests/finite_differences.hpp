#pragma once

// Gradients of double problems against fourth-order finite differences, element by element.

#include <cmath>
#include <complex>

#include "complaint.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {

/// The largest difference between `gradient` and the slope of loss() by the parts of every element of `parameter`.
template <class E, std::size_t Rank, class Loss>
double gradient_error(const tensor<E, Rank>& parameter, const tensor<E, Rank>& gradient, Loss&& loss, double step = 1e-3)
{
    double worst = 0;
    const auto slope = [&](double& x) {
        const double at = x;
        const auto value = [&](double offset) {
            x = at + offset * step;
            const double l = loss();
            x = at;
            return l;
        };
        return (8 * (value(1) - value(-1)) - (value(2) - value(-2))) / (12 * step);
    };
    for_each_index(parameter.view(), [&](auto... i) {
        double* const parts = reinterpret_cast<double*>(&parameter(i...));
        const double* const computed = reinterpret_cast<const double*>(&gradient(i...));
        for (std::size_t part = 0; part < sizeof(E) / sizeof(double); ++part) {
            const double error = std::abs(slope(parts[part]) - computed[part]);
            if (!(error <= worst)) worst = error;  // a NaN stays
        }
    });
    return worst;
}

/// Σ x_i g_i
template <class T, std::size_t Rank>
double inner_product(const tensor<T, Rank>& x, const tensor<T, Rank>& g)
{
    double sum = 0;
    for_each_index(x.view(), [&](auto... i) { sum += x(i...) * g(i...); });
    return sum;
}

/// A tensor filled at random.
template <class E, std::size_t Rank>
tensor<E, Rank> random_tensor(random& numbers, const std::array<index, Rank>& extents, const range& r,
                              layout form = layout::row_major, guard edge = guard::none)
{
    tensor<E, Rank> t(extents, form, edge);
    t.fill(numbers, r);
    return t;
}

}  // namespace ssmkit::testing
