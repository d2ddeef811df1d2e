#pragma once

// SpaceTime's forecasts: a companion model reads a history, then runs on its own predictions. double inside.

#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// With x̂ for x divided by its norm (see companion_kernel_args), A = shift + â e_lastᵀ and h_t = A h_{t-1} + b u_t over the
/// history:
///
///     x_0 = h_last,   x_{j+1} = (A + b̂ k̂ᵀ) x_j,   y_j = ĉ·x_j,   u_next_j = k·x_j            closed loop, arXiv:2303.09489,
///     y_open = causal convolution of u with ĉ A^l b̂,   u_next_open with k̂ A^l b̂             section 3.2
///
/// as SpaceTime's code has it: the history is read by b as it is, inputs are predicted by k as it is. With norm_order 0 nothing is
/// divided, but then the closed loop takes b in place of k̂, and the open loop k over the count of its elements that are not zero.
template <class T>
struct companion_rollout_args {
    view<const T, 3> u{};                    ///< (batch, lag, dim)      history
    view<const T, 2> a{}, b{}, c{}, k{};     ///< (dim, state)
    int norm_order = 1;                      ///<                        0, 1 or 2
    view<T, 3> y{}, u_next{};                ///< (batch, horizon, dim)  outputs, here and below: each optional
    view<T, 3> y_open{}, u_next_open{};      ///< (batch, lag, dim)
};

/// The gradients of y, and of u_next where that is given, through the closed loop and the history. A gradient whose view is left
/// empty is not written.
template <class T>
struct companion_rollout_backward_args {
    companion_rollout_args<T> forward{};     ///<                        its outputs may be empty
    view<const T, 3> dy{};                   ///< (batch, horizon, dim)
    view<const T, 3> du_next{};              ///< (batch, horizon, dim)  optional: zero
    view<T, 3> du{};                         ///< (batch, lag, dim)      outputs, here and below: each optional
    view<T, 2> da{}, db{}, dc{}, dk{};       ///< (dim, state)
};

namespace detail {

template <class T>
void check_rollout_inputs(const char* op, const companion_rollout_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis dim{"dim", a.a.extent(0)}, state{"state", a.a.extent(1)};
    require_shape(op, "a", a.a, {{"dim"}, {"state"}});
    require_shape(op, "b", a.b, {dim, state});
    require_shape(op, "c", a.c, {dim, state});
    require_shape(op, "k", a.k, {dim, state});
    require_shape(op, "u", a.u, {{"batch"}, {"lag"}, dim});
    require(a.norm_order >= 0 && a.norm_order <= 2, op, "norm_order", "is not 0, 1 or 2");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const companion_rollout_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "companion_rollout";
    check_rollout_inputs(op, a);
    const axis batch{"batch", a.u.extent(0)}, lag{"lag", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    require_shape_if_given(op, "y", a.y, {batch, {"horizon"}, dim});
    require_shape_if_given(op, "u_next", a.u_next, {batch, a.y.data() ? axis{"horizon", a.y.extent(1)} : axis{"horizon"}, dim});
    require_shape_if_given(op, "y_open", a.y_open, {batch, lag, dim});
    require_shape_if_given(op, "u_next_open", a.u_next_open, {batch, lag, dim});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "u_next", a.u_next);
    require_distinct_elements(op, "y_open", a.y_open);
    require_distinct_elements(op, "u_next_open", a.u_next_open);
    const named_footprint outputs[] = {named("y", a.y), named("u_next", a.u_next), named("y_open", a.y_open),
                                       named("u_next_open", a.u_next_open)};
    const named_footprint inputs[] = {named("u", a.u), named("a", a.a), named("b", a.b), named("c", a.c), named("k", a.k)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const companion_rollout_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "companion_rollout_backward";
    const companion_rollout_args<T>& f = a.forward;
    check_rollout_inputs(op, f);
    const axis batch{"batch", f.u.extent(0)}, lag{"lag", f.u.extent(1)}, dim{"dim", f.u.extent(2)}, state{"state", f.a.extent(1)};
    require_shape(op, "dy", a.dy, {batch, {"horizon"}, dim});
    require_shape_if_given(op, "du_next", a.du_next, {batch, {"horizon", a.dy.extent(1)}, dim});
    require_shape_if_given(op, "du", a.du, {batch, lag, dim});
    require_shape_if_given(op, "da", a.da, {dim, state});
    require_shape_if_given(op, "db", a.db, {dim, state});
    require_shape_if_given(op, "dc", a.dc, {dim, state});
    require_shape_if_given(op, "dk", a.dk, {dim, state});
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "da", a.da);
    require_distinct_elements(op, "db", a.db);
    require_distinct_elements(op, "dc", a.dc);
    require_distinct_elements(op, "dk", a.dk);
    const named_footprint outputs[] = {named("du", a.du), named("da", a.da), named("db", a.db), named("dc", a.dc),
                                       named("dk", a.dk)};
    const named_footprint inputs[] = {named("u", f.u),
                                      named("a", f.a),
                                      named("b", f.b),
                                      named("c", f.c),
                                      named("k", f.k),
                                      named("dy", a.dy),
                                      named("du_next", a.du_next)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
