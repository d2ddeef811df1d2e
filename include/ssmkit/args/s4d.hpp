#pragma once

#include <complex>

#include <ssmkit/check.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The layer of S4D: every channel is filtered by a diagonal linear system of its own, discretised with its step size.
///
///     z = rate dt A,   λ and γ the pole and the gain of z              discretize.hpp; A of channel h is that of copy h mod copies
///     x_t = λ ∘ x_{t-1} + γ ∘ B u_t                                   Gu et al., "On the Parameterization and Initialization of
///     y_t = f Re(Σ_n C_n x_{t,n}) + D u_t                            Diagonal State Space Models", arXiv:2206.11893, section 3
///
/// The same as the causal convolution with K_l = f Re Σ_n C_n λ_n^l γ_n B_n. With `conjugate_pairs`, f = 2: `state` is half of a
/// state whose other half is conjugate. Without, f = 1 (DSS, LRU). A sequence may be cut anywhere: final_state of one piece is
/// initial_state of the next.
///
/// T is how u and y are stored (float, double, bfloat16, float16); parameters and states are in compute_t<T>. Poles are computed
/// in double precision: the phase of λ^l is l times that of λ, and with it the error. Any stride is legal; time-contiguous
/// data, (batch, channels, length), is a view with its last two axes transposed.
template <class T>
struct s4d_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const T, 3> u{};                     ///< (batch, length, channels)            input
    view<const real, 2> dt{};                 ///< (channels, state)                    step size (time); see tied_over_state
    view<const complex, 2> A{}, B{};          ///< (copies, state)                      copies divides channels; A (1 / time)
    view<const complex, 3> C{};               ///< (outputs, channels, state)
    view<const real, 2> D{};                  ///< (outputs, channels)                  optional: zero
    discretization method = discretization::zoh;  ///<                                  one whose pole depends on z alone: not async
    double rate = 1;                          ///<                                      scales dt: 2 for half the sampling rate
    bool conjugate_pairs = true;
    view<const complex, 3> initial_state{};   ///< (batch, channels, state)             optional: zero
    bool reverse = false;                     ///<                                      visit the tokens from last to first
    view<T, 3> y{};                           ///< (batch, length, outputs · channels)  output; column o · channels + h
    view<complex, 3> final_state{};           ///< (batch, channels, state)             after the last token visited; optional
};

/// A step size (channels) that all states of a channel share: (channels, state).
template <class T>
view<const T, 2> tied_over_state(const view<T, 1>& dt, index state)
{
    return {dt.data(), {dt.extent(0), state}, {dt.stride(0), 0}};
}

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output;
/// final_state may be initial_state, element for element. Values are trusted.
template <class T>
void check(const s4d_args<T>& a)
{
    using namespace detail;
    static_assert(storage_element<T>);
    constexpr const char* op = "s4d";
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, channels{"channels", a.u.extent(2)};
    const axis outputs{"outputs", a.C.extent(0)}, copies{"copies", a.A.extent(0)}, state{"state", a.A.extent(1)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"channels"}});
    require_shape(op, "A", a.A, {{"copies"}, {"state"}});
    require(channels.extent == 0 || (copies.extent > 0 && channels.extent % copies.extent == 0), op, "A",
            "has a number of copies that does not divide the channels");
    require_shape(op, "dt", a.dt, {channels, state});
    require_shape(op, "B", a.B, {copies, state});
    require_shape(op, "C", a.C, {{"outputs"}, channels, state});
    require_shape_if_given(op, "D", a.D, {outputs, channels});
    require(a.method != discretization::async, op, "method", "is async: the tokens of s4d are evenly spaced");
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, channels, state});
    require_shape(op, "y", a.y, {batch, length, {"outputs * channels", outputs.extent * channels.extent}});
    require_shape_if_given(op, "final_state", a.final_state, {batch, channels, state});

    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint written[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint read[] = {named("u", a.u), named("dt", a.dt), named("A", a.A), named("B", a.B), named("C", a.C),
                                    named("D", a.D),
                                    same_elements(a.final_state, a.initial_state) ? named_footprint{"initial_state", {}}
                                                                                  : named("initial_state", a.initial_state)};
    require_disjoint(op, written, read);
}

}  // namespace ssmkit
