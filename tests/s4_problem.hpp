#pragma once

// S4 models with random content, for the tests of its kernel, gradients, maps and steps.

#include <array>
#include <cmath>
#include <complex>
#include <type_traits>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <ssmkit/args/s4_kernel_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct s4_shape {
    index channels = 1, dim = 3, state = 4, rank = 1, copies = 3, batch = 0, length = 21, prepared = 0;
    double rate = 1, bandlimit = std::numeric_limits<double>::infinity();
    bool tied = true;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;

    std::string text() const
    {
        std::string t;
        for (const index n : {channels, dim, state, rank, copies, batch, length, prepared}) t += std::to_string(n) + " ";
        return t + (tied ? "tied" : "") + " rate " + std::to_string(rate) + " layouts " +
               std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
    }
};

/// Every length, rank and number of kernels; other rates, longer preparation, a band limit and a step for each state; several chunks
/// of nodes; layouts, and nothing outside the arguments.
inline std::vector<s4_shape> all_s4_shapes()
{
    std::vector<s4_shape> all{{.length = 1, .prepared = 3},  // with L' = 1, K does not depend on Δ
                              {.dim = 18, .state = 3, .copies = 1, .length = 10},
                              {.channels = 3, .dim = 7, .state = 1, .copies = 7, .batch = 1, .length = 5},
                              {.dim = 1, .state = 2, .copies = 1, .batch = 1, .length = 700, .prepared = 1201}};
    for (const index length : {2, 3, 4, 7, 8, 15, 16, 17, 30, 31, 33, 64}) all.push_back({.length = length});
    for (const index rank : {0, 2, 3, 5}) all.push_back({.channels = 2, .rank = rank, .batch = 2, .length = 12});
    for (const index channels : {1, 3, 4}) all.push_back({.channels = channels, .dim = 4, .copies = 2, .batch = 3, .length = 9});
    for (const bool tied : {false, true}) {
        all.push_back({.batch = 1, .length = 11, .prepared = 32, .tied = tied});
        all.push_back({.batch = 1, .length = 9, .prepared = 20, .rate = 2, .tied = tied});
        all.push_back({.batch = 1, .length = 30, .prepared = 20, .rate = 0.6, .tied = tied});
        all.push_back({.rank = 2, .batch = 1, .bandlimit = 0.1, .tied = tied});
    }
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            all.push_back({.channels = 2, .dim = 2, .state = 3, .rank = 2, .copies = 2, .batch = 1, .length = 6, .tied = false,
                           .inputs = inputs, .outputs = outputs});
        }
    }
    for (const guard edge : {guard::below, guard::above}) all.push_back({.batch = 1, .length = 17, .edge = edge});
    return all;
}

template <class T>
struct s4_problem {
    using E = std::complex<T>;
    using W = std::complex<double>;
    s4_shape s;
    tensor<double, 2> delta, ddelta;
    tensor<W, 2> A, dA;
    tensor<E, 2> B, dB;
    tensor<E, 3> P, C, initial_state, dP, dC, dinitial_state;
    tensor<T, 3> K, dK;
    tensor<T, 4> K_state, dK_state;

    explicit s4_problem(const s4_shape& shape) : s(shape)
    {
        random numbers(static_cast<std::uint64_t>(s.length + 100 * s.state + 1000 * s.rank) + 1);
        const auto filled = [&](auto& t, const auto& extents, range r) {
            t = std::remove_reference_t<decltype(t)>(extents, s.inputs, s.edge);
            t.fill(numbers, r);
        };
        using two = std::array<index, 2>;
        using three = std::array<index, 3>;
        using four = std::array<index, 4>;
        filled(delta, two{s.dim, s.tied ? 1 : s.state}, {0.05, 0.4});
        filled(A, two{s.copies, s.state}, {-1.5, -0.3, -4, 4});
        filled(B, two{s.copies, s.state}, {-1, 1});
        if (s.rank > 0) filled(P, three{s.rank, s.copies, s.state}, {-0.7, 0.7});
        filled(C, three{s.channels, s.dim, s.state}, {-1, 1});
        filled(dK, three{s.channels, s.dim, s.length}, {-1, 1});
        if (s.batch > 0) {
            filled(initial_state, three{s.batch, s.dim, s.state}, {-1, 1});
            filled(dK_state, four{s.batch, s.channels, s.dim, s.length}, {-1, 1});
        }
        make_outputs();
    }
    s4_problem(const s4_shape& shape, std::nullptr_t) : s(shape) {}

