#include <algorithm>
#include <cmath>
#include <cstddef>

namespace plain {

/// The gradients of RMSNorm of `sum`, the residual_out of the forward pass.
void add_norm_backward(std::size_t tokens, std::size_t dim, const float* __restrict sum, const float* __restrict weight,
                       float eps, const float* __restrict dy, const float* __restrict dresidual_out,
                       float* __restrict dresidual, float* __restrict dweight)
{
    std::fill_n(dweight, dim, 0.0f);
    for (std::size_t t = 0; t < tokens; ++t, sum += dim, dy += dim, dresidual_out += dim, dresidual += dim) {
        float squares = 0, products = 0;
        for (std::size_t c = 0; c < dim; ++c) {
            squares += sum[c] * sum[c];
            products += sum[c] * dy[c] * weight[c];
        }
        const float n = static_cast<float>(dim), r = 1.0f / std::sqrt(squares / n + eps);
        const float along = products / n * r * r;
        for (std::size_t c = 0; c < dim; ++c) {
            dresidual[c] = r * (dy[c] * weight[c] - sum[c] * along) + dresidual_out[c];
            dweight[c] += dy[c] * sum[c] * r;
        }
    }
}

}  // namespace plain
