#pragma once

// Problems of S7's scan with random content, for the tests of its passes.

#include <string>
#include <vector>

#include <ssmkit/args/s7_scan_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct s7_setup {
    index batch = 2, length = 70, dim = 3, state = 5, out = 4;
    bool bias = false, initial_state = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;

    std::string text() const
    {
        std::string s;
        for (const index n : {batch, length, dim, state, out}) s += std::to_string(n) + " ";
        return s + "layouts " + std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs)) +
               (bias ? " bias" : "") + (initial_state ? " initial_state" : "");
    }
};

template <class T>
struct s7_problem {
    using real = typename s7_scan_args<T>::real;

    s7_setup s;
    tensor<T, 3> u, A, bias, y, dy, du, dA, dbias;
    tensor<T, 4> B, C, dB, dC;
    tensor<real, 2> initial_state, final_state, dfinal_state, dinitial_state;

    explicit s7_problem(const s7_setup& setup) : s(setup)
    {
        random numbers(5);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents, range r) {
            t = tensor<E, Rank>(extents, s.inputs, s.edge);
            t.fill(numbers, r);
        };
        filled(u, {s.batch, s.length, s.dim}, {-1, 1});
        filled(A, {s.batch, s.length, s.state}, {-4, 4});  // factors from -1 to 0.94
        filled(B, {s.batch, s.length, s.dim, s.state}, {-1, 1});
        filled(C, {s.batch, s.length, s.out, s.state}, {-1, 1});
        if (s.bias) filled(bias, {s.batch, s.length, s.state}, {-1, 1});
        if (s.initial_state) filled(initial_state, {s.batch, s.state}, {-1, 1});
        filled(dy, {s.batch, s.length, s.out}, {-1, 1});
        if (s.initial_state) filled(dfinal_state, {s.batch, s.state}, {-1, 1});
        make_outputs();
    }

    s7_problem(const s7_setup& setup, std::nullptr_t) : s(setup) {}

    s7_problem<double> wide() const
    {
        s7_problem<double> w(s, nullptr);
        const auto copy = [](const auto& from, auto& to) { to = from.template as<double>(); };
        copy(u, w.u), copy(A, w.A), copy(B, w.B), copy(C, w.C), copy(bias, w.bias), copy(initial_state, w.initial_state),
            copy(dy, w.dy);
        copy(dfinal_state, w.dfinal_state);
        w.make_outputs();
        return w;
    }

    void make_outputs()
    {
        const auto make = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents) {
            t = tensor<E, Rank>(extents, s.outputs, s.edge);
        };
        make(y, {s.batch, s.length, s.out}), make(final_state, {s.batch, s.state}), make(du, {s.batch, s.length, s.dim});
        make(dA, {s.batch, s.length, s.state}), make(dB, {s.batch, s.length, s.dim, s.state}),
            make(dC, {s.batch, s.length, s.out, s.state});
        make(dbias, {s.batch, s.length, s.state}), make(dinitial_state, {s.batch, s.state});
    }

    s7_scan_args<T> args() const
    {
        return {.u = u.view(),
                .A = A.view(),
                .B = B.view(),
                .C = C.view(),
                .bias = bias.view(),
                .initial_state = initial_state.view(),
                .y = y.view(),
                .final_state = final_state.view()};
    }

    s7_scan_backward_args<T> backward_args() const
    {
        s7_scan_backward_args<T> x{.forward = args(),
                                   .dy = dy.view(),
                                   .dfinal_state = dfinal_state.view(),
                                   .du = du.view(),
                                   .dA = dA.view(),
                                   .dB = dB.view(),
                                   .dC = dC.view(),
                                   .dbias = dbias.view(),
                                   .dinitial_state = dinitial_state.view()};
        x.forward.y = {};
        x.forward.final_state = {};
        return x;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {u.bytes(), A.bytes(), B.bytes(), C.bytes(), bias.bytes(), initial_state.bytes(), dy.bytes(), dfinal_state.bytes()};
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && final_state.gaps_untouched() && du.gaps_untouched() && dA.gaps_untouched() &&
               dB.gaps_untouched() && dC.gaps_untouched() && dbias.gaps_untouched() && dinitial_state.gaps_untouched();
    }

    template <class Other, class F>
    void for_each_gradient(const Other& other, F&& f) const
    {
        f("du", du, other.du), f("dA", dA, other.dA), f("dB", dB, other.dB), f("dC", dC, other.dC), f("dbias", dbias, other.dbias);
        f("dinitial_state", dinitial_state, other.dinitial_state);
    }
};

inline constexpr index s7_sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 35, 63, 64, 65, 97};

}  // namespace ssmkit::testing
