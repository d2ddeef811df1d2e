#include <cmath>
#include <cstddef>

namespace plain {

/// One token with silu, width 4: the state as (3, dim), oldest first, and the taps as (4, dim), both channels innermost.
void causal_conv1d_update(std::size_t dim, const float* __restrict x, const float* __restrict weight,
                          const float* __restrict bias, float* __restrict state, float* __restrict y)
{
    for (std::size_t c = 0; c < dim; ++c) {
        const float a = state[c], b = state[dim + c], d = state[2 * dim + c];
        const float sum = bias[c] + weight[c] * a + weight[dim + c] * b + weight[2 * dim + c] * d + weight[3 * dim + c] * x[c];
        state[c] = b;
        state[dim + c] = d;
        state[2 * dim + c] = x[c];
        y[c] = sum / (1.0f + std::exp(-sum));
    }
}

}  // namespace plain
