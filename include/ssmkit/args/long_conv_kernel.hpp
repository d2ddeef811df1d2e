#pragma once

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// How the taps of a long convolution are smoothed before they are squashed.
enum class long_conv_smoothing {
    none,
    time,      ///< the mean of `window` neighbouring taps, zeros beyond the ends
    frequency  ///< neighbouring bins of the spectrum, weighted by exp(-distance² / 2), zeros beyond its ends
};

/// The regularised kernel of simple long convolutions: smoothed, then squashed, which leaves small taps exactly zero.
///
///     K = sign(k) max(|k| - lambda, 0),   k = smooth(kernel)          Fu et al., "Simple hardware-efficient long convolutions
///                                                                     for sequence modeling", arXiv:2302.06646, section 3.2
///
/// Smoothing in frequency is irfft(smooth(rfft(kernel))), and irfft's length is even: an odd length loses its last tap. A NaN
/// stays what it is, and reaches the window around it, or, by way of the frequencies, its row.
template <class T>
struct long_conv_kernel_args {
    view<const T, 3> kernel{};  ///< (channels, dim, length)
    T lambda = 0;               ///<                          >= 0
    long_conv_smoothing smoothing = long_conv_smoothing::none;
    index window = 1;           ///<                          odd
    view<T, 3> K{};             ///< (channels, dim, length)  output; length / 2 * 2 if smoothed in frequency
};

/// The gradient: dkernel = smooth'(dK where |k| > lambda, else 0).
template <class T>
struct long_conv_kernel_backward_args {
    long_conv_kernel_args<T> forward{};  ///<                          K may be left empty
    view<const T, 3> dK{};               ///< as K
    view<T, 3> dkernel{};                ///< (channels, dim, length)  output
};

/// The envelope that multiplies the random numbers a kernel begins with (0.02 times normal ones): every channel decays to
/// another extent, exp(-(l / length) floor(dim / 2)^(h / dim)).
template <class T>
struct double_exponential_args {
    view<T, 3> envelope{};  ///< (channels, dim, length)  output
};

namespace detail {

template <class T>
void check_long_conv_inputs(const char* op, const long_conv_kernel_args<T>& a)
{
    require_shape(op, "kernel", a.kernel, {{"channels"}, {"dim"}, {"length"}});
    require(!(a.lambda < T(0)), op, "lambda", "is negative");
    require(a.smoothing == long_conv_smoothing::none || (a.window >= 1 && a.window % 2 == 1), op, "window", "is not an odd number");
}

/// The shape of K: its last axis.
template <class T>
index long_conv_length(const long_conv_kernel_args<T>& a)
{
    const index length = a.kernel.extent(2);
    return a.smoothing == long_conv_smoothing::frequency ? length / 2 * 2 : length;
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const long_conv_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "long_conv_kernel";
    check_long_conv_inputs(op, a);
    require_shape(op, "K", a.K, {{"channels", a.kernel.extent(0)}, {"dim", a.kernel.extent(1)}, {"length", long_conv_length(a)}});
    require_distinct_elements(op, "K", a.K);
    const named_footprint outputs[] = {named("K", a.K)}, inputs[] = {named("kernel", a.kernel)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const long_conv_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "long_conv_kernel_backward";
    const long_conv_kernel_args<T>& f = a.forward;
    check_long_conv_inputs(op, f);
    const axis channels{"channels", f.kernel.extent(0)}, dim{"dim", f.kernel.extent(1)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length", long_conv_length(f)}});
    require_shape(op, "dkernel", a.dkernel, {channels, dim, {"length", f.kernel.extent(2)}});
    require_distinct_elements(op, "dkernel", a.dkernel);
    const named_footprint outputs[] = {named("dkernel", a.dkernel)}, inputs[] = {named("kernel", f.kernel), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const double_exponential_args<T>& a)
{
    detail::require_shape("double_exponential", "envelope", a.envelope, {{"channels"}, {"dim"}, {"length"}});
    detail::require_distinct_elements("double_exponential", "envelope", a.envelope);
}

}  // namespace ssmkit
