#pragma once

#include <ssmkit/args/fft_conv.hpp>

namespace ssmkit::reference {

/// The long convolution as its equation says it (args/fft_conv.hpp), every sum term by term: the oracle of the tests.
template <class T>
void fft_conv(const fft_conv_args<T>& a)
{
    check(a);
    using C = compute_t<T>;
    const index length = a.u.extent(2), width = a.k.extent(2), reverse = a.k_reverse.data() ? a.k_reverse.extent(2) : 0;
    const index s = a.reverse_includes_current ? 0 : 1;
    for (index b = 0; b < a.y.extent(0); ++b) {
        for (index c = 0; c < a.y.extent(1); ++c) {
            for (index h = 0; h < a.y.extent(2); ++h) {
                const auto v = [&](index t) {
                    const C u = static_cast<C>(a.u(b, h, t));
                    return a.input_gate.data() ? u * static_cast<C>(a.input_gate(b, h, t)) : u;
                };
                for (index t = 0; t < length; ++t) {
                    C p = a.D.data() ? a.D(c, h) * v(t) : C(0);
                    for (index m = 0; m < width && m <= t; ++m) p += a.k(c, h, m) * v(t - m);
                    for (index m = 0; m < reverse && t + m + s < length; ++m) p += a.k_reverse(c, h, m) * v(t + m + s);
                    a.y(b, c, h, t) = static_cast<T>(a.output_gate.data() ? static_cast<C>(a.output_gate(b, h, t)) * p : p);
                }
            }
        }
    }
}

}  // namespace ssmkit::reference
