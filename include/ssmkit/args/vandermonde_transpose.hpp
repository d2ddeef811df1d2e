#pragma once

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit {

/// The transpose of vandermonde: sums over a sequence for every pole, as the states that an input leaves and the gradients of a
/// kernel need them.
///
///     sum_n = Σ_l u_l e^{l z_n},   weighted_n = Σ_l l u_l e^{l z_n}
///
/// A sum whose view is left empty is not written. Powers are those of vandermonde.
template <class T>
struct vandermonde_transpose_args {
    view<const std::complex<double>, 2> log_pole{};  ///< (dim, state)             z = log λ
    view<const T, 3> u{};                            ///< (channels, dim, length)  sequences
    view<std::complex<T>, 3> sum{};                  ///< (channels, dim, state)   output; optional
    view<std::complex<T>, 3> weighted{};             ///< (channels, dim, state)   output; optional
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const vandermonde_transpose_args<T>& a)
{
    using namespace detail;
    static_assert(kernel_element<T>);
    constexpr const char* op = "vandermonde_transpose";
    const axis dim{"dim", a.log_pole.extent(0)}, state{"state", a.log_pole.extent(1)}, channels{"channels", a.u.extent(0)};
    require_shape(op, "log_pole", a.log_pole, {{"dim"}, {"state"}});
    require_shape(op, "u", a.u, {{"channels"}, dim, {"length"}});
    require_shape_if_given(op, "sum", a.sum, {channels, dim, state});
    require_shape_if_given(op, "weighted", a.weighted, {channels, dim, state});
    require_distinct_elements(op, "sum", a.sum);
    require_distinct_elements(op, "weighted", a.weighted);
    const named_footprint outputs[] = {named("sum", a.sum), named("weighted", a.weighted)};
    const named_footprint inputs[] = {named("log_pole", a.log_pole), named("u", a.u)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
