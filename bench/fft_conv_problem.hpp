#pragma once

// What the benchmarks of long convolutions run on: forward, backward, and in a stream.

#include <algorithm>
#include <cmath>
#include <string>

#include <ssmkit/args/fft_conv_backward.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index, ssmkit::view;

struct long_shape {
    index batch, dim, length, width;
    bool channels_inner = false, gated = false;

    std::string name() const
    {
        return by({batch, dim, length, width}) + (channels_inner ? "-channels_inner" : "") + (gated ? "-gated" : "");
    }
    std::size_t elements() const { return count(batch, dim, length); }
};

template <class T>
struct long_data {
    long_shape s;
    array<T> u, k, y, gate, dy, du, dk;

    explicit long_data(const long_shape& shape) : s(shape)
    {
        u = fill<T>(s.elements(), -1, 1, 1);
        k = fill<T>(count(s.dim, s.width), -1, 1, 2);
        y.resize(s.elements());
        if (s.gated) gate = fill<T>(s.elements(), -1, 1, 4);
    }

    void make_gradients()
    {
        dy = fill<T>(s.elements(), -1, 1, 3);
        du.resize(s.elements());
        dk.resize(k.size());
    }

    template <class E, class P>
    view<E, 3> rows(P* p) const
    {
        if (s.channels_inner) return view<E, 3>(p, s.batch, s.length, s.dim).transposed(1, 2);
        return {p, s.batch, s.dim, s.length};
    }

    ssmkit::fft_conv_args<T> args()
    {
        ssmkit::fft_conv_args<T> a{.u = rows<const T>(u.data()), .k = {k.data(), 1, s.dim, s.width},
                                   .y = ssmkit::flattened(rows<T>(y.data()), 1)};
        if (s.gated) a.input_gate = a.output_gate = rows<const T>(gate.data());
        return a;
    }

    /// Without gates.
    ssmkit::fft_conv_backward_args<T> backward_args()
    {
        return {.forward = args(), .dy = ssmkit::flattened(rows<const T>(dy.data()), 1), .du = rows<T>(du.data()),
                .dk = {dk.data(), 1, s.dim, s.width}};
    }

    /// Real transforms of length n = L + W: 2.5 n log2 n operations each (split radix of half the length, without what untangles
    /// it), half as many multiply-adds at best; of u forth and back for each row, of k once for a channel. Or as many multiply-adds
    /// as there are terms, if that is less.
    work needs(double transforms_per_row, double transforms_per_channel, double row_passes, double kernel_passes) const
    {
        const double rows = static_cast<double>(s.batch * s.dim), dim = static_cast<double>(s.dim),
                     length = static_cast<double>(s.length);
        const double width = static_cast<double>(std::min(s.width, s.length)), n = length + width;
        // Overlapping pieces of eight kernels' length need fewer operations than one transform of a much longer row.
        const double piece = std::min(n, 8 * width), pieces = n / piece;
        const double one = 2.5 / 2 * piece * std::log2(std::max(piece, 2.0)) * pieces;
        const double sums = width * (length - (width - 1) / 2);
        const double fmas = std::min(rows * sums * (row_passes + kernel_passes > 3 ? 2 : 1),
                                     one * (transforms_per_row * rows + transforms_per_channel * dim));
        const double each = sizeof(T),
                     bytes = each * (row_passes * rows * length + kernel_passes * dim * static_cast<double>(s.width));
        return {.updates = rows * length, .token_channels = rows * length, .fmas = fmas, .bytes = bytes, .working_set = bytes};
    }
};

/// `samples` values got against the reference's sums of `terms` terms each, as many as take a moment: all would take minutes.
/// got(i) and expected(i) for any i.
template <class T, class Got, class Expected>
std::string sampled_mismatch(const char* name, index terms, Got got, Expected expected)
{
    const index samples = std::clamp<index>(20000000 / std::max<index>(terms, 1), 8, 500);
    array<T> have, want;
    for (index i = 0; i < samples; ++i) {
        have.push_back(static_cast<T>(got(i)));
        want.push_back(static_cast<T>(expected(i)));
    }
    return mismatch(name, have, want);
}

/// Some outputs against sums in double.
template <class T>
std::string compared_output(long_data<T>& d)
{
    const long_shape& s = d.s;
    const auto a = d.args();
    struct place {
        index b, h, t;
    };
    const auto at = [&](index i) { return place{i % s.batch, i * 7 % s.dim, i == 0 ? s.length - 1 : i * 104729 % s.length}; };
    const auto got = [&](index i) { return a.y(at(i).b, 0, at(i).h, at(i).t); };
    return sampled_mismatch<T>("y", std::min(s.width, s.length), got, [&](index i) {
        const auto [b, h, t] = at(i);
        double sum = 0;
        for (index m = 0; m < s.width && m <= t; ++m) {
            const double gate = s.gated ? static_cast<double>(a.input_gate(b, h, t - m)) : 1;
            sum += static_cast<double>(a.k(0, h, m)) * gate * static_cast<double>(a.u(b, h, t - m));
        }
        return s.gated ? sum * static_cast<double>(a.output_gate(b, h, t)) : sum;
    });
}

/// Some elements of both gradients against sums in double.
template <class T>
std::string compared_gradients(long_data<T>& d)
{
    const long_shape& s = d.s;
    const auto a = d.backward_args();
    const auto product = [](auto x, auto y) { return static_cast<double>(x) * static_cast<double>(y); };
    const auto token = [&](index i) { return i == 0 ? index(0) : i * 104729 % s.length; };
    const auto tap = [&](index i) { return i == 0 ? index(0) : i * 104729 % s.width; };
    return first_of(
        {sampled_mismatch<T>(
             "du", std::min(s.width, s.length), [&](index i) { return a.du(i % s.batch, i * 7 % s.dim, token(i)); },
             [&](index i) {
                 double sum = 0;
                 for (index m = 0; m < s.width && token(i) + m < s.length; ++m)
                     sum += product(a.forward.k(0, i * 7 % s.dim, m), a.dy(i % s.batch, 0, i * 7 % s.dim, token(i) + m));
                 return sum;
             }),
         sampled_mismatch<T>(
             "dk", s.batch * s.length, [&](index i) { return a.dk(0, i * 7 % s.dim, tap(i)); },
             [&](index i) {
                 double sum = 0;
                 for (index b = 0; b < s.batch; ++b) {
                     for (index t = tap(i); t < s.length; ++t)
                         sum += product(a.dy(b, 0, i * 7 % s.dim, t), a.forward.u(b, i * 7 % s.dim, t - tap(i)));
                 }
                 return sum;
             })});
}

}  // namespace bench
