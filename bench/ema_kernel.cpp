#include <ssmkit/ema_kernel.hpp>

#include <memory>
#include <string>

#include <ssmkit/ema_kernel_backward.hpp>
#include <ssmkit/reference/ema_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct ema_shape {
    index dim, state, length;

    std::string name() const { return std::to_string(dim) + "x" + std::to_string(state) + "x" + std::to_string(length); }
};

struct ema_data {
    ema_shape s;
    array<float> parameters[4], gradients[4], K, dK;

    explicit ema_data(const ema_shape& shape) : s(shape)
    {
        const auto count = static_cast<std::size_t>(s.dim * s.state), taps = static_cast<std::size_t>(s.dim * s.length);
        for (std::uint64_t i = 0; i < 4; ++i) {
            parameters[i] = fill<float>(count, -1, 1, i + 1);
            gradients[i].resize(count);
        }
        K.resize(taps);
        dK = fill<float>(taps, -1, 1, 5);
    }

    view<float, 2> map(array<float>& x) const { return {x.data(), s.dim, s.state}; }
    ssmkit::ema_kernel_args<float> args()
    {
        return {map(parameters[0]), map(parameters[1]), map(parameters[2]), map(parameters[3]), {K.data(), s.dim, s.length}};
    }
    ssmkit::ema_kernel_backward_args<float> backward_args()
    {
        return {args(), {dK.data(), s.dim, s.length}, map(gradients[0]), map(gradients[1]), map(gradients[2]), map(gradients[3])};
    }

    work needs(double products) const
    {
        const double terms = static_cast<double>(K.size()) * static_cast<double>(s.state);
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = products * terms,
                .bytes = static_cast<double>((K.size() + 4 * parameters[0].size()) * sizeof(float))};
    }
};

view<const float, 1> numbers(const array<float>& x)
{
    return {x.data(), static_cast<index>(x.size())};
}

task forward_task(const ema_shape& shape)
{
    const auto d = std::make_shared<ema_data>(shape), oracle = std::make_shared<ema_data>(shape);
    ssmkit::reference::ema_kernel(oracle->args());
    const auto memory = std::make_shared<std::vector<std::byte>>(ssmkit::ema_kernel_workspace_size(d->args()));
    task t;
    t.run = [=] { ssmkit::ema_kernel(d->args(), *memory); };
    t.run();
    t.needs = d->needs(1);
    t.mismatch = mismatch("K", numbers(d->K), numbers(oracle->K));
    return t;
}

task backward_task(const ema_shape& shape)
{
    const auto d = std::make_shared<ema_data>(shape), oracle = std::make_shared<ema_data>(shape);
    ssmkit::reference::ema_kernel_backward(oracle->backward_args());
    const auto memory = std::make_shared<std::vector<std::byte>>(ssmkit::ema_kernel_backward_workspace_size(d->backward_args()));
    task t;
    t.run = [=] { ssmkit::ema_kernel_backward(d->backward_args(), *memory); };
    t.run();
    t.needs = d->needs(2);
    for (std::size_t i = 0; i < 4 && t.mismatch.empty(); ++i) {
        t.mismatch = mismatch("a gradient", numbers(d->gradients[i]), numbers(oracle->gradients[i]));
    }
    t.rivals.push_back({"times_forward", [d] { ssmkit::ema_kernel(d->args()); }, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const ema_shape& s : {ema_shape{256, 16, 1024}, {256, 16, 4096}}) {
        rows.push_back({"ema_kernel", "ssmkit", s.name(), "f32", 1, [=] { return forward_task(s); }});
        rows.push_back({"ema_kernel_backward", "ssmkit", s.name(), "f32", 1, [=] { return backward_task(s); }});
    }
}};

}  // namespace
}  // namespace bench
