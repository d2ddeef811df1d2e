#pragma once

#include <ssmkit/args/dss_kernel.hpp>

namespace ssmkit {

/// The gradients of dss_kernel; complex ones are ∂/∂Re + i ∂/∂Im. They are the derivatives of the forward map as it is, the shift
/// of growing powers and the regularisation by ε included. A gradient whose view is left empty is neither computed nor written.
template <class T>
struct dss_kernel_backward_args {
    dss_kernel_args<T> forward{};         ///<                          its inputs; K may be empty
    view<const T, 3> dK{};                ///< (channels, dim, length)  gradient of K
    view<double, 2> ddelta{};             ///< (dim, 2)                 outputs, here and below: each optional; stride 0 along
                                          ///<                          the second axis: the sum
    view<std::complex<double>, 1> dA{};   ///< (state)
    view<std::complex<T>, 3> dW{};        ///< (channels, dim, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const dss_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "dss_kernel_backward";
    const dss_kernel_args<T>& f = a.forward;
    check_dss_parameters(op, f);
    const axis channels{"channels", f.W.extent(0)}, dim{"dim", f.W.extent(1)}, state{"state", f.W.extent(2)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length"}});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim, {"2", 2}});
    require_shape_if_given(op, "dA", a.dA, {state});
    require_shape_if_given(op, "dW", a.dW, {channels, dim, state});
    require(a.ddelta.empty() || dim.extent <= 1 || a.ddelta.stride(0) != 0, op, "ddelta", "is written but has stride 0 along dim");
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dW", a.dW);
    const named_footprint outputs[] = {named("ddelta", a.ddelta), named("dA", a.dA), named("dW", a.dW)};
    const named_footprint inputs[] = {named("delta", f.delta), named("A", f.A), named("W", f.W), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
