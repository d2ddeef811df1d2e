#include <cmath>
#include <cstddef>

// Compiled without fast-math's reordering it would be the same: the loop order alone makes vectors of it.

namespace plain {

/// A row's causal convolution by sums, taps outside: what the compiler makes vectors of.
void fft_conv(std::size_t length, std::size_t width, const float* __restrict u, const float* __restrict k, float* __restrict y)
{
    for (std::size_t t = 0; t < length; ++t) y[t] = 0;
    constexpr std::size_t tile = 2048;
    for (std::size_t t0 = 0; t0 < length; t0 += tile) {
        const std::size_t end = t0 + tile < length ? t0 + tile : length;
        for (std::size_t m = 0; m < width && m < end; ++m) {
            for (std::size_t t = t0 > m ? t0 : m; t < end; ++t) y[t] += k[m] * u[t - m];
        }
    }
}

}  // namespace plain
