#pragma once

#include <cmath>
#include <memory>
#include <numbers>
#include <stdexcept>
#include <string>
#include <vector>

#include <sndfile.h>

#include <ssmkit/parameters.hpp>
#include <ssmkit/view.hpp>

namespace s4d_filter {

using ssmkit::index, ssmkit::view;

/// Samples between -1 and 1, those of one instant next to each other.
struct sound {
    int sample_rate = 0;
    index channels = 0;
    std::vector<float> samples;

    index length() const { return channels ? static_cast<index>(samples.size()) / channels : 0; }
    double seconds() const { return static_cast<double>(length()) / sample_rate; }
    view<float, 2> all() { return {samples.data(), length(), channels}; }
};

namespace detail {

struct closing {
    void operator()(SNDFILE* file) const { sf_close(file); }
};
using handle = std::unique_ptr<SNDFILE, closing>;

inline handle open(const std::string& path, int mode, SF_INFO& info)
{
    handle file(sf_open(path.c_str(), mode, &info));
    if (!file) throw std::runtime_error(path + ": " + sf_strerror(nullptr));
    return file;
}

}  // namespace detail

/// The sound in a file of any kind that libsndfile knows. Throws std::runtime_error, naming the file.
inline sound read_sound(const std::string& path)
{
    SF_INFO info{};
    const detail::handle file = detail::open(path, SFM_READ, info);
    sound s{info.samplerate, info.channels, {}};
    s.samples.resize(static_cast<std::size_t>(info.frames * info.channels));
    if (sf_readf_float(file.get(), s.samples.data(), info.frames) != info.frames) throw std::runtime_error(path + ": cut off");
    if (s.samples.empty()) throw std::runtime_error(path + ": no samples");
    return s;
}

/// Writes a WAV file of 24 bits; what exceeds 1 is clipped. Throws std::runtime_error, naming the file.
inline void write_sound(const std::string& path, const sound& s)
{
    SF_INFO info{};
    info.samplerate = s.sample_rate;
    info.channels = static_cast<int>(s.channels);
    info.format = SF_FORMAT_WAV | SF_FORMAT_PCM_24;
    const detail::handle file = detail::open(path, SFM_WRITE, info);
    sf_command(file.get(), SFC_SET_CLIPPING, nullptr, SF_TRUE);
    if (sf_writef_float(file.get(), s.samples.data(), s.length()) != s.length()) throw std::runtime_error(path + ": not written");
}

/// Something to try it with: an arpeggio on plucked strings, each a burst of noise that runs round a delay line (Karplus &
/// Strong, 1983), from left to right.
inline sound plucked_notes()
{
    constexpr int rate = 48000;
    sound s{rate, 2, std::vector<float>(2 * 3 * rate)};
    const double semitones[] = {0, 4, 7, 12, 16, 19};
    for (int note = 0; note < 6; ++note) {
        auto line = ssmkit::uniform_numbers(static_cast<index>(rate / (130.8 * std::pow(2.0, semitones[note] / 12))),
                                            static_cast<std::uint64_t>(note));
        const double right = 0.1 + 0.16 * note;
        std::size_t at = 0;
        for (index t = note * rate / 4; t < s.length(); ++t) {
            const std::size_t next = (at + 1) % line.size();
            const double out = 0.3 * (line[at] - 0.5);
            s.all()(t, 0) += static_cast<float>((1 - right) * out);
            s.all()(t, 1) += static_cast<float>(right * out);
            line[at] = 0.5 + 0.498 * (line[at] + line[next] - 1);
            at = next;
        }
    }
    return s;
}

}  // namespace s4d_filter
