#include <cstddef>

namespace plain {

/// One token of every channel, rank 1: parts of complex numbers interleaved, states innermost.
void s4_step(std::size_t dim, std::size_t state, const float* __restrict pole, const float* __restrict gain,
             const float* __restrict U, const float* __restrict V, const float* __restrict C, const float* __restrict u,
             float* __restrict h, float* __restrict y)
{
    for (std::size_t d = 0; d < dim; ++d) {
        const std::size_t at = 2 * d * state;
        float product = 0, out = 0;
        for (std::size_t n = at; n < at + 2 * state; n += 2) product += V[n] * h[n] - V[n + 1] * h[n + 1];
        product *= 2;
        for (std::size_t n = at; n < at + 2 * state; n += 2) {
            const float re = pole[n] * h[n] - pole[n + 1] * h[n + 1] + gain[n] * u[d] - U[n] * product;
            const float im = pole[n] * h[n + 1] + pole[n + 1] * h[n] + gain[n + 1] * u[d] - U[n + 1] * product;
            h[n] = re;
            h[n + 1] = im;
            out += C[n] * re - C[n + 1] * im;
        }
        y[d] = 2 * out;
    }
}

}  // namespace plain
