#include <cmath>
#include <vector>

#include <ssmkit/args/fft_conv.hpp>
#include <ssmkit/args/fft_conv_backward.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

template <class T>
void convolve(const ssmkit::fft_conv_args<T>& a, problem& p)
{
    p.run(a);
}

template <class T>
void convolve_backward(const ssmkit::fft_conv_backward_args<T>& a, problem& p)
{
    p.run(a);
}

constexpr golden::tolerance granted{.f64 = 2e-14, .f32 = 2e-6};  // section 19: 5e-7 in f32, below what golden_check asks for

/// With bidirectional kernels, the second half of k's rows looks ahead, from the next sample on.
const golden::handler fftconv("fftconv", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;
    const bool both = p.flag<bool>("bidirectional", false), swapped = p.flag<bool>("swap_channels", false);
    const index channels = p.flag<index>("channels", 1);
    const auto halves = [&](auto k, index which) {
        if (k.data() == nullptr || (which == 1 && !both)) return decltype(k){};
        return k.slice(0, which * channels, channels);
    };
    const auto k = p.input<R>("k", 0, 1, 2);
    const ssmkit::fft_conv_args<T> forward{
        .u = p.input<T>("u", 0, 1, 2),
        .k = halves(k, 0),
        .k_reverse = halves(k, 1),
        .D = p.input<R>("D", 0, 1),
        .y = ssmkit::flattened(p.output<T>("y", 0, 1, 2), channels, swapped),
    };
    convolve(forward, p);
    if (!p.has("dout")) return;
    const auto dk = p.output<R>("d_k", 0, 1, 2);
    convolve_backward(ssmkit::fft_conv_backward_args<T>{
                          .forward = forward,
                          .dy = ssmkit::flattened(p.input<T>("dout", 0, 1, 2), channels, swapped),
                          .du = p.output<T>("d_u", 0, 1, 2),
                          .dk = halves(dk, 0),
                          .dk_reverse = halves(dk, 1),
                          .dD = p.output<R>("d_D", 0, 1),
                      },
                      p);
}, granted);

/// Both kernels include the current sample; then GELU, x Φ(x), and a mask of (batch, dim), both optional.
const golden::handler fftconv_rev("fftconv_rev", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;
    const bool gelu = p.flag<bool>("gelu", false);
    p.descriptive("has_rev", "has_mask");
    const auto u = p.input<T>("u", 0, 1, 2), mask = p.input<T>("mask", 0, 1, new_axis);
    const auto y = p.output<T>("y", 0, 1, 2);
    std::vector<T> linear(static_cast<std::size_t>(u.size())), slope(linear.size());
    const view<T, 3> p_of(linear.data(), u.extents()), dp(slope.data(), u.extents());
    const ssmkit::fft_conv_args<T> forward{
        .u = u,
        .k = p.input<R>("k", new_axis, 0, 1),
        .k_reverse = p.input<R>("k_rev", new_axis, 0, 1),
        .reverse_includes_current = true,
        .D = p.input<R>("D", new_axis, 0),
        .y = ssmkit::flattened(p_of, 1),
    };
    convolve(forward, p);
    const auto dy = p.input<T>("dout", 0, 1, 2);
    const R half = R(0.5), root = std::sqrt(half), density = R(0.39894228040143267794);
    for (index b = 0; b < u.extent(0); ++b) {
        for (index h = 0; h < u.extent(1); ++h) {
            const R factor = mask.data() ? static_cast<R>(mask(b, h, 0)) : R(1);
            for (index t = 0; t < u.extent(2); ++t) {
                const R x = static_cast<R>(p_of(b, h, t)), normal = half * std::erfc(-x * root);
                y(b, h, t) = static_cast<T>(factor * (gelu ? x * normal : x));
                if (dy.data() == nullptr) continue;
                const R derivative = gelu ? normal + x * density * std::exp(-half * x * x) : R(1);
                dp(b, h, t) = static_cast<T>(factor * derivative * static_cast<R>(dy(b, h, t)));
            }
        }
    }
    if (dy.data() == nullptr) return;
    convolve_backward(ssmkit::fft_conv_backward_args<T>{
                          .forward = forward,
                          .dy = ssmkit::flattened(view<const T, 3>(dp), 1),
                          .du = p.output<T>("d_u", 0, 1, 2),
                          .dk = p.output<R>("d_k", new_axis, 0, 1),
                          .dk_reverse = p.output<R>("d_k_rev", new_axis, 0, 1),
                          .dD = p.output<R>("d_D", new_axis, 0),
                      },
                      p);
}, granted);

}  // namespace
