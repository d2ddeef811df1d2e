// An S4D layer on sound, block by block, as an audio plugin runs one: a room of some hundred modes (modes.hpp).
//
//     s4d_filter --example dry.wav
//     s4d_filter dry.wav wet.wav --picture spectrograms.png

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "allocations.hpp"
#include "modes.hpp"
#include "sound.hpp"
#include "spectrogram.hpp"

namespace s4d_filter {
namespace {

struct options {
    std::string input, output, picture, example;
    index block = 64, modes = 400;
    double decay = 2, wet = 0.5;
};

/// Blocks that took longer than the sound they hold lasts would be heard as gaps.
struct timing {
    std::vector<double> seconds;  // of each block
    long allocations = 0;
};

/// All blocks of `dry`, and silence until `wet` is full.
timing run_in_blocks(room& filter, const view<const float, 2>& dry, const view<float, 2>& wet, index block)
{
    using clock = std::chrono::steady_clock;
    const index channels = dry.extent(1);
    std::vector<float> silence(static_cast<std::size_t>(block * channels));
    timing t;
    t.seconds.reserve(static_cast<std::size_t>(wet.extent(0) / block + 2));
    const long before = allocations;
    for (index first = 0; first < wet.extent(0);) {
        const bool sounding = first < dry.extent(0);
        const index length = std::min(block, (sounding ? dry : view<const float, 2>(wet)).extent(0) - first);
        const view<const float, 2> u =
            sounding ? dry.slice(0, first, length) : view<const float, 2>(silence.data(), length, channels);
        const auto start = clock::now();
        filter.process(u, wet.slice(0, first, length));
        t.seconds.push_back(std::chrono::duration<double>(clock::now() - start).count());
        first += length;
    }
    t.allocations = allocations - before;
    return t;
}

void declare_options(CLI::App& app, options& o)
{
    app.description("Plays a sound file in a room of modes, an S4D layer run block by block.");
    app.add_option("input", o.input, "Sound file to read");
    app.add_option("output", o.output, "WAV file to write");
    app.add_option("--example", o.example, "Write a sound to try it with, and nothing else")->excludes("input");
    app.add_option("--picture", o.picture, "PNG file: spectrograms before and after");
    app.add_option("--block", o.block, "Samples at a time")->check(CLI::Range(1, 1 << 20))->capture_default_str();
    app.add_option("--modes", o.modes, "Of the room, each channel's own")->check(CLI::Range(1, 1 << 16))->capture_default_str();
    app.add_option("--decay", o.decay, "Seconds in which low modes fall by 60 dB")->check(CLI::Range(0.01, 60.0))->capture_default_str();
    app.add_option("--wet", o.wet, "Energy of what the room adds to a click")->check(CLI::Range(0.0, 100.0))->capture_default_str();
}

int run(const options& o)
{
    if (!o.example.empty()) {
        write_sound(o.example, plucked_notes());
        std::printf("Six plucked notes are in %s.\n", o.example.c_str());
        return 0;
    }
    if (o.output.empty()) throw std::runtime_error("two files are needed, one to read and one to write (see --help)");
    sound dry = read_sound(o.input);
    room filter(dry.sample_rate, dry.channels, o.modes, o.decay, o.wet);
    sound wet{dry.sample_rate, dry.channels, dry.samples};
    wet.samples.resize(static_cast<std::size_t>((dry.length() + static_cast<index>(o.decay * dry.sample_rate)) * dry.channels));
    timing t = run_in_blocks(filter, dry.all(), wet.all(), o.block);
    write_sound(o.output, wet);

    std::sort(t.seconds.begin(), t.seconds.end());
    const double lasts = static_cast<double>(o.block) / dry.sample_rate, worst = t.seconds.back();
    std::printf("%s: %.2f s at %d Hz, %td channels of %td modes each\n", o.input.c_str(), dry.seconds(), dry.sample_rate, dry.channels,
                o.modes);
    std::printf("%zu blocks of %td samples, which last %.0f us: median %.1f us, worst %.1f us (%.1f %% of its time)\n", t.seconds.size(),
                o.block, 1e6 * lasts, 1e6 * t.seconds[t.seconds.size() / 2], 1e6 * worst, 100 * worst / lasts);
    std::printf("allocations while it ran: %ld\n", t.allocations);
    if (!o.picture.empty()) {
        write_spectrograms(o.picture, dry, wet);
        std::printf("The picture is in %s: before, and below it after.\n", o.picture.c_str());
    }
    return t.allocations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace s4d_filter

int main(int argc, char** argv)
{
    s4d_filter::options o;
    CLI::App app;
    s4d_filter::declare_options(app, o);
    try {
        app.parse(argc, argv);
        return s4d_filter::run(o);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) ? 2 : 0;
    } catch (const std::exception& e) {
        std::fprintf(stderr, "s4d_filter: %s\n", e.what());
        return 2;
    }
}
