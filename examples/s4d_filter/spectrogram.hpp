#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#include <unsupported/Eigen/FFT>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <stb_image_write.h>

#include "sound.hpp"

namespace s4d_filter {

/// Pixels, three bytes each, row by row from the top.
struct picture {
    int width = 0, height = 0;
    std::vector<unsigned char> rgb;

    picture(int w, int h) : width(w), height(h), rgb(static_cast<std::size_t>(3 * w * h)) {}

    void set(int x, int y, const std::array<double, 3>& colour)
    {
        for (std::size_t c = 0; c < 3; ++c) {
            rgb[static_cast<std::size_t>(3 * (y * width + x)) + c] = static_cast<unsigned char>(std::lround(colour[c]));
        }
    }
};

/// Black, purple, orange, pale yellow, from 0 to 1.
inline std::array<double, 3> heat(double value)
{
    constexpr double stops[5][3] = {{0, 0, 4}, {81, 18, 124}, {183, 55, 121}, {252, 137, 97}, {252, 253, 191}};
    const double place = std::clamp(value, 0.0, 1.0) * 4;
    const auto i = std::min(3, static_cast<int>(place));
    std::array<double, 3> colour;
    for (int c = 0; c < 3; ++c) colour[static_cast<std::size_t>(c)] = std::lerp(stops[i][c], stops[i + 1][c], place - i);
    return colour;
}

/// Draws the power of all channels over time and frequency, 40 Hz to half the sampling rate on a logarithmic scale, 90 dB from
/// black to the brightest, into rows [top, top + height).
inline void draw_spectrogram(sound& s, double seconds, picture& to, int top, int height)
{
    constexpr int window = 4096;
    std::vector<float> frame(window);
    std::vector<std::complex<float>> spectrum;
    std::vector<double> power(window / 2 + 1);
    Eigen::FFT<float> fft;
    fft.SetFlag(Eigen::FFT<float>::HalfSpectrum);
    const auto samples = s.all();
    const double lowest = 40, highest = s.sample_rate / 2.0;
    for (int x = 0; x < to.width; ++x) {
        const auto middle = static_cast<index>((x + 0.5) / to.width * seconds * s.sample_rate);
        std::fill(power.begin(), power.end(), 0.0);
        for (index c = 0; c < s.channels; ++c) {
            for (int i = 0; i < window; ++i) {
                const index t = middle - window / 2 + i;
                const double hann = 0.5 - 0.5 * std::cos(2 * std::numbers::pi * i / window);
                frame[static_cast<std::size_t>(i)] = t >= 0 && t < s.length() ? static_cast<float>(hann * samples(t, c)) : 0;
            }
            fft.fwd(spectrum, frame);
            for (std::size_t k = 0; k < power.size(); ++k) power[k] += std::norm(spectrum[k]) / static_cast<double>(s.channels);
        }
        for (int y = 0; y < height; ++y) {
            const auto bin_of = [&](double row) {
                return lowest * std::pow(highest / lowest, row / height) / s.sample_rate * window;
            };
            const auto from = static_cast<std::size_t>(bin_of(y)), to_bin = static_cast<std::size_t>(bin_of(y + 1));
            double most = 0;
            for (std::size_t k = from; k <= std::min(to_bin, power.size() - 1); ++k) most = std::max(most, power[k]);
            const double decibels = 10 * std::log10(most / (window * window / 16.0) + 1e-30);  // 0: a sine from -1 to 1
            to.set(x, top + height - 1 - y, heat((decibels + 100) / 90));
        }
    }
}

/// The two, one below the other, on one scale of time. Throws std::runtime_error, naming the file.
inline void write_spectrograms(const std::string& path, sound& before, sound& after)
{
    constexpr int width = 1200, height = 320, gap = 8;
    picture p(width, 2 * height + gap);
    std::fill(p.rgb.begin(), p.rgb.end(), static_cast<unsigned char>(255));
    draw_spectrogram(before, after.seconds(), p, 0, height);
    draw_spectrogram(after, after.seconds(), p, height + gap, height);
    if (!stbi_write_png(path.c_str(), p.width, p.height, 3, p.rgb.data(), 3 * p.width)) {
        throw std::runtime_error(path + ": not written");
    }
}

}  // namespace s4d_filter
