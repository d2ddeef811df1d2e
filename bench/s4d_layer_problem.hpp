#pragma once

// What the benchmarks of S4D's layer, forward and backward, run on.

#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/reference/s4d.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

/// `state` as S4D counts: twice the conjugate pairs.
struct s4d_layer_shape {
    index batch, channels, state, length;
    bool channel_contiguous = false;
    ssmkit::s4d_form form = ssmkit::s4d_form::automatic;

    std::string name() const
    {
        std::string text;
        for (const index extent : {batch, channels, state, length}) text += (text.empty() ? "" : "x") + std::to_string(extent);
        if (channel_contiguous) text += "-channel_contiguous";
        if (form == ssmkit::s4d_form::states) text += "-states";
        if (form == ssmkit::s4d_form::convolution) text += "-convolution";
        return text;
    }
    index pairs() const { return state / 2; }
    std::size_t elements() const { return static_cast<std::size_t>(batch * channels * length); }
};

/// S4D-Lin, steps log-uniform in 0.001 ... 0.1.
struct s4d_layer_problem {
    s4d_layer_shape s;
    array<float> u, D;
    array<double> delta;
    array<std::complex<double>> A;
    array<std::complex<float>> B, C;

    explicit s4d_layer_problem(const s4d_layer_shape& shape) : s(shape), u(fill<float>(s.elements(), -1, 1, 1))
    {
        const auto channels = static_cast<std::size_t>(s.channels), pairs = static_cast<std::size_t>(s.pairs());
        delta = fill<double>(channels, std::log(1e-3), std::log(1e-1), 2);
        for (double& x : delta) x = std::exp(x);
        D = fill<float>(channels, -1, 1, 3);
        A.resize(channels * pairs);
        for (std::size_t i = 0; i < A.size(); ++i) A[i] = {-0.5, 3.14159265358979 * static_cast<double>(i % pairs)};
        B.assign(A.size(), 1.0f);
        const array<float> re = fill<float>(A.size(), -1, 1, 4), im = fill<float>(A.size(), -1, 1, 5);
        C.resize(A.size());
        for (std::size_t i = 0; i < C.size(); ++i) C[i] = {re[i], im[i]};
    }

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.channel_contiguous) return {p, s.batch, s.length, s.channels};
        return view<E, 3>(p, s.batch, s.channels, s.length).transposed(1, 2);
    }

    ssmkit::s4d_args<float> args(float* y) const
    {
        const index channels = s.channels, pairs = s.pairs();
        return {.u = tokens(u.data()),
                .delta = ssmkit::tied_over_state(view<const double, 1>(delta.data(), channels), pairs),
                .A = {A.data(), channels, pairs},
                .B = {B.data(), channels, pairs},
                .C = {C.data(), 1, channels, pairs},
                .D = {D.data(), 1, channels},
                .form = s.form,
                .y = tokens(y)};
    }

    array<float> expected() const
    {
        array<float> y(u.size());
        ssmkit::reference::s4d(args(y.data()));
        return y;
    }

    /// Inputs to states and states to outputs, two multiply-adds each a pair; half of a chunk's pairs of tokens. Kernels by FFT
    /// need no part of this.
    work needs() const
    {
        const double n = static_cast<double>(s.elements()), chunk = 32;
        return {.updates = n * static_cast<double>(s.pairs()),
                .token_channels = n,
                .fmas = n * (4 * static_cast<double>(s.pairs()) + chunk / 2),
                .bytes = 2 * sizeof(float) * n};
    }
};

}  // namespace bench
