#pragma once

// What the device's benchmarks of the selective scan and its gradients run on.

#include <string>

#include <ssmkit/args/selective_scan.hpp>

#include "harness.hpp"

namespace bench::device {

struct scan_shape {
    index batch, length, dim, state;
    bool gated;

    std::string text() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" + std::to_string(state) +
               (gated ? "/zD" : "");
    }
};

template <class T>
struct scan_data {
    explicit scan_data(const scan_shape& shape) : s(shape) {}

    scan_shape s;
    index tokens = s.batch * s.length * s.dim, maps = s.batch * s.length * s.state;
    array<T> u{tokens, -1, 1, 1}, delta{tokens, -4, 0, 2}, z{s.gated ? tokens : 0, -1, 1, 3}, B{maps, -1, 1, 4},
        C{maps, -1, 1, 5};
    array<float> A{s.dim * s.state, -16, -1, 6}, D{s.dim, -1, 1, 7}, bias{s.dim, -1, 0, 8};

    /// Without outputs.
    ssmkit::selective_scan_args<T> inputs() const
    {
        ssmkit::selective_scan_args<T> a{.u = {u.data(), s.batch, s.length, s.dim},
                                         .delta = {delta.data(), s.batch, s.length, s.dim},
                                         .A = {A.data(), s.dim, s.state},
                                         .B = {B.data(), s.batch, s.length, 1, s.state},
                                         .C = {C.data(), s.batch, s.length, 1, s.state},
                                         .delta_bias = {bias.data(), s.dim},
                                         .delta_softplus = true};
        if (s.gated) {
            a.z = {z.data(), s.batch, s.length, s.dim};
            a.D = {D.data(), s.dim};
        }
        return a;
    }
};

}  // namespace bench::device
