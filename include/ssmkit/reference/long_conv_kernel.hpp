#pragma once

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include <ssmkit/args/long_conv_kernel.hpp>

namespace ssmkit::reference {
namespace long_conv {

/// Smoothing is linear: out_i = Σ_j M_ij in_j. Calls f(i, j, M_ij) for what is not known to be zero.
template <class T, class F>
void smoothing_matrix(const long_conv_kernel_args<T>& a, F&& f)
{
    const index length = a.kernel.extent(2), out = detail::long_conv_length(a), half = a.window / 2;
    for (index i = 0; i < out; ++i) {
        for (index j = 0; j < length; ++j) {
            if (a.smoothing == long_conv_smoothing::none) {
                if (i == j) f(i, j, 1.0);
            } else if (a.smoothing == long_conv_smoothing::time) {
                if (std::abs(i - j) <= half) f(i, j, 1.0 / static_cast<double>(a.window));
            } else {  // bin k of a one at j, smoothed, seen at i
                double sum = 0;
                for (index k = 0; k <= length / 2; ++k) {
                    std::complex<double> bin = 0;
                    for (index d = -half; d <= half; ++d) {
                        if (k + d < 0 || k + d > length / 2) continue;
                        const double turns = static_cast<double>((k + d) * j % length) / static_cast<double>(length);
                        bin += std::exp(-0.5 * static_cast<double>(d * d)) * std::polar(1.0, -2 * std::numbers::pi * turns);
                    }
                    const double turns = static_cast<double>(k * i % out) / static_cast<double>(out);
                    const double weight = k == 0 || 2 * k == out ? 1 : 2;
                    const std::complex<double> real_ends = k == 0 || 2 * k == out ? std::complex<double>(bin.real()) : bin;
                    sum += weight * (real_ends * std::polar(1.0, 2 * std::numbers::pi * turns)).real();
                }
                f(i, j, sum / static_cast<double>(out));
            }
        }
    }
}

}  // namespace long_conv

template <class T>
void long_conv_kernel(const long_conv_kernel_args<T>& a)
{
    check(a);
    for (index c = 0; c < a.K.extent(0); ++c) {
        for (index h = 0; h < a.K.extent(1); ++h) {
            std::vector<T> smooth(static_cast<std::size_t>(a.K.extent(2)));
            long_conv::smoothing_matrix(a, [&](index i, index j, double m) { smooth[static_cast<std::size_t>(i)] += static_cast<T>(m) * a.kernel(c, h, j); });
            for (index l = 0; l < a.K.extent(2); ++l) {
                const T k = smooth[static_cast<std::size_t>(l)], size = std::abs(k) - a.lambda;
                a.K(c, h, l) = size <= T(0) ? T(0) : std::copysign(size, k);
            }
        }
    }
}

template <class T>
void long_conv_kernel_backward(const long_conv_kernel_backward_args<T>& a)
{
    check(a);
    const long_conv_kernel_args<T>& f = a.forward;
    for (index c = 0; c < a.dK.extent(0); ++c) {
        for (index h = 0; h < a.dK.extent(1); ++h) {
            std::vector<T> smooth(static_cast<std::size_t>(a.dK.extent(2)));
            long_conv::smoothing_matrix(f, [&](index i, index j, double m) { smooth[static_cast<std::size_t>(i)] += static_cast<T>(m) * f.kernel(c, h, j); });
            for (index l = 0; l < a.dkernel.extent(2); ++l) a.dkernel(c, h, l) = 0;
            long_conv::smoothing_matrix(f, [&](index i, index j, double m) {
                if (std::abs(smooth[static_cast<std::size_t>(i)]) > f.lambda) a.dkernel(c, h, j) += static_cast<T>(m) * a.dK(c, h, i);
            });
        }
    }
}

template <class T>
void double_exponential(const double_exponential_args<T>& a)
{
    check(a);
    const double dim = static_cast<double>(a.envelope.extent(1)), length = static_cast<double>(a.envelope.extent(2));
    for (index c = 0; c < a.envelope.extent(0); ++c) {
        for (index h = 0; h < a.envelope.extent(1); ++h) {
            const double rate = std::pow(std::floor(dim / 2), static_cast<double>(h) / dim);
            for (index l = 0; l < a.envelope.extent(2); ++l) {
                a.envelope(c, h, l) = static_cast<T>(std::exp(-static_cast<double>(l) / length * rate));
            }
        }
    }
}

}  // namespace ssmkit::reference
