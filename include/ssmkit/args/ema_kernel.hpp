#pragma once

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit {

/// The convolution kernel of Mega's damped exponential moving average, from its parameters as the model stores them.
///
///     K_l = Σ_n p_n β_n γ_n q_n^l / √state,   p = σ(δ),  q = 1 - p σ(α)      Ma et al., "Mega: Moving Average Equipped Gated
///                                                                           Attention", arXiv:2209.10655, section 3.1
///
/// 0 < q < 1 always: ln q = log1p(-p σ(α)) keeps the digits of a slow decay. A bidirectional model has twice the channels.
template <class T>
struct ema_kernel_args {
    view<const T, 2> delta{}, alpha{};  ///< (dim, state)   logits of p and of the damping
    view<const T, 2> beta{}, gamma{};   ///< (dim, state)   input and output maps
    view<T, 2> K{};                     ///< (dim, length)  output
};

namespace detail {

template <class T>
void check_ema_parameters(const char* op, const ema_kernel_args<T>& a)
{
    static_assert(kernel_element<T>);
    const axis dim{"dim", a.delta.extent(0)}, state{"state", a.delta.extent(1)};
    require_shape(op, "delta", a.delta, {{"dim"}, {"state"}});
    require_shape(op, "alpha", a.alpha, {dim, state});
    require_shape(op, "beta", a.beta, {dim, state});
    require_shape(op, "gamma", a.gamma, {dim, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const ema_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "ema_kernel";
    check_ema_parameters(op, a);
    require_shape(op, "K", a.K, {{"dim", a.delta.extent(0)}, {"length"}});
    require_distinct_elements(op, "K", a.K);
    const named_footprint outputs[] = {named("K", a.K)};
    const named_footprint inputs[] = {named("delta", a.delta), named("alpha", a.alpha), named("beta", a.beta),
                                      named("gamma", a.gamma)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
