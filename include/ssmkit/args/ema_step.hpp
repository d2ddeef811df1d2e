#pragma once

#include <ssmkit/args/ema_kernel.hpp>

namespace ssmkit {

/// The recurrence of Mega's damped exponential moving average, one token or a block of any length at a time, with the state
/// carried in memory. Nothing is allocated, locked or, once checked, thrown.
///
///     h_t = q h_{t-1} + p β x_t,   y_t = Σ_n γ_n h_t / √state
///
/// The maps are made once, by ema_discretize. A sequence may be cut anywhere, which changes no bit.
template <class T>
struct ema_step_args {
    view<T, 3> h{};               ///< (batch, dim, state)   the state: read, then overwritten
    view<const T, 2> decay{};     ///< (dim, state)          q
    view<const T, 2> input{};     ///< (dim, state)          p β
    view<const T, 2> output{};    ///< (dim, state)          γ / √state
    view<const T, 3> x{};         ///< (batch, length, dim)  input
    view<T, 3> y{};               ///< (batch, length, dim)  output
};

/// What ema_step is prepared with, from the parameters as the model stores them (see ema_kernel_args).
template <class T>
struct ema_discretize_args {
    view<const T, 2> delta{}, alpha{}, beta{}, gamma{};  ///< (dim, state)
    view<T, 2> decay{}, input{}, output{};               ///< (dim, state)  outputs
};

/// Throws shape_error, naming the argument, unless the shapes fit and nothing written overlaps an input. Values are trusted.
template <class T>
void check(const ema_step_args<T>& a)
{
    using namespace detail;
    static_assert(kernel_element<T>);
    constexpr const char* op = "ema_step";
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)},
        state{"state", a.h.extent(2)};
    require_shape(op, "x", a.x, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "h", a.h, {batch, dim, {"state"}});
    require_shape(op, "decay", a.decay, {dim, state});
    require_shape(op, "input", a.input, {dim, state});
    require_shape(op, "output", a.output, {dim, state});
    require_shape(op, "y", a.y, {batch, length, dim});
    require_distinct_elements(op, "h", a.h);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("h", a.h), named("y", a.y)};
    const named_footprint inputs[] = {named("x", a.x), named("decay", a.decay), named("input", a.input), named("output", a.output)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const ema_discretize_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "ema_discretize";
    check_ema_parameters(op, ema_kernel_args<T>{a.delta, a.alpha, a.beta, a.gamma, {}});
    const axis dim{"dim", a.delta.extent(0)}, state{"state", a.delta.extent(1)};
    require_shape(op, "decay", a.decay, {dim, state});
    require_shape(op, "input", a.input, {dim, state});
    require_shape(op, "output", a.output, {dim, state});
    require_distinct_elements(op, "decay", a.decay);
    require_distinct_elements(op, "input", a.input);
    require_distinct_elements(op, "output", a.output);
    const named_footprint outputs[] = {named("decay", a.decay), named("input", a.input), named("output", a.output)};
    const named_footprint inputs[] = {named("delta", a.delta), named("alpha", a.alpha), named("beta", a.beta),
                                      named("gamma", a.gamma)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
