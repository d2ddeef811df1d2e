#include <cmath>
#include <cstddef>

namespace plain {

/// The selective scan as a careful user writes it for the compiler's vectoriser: channels innermost and contiguous,
/// also in the state and in A, which are (state, dim); pointers that do not alias. D and z may be null. `step`, `x`
/// (dim) and `h` (state, dim) are scratch memory.
void selective_scan(std::size_t batch, std::size_t length, std::size_t dim, std::size_t state,
                    const float* __restrict u, const float* __restrict delta, const float* __restrict A,
                    const float* __restrict B, const float* __restrict C, const float* __restrict D,
                    const float* __restrict z, float* __restrict step, float* __restrict x, float* __restrict h,
                    float* __restrict y)
{
    for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t i = 0; i < state * dim; ++i) h[i] = 0.0f;
        for (std::size_t t = 0; t < length; ++t, u += dim, delta += dim, y += dim, B += state, C += state) {
            for (std::size_t d = 0; d < dim; ++d) {
                step[d] = delta[d] > 20.0f ? delta[d] : std::log1p(std::exp(delta[d]));
                x[d] = step[d] * u[d];
            }
            if (D) {
                for (std::size_t d = 0; d < dim; ++d) y[d] = D[d] * u[d];
            } else {
                for (std::size_t d = 0; d < dim; ++d) y[d] = 0.0f;
            }
            for (std::size_t n = 0; n < state; ++n) {
                float* __restrict h_n = h + n * dim;
                const float* __restrict A_n = A + n * dim;
                const float B_n = B[n], C_n = C[n];
                for (std::size_t d = 0; d < dim; ++d) {
                    h_n[d] = std::exp(step[d] * A_n[d]) * h_n[d] + x[d] * B_n;
                    y[d] += C_n * h_n[d];
                }
            }
            if (z) {
                for (std::size_t d = 0; d < dim; ++d) y[d] *= z[d] / (1.0f + std::exp(-z[d]));
                z += dim;
            }
        }
    }
}

}  // namespace plain
