#pragma once

// Problems of the long convolution with random content, for the tests of both its passes.

#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/fft_conv_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct long_setup {
    index batch = 2, channels = 1, dim = 3, length = 50, width = 50, reverse_width = 0;
    bool includes_current = false, D = false, input_gate = false, output_gate = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "batch " + std::to_string(batch) + " channels " + std::to_string(channels) + " dim " + std::to_string(dim) +
                        " length " + std::to_string(length) + " width " + std::to_string(width) + " reverse " +
                        std::to_string(reverse_width) + " layouts " + std::to_string(static_cast<int>(inputs)) + " " +
                        std::to_string(static_cast<int>(outputs));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(includes_current, "includes_current");
        add(D, "D");
        add(input_gate, "input_gate");
        add(output_gate, "output_gate");
        return s;
    }

    long_setup with_options(unsigned bits) const
    {
        long_setup s = *this;
        s.seed = bits + 1;
        if (bits & 1u) s.reverse_width = width;
        s.includes_current = bits & 2u;
        s.D = bits & 4u;
        s.input_gate = bits & 8u;
        s.output_gate = bits & 16u;
        return s;
    }
    static constexpr unsigned options = 5;
};

template <class T>
struct long_problem {
    using C = compute_t<T>;

    long_setup s;
    tensor<T, 3> u, input_gate, output_gate, du, dinput_gate, doutput_gate;
    tensor<C, 3> k, k_reverse, dk, dk_reverse;
    tensor<C, 2> D, dD;
    tensor<T, 4> y, dy;

    explicit long_problem(const long_setup& setup) : s(setup)
    {
        random numbers(s.seed);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents) {
            t = tensor<E, Rank>(extents, s.inputs, s.edge);
            t.fill(numbers, {-1, 1});
        };
        filled(u, {s.batch, s.dim, s.length});
        filled(k, {s.channels, s.dim, s.width});
        if (s.reverse_width > 0) filled(k_reverse, {s.channels, s.dim, s.reverse_width});
        if (s.D) filled(D, {s.channels, s.dim});
        if (s.input_gate) filled(input_gate, {s.batch, s.dim, s.length});
        if (s.output_gate) filled(output_gate, {s.batch, s.dim, s.length});
        filled(dy, {s.batch, s.channels, s.dim, s.length});
        make_outputs();
    }

    long_problem(const long_setup& setup, std::nullptr_t) : s(setup) {}

    /// The same numbers in 64 bits.
    long_problem<wide_t<T>> wide() const
    {
        long_problem<wide_t<T>> w(s, nullptr);
        w.u = u.template as<double>();
        w.k = k.template as<double>();
        w.k_reverse = k_reverse.template as<double>();
        w.D = D.template as<double>();
        w.input_gate = input_gate.template as<double>();
        w.output_gate = output_gate.template as<double>();
        w.dy = dy.template as<double>();
        w.make_outputs();
        return w;
    }

    /// Outputs full of NaN.
    void make_outputs()
    {
        const std::array<index, 3> rows{s.batch, s.dim, s.length};
        y = {{s.batch, s.channels, s.dim, s.length}, s.outputs, s.edge};
        du = {rows, s.outputs, s.edge};
        dk = {{s.channels, s.dim, s.width}, s.outputs, s.edge};
        dD = {{s.channels, s.dim}, s.outputs, s.edge};
        if (s.reverse_width > 0) dk_reverse = {{s.channels, s.dim, s.reverse_width}, s.outputs, s.edge};
        if (s.input_gate) dinput_gate = {rows, s.outputs, s.edge};
        if (s.output_gate) doutput_gate = {rows, s.outputs, s.edge};
    }

    fft_conv_args<T> args() const
    {
        return {.u = u.view(), .k = k.view(), .k_reverse = k_reverse.view(), .reverse_includes_current = s.includes_current,
                .D = D.view(), .input_gate = input_gate.view(), .output_gate = output_gate.view(), .y = y.view()};
    }

    fft_conv_backward_args<T> backward_args() const
    {
        fft_conv_backward_args<T> x{.forward = args(),
                                    .dy = dy.view(),
                                    .du = du.view(),
                                    .dk = dk.view(),
                                    .dk_reverse = dk_reverse.view(),
                                    .dD = dD.view(),
                                    .dinput_gate = dinput_gate.view(),
                                    .doutput_gate = doutput_gate.view()};
        x.forward.y = {};
        return x;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {u.bytes(), k.bytes(), k_reverse.bytes(), D.bytes(), input_gate.bytes(), output_gate.bytes(), dy.bytes()};
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && du.gaps_untouched() && dk.gaps_untouched() && dk_reverse.gaps_untouched() &&
               dD.gaps_untouched() && dinput_gate.gaps_untouched() && doutput_gate.gaps_untouched();
    }
};

}  // namespace ssmkit::testing
