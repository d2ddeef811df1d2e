#pragma once

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// Normalisation of every token over its channels, or over each group of them, with a gate before or after it: what
/// stands between the scan and the output projection in Mamba-2 and Mamba-3. Without z, plain RMSNorm or LayerNorm.
///
///     y = norm(x silu(z)) weight + bias        the gate first, as in Mamba-2: Dao & Gu, arXiv:2405.21060, section 7.1
///     y = (norm(x) weight + bias) silu(z)      norm_before_gate
///
///     norm(x) = x / sqrt(mean(x²) + eps)                 Zhang & Sennrich, "Root Mean Square Layer Normalization",
///                                                        arXiv:1910.07467, eq. 4, with the eps that everybody adds
///     norm(x) = (x - mean(x)) / sqrt(var(x) + eps)       layer: Ba, Kiros & Hinton, arXiv:1607.06450, with the biased
///                                                        variance, mean((x - mean(x))²)
///
/// with the means over group_size consecutive channels; weight and bias are per channel.
///
/// T is how inputs and outputs are stored (float, double, bfloat16, float16); parameters and sums are in compute_t<T>.
/// The squares neither overflow nor vanish: where they would, the group is scaled by a power of 2 first, so that any
/// finite input, of 1e38 or 1e-37, is normalised like its multiples. An infinite input counts as the formula says: NaN
/// for itself, 0 for the finite channels of its group (NaN in the layer form). With eps = 0, a group of zeros is NaN.
///
/// Any stride is legal. Channel-contiguous data and time-contiguous data, (batch, dim, length) with its last two axes
/// transposed, are both fast; mixtures of the two and other strides cost a few times as much.
template <class T>
struct gated_norm_args {
    view<const T, 3> x{};                  ///< (batch, length, dim)  input
    view<const T, 3> z{};                  ///< (batch, length, dim)  gate; optional
    view<const compute_t<T>, 1> weight{};  ///< (dim)
    view<const compute_t<T>, 1> bias{};    ///< (dim)                 optional: zero
    compute_t<T> eps = compute_t<T>(1e-5); ///<                       added to the mean square; >= 0
    index group_size = 0;                  ///<                       a divisor of dim; 0 stands for dim
    bool layer = false;                    ///<                       LayerNorm, which subtracts the mean; else RMSNorm
    bool norm_before_gate = false;         ///<                       gate the normalised values instead of the input
    view<T, 3> y{};                        ///< (batch, length, dim)  output
};

namespace detail {

/// Checks of everything that the forward and the backward pass read.
template <class T>
void check_gated_norm_inputs(const char* op, const gated_norm_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)};
    require_shape(op, "x", a.x, {{"batch"}, {"length"}, {"dim"}});
    require_shape_if_given(op, "z", a.z, {batch, length, dim});
    require_shape(op, "weight", a.weight, {dim});
    require_shape_if_given(op, "bias", a.bias, {dim});
    require(a.eps >= compute_t<T>(0), op, "eps", "is not a number >= 0");
    require(a.group_size == 0 || (a.group_size > 0 && dim.extent % a.group_size == 0), op, "group_size",
            "does not divide dim");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted,
/// except for eps.
template <class T>
void check(const gated_norm_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "gated_norm";
    check_gated_norm_inputs(op, a);
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)};
    require_shape(op, "y", a.y, {batch, length, dim});
    const named_footprint outputs[] = {named("y", a.y)};
    const named_footprint inputs[] = {named("x", a.x), named("z", a.z), named("weight", a.weight),
                                      named("bias", a.bias)};
    require_distinct_elements(op, "y", a.y);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
