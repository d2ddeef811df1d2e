#pragma once

#include <ssmkit/args/s7_scan.hpp>

namespace ssmkit {

/// The gradients of s7_scan.
///
///     s_t = C_t^T dy_t + ā_{t+1} s_{t+1}               dfinal_state for the last token
///     dA_t = s_t h_{t-1} 2 A_t / (A_t² + 1/2)²,  dB_t = u_t s_t^T,  dC_t = dy_t h_t^T,  dbias_t = s_t,  du_t = B_t s_t
///
/// The forward pass need not have run: states are computed again from one every few dozen tokens. A gradient whose view is left
/// empty is neither computed nor written; one that is given is overwritten, not added to.
template <class T>
struct s7_scan_backward_args {
    using real = compute_t<T>;

    s7_scan_args<T> forward{};           ///<                              its inputs; y and final_state may be left empty
    view<const T, 3> dy{};               ///< (batch, length, out)         gradient of y
    view<const real, 2> dfinal_state{};  ///< (batch, state)               of final_state; optional: zero
    view<T, 3> du{};                     ///< (batch, length, dim)         outputs, here and below: each optional
    view<T, 3> dA{};                     ///< (batch, length, state)
    view<T, 4> dB{};                     ///< (batch, length, dim, state)
    view<T, 4> dC{};                     ///< (batch, length, out, state)
    view<T, 3> dbias{};                  ///< (batch, length, state)
    view<real, 2> dinitial_state{};      ///< (batch, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no gradient overlaps an input or another one. Values are
/// trusted.
template <class T>
void check(const s7_scan_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s7_scan_backward";
    const s7_scan_args<T>& f = a.forward;
    check_s7_scan(op, f);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, dim{"dim", f.u.extent(2)},
        state{"state", f.A.extent(2)};
    const axis out{"out", f.C.extent(2)};
    require_shape(op, "dy", a.dy, {batch, length, out});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, state});
    require_shape_if_given(op, "du", a.du, {batch, length, dim});
    require_shape_if_given(op, "dA", a.dA, {batch, length, state});
    require_shape_if_given(op, "dB", a.dB, {batch, length, dim, state});
    require_shape_if_given(op, "dC", a.dC, {batch, length, out, state});
    require_shape_if_given(op, "dbias", a.dbias, {batch, length, state});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, state});
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dbias", a.dbias);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("du", a.du), named("dA", a.dA),       named("dB", a.dB),
                                       named("dC", a.dC), named("dbias", a.dbias), named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("u", f.u),       named("A", f.A),
                                      named("B", f.B),       named("C", f.C),
                                      named("bias", f.bias), named("initial_state", f.initial_state),
                                      named("dy", a.dy),     named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
