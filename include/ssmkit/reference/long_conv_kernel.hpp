#pragma once

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include <ssmkit/args/long_conv_kernel.hpp>

namespace ssmkit::reference {
namespace long_conv {

/// Smoothing is linear, out_i = Σ_j M_ij in_j: M, row by row.
template <class T>
std::vector<double> smoothing_matrix(const long_conv_kernel_args<T>& a)
{
    std::vector<double> matrix(static_cast<std::size_t>(a.kernel.extent(2) * detail::long_conv_length(a)));
    const auto f = [&](index i, index j, double m) { matrix[static_cast<std::size_t>(i * a.kernel.extent(2) + j)] = m; };
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
    return matrix;
}

/// A row, smoothed.
template <class T>
std::vector<T> smoothed(const std::vector<double>& matrix, const long_conv_kernel_args<T>& a, index c, index h)
{
    const index length = a.kernel.extent(2);
    std::vector<T> out(static_cast<std::size_t>(detail::long_conv_length(a)));
    for (std::size_t i = 0; i < out.size(); ++i) {
        for (index j = 0; j < length; ++j) {
            const double m = matrix[i * static_cast<std::size_t>(length) + static_cast<std::size_t>(j)];
            if (m != 0) out[i] += static_cast<T>(m) * a.kernel(c, h, j);  // of what is out of reach, not even a NaN counts
        }
    }
    return out;
}

}  // namespace long_conv

template <class T>
void long_conv_kernel(const long_conv_kernel_args<T>& a)
{
    check(a);
    const std::vector<double> matrix = long_conv::smoothing_matrix(a);
    for (index c = 0; c < a.K.extent(0); ++c) {
        for (index h = 0; h < a.K.extent(1); ++h) {
            const std::vector<T> smooth = long_conv::smoothed(matrix, a, c, h);
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
    const std::vector<double> matrix = long_conv::smoothing_matrix(f);
    const index length = a.dkernel.extent(2);
    for (index c = 0; c < a.dkernel.extent(0); ++c) {
        for (index h = 0; h < a.dkernel.extent(1); ++h) {
            const std::vector<T> smooth = long_conv::smoothed(matrix, f, c, h);
            for (index j = 0; j < length; ++j) {
                T sum = 0;
                for (std::size_t i = 0; i < smooth.size(); ++i) {
                    const double m = matrix[i * static_cast<std::size_t>(length) + static_cast<std::size_t>(j)];
                    if (std::abs(smooth[i]) > f.lambda) sum += static_cast<T>(m) * a.dK(c, h, static_cast<index>(i));
                }
                a.dkernel(c, h, j) = sum;
            }
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
