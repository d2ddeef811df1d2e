#include <cmath>
#include <cstddef>

namespace plain {

/// RMSNorm of x + residual over each token's channels.
void add_norm(std::size_t tokens, std::size_t dim, const float* __restrict x, const float* __restrict residual,
              const float* __restrict weight, float eps, float* __restrict y, float* __restrict residual_out)
{
    for (std::size_t t = 0; t < tokens; ++t, x += dim, residual += dim, y += dim, residual_out += dim) {
        float sum = 0;
        for (std::size_t c = 0; c < dim; ++c) {
            residual_out[c] = x[c] + residual[c];
            sum += residual_out[c] * residual_out[c];
        }
        const float r = 1.0f / std::sqrt(sum / static_cast<float>(dim) + eps);
        for (std::size_t c = 0; c < dim; ++c) y[c] = residual_out[c] * r * weight[c];
    }
}

}  // namespace plain
