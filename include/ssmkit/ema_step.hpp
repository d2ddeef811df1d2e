#pragma once

#include <cmath>

#include <ssmkit/args/ema_step.hpp>
#include <ssmkit/detail/diagonal_step.hpp>
#include <ssmkit/parameters.hpp>

namespace ssmkit {

/// The maps of ema_step: shapes at ema_discretize_args. Computed in double and rounded once; throws as check() does; allocates
/// nothing. For models that are set up once: it is not vectorised.
template <class T>
void ema_discretize(const ema_discretize_args<T>& a)
{
    check(a);
    const double over = 1 / std::sqrt(static_cast<double>(a.delta.extent(1)));
    const auto sigmoid = [](T x) { return to_positive(positive_transform::sigmoid, static_cast<double>(x)); };
    for (index h = 0; h < a.delta.extent(0); ++h) {
        for (index n = 0; n < a.delta.extent(1); ++n) {
            const double p = sigmoid(a.delta(h, n));
            a.decay(h, n) = static_cast<T>(1 - p * sigmoid(a.alpha(h, n)));
            a.input(h, n) = static_cast<T>(p * static_cast<double>(a.beta(h, n)));
            a.output(h, n) = static_cast<T>(over * static_cast<double>(a.gamma(h, n)));
        }
    }
}

/// The recurrence of the moving average on a block of tokens: shapes and equations at ema_step_args. Throws shape_error before
/// anything is written; allocates nothing and takes no lock. Work splits over batch and blocks of 32 channels; the result does
/// not depend on the split, nor on how the tokens are cut into calls, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void ema_step(const ema_step_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index state = a.h.extent(2), dim = a.x.extent(2);
    run_diagonal_steps<Arch>(
        diagonal_step_problem<T>{
            .h = a.h,
            .pole = a.decay,
            .input = a.input,
            .C = {a.output.data(), {1, dim, state}, {0, a.output.stride(0), a.output.stride(1)}},
            .u = a.x,
            .y = {a.y.data(), {a.y.extent(0), a.y.extent(1), 1, dim}, {a.y.stride(0), a.y.stride(1), 0, a.y.stride(2)}},
            .factor = T(1)},
        exec);
}

}  // namespace ssmkit
