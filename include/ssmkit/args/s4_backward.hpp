#pragma once

#include <ssmkit/args/s4.hpp>

namespace ssmkit {

/// The gradients of s4 as a convolution y = K * u + D u, without states: those of fft_conv, and through the gradient of the kernel,
/// dK_m = Σ_b Σ_t dy_t u_{t-m}, those of s4_kernel, where their equations are. dC is the gradient of the prepared map C̃, which is
/// what S4 trains. Where delta and ddelta are tied over the state (stride 0), ddelta is the sum.
///
/// Neither the forward pass's output nor its form is looked at. A gradient whose view is left empty is not written; one that is
/// given is overwritten, not added to.
template <class T>
struct s4_backward_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    s4_args<T> forward{};                    ///<                                  with C; y may be empty
    view<const T, 3> dy{};                   ///< (batch, length, channels · dim)  gradient of y
    view<T, 3> du{};                         ///< (batch, length, dim)             outputs, here and below: each optional
    view<double, 2> ddelta{};                ///< (dim, state)
    view<std::complex<double>, 2> dA{};      ///< (copies, state)                  summed over the channels of a copy
    view<complex, 2> dB{};                   ///< (copies, state)                  the same
    view<complex, 3> dP{};                   ///< (rank, copies, state)            the same
    view<complex, 3> dC{};                   ///< (channels, dim, state)
    view<real, 2> dD{};                      ///< (channels, dim)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const s4_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4_backward";
    const s4_args<T>& f = a.forward;
    check_s4_inputs(op, f, true);
    require(!f.initial_state.data() && !f.final_state.data(), op, "forward", "has states, which the convolution has not");
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, dim{"dim", f.u.extent(2)};
    const axis copies{"copies", f.A.extent(0)}, state{"state", f.A.extent(1)}, channels{"channels", f.C.extent(0)};
    require_shape(op, "dy", a.dy, {batch, length, {"channels * dim", channels.extent * dim.extent}});
    require_shape_if_given(op, "du", a.du, {batch, length, dim});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim, state});
    require_shape_if_given(op, "dA", a.dA, {copies, state});
    require_shape_if_given(op, "dB", a.dB, {copies, state});
    require_shape_if_given(op, "dP", a.dP, {{"rank", f.P.extent(0)}, copies, state});
    require_shape_if_given(op, "dC", a.dC, {channels, dim, state});
    require_shape_if_given(op, "dD", a.dD, {channels, dim});
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dP", a.dP);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dD", a.dD);
    require(a.ddelta.empty() || a.ddelta.extent(0) <= 1 || a.ddelta.stride(0) != 0, op, "ddelta",
            "is written but has stride 0 along dim");
    const named_footprint outputs[] = {named("du", a.du), named("ddelta", a.ddelta), named("dA", a.dA), named("dB", a.dB),
                                       named("dP", a.dP), named("dC", a.dC),         named("dD", a.dD)};
    const named_footprint inputs[] = {named("u", f.u), named("delta", f.delta), named("A", f.A), named("B", f.B),
                                      named("P", f.P), named("C", f.C),         named("D", f.D), named("dy", a.dy)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
