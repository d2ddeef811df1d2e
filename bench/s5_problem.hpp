#pragma once

// What the benchmarks of S5 run on.

#include <complex>
#include <memory>
#include <string>

#include <ssmkit/args/s5_backward.hpp>
#include <ssmkit/args/s5_step.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct s5_shape {
    index batch, length, dim, state;  // as many outputs as inputs
    bool events = false, time_contiguous = false, bidirectional = false;

    std::string name() const
    {
        std::string text =
            std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" + std::to_string(state);
        if (events) text += "-events";
        if (time_contiguous) text += "-time_contiguous";
        if (bidirectional) text += "-bidirectional";
        return text;
    }
};

struct s5_data {
    using complex = std::complex<float>;

    s5_shape s;
    array<float> A, delta, interval, B, C, D, u, y, dy;
    array<float> dA, ddelta, dinterval, dB, dC, dD, du;

    explicit s5_data(const s5_shape& shape) : s(shape)
    {
        const auto count = [](index n) { return static_cast<std::size_t>(n); };
        const index tokens = s.batch * s.length, scans = s.bidirectional ? 2 : 1;
        A = fill<float>(count(2 * s.state), -1, -0.1, 1);  // a memory of 5 to 100 tokens
        delta = fill<float>(count(s.state), 0.1, 0.2, 2);
        if (s.events) interval = fill<float>(count(tokens), 0.5, 1.5, 3);
        B = fill<float>(count(2 * s.state * s.dim), -0.1, 0.1, 4);
        C = fill<float>(count(2 * scans * s.state * s.dim), -0.1, 0.1, 5);
        D = fill<float>(count(s.dim), -1, 1, 6);
        u = fill<float>(count(tokens * s.dim), -1, 1, 7);
        y.resize(u.size());
    }

    void make_gradients()
    {
        dy = fill<float>(u.size(), -1, 1, 8);
        dA.resize(A.size()), ddelta.resize(delta.size()), dinterval.resize(interval.size());
        dB.resize(B.size()), dC.resize(C.size()), dD.resize(D.size()), du.resize(u.size());
    }

    template <class E, class P>
    view<E, 3> tokens(P* p) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, s.dim, s.length).transposed(1, 2);
        return {p, s.batch, s.length, s.dim};
    }

    template <class E, std::size_t Rank, class P, class... Extents>
    view<E, Rank> numbers(P& values, Extents... extents) const
    {
        using pointer = E*;
        return values.empty() ? view<E, Rank>() : view<E, Rank>(reinterpret_cast<pointer>(values.data()), extents...);
    }

    ssmkit::s5_args<float> args()
    {
        return {.A = numbers<const complex, 1>(A, s.state),
                .delta = numbers<const float, 1>(delta, s.state),
                .interval = numbers<const float, 2>(interval, s.batch, s.length),
                .B = numbers<const complex, 2>(B, s.state, s.dim),
                .C = numbers<const complex, 2>(C, s.dim, (s.bidirectional ? 2 : 1) * s.state),
                .D = numbers<const float, 1>(D, s.dim),
                .u = tokens<const float>(u.data()),
                .bidirectional = s.bidirectional,
                .y = tokens<float>(y.data())};
    }

    ssmkit::s5_backward_args<float> backward_args()
    {
        return {.forward = args(),
                .dy = tokens<const float>(dy.data()),
                .dA = numbers<complex, 1>(dA, s.state),
                .ddelta = numbers<float, 1>(ddelta, s.state),
                .dinterval = numbers<float, 2>(dinterval, s.batch, s.length),
                .dB = numbers<complex, 2>(dB, s.state, s.dim),
                .dC = numbers<complex, 2>(dC, s.dim, (s.bidirectional ? 2 : 1) * s.state),
                .dD = numbers<float, 1>(dD, s.dim),
                .du = tokens<float>(du.data())};
    }

    /// `products` times 2 state dim multiply-adds for every token, `arrays` times the size of u in bytes.
    work needs(double products, double arrays) const
    {
        work w;
        const double tokens = static_cast<double>(s.batch * s.length), scans = s.bidirectional ? 2 : 1;
        w.token_channels = tokens * static_cast<double>(s.dim);
        w.updates = tokens * static_cast<double>(s.state) * scans;
        w.fmas = w.updates * (products * 2 * static_cast<double>(s.dim) + 2 * products);
        w.bytes = arrays * sizeof(float) * w.token_channels;
        return w;
    }
};

}  // namespace bench
