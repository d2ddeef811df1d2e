#pragma once

// Problems of sums of powers of poles, of their gradients and of their transpose with random content.

#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/vandermonde_backward.hpp>
#include <ssmkit/args/vandermonde_transpose.hpp>

#include "diagonal_problem.hpp"

namespace ssmkit::testing {

template <class T>
struct vandermonde_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    bool pairs;
    tensor<complex_double, 2> log_pole, dlog_pole;
    tensor<E, 3> w, dw, sum, weighted;
    tensor<T, 3> K, dK;

    explicit vandermonde_problem(const diagonal_setup& setup, bool conjugate_pairs = true) : s(setup), pairs(conjugate_pairs)
    {
        random numbers(s.seed);
        log_pole = s.input<complex_double, 2>(numbers, {s.dim, s.state}, {-0.1, -1e-4, -3, 3});
        w = s.input<E, 3>(numbers, {s.channels, s.dim, s.state}, {0.2, 1, -1, 1});
        dK = s.input<T, 3>(numbers, {s.channels, s.dim, s.length}, {-1, 1});
        make_outputs();
    }

    void make_outputs()
    {
        K = s.output<T, 3>({s.channels, s.dim, s.length});
        dlog_pole = s.output<complex_double, 2>({s.dim, s.state});
        dw = s.output<E, 3>({s.channels, s.dim, s.state});
        sum = s.output<E, 3>({s.channels, s.dim, s.state});
        weighted = s.output<E, 3>({s.channels, s.dim, s.state});
    }

    /// The same numbers in 64 bits.
    vandermonde_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        vandermonde_problem<double> p(plain, pairs);
        p.log_pole = log_pole.template as<complex_double>();
        p.w = w.template as<complex_double>();
        p.dK = dK.template as<double>();
        return p;
    }

    vandermonde_args<T> args() const { return {.log_pole = log_pole, .w = w, .conjugate_pairs = pairs, .K = K}; }
    vandermonde_backward_args<T> backward_args() const { return {.forward = args(), .dK = dK, .dlog_pole = dlog_pole, .dw = dw}; }
    vandermonde_transpose_args<T> transpose_args() const
    {
        return {.log_pole = log_pole, .u = dK, .sum = sum, .weighted = weighted};
    }

    std::vector<std::vector<std::byte>> input_bytes() const { return {log_pole.bytes(), w.bytes(), dK.bytes()}; }
    bool gaps_untouched() const
    {
        return K.gaps_untouched() && dlog_pole.gaps_untouched() && dw.gaps_untouched() && sum.gaps_untouched() &&
               weighted.gaps_untouched();
    }
};

}  // namespace ssmkit::testing
