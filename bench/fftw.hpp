#pragma once

// The convolution that one builds from FFTW, where it is installed: what the library's own are compared with.

#include "harness.hpp"

#if SSMKIT_BENCH_FFTW
#include <complex>
#include <memory>

#include <fftw3.h>

namespace bench {

/// y = causal convolution of u with a kernel a channel, rows (batch, channels, length) of time-contiguous floats: a row at a time,
/// so that its spectrum stays in the caches, plans by FFTW_MEASURE, with the padding that is fastest here.
class fftw_convolution {
public:
    fftw_convolution(std::size_t batch, std::size_t channels, std::size_t length, std::size_t width)
        : batch_(batch), channels_(channels), length_(length), width_(width)
    {
        const std::size_t least = length + width - 1;
        double best = 1e300;
        for (const std::size_t odd : {1, 3, 5, 9, 15}) {
            std::size_t size = odd;
            while (size < least) size *= 2;
            if (size % 2 == 1 || size - least > least / 3) continue;
            auto tried = std::make_unique<plans>(size);
            const double took = tried->seconds_per_row();
            if (took >= best) continue;
            best = took;
            plans_ = std::move(tried);
        }
    }

    /// Makes the kernels' spectra, ahead of calls that are handed none. kernels: (channels, width)
    void keep(const float* kernels)
    {
        kept_.resize(channels_ * stride());
        for (std::size_t h = 0; h < channels_; ++h) transform_kernel(kernels + h * width_, &kept_[h * stride()]);
    }

    /// kernels: (channels, width), or null for those that were kept. D: (channels), or null for none.
    void operator()(const float* u, const float* kernels, const float* D, float* y)
    {
        plans& p = *plans_;
        if (kernels) one_.resize(p.bins);
        for (std::size_t h = 0; h < channels_; ++h) {
            if (kernels) transform_kernel(kernels + h * width_, one_.data());
            const std::complex<float>* const k = kernels ? one_.data() : &kept_[h * stride()];
            for (std::size_t b = 0; b < batch_; ++b) {
                const std::size_t at = (b * channels_ + h) * length_;
                std::copy_n(u + at, length_, p.row.data());
                std::fill(p.row.begin() + static_cast<std::ptrdiff_t>(length_), p.row.end(), 0.0f);
                fftwf_execute(p.forward);
                multiply(p.spectrum.data(), k, p.bins);
                fftwf_execute(p.backward);
                if (!D) {
                    std::copy_n(p.row.data(), length_, y + at);
                } else {
                    for (std::size_t t = 0; t < length_; ++t) y[at + t] = p.row[t] + D[h] * u[at + t];
                }
            }
        }
    }

private:
    struct plans {
        std::size_t bins;
        array<float> row;
        array<std::complex<float>> spectrum;
        fftwf_plan forward, backward;

        explicit plans(std::size_t size) : bins(size / 2 + 1), row(size), spectrum(bins)
        {
            auto* const to = reinterpret_cast<fftwf_complex*>(spectrum.data());
            forward = fftwf_plan_dft_r2c_1d(static_cast<int>(size), row.data(), to, FFTW_MEASURE | FFTW_DESTROY_INPUT);
            backward = fftwf_plan_dft_c2r_1d(static_cast<int>(size), to, row.data(), FFTW_MEASURE | FFTW_DESTROY_INPUT);
        }
        plans(const plans&) = delete;
        plans& operator=(const plans&) = delete;
        ~plans()
        {
            fftwf_destroy_plan(forward);
            fftwf_destroy_plan(backward);
        }

        /// Least of some.
        double seconds_per_row() const
        {
            double least = 1e300;
            for (int i = 0; i < 5; ++i) {
                least = std::min(least, seconds([&] { fftwf_execute(forward), fftwf_execute(backward); }, timer::wall));
            }
            return least;
        }
    };

    /// From one spectrum to the next: aligned as the plans were made for.
    std::size_t stride() const { return (plans_->bins + 7) / 8 * 8; }

    /// Divided by the transforms' length.
    void transform_kernel(const float* taps, std::complex<float>* to)
    {
        plans& p = *plans_;
        const float scale = 1 / static_cast<float>(p.row.size());
        for (std::size_t m = 0; m < width_; ++m) p.row[m] = scale * taps[m];
        std::fill(p.row.begin() + static_cast<std::ptrdiff_t>(width_), p.row.end(), 0.0f);
        fftwf_execute_dft_r2c(p.forward, p.row.data(), reinterpret_cast<fftwf_complex*>(to));
    }

    [[gnu::noinline]] static void multiply(std::complex<float>* __restrict x, const std::complex<float>* __restrict k,
                                           std::size_t n)
    {
        for (std::size_t i = 0; i < n; ++i) {
            x[i] = {x[i].real() * k[i].real() - x[i].imag() * k[i].imag(), x[i].real() * k[i].imag() + x[i].imag() * k[i].real()};
        }
    }

    std::size_t batch_, channels_, length_, width_;
    std::unique_ptr<plans> plans_;
    array<std::complex<float>> one_, kept_;
};

}  // namespace bench

#endif
