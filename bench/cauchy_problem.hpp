#pragma once

// What the benchmarks of Cauchy sums, forward and backward, run on.

#include <cmath>
#include <complex>
#include <numbers>
#include <string>

#include <ssmkit/args/cauchy_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct cauchy_shape {
    index terms, dim, state, length;
    bool any_nodes = false;  // off the imaginary axis

    std::string name() const
    {
        return by({dim, state, length}) + "-" + std::to_string(terms) + (terms == 1 ? "term" : "terms") +
               (any_nodes ? "-any_nodes" : "");
    }
};

/// Poles and nodes as S4 has them: w = Δ Λ of modest damping, z = 2i tan(π j / L').
template <class T>
struct cauchy_data {
    using complex = std::complex<T>;
    cauchy_shape s;
    array<T> y;  // Im z
    array<complex> w, v, z, out, dout, dv, dz, dw;

    explicit cauchy_data(const cauchy_shape& shape) : s(shape)
    {
        w = fill_complex<T>(count(s.dim, s.state), 0.02, 2, 1);
        for (complex& pole : w) pole.real(T(-0.1) * pole.real());
        v = fill_complex<T>(count(s.terms, s.dim, s.state), -1, 1, 2);
        dout = fill_complex<T>(count(s.terms, s.dim, s.length), -1, 1, 3);
        for (index j = 0; j < s.length; ++j) {
            const double angle = std::numbers::pi / 2 * static_cast<double>(j) / static_cast<double>(s.length);
            y.push_back(static_cast<T>(2 * std::tan(angle)));
            z.push_back({s.any_nodes ? T(0.01) : T(0), y.back()});
        }
        out.resize(dout.size()), dv.resize(v.size()), dz.resize(z.size()), dw.resize(w.size());
    }

    ssmkit::cauchy_args<T> args()
    {
        return {.v = {v.data(), s.terms, s.dim, s.state}, .z = {z.data(), s.length}, .w = {w.data(), s.dim, s.state},
                .conjugate_pairs = true, .out = {out.data(), s.terms, s.dim, s.length}};
    }

    /// Without that of z, which no model has.
    ssmkit::cauchy_backward_args<T> backward_args()
    {
        return {.forward = args(),
                .dout = {dout.data(), s.terms, s.dim, s.length},
                .dv = {dv.data(), s.terms, s.dim, s.state},
                .dw = {dw.data(), s.dim, s.state}};
    }

    /// Of a pair and node: 12 operations for its reciprocal and four for each numerator.
    work needs() const
    {
        const double pairs = static_cast<double>(count(s.dim, s.state, s.length)), terms = static_cast<double>(s.terms);
        return {.updates = pairs * terms, .fmas = pairs * (12 + 4 * terms),
                .bytes = static_cast<double>(out.size() * sizeof(complex)), .kind = traffic::update};
    }
};

}  // namespace bench
