#include <cstddef>

namespace plain {

/// Cauchy sums over conjugate pairs at nodes iy, four numerators sharing denominators, one row: w (state, 2), v (4, state, 2),
/// out (4, length, 2). Per block of nodes and pole, in real arithmetic; `sums` is scratch memory for 8 * 64 numbers.
void cauchy(std::size_t length, std::size_t state, const float* __restrict y, const float* __restrict w, const float* __restrict v,
            float* __restrict out, float* __restrict sums)
{
    constexpr std::size_t block = 64;
    for (std::size_t first = 0; first < length; first += block) {
        const std::size_t count = length - first < block ? length - first : block;
        for (std::size_t i = 0; i < 8 * block; ++i) sums[i] = 0;
        for (std::size_t n = 0; n < state; ++n) {
            const float a = w[2 * n], b = w[2 * n + 1], size = a * a + b * b;
            float p[4], q[4];
            for (std::size_t k = 0; k < 4; ++k) {
                const float re = v[2 * (k * state + n)], im = v[2 * (k * state + n) + 1];
                p[k] = -2 * (re * a + im * b);
                q[k] = -2 * re;
            }
            for (std::size_t l = 0; l < count; ++l) {
                const float t = y[first + l], re = size - t * t, im = 2 * a * t, g = 1 / (re * re + im * im);
                const float x = g * re, z = g * im;
                for (std::size_t k = 0; k < 4; ++k) {
                    sums[2 * k * block + l] += p[k] * x + q[k] * (t * z);
                    sums[(2 * k + 1) * block + l] += p[k] * z - q[k] * (t * x);
                }
            }
        }
        for (std::size_t k = 0; k < 4; ++k) {
            for (std::size_t l = 0; l < count; ++l) {
                out[2 * (k * length + first + l)] = sums[2 * k * block + l];
                out[2 * (k * length + first + l) + 1] = sums[(2 * k + 1) * block + l];
            }
        }
    }
}

}  // namespace plain
