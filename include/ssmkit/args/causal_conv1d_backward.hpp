#pragma once

#include <ssmkit/args/causal_conv1d.hpp>

namespace ssmkit {

/// The gradients of causal_conv1d.
///
///     e_t = dy_t silu'(p_t)  or  dy_t;  0 for padding           p is computed again, nothing is kept from the forward pass
///     dX[t + j] += weight_j e_t                                 for the taps that read X, not another sequence or padding
///     dweight_j = Σ_{batch, t} e_t X[t + j],  dbias = Σ_{batch, t} e_t
///     dX[n + j] += dfinal_states_j                              n: the tokens up to the last that is not padding; for the
///     dinitial_states, then dx = dX                             elements that final_states holds (args/causal_conv1d.hpp)
///
/// In a sequence shorter than the state, part of dfinal_states reaches dinitial_states. A gradient whose view is left empty
/// is neither computed nor written; one that is given is overwritten, not added to.
template <class T>
struct causal_conv1d_backward_args {
    causal_conv1d_args<T> forward{};   ///<                          its inputs; its outputs are not looked at and may be
                                       ///<                          left empty
    view<const T, 3> dy{};             ///< (batch, length, dim)     gradient of y
    view<const T, 3> dfinal_states{};  ///< (batch, dim, width - 1)  gradient of final_states; optional: zero
    view<T, 3> dx{};                   ///< (batch, length, dim)     outputs, here and below: each optional
    view<compute_t<T>, 2> dweight{};   ///< (dim, width)
    view<compute_t<T>, 1> dbias{};     ///< (dim)
    view<T, 3> dinitial_states{};      ///< (batch, dim, width - 1)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
/// Values are trusted.
template <class T>
void check(const causal_conv1d_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "causal_conv1d_backward";
    const causal_conv1d_args<T>& f = a.forward;
    check_causal_conv1d_inputs(op, f);
    const axis batch{"batch", f.x.extent(0)}, length{"length", f.x.extent(1)}, dim{"dim", f.x.extent(2)};
    const axis width{"width", f.weight.extent(1)}, states{"width - 1", f.weight.extent(1) - 1};
    require_shape(op, "dy", a.dy, {batch, length, dim});
    require_shape_if_given(op, "dfinal_states", a.dfinal_states, {batch, dim, states});
    require_shape_if_given(op, "dx", a.dx, {batch, length, dim});
    require_shape_if_given(op, "dweight", a.dweight, {dim, width});
    require_shape_if_given(op, "dbias", a.dbias, {dim});
    require_shape_if_given(op, "dinitial_states", a.dinitial_states, {batch, dim, states});
    const named_footprint outputs[] = {named("dx", a.dx), named("dweight", a.dweight), named("dbias", a.dbias),
                                       named("dinitial_states", a.dinitial_states)};
    const named_footprint inputs[] = {named("x", f.x), named("weight", f.weight), named("bias", f.bias),
                                      named("initial_states", f.initial_states), named("seq_idx", f.seq_idx),
                                      named("dy", a.dy), named("dfinal_states", a.dfinal_states)};
    require_distinct_elements(op, "dx", a.dx);
    require_distinct_elements(op, "dweight", a.dweight);
    require_distinct_elements(op, "dbias", a.dbias);
    require_distinct_elements(op, "dinitial_states", a.dinitial_states);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
