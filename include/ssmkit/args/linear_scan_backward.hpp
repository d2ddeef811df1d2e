#pragma once

#include <ssmkit/args/linear_scan.hpp>

namespace ssmkit {

/// The gradients of linear_scan. Complex ones are ∂/∂Re + i ∂/∂Im, so that the factors come in conjugated.
///
///     s_t = dh_t + conj(a_{t+1}) s_{t+1}        tokens as visited; without the second term where reset_{t+1}
///     s_t = dh_t + dfinal_state                 for the last of them
///     db_t = s_t,   da_t = s_t conj(h_{t-1})    0 where reset_t;  h_{-1} is initial_state
///     dinitial_state = conj(a_0) s_0            0 where reset_0;  dfinal_state where there are no tokens
///
/// The states are the output of the forward pass and are not computed again: da needs forward.h as linear_scan left it, also
/// where it took the place of b, which nobody reads here. A da with stride 0 along batch or length is the sum over that axis
/// (see summed_over_time). A gradient whose view is left empty is neither computed nor written; one that is given is
/// overwritten, not added to. db may be dh, element for element.
template <class T>
struct linear_scan_backward_args {
    using state_type = linear_scan_state_t<T>;

    linear_scan_args<T> forward{};             ///<                         its a, initial_state, reset and reverse; h for da;
                                               ///<                         b and final_state may be left empty
    view<const T, 3> dh{};                     ///< (batch, length, state)  gradient of h
    view<const state_type, 2> dfinal_state{};  ///< (batch, state)          gradient of final_state; optional: zero
    view<state_type, 3> da{};                  ///< (batch, length, state)  outputs, here and below: each optional
    view<T, 3> db{};                           ///< (batch, length, state)
    view<state_type, 2> dinitial_state{};      ///< (batch, state)
};

/// The gradient (state) of a factor that all tokens of all sequences share: (batch, length, state).
template <class T>
view<T, 3> summed_over_time(const view<T, 1>& gradient, index batch, index length)
{
    return {gradient.data(), {batch, length, gradient.extent(0)}, {0, 0, gradient.stride(0)}};
}

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input, but db may be dh, or
/// another output. Values are trusted.
template <class T>
void check(const linear_scan_backward_args<T>& a)
{
    using namespace detail;
    static_assert(linear_scan_element<T>);
    constexpr const char* op = "linear_scan_backward";
    const linear_scan_args<T>& f = a.forward;
    const axis batch{"batch", a.dh.extent(0)}, length{"length", a.dh.extent(1)}, state{"state", a.dh.extent(2)};
    require_shape(op, "dh", a.dh, {{"batch"}, {"length"}, {"state"}});
    require_shape(op, "a", f.a, {batch, length, state});
    require_shape_if_given(op, "initial_state", f.initial_state, {batch, state});
    require_shape_if_given(op, "reset", f.reset, {batch, length});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, state});
    require_shape_if_given(op, "da", a.da, {batch, length, state});
    require_shape_if_given(op, "db", a.db, {batch, length, state});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, state});
    if (a.da.data() != nullptr) require_shape(op, "h", f.h, {batch, length, state});
    require(a.da.empty() || a.da.extent(2) <= 1 || a.da.stride(2) != 0, op, "da", "is written but has stride 0 along the state");
    require_distinct_elements(op, "db", a.db);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("da", a.da), named("db", a.db), named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("a", f.a), named("initial_state", f.initial_state), named("reset", f.reset),
                                      a.da.data() ? named("h", f.h) : named_footprint{"h", {}},
                                      same_elements(a.db, a.dh) ? named_footprint{"dh", {}} : named("dh", a.dh),
                                      named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
