#include <ssmkit/dss_kernel.hpp>

#include <complex>
#include <memory>
#include <numbers>
#include <string>

#include <ssmkit/reference/dss_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view, ssmkit::dss_scaling;

struct dss_data {
    index dim, state, length;
    dss_scaling scaling;
    array<double> delta;
    array<std::complex<double>> A;
    array<std::complex<float>> W;
    array<float> K;

    dss_data(index channels, index poles, index taps, dss_scaling how) : dim(channels), state(poles), length(taps), scaling(how)
    {
        delta = fill<double>(static_cast<std::size_t>(dim), 1e-3, 0.1, 1);
        const auto count = static_cast<std::size_t>(dim * state);
        const auto re = fill<float>(count, -1, 1, 2), im = fill<float>(count, -1, 1, 3);
        for (index n = 0; n < state; ++n) A.emplace_back(-0.5, std::numbers::pi * static_cast<double>(n));
        for (std::size_t i = 0; i < count; ++i) W.emplace_back(re[i], im[i]);
        K.resize(static_cast<std::size_t>(dim * length));
    }

    ssmkit::dss_kernel_args<float> args()
    {
        return {.delta = {delta.data(), {dim, 2}, {1, 0}}, .A = {A.data(), state}, .W = {W.data(), 1, dim, state}, .scaling = scaling,
                .K = {K.data(), 1, dim, length}};
    }
};

task dss_task(dss_scaling scaling)
{
    const auto d = std::make_shared<dss_data>(256, 64, 1024, scaling), oracle = std::make_shared<dss_data>(256, 64, 1024, scaling);
    ssmkit::reference::dss_kernel(oracle->args());
    const auto memory = std::make_shared<std::vector<std::byte>>(ssmkit::dss_kernel_workspace_size(d->args()));
    task t;
    t.run = [=] { ssmkit::dss_kernel(d->args(), *memory); };
    t.run();
    const double terms = static_cast<double>(d->K.size() * d->A.size());
    t.needs = {.updates = terms, .token_channels = static_cast<double>(d->K.size()), .fmas = 2 * terms,
               .bytes = static_cast<double>(d->K.size() * sizeof(float) + d->W.size() * sizeof(std::complex<float>))};
    const auto taps = [](const array<float>& K) { return view<const float, 1>(K.data(), static_cast<index>(K.size())); };
    t.mismatch = mismatch("K", taps(d->K), taps(oracle->K));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    rows.push_back({"dss_kernel", "ssmkit", "256x64x1024-exp", "f32", 1, [] { return dss_task(dss_scaling::exponential); }});
    rows.push_back({"dss_kernel", "ssmkit", "256x64x1024-softmax", "f32", 1, [] { return dss_task(dss_scaling::softmax); }});
}};

}  // namespace
}  // namespace bench
