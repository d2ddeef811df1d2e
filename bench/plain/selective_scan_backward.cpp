#include <cmath>
#include <cstddef>

namespace plain {

/// All gradients of the selective scan with z and D, as a careful user writes them for the compiler's vectoriser:
/// channels innermost; A and dA are (state, dim), dinitial_state is (batch, state, dim); the states of one batch row
/// are kept, one a token, in `h` (length + 1, state, dim). `step`, `x`, `p` (length, dim), `G_B`, `G_A` (dim) and `K`
/// (state, dim) are scratch memory as well.
void selective_scan_backward(std::size_t batch, std::size_t length, std::size_t dim, std::size_t state,
                             const float* __restrict u, const float* __restrict delta, const float* __restrict A,
                             const float* __restrict B, const float* __restrict C, const float* __restrict D,
                             const float* __restrict z, const float* __restrict dy, float* __restrict du,
                             float* __restrict ddelta, float* __restrict dz, float* __restrict dA, float* __restrict dB,
                             float* __restrict dC, float* __restrict dD, float* __restrict ddelta_bias,
                             float* __restrict dinitial_state, float* __restrict h, float* __restrict step,
                             float* __restrict x, float* __restrict p, float* __restrict G_B, float* __restrict G_A,
                             float* __restrict K)
{
    const std::size_t states = state * dim;
    for (std::size_t i = 0; i < states; ++i) dA[i] = 0.0f;
    for (std::size_t d = 0; d < dim; ++d) dD[d] = ddelta_bias[d] = 0.0f;
    for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t i = 0; i < states; ++i) h[i] = K[i] = 0.0f;
        for (std::size_t t = 0; t < length; ++t) {
            const std::size_t token = b * length + t, row = token * dim;
            for (std::size_t d = 0; d < dim; ++d) {
                const float raw = delta[row + d];
                step[t * dim + d] = raw > 20.0f ? raw : std::log1p(std::exp(raw));
                x[t * dim + d] = step[t * dim + d] * u[row + d];
                p[t * dim + d] = D[d] * u[row + d];
            }
            for (std::size_t n = 0; n < state; ++n) {
                const float* __restrict before = h + t * states + n * dim;
                float* __restrict after = h + (t + 1) * states + n * dim;
                const float B_n = B[token * state + n], C_n = C[token * state + n];
                for (std::size_t d = 0; d < dim; ++d) {
                    after[d] = std::exp(step[t * dim + d] * A[n * dim + d]) * before[d] + x[t * dim + d] * B_n;
                    p[t * dim + d] += C_n * after[d];
                }
            }
        }
        for (std::size_t t = length; t-- > 0;) {
            const std::size_t token = b * length + t, row = token * dim;
            const float* __restrict step_t = step + t * dim;
            float* __restrict p_t = p + t * dim;
            for (std::size_t d = 0; d < dim; ++d) {
                const float s = 1.0f / (1.0f + std::exp(-z[row + d]));
                dz[row + d] = dy[row + d] * p_t[d] * s * (1.0f + z[row + d] * (1.0f - s));
                p_t[d] = dy[row + d] * z[row + d] * s;  // from here on the gradient of p
                dD[d] += p_t[d] * u[row + d];
                G_B[d] = G_A[d] = 0.0f;
            }
            for (std::size_t n = 0; n < state; ++n) {
                const float* __restrict before = h + t * states + n * dim;
                const float* __restrict after = h + (t + 1) * states + n * dim;
                float* __restrict K_n = K + n * dim;
                const float* __restrict A_n = A + n * dim;
                float* __restrict dA_n = dA + n * dim;
                const float B_n = B[token * state + n], C_n = C[token * state + n];
                float dB_n = 0.0f, dC_n = 0.0f;
                for (std::size_t d = 0; d < dim; ++d) {
                    const float a = std::exp(step_t[d] * A_n[d]);
                    const float G = p_t[d] * C_n + K_n[d];
                    const float carried = G * a * before[d];
                    dC_n += p_t[d] * after[d];
                    dB_n += x[t * dim + d] * G;
                    G_B[d] += G * B_n;
                    G_A[d] += carried * A_n[d];
                    dA_n[d] += step_t[d] * carried;
                    K_n[d] = a * G;
                }
                dB[token * state + n] = dB_n;
                dC[token * state + n] = dC_n;
            }
            for (std::size_t d = 0; d < dim; ++d) {
                du[row + d] = D[d] * p_t[d] + step_t[d] * G_B[d];
                const float raw = delta[row + d];
                const float slope = raw > 20.0f ? 1.0f : 1.0f / (1.0f + std::exp(-raw));
                ddelta[row + d] = (G_A[d] + u[row + d] * G_B[d]) * slope;
                ddelta_bias[d] += ddelta[row + d];
            }
        }
        for (std::size_t i = 0; i < states; ++i) dinitial_state[b * states + i] = K[i];
    }
}

}  // namespace plain
