#pragma once

// Problems of ConvS5 with random content, for the tests of its passes.

#include <complex>
#include <string>
#include <vector>

#include <ssmkit/args/convs5_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct convs5_setup {
    index batch = 2, length = 19, height = 4, width = 3, dim = 2, state = 3, out = 2;
    index in_rows = 3, in_columns = 3, out_rows = 1, out_columns = 1;
    bool initial_state = false, conjugate_pairs = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;

    std::string text() const
    {
        std::string s;
        for (const index n : {batch, length, height, width, dim, state, out, in_rows, in_columns, out_rows, out_columns})
            s += std::to_string(n) + " ";
        return s + "layouts " + std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
    }
};

template <class T>
struct convs5_problem {
    using complex = typename convs5_args<T>::complex;

    convs5_setup s;
    tensor<complex, 1> A, dA;
    tensor<complex, 4> B, C, initial_state, final_state, dfinal_state, dB, dC, dinitial_state;
    tensor<T, 5> u, y, dy, du;

    explicit convs5_problem(const convs5_setup& setup) : s(setup)
    {
        random numbers(9);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents, range r) {
            t = tensor<E, Rank>(extents, s.inputs, s.edge);
            t.fill(numbers, r);
        };
        filled(A, {s.state}, {-0.6, 0.6});
        filled(B, {s.in_rows, s.in_columns, s.dim, s.state}, {-1, 1});
        filled(C, {s.out_rows, s.out_columns, s.state, s.out}, {-1, 1});
        filled(u, {s.batch, s.length, s.height, s.width, s.dim}, {-1, 1});
        filled(dy, {s.batch, s.length, s.height, s.width, s.out}, {-1, 1});
        if (s.initial_state) filled(initial_state, {s.batch, s.height, s.width, s.state}, {-1, 1});
        if (s.initial_state) filled(dfinal_state, {s.batch, s.height, s.width, s.state}, {-1, 1});
        make_outputs();
    }

    convs5_problem(const convs5_setup& setup, std::nullptr_t) : s(setup) {}

    convs5_problem<double> wide() const
    {
        convs5_problem<double> w(s, nullptr);
        const auto copy = [](const auto& from, auto& to) {
            to = from.template as<std::remove_cvref_t<decltype(*to.view().data())>>();
        };
        copy(A, w.A), copy(B, w.B), copy(C, w.C), copy(u, w.u), copy(dy, w.dy), copy(initial_state, w.initial_state);
        copy(dfinal_state, w.dfinal_state);
        w.make_outputs();
        return w;
    }

    void make_outputs()
    {
        const auto make = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents) {
            t = tensor<E, Rank>(extents, s.outputs, s.edge);
        };
        make(y, {s.batch, s.length, s.height, s.width, s.out}), make(final_state, {s.batch, s.height, s.width, s.state});
        make(dA, {s.state}), make(dB, {s.in_rows, s.in_columns, s.dim, s.state}),
            make(dC, {s.out_rows, s.out_columns, s.state, s.out});
        make(du, {s.batch, s.length, s.height, s.width, s.dim}), make(dinitial_state, {s.batch, s.height, s.width, s.state});
    }

    convs5_args<T> args() const
    {
        return {.A = A.view(), .B = B.view(), .C = C.view(), .u = u.view(), .initial_state = initial_state.view(),
                .conjugate_pairs = s.conjugate_pairs, .y = y.view(), .final_state = final_state.view()};
    }

    convs5_backward_args<T> backward_args() const
    {
        convs5_backward_args<T> x{.forward = args(),
                                  .dy = dy.view(),
                                  .dfinal_state = dfinal_state.view(),
                                  .dA = dA.view(),
                                  .dB = dB.view(),
                                  .dC = dC.view(),
                                  .du = du.view(),
                                  .dinitial_state = dinitial_state.view()};
        x.forward.y = {};
        x.forward.final_state = {};
        return x;
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && final_state.gaps_untouched() && dA.gaps_untouched() && dB.gaps_untouched() &&
               dC.gaps_untouched() && du.gaps_untouched() && dinitial_state.gaps_untouched();
    }

    template <class Other, class F>
    void for_each_gradient(const Other& other, F&& f) const
    {
        f("dA", dA, other.dA), f("dB", dB, other.dB), f("dC", dC, other.dC), f("du", du, other.du);
        f("dinitial_state", dinitial_state, other.dinitial_state);
    }
};

/// Kernels of even and odd sizes, larger than the image among them, and every axis at 0, 1 and more.
inline std::vector<convs5_setup> convs5_setups()
{
    std::vector<convs5_setup> all;
    for (const index n : {1, 2, 3, 4, 5, 9}) {
        convs5_setup s{.initial_state = n % 2 == 0, .conjugate_pairs = n % 3 == 0};
        s.in_rows = n, s.in_columns = 6 - n % 4, s.out_rows = 1 + n % 3, s.out_columns = n;
        all.push_back(s);
    }
    for (const index n : {0, 1, 2, 15, 16, 17, 33, 40}) {
        for (index convs5_setup::*axis : {&convs5_setup::length, &convs5_setup::height, &convs5_setup::width, &convs5_setup::dim,
                                          &convs5_setup::state, &convs5_setup::out}) {
            convs5_setup s{.batch = 1, .length = 3, .initial_state = true};
            s.*axis = n;
            all.push_back(s);
        }
    }
    all.push_back({.batch = 0});
    return all;
}

}  // namespace ssmkit::testing
