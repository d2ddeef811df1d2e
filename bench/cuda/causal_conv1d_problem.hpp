#pragma once

// What the device's benchmarks of the forward and the backward convolution run on.

#include <memory>
#include <string>
#include <vector>

#include "../causal_conv1d_problem.hpp"
#include "harness.hpp"

namespace bench::device {

/// Answers are compared for the first channels, over all tokens.
template <class T>
struct conv_on_device {
    static constexpr index few = 8;

    conv_shape s;
    array<T> x, dy, out;  ///< out: y or dx
    array<float> weight, bias, dweight, dbias;

    explicit conv_on_device(const conv_shape& shape, bool backward)
        : s(shape), x(s.elements(), -3, 3, 1), dy(backward ? s.elements() : 0, -1, 1, 2), out(s.elements()),
          weight(s.dim * s.width, -1, 1, 3), bias(s.dim, -1, 1, 4), dweight(s.dim * s.width), dbias(s.dim)
    {
    }

    template <class E>
    view<E, 3> tokens(E* p, index dim) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, dim, s.length).transposed(1, 2);
        return {p, s.batch, s.length, dim};
    }

    ssmkit::causal_conv1d_args<T> args() const
    {
        return {.x = tokens<const T>(x.data(), s.dim), .weight = {weight.data(), s.dim, s.width}, .bias = {bias.data(), s.dim},
                .silu = s.silu, .y = tokens(out.data(), s.dim)};
    }

    ssmkit::causal_conv1d_backward_args<T> backward_args() const
    {
        ssmkit::causal_conv1d_backward_args<T> a{.forward = args(), .dy = tokens<const T>(dy.data(), s.dim),
                                                 .dx = tokens(out.data(), s.dim), .dweight = {dweight.data(), s.dim, s.width},
                                                 .dbias = {dbias.data(), s.dim}};
        a.forward.y = {};
        return a;
    }

    /// The first channels of an array of tokens, for the CPU.
    bench::array<T> first_channels(const array<T>& all) const
    {
        const index run = s.time_contiguous ? s.length : 1, runs = s.elements() / (run * s.dim);
        bench::array<T> copy(static_cast<std::size_t>(few * run * runs));
        const std::size_t row = sizeof(T) * static_cast<std::size_t>(run);
        must(cudaMemcpy2D(copy.data(), few * row, all.data(), static_cast<std::size_t>(s.dim) * row, few * row,
                          static_cast<std::size_t>(runs), cudaMemcpyDeviceToHost));
        return copy;
    }

    /// arrays: how often the tokens are read or written.
    work needs(double arrays) const
    {
        const double n = static_cast<double>(s.elements());
        work w;
        w.bytes = arrays * n * sizeof(T);
        w.exps = s.silu ? 2 * n : 0;  // the exponential and a reciprocal
        w.fmas = n * static_cast<double>(s.width) * (arrays > 2 ? 3 : 1);
        return w;
    }
};

struct known_conv {
    conv_shape s;
    peer_milliseconds forward, backward;
};

/// The authors' shapes, channel-contiguous and time-contiguous (their times are of one of the two, which is not known).
inline std::vector<known_conv> known_convs()
{
    std::vector<known_conv> all;
    for (const bool turned : {false, true}) {
        all.push_back({{.batch = 8, .length = 2048, .dim = 1536, .time_contiguous = turned}, {0.0552, 0.0327}, {0.1500, 0.1215}});
        all.push_back({{.batch = 8, .length = 2048, .dim = 5120, .time_contiguous = turned}, {0.1687, 0.0925}, {0.2505, 0.1660}});
        all.push_back({{.batch = 1, .length = 16384, .dim = 5120, .time_contiguous = turned}, {0.1813, 0.0938}, {0.2686, 0.1492}});
    }
    return all;
}

}  // namespace bench::device
