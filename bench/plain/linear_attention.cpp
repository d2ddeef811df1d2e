#include <cmath>
#include <cstddef>

namespace plain {

/// Linear attention as a careful user writes it: a head at a time, the state (key, value) in a cache, lanes along the values.
/// g, gk and beta may be null; decay (key), u (value) and S (key, value) are scratch memory.
void linear_attention(std::size_t batch, std::size_t length, std::size_t nheads, std::size_t groups, std::size_t key,
                      std::size_t value, const float* __restrict q, const float* __restrict k, const float* __restrict v,
                      const float* __restrict g, const float* __restrict gk, const float* __restrict beta, float scale,
                      float* __restrict decay, float* __restrict u, float* __restrict S, float* __restrict y)
{
    for (std::size_t b = 0; b < batch; ++b) {
        for (std::size_t head = 0; head < nheads; ++head) {
            for (std::size_t i = 0; i < key * value; ++i) S[i] = 0;
            for (std::size_t t = 0; t < length; ++t) {
                const std::size_t token = b * length + t, row = token * nheads + head;
                const std::size_t map = (token * groups + head / (nheads / groups)) * key;
                const float* const v_t = v + row * value;
                float* const y_t = y + row * value;
                for (std::size_t i = 0; i < key; ++i) decay[i] = std::exp((g ? g[row] : 0.0f) + (gk ? gk[map + i] : 0.0f));
                for (std::size_t j = 0; j < value; ++j) {
                    u[j] = v_t[j];
                    y_t[j] = 0;
                }
                if (beta) {
                    for (std::size_t i = 0; i < key; ++i) {
                        const float factor = decay[i] * k[map + i];
                        for (std::size_t j = 0; j < value; ++j) u[j] -= factor * S[i * value + j];
                    }
                    for (std::size_t j = 0; j < value; ++j) u[j] *= beta[row];
                }
                for (std::size_t i = 0; i < key; ++i) {
                    float* const S_i = S + i * value;
                    const float k_i = k[map + i], q_i = scale * q[map + i];
                    for (std::size_t j = 0; j < value; ++j) {
                        S_i[j] = decay[i] * S_i[j] + k_i * u[j];
                        y_t[j] += q_i * S_i[j];
                    }
                }
            }
        }
    }
}

}  // namespace plain
