#pragma once

#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

namespace detail {

template <class T>
inline constexpr bool kernel_element = std::is_same_v<T, float> || std::is_same_v<T, double>;

}  // namespace detail

/// Sums of powers: the convolution kernel of every diagonal state space model, whose discrete poles are λ = e^z.
///
///     K_l = Re Σ_n w_n e^{l z_n},   l = 0 ... length - 1        Gu et al., "On the Parameterization and Initialization of
///                                                               Diagonal State Space Models", arXiv:2206.11893, eq. 6
///
/// Logarithms of the poles are double whatever T is: an error of z is multiplied by l, and one float rounding of a phase of a
/// few radians a step is a wrong sign after a million. At l = 0 a power is 1 whatever z is; z = -infinity is a pole of 0.
template <class T>
struct vandermonde_args {
    view<const std::complex<double>, 2> log_pole{};  ///< (dim, state)             z = log λ
    view<const std::complex<T>, 3> w{};              ///< (channels, dim, state)   weights
    bool conjugate_pairs = false;                    ///<                          twice the sum: state counts pairs, one of each
    view<T, 3> K{};                                  ///< (channels, dim, length)  output
};

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const vandermonde_args<T>& a)
{
    using namespace detail;
    static_assert(kernel_element<T>);
    constexpr const char* op = "vandermonde";
    const axis dim{"dim", a.log_pole.extent(0)}, state{"state", a.log_pole.extent(1)}, channels{"channels", a.w.extent(0)};
    require_shape(op, "log_pole", a.log_pole, {{"dim"}, {"state"}});
    require_shape(op, "w", a.w, {{"channels"}, dim, state});
    require_shape(op, "K", a.K, {channels, dim, {"length"}});
    require_distinct_elements(op, "K", a.K);
    const named_footprint outputs[] = {named("K", a.K)};
    const named_footprint inputs[] = {named("log_pole", a.log_pole), named("w", a.w)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
