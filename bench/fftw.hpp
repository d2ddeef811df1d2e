#pragma once

// The convolution that one builds from FFTW, where it is installed: what the library's own are compared with.

#include <functional>

#include "harness.hpp"

#if SSMKIT_BENCH_FFTW
#include <complex>
#include <memory>
#include <mutex>

#include <fftw3.h>

namespace bench {

inline constexpr bool has_fftw = true;

/// y = causal convolution of u with a kernel a channel, rows (batch, channels, length) of time-contiguous floats: plans by
/// FFTW_MEASURE, a row at a time so that its spectrum stays in the caches, the kernels' spectra ahead of the call.
class fftw_convolution {
public:
    fftw_convolution(std::size_t batch, std::size_t channels, std::size_t length, const float* kernel)
        : batch_(batch), channels_(channels), length_(length), size_(2 * length), bins_(size_ / 2 + 1), row_(size_), spectrum_(bins_),
          kernels_(channels * bins_)
    {
        auto* const bins = reinterpret_cast<fftwf_complex*>(spectrum_.data());
        forward_ = fftwf_plan_dft_r2c_1d(static_cast<int>(size_), row_.data(), bins, FFTW_MEASURE | FFTW_DESTROY_INPUT);
        backward_ = fftwf_plan_dft_c2r_1d(static_cast<int>(size_), bins, row_.data(), FFTW_MEASURE | FFTW_DESTROY_INPUT);
        for (std::size_t h = 0; h < channels; ++h) {
            transform(kernel + h * length);
            for (std::size_t i = 0; i < bins_; ++i) kernels_[h * bins_ + i] = spectrum_[i] / static_cast<float>(size_);
        }
    }
    fftw_convolution(const fftw_convolution&) = delete;
    fftw_convolution& operator=(const fftw_convolution&) = delete;
    ~fftw_convolution()
    {
        fftwf_destroy_plan(forward_);
        fftwf_destroy_plan(backward_);
    }

    void operator()(const float* u, const float* D, float* y)
    {
        for (std::size_t h = 0; h < channels_; ++h) {
            for (std::size_t b = 0; b < batch_; ++b) {
                const std::size_t at = (b * channels_ + h) * length_;
                transform(u + at);
                const std::complex<float>* const k = kernels_.data() + h * bins_;
                for (std::size_t i = 0; i < bins_; ++i) {
                    const float re = spectrum_[i].real() * k[i].real() - spectrum_[i].imag() * k[i].imag();
                    const float im = spectrum_[i].real() * k[i].imag() + spectrum_[i].imag() * k[i].real();
                    spectrum_[i] = {re, im};
                }
                fftwf_execute(backward_);
                for (std::size_t t = 0; t < length_; ++t) y[at + t] = row_[t] + D[h] * u[at + t];
            }
        }
    }

private:
    void transform(const float* x)
    {
        std::copy_n(x, length_, row_.data());
        std::fill_n(row_.data() + length_, length_, 0.0f);
        fftwf_execute(forward_);
    }

    std::size_t batch_, channels_, length_, size_, bins_;
    array<float> row_;
    array<std::complex<float>> spectrum_, kernels_;
    fftwf_plan forward_, backward_;
};

}  // namespace bench

#else

namespace bench {
inline constexpr bool has_fftw = false;
}

#endif
