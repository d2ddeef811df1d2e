#include <cmath>
#include <cstddef>

namespace plain {

/// RMSNorm of x silu(z) over each token's channels. The gated values are kept in y between the two loops.
void gated_norm(std::size_t tokens, std::size_t dim, const float* __restrict x, const float* __restrict z,
                const float* __restrict weight, float eps, float* __restrict y)
{
    for (std::size_t t = 0; t < tokens; ++t, x += dim, z += dim, y += dim) {
        float sum = 0;
        for (std::size_t c = 0; c < dim; ++c) {
            y[c] = x[c] * z[c] / (1.0f + std::exp(-z[c]));
            sum += y[c] * y[c];
        }
        const float r = 1.0f / std::sqrt(sum / static_cast<float>(dim) + eps);
        for (std::size_t c = 0; c < dim; ++c) y[c] *= r * weight[c];
    }
}

}  // namespace plain
