#pragma once

// What the benchmarks of the linear recurrent unit, forward and backward, run on.

#include <algorithm>
#include <complex>
#include <string>

#include <ssmkit/args/lru_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct lru_shape {
    index batch, length, dim, state;  // as many outputs as inputs

    std::string name() const { return by({batch, length, dim, state}); }

    /// For the reference, which would take minutes.
    lru_shape small() const { return {1, std::min<index>(length, 70), dim, state}; }
};

/// Rings of radius 0.5 to 0.99.
struct lru_data {
    using complex = std::complex<float>;
    lru_shape s;
    array<float> nu, theta, gamma, D, u, y, dy, dnu, dtheta, dgamma, dD, du;
    array<complex> B, C, dB, dC;

    explicit lru_data(const lru_shape& shape) : s(shape)
    {
        nu = fill<float>(count(s.state), -4.6, -0.4, 1), theta = fill<float>(count(s.state), -3, 1.5, 2);
        gamma = fill<float>(count(s.state), -2, -0.1, 3), D = fill<float>(count(s.dim), -1, 1, 4);
        B = fill_complex<float>(count(s.state, s.dim), -0.1, 0.1, 5), C = fill_complex<float>(count(s.dim, s.state), -0.1, 0.1, 6);
        u = fill<float>(count(s.batch, s.length, s.dim), -1, 1, 7);
        y.resize(u.size());
    }

    void make_gradients()
    {
        dy = fill<float>(y.size(), -1, 1, 8);
        dnu.resize(nu.size()), dtheta.resize(theta.size()), dgamma.resize(gamma.size()), dD.resize(D.size());
        dB.resize(B.size()), dC.resize(C.size()), du.resize(u.size());
    }

    ssmkit::lru_args<float> args()
    {
        return {.nu_log = {nu.data(), s.state},
                .theta_log = {theta.data(), s.state},
                .gamma_log = {gamma.data(), s.state},
                .B = {B.data(), s.state, s.dim},
                .C = {C.data(), s.dim, s.state},
                .D = {D.data(), s.dim},
                .u = {u.data(), s.batch, s.length, s.dim},
                .y = {y.data(), s.batch, s.length, s.dim}};
    }

    ssmkit::lru_backward_args<float> backward_args()
    {
        return {.forward = args(),
                .dy = {dy.data(), s.batch, s.length, s.dim},
                .dnu_log = {dnu.data(), s.state},
                .dtheta_log = {dtheta.data(), s.state},
                .dgamma_log = {dgamma.data(), s.state},
                .dB = {dB.data(), s.state, s.dim},
                .dC = {dC.data(), s.dim, s.state},
                .dD = {dD.data(), s.dim},
                .du = {du.data(), s.batch, s.length, s.dim}};
    }

    /// As those of S5: `products` times 2 state dim multiply-adds for every token, `arrays` times the size of u in bytes.
    work needs(double products, double arrays) const
    {
        work w{.updates = static_cast<double>(count(s.batch, s.length, s.state)), .token_channels = static_cast<double>(u.size())};
        w.fmas = w.updates * (products * 2 * static_cast<double>(s.dim) + 2 * products);
        w.bytes = arrays * sizeof(float) * w.token_channels;
        return w;
    }
};

inline const lru_shape lru_shapes[] = {{8, 2048, 256, 256}, {8, 1021, 250, 123}};

}  // namespace bench
