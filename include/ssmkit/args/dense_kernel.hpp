#pragma once

// The kernel of a state space model with a dense complex matrix, bilinear: what S4's structured forms are compared with. double
// inside.

#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

///     K_l = Re C Ā^l B̄,   K_state_l = Re C Ā^{l+1} s                Ā, B̄: bilinear with step Δ (arXiv:2111.00396, eq. 3)
///
/// over the full spectrum, so without a factor of 2.
template <class T>
struct dense_kernel_args {
    view<const double, 1> delta{};                   ///< (dim)                     step size Δ
    view<const std::complex<T>, 3> A{};              ///< (dim, state, state)
    view<const std::complex<T>, 2> B{};              ///< (dim, state)
    view<const std::complex<T>, 3> C{};              ///< (channels, dim, state)
    view<const std::complex<T>, 3> initial_state{};  ///< (batch, dim, state)       s; given if K_state is
    view<T, 3> K{};                                  ///< (channels, dim, length)   output
    view<T, 4> K_state{};                            ///< (batch, channels, dim, length)  output; optional
};

/// The gradients of dense_kernel; complex ones are ∂/∂Re + i ∂/∂Im: the adjoint recurrence ψ_l = Ā* ψ_{l+1} + Σ_c dK_cl
/// conj(C_c), and the derivatives of two linear solves. A gradient whose view is left empty is not written.
template <class T>
struct dense_kernel_backward_args {
    dense_kernel_args<T> forward{};              ///<                           K and K_state may be empty
    view<const T, 3> dK{};                       ///< (channels, dim, length)
    view<const T, 4> dK_state{};                 ///< (batch, channels, dim, length)  optional: zero
    view<double, 1> ddelta{};                    ///< (dim)                     outputs, here and below: each optional
    view<std::complex<T>, 3> dA{};               ///< (dim, state, state)
    view<std::complex<T>, 2> dB{};               ///< (dim, state)
    view<std::complex<T>, 3> dC{};               ///< (channels, dim, state)
    view<std::complex<T>, 3> dinitial_state{};   ///< (batch, dim, state)
};

namespace detail {

template <class T>
void check_dense_kernel_inputs(const char* op, const dense_kernel_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis dim{"dim", a.A.extent(0)}, state{"state", a.A.extent(1)};
    require_shape(op, "A", a.A, {{"dim"}, {"state"}, state});
    require_shape(op, "delta", a.delta, {dim});
    require_shape(op, "B", a.B, {dim, state});
    require_shape(op, "C", a.C, {{"channels"}, dim, state});
    require_shape_if_given(op, "initial_state", a.initial_state, {{"batch"}, dim, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const dense_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "dense_kernel";
    check_dense_kernel_inputs(op, a);
    const axis channels{"channels", a.C.extent(0)}, dim{"dim", a.A.extent(0)};
    require_shape(op, "K", a.K, {channels, dim, {"length"}});
    require(!a.K_state.data() || a.initial_state.data(), op, "initial_state", "is not given, but K_state is");
    require_shape_if_given(op, "K_state", a.K_state,
                           {{"batch", a.initial_state.extent(0)}, channels, dim, {"length", a.K.extent(2)}});
    require_distinct_elements(op, "K", a.K);
    require_distinct_elements(op, "K_state", a.K_state);
    const named_footprint outputs[] = {named("K", a.K), named("K_state", a.K_state)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("B", a.B), named("C", a.C),
                                      named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const dense_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "dense_kernel_backward";
    const dense_kernel_args<T>& f = a.forward;
    check_dense_kernel_inputs(op, f);
    const axis channels{"channels", f.C.extent(0)}, dim{"dim", f.A.extent(0)}, state{"state", f.A.extent(1)},
        batch{"batch", f.initial_state.extent(0)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length"}});
    require(!a.dK_state.data() || f.initial_state.data(), op, "initial_state", "is not given, but dK_state is");
    require_shape_if_given(op, "dK_state", a.dK_state, {batch, channels, dim, {"length", a.dK.extent(2)}});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim});
    require_shape_if_given(op, "dA", a.dA, {dim, state, state});
    require_shape_if_given(op, "dB", a.dB, {dim, state});
    require_shape_if_given(op, "dC", a.dC, {channels, dim, state});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("ddelta", a.ddelta), named("dA", a.dA), named("dB", a.dB), named("dC", a.dC),
                                       named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("delta", f.delta), named("A", f.A), named("B", f.B), named("C", f.C),
                                      named("initial_state", f.initial_state), named("dK", a.dK), named("dK_state", a.dK_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
