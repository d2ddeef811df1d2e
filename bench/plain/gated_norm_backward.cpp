#include <algorithm>
#include <cmath>
#include <cstddef>

namespace plain {

/// The gradients of RMSNorm of x silu(z); scratch: (4, dim).
void gated_norm_backward(std::size_t tokens, std::size_t dim, const float* __restrict x, const float* __restrict z,
                         const float* __restrict weight, float eps, const float* __restrict dy, float* __restrict dx,
                         float* __restrict dz, float* __restrict dweight, float* __restrict scratch)
{
    float* __restrict const v = scratch;
    float* __restrict const gate = scratch + dim;
    float* __restrict const gate_part = scratch + 2 * dim;
    float* __restrict const w = scratch + 3 * dim;
    std::fill_n(dweight, dim, 0.0f);
    for (std::size_t t = 0; t < tokens; ++t, x += dim, z += dim, dy += dim, dx += dim, dz += dim) {
        float squares = 0, products = 0;
        for (std::size_t c = 0; c < dim; ++c) {
            const float s = 1.0f / (1.0f + std::exp(-z[c]));
            gate[c] = z[c] * s;
            gate_part[c] = x[c] * s * (1.0f + z[c] * (1.0f - s));
            v[c] = x[c] * gate[c];
            w[c] = dy[c] * weight[c];
            squares += v[c] * v[c];
            products += v[c] * w[c];
        }
        const float n = static_cast<float>(dim), r = 1.0f / std::sqrt(squares / n + eps);
        const float along = products / n * r * r;
        for (std::size_t c = 0; c < dim; ++c) {
            const float dv = r * (w[c] - v[c] * along);
            dx[c] = dv * gate[c];
            dz[c] = dv * gate_part[c];
            dweight[c] += dy[c] * v[c] * r;
        }
    }
}

}  // namespace plain
