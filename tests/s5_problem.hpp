#pragma once

// Problems of S5 with random content, for the tests of its passes.

#include <complex>
#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/s5_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct s5_setup {
    index batch = 2, length = 70, dim = 5, state = 6, out = 3;  // out is dim if there is a D
    bool discrete = false, events = false, D = false, initial_state = false, packed = false, reverse = false, bidirectional = false;
    bool liquid = false, conjugate_pairs = false, clip_eigs = false;
    discretization method = discretization::zoh;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s;
        for (const index n : {batch, length, dim, state, out}) s += std::to_string(n) + " ";
        s += "layouts " + std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs)) + " method " +
             std::to_string(static_cast<int>(method));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(discrete, "discrete"), add(events, "events"), add(D, "D"), add(initial_state, "initial_state"), add(packed, "packed");
        add(reverse, "reverse"), add(bidirectional, "bidirectional"), add(liquid, "liquid"), add(conjugate_pairs, "pairs");
        add(clip_eigs, "clip");
        return s;
    }

    s5_setup with_options(unsigned bits) const
    {
        s5_setup s = *this;
        s.seed = bits + 1;
        for (bool* flag : {&s.discrete, &s.events, &s.D, &s.initial_state, &s.packed, &s.reverse, &s.bidirectional, &s.liquid,
                           &s.conjugate_pairs, &s.clip_eigs}) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        s.events &= !s.discrete;
        s.clip_eigs &= !s.discrete;
        s.reverse &= !s.bidirectional;
        if (s.D) s.out = s.dim;
        return s;
    }
    static constexpr unsigned options = 10;
};

template <class T>
struct s5_problem {
    using real = typename s5_args<T>::real;
    using complex = typename s5_args<T>::complex;

    s5_setup s;
    tensor<complex, 1> A;
    tensor<real, 1> delta, D;
    tensor<real, 2> interval;
    tensor<complex, 2> B, C, initial_state, final_state;
    tensor<T, 3> u, y, dy, du;
    tensor<std::uint8_t, 2> reset;
    tensor<complex, 2> dfinal_state, dB, dC, dinitial_state;
    tensor<complex, 1> dA;
    tensor<real, 1> ddelta, dD;
    tensor<real, 2> dinterval;

