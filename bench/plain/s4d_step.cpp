#include <cstddef>

namespace plain {

/// One sequence, u and y (length, dim); a state's real and imaginary parts lie apart, as vectors want them.
void s4d_step(std::size_t dim, std::size_t state, std::size_t length, const float* __restrict pole_re,
              const float* __restrict pole_im, const float* __restrict input_re, const float* __restrict input_im,
              const float* __restrict C_re, const float* __restrict C_im, const float* __restrict u, float* __restrict re,
              float* __restrict im, float* __restrict y)
{
    for (std::size_t h = 0; h < dim; ++h) {
        const std::size_t at = h * state;
        for (std::size_t t = 0; t < length; ++t) {
            const float x = u[t * dim + h];
            float sum = 0;
            for (std::size_t n = at; n < at + state; ++n) {
                const float next = pole_re[n] * re[n] - pole_im[n] * im[n] + input_re[n] * x;
                im[n] = pole_re[n] * im[n] + pole_im[n] * re[n] + input_im[n] * x;
                re[n] = next;
                sum += C_re[n] * next - C_im[n] * im[n];
            }
            y[t * dim + h] = 2 * sum;
        }
    }
}

}  // namespace plain
