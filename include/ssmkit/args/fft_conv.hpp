#pragma once

#include <algorithm>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The long convolution of S4, H3, Hyena, SGConv and their relatives: every channel of the input with a kernel as long as the
/// sequence, or of any other length.
///
///     v = input_gate ∘ u
///     p_t = D v_t + Σ_m k_m v_{t-m} + Σ_m k_reverse_m v_{t+m+s}       m = 0 ... width - 1; v is zero outside the sequence
///     y = output_gate ∘ p                                              Gu et al., arXiv:2111.00396, eq. 5; Fu et al.,
///                                                                      "Hungry Hungry Hippos", arXiv:2212.14052, section 3
///
/// The second kernel looks into the future: from the next sample on (s = 1; bidirectional S4, DSS, SGConv), or from the current
/// one (s = 0, reverse_includes_current; Mega and H3's k_rev). The gates are those of H3 and Hyena. The convolution is linear,
/// never circular, whatever the lengths.
///
/// T is how u, the gates and y are stored (float, double, bfloat16, float16); kernels and sums are in compute_t<T>. Any stride is
/// legal: (batch, length, dim) is a view with its last two axes transposed, and y's channels may be the inner or the outer part
/// of an axis (see flattened). A NaN or an infinity reaches what depends on it and, where rows are transformed, any other element
/// of its row of (batch, dim), but no other row.
template <class T>
struct fft_conv_args {
    view<const T, 3> u{};                      ///< (batch, dim, length)            input
    view<const compute_t<T>, 3> k{};           ///< (channels, dim, width)          kernel; the first tap meets the current sample
    view<const compute_t<T>, 3> k_reverse{};   ///< (channels, dim, reverse width)  optional: taps for the samples to come
    bool reverse_includes_current = false;     ///<                                 its first tap meets the current sample
    view<const compute_t<T>, 2> D{};           ///< (channels, dim)                 skip; optional: zero
    view<const T, 3> input_gate{};             ///< (batch, dim, length)            optional
    view<const T, 3> output_gate{};            ///< (batch, dim, length)            optional; the same for all channels
    view<T, 4> y{};                            ///< (batch, channels, dim, length)  output
};

/// (batch, channels * dim, length) as (batch, channels, dim, length): index c * dim + h, or h * channels + c if swapped.
template <class T>
view<T, 4> flattened(const view<T, 3>& y, index channels, bool swapped = false)
{
    const index dim = channels > 0 ? y.extent(1) / channels : 0, step = y.stride(1);
    return {y.data(), {y.extent(0), channels, dim, y.extent(2)},
            {y.stride(0), swapped ? step : step * dim, swapped ? step * channels : step, y.stride(2)}};
}

namespace detail {

/// flattened where dim is known, which no channels at all do not tell.
template <class T>
view<T, 4> split_channels(const view<T, 3>& y, index channels, index dim)
{
    const index step = y.stride(1);
    return {y.data(), {y.extent(0), channels, dim, y.extent(2)}, {y.stride(0), step * dim, step, y.stride(2)}};
}

/// Checks of everything that the forward and the backward pass read.
template <class T>
void check_fft_conv_inputs(const char* op, const fft_conv_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.u.extent(0)}, dim{"dim", a.u.extent(1)}, length{"length", a.u.extent(2)};
    const axis channels{"channels", a.k.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, {"dim"}, {"length"}});
    require_shape(op, "k", a.k, {{"channels"}, dim, {"width"}});
    require_shape_if_given(op, "k_reverse", a.k_reverse, {channels, dim, {"width"}});
    require_shape_if_given(op, "D", a.D, {channels, dim});
    require_shape_if_given(op, "input_gate", a.input_gate, {batch, dim, length});
    require_shape_if_given(op, "output_gate", a.output_gate, {batch, dim, length});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const fft_conv_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "fft_conv";
    check_fft_conv_inputs(op, a);
    require_shape(op, "y", a.y,
                  {{"batch", a.u.extent(0)}, {"channels", a.k.extent(0)}, {"dim", a.u.extent(1)}, {"length", a.u.extent(2)}});
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("y", a.y)};
    const named_footprint inputs[] = {named("u", a.u), named("k", a.k), named("k_reverse", a.k_reverse), named("D", a.D),
                                      named("input_gate", a.input_gate), named("output_gate", a.output_gate)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
