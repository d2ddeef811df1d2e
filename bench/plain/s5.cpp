#include <cstddef>

namespace plain {

/// One sequence, (length, dim). B is (dim, 2 state) and C (2 state, dim), (re, im) interleaved along the state, so that the
/// compiler makes vectors of the inner loops; `scratch` holds 4 state numbers.
void s5(std::size_t length, std::size_t dim, std::size_t state, const float* __restrict A, const float* __restrict B,
        const float* __restrict C, const float* __restrict D, const float* __restrict u, float* __restrict y,
        float* __restrict scratch)
{
    const std::size_t numbers = 2 * state;
    float *const h = scratch, *const b = scratch + numbers;
    for (std::size_t i = 0; i < numbers; ++i) h[i] = 0;
    for (std::size_t t = 0; t < length; ++t) {
        const float* const in = u + t * dim;
        float* const out = y + t * dim;
        for (std::size_t i = 0; i < numbers; ++i) b[i] = 0;
        std::size_t c = 0;
        for (; c + 4 <= dim; c += 4) {  // four rows at a time: b is loaded and stored once for them
            const float* const row = B + c * numbers;
            for (std::size_t i = 0; i < numbers; ++i) {
                b[i] += in[c] * row[i] + in[c + 1] * row[numbers + i] + in[c + 2] * row[2 * numbers + i] +
                        in[c + 3] * row[3 * numbers + i];
            }
        }
        for (; c < dim; ++c) {
            for (std::size_t i = 0; i < numbers; ++i) b[i] += in[c] * B[c * numbers + i];
        }
        for (std::size_t n = 0; n < state; ++n) {
            const float re = A[2 * n] * h[2 * n] - A[2 * n + 1] * h[2 * n + 1] + b[2 * n];
            h[2 * n + 1] = A[2 * n] * h[2 * n + 1] + A[2 * n + 1] * h[2 * n] + b[2 * n + 1];
            h[2 * n] = re;
        }
        for (std::size_t o = 0; o < dim; ++o) out[o] = D[o] * in[o];
        for (std::size_t i = 0; i < numbers; i += 2) {
            const float *const re = C + i * dim, *const im = re + dim;
            for (std::size_t o = 0; o < dim; ++o) out[o] += h[i] * re[o] + h[i + 1] * im[o];
        }
    }
}

}  // namespace plain
