#include <ssmkit/long_conv_kernel.hpp>

#include <cmath>
#include <memory>
#include <string>

#include <ssmkit/reference/long_conv_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

using smoothing = ssmkit::long_conv_smoothing;

struct regularised_shape {
    index dim, length;
    smoothing how = smoothing::none;

    std::string name() const
    {
        return by({dim, length}) + (how == smoothing::time ? "-time" : how == smoothing::frequency ? "-frequency" : "");
    }
};

struct regularised_data {
    static constexpr index window = 5;
    regularised_shape s;
    array<float> kernel, K, dK, dkernel;

    explicit regularised_data(const regularised_shape& shape) : s(shape)
    {
        kernel = fill<float>(count(s.dim, s.length), -1, 1, 1), dK = fill<float>(kernel.size(), -1, 1, 2);
        K.resize(kernel.size()), dkernel.resize(kernel.size());
    }

    ssmkit::long_conv_kernel_args<float> args()
    {
        return {.kernel = {kernel.data(), 1, s.dim, s.length}, .lambda = 0.1f, .smoothing = s.how, .window = window,
                .K = {K.data(), 1, s.dim, s.length}};
    }
    ssmkit::long_conv_kernel_backward_args<float> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), 1, s.dim, s.length}, .dkernel = {dkernel.data(), 1, s.dim, s.length}};
    }

    /// Two operations to squash a tap, the window's sum or two real transforms, 2.5 / 2 length log₂ length multiply-adds each, and
    /// the window of half as many bins.
    work needs(double times) const
    {
        const double taps = static_cast<double>(kernel.size());
        const double smooth = s.how == smoothing::time        ? double(window)
                              : s.how == smoothing::frequency ? 2.5 * std::log2(static_cast<double>(s.length)) + double(window)
                                                              : 0;
        return {.updates = taps, .token_channels = taps, .fmas = (2 + times * smooth) * taps,
                .bytes = sizeof(float) * (1 + times) * taps};
    }
};

task forward_task(const regularised_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<regularised_data>(s);
    return checked(
        d, d->needs(1), with_workspace(ssmkit::long_conv_kernel_workspace_size(d->args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::long_conv_kernel(d->args(), how...); }),
        [](regularised_data& e) { ssmkit::reference::long_conv_kernel(e.args()); },
        [](const regularised_data& got, const regularised_data& expected) { return mismatch("K", got.K, expected.K); });
}

task backward_task(const regularised_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<regularised_data>(s);
    task t = checked(
        d, d->needs(2), with_workspace(ssmkit::long_conv_kernel_backward_workspace_size(d->backward_args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::long_conv_kernel_backward(d->backward_args(), how...); }),
        [](regularised_data& e) { ssmkit::reference::long_conv_kernel_backward(e.backward_args()); },
        [](const regularised_data& got, const regularised_data& expected) {
            return mismatch("dkernel", got.dkernel, expected.dkernel);
        });
    if (threads == 1) t.rivals.push_back({"times_forward", with_workspace(ssmkit::long_conv_kernel_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::long_conv_kernel(d->args(), how...); }),
                            true});
    return t;
}

task reference_task(const regularised_shape& s)
{
    const auto d = std::make_shared<regularised_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::long_conv_kernel(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const regularised_shape& s : {regularised_shape{256, 1024}, regularised_shape{256, 1024, smoothing::time},
                                      regularised_shape{256, 128, smoothing::frequency}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"long_conv_kernel", "ssmkit", s.name(), "f32", n, [=] { return forward_task(s, n); }});
            rows.push_back({"long_conv_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task(s, n); }});
        }
    }
    const regularised_shape usual{256, 1024};
    rows.push_back({"long_conv_kernel", "reference", usual.name(), "f32", 1, [=] { return reference_task(usual); }});
}};

}  // namespace
}  // namespace bench
