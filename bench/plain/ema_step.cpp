#include <cstddef>

namespace plain {

/// One sequence, x and y (length, dim).
void ema_step(std::size_t dim, std::size_t state, std::size_t length, const float* __restrict decay, const float* __restrict input,
              const float* __restrict output, const float* __restrict x, float* __restrict h, float* __restrict y)
{
    for (std::size_t d = 0; d < dim; ++d) {
        for (std::size_t t = 0; t < length; ++t) {
            float sum = 0;
            for (std::size_t n = d * state; n < (d + 1) * state; ++n) {
                h[n] = decay[n] * h[n] + input[n] * x[t * dim + d];
                sum += output[n] * h[n];
            }
            y[t * dim + d] = sum;
        }
    }
}

}  // namespace plain
