#pragma once

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// S7: a diagonal recurrence whose every map depends on the token, kept stable by the way its factor is made.
///
///     ā_t = 1 - 1 / (A_t² + 1/2)                       Soydan et al., "S7: Selective and Simplified State Space Layers for
///     h_t = ā_t h_{t-1} + B_t u_t + bias_t             Sequence Modeling", arXiv:2410.03464, section 3
///     y_t = C_t h_t
///
/// T is how all but the state is stored. Any strides are legal; B and C, which are nearly all of the memory read, are read at its
/// speed where their states are contiguous. final_state may be initial_state. A sequence may be cut anywhere: final_state of one
/// piece is initial_state of the next.
template <class T>
struct s7_scan_args {
    using real = compute_t<T>;

    view<const T, 3> u{};                 ///< (batch, length, dim)         input
    view<const T, 3> A{};                 ///< (batch, length, state)
    view<const T, 4> B{};                 ///< (batch, length, dim, state)
    view<const T, 4> C{};                 ///< (batch, length, out, state)
    view<const T, 3> bias{};              ///< (batch, length, state)       optional: zero
    view<const real, 2> initial_state{};  ///< (batch, state)               optional: zero
    view<T, 3> y{};                       ///< (batch, length, out)         output
    view<real, 2> final_state{};          ///< (batch, state)               state after the last token; optional
};

namespace detail {

template <class T>
void check_s7_scan(const char* op, const s7_scan_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)},
        state{"state", a.A.extent(2)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "A", a.A, {batch, length, {"state"}});
    require_shape(op, "B", a.B, {batch, length, dim, state});
    require_shape(op, "C", a.C, {batch, length, {"out"}, state});
    require_shape_if_given(op, "bias", a.bias, {batch, length, state});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps another output or an input other than
/// the one it may replace. Values are trusted.
template <class T>
void check(const s7_scan_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s7_scan";
    check_s7_scan(op, a);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)};
    require_shape(op, "y", a.y, {batch, length, {"out", a.C.extent(2)}});
    require_shape_if_given(op, "final_state", a.final_state, {batch, {"state", a.A.extent(2)}});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const bool replaces_state = same_elements(a.final_state, a.initial_state);
    const named_footprint outputs[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint inputs[] = {
        named("u", a.u),       named("A", a.A),
        named("B", a.B),       named("C", a.C),
        named("bias", a.bias), replaces_state ? named_footprint{"initial_state", {}} : named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
