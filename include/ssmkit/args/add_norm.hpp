#pragma once

#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// Adds a block's output to the running residual and normalises the sum: what stands between two blocks of a model.
///
///     residual_out = x + residual
///     y            = norm(residual_out) weight + bias        norm as in args/gated_norm.hpp, over all channels
///
/// T is how x and y are stored, Residual how the residual is: by default compute_t<T>, so that a model in bfloat16
/// keeps its residual in float; Residual = T is the other usual choice. Parameters and sums are in compute_t<T>. What
/// is normalised is the sum as residual_out stores it, whether or not residual_out is asked for.
///
/// residual_out may be the very same view as residual, which is then updated in place.
///
/// Accuracy, huge and tiny values, strides: as in gated_norm.
template <class T, class Residual = compute_t<T>>
struct add_norm_args {
    view<const T, 3> x{};                  ///< (batch, length, dim)  input
    view<const Residual, 3> residual{};    ///< (batch, length, dim)  optional: zero
    view<const compute_t<T>, 1> weight{};  ///< (dim)
    view<const compute_t<T>, 1> bias{};    ///< (dim)                 optional: zero
    compute_t<T> eps = compute_t<T>(1e-5); ///<                       added to the mean square; >= 0
    bool layer = false;                    ///<                       LayerNorm, which subtracts the mean; else RMSNorm
    view<T, 3> y{};                        ///< (batch, length, dim)  output
    view<Residual, 3> residual_out{};      ///< (batch, length, dim)  the sum; optional
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output,
/// except for residual_out = residual. Values are trusted, except for eps.
template <class T, class Residual>
void check(const add_norm_args<T, Residual>& a)
{
    using namespace detail;
    static_assert(storage_element<T> && storage_element<Residual>);
    static_assert(std::is_same_v<compute_t<Residual>, compute_t<T>>, "only doubles go with doubles");
    constexpr const char* op = "add_norm";
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)};
    require_shape(op, "x", a.x, {{"batch"}, {"length"}, {"dim"}});
    require_shape_if_given(op, "residual", a.residual, {batch, length, dim});
    require_shape(op, "weight", a.weight, {dim});
    require_shape_if_given(op, "bias", a.bias, {dim});
    require(a.eps >= compute_t<T>(0), op, "eps", "is not a number >= 0");
    require_shape(op, "y", a.y, {batch, length, dim});
    require_shape_if_given(op, "residual_out", a.residual_out, {batch, length, dim});
    const bool in_place =
        a.residual.data() == a.residual_out.data() && a.residual.strides() == a.residual_out.strides();
    const view<const Residual, 3> residual = in_place ? view<const Residual, 3>{} : a.residual;
    const named_footprint outputs[] = {named("y", a.y), named("residual_out", a.residual_out)};
    const named_footprint inputs[] = {named("x", a.x), named("residual", residual), named("weight", a.weight),
                                      named("bias", a.bias)};
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "residual_out", a.residual_out);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
