#pragma once

// Problems of Cauchy sums and their gradients with random content.

#include <complex>
#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/cauchy_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct cauchy_setup {
    index terms = 2, dim = 3, state = 5, length = 37;
    bool conjugate_pairs = true, imaginary = true;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;

    std::string text() const
    {
        return std::to_string(terms) + "x" + std::to_string(dim) + "x" + std::to_string(state) + "x" + std::to_string(length) +
               (conjugate_pairs ? " pairs" : "") + (imaginary ? " imaginary" : "") + " layouts " +
               std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
    }
};

/// Numbers of nodes, poles and terms around those of registers and tiles, and layouts.
inline std::vector<cauchy_setup> all_cauchy_setups()
{
    std::vector<cauchy_setup> all;
    for (const bool pairs : {false, true}) {
        for (const bool imaginary : {false, true}) {
            const cauchy_setup usual{.conjugate_pairs = pairs, .imaginary = imaginary};
            const auto add = [&](auto&& change) { change(all.emplace_back(usual)); };
            for (const index n : {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 130}) {
                add([&](cauchy_setup& s) { s.length = n; });
                add([&](cauchy_setup& s) { s.state = n % 40; });
            }
            for (const index terms : {0, 1, 3, 4, 5, 9}) add([&](cauchy_setup& s) { s.terms = terms; });
            add([&](cauchy_setup& s) { s.terms = 5, s.dim = 2, s.length = 2500; });
            add([&](cauchy_setup& s) { s.dim = 0; });
        }
    }
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) all.push_back({.inputs = inputs, .outputs = outputs});
    }
    return all;
}

template <class T>
struct cauchy_problem {
    using E = std::complex<T>;
    cauchy_setup s;
    tensor<E, 3> v, out, dout, dv;
    tensor<E, 1> z, dz;
    tensor<E, 2> w, dw;

    explicit cauchy_problem(const cauchy_setup& setup) : s(setup)
    {
        random numbers(static_cast<std::uint64_t>(s.length + 100 * s.state) + 1);
        v = tensor<E, 3>({s.terms, s.dim, s.state}, s.inputs, s.edge);
        v.fill(numbers, {-1, 1});
        z = tensor<E, 1>({s.length}, s.inputs, s.edge);
        z.fill([&](index) {
            return E(s.imaginary ? T(0) : static_cast<T>(numbers.uniform(0.01, 0.2)), static_cast<T>(numbers.uniform(0, 9)));
        });
        w = tensor<E, 2>({s.dim, s.state}, s.inputs, s.edge);
        w.fill(numbers, {-0.5, -0.1, 0, 6});
        dout = tensor<E, 3>({s.terms, s.dim, s.length}, s.inputs, s.edge);
        dout.fill(numbers, {-1, 1});
        make_outputs();
    }
    cauchy_problem(const cauchy_setup& setup, std::nullptr_t) : s(setup) {}

    void make_outputs()
    {
        out = tensor<E, 3>({s.terms, s.dim, s.length}, s.outputs, s.edge);
        dv = tensor<E, 3>({s.terms, s.dim, s.state}, s.outputs, s.edge);
        dz = tensor<E, 1>({s.length}, s.outputs, s.edge);
        dw = tensor<E, 2>({s.dim, s.state}, s.outputs, s.edge);
    }

    cauchy_problem<double> wide() const
    {
        using W = std::complex<double>;
        cauchy_problem<double> other(s, nullptr);
        other.v = v.template as<W>(), other.z = z.template as<W>(), other.w = w.template as<W>(),
        other.dout = dout.template as<W>();
        other.make_outputs();
        return other;
    }

    cauchy_args<T> args() const { return {.v = v, .z = z, .w = w, .conjugate_pairs = s.conjugate_pairs, .out = out}; }
    cauchy_backward_args<T> backward_args() const { return {.forward = args(), .dout = dout, .dv = dv, .dz = dz, .dw = dw}; }
};

}  // namespace ssmkit::testing
