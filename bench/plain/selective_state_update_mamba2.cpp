#include <cmath>
#include <cstddef>

namespace plain {

/// One step of Mamba-2 as a careful user writes it, the state (batch, nheads, headdim, state) updated in place.
void selective_state_update_mamba2(std::size_t batch, std::size_t nheads, std::size_t headdim, std::size_t state,
                                   const float* __restrict u, const float* __restrict delta, const float* __restrict A,
                                   const float* __restrict B, const float* __restrict C, float* __restrict h, float* __restrict y)
{
    for (std::size_t b = 0; b < batch; ++b, B += state, C += state) {
        for (std::size_t head = 0; head < nheads; ++head, ++delta) {
            const float step = *delta > 20.0f ? *delta : std::log1p(std::exp(*delta));
            const float decay = std::exp(step * A[head]);
            for (std::size_t c = 0; c < headdim; ++c, ++u, ++y, h += state) {
                const float x = step * *u;
                float sum = 0;
                for (std::size_t n = 0; n < state; ++n) {
                    h[n] = decay * h[n] + x * B[n];
                    sum += C[n] * h[n];
                }
                *y = sum;
            }
        }
    }
}

}  // namespace plain
