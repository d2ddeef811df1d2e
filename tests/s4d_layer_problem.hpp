#pragma once

// Random problems for S4D's layer, forward and backward.

#include <cstdint>
#include <string>

#include <ssmkit/args/s4d_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct s4d_layer_setup {
    index batch = 2, length = 70, dim = 6, state = 5, copies = 3, channels = 2;
    bool D = true, initial_state = true, reverse = false, tied = true, pairs = true;
    s4d_discretization method = s4d_discretization::zoh;
    double rate = 1;
    layout form = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s;
        for (const index i : {batch, length, dim, state, copies, channels}) s += std::to_string(i) + " ";
        return s + "layout " + std::to_string(static_cast<int>(form)) + " seed " + std::to_string(seed);
    }

    s4d_layer_setup with_options(unsigned bits) const
    {
        s4d_layer_setup s = *this;
        s.seed = bits + 1;
        for (bool* flag : {&s.D, &s.initial_state, &s.reverse, &s.tied, &s.pairs}) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 5;
};

template <class T>
struct s4d_layer_problem {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    s4d_layer_setup s;
    tensor<T, 3> u, y;
    tensor<double, 2> delta;
    tensor<std::complex<double>, 2> A;
    tensor<complex, 2> B;
    tensor<real, 2> D;
    tensor<complex, 3> C, initial_state, final_state;

    explicit s4d_layer_problem(const s4d_layer_setup& setup) : s(setup)
    {
        random numbers(s.seed);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents, range r) {
            t = tensor<E, Rank>(extents, s.form, s.edge);
            t.fill(numbers, r);
        };
        filled(u, {s.batch, s.length, s.dim}, {-1, 1});
        filled(delta, {s.dim, s.tied ? 1 : s.state}, {0.01, 0.3});
        filled(A, {s.copies, s.state}, {-2, -0.02, -30, 30});
        filled(B, {s.copies, s.state}, {-1, 1});
        filled(C, {s.channels, s.dim, s.state}, {-1, 1});
        if (s.D) filled(D, {s.channels, s.dim}, {-1, 1});
        if (s.initial_state) filled(initial_state, {s.batch, s.dim, s.state}, {-1, 1});
        make_outputs();
    }

    void make_outputs()
    {
        y = {{s.batch, s.length, s.channels * s.dim}, s.form, s.edge};
        final_state = {{s.batch, s.dim, s.state}, s.form, s.edge};
    }

    s4d_layer_problem(const s4d_layer_setup& setup, std::nullptr_t) : s(setup) {}

    /// The same numbers in 64 bits.
    s4d_layer_problem<double> wide() const
    {
        s4d_layer_problem<double> w(s, nullptr);
        w.s.form = layout::row_major;
        w.s.edge = guard::none;
        w.u = u.template as<double>();
        w.delta = delta.template as<double>();
        w.D = D.template as<double>();
        w.A = A.template as<std::complex<double>>();
        w.B = B.template as<std::complex<double>>();
        w.C = C.template as<std::complex<double>>();
        w.initial_state = initial_state.template as<std::complex<double>>();
        w.make_outputs();
        return w;
    }

    s4d_args<T> args() const
    {
        const view<const double, 2> steps = delta;
        return {.u = u,
                .delta = s.tied ? tied_over_state(view<const double, 1>(steps.data(), {s.dim}, {steps.stride(0)}), s.state) : steps,
                .A = A,
                .B = B,
                .C = C,
                .D = D,
                .method = s.method,
                .rate = s.rate,
                .conjugate_pairs = s.pairs,
                .initial_state = initial_state,
                .reverse = s.reverse,
                .y = y,
                .final_state = final_state};
    }
};

/// A problem, gradients of its results, and what is computed of them.
template <class T>
struct s4d_layer_backward_problem {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    s4d_layer_problem<T> p;
    tensor<T, 3> dy, du;
    tensor<double, 2> ddelta;
    tensor<std::complex<double>, 2> dA;
    tensor<complex, 2> dB;
    tensor<real, 2> dD;
    tensor<complex, 3> dC, dfinal_state, dinitial_state;

    explicit s4d_layer_backward_problem(const s4d_layer_setup& s) : p(s)
    {
        random numbers(s.seed + 1000);
        dy = {p.y.view().extents(), s.form, s.edge};
        dy.fill(numbers, {-1, 1});
        if (s.initial_state) {
            dfinal_state = {p.initial_state.view().extents(), s.form, s.edge};
            dfinal_state.fill(numbers, {-1, 1});
        }
        make_outputs();
    }

    explicit s4d_layer_backward_problem(const s4d_layer_problem<T>& problem) : p(problem.s, nullptr) {}

    void make_outputs()
    {
        const s4d_layer_setup& s = p.s;
        du = {{s.batch, s.length, s.dim}, s.form, s.edge};
        ddelta = {{s.dim, s.tied ? 1 : s.state}, s.form, s.edge};
        dA = {{s.copies, s.state}, s.form, s.edge};
        dB = {{s.copies, s.state}, s.form, s.edge};
        dC = {{s.channels, s.dim, s.state}, s.form, s.edge};
        dD = {{s.channels, s.dim}, s.form, s.edge};
        if (s.initial_state) dinitial_state = {{s.batch, s.dim, s.state}, s.form, s.edge};
    }

    /// The same numbers in 64 bits.
    s4d_layer_backward_problem<double> wide() const
    {
        s4d_layer_backward_problem<double> w(s4d_layer_problem<double>(p.s, nullptr));
        w.p = p.wide();
        w.dy = dy.template as<double>();
        w.dfinal_state = dfinal_state.template as<std::complex<double>>();
        w.make_outputs();
        return w;
    }

    s4d_backward_args<T> args() const
    {
        auto f = p.args();
        f.y = {};
        f.final_state = {};
        const view<double, 2> all = ddelta;
        const view<double, 2> steps =
            p.s.tied ? tied_over_state(view<double, 1>(all.data(), {p.s.dim}, {all.stride(0)}), p.s.state) : all;
        return {.forward = f,
                .dy = dy,
                .dfinal_state = dfinal_state,
                .du = du,
                .ddelta = steps,
                .dA = dA,
                .dB = dB,
                .dC = dC,
                .dD = dD,
                .dinitial_state = dinitial_state};
    }

    /// f(name, gradient, other's)
    template <class Other, class F>
    void for_each_gradient(const Other& o, F&& f) const
    {
        f("du", du, o.du), f("dA", dA, o.dA), f("dB", dB, o.dB), f("dC", dC, o.dC), f("dD", dD, o.dD);
        f("dinitial_state", dinitial_state, o.dinitial_state);
        if (p.s.state > 0) f("ddelta", ddelta, o.ddelta);  // a sum over no poles has no element
    }

    void spoil() const
    {
        for_each_gradient(*this, [](const char*, const auto& x, const auto&) {
            using E = std::remove_cvref_t<decltype(*x.view().data())>;
            for_each_index(x.view(), [&](auto... i) { x(i...) = quiet_nan<E>(); });
        });
    }
};

}  // namespace ssmkit::testing
