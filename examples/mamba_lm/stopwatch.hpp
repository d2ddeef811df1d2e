#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace mamba_lm {

enum class part { linear, conv, scan, norm, rest };

/// Seconds spent in each part of the model.
class stopwatch {
public:
    static constexpr std::array<const char*, 5> names{"linear", "conv", "scan", "norm", "rest"};

    void start() { last_ = clock::now(); }

    /// Books the time since the last call.
    void lap(part p)
    {
        const clock::time_point now = clock::now();
        seconds_[static_cast<std::size_t>(p)] += std::chrono::duration<double>(now - last_).count();
        last_ = now;
    }

    const std::array<double, names.size()>& seconds() const { return seconds_; }

    double total() const
    {
        double sum = 0;
        for (const double s : seconds_) sum += s;
        return sum;
    }

private:
    using clock = std::chrono::steady_clock;
    clock::time_point last_{};
    std::array<double, names.size()> seconds_{};
};

}  // namespace mamba_lm
