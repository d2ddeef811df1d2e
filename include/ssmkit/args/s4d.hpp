#pragma once

#include <complex>

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/element.hpp>

namespace ssmkit {

/// How s4d computes.
enum class s4d_form {
    automatic,    ///< the faster of the two that follow
    states,       ///< through the state, chunk by chunk: 4 multiply-adds a token and pair, whatever the length
    convolution,  ///< s4d_kernel and fft_conv: from some 12 pairs on the faster; without states, and a NaN reaches all of its row
};

/// The layer of S4D: every channel is filtered by diagonal linear systems of its own, discretised with its step size.
///
///     x_t = λ ∘ x_{t-1} + β ∘ B u_t                       λ and β of z = rate Δ A as s4d_discretization has them
///     y_{t,c} = f Re(Σ_n C_{c,n} x_{t,n}) + D_c u_t       Gu et al., "On the Parameterization and Initialization of Diagonal State
///                                                        Space Models", arXiv:2206.11893, section 3; f = 2 for pairs, otherwise 1
///
/// The same as the causal convolution with the kernel of s4d_kernel, which has the same parameters. A sequence may be cut anywhere:
/// final_state of one piece is initial_state of the next.
///
/// T is how u and y are stored (float, double, bfloat16, float16); B, C, D and states are in compute_t<T>, step sizes and rates in
/// double, in which poles are computed. Any stride is legal; time-contiguous data, (batch, dim, length), is a view with its last
/// two axes transposed.
template <class T>
struct s4d_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const T, 3> u{};                       ///< (batch, length, dim)             input
    view<const double, 2> delta{};              ///< (dim, state)                     step size Δ > 0; see tied_over_state
    view<const std::complex<double>, 2> A{};    ///< (copies, state)                  rate; channel h has copy h mod copies
    view<const complex, 2> B{};                 ///< (copies, state)                  input map
    view<const complex, 3> C{};                 ///< (channels, dim, state)           output maps
    view<const real, 2> D{};                    ///< (channels, dim)                  from input to output; optional: zero
    s4d_discretization method = s4d_discretization::zoh;  ///<                        not dss, which has no recurrence
    double rate = 1;                            ///<                                  multiplies delta: another sampling rate
    bool conjugate_pairs = true;                ///<                                  state counts pairs, one of each is given
    s4d_form form = s4d_form::automatic;
    view<const complex, 3> initial_state{};     ///< (batch, dim, state)              optional: zero
    bool reverse = false;                       ///<                                  visit the tokens from last to first
    view<T, 3> y{};                             ///< (batch, length, channels · dim)  output; that of C_c and input h is c dim + h
    view<complex, 3> final_state{};             ///< (batch, dim, state)              after the last token visited; optional
};

namespace detail {

/// What the layer and its gradients ask of everything that both read.
template <class T>
void check_s4d_inputs(const char* op, const s4d_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis dim{"dim", a.u.extent(2)}, copies{"copies", a.A.extent(0)}, state{"state", a.A.extent(1)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "A", a.A, {{"copies"}, {"state"}});
    require(dim.extent == 0 || (copies.extent > 0 && dim.extent % copies.extent == 0), op, "A",
            "has copies that do not divide dim");
    require_shape(op, "delta", a.delta, {dim, state});
    require_shape(op, "B", a.B, {copies, state});
    require_shape(op, "C", a.C, {{"channels"}, dim, state});
    require_shape_if_given(op, "D", a.D, {{"channels", a.C.extent(0)}, dim});
    require(a.method != s4d_discretization::dss, op, "method", "is dss, which has a kernel but no recurrence");
    require_shape_if_given(op, "initial_state", a.initial_state, {{"batch", a.u.extent(0)}, dim, state});
    require(a.form != s4d_form::convolution || !a.initial_state.data(), op, "initial_state",
            "is given, but a convolution has no states");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output;
/// final_state may be initial_state, element for element. Values are trusted.
template <class T>
void check(const s4d_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4d";
    check_s4d_inputs(op, a);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    const index channels = a.C.extent(0);
    require_shape(op, "y", a.y, {batch, length, {"channels * dim", channels * dim.extent}});
    require_shape_if_given(op, "final_state", a.final_state, {batch, dim, {"state", a.A.extent(1)}});
    require(a.form != s4d_form::convolution || !a.final_state.data(), op, "final_state",
            "is asked for, but a convolution has no states");

    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint written[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint read[] = {named("u", a.u), named("delta", a.delta), named("A", a.A), named("B", a.B), named("C", a.C),
                                    named("D", a.D),
                                    same_elements(a.final_state, a.initial_state) ? named_footprint{"initial_state", {}}
                                                                                  : named("initial_state", a.initial_state)};
    require_disjoint(op, written, read);
}

}  // namespace ssmkit
