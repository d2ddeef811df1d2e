#pragma once

// What the benchmarks of the forward and the backward convolution run on.

#include <algorithm>
#include <string>

#include <ssmkit/args/causal_conv1d_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct conv_shape {
    index batch, length, dim, width = 4;
    bool silu = true, time_contiguous = false, silent = false;

    std::string name() const
    {
        std::string text = std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" +
                           std::to_string(width);
        if (!silu) text += "-none";
        if (time_contiguous) text += "-time_contiguous";
        if (silent) text += "-silence_after_burst";
        return text;
    }
    index elements() const { return batch * length * dim; }
};

template <class T>
struct conv_data {
    using real = ssmkit::compute_t<T>;
    conv_shape s;
    array<T> x, y, dy, dx;
    array<real> weight, taps, bias, dweight, dbias;  // taps: weight as (width, dim)

    explicit conv_data(const conv_shape& shape) : s(shape)
    {
        const auto n = static_cast<std::size_t>(s.elements()), dim = static_cast<std::size_t>(s.dim);
        const auto width = static_cast<std::size_t>(s.width);
        x = s.silent ? fill<T>(n, 1e-41, 1e-39, 1) : fill<T>(n, -3, 3, 1);
        if (s.silent) std::fill(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(dim), T(real(1)));
        y.resize(n);
        dy = fill<T>(n, -1, 1, 2);
        dx.resize(n);
        weight = fill<real>(dim * width, -1, 1, 3);
        bias = s.silent ? array<real>(dim) : fill<real>(dim, -1, 1, 4);
        dweight.resize(dim * width);
        dbias.resize(dim);
        taps.resize(dim * width);
        for (std::size_t c = 0; c < dim; ++c) {
            for (std::size_t j = 0; j < width; ++j) taps[j * dim + c] = weight[c * width + j];
        }
    }

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, s.dim, s.length).transposed(1, 2);
        return {p, s.batch, s.length, s.dim};
    }

    ssmkit::causal_conv1d_args<T> args(T* out)
    {
        return {.x = tokens<const T>(x.data()), .weight = {weight.data(), s.dim, s.width}, .bias = {bias.data(), s.dim},
                .silu = s.silu, .y = tokens(out)};
    }

    ssmkit::causal_conv1d_backward_args<T> backward_args()
    {
        return {.forward = args(y.data()), .dy = tokens<const T>(dy.data()), .dx = tokens(dx.data()),
                .dweight = {dweight.data(), s.dim, s.width}, .dbias = {dbias.data(), s.dim}};
    }

    work needs(double arrays) const
    {
        const double n = static_cast<double>(s.elements());
        return {.updates = n, .token_channels = n, .exps = s.silu ? n : 0, .fmas = n * static_cast<double>(s.width),
                .bytes = arrays * n * sizeof(T)};
    }
};

}  // namespace bench
