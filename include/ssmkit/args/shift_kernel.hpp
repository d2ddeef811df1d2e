#pragma once

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The kernel of H3's shift model, x_t = S x_{t-1} + B u_t, y_t = C x_t, whose matrix S moves every number down by one place:
///
///     K_l = Σ_n C_{n+l} B_n,   n = 0 ... state - 1 - l                  zero for l >= state
///     K_state_l = Σ_n C_{n+l} s_n                                       Fu et al., "Hungry Hungry Hippos", arXiv:2212.14052
///
/// K_state is what the authors' model returns for an initial state s: its output before any step. A state contributes
/// K_state_{l+1} to output l, and the model itself never adds it.
template <class T>
struct shift_kernel_args {
    view<const T, 2> B{};        ///< (dim, state)
    view<const T, 3> C{};        ///< (channels, dim, state)
    view<const T, 3> state{};    ///< (batch, dim, state)             for K_state
    view<T, 3> K{};              ///< (channels, dim, length)         output; optional
    view<T, 4> K_state{};        ///< (batch, channels, dim, length)  output; optional
};

/// The gradients of K: dC_n = Σ_l dK_l B_{n-l}, dB_n = Σ_l dK_l C_{n+l}. One whose view is left empty is not computed.
template <class T>
struct shift_kernel_backward_args {
    view<const T, 2> B{};   ///< (dim, state)
    view<const T, 3> C{};   ///< (channels, dim, state)
    view<const T, 3> dK{};  ///< (channels, dim, length)
    view<T, 2> dB{};        ///< (dim, state)            outputs, each optional
    view<T, 3> dC{};        ///< (channels, dim, state)
};

/// One step of the shift model: state ← S state + B u, y = C state.
template <class T>
struct shift_update_args {
    view<const T, 2> B{};  ///< (dim, state)
    view<const T, 3> C{};  ///< (channels, dim, state)
    view<const T, 2> u{};  ///< (batch, dim)
    view<T, 3> state{};    ///< (batch, dim, state)     read, then overwritten
    view<T, 3> y{};        ///< (batch, channels, dim)  output; optional
};

/// The state after `length` steps: x_n = Σ_m B_{n-m} u_{length-1-m} + state_{n-length}.
template <class T>
struct shift_chunk_args {
    view<const T, 2> B{};              ///< (dim, state)
    view<const T, 3> u{};              ///< (batch, dim, length)
    view<const T, 3> initial_state{};  ///< (batch, dim, state)  optional: zero
    view<T, 3> final_state{};          ///< (batch, dim, state)  output
};

namespace detail {

template <class T>
void check_shift_parameters(const char* op, const view<const T, 2>& B, const view<const T, 3>& C)
{
    require_shape(op, "B", B, {{"dim"}, {"state"}});
    require_shape(op, "C", C, {{"channels"}, {"dim", B.extent(0)}, {"state", B.extent(1)}});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output. Values are
/// trusted.
template <class T>
void check(const shift_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "shift_kernel";
    check_shift_parameters(op, a.B, a.C);
    const axis channels{"channels", a.C.extent(0)}, dim{"dim", a.B.extent(0)}, state{"state", a.B.extent(1)};
    require_shape_if_given(op, "state", a.state, {{"batch"}, dim, state});
    require_shape_if_given(op, "K", a.K, {channels, dim, {"length"}});
    require_shape_if_given(op, "K_state", a.K_state, {{"batch", a.state.extent(0)}, channels, dim, {"length"}});
    require(a.K_state.data() == nullptr || a.state.data() != nullptr, op, "K_state", "is asked for without state");
    require_distinct_elements(op, "K", a.K);
    require_distinct_elements(op, "K_state", a.K_state);
    const named_footprint outputs[] = {named("K", a.K), named("K_state", a.K_state)};
    const named_footprint inputs[] = {named("B", a.B), named("C", a.C), named("state", a.state)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const shift_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "shift_kernel_backward";
    check_shift_parameters(op, a.B, a.C);
    const axis channels{"channels", a.C.extent(0)}, dim{"dim", a.B.extent(0)}, state{"state", a.B.extent(1)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length"}});
    require_shape_if_given(op, "dB", a.dB, {dim, state});
    require_shape_if_given(op, "dC", a.dC, {channels, dim, state});
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    const named_footprint outputs[] = {named("dB", a.dB), named("dC", a.dC)};
    const named_footprint inputs[] = {named("B", a.B), named("C", a.C), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const shift_update_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "shift_update";
    check_shift_parameters(op, a.B, a.C);
    const axis batch{"batch", a.u.extent(0)}, dim{"dim", a.B.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, dim});
    require_shape(op, "state", a.state, {batch, dim, {"state", a.B.extent(1)}});
    require_shape_if_given(op, "y", a.y, {batch, {"channels", a.C.extent(0)}, dim});
    require_distinct_elements(op, "state", a.state);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("state", a.state), named("y", a.y)};
    const named_footprint inputs[] = {named("B", a.B), named("C", a.C), named("u", a.u)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const shift_chunk_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "shift_chunk";
    const axis batch{"batch", a.u.extent(0)}, dim{"dim", a.B.extent(0)}, state{"state", a.B.extent(1)};
    require_shape(op, "B", a.B, {{"dim"}, {"state"}});
    require_shape(op, "u", a.u, {{"batch"}, dim, {"length"}});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, dim, state});
    require_shape(op, "final_state", a.final_state, {batch, dim, state});
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint outputs[] = {named("final_state", a.final_state)};
    const named_footprint inputs[] = {named("B", a.B), named("u", a.u), named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
