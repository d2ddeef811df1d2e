#pragma once

// What the benchmarks of S4's kernel, forward and backward, and of its set-up run on.

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/args/s4_kernel_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

/// `state` counts pairs.
struct s4_kernel_shape {
    index dim, state, length, rank = 1;

    std::string name() const { return by({dim, state, length}) + (rank == 1 ? "" : "-rank" + std::to_string(rank)); }

    /// For the reference, which solves a dense system at every node: fewer channels, whose steps span the same range.
    s4_kernel_shape small() const { return {2, state, std::min<index>(length, 1024), rank}; }
};

/// Poles spread as HiPPO-LegS spreads them, steps from 1e-3 to 1e-1, one copy of A for all channels.
template <class T>
struct s4_kernel_data {
    using complex = std::complex<T>;
    s4_kernel_shape s;
    array<double> delta, ddelta;
    array<std::complex<double>> A, dA;
    array<complex> B, P, C, dB, dP, dC;
    array<T> K, dK;

    explicit s4_kernel_data(const s4_kernel_shape& shape) : s(shape)
    {
        for (index h = 0; h < s.dim; ++h)
            delta.push_back(1e-3 * std::pow(100.0, static_cast<double>(h) / static_cast<double>(s.dim)));
        for (index n = 0; n < s.state; ++n)
            A.emplace_back(-0.5, -std::exp(std::log(1300.0) * static_cast<double>(n) / static_cast<double>(s.state)));
        B = rounded(fill_complex<float>(count(s.state), -1, 1, 1));
        P = rounded(fill_complex<float>(count(s.rank, s.state), -1, 1, 2));
        C = rounded(fill_complex<float>(count(s.dim, s.state), -1, 1, 3));
        const array<float> gradient = fill<float>(count(s.dim, s.length), -1, 1, 4);
        dK.assign(gradient.begin(), gradient.end());
        K.resize(dK.size()), ddelta.resize(delta.size()), dA.resize(A.size()), dB.resize(B.size()), dP.resize(P.size()),
            dC.resize(C.size());
    }

    /// The same numbers whatever T is.
    static array<complex> rounded(const array<std::complex<float>>& x) { return {x.begin(), x.end()}; }

    ssmkit::s4_kernel_args<T> args()
    {
        return {.delta = {delta.data(), {s.dim, s.state}, {1, 0}},
                .A = {A.data(), 1, s.state},
                .B = {B.data(), 1, s.state},
                .P = {P.data(), s.rank, 1, s.state},
                .C = {C.data(), 1, s.dim, s.state},
                .K = {K.data(), 1, s.dim, s.length}};
    }

    ssmkit::s4_kernel_backward_args<T> backward_args()
    {
        return {.forward = args(),
                .dK = {dK.data(), 1, s.dim, s.length},
                .ddelta = {ddelta.data(), {s.dim, s.state}, {1, 0}},
                .dA = {dA.data(), 1, s.state},
                .dB = {dB.data(), 1, s.state},
                .dP = {dP.data(), s.rank, 1, s.state},
                .dC = {dC.data(), 1, s.dim, s.state}};
    }

    /// The Cauchy sums, as cauchy_problem.hpp counts them: (1 + rank)² terms, four of which share a reciprocal. The transform, 2.5
    /// L log₂ L operations, comes on top.
    work needs() const
    {
        const double nodes = static_cast<double>(s.length / 2 + 1), terms = static_cast<double>((1 + s.rank) * (1 + s.rank));
        const double pairs = static_cast<double>(s.dim * s.state) * nodes, length = static_cast<double>(s.length);
        const double transform = 1.25 * length * std::log2(length) * static_cast<double>(s.dim);  // pairs of operations
        return {.updates = static_cast<double>(s.dim * s.state) * length, .token_channels = static_cast<double>(s.dim) * length,
                .fmas = pairs * (12 * std::ceil(terms / 4) + 4 * terms) + transform,
                .bytes = static_cast<double>(K.size() * sizeof(T)), .kind = traffic::update};
    }

    /// The sums again, and at every node, for both poles of a pair, the two vectors that the gradients are made of and what they
    /// give to A, B, C̃ and P: 28 multiply-adds, with 16 more for each column of P. The gradient is read.
    work backward_needs() const
    {
        work w = needs();
        w.fmas += 2 * static_cast<double>(count(s.dim, s.state, s.length / 2 + 1)) * static_cast<double>(28 + 16 * s.rank);
        w.kind = traffic::read;
        return w;
    }
};

}  // namespace bench
