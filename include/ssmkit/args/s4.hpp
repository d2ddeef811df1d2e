#pragma once

#include <complex>
#include <limits>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/element.hpp>

namespace ssmkit {

/// How s4 computes.
enum class s4_form {
    automatic,    ///< a convolution, unless states are asked for or the prepared map does not serve
    states,       ///< through the state, chunk by chunk: 4 multiply-adds a token and pair, and (2 state)² a chunk of 32 tokens
    convolution,  ///< s4_kernel and fft_conv: without states, and a NaN reaches all of its row
};

/// The layer of S4: every channel is filtered by a system of its own, diagonal plus low-rank, discretised by the bilinear method.
///
///     x_t = Ā x_{t-1} + B̄ u_t               Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces",
///     y_{t,c} = C_c x_t + D_c u_t           arXiv:2111.00396, equations 3 to 5
///
/// over the full spectrum of A = diag(Λ, Λ̄) - Σ_r P_r P_r*, with step Δ rate; `state` counts conjugate pairs, of which one is
/// given. Channel h has copy h mod copies. The same as the causal convolution with the kernel of s4_kernel, which has the same
/// parameters.
///
/// What S4 trains is the prepared map C̃ = C (I - Ā^L'), L' = round(prepared_length / rate), which s4_kernel takes; the recurrence
/// takes C. By states, C is recovered from C̃, unless true_C is given: s4_setup makes that once, with step sizes Δ rate and length
/// L'. A sequence may be cut anywhere, final_state of one piece being initial_state of the next, if prepared_length is not left at
/// 0, which means the piece's own length. By states, a sequence may also be longer than L'.
///
/// T is how u and y are stored (float, double, bfloat16, float16); B, C, D, P and states are in compute_t<T>, step sizes and rates
/// in double. Any stride is legal; time-contiguous data, (batch, dim, length), is a view with its last two axes transposed.
template <class T>
struct s4_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const T, 3> u{};                       ///< (batch, length, dim)             input
    view<const double, 2> delta{};              ///< (dim, state)                     step size Δ > 0; see tied_over_state
    view<const std::complex<double>, 2> A{};    ///< (copies, state)                  Λ; copies divides dim
    view<const complex, 2> B{};                 ///< (copies, state)                  input map
    view<const complex, 3> P{};                 ///< (rank, copies, state)            low-rank part; rank may be 0
    view<const complex, 3> C{};                 ///< (channels, dim, state)           prepared output maps C̃; optional with true_C
    view<const complex, 3> true_C{};            ///< (channels, dim, state)           C; optional: recovered from C̃
    view<const real, 2> D{};                    ///< (channels, dim)                  from input to output; optional: zero
    index prepared_length = 0;                  ///<                                  ℓ that C̃ was prepared for; 0: length
    double rate = 1;                            ///<                                  multiplies delta: another sampling rate
    double bandlimit = std::numeric_limits<double>::infinity();  ///<                 as s4_kernel has it; not with true_C
    s4_form form = s4_form::automatic;
    view<const complex, 3> initial_state{};     ///< (batch, dim, state)              optional: zero
    bool reverse = false;                       ///<                                  visit the tokens from last to first
    view<T, 3> y{};                             ///< (batch, length, channels · dim)  output; that of C_c and input h is c dim + h
    view<complex, 3> final_state{};             ///< (batch, dim, state)              after the last token visited; optional
};

namespace detail {

/// The output maps that there are.
template <class T>
const auto& s4_maps(const s4_args<T>& a)
{
    return a.C.data() ? a.C : a.true_C;
}

/// The kernel of a layer, without memory for it.
template <class T>
s4_kernel_args<compute_t<T>> s4_layer_kernel(const s4_args<T>& a)
{
    return {.delta = a.delta, .A = a.A, .B = a.B, .P = a.P, .C = s4_maps(a), .prepared_length = a.prepared_length, .rate = a.rate,
            .bandlimit = a.bandlimit};
}

/// What the layer and its gradients ask of inputs and parameters.
template <class T>
void check_s4_inputs(const char* op, const s4_args<T>& a, bool convolved)
{
    static_assert(storage_element<T>);
    const auto& C = s4_maps(a);
    const axis batch{"batch", a.u.extent(0)}, dim{"dim", a.u.extent(2)}, state{"state", a.A.extent(1)};
    const axis channels{"channels", C.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, a.C.data() || !a.true_C.data() ? "C" : "true_C", C, {{"channels"}, dim, state});
    require_shape_if_given(op, "true_C", a.true_C, {channels, dim, state});
    check_s4_parameters(op, s4_layer_kernel(a), 0);
    if (a.prepared_length == 0) require_s4_transform(op, a.u.extent(1), a.rate);
    const index length = a.u.extent(1), transform = s4_transform_length(s4_layer_kernel(a), length);
    require(!convolved || a.C.data() || !a.true_C.data(), op, "C", "is not given, but a convolution takes prepared maps");
    require(!convolved || length <= transform, op, "u", "has a length above round(prepared_length / rate)");
    require(a.true_C.data() || length == 0 || transform > 0, op, "rate", "leaves nothing of the prepared length");
    require_shape_if_given(op, "D", a.D, {channels, dim});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, dim, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output;
/// final_state may be initial_state, element for element. Values are trusted.
template <class T>
void check(const s4_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4";
    const bool convolved = a.form == s4_form::convolution;
    check_s4_inputs(op, a, convolved);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    const axis state{"state", a.A.extent(1)};
    require_shape(op, "y", a.y, {batch, length, {"channels * dim", s4_maps(a).extent(0) * dim.extent}});
    require_shape_if_given(op, "final_state", a.final_state, {batch, dim, state});
    require(!convolved || !a.initial_state.data(), op, "initial_state", "is given, but a convolution has no states");
    require(!convolved || !a.final_state.data(), op, "final_state", "is asked for, but a convolution has no states");
    require(!a.true_C.data() || a.bandlimit == std::numeric_limits<double>::infinity(), op, "bandlimit",
            "is given with true_C, but limits prepared maps");

    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint written[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint read[] = {named("u", a.u), named("delta", a.delta), named("A", a.A), named("B", a.B), named("P", a.P),
                                    named("C", a.C), named("true_C", a.true_C), named("D", a.D),
                                    same_elements(a.final_state, a.initial_state) ? named_footprint{"initial_state", {}}
                                                                                  : named("initial_state", a.initial_state)};
    require_disjoint(op, written, read);
}

}  // namespace ssmkit
