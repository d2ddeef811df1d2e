#include <cmath>
#include <cstddef>

namespace plain {

/// Mamba-2's scan as a careful user writes it for the compiler's vectoriser: a head at a time, whose state (headdim, state)
/// stays in a cache near by; states innermost and contiguous, and the sum over them in the same loop. D and z may be null;
/// `h` (headdim, state) is scratch memory.
void ssd(std::size_t batch, std::size_t length, std::size_t nheads, std::size_t headdim, std::size_t groups, std::size_t state,
         const float* __restrict u, const float* __restrict delta, const float* __restrict A, const float* __restrict B,
         const float* __restrict C, const float* __restrict D, const float* __restrict z, float* __restrict h,
         float* __restrict y)
{
    for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t head = 0; head < nheads; ++head) {
            const std::size_t group = head / (nheads / groups);
            for (std::size_t i = 0; i < headdim * state; ++i) h[i] = 0.0f;
            for (std::size_t t = 0; t < length; ++t) {
                const std::size_t token = b * length + t, row = (token * nheads + head) * headdim;
                const float r = delta[token * nheads + head], step = r > 20.0f ? r : std::log1p(std::exp(r));
                const float decay = std::exp(step * A[head]);
                const float* __restrict B_t = B + (token * groups + group) * state;
                const float* __restrict C_t = C + (token * groups + group) * state;
                for (std::size_t p = 0; p < headdim; ++p) {
                    float* __restrict h_p = h + p * state;
                    const float x = step * u[row + p];
                    float sum = 0.0f;
                    for (std::size_t n = 0; n < state; ++n) {
                        h_p[n] = decay * h_p[n] + x * B_t[n];
                        sum += C_t[n] * h_p[n];
                    }
                    y[row + p] = D ? sum + D[head] * u[row + p] : sum;
                }
                if (z) {
                    for (std::size_t p = 0; p < headdim; ++p) y[row + p] *= z[row + p] / (1.0f + std::exp(-z[row + p]));
                }
            }
        }
    }
}

}  // namespace plain
