#pragma once

#include <ssmkit/args/s4d_kernel.hpp>

namespace ssmkit {

/// The gradients of s4d_kernel; complex ones are ∂/∂Re + i ∂/∂Im.
///
///     g(w_c) = f Σ_l dK_cl conj(λ)^l           w_c = C_c B β        dC_c = g(w_c) conj(B β),   g(β) = Σ_c g(w_c) conj(C_c B)
///     g(λ) = f Σ_c conj(w_c) Σ_l l dK_cl conj(λ)^{l-1}              dB = Σ_c g(w_c) conj(C_c β)
///
/// and from λ and β to A and Δ by the derivatives of the discretisation (discretize.hpp). dA and dB are sums over the channels of
/// a copy; a ddelta with stride 0 along the state is the sum over it. dK_state adds the same for weights C λ s. Of dss, these are
/// the derivatives of the forward map as it is, the shift of growing powers included. A gradient whose view is left empty is
/// neither computed nor written.
template <class T>
struct s4d_kernel_backward_args {
    s4d_kernel_args<T> forward{};                   ///<                          its inputs; K and K_state may be empty
    view<const T, 3> dK{};                          ///< (channels, dim, length)  gradient of K
    view<const T, 4> dK_state{};                    ///< (batch, channels, dim, length)  gradient of K_state; optional: zero
    view<double, 2> ddelta{};                       ///< (dim, state)             outputs, here and below: each optional
    view<std::complex<double>, 2> dA{};             ///< (copies, state)
    view<std::complex<T>, 2> dB{};                  ///< (copies, state)
    view<std::complex<T>, 3> dC{};                  ///< (channels, dim, state)
    view<std::complex<T>, 3> dinitial_state{};      ///< (batch, dim, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const s4d_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4d_kernel_backward";
    const s4d_kernel_args<T>& f = a.forward;
    check_s4d_parameters(op, f);
    const axis channels{"channels", f.C.extent(0)}, dim{"dim", f.C.extent(1)}, state{"state", f.C.extent(2)};
    const axis copies{"copies", f.A.extent(0)}, batch{"batch", f.initial_state.extent(0)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length"}});
    require_shape_if_given(op, "dK_state", a.dK_state, {batch, channels, dim, {"length", a.dK.extent(2)}});
    require(!a.dK_state.data() || f.initial_state.data(), op, "initial_state", "is not given, but dK_state is");
    require_shape_if_given(op, "ddelta", a.ddelta, {dim, state});
    require_shape_if_given(op, "dA", a.dA, {copies, state});
    require_shape_if_given(op, "dB", a.dB, {copies, state});
    require_shape_if_given(op, "dC", a.dC, {channels, dim, state});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});
    require(a.ddelta.empty() || a.ddelta.extent(0) <= 1 || a.ddelta.stride(0) != 0, op, "ddelta",
            "is written but has stride 0 along dim");
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
