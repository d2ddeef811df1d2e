#include <cmath>
#include <cstddef>

namespace plain {

/// (length, dim), channels innermost: the loop order that the compiler turns into vectors. Width 4, taps as (4, dim).
void causal_conv1d(std::size_t length, std::size_t dim, bool silu, const float* __restrict x, const float* __restrict weight,
                   const float* __restrict bias, float* __restrict y)
{
    for (std::size_t t = 0; t < length; ++t) {
        const float* const now = x + t * dim;
        float* const out = y + t * dim;
        if (t < 3) {
            for (std::size_t c = 0; c < dim; ++c) {
                float sum = bias[c];
                for (std::size_t j = 3 - t; j < 4; ++j) sum += weight[j * dim + c] * x[(t + j - 3) * dim + c];
                out[c] = silu ? sum / (1.0f + std::exp(-sum)) : sum;
            }
        } else if (silu) {
            for (std::size_t c = 0; c < dim; ++c) {
                const float sum = bias[c] + weight[c] * (now - 3 * dim)[c] + weight[dim + c] * (now - 2 * dim)[c] +
                                  weight[2 * dim + c] * (now - dim)[c] + weight[3 * dim + c] * now[c];
                out[c] = sum / (1.0f + std::exp(-sum));
            }
        } else {
            for (std::size_t c = 0; c < dim; ++c) {
                out[c] = bias[c] + weight[c] * (now - 3 * dim)[c] + weight[dim + c] * (now - 2 * dim)[c] +
                         weight[2 * dim + c] * (now - dim)[c] + weight[3 * dim + c] * now[c];
            }
        }
    }
}

}  // namespace plain