    explicit s5_problem(const s5_setup& setup) : s(setup)
    {
        random numbers(s.seed);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents, range r) {
            t = tensor<E, Rank>(extents, s.inputs, s.edge);
            t.fill(numbers, r);
        };
        const double small = s.liquid ? 0.1 : 1;  // the input is added to the pole, which must stay within the unit circle
        const double turn = s.method == discretization::forward_euler ? 0.3 : 4;  // its pole 1 + z leaves the unit circle soon
        filled(A, {s.state}, s.discrete ? range{-0.6, 0.6} : range{-1.5, s.clip_eigs ? 0.1 : -0.05, -turn, turn});
        if (!s.discrete) filled(delta, {s.state}, {0.05, 0.4});
        if (s.events) filled(interval, {s.batch, s.length}, {0, 2});
        filled(B, {s.state, s.dim}, {-small, small});
        filled(C, {s.out, (s.bidirectional ? 2 : 1) * s.state}, {-1, 1});
        if (s.D) filled(D, {s.dim}, {-1, 1});
        filled(u, {s.batch, s.length, s.dim}, {-1, 1});
        const index columns = C.extent(1);
        if (s.initial_state) filled(initial_state, {s.batch, columns}, {-1, 1});
        filled(dy, {s.batch, s.length, s.out}, {-1, 1});
        if (s.initial_state) filled(dfinal_state, {s.batch, columns}, {-1, 1});
        if (s.packed) {
            reset = tensor<std::uint8_t, 2>({s.batch, s.length}, s.inputs, s.edge);
            reset.fill([&](index, index) { return static_cast<std::uint8_t>(numbers.below(9) == 0 ? 1 + numbers.below(255) : 0); });
        }
        make_outputs();
    }

    s5_problem(const s5_setup& setup, std::nullptr_t) : s(setup) {}

    /// The same numbers in 64 bits.
    s5_problem<double> wide() const
    {
        s5_problem<double> w(s, nullptr);
        const auto copy = [](const auto& from, auto& to) {
            to = from.template as<std::remove_cvref_t<decltype(*to.view().data())>>();
        };
        copy(A, w.A), copy(delta, w.delta), copy(D, w.D), copy(interval, w.interval), copy(B, w.B), copy(C, w.C);
        copy(initial_state, w.initial_state), copy(u, w.u), copy(dy, w.dy), copy(reset, w.reset),
            copy(dfinal_state, w.dfinal_state);
        w.make_outputs();
        return w;
    }

    /// Outputs full of NaN.
    void make_outputs()
    {
        const auto make = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents) {
            t = tensor<E, Rank>(extents, s.outputs, s.edge);
        };
        const index columns = C.extent(1);
        make(y, {s.batch, s.length, s.out}), make(final_state, {s.batch, columns});
        make(du, {s.batch, s.length, s.dim}), make(dB, {s.state, s.dim}), make(dC, {s.out, columns}), make(dA, {s.state});
        make(dinitial_state, {s.batch, columns});
        if (delta.given()) make(ddelta, {s.state});
        if (interval.given()) make(dinterval, {s.batch, s.length});
        if (D.given()) make(dD, {s.dim});
    }

    s5_args<T> args() const
    {
        return {.A = A.view(),
                .delta = delta.view(),
                .interval = interval.view(),
                .B = B.view(),
                .C = C.view(),
                .D = D.view(),
                .u = u.view(),
                .initial_state = initial_state.view(),
                .reset = reset.view(),
                .method = s.method,
                .conjugate_pairs = s.conjugate_pairs,
                .clip_eigs = s.clip_eigs,
                .reverse = s.reverse,
                .bidirectional = s.bidirectional,
                .liquid = s.liquid,
                .y = y.view(),
                .final_state = final_state.view()};
    }

    s5_backward_args<T> backward_args() const
    {
        s5_backward_args<T> x{.forward = args(),
                              .dy = dy.view(),
                              .dfinal_state = dfinal_state.view(),
                              .dA = dA.view(),
                              .ddelta = ddelta.view(),
                              .dinterval = dinterval.view(),
                              .dB = dB.view(),
                              .dC = dC.view(),
                              .dD = dD.view(),
                              .du = du.view(),
                              .dinitial_state = dinitial_state.view()};
        x.forward.y = {};
        x.forward.final_state = {};
        return x;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {A.bytes(), delta.bytes(), D.bytes(),     interval.bytes(),    B.bytes(), C.bytes(), initial_state.bytes(),
                u.bytes(), dy.bytes(),    reset.bytes(), dfinal_state.bytes()};
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && final_state.gaps_untouched() && du.gaps_untouched() && dB.gaps_untouched() &&
               dC.gaps_untouched() && dA.gaps_untouched() && ddelta.gaps_untouched() && dD.gaps_untouched() &&
               dinterval.gaps_untouched() && dinitial_state.gaps_untouched();
    }

    /// Calls f(name, tensor of this, tensor of the other) for every gradient.
    template <class Other, class F>
    void for_each_gradient(const Other& other, F&& f) const
    {
        f("du", du, other.du), f("dB", dB, other.dB), f("dC", dC, other.dC), f("dA", dA, other.dA),
            f("ddelta", ddelta, other.ddelta);
        f("dD", dD, other.dD), f("dinterval", dinterval, other.dinterval),
            f("dinitial_state", dinitial_state, other.dinitial_state);
    }
};

/// Around the registers of every instruction set and the blocks of the products.
inline constexpr index s5_sizes[] = {0,  1,  2,  3,  4,  5,  7,  8,  9,  15,  16,  17,  31,
                                     32, 33, 35, 47, 49, 63, 64, 65, 67, 127, 128, 129, 131};

inline constexpr discretization all_methods[] = {discretization::zoh,           discretization::bilinear,
                                                 discretization::forward_euler, discretization::backward_euler,
                                                 discretization::dirac,         discretization::async};

}  // namespace ssmkit::testing
