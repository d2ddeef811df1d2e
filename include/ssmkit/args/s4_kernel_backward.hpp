#pragma once

#include <ssmkit/args/s4_kernel.hpp>

namespace ssmkit {

/// The gradients of s4_kernel; complex ones are ∂/∂Re + i ∂/∂Im. At every node ω = e^{-2πij/L'}, with M = 2(1-ω)I - (1+ω)ΔA,
///
///     x = M^-1 ΔB,   y_c = M^-T C̃_c,   u = Σ_c dK̂_c conj(y_c)
///
/// and Σ over nodes of 2 dK̂_c conj(x) is the gradient of C̃_c, of 2Δu that of B, of 2 conj(1+ω) u x* that of ΔA: these two
/// vectors stay accurate where a node comes near a pole, while the derivatives of the Cauchy sums by themselves cancel. Columns of
/// initial states join B. Where delta and ddelta are tied over the state (stride 0), ddelta is the sum. A gradient whose view is
/// left empty is not written.
template <class T>
struct s4_kernel_backward_args {
    s4_kernel_args<T> forward{};                 ///<                          K and K_state may be empty
    view<const T, 3> dK{};                       ///< (channels, dim, length)  gradient of K
    view<const T, 4> dK_state{};                 ///< (batch, channels, dim, length)  gradient of K_state; optional: zero
    view<double, 2> ddelta{};                    ///< (dim, state)             outputs, here and below: each optional
    view<std::complex<double>, 2> dA{};          ///< (copies, state)          summed over the channels of a copy
    view<std::complex<T>, 2> dB{};               ///< (copies, state)          the same
    view<std::complex<T>, 3> dP{};               ///< (rank, copies, state)    the same
    view<std::complex<T>, 3> dC{};               ///< (channels, dim, state)
    view<std::complex<T>, 3> dinitial_state{};   ///< (batch, dim, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const s4_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4_kernel_backward";
    const s4_kernel_args<T>& f = a.forward;
    const axis channels{"channels", f.C.extent(0)}, dim{"dim", f.C.extent(1)}, state{"state", f.C.extent(2)};
    const axis copies{"copies", f.A.extent(0)}, length{"length", a.dK.extent(2)}, batch{"batch", f.initial_state.extent(0)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length"}});
    check_s4_parameters(op, f, length.extent);
    require(!a.dK_state.data() || f.initial_state.data(), op, "initial_state", "is not given, but dK_state is");
    require_shape_if_given(op, "dK_state", a.dK_state, {batch, channels, dim, length});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim, state});
    require_shape_if_given(op, "dA", a.dA, {copies, state});
    require_shape_if_given(op, "dB", a.dB, {copies, state});
    require_shape_if_given(op, "dP", a.dP, {{"rank", f.P.extent(0)}, copies, state});
    require_shape_if_given(op, "dC", a.dC, {channels, dim, state});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dP", a.dP);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    require(a.ddelta.empty() || a.ddelta.extent(0) <= 1 || a.ddelta.stride(0) != 0, op, "ddelta",
            "is written but has stride 0 along dim");
    const named_footprint outputs[] = {named("ddelta", a.ddelta), named("dA", a.dA), named("dB", a.dB), named("dP", a.dP),
                                       named("dC", a.dC), named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("delta", f.delta), named("A", f.A), named("B", f.B), named("P", f.P), named("C", f.C),
                                      named("initial_state", f.initial_state), named("dK", a.dK), named("dK_state", a.dK_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
