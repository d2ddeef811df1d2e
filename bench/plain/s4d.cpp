#include <cstddef>

namespace plain {

/// One channel of S4D, token by token, as a careful user writes it: the state's parts in arrays, lanes along the states. pole, in
/// and out: [2][state], real parts first; x: [2][state].
void s4d(std::size_t length, std::size_t state, const float* __restrict pole, const float* __restrict in, const float* __restrict out,
         float D, const float* __restrict u, float* __restrict x, float* __restrict y)
{
    for (std::size_t t = 0; t < length; ++t) {
        float sum = D * u[t];
        for (std::size_t n = 0; n < state; ++n) {
            const float re = pole[n] * x[n] - pole[state + n] * x[state + n] + in[n] * u[t];
            const float im = pole[n] * x[state + n] + pole[state + n] * x[n] + in[state + n] * u[t];
            x[n] = re;
            x[state + n] = im;
            sum += out[n] * re - out[state + n] * im;
        }
        y[t] = sum;
    }
}

}  // namespace plain
