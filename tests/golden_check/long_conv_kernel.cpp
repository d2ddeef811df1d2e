#include <ssmkit/args/long_conv_kernel.hpp>

#include "golden.hpp"

namespace {

/// A kernel that is not causal has twice the length of its sequences and is treated alike.
const golden::handler longconv_kernel("longconv_kernel", []<class T>(golden::element<T>, golden::problem& p) {
    using R = ssmkit::compute_t<T>;
    using enum ssmkit::long_conv_smoothing;
    p.descriptive("causal", "L");
    const bool smooth = p.flag<bool>("smooth", false), in_frequency = p.flag<bool>("smooth_freq", false);
    const ssmkit::long_conv_kernel_args<R> forward{
        .kernel = p.input<R>("kernel", 0, 1, 2),
        .lambda = static_cast<R>(p.flag<double>("lam")),
        .smoothing = !smooth ? none : in_frequency ? frequency : ssmkit::long_conv_smoothing::time,
        .window = p.flag<ssmkit::index>("window", 1),
        .K = p.output<R>("K", 0, 1, 2),
    };
    const ssmkit::double_exponential_args<R> envelope{p.output<R>("double_exp", 0, 1, 2)};
    p.run(envelope);
    p.run(forward);
    if (!p.has("dout")) return;
    const ssmkit::long_conv_kernel_backward_args<R> backward{
        .forward = forward, .dK = p.input<R>("dout", 0, 1, 2), .dkernel = p.output<R>("d_kernel", 0, 1, 2)};
    p.run(backward);
});

}  // namespace
