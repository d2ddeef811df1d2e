#pragma once

// What the benchmarks of S7's scan, forward and backward, run on.

#include <string>

#include <ssmkit/args/s7_scan_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct s7_shape {
    index batch, length, dim, state;  // as many outputs as inputs

    std::string name() const { return by({batch, length, dim, state}); }
};

struct s7_data {
    s7_shape s;
    array<float> u, A, B, C, bias, y, dy, du, dA, dB, dC, dbias;

    explicit s7_data(const s7_shape& shape) : s(shape)
    {
        u = fill<float>(count(s.batch, s.length, s.dim), -1, 1, 1);
        A = fill<float>(count(s.batch, s.length, s.state), -4, 4, 2);
        B = fill<float>(count(s.batch, s.length, s.dim, s.state), -1, 1, 3);
        C = fill<float>(B.size(), -1, 1, 4);
        bias = fill<float>(A.size(), -1, 1, 5);
        y.resize(u.size());
    }

    void make_gradients()
    {
        dy = fill<float>(y.size(), -1, 1, 6);
        du.resize(u.size()), dA.resize(A.size()), dB.resize(B.size()), dC.resize(C.size()), dbias.resize(bias.size());
    }

    ssmkit::s7_scan_args<float> args()
    {
        return {.u = {u.data(), s.batch, s.length, s.dim},
                .A = {A.data(), s.batch, s.length, s.state},
                .B = {B.data(), s.batch, s.length, s.dim, s.state},
                .C = {C.data(), s.batch, s.length, s.dim, s.state},
                .bias = {bias.data(), s.batch, s.length, s.state},
                .y = {y.data(), s.batch, s.length, s.dim}};
    }

    ssmkit::s7_scan_backward_args<float> backward_args()
    {
        return {.forward = args(),
                .dy = {dy.data(), s.batch, s.length, s.dim},
                .du = {du.data(), s.batch, s.length, s.dim},
                .dA = {dA.data(), s.batch, s.length, s.state},
                .dB = {dB.data(), s.batch, s.length, s.dim, s.state},
                .dC = {dC.data(), s.batch, s.length, s.dim, s.state},
                .dbias = {dbias.data(), s.batch, s.length, s.state}};
    }

    /// B and C are read, in the backward pass B once more, and their gradients written.
    work needs(bool backward) const
    {
        const double tokens = static_cast<double>(s.batch * s.length), maps = tokens * static_cast<double>(s.dim * s.state);
        work w{.updates = tokens * static_cast<double>(s.state), .token_channels = tokens * static_cast<double>(s.dim)};
        w.fmas = (backward ? 6 : 2) * maps;
        w.bytes = sizeof(float) * ((backward ? 5 : 2) * maps + (backward ? 4 : 2) * (w.token_channels + w.updates));
        w.kind = backward ? traffic::copy : traffic::read;
        return w;
    }
};

inline const s7_shape s7_shapes[] = {{8, 512, 64, 16}, {1, 64, 64, 16}, {8, 512, 16, 64}};

}  // namespace bench
