#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include <ssmkit/parameters.hpp>
#include <ssmkit/s4d_discretize.hpp>
#include <ssmkit/s4d_step.hpp>

namespace s4d_filter {

using ssmkit::index, ssmkit::view;

/// A room as an S4D layer: each pair of states is one of its modes, an oscillator that fades (Abel, Coffin & Spratt, "A modal
/// architecture for artificial reverberation", 2013). Modes lie between 50 Hz and 9 kHz, evenly on a logarithmic scale but for
/// chance, every audio channel has its own; high ones fade sooner.
class room {
public:
    /// `decay` is the time in seconds after which a low mode has fallen by 60 dB; `wet` the energy of what the room adds to a
    /// click, against the click's own.
    room(double sample_rate, index channels, index modes, double decay, double wet)
        : channels_(channels), modes_(modes), pole_(size()), input_(size()), C_(size()), h_(size()),
          D_(static_cast<std::size_t>(channels), 1.0f)
    {
        std::vector<std::complex<double>> A(size());
        const std::vector<double> delta(static_cast<std::size_t>(channels), 1 / sample_rate);
        const std::vector<std::complex<float>> B(size(), 1.0f);
        const auto chance = ssmkit::uniform_numbers(2 * static_cast<index>(size()), 1);
        const double lowest = 50, highest = std::min(9000.0, 0.45 * sample_rate);
        for (std::size_t i = 0; i < size(); ++i) {
            const double place = (static_cast<double>(static_cast<index>(i) % modes) + chance[2 * i]) / static_cast<double>(modes);
            const double frequency = lowest * std::pow(highest / lowest, place);
            const double rate = std::log(1000.0) / decay * (1 + frequency / 2000);
            A[i] = {-rate, 2 * std::numbers::pi * frequency};
        }
        const view<const double, 1> steps(delta.data(), channels);
        ssmkit::s4d_discretize(ssmkit::s4d_discretize_args<float>{.delta = ssmkit::tied_over_state(steps, modes),
                                                                  .A = {A.data(), channels, modes},
                                                                  .B = {B.data(), channels, modes},
                                                                  .pole = {pole_.data(), channels, modes},
                                                                  .input = {input_.data(), channels, modes}});
        // A mode adds 2 Re(C B̄ λ^t) to a click, whose energy is about 2 |C B̄|² / (1 - |λ|²): the same for all, phases by chance.
        for (std::size_t i = 0; i < size(); ++i) {
            const double fade = std::norm(std::complex<double>(pole_[i]));
            const double gain = std::sqrt(wet * (1 - fade) / (2 * static_cast<double>(modes)));
            const double phase = 2 * std::numbers::pi * chance[2 * i + 1];
            C_[i] = std::complex<float>(std::polar(gain, phase) / std::complex<double>(input_[i]));
        }
    }

    /// The next samples, (length, channels): nothing is allocated, and blocks of any length give the same result.
    void process(const view<const float, 2>& u, const view<float, 2>& y)
    {
        const index length = u.extent(0);
        ssmkit::s4d_step(ssmkit::s4d_step_args<float>{
            .h = {h_.data(), 1, channels_, modes_},
            .pole = {pole_.data(), channels_, modes_},
            .input = {input_.data(), channels_, modes_},
            .C = {C_.data(), 1, channels_, modes_},
            .D = {D_.data(), 1, channels_},
            .u = {u.data(), {1, length, channels_}, {0, u.stride(0), u.stride(1)}},
            .y = {y.data(), {1, length, 1, channels_}, {0, y.stride(0), 0, y.stride(1)}},
        });
    }

private:
    std::size_t size() const { return static_cast<std::size_t>(channels_ * modes_); }

    index channels_, modes_;
    std::vector<std::complex<float>> pole_, input_, C_, h_;
    std::vector<float> D_;
};

}  // namespace s4d_filter