    void make_outputs()
    {
        const auto made = [&](auto& t, const auto& extents) {
            t = std::remove_reference_t<decltype(t)>(extents, s.outputs, s.edge);
        };
        using two = std::array<index, 2>;
        using three = std::array<index, 3>;
        made(K, three{s.channels, s.dim, s.length});
        if (s.batch > 0) K_state = tensor<T, 4>({s.batch, s.channels, s.dim, s.length}, s.outputs, s.edge);
        made(ddelta, two{s.dim, s.tied ? 1 : s.state});
        made(dA, two{s.copies, s.state});
        made(dB, two{s.copies, s.state});
        if (s.rank > 0) made(dP, three{s.rank, s.copies, s.state});
        made(dC, three{s.channels, s.dim, s.state});
        if (s.batch > 0) made(dinitial_state, three{s.batch, s.dim, s.state});
    }

    /// The same numbers in double.
    s4_problem<double> wide() const
    {
        s4_problem<double> w(s, nullptr);
        w.delta = delta.template as<double>(), w.A = A.template as<W>(), w.B = B.template as<W>(), w.P = P.template as<W>();
        w.C = C.template as<W>(), w.initial_state = initial_state.template as<W>();
        w.dK = dK.template as<double>(), w.dK_state = dK_state.template as<double>();
        w.make_outputs();
        return w;
    }

    template <class F>
    view<F, 2> steps(const tensor<double, 2>& t) const
    {
        const view<double, 2> v = t.view();
        return {v.data(), {s.dim, s.state}, {v.stride(0), s.tied ? 0 : v.stride(1)}};
    }

    s4_kernel_args<T> args() const
    {
        return {.delta = steps<const double>(delta), .A = A, .B = B, .P = P, .C = C, .prepared_length = s.prepared, .rate = s.rate,
                .bandlimit = s.bandlimit, .initial_state = initial_state, .K = K, .K_state = K_state};
    }

    s4_kernel_backward_args<T> backward() const
    {
        return {.forward = args(),
                .dK = dK,
                .dK_state = dK_state,
                .ddelta = steps<double>(ddelta),
                .dA = dA,
                .dB = dB,
                .dP = dP,
                .dC = dC,
                .dinitial_state = dinitial_state};
    }
};

/// Poles beside nodes, as LegT and the Fourier measures have them: Re Λ = -1e-4, for float -1e-3, and Im Λ on nodes. |E| is some
/// 1e-5 there, of which float's sums lose eps / |E|.
template <class T>
s4_problem<T> problem_beside_nodes()
{
    s4_problem<T> p({.dim = 1, .state = 4, .copies = 1, .length = 32});
    p.delta.fill([](auto...) { return 0.1; });
    p.A.fill([](index, index n) {
        const double y = 2 * std::tan(3.14159265358979324 * static_cast<double>(3 * n + 1) / 32);
        return std::complex<double>(std::is_same_v<T, float> ? -1e-3 : -1e-4, -y / 0.1);
    });
    return p;
}

/// The Fourier measure in closed form, its low-rank part in one row or split into two or three; Re Λ is the least that is stored.
inline s4_problem<float> closed_fourier_problem(index rank, index length)
{
    s4_problem<float> p({.channels = 2, .dim = 4, .state = 16, .rank = rank, .copies = 1, .batch = 1, .length = length});
    p.delta.fill([](index h, index) { return std::array{1e-3, 4e-3, 2e-2, 1e-1}[static_cast<std::size_t>(h)]; });
    p.A.fill([](index, index n) { return std::complex<double>(-1e-4, -3.14159265358979324 * static_cast<double>(15 - n)); });
    const auto b = [](index n) { return n == 15 ? 0.70710678f : 1.0f; };
    p.B.fill([&](index, index n) { return std::complex<float>(b(n)); });
    p.P.fill([&](index r, index, index n) { return std::complex<float>(n % rank == r ? b(n) : 0.0f); });
    return p;
}

}  // namespace ssmkit::testing
