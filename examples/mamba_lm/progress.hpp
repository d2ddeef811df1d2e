#pragma once

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>

#include <unistd.h>

namespace mamba_lm {

/// A bar on standard error for work that takes longer than a second, if a person is watching.
class progress_bar {
public:
    explicit progress_bar(std::size_t total) : total_(total), watched_(isatty(STDERR_FILENO) != 0) {}

    progress_bar(const progress_bar&) = delete;
    progress_bar& operator=(const progress_bar&) = delete;

    ~progress_bar()
    {
        if (shown_) std::fprintf(stderr, "\r\033[K");
    }

    void operator()(std::size_t done)
    {
        const double seconds = std::chrono::duration<double>(clock::now() - start_).count();
        if (!watched_ || seconds < 1 || seconds - last_ < 0.1) return;
        constexpr std::size_t width = 40;
        const double share = static_cast<double>(done) / static_cast<double>(total_);
        std::string bar(static_cast<std::size_t>(share * width), '#');
        bar.resize(width, '.');
        std::fprintf(stderr, "\r[%s] %3.0f %%, %.0f s left ", bar.c_str(), 100 * share, seconds * (1 - share) / share);
        std::fflush(stderr);
        last_ = seconds;
        shown_ = true;
    }

private:
    using clock = std::chrono::steady_clock;
    std::size_t total_;
    bool watched_, shown_ = false;
    clock::time_point start_ = clock::now();
    double last_ = 0;
};

}  // namespace mamba_lm
