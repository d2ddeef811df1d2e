#pragma once

// Problems of the causal convolution with random content, for the tests of all its operations.

#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>
#include <ssmkit/reference/causal_conv1d_backward.hpp>

#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {

struct conv_setup {
    index batch = 2, length = 21, dim = 6, width = 4;
    bool bias = false, silu = false, initial_states = false, packed = false, reverse = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(length) + ", " + std::to_string(dim) + ") width " +
                        std::to_string(width) + " layouts " + std::to_string(static_cast<int>(inputs)) + " " +
                        std::to_string(static_cast<int>(outputs));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(bias, "bias");
        add(silu, "silu");
        add(initial_states, "initial_states");
        add(packed, "packed");
        add(reverse, "reverse");
        return s;
    }

    conv_setup with_options(unsigned bits) const
    {
        conv_setup s = *this;
        bool* const flags[] = {&s.bias, &s.silu, &s.initial_states, &s.packed, &s.reverse};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        s.seed = bits + 1;
        return s;
    }
    static constexpr unsigned options = 5;
};

template <class T>
struct conv_problem {
    using real = compute_t<T>;

    conv_setup s;
    tensor<T, 3> x, initial_states, y, final_states;
    tensor<real, 2> weight;
    tensor<real, 1> bias;
    tensor<std::int32_t, 2> seq_idx;
    tensor<T, 3> dy, dfinal_states, dx, dinitial_states;
    tensor<real, 2> dweight;
    tensor<real, 1> dbias;

    explicit conv_problem(const conv_setup& setup) : s(setup)
    {
        random numbers(s.seed);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents) {
            t = tensor<E, Rank>(extents, s.inputs, s.edge);
            t.fill(numbers, {-2, 2});
        };
        filled(x, {s.batch, s.length, s.dim});
        filled(weight, {s.dim, s.width});
        if (s.bias) filled(bias, {s.dim});
        if (s.initial_states) filled(initial_states, {s.batch, s.dim, s.width - 1});
        filled(dy, {s.batch, s.length, s.dim});
        filled(dfinal_states, {s.batch, s.dim, s.width - 1});
        if (s.packed) {  // runs of random length, some of them padding, numbered in any order
            seq_idx = tensor<std::int32_t, 2>({s.batch, s.length}, s.inputs, s.edge);
            std::int32_t current = 0;
            seq_idx.fill([&](index, index) {
                if (numbers.below(6) == 0) current = static_cast<std::int32_t>(numbers.below(5)) - 1;
                return current;
            });
        }
        make_outputs();
    }

    /// The same numbers in double.
    conv_problem<double> wide() const
    {
        conv_problem<double> w(s, nullptr);
        w.x = x.template as<double>();
        w.weight = weight.template as<double>();
        w.bias = bias.template as<double>();
        w.initial_states = initial_states.template as<double>();
        if (seq_idx.given()) w.seq_idx = seq_idx.template as<std::int32_t>();
        w.dy = dy.template as<double>();
        w.dfinal_states = dfinal_states.template as<double>();
        w.make_outputs();
        return w;
    }

    conv_problem(const conv_setup& setup, std::nullptr_t) : s(setup) {}

    /// Outputs full of NaN.
    void make_outputs()
    {
        const std::array<index, 3> tokens{s.batch, s.length, s.dim}, states{s.batch, s.dim, s.width - 1};
        y = {tokens, s.outputs, s.edge};
        final_states = {states, s.outputs, s.edge};
        dx = {tokens, s.outputs, s.edge};
        dinitial_states = {states, s.outputs, s.edge};
        dweight = {{s.dim, s.width}, s.outputs, s.edge};
        dbias = {{s.dim}, s.outputs, s.edge};
    }

    causal_conv1d_args<T> args() const
    {
        return {.x = x.view(), .weight = weight.view(), .bias = bias.view(), .silu = s.silu,
                .initial_states = initial_states.view(), .seq_idx = seq_idx.view(), .reverse = s.reverse, .y = y.view(),
                .final_states = final_states.view()};
    }

    causal_conv1d_backward_args<T> backward_args() const
    {
        causal_conv1d_backward_args<T> a{.forward = args(), .dy = dy.view(), .dfinal_states = dfinal_states.view(),
                                         .dx = dx.view(), .dweight = dweight.view(), .dbias = dbias.view(),
                                         .dinitial_states = dinitial_states.view()};
        a.forward.y = {};
        a.forward.final_states = {};
        return a;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {x.bytes(), weight.bytes(), bias.bytes(), initial_states.bytes(), seq_idx.bytes(), dy.bytes(), dfinal_states.bytes()};
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && final_states.gaps_untouched() && dx.gaps_untouched() && dinitial_states.gaps_untouched() &&
               dweight.gaps_untouched() && dbias.gaps_untouched();
    }
};

