#pragma once

// What the benchmarks of Mega's moving average run on: its kernel, forward and backward, and its steps.

#include <string>

#include <ssmkit/args/ema_kernel_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct ema_shape {
    index dim, state, length;

    std::string name() const { return by({dim, state, length}); }
};

struct ema_data {
    ema_shape s;
    array<float> delta, alpha, beta, gamma, ddelta, dalpha, dbeta, dgamma, K, dK;

    explicit ema_data(const ema_shape& shape) : s(shape)
    {
        const std::size_t n = count(s.dim, s.state);
        delta = fill<float>(n, -1, 1, 1), alpha = fill<float>(n, -1, 1, 2);
        beta = fill<float>(n, -1, 1, 3), gamma = fill<float>(n, -1, 1, 4);
        dK = fill<float>(count(s.dim, s.length), -1, 1, 5);
        for (array<float>* const gradient : {&ddelta, &dalpha, &dbeta, &dgamma}) gradient->resize(n);
        K.resize(dK.size());
    }

    view<float, 2> map(array<float>& x) const { return {x.data(), s.dim, s.state}; }
    ssmkit::ema_kernel_args<float> args()
    {
        return {.delta = map(delta), .alpha = map(alpha), .beta = map(beta), .gamma = map(gamma), .K = {K.data(), s.dim, s.length}};
    }
    ssmkit::ema_kernel_backward_args<float> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), s.dim, s.length}, .ddelta = map(ddelta), .dalpha = map(dalpha),
                .dbeta = map(dbeta), .dgamma = map(dgamma)};
    }

    /// `products` for every tap and component, maps read, and backward written as well.
    work needs(double products) const
    {
        const double terms = static_cast<double>(count(s.dim, s.length, s.state)), taps = static_cast<double>(K.size());
        return {.updates = terms, .token_channels = taps, .fmas = products * terms,
                .bytes = sizeof(float) * (taps + products * 4 * static_cast<double>(delta.size()))};
    }
};

inline const ema_shape ema_shapes[] = {{256, 16, 1024}, {256, 16, 4096}};

}  // namespace bench
