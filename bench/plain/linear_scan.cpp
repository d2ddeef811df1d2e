#include <cstddef>

namespace plain {

/// One sequence, (length, state), channels innermost; the state is the row before.
void linear_scan(std::size_t length, std::size_t state, const float* __restrict a, const float* __restrict b, float* __restrict h)
{
    for (std::size_t c = 0; c < state && length > 0; ++c) h[c] = b[c];
    for (std::size_t t = 1; t < length; ++t) {
        const float* const now = b + t * state;
        const float* const before = h + (t - 1) * state;
        float* const out = h + t * state;
#pragma GCC ivdep
        for (std::size_t c = 0; c < state; ++c) out[c] = a[c] * before[c] + now[c];
    }
}

/// The same for complex numbers, (re, im) interleaved: the state in arrays of real and imaginary parts, which the compiler
/// turns into vectors where pairs would keep it from that. `re` and `im` are scratch memory.
void linear_scan_complex(std::size_t length, std::size_t state, const float* __restrict a, const float* __restrict b,
                         float* __restrict h, float* __restrict re, float* __restrict im)
{
    for (std::size_t c = 0; c < state; ++c) re[c] = im[c] = 0;
    for (std::size_t t = 0; t < length; ++t) {
        const float* const now = b + t * 2 * state;
        float* const out = h + t * 2 * state;
        for (std::size_t c = 0; c < state; ++c) {
            const float next = a[2 * c] * re[c] - a[2 * c + 1] * im[c] + now[2 * c];
            im[c] = a[2 * c] * im[c] + a[2 * c + 1] * re[c] + now[2 * c + 1];
            re[c] = next;
            out[2 * c] = re[c];
            out[2 * c + 1] = im[c];
        }
    }
}

}  // namespace plain
