#pragma once

#include <cmath>
#include <complex>
#include <limits>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The convolution kernel of S4, a state space model whose matrix is diagonal plus low rank, from its natural parameters.
///
///     K_l = C̃ (I - Ā^L')^-1 Ā^l B̄               Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces",
///     K_state_l = C̃ (I - Ā^L')^-1 Ā^{l+1} s      arXiv:2111.00396, sections 3.2 and 3.3 and algorithm 1
///
/// with A = diag(Λ, Λ̄) - Σ_r P_r P_r*, Ā and B̄ its bilinear discretisation with step Δ rate and L' = round(prepared_length /
/// rate): at the roots of unity the kernel's transform is a few Cauchy sums and a system of `rank` equations. `state` counts
/// conjugate pairs, of which one is given. C is the prepared map C̃ = C (I - Ā^ℓ), ℓ = prepared_length, which s4_setup makes;
/// with it, at the step that it was made with, K_l = C Ā^l B̄.
///
/// Step sizes and rates are double whatever T is, and poles are computed in double. Models store them transformed: see
/// parameters.hpp; do that in double as well. Where Δ is tied over the state, delta has stride 0 there.
template <class T>
struct s4_kernel_args {
    view<const double, 2> delta{};                   ///< (dim, state)             step size Δ > 0, before `rate`
    view<const std::complex<double>, 2> A{};         ///< (copies, state)          Λ; Re Λ < 0. Channel h has copy h mod copies
    view<const std::complex<T>, 2> B{};              ///< (copies, state)          input map
    view<const std::complex<T>, 3> P{};              ///< (rank, copies, state)    low-rank part; rank may be 0
    view<const std::complex<T>, 3> C{};              ///< (channels, dim, state)   prepared output maps C̃
    index prepared_length = 0;                       ///<                          ℓ that C was prepared for; 0: length
    double rate = 1;                                 ///<                          multiplies delta: another sampling rate
    double bandlimit = std::numeric_limits<double>::infinity();  ///<              entries of C where delta |Im A| / 2π is at
                                                     ///<                          least half of it count as 0
    view<const std::complex<T>, 3> initial_state{};  ///< (batch, dim, state)      s; given if K_state is
    view<T, 3> K{};                                  ///< (channels, dim, length)  output; length at most L'
    view<T, 4> K_state{};                            ///< (batch, channels, dim, length)  output; optional
};

namespace detail {

/// L', the length that the kernel is computed at: halves are rounded to even.
inline index s4_transform_length(index prepared, double rate)
{
    return static_cast<index>(std::nearbyint(static_cast<double>(prepared) / rate));
}

template <class T>
index s4_transform_length(const s4_kernel_args<T>& a, index length)
{
    return s4_transform_length(a.prepared_length > 0 ? a.prepared_length : length, a.rate);
}

/// A rate near zero asks for a transform that no memory holds, and one whose length no index counts.
inline void require_s4_transform(const char* op, index prepared, double rate)
{
    require(rate > 0 && rate < 1e9, op, "rate", "is not positive");
    require(static_cast<double>(prepared) / rate <= 0x1p40, op, "rate", "makes of the prepared length more than 2^40");
}

/// What s4_kernel and its gradients ask of the parameters; the kernel has `length` elements.
template <class T>
void check_s4_parameters(const char* op, const s4_kernel_args<T>& a, index length)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis copies{"copies", a.A.extent(0)}, dim{"dim", a.C.extent(1)}, state{"state", a.C.extent(2)};
    require_shape(op, "C", a.C, {{"channels"}, {"dim"}, {"state"}});
    require_shape(op, "delta", a.delta, {dim, state});
    require_shape(op, "A", a.A, {{"copies"}, state});
    require_shape(op, "B", a.B, {copies, state});
    if (a.P.extent(0) != 0) require_shape(op, "P", a.P, {{"rank"}, copies, state});
    require(dim.extent == 0 || (copies.extent > 0 && dim.extent % copies.extent == 0), op, "A",
            "has copies that do not divide dim");
    require_shape_if_given(op, "initial_state", a.initial_state, {{"batch"}, dim, state});
    require(a.prepared_length >= 0, op, "prepared_length", "is negative");
    require_s4_transform(op, a.prepared_length > 0 ? a.prepared_length : length, a.rate);
    require(length <= s4_transform_length(a, length), op, "K", "has a length above round(prepared_length / rate)");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input. Other values are trusted.
template <class T>
void check(const s4_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4_kernel";
    const axis channels{"channels", a.C.extent(0)}, dim{"dim", a.C.extent(1)}, length{"length", a.K.extent(2)};
    require_shape(op, "K", a.K, {channels, dim, {"length"}});
    check_s4_parameters(op, a, length.extent);
    require(!a.K_state.data() || a.initial_state.data(), op, "initial_state", "is not given, but K_state is");
    require_shape_if_given(op, "K_state", a.K_state, {{"batch", a.initial_state.extent(0)}, channels, dim, length});
    require_distinct_elements(op, "K", a.K);
    require_distinct_elements(op, "K_state", a.K_state);
    const named_footprint outputs[] = {named("K", a.K), named("K_state", a.K_state)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("B", a.B), named("P", a.P), named("C", a.C),
                                      named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
