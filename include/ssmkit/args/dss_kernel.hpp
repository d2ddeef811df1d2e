#pragma once

#include <complex>

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit {

/// What a pole's powers are multiplied with; z is its step.
enum class dss_scaling {
    softmax,      ///< (e^z - 1) conj(x) / (|x|² + ε), x = A (e^{z length} - 1): e^{zl} / (A Σ_j e^{zj}), also where Re A > 0
    exponential,  ///< (e^z - 1) conj(A) / max(|A|², ε)
    none          ///< 1
};

/// The convolution kernel of DSS, diagonal state spaces whose poles are shared by all channels.
///
///     K_l = Re Σ_n W_n g_n e^{l z_n},   z = Δ_re Re A + i Δ_im Im A        Gupta, "Diagonal State Spaces are as Effective as
///                                                                         Structured State Spaces", arXiv:2203.14343
///
/// With softmax, poles that grow (Re A > 0) have e^{(l - length + 1) z} in place of e^{lz} and the gain of -z, as if divided by
/// their largest power: nothing overflows. Step sizes and A are double whatever T is, and poles are computed in double. Models
/// store e.g. log Δ and A = -e^{log_neg_re} + i im, or clip Re A at 1e-4: the caller's to do, in double as well.
template <class T>
struct dss_kernel_args {
    view<const double, 2> delta{};             ///< (dim, 2)                 step of the real and of the imaginary part of A;
                                               ///<                          stride 0 along the second axis: one for both
    view<const std::complex<double>, 1> A{};   ///< (state)                  rates; no conjugate partners
    view<const std::complex<T>, 3> W{};        ///< (channels, dim, state)   weights
    dss_scaling scaling = dss_scaling::softmax;
    double epsilon = 1e-7;                     ///<                          ε
    view<T, 3> K{};                            ///< (channels, dim, length)  output
};

namespace detail {

template <class T>
void check_dss_parameters(const char* op, const dss_kernel_args<T>& a)
{
    static_assert(kernel_element<T>);
    const axis dim{"dim", a.W.extent(1)}, state{"state", a.W.extent(2)};
    require_shape(op, "W", a.W, {{"channels"}, {"dim"}, {"state"}});
    require_shape(op, "delta", a.delta, {dim, {"2", 2}});
    require_shape(op, "A", a.A, {state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const dss_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "dss_kernel";
    check_dss_parameters(op, a);
    require_shape(op, "K", a.K, {{"channels", a.W.extent(0)}, {"dim", a.W.extent(1)}, {"length"}});
    require_distinct_elements(op, "K", a.K);
    const named_footprint outputs[] = {named("K", a.K)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("W", a.W)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
