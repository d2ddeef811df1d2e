#include <cmath>
#include <cstddef>

namespace plain {

/// One channel by running powers of its poles, B = 1: the powers of one step lie side by side. `re` and `im` are scratch memory for
/// the powers, `pole_re` and `pole_im` for the poles.
void s4d_kernel(std::size_t state, std::size_t length, float delta, const float* __restrict A_re, const float* __restrict A_im,
                const float* __restrict C_re, const float* __restrict C_im, float* __restrict pole_re, float* __restrict pole_im,
                float* __restrict re, float* __restrict im, float* __restrict K)
{
    for (std::size_t n = 0; n < state; ++n) {
        const float size = std::exp(delta * A_re[n]), angle = delta * A_im[n];
        pole_re[n] = size * std::cos(angle);
        pole_im[n] = size * std::sin(angle);
        const float over = 1 / (A_re[n] * A_re[n] + A_im[n] * A_im[n]);  // gain: (λ - 1) / A
        const float gain_re = ((pole_re[n] - 1) * A_re[n] + pole_im[n] * A_im[n]) * over;
        const float gain_im = (pole_im[n] * A_re[n] - (pole_re[n] - 1) * A_im[n]) * over;
        re[n] = 2 * (C_re[n] * gain_re - C_im[n] * gain_im);
        im[n] = 2 * (C_re[n] * gain_im + C_im[n] * gain_re);
    }
    for (std::size_t l = 0; l < length; ++l) {
        float sum = 0;
        for (std::size_t n = 0; n < state; ++n) {
            sum += re[n];
            const float next = re[n] * pole_re[n] - im[n] * pole_im[n];
            im[n] = re[n] * pole_im[n] + im[n] * pole_re[n];
            re[n] = next;
        }
        K[l] = sum;
    }
}

/// The same with sixteen steps side by side, pole after pole, the kernel gathered in memory.
void s4d_kernel_steps(std::size_t state, std::size_t length, float delta, const float* __restrict A_re,
                      const float* __restrict A_im, const float* __restrict C_re, const float* __restrict C_im,
                      float* __restrict pole_re, float* __restrict pole_im, float* __restrict re, float* __restrict im,
                      float* __restrict K)
{
    s4d_kernel(state, 0, delta, A_re, A_im, C_re, C_im, pole_re, pole_im, re, im, K);
    constexpr std::size_t side = 16;
    for (std::size_t l = 0; l < length; ++l) K[l] = 0;
    for (std::size_t n = 0; n < state; ++n) {
        float p_re[side], p_im[side], x = re[n], y = im[n];
        float step_re = 1, step_im = 0;
        for (std::size_t j = 0; j < side; ++j) {
            p_re[j] = x;
            p_im[j] = y;
            const float next = x * pole_re[n] - y * pole_im[n];
            y = x * pole_im[n] + y * pole_re[n];
            x = next;
            const float turned = step_re * pole_re[n] - step_im * pole_im[n];
            step_im = step_re * pole_im[n] + step_im * pole_re[n];
            step_re = turned;
        }
        std::size_t l = 0;
        for (; l + side <= length; l += side) {
            for (std::size_t j = 0; j < side; ++j) {
                K[l + j] += p_re[j];
                const float next = p_re[j] * step_re - p_im[j] * step_im;
                p_im[j] = p_re[j] * step_im + p_im[j] * step_re;
                p_re[j] = next;
            }
        }
        for (std::size_t j = 0; l + j < length; ++j) K[l + j] += p_re[j];
    }
}

}  // namespace plain
