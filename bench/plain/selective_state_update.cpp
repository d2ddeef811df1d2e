#include <cmath>
#include <cstddef>

namespace plain {

/// One step as a careful user writes it: the state of a channel is contiguous, so the vectoriser's lanes run along it.
/// D and z may be null.
void selective_state_update(std::size_t batch, std::size_t dim, std::size_t state, const float* __restrict u,
                            const float* __restrict delta, const float* __restrict A, const float* __restrict B,
                            const float* __restrict C, const float* __restrict D, const float* __restrict z,
                            float* __restrict h, float* __restrict y)
{
    for (std::size_t b = 0; b < batch; ++b, B += state, C += state) {
        for (std::size_t d = 0; d < dim; ++d, h += state) {
            const std::size_t i = b * dim + d;
            const float step = delta[i] > 20.0f ? delta[i] : std::log1p(std::exp(delta[i]));
            const float x = step * u[i];
            float sum = D ? D[d] * u[i] : 0.0f;
            for (std::size_t n = 0; n < state; ++n) {
                h[n] = std::exp(step * A[d * state + n]) * h[n] + x * B[n];
                sum += C[n] * h[n];
            }
            y[i] = z ? sum * z[i] / (1.0f + std::exp(-z[i])) : sum;
        }
    }
}

/// The same with the state and A stored (state, dim), channels innermost; `step`, `x` (dim) are scratch memory.
void selective_state_update_state_major(std::size_t batch, std::size_t dim, std::size_t state,
                                        const float* __restrict u, const float* __restrict delta,
                                        const float* __restrict A, const float* __restrict B, const float* __restrict C,
                                        const float* __restrict D, const float* __restrict z, float* __restrict step,
                                        float* __restrict x, float* __restrict h, float* __restrict y)
{
    for (std::size_t b = 0; b < batch;
         ++b, u += dim, delta += dim, y += dim, B += state, C += state, h += state * dim) {
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

}  // namespace plain
