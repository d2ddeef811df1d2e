#pragma once

// Problems of the linear scan with random content, for the tests of both its passes.

#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/linear_scan_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct linear_setup {
    index batch = 2, length = 21, state = 6;
    bool constant = false, initial_state = false, packed = false, reverse = false, in_place = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(length) + ", " + std::to_string(state) +
                        ") layouts " + std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(constant, "constant");
        add(initial_state, "initial_state");
        add(packed, "packed");
        add(reverse, "reverse");
        add(in_place, "in_place");
        return s;
    }

    linear_setup with_options(unsigned bits) const
    {
        linear_setup s = *this;
        s.seed = bits + 1;
        bool* const flags[] = {&s.constant, &s.initial_state, &s.packed, &s.reverse, &s.in_place};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 5;
};

template <class T>
struct linear_problem {
    using state_type = linear_scan_state_t<T>;

    linear_setup s;
    tensor<state_type, 3> a;  // (1, 1, state) if constant
    tensor<T, 3> b, h, dh, db;
    tensor<state_type, 2> initial_state, final_state, dfinal_state, dinitial_state;
    tensor<std::uint8_t, 2> reset;
    tensor<state_type, 3> da;  // (1, 1, state) if constant

    explicit linear_problem(const linear_setup& setup) : s(setup)
    {
        random numbers(s.seed);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents, range r) {
            t = tensor<E, Rank>(extents, s.inputs, s.edge);
            t.fill(numbers, r);
        };
        const std::array<index, 3> tokens{s.batch, s.length, s.state};
        filled(a, s.constant ? std::array<index, 3>{1, 1, s.state} : tokens, {-0.65, 0.65});
        if constexpr (!detail::is_complex<T>) a.fill(numbers, {-0.2, 0.95});
        filled(b, tokens, {-2, 2});
        if (s.initial_state) filled(initial_state, {s.batch, s.state}, {-2, 2});
        filled(dh, tokens, {-2, 2});
        filled(dfinal_state, {s.batch, s.state}, {-2, 2});
        if (s.packed) {
            reset = tensor<std::uint8_t, 2>({s.batch, s.length}, s.inputs, s.edge);
            reset.fill([&](index, index) { return static_cast<std::uint8_t>(numbers.below(6) == 0 ? 1 + numbers.below(255) : 0); });
        }
        make_outputs();
    }

    linear_problem(const linear_setup& setup, std::nullptr_t) : s(setup) {}

    /// The same numbers in 64 bits, in two arrays.
    linear_problem<wide_t<T>> wide() const
    {
        linear_problem<wide_t<T>> w(s, nullptr);
        w.s.in_place = false;
        w.a = a.template as<wide_t<state_type>>();
        w.b = b.template as<wide_t<T>>();
        w.initial_state = initial_state.template as<wide_t<state_type>>();
        if (reset.given()) w.reset = reset.template as<std::uint8_t>();
        w.dh = dh.template as<wide_t<T>>();
        w.dfinal_state = dfinal_state.template as<wide_t<state_type>>();
        w.make_outputs();
        return w;
    }

    /// Outputs full of NaN; h holds b if the scan is to replace it.
    void make_outputs()
    {
        const std::array<index, 3> tokens{s.batch, s.length, s.state};
        h = {tokens, s.outputs, s.edge};
        if (s.in_place) h.fill([&](auto... i) { return b(i...); });
        final_state = {{s.batch, s.state}, s.outputs, s.edge};
        if (s.in_place && s.initial_state) final_state.fill([&](auto... i) { return initial_state(i...); });
        db = {tokens, s.outputs, s.edge};
        if (s.in_place) db.fill([&](auto... i) { return dh(i...); });
        da = {s.constant ? std::array<index, 3>{1, 1, s.state} : tokens, s.outputs, s.edge};
        dinitial_state = {{s.batch, s.state}, s.outputs, s.edge};
    }

    /// A factor, or its gradient, as (batch, length, state).
    template <class E>
    view<E, 3> over_time(const view<E, 3>& v) const
    {
        if (!s.constant) return v;
        return {v.data(), {s.batch, s.length, s.state}, {0, 0, v.stride(2)}};
    }

    linear_scan_args<T> args() const
    {
        linear_scan_args<T> x{.a = over_time(a.view()), .b = b.view(), .initial_state = initial_state.view(), .reset = reset.view(),
                              .reverse = s.reverse, .h = h.view(), .final_state = final_state.view()};
        if (s.in_place) x.b = h.view();
        if (s.in_place && s.initial_state) x.initial_state = final_state.view();
        return x;
    }

    /// With the h that a forward pass has left.
    linear_scan_backward_args<T> backward_args() const
    {
        linear_scan_backward_args<T> x{.forward = args(), .dh = dh.view(), .dfinal_state = dfinal_state.view(),
                                       .da = over_time(da.view()), .db = db.view(), .dinitial_state = dinitial_state.view()};
        x.forward.b = {};
        x.forward.initial_state = initial_state.view();
        x.forward.final_state = {};
        if (s.in_place) x.dh = db.view();
        return x;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {a.bytes(), b.bytes(), initial_state.bytes(), reset.bytes(), dh.bytes(), dfinal_state.bytes()};
    }

    bool gaps_untouched() const
    {
        return h.gaps_untouched() && final_state.gaps_untouched() && da.gaps_untouched() && db.gaps_untouched() &&
               dinitial_state.gaps_untouched();
    }
};

/// 0 to three registers and what lies around them, complex ones included.
inline constexpr index linear_sizes[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17,
                                         18, 19, 20, 23, 24, 25, 31, 32, 33, 34, 35, 47, 48, 49, 63, 64, 65, 70};

}  // namespace ssmkit::testing
