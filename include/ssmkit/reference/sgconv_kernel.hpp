#pragma once

#include <cmath>

#include <ssmkit/args/sgconv_kernel.hpp>

namespace ssmkit::reference {
namespace sgconv {

/// Calls f(tap, weight) for the taps that sample j of a sub-kernel stretched by s is made of.
template <class T, class F>
void taps_of(index j, index s, index taps, bool nearest, F&& f)
{
    if (nearest) return f(j / s, T(1));
    const T x = std::max((static_cast<T>(j) + T(0.5)) / static_cast<T>(s) - T(0.5), T(0));
    const index i = static_cast<index>(x);
    const T part = x - static_cast<T>(i);
    if (part == T(0)) return f(i, T(1));  // not even a NaN in the next tap counts
    f(i, T(1) - part);
    f(std::min(i + 1, taps - 1), part);
}

/// Calls f(i, tap, weight) for everything that sample l of k is the sum of, the decay included.
template <class T, class F>
void terms_of(const sgconv_kernel_args<T>& a, index h, index l, F&& f)
{
    const index scales = a.w.extent(0), taps = a.w.extent(3);
    const T decay = a.decay.data() ? std::exp(-a.decay[h] * std::log(static_cast<T>(l) + T(1))) : T(1);
    for (index i = 0; i < scales; ++i) {
        const auto [stretch, first] = detail::sgconv_scale::of(a, i);
        if (l < first || l >= first + stretch * taps) continue;
        const T factor = decay * (a.multiplier.data() ? std::pow(a.multiplier[h], static_cast<T>(scales - 1 - i)) : T(1));
        taps_of<T>(l - first, stretch, taps, a.nearest, [&](index tap, T weight) { f(i, tap, factor * weight); });
    }
}

template <class T>
T sample(const sgconv_kernel_args<T>& a, index c, index h, index l)
{
    T k = 0;
    terms_of(a, h, l, [&](index i, index tap, T weight) { k += weight * a.w(i, c, h, tap); });
    return k;
}

template <class T>
T norm(const sgconv_kernel_args<T>& a, index c, index h)
{
    if (a.norm.data()) return a.norm(c, h);
    T squares = 0;
    for (index l = 0; l < detail::sgconv_samples(a); ++l) squares += sample(a, c, h, l) * sample(a, c, h, l);
    return std::sqrt(squares);
}

}  // namespace sgconv

template <class T>
void sgconv_kernel(const sgconv_kernel_args<T>& a)
{
    check(a);
    for (index c = 0; c < a.K.extent(0); ++c) {
        for (index h = 0; h < a.K.extent(1); ++h) {
            const T norm = sgconv::norm(a, c, h);
            if (a.new_norm.data()) a.new_norm(c, h) = norm;
            for (index l = 0; l < a.K.extent(2); ++l) a.K(c, h, l) = sgconv::sample(a, c, h, l) / norm;
        }
    }
}

template <class T>
void sgconv_kernel_backward(const sgconv_kernel_backward_args<T>& a)
{
    check(a);
    const sgconv_kernel_args<T>& f = a.forward;
    for (index h = 0; h < f.w.extent(2); ++h) {
        T ddecay = 0;
        for (index c = 0; c < f.w.extent(1); ++c) {
            const T norm = sgconv::norm(f, c, h);
            for (index i = 0; i < a.dw.extent(0); ++i) {
                for (index tap = 0; tap < a.dw.extent(3); ++tap) a.dw(i, c, h, tap) = 0;
            }
            for (index l = 0; l < a.dK.extent(2); ++l) {
                const T dk = a.dK(c, h, l) / norm;
                sgconv::terms_of(f, h, l, [&](index i, index tap, T weight) {
                    if (a.dw.data()) a.dw(i, c, h, tap) += dk * weight;
                });
                if (l > 0 && l < detail::sgconv_samples(f))  // the first sample does not decay, nor do zeros behind the last
                    ddecay -= dk * sgconv::sample(f, c, h, l) * std::log(static_cast<T>(l) + T(1));
            }
        }
        if (a.ddecay.data()) a.ddecay[h] = ddecay;
    }
}

}  // namespace ssmkit::reference
