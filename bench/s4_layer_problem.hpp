#pragma once

// What the benchmarks of S4's layer, forward and backward, run on.

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/args/s4_backward.hpp>
#include <ssmkit/s4_setup.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::s4_form, ssmkit::view;

/// `state` as S4 counts: twice the conjugate pairs.
struct s4_layer_shape {
    index batch, channels, state, length, rank = 1;
    s4_form form = s4_form::automatic;

    std::string name() const
    {
        return by({batch, channels, state, length}) + (rank == 1 ? "" : "-rank" + std::to_string(rank)) +
               (form == s4_form::states ? "-states" : "");
    }
    index pairs() const { return state / 2; }
    std::size_t elements() const { return count(batch, channels, length); }

    /// For the reference, which goes token by token with dense matrices: fewer channels, whose steps span the same range.
    s4_layer_shape small() const { return {2, 2, state, std::min<index>(length, 1024), rank, form}; }
};

/// Poles spread as HiPPO-LegS spreads them, steps from 1e-3 to 1e-1, one copy of A for all channels; in E.
template <class E>
struct s4_layer_problem {
    using complex = std::complex<E>;
    s4_layer_shape s;
    array<E> u, D;
    array<double> delta;
    array<std::complex<double>> A;
    array<complex> B, P, C, true_C;  // prepared, and what it was prepared from

    explicit s4_layer_problem(const s4_layer_shape& shape) : s(shape)
    {
        const auto channels = static_cast<std::size_t>(s.channels), pairs = static_cast<std::size_t>(s.pairs());
        u = rounded(fill<float>(s.elements(), -1, 1, 1));
        D = rounded(fill<float>(channels, -1, 1, 3));
        for (index h = 0; h < s.channels; ++h) {
            delta.push_back(1e-3 * std::pow(100.0, static_cast<double>(h) / static_cast<double>(s.channels)));
        }
        for (index n = 0; n < s.pairs(); ++n) {
            A.emplace_back(-0.5, -std::exp(std::log(1300.0) * static_cast<double>(n) / static_cast<double>(s.pairs())));
        }
        B = rounded(fill_complex<float>(pairs, -1, 1, 4));
        P = rounded(fill_complex<float>(count(s.rank, pairs), -1, 1, 6));
        C = rounded(fill_complex<float>(channels * pairs, -1, 1, 8));
        true_C.resize(C.size());
        ssmkit::s4_setup(ssmkit::s4_setup_args<E>{.delta = steps(),
                                                  .A = {A.data(), 1, s.pairs()},
                                                  .P = {P.data(), s.rank, 1, s.pairs()},
                                                  .C = {C.data(), 1, s.channels, s.pairs()},
                                                  .length = s.length,
                                                  .map = ssmkit::s4_map::recover,
                                                  .out = {true_C.data(), 1, s.channels, s.pairs()}});
    }

    /// The same numbers whatever E is.
    static array<E> rounded(const array<float>& x) { return {x.begin(), x.end()}; }
    static array<complex> rounded(const array<std::complex<float>>& x) { return {x.begin(), x.end()}; }

    view<const double, 2> steps() const { return {delta.data(), {s.channels, s.pairs()}, {1, 0}}; }

    template <class X>
    view<X, 3> tokens(X* p) const
    {
        return view<X, 3>(p, s.batch, s.channels, s.length).transposed(1, 2);
    }

    ssmkit::s4_args<E> args(E* y) const
    {
        return {.u = tokens(u.data()),
                .delta = steps(),
                .A = {A.data(), 1, s.pairs()},
                .B = {B.data(), 1, s.pairs()},
                .P = {P.data(), s.rank, 1, s.pairs()},
                .C = {C.data(), 1, s.channels, s.pairs()},
                .D = {D.data(), 1, s.channels},
                .form = s.form,
                .y = tokens(y)};
    }

    ssmkit::s4_args<E> by_states(E* y, bool recovered) const
    {
        auto a = args(y);
        a.form = s4_form::states;
        if (recovered) a.true_C = {true_C.data(), 1, s.channels, s.pairs()};
        return a;
    }
};

/// The states' arithmetic: inputs to states and back, two multiply-adds each a pair, half of a chunk's pairs of tokens, and
/// (2 pairs)² a chunk. A convolution's: the kernel's Cauchy sums as s4_kernel_problem.hpp counts them, once, and transforms of
/// twice the length, `transforms` a row and two a channel, as fft_conv_problem.hpp does.
inline work s4_layer_needs(const s4_layer_shape& s, double transforms = 2)
{
    const double n = static_cast<double>(s.elements()), pairs = static_cast<double>(s.pairs()), chunk = 32;
    work w{.updates = n * pairs, .token_channels = n, .bytes = 2 * sizeof(float) * n};
    if (s.form == s4_form::states) {
        w.fmas = n * (4 * pairs + chunk / 2 + 4 * pairs * pairs / chunk);
        return w;
    }
    const double length = static_cast<double>(s.length), channels = static_cast<double>(s.channels);
    const double batch = static_cast<double>(s.batch);
    const double terms = static_cast<double>((1 + s.rank) * (1 + s.rank)), one = 2.5 * length * std::log2(2 * length);
    w.fmas = channels * (pairs * (length / 2 + 1) * (12 * std::ceil(terms / 4) + 4 * terms) + one * (transforms * batch + 2));
    return w;
}

}  // namespace bench
