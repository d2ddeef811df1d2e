#pragma once

#include <ssmkit/args/add_norm.hpp>

namespace ssmkit {

/// The gradients of add_norm. With n the normalised residual_out and r = 1/sqrt(.) of the forward pass:
///
///     dweight    = Σ_{batch, t} dy n,  dbias = Σ_{batch, t} dy
///     w          = dy weight
///     g          = r (w - n mean(n w)) + dresidual_out        r (w - n mean(n w) - mean(w)) + ... in the layer form
///     dx         = dresidual = g                              rounded to T and to Residual
///
/// (Differentiated by hand from the equations in args/add_norm.hpp.) r and n are computed again from residual_out, the
/// one thing to keep from the forward pass. Where that had no residual and was not asked for residual_out, x is the
/// same thing, with Residual = T.
///
/// A gradient whose view is left empty is neither computed nor written; one that is given is overwritten, not added to.
template <class T, class Residual = compute_t<T>>
struct add_norm_backward_args {
    view<const Residual, 3> residual_out{};    ///< (batch, length, dim)  of the forward pass: an input here
    view<const compute_t<T>, 1> weight{};      ///< (dim)
    compute_t<T> eps = compute_t<T>(1e-5);     ///<                       as in the forward pass
    bool layer = false;                        ///<                       as in the forward pass
    view<const T, 3> dy{};                     ///< (batch, length, dim)
    view<const Residual, 3> dresidual_out{};   ///< (batch, length, dim)  optional: zero
    view<T, 3> dx{};                           ///< (batch, length, dim)  outputs, here and below: each optional
    view<Residual, 3> dresidual{};             ///< (batch, length, dim)
    view<compute_t<T>, 1> dweight{}, dbias{};  ///< (dim)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
/// Values are trusted, except for eps.
template <class T, class Residual>
void check(const add_norm_backward_args<T, Residual>& a)
{
    using namespace detail;
    static_assert(storage_element<T> && storage_element<Residual>);
    static_assert(std::is_same_v<compute_t<Residual>, compute_t<T>>, "only doubles go with doubles");
    constexpr const char* op = "add_norm_backward";
    const view<const Residual, 3>& sum = a.residual_out;
    const axis batch{"batch", sum.extent(0)}, length{"length", sum.extent(1)}, dim{"dim", sum.extent(2)};
    require_shape(op, "residual_out", sum, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "weight", a.weight, {dim});
    require(a.eps >= compute_t<T>(0), op, "eps", "is not a number >= 0");
    require_shape(op, "dy", a.dy, {batch, length, dim});
    require_shape_if_given(op, "dresidual_out", a.dresidual_out, {batch, length, dim});
    require_shape_if_given(op, "dx", a.dx, {batch, length, dim});
    require_shape_if_given(op, "dresidual", a.dresidual, {batch, length, dim});
    require_shape_if_given(op, "dweight", a.dweight, {dim});
    require_shape_if_given(op, "dbias", a.dbias, {dim});
    const named_footprint outputs[] = {named("dx", a.dx), named("dresidual", a.dresidual), named("dweight", a.dweight),
                                       named("dbias", a.dbias)};
    const named_footprint inputs[] = {named("residual_out", sum), named("weight", a.weight), named("dy", a.dy),
                                      named("dresidual_out", a.dresidual_out)};
    require_distinct_elements(op, "dx", a.dx);
    require_distinct_elements(op, "dresidual", a.dresidual);
    require_distinct_elements(op, "dweight", a.dweight);
    require_distinct_elements(op, "dbias", a.dbias);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
