#pragma once

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit {

/// The gradients of vandermonde; complex ones are ∂/∂Re + i ∂/∂Im, so that the powers come in conjugated.
///
///     dw_n = f Σ_l dK_l conj(e^{l z_n}),   dz_n = f Σ_channels conj(w_n) Σ_l l dK_l conj(e^{l z_n})        f = 1, 2 for pairs
///
/// A gradient whose view is left empty is neither computed nor written.
template <class T>
struct vandermonde_backward_args {
    vandermonde_args<T> forward{};              ///<                          log_pole, w and conjugate_pairs; K may be empty
    view<const T, 3> dK{};                      ///< (channels, dim, length)  gradient of K
    view<std::complex<double>, 2> dlog_pole{};  ///< (dim, state)             outputs, here and below: each optional
    view<std::complex<T>, 3> dw{};              ///< (channels, dim, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const vandermonde_backward_args<T>& a)
{
    using namespace detail;
    static_assert(kernel_element<T>);
    constexpr const char* op = "vandermonde_backward";
    const vandermonde_args<T>& f = a.forward;
    const axis dim{"dim", f.log_pole.extent(0)}, state{"state", f.log_pole.extent(1)}, channels{"channels", a.dK.extent(0)};
    require_shape(op, "log_pole", f.log_pole, {{"dim"}, {"state"}});
    require_shape(op, "dK", a.dK, {{"channels"}, dim, {"length"}});
    require_shape(op, "w", f.w, {channels, dim, state});
    require_shape_if_given(op, "dlog_pole", a.dlog_pole, {dim, state});
    require_shape_if_given(op, "dw", a.dw, {channels, dim, state});
    require_distinct_elements(op, "dlog_pole", a.dlog_pole);
    require_distinct_elements(op, "dw", a.dw);
    const named_footprint outputs[] = {named("dlog_pole", a.dlog_pole), named("dw", a.dw)};
    const named_footprint inputs[] = {named("log_pole", f.log_pole), named("w", f.w), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
