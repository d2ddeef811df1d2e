#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// What a linear scan of elements T computes in and keeps its state in: T if complex, otherwise double for double and float.
template <class T>
using linear_scan_state_t = std::conditional_t<detail::is_complex<T>, T, compute_t<T>>;

/// The first-order linear recurrence, every channel of the state on its own: what S5, LRU and other diagonal models run.
///
///     h_t = a_t h_{t-1} + b_t                          Smith et al., "Simplified State Space Layers", arXiv:2208.04933,
///     h_t = b_t  where reset_t                         section 2.2 and appendix H; Orvieto et al., arXiv:2303.06349, eq. 1
///
/// T is how b and h are stored: float, double, bfloat16, float16, std::complex<float> or std::complex<double>. The factor a
/// and the state are linear_scan_state_t<T>, never 16 bits, in which 0.998 is 1 and nothing is ever forgotten. Where reset_t,
/// a_t and what came before, initial_state included, do not matter, whatever they hold.
///
/// Any stride is legal: a that does not change with the token or the sequence is a view with stride 0 there (see
/// constant_over_time) and is then read once; time-contiguous data, (batch, state, length), is a view with its last two axes
/// transposed. h may be b and final_state may be initial_state, element for element; no other overlap is legal. A sequence may
/// be cut anywhere: final_state of one piece is initial_state of the next.
template <class T>
struct linear_scan_args {
    using state_type = linear_scan_state_t<T>;

    view<const state_type, 3> a{};              ///< (batch, length, state)  factor; |a| <= 1 if stable
    view<const T, 3> b{};                       ///< (batch, length, state)  input
    view<const state_type, 2> initial_state{};  ///< (batch, state)          optional: zero
    view<const std::uint8_t, 2> reset{};        ///< (batch, length)         optional; non-zero: a sequence begins at this token
    bool reverse = false;                       ///<                         visit the tokens from last to first
    view<T, 3> h{};                             ///< (batch, length, state)  output: the state after each token
    view<state_type, 2> final_state{};          ///< (batch, state)          state after the last token visited; optional
};

/// A factor (state) of all sequences that does not change with the token: (batch, length, state).
template <class T>
view<const T, 3> constant_over_time(const view<T, 1>& factor, index batch, index length)
{
    return {factor.data(), {batch, length, factor.extent(0)}, {0, 0, factor.stride(0)}};
}

namespace detail {

template <class T>
inline constexpr bool linear_scan_element =
    storage_element<T> || std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>;

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps another output or an input other
/// than the one it may replace. Values are trusted.
template <class T>
void check(const linear_scan_args<T>& a)
{
    using namespace detail;
    static_assert(linear_scan_element<T>);
    constexpr const char* op = "linear_scan";
    const axis batch{"batch", a.b.extent(0)}, length{"length", a.b.extent(1)}, state{"state", a.b.extent(2)};
    require_shape(op, "b", a.b, {{"batch"}, {"length"}, {"state"}});
    require_shape(op, "a", a.a, {batch, length, state});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, state});
    require_shape_if_given(op, "reset", a.reset, {batch, length});
    require_shape(op, "h", a.h, {batch, length, state});
    require_shape_if_given(op, "final_state", a.final_state, {batch, state});
    const named_footprint outputs[] = {named("h", a.h), named("final_state", a.final_state)};
    const bool replaces_b = same_elements(a.h, a.b), replaces_state = same_elements(a.final_state, a.initial_state);
    const named_footprint inputs[] = {named("a", a.a), replaces_b ? named_footprint{"b", {}} : named("b", a.b),
                                      replaces_state ? named_footprint{"initial_state", {}}
                                                     : named("initial_state", a.initial_state),
                                      named("reset", a.reset)};
    require_distinct_elements(op, "h", a.h);
    require_distinct_elements(op, "final_state", a.final_state);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
