#pragma once

#include <ssmkit/args/cauchy.hpp>

namespace ssmkit {

/// The gradients of cauchy; complex ones are ∂/∂Re + i ∂/∂Im, so that the factors come in conjugated. With g = dout,
///
///     dv_n = Σ_l g_l conj(1 / (z_l - w_n))
///     dw_n = Σ_terms conj(v_n) Σ_l g_l conj(1 / (z_l - w_n)²)
///     dz_l = -Σ_terms,dim,n g_l conj(v_n / (z_l - w_n)²)
///
/// and with conjugate_pairs what the second of each pair adds: its own terms for dz, their conjugates for dv and dw. A gradient
/// whose view is left empty is neither computed nor written.
template <class T>
struct cauchy_backward_args {
    cauchy_args<T> forward{};                  ///<                       out may be empty
    view<const std::complex<T>, 3> dout{};     ///< (terms, dim, length)  gradient of out
    view<std::complex<T>, 3> dv{};             ///< (terms, dim, state)   outputs, here and below: each optional
    view<std::complex<T>, 1> dz{};             ///< (length)
    view<std::complex<T>, 2> dw{};             ///< (dim, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const cauchy_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "cauchy_backward";
    const cauchy_args<T>& f = a.forward;
    check_cauchy_inputs(op, f);
    const axis terms{"terms", f.v.extent(0)}, dim{"dim", f.v.extent(1)}, state{"state", f.v.extent(2)},
        length{"length", f.z.extent(0)};
    require_shape(op, "dout", a.dout, {terms, dim, length});
    require_shape_if_given(op, "dv", a.dv, {terms, dim, state});
    require_shape_if_given(op, "dz", a.dz, {length});
    require_shape_if_given(op, "dw", a.dw, {dim, state});
    require_distinct_elements(op, "dv", a.dv);
    require_distinct_elements(op, "dz", a.dz);
    require_distinct_elements(op, "dw", a.dw);
    const named_footprint outputs[] = {named("dv", a.dv), named("dz", a.dz), named("dw", a.dw)};
    const named_footprint inputs[] = {named("v", f.v), named("z", f.z), named("w", f.w), named("dout", a.dout)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
