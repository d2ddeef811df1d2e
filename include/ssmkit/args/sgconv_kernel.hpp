#pragma once

#include <algorithm>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// How SGConv's sub-kernels make one.
enum class sgconv_join {
    concatenate,  ///< one after the other, number i stretched by 2^(max(0, i - 1) + init_scale)
    sum,          ///< all from the first sample on, number i stretched by 2^(i + init_scale)
};

/// The kernel of SGConv: sub-kernels w_i of the same few taps, each stretched over its scale, the finer the more it counts.
///
///     k = join_i μ^(scales - 1 - i) stretch(w_i)                      Li et al., "What makes convolutional models great on long
///     k_l ← k_l (l + 1)^-decay              if there is a decay       sequence modeling?", arXiv:2210.09298, section 3
///     K = k / norm,  cropped or filled with zeros to length
///
/// Stretching by s is linear interpolation between the middles of s samples each, or repetition (`nearest`). The norm is that of
/// the whole k, before any cropping; the authors take it once, when the model is first evaluated, and keep it: pass what an
/// earlier call wrote to new_norm as norm. Gradients take it as a constant.
template <class T>
struct sgconv_kernel_args {
    view<const T, 4> w{};           ///< (scales, channels, dim, taps)
    view<const T, 1> multiplier{};  ///< (dim)            μ; optional: 1
    view<const T, 1> decay{};       ///< (dim)            optional: none
    view<const T, 2> norm{};        ///< (channels, dim)  optional: computed
    sgconv_join join = sgconv_join::concatenate;
    bool nearest = false;
    index init_scale = 0;           ///<                  >= 0
    view<T, 3> K{};                 ///< (channels, dim, length)  output
    view<T, 2> new_norm{};          ///< (channels, dim)          output, optional: the norm that was used
};

/// The gradients of K, the norm kept constant. One whose view is left empty is not computed.
template <class T>
struct sgconv_kernel_backward_args {
    sgconv_kernel_args<T> forward{};  ///<                               K and new_norm may be left empty
    view<const T, 3> dK{};            ///< (channels, dim, length)
    view<T, 4> dw{};                  ///< (scales, channels, dim, taps)  outputs, each optional
    view<T, 1> ddecay{};              ///< (dim)
};

namespace detail {

/// How many samples sub-kernel i is stretched to, by tap, and where it begins.
struct sgconv_scale {
    index stretch, first;

    template <class T>
    static sgconv_scale of(const sgconv_kernel_args<T>& a, index i)
    {
        if (a.join == sgconv_join::sum) return {index{1} << (i + a.init_scale), 0};
        const index before = i == 0 ? 0 : (index{1} << (i - 1)) * a.w.extent(3) << a.init_scale;  // 1 + 1 + 2 + ... taps
        return {index{1} << (std::max<index>(0, i - 1) + a.init_scale), before};
    }
};

/// Samples before cropping.
template <class T>
index sgconv_samples(const sgconv_kernel_args<T>& a)
{
    if (a.w.extent(0) == 0) return 0;
    const sgconv_scale last = sgconv_scale::of(a, a.w.extent(0) - 1);
    return last.first + last.stretch * a.w.extent(3);
}

template <class T>
void check_sgconv_inputs(const char* op, const sgconv_kernel_args<T>& a)
{
    const axis channels{"channels", a.w.extent(1)}, dim{"dim", a.w.extent(2)};
    require_shape(op, "w", a.w, {{"scales"}, {"channels"}, {"dim"}, {"taps"}});
    require(a.w.extent(3) >= 1, op, "w", "has no taps");
    require(a.init_scale >= 0 && a.w.extent(0) + a.init_scale <= 48, op, "init_scale",
            "and the scales of w are not 0 to 48 doublings");
    require_shape_if_given(op, "multiplier", a.multiplier, {dim});
    require_shape_if_given(op, "decay", a.decay, {dim});
    require_shape_if_given(op, "norm", a.norm, {channels, dim});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output. Values are
/// trusted.
template <class T>
void check(const sgconv_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "sgconv_kernel";
    check_sgconv_inputs(op, a);
    const axis channels{"channels", a.w.extent(1)}, dim{"dim", a.w.extent(2)};
    require_shape(op, "K", a.K, {channels, dim, {"length"}});
    require_shape_if_given(op, "new_norm", a.new_norm, {channels, dim});
    require_distinct_elements(op, "K", a.K);
    require_distinct_elements(op, "new_norm", a.new_norm);
    const named_footprint outputs[] = {named("K", a.K), named("new_norm", a.new_norm)};
    const named_footprint inputs[] = {named("w", a.w), named("multiplier", a.multiplier), named("decay", a.decay),
                                      named("norm", a.norm)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const sgconv_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "sgconv_kernel_backward";
    const sgconv_kernel_args<T>& f = a.forward;
    check_sgconv_inputs(op, f);
    const axis scales{"scales", f.w.extent(0)}, channels{"channels", f.w.extent(1)}, dim{"dim", f.w.extent(2)};
    require_shape(op, "dK", a.dK, {channels, dim, {"length"}});
    require_shape_if_given(op, "dw", a.dw, {scales, channels, dim, {"taps", f.w.extent(3)}});
    require_shape_if_given(op, "ddecay", a.ddecay, {dim});
    require(a.ddecay.data() == nullptr || f.decay.data() != nullptr, op, "ddecay", "is asked for without decay");
    require_distinct_elements(op, "dw", a.dw);
    require_distinct_elements(op, "ddecay", a.ddecay);
    const named_footprint outputs[] = {named("dw", a.dw), named("ddecay", a.ddecay)};
    const named_footprint inputs[] = {named("w", f.w), named("multiplier", f.multiplier), named("decay", f.decay),
                                      named("norm", f.norm), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
