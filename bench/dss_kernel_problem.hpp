#pragma once

// What the benchmarks of DSS's kernels, forward and backward, run on.

#include <complex>
#include <numbers>
#include <string>

#include <ssmkit/args/dss_kernel_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::dss_scaling, ssmkit::index, ssmkit::view;

struct dss_shape {
    index dim, state, length;
    dss_scaling scaling;

    std::string name() const
    {
        return by({dim, state, length}) + (scaling == dss_scaling::softmax ? "-softmax" : "-exp");
    }
};

struct dss_data {
    dss_shape s;
    array<double> delta, ddelta;
    array<std::complex<double>> A, dA;
    array<std::complex<float>> W, dW;
    array<float> K, dK;

    explicit dss_data(const dss_shape& shape) : s(shape)
    {
        delta = fill<double>(count(s.dim), 1e-3, 0.1, 1);
        for (index n = 0; n < s.state; ++n) A.emplace_back(-0.5, std::numbers::pi * static_cast<double>(n));
        W = fill_complex<float>(count(s.dim, s.state), -1, 1, 2);
        dK = fill<float>(count(s.dim, s.length), -1, 1, 4);
        K.resize(dK.size()), ddelta.resize(delta.size()), dA.resize(A.size()), dW.resize(W.size());
    }

    ssmkit::dss_kernel_args<float> args()
    {
        return {.delta = {delta.data(), {s.dim, 2}, {1, 0}}, .A = {A.data(), s.state}, .W = {W.data(), 1, s.dim, s.state},
                .scaling = s.scaling, .K = {K.data(), 1, s.dim, s.length}};
    }
    ssmkit::dss_kernel_backward_args<float> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), 1, s.dim, s.length}, .ddelta = {ddelta.data(), {s.dim, 2}, {1, 0}},
                .dA = {dA.data(), s.state}, .dW = {dW.data(), 1, s.dim, s.state}};
    }

    /// `sums` of real products of taps and poles, two multiply-adds each; weights read, and backward written.
    work needs(double sums) const
    {
        const double terms = static_cast<double>(count(s.dim, s.length, s.state));
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = 2 * sums * terms,
                .bytes = sizeof(float) * (static_cast<double>(K.size()) + sums * 2 * static_cast<double>(W.size()))};
    }
};

inline const dss_shape dss_shapes[] = {{256, 64, 1024, dss_scaling::exponential}, {256, 64, 1024, dss_scaling::softmax}};

}  // namespace bench
