#pragma once

#include <ssmkit/args/shift_kernel.hpp>

namespace ssmkit::reference {

template <class T>
void shift_kernel(const shift_kernel_args<T>& a)
{
    check(a);
    const index state = a.B.extent(1);
    const auto correlation = [&](index c, index h, index l, auto&& other) {
        T sum = 0;
        for (index n = 0; n + l < state; ++n) sum += a.C(c, h, n + l) * other(n);
        return sum;
    };
    for (index c = 0; c < a.C.extent(0); ++c) {
        for (index h = 0; h < a.B.extent(0); ++h) {
            for (index l = 0; l < a.K.extent(2); ++l) a.K(c, h, l) = correlation(c, h, l, [&](index n) { return a.B(h, n); });
            for (index b = 0; b < a.K_state.extent(0); ++b) {
                for (index l = 0; l < a.K_state.extent(3); ++l) {
                    a.K_state(b, c, h, l) = correlation(c, h, l, [&](index n) { return a.state(b, h, n); });
                }
            }
        }
    }
}

template <class T>
void shift_kernel_backward(const shift_kernel_backward_args<T>& a)
{
    check(a);
    const index state = a.B.extent(1), length = a.dK.extent(2);
    for (index h = 0; h < a.B.extent(0); ++h) {
        for (index n = 0; n < state; ++n) {
            T dB = 0;
            for (index c = 0; c < a.C.extent(0); ++c) {
                T dC = 0;
                for (index l = 0; l < length; ++l) {
                    if (n >= l) dC += a.dK(c, h, l) * a.B(h, n - l);
                    if (n + l < state) dB += a.dK(c, h, l) * a.C(c, h, n + l);
                }
                if (a.dC.data()) a.dC(c, h, n) = dC;
            }
            if (a.dB.data()) a.dB(h, n) = dB;
        }
    }
}

template <class T>
void shift_update(const shift_update_args<T>& a)
{
    check(a);
    const index state = a.B.extent(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index h = 0; h < a.B.extent(0); ++h) {
            for (index n = state; n-- > 0;) a.state(b, h, n) = (n > 0 ? a.state(b, h, n - 1) : T(0)) + a.B(h, n) * a.u(b, h);
            for (index c = 0; c < a.y.extent(1); ++c) {
                T sum = 0;
                for (index n = 0; n < state; ++n) sum += a.C(c, h, n) * a.state(b, h, n);
                a.y(b, c, h) = sum;
            }
        }
    }
}

/// As many steps as there are inputs.
template <class T>
void shift_chunk(const shift_chunk_args<T>& a)
{
    check(a);
    const index state = a.B.extent(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index h = 0; h < a.B.extent(0); ++h) {
            for (index n = 0; n < state; ++n) a.final_state(b, h, n) = a.initial_state.data() ? a.initial_state(b, h, n) : T(0);
            for (index t = 0; t < a.u.extent(2); ++t) {
                for (index n = state; n-- > 0;) {
                    a.final_state(b, h, n) = (n > 0 ? a.final_state(b, h, n - 1) : T(0)) + a.B(h, n) * a.u(b, h, t);
                }
            }
        }
    }
}

}  // namespace ssmkit::reference
