#pragma once

#include <ssmkit/args/gated_norm.hpp>

namespace ssmkit {

/// The gradients of gated_norm. With v what is normalised (x, or x silu(z) if the gate comes first), r = 1/sqrt(.) of
/// the forward pass and n = r v, or r (v - mean(v)) in the layer form:
///
///     d        = dy silu(z)  or  dy                               dy where the gate comes first or there is none
///     dweight  = Σ_{batch, t} d n,  dbias = Σ_{batch, t} d
///     w        = d weight
///     dv       = r (w - n mean(n w))                              and r (w - n mean(n w) - mean(w)) in the layer form
///     dx       = dv,            dz = dy (n weight + bias) silu'(z)       norm_before_gate
///     dx       = dv silu(z),    dz = dv x silu'(z)                       otherwise
///
/// (Differentiated by hand from the equations in args/gated_norm.hpp.) r, n and the gate are computed again from the
/// inputs; nothing is kept from the forward pass.
///
/// A gradient whose view is left empty is neither computed nor written; one that is given is overwritten, not added to.
template <class T>
struct gated_norm_backward_args {
    gated_norm_args<T> forward{};              ///<                       its inputs; y is not used, may be left empty
    view<const T, 3> dy{};                     ///< (batch, length, dim)
    view<T, 3> dx{};                           ///< (batch, length, dim)  outputs, here and below: each optional
    view<T, 3> dz{};                           ///< (batch, length, dim)  only where there is a z
    view<compute_t<T>, 1> dweight{}, dbias{};  ///< (dim)                 a bias that is not given counts as zeros
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
/// Values are trusted, except for eps.
template <class T>
void check(const gated_norm_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "gated_norm_backward";
    const gated_norm_args<T>& f = a.forward;
    check_gated_norm_inputs(op, f);
    const axis batch{"batch", f.x.extent(0)}, length{"length", f.x.extent(1)}, dim{"dim", f.x.extent(2)};
    require_shape(op, "dy", a.dy, {batch, length, dim});
    require_shape_if_given(op, "dx", a.dx, {batch, length, dim});
    require_shape_if_given(op, "dz", a.dz, {batch, length, dim});
    require(a.dz.data() == nullptr || f.z.data() != nullptr, op, "dz", "is asked for without a z");
    require_shape_if_given(op, "dweight", a.dweight, {dim});
    require_shape_if_given(op, "dbias", a.dbias, {dim});
    const named_footprint outputs[] = {named("dx", a.dx), named("dz", a.dz), named("dweight", a.dweight),
                                       named("dbias", a.dbias)};
    const named_footprint inputs[] = {named("x", f.x), named("z", f.z), named("weight", f.weight),
                                      named("bias", f.bias), named("dy", a.dy)};
    require_distinct_elements(op, "dx", a.dx);
    require_distinct_elements(op, "dz", a.dz);
    require_distinct_elements(op, "dweight", a.dweight);
    require_distinct_elements(op, "dbias", a.dbias);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
