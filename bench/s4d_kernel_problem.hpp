#pragma once

// What the benchmarks of S4D's kernel, forward and backward, run on: S4D-Lin, step sizes log-uniform in [1e-3, 0.1].

#include <cmath>
#include <complex>
#include <numbers>
#include <string>

#include <ssmkit/args/s4d_kernel_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct s4d_shape {
    index dim, state, length;  // state counts pairs

    /// With the full state size, as the models name it.
    std::string name() const { return std::to_string(dim) + "x" + std::to_string(2 * state) + "x" + std::to_string(length); }
};

template <class T>
struct s4d_data {
    using E = std::complex<T>;

    s4d_shape s;
    array<double> delta, ddelta;
    array<std::complex<double>> A, dA;
    array<E> B, C, dB, dC;
    array<T> K, dK;

    explicit s4d_data(const s4d_shape& shape, bool backward = false) : s(shape)
    {
        const auto poles = static_cast<std::size_t>(s.dim * s.state), taps = static_cast<std::size_t>(s.dim * s.length);
        delta = fill<double>(static_cast<std::size_t>(s.dim), std::log(1e-3), std::log(0.1), 1);
        for (double& x : delta) x = std::exp(x);
        const auto re = fill<T>(poles, -1, 1, 2), im = fill<T>(poles, -1, 1, 3);
        for (std::size_t i = 0; i < poles; ++i) {
            A.emplace_back(-0.5, std::numbers::pi * static_cast<double>(i % static_cast<std::size_t>(s.state)));
            C.emplace_back(re[i], im[i]);
        }
        B.assign(poles, E(1));
        K.resize(taps);
        if (!backward) return;
        ddelta.resize(delta.size());
        dA.resize(poles);
        dB.resize(poles);
        dC.resize(poles);
        dK = fill<T>(taps, -1, 1, 4);
    }

    ssmkit::s4d_kernel_args<T> args()
    {
        return {.delta = ssmkit::tied_over_state(view<const double, 1>(delta.data(), s.dim), s.state),
                .A = {A.data(), s.dim, s.state},
                .B = {B.data(), s.dim, s.state},
                .C = {C.data(), 1, s.dim, s.state},
                .K = {K.data(), 1, s.dim, s.length}};
    }

    ssmkit::s4d_kernel_backward_args<T> backward_args()
    {
        return {.forward = args(),
                .dK = {dK.data(), 1, s.dim, s.length},
                .ddelta = ssmkit::tied_over_state(view<double, 1>(ddelta.data(), s.dim), s.state),
                .dA = {dA.data(), s.dim, s.state},
                .dB = {dB.data(), s.dim, s.state},
                .dC = {dC.data(), 1, s.dim, s.state}};
    }

    /// The sum over the real and imaginary parts of all poles for every tap, as a matrix product takes it; of the gradients, two.
    work needs(bool backward) const
    {
        const double terms = static_cast<double>(s.dim) * static_cast<double>(s.state) * static_cast<double>(s.length);
        const double bytes = static_cast<double>(K.size() * sizeof(T)) + static_cast<double>(A.size() * (16 + 4 * sizeof(T)));
        return {.updates = terms,
                .token_channels = static_cast<double>(K.size()),
                .fmas = (backward ? 4 : 2) * terms,
                .bytes = bytes};
    }
};

inline const s4d_shape s4d_shapes[] = {{256, 32, 1024}, {256, 32, 16384}, {1024, 32, 4096}, {255, 31, 1000}};

}  // namespace bench