/// What the headers promise, and one rounding to T.
template <class T>
constexpr double conv_budget = (std::is_same_v<T, double> ? 4e-15 : 2e-6) + (sizeof(T) == 2 ? rounding<T> : 0);
template <class T>
constexpr double conv_backward_budget = (std::is_same_v<T, double> ? 1e-13 : 4e-6) + (sizeof(T) == 2 ? rounding<T> : 0);

/// Compares what `run` makes of the arguments with the reference in double, on the same numbers.
template <class T, class Run>
void compare_conv(const conv_setup& s, Run&& run)
{
    INFO(s.text());
    const conv_problem<T> p(s);
    const conv_problem<double> expected = p.wide();
    const auto before = p.input_bytes();
    run(p.args());
    reference::causal_conv1d(expected.args());
    CHECK(relative_error(p.y, expected.y) <= conv_budget<T>);
    CHECK(relative_error(p.final_states, expected.final_states) == 0);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

template <class T, class Run>
void compare_conv_backward(const conv_setup& s, Run&& run)
{
    INFO(s.text());
    const conv_problem<T> p(s);
    const conv_problem<double> expected = p.wide();
    const auto before = p.input_bytes();
    run(p.backward_args());
    reference::causal_conv1d_backward(expected.backward_args());
    CHECK(relative_error(p.dx, expected.dx) <= conv_backward_budget<T>);
    CHECK(relative_error(p.dinitial_states, expected.dinitial_states) <= conv_backward_budget<T>);
    CHECK(relative_error(p.dweight, expected.dweight) <= conv_backward_budget<T>);
    CHECK(relative_error(p.dbias, expected.dbias) <= conv_backward_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

/// A NaN in one input, drawn from `numbers`, reaches the gradients that it reaches in the reference.
template <class T, class Run>
void compare_conv_backward_nans(const conv_setup& s, random& numbers, Run&& run)
{
    INFO(s.text());
    conv_problem<T> p(s);
    const index b = numbers.below(s.batch), t = numbers.below(s.length), c = numbers.below(s.dim);
    switch (numbers.below(4)) {
    case 0: p.weight(c, numbers.below(s.width)) = quiet_nan<compute_t<T>>(); break;
    case 1: p.dfinal_states(b, c, numbers.below(s.width - 1)) = quiet_nan<T>(); break;
    case 2: p.dy(b, t, c) = quiet_nan<T>(); break;
    default: p.x(b, t, c) = quiet_nan<T>();
    }
    const conv_problem<double> expected = p.wide();
    run(p.backward_args());
    reference::causal_conv1d_backward(expected.backward_args());
    CHECK(same_nans(p.dx, expected.dx));
    CHECK(same_nans(p.dinitial_states, expected.dinitial_states));
    CHECK(same_nans(p.dweight, expected.dweight));
    CHECK(same_nans(p.dbias, expected.dbias));
}

/// 0, 1, and what lies around one, two and three registers of either kind.
inline constexpr index conv_sizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 19, 31, 32, 33, 35, 63, 64, 65, 127, 129};

}  // namespace ssmkit::testing
