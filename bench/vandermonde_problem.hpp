#pragma once

// What the benchmarks of sums of powers run on: forward, backward and transposed.

#include <complex>
#include <string>

#include <ssmkit/args/vandermonde_backward.hpp>
#include <ssmkit/args/vandermonde_transpose.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct vandermonde_shape {
    index channels, dim, state, length;

    std::string name() const { return by({channels, dim, state, length}); }
};

template <class T>
struct vandermonde_data {
    using E = std::complex<T>;

    vandermonde_shape s;
    array<std::complex<double>> log_pole, dlog_pole;
    array<E> w, dw, sum, weighted;
    array<T> K, dK;  // dK: also the sequences of the transpose

    explicit vandermonde_data(const vandermonde_shape& shape) : s(shape)
    {
        const std::size_t poles = count(s.dim, s.state), weights = count(s.channels, s.dim, s.state);
        const auto re = fill<double>(poles, -0.01, -0.001, 1), im = fill<double>(poles, -3, 3, 2);
        for (std::size_t i = 0; i < poles; ++i) log_pole.emplace_back(re[i], im[i]);
        w = fill_complex<T>(weights, -1, 1, 3);
        dK = fill<T>(count(s.channels, s.dim, s.length), -1, 1, 4);
        K.resize(dK.size()), dw.resize(weights), sum.resize(weights), weighted.resize(weights), dlog_pole.resize(poles);
    }

    view<E, 3> weights(array<E>& x) const { return {x.data(), s.channels, s.dim, s.state}; }

    ssmkit::vandermonde_args<T> args()
    {
        return {.log_pole = {log_pole.data(), s.dim, s.state}, .w = weights(w), .K = {K.data(), s.channels, s.dim, s.length}};
    }
    ssmkit::vandermonde_backward_args<T> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), s.channels, s.dim, s.length}, .dlog_pole = {dlog_pole.data(), s.dim, s.state},
                .dw = weights(dw)};
    }
    ssmkit::vandermonde_transpose_args<T> transpose_args()
    {
        return {.log_pole = {log_pole.data(), s.dim, s.state}, .u = {dK.data(), s.channels, s.dim, s.length}, .sum = weights(sum),
                .weighted = weights(weighted)};
    }

    /// `products` for every tap and pole; `arrays` as large as the weights, beside the sequences and the poles.
    work needs(double products, double arrays) const
    {
        const double terms = static_cast<double>(count(s.channels, s.dim, s.length, s.state));
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = products * terms,
                .bytes = static_cast<double>(K.size() * sizeof(T) + log_pole.size() * sizeof(log_pole[0])) +
                         arrays * static_cast<double>(w.size() * sizeof(E))};
    }
};

inline const vandermonde_shape vandermonde_shapes[] = {{1, 64, 32, 4096}, {4, 16, 32, 4096}, {1, 64, 128, 1024}, {1, 63, 5, 1000}};

}  // namespace bench
