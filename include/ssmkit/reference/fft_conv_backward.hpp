#pragma once

#include <ssmkit/args/fft_conv_backward.hpp>

namespace ssmkit::reference {

/// The gradients of the long convolution as their equations say it (args/fft_conv_backward.hpp): the oracle of the tests.
template <class T>
void fft_conv_backward(const fft_conv_backward_args<T>& a)
{
    check(a);
    using C = compute_t<T>;
    const fft_conv_args<T>& f = a.forward;
    const index batch = f.u.extent(0), dim = f.u.extent(1), length = f.u.extent(2), channels = f.k.extent(0);
    const index width = f.k.extent(2), reverse = f.k_reverse.data() ? f.k_reverse.extent(2) : 0;
    const index s = f.reverse_includes_current ? 0 : 1;
    const auto v = [&](index b, index h, index t) {
        const C u = static_cast<C>(f.u(b, h, t));
        return f.input_gate.data() ? u * static_cast<C>(f.input_gate(b, h, t)) : u;
    };
    const auto dp = [&](index b, index c, index h, index t) {
        const C dy = static_cast<C>(a.dy(b, c, h, t));
        return f.output_gate.data() ? dy * static_cast<C>(f.output_gate(b, h, t)) : dy;
    };
    for (index b = 0; b < batch; ++b) {
        for (index h = 0; h < dim; ++h) {
            for (index t = 0; t < length; ++t) {
                C dv = 0, gate = 0;
                for (index c = 0; c < channels; ++c) {
                    const C D = f.D.data() ? f.D(c, h) : C(0);
                    C p = D * v(b, h, t);
                    dv += D * dp(b, c, h, t);
                    for (index m = 0; m < width; ++m) {
                        if (t + m < length) dv += f.k(c, h, m) * dp(b, c, h, t + m);
                        if (t - m >= 0) p += f.k(c, h, m) * v(b, h, t - m);
                    }
                    for (index m = 0; m < reverse; ++m) {
                        if (t - m - s >= 0) dv += f.k_reverse(c, h, m) * dp(b, c, h, t - m - s);
                        if (t + m + s < length) p += f.k_reverse(c, h, m) * v(b, h, t + m + s);
                    }
                    gate += static_cast<C>(a.dy(b, c, h, t)) * p;
                }
                if (a.du.data())
                    a.du(b, h, t) = static_cast<T>(f.input_gate.data() ? dv * static_cast<C>(f.input_gate(b, h, t)) : dv);
                if (a.dinput_gate.data()) a.dinput_gate(b, h, t) = static_cast<T>(dv * static_cast<C>(f.u(b, h, t)));
                if (a.doutput_gate.data()) a.doutput_gate(b, h, t) = static_cast<T>(gate);
            }
        }
    }
    for (index c = 0; c < channels; ++c) {
        for (index h = 0; h < dim; ++h) {
            const auto correlation = [&](index offset) {
                C sum = 0;
                for (index b = 0; b < batch; ++b) {
                    for (index t = 0; t < length; ++t) {
                        if (t - offset >= 0 && t - offset < length) sum += dp(b, c, h, t) * v(b, h, t - offset);
                    }
                }
                return sum;
            };
            for (index m = 0; m < width && a.dk.data(); ++m) a.dk(c, h, m) = correlation(m);
            for (index m = 0; m < reverse && a.dk_reverse.data(); ++m) a.dk_reverse(c, h, m) = correlation(-m - s);
            if (a.dD.data()) a.dD(c, h) = correlation(0);
        }
    }
}

}  // namespace ssmkit::reference
