#pragma once

// What the benchmarks of ConvS5, forward and backward, run on.

#include <complex>
#include <string>

#include <ssmkit/args/convs5_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct convs5_shape {
    index batch, length, height, width, dim, state, in_size, out_size;  // as many outputs as inputs

    std::string name() const
    {
        return by({batch, length, height, width, dim, state}) + "xk" + std::to_string(in_size) + "k" + std::to_string(out_size);
    }
    /// For the reference, which would take minutes: more images than one of the spans that the backward pass computes again.
    convs5_shape small() const { return {2, 18, 5, 6, dim, state, in_size, out_size}; }
};

struct convs5_data {
    using complex = std::complex<float>;
    convs5_shape s;
    array<complex> A, B, C, dA, dB, dC;
    array<float> u, y, dy, du;

    explicit convs5_data(const convs5_shape& shape) : s(shape)
    {
        A = fill_complex<float>(count(s.state), 0.2, 0.6, 1);
        B = fill_complex<float>(count(s.in_size, s.in_size, s.dim, s.state), -0.1, 0.1, 2);
        C = fill_complex<float>(count(s.out_size, s.out_size, s.dim, s.state), -0.1, 0.1, 3);
        u = fill<float>(count(s.batch, s.length, s.height, s.width, s.dim), -1, 1, 4);
        dy = fill<float>(u.size(), -1, 1, 5);
        y.resize(u.size()), dA.resize(A.size()), dB.resize(B.size()), dC.resize(C.size()), du.resize(u.size());
    }

    template <class E>
    view<E, 4> in_kernel(E* k) const
    {
        return {k, s.in_size, s.in_size, s.dim, s.state};
    }
    template <class E>
    view<E, 4> out_kernel(E* k) const
    {
        return {k, s.out_size, s.out_size, s.state, s.dim};
    }
    template <class E>
    view<E, 5> images(E* v) const
    {
        return {v, s.batch, s.length, s.height, s.width, s.dim};
    }

    ssmkit::convs5_args<float> args()
    {
        return {.A = {A.data(), s.state}, .B = in_kernel(B.data()), .C = out_kernel(C.data()), .u = images(u.data()),
                .y = images(y.data())};
    }
    ssmkit::convs5_backward_args<float> backward_args()
    {
        return {.forward = args(), .dy = images(dy.data()), .dA = {dA.data(), s.state}, .dB = in_kernel(dB.data()),
                .dC = out_kernel(dC.data()), .du = images(du.data())};
    }

    /// `products` of inputs and states for each tap; u and y read or written once, backward u, dy and du.
    work needs(double products, double arrays = 2) const
    {
        const double pixels = static_cast<double>(count(s.batch, s.length, s.height, s.width));
        const double taps = static_cast<double>(s.in_size * s.in_size + s.out_size * s.out_size);
        work w{.updates = pixels * static_cast<double>(s.state), .token_channels = pixels * static_cast<double>(s.dim)};
        w.fmas = w.updates * (products * static_cast<double>(s.dim) * taps + 4);
        w.bytes = arrays * sizeof(float) * w.token_channels;
        return w;
    }
};

inline const convs5_shape convs5_shapes[] = {{2, 16, 32, 32, 64, 64, 3, 1}, {2, 16, 32, 32, 64, 64, 3, 3}};

}  // namespace bench
