#pragma once

#include <ssmkit/args/s4d_kernel.hpp>

namespace ssmkit {

/// The recurrence of S4D from its natural parameters: what s4d_step is prepared with, once.
///
///     pole = λ,   input = B β       λ and β as in s4d_discretization, zoh or bilinear
template <class T>
struct s4d_discretize_args {
    view<const double, 2> delta{};                  ///< (dim, state)     step size Δ > 0, before `rate`
    view<const std::complex<double>, 2> A{};        ///< (copies, state)  rate; channel h has copy h mod copies
    view<const std::complex<T>, 2> B{};             ///< (copies, state)  input map
    s4d_discretization method = s4d_discretization::zoh;
    double rate = 1;                                ///<                  multiplies delta: another sampling rate
    view<std::complex<T>, 2> pole{};                ///< (dim, state)     output
    view<std::complex<T>, 2> input{};               ///< (dim, state)     output
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input. Values are trusted.
template <class T>
void check(const s4d_discretize_args<T>& a)
{
    using namespace detail;
    static_assert(kernel_element<T>);
    constexpr const char* op = "s4d_discretize";
    const axis dim{"dim", a.delta.extent(0)}, state{"state", a.delta.extent(1)}, copies{"copies", a.A.extent(0)};
    require_shape(op, "delta", a.delta, {{"dim"}, {"state"}});
    require_shape(op, "A", a.A, {{"copies"}, state});
    require_shape(op, "B", a.B, {copies, state});
    require(dim.extent == 0 || (copies.extent > 0 && dim.extent % copies.extent == 0), op, "A",
            "has copies that do not divide dim");
    require(a.method != s4d_discretization::dss, op, "method", "is dss, which has no recurrence");
    require_shape(op, "pole", a.pole, {dim, state});
    require_shape(op, "input", a.input, {dim, state});
    require_distinct_elements(op, "pole", a.pole);
    require_distinct_elements(op, "input", a.input);
    const named_footprint outputs[] = {named("pole", a.pole), named("input", a.input)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("B", a.B)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
