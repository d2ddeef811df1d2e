#pragma once

#include <ssmkit/args/separable_conv.hpp>
#include <ssmkit/detail/separable_rows.hpp>

namespace ssmkit::reference {
namespace separable {

/// Tap of the kernels of an axis that takes a sample to one `offset` later.
template <class T, std::size_t Axes>
T tap(const separable_conv_args<T, Axes>& a, std::size_t axis, index row, index h, index offset)
{
    if (axis >= Axes) return T(1);
    const auto& k = offset >= 0 ? a.k[axis] : a.k_reverse[axis];
    const index m = offset >= 0 ? offset : -offset - 1;
    return k.data() && m < k.extent(2) ? k(row, h, m) : T(0);
}

/// Whether the kernels of an axis reach a sample `offset` later: of what is out of reach, not even a NaN counts.
template <class T, std::size_t Axes>
bool reaches(const separable_conv_args<T, Axes>& a, std::size_t axis, index offset)
{
    return offset >= 0 ? offset < a.k[axis].extent(2) : -offset - 1 < a.k_reverse[axis].extent(2);
}

/// Calls f(batch, channel, dim, t, s, row of the kernels) for every sample s that reaches t, and for t itself.
template <class T, std::size_t Axes, class F>
void for_each_term(const separable_conv_args<T, Axes>& a, F&& f)
{
    const view<const T, 5> u = detail::as_volume<const T, Axes>(a.u);
    const index channels = a.k[0].extent(0) / a.ranks;
    const auto samples = [&](auto&& g) {
        for (index i = 0; i < u.extent(2); ++i) {
            for (index j = 0; j < u.extent(3); ++j) {
                for (index k = 0; k < u.extent(4); ++k) g(std::array<index, 3>{i, j, k});
            }
        }
    };
    for (index row = 0; row < a.k[0].extent(0); ++row) {
        for (index b = 0; b < u.extent(1); ++b) {
            for (index h = 0; h < u.extent(0); ++h) {
                samples([&](const auto& t) {
                    samples([&](const auto& s) {
                        bool reached = true;
                        for (std::size_t i = 0; i < Axes; ++i) reached = reached && reaches(a, i, t[i] - s[i]);
                        if (reached || t == s) f(b, row % channels, h, t, s, row);
                    });
                });
            }
        }
    }
}

}  // namespace separable

template <class T, std::size_t Axes>
void separable_conv(const separable_conv_args<T, Axes>& a)
{
    check(a);
    const view<const T, 5> u = detail::as_volume<const T, Axes>(a.u);
    const auto y_of = [&](index c) { return detail::as_volume<T, Axes>(a.y.transposed(0, 1)[c]); };
    for (index c = 0; c < a.y.extent(1); ++c) {
        detail::for_each_pair(y_of(c), u, [](T& y, const T&) { y = 0; });
    }
    separable::for_each_term(a, [&](index b, index c, index h, const auto& t, const auto& s, index row) {
        T k = T(1) / static_cast<T>(a.ranks);
        for (std::size_t i = 0; i < Axes; ++i) k *= separable::tap(a, i, row, h, t[i] - s[i]);
        T& y = y_of(c)(h, b, t[0], t[1], t[2]);
        y += k * u(h, b, s[0], s[1], s[2]);
        if (t == s && row < a.y.extent(1) && a.D.data()) y += a.D(c, h) * u(h, b, s[0], s[1], s[2]);
    });
}

template <class T, std::size_t Axes>
void separable_conv_backward(const separable_conv_backward_args<T, Axes>& a)
{
    check(a);
    const separable_conv_args<T, Axes>& f = a.forward;
    const view<const T, 5> u = detail::as_volume<const T, Axes>(f.u);
    const view<T, 5> du = a.du.data() ? detail::as_volume<T, Axes>(a.du) : view<T, 5>{};
    const auto zero = [](const auto& v) {
        for (index i = 0; i < v.extent(0); ++i) {
            for (index j = 0; j < v.extent(1); ++j) {
                for (index k = 0; k < v.extent(2); ++k) v(i, j, k) = 0;
            }
        }
    };
    if (du.data()) detail::for_each_pair(du, u, [](T& x, const T&) { x = 0; });
    for (std::size_t i = 0; i < Axes; ++i) {
        zero(a.dk[i]);
        zero(a.dk_reverse[i]);
    }
    for (index c = 0; c < a.dD.extent(0); ++c) {
        for (index h = 0; h < a.dD.extent(1); ++h) a.dD(c, h) = 0;
    }
    separable::for_each_term(f, [&](index b, index c, index h, const auto& t, const auto& s, index row) {
        const T dy = detail::as_volume<const T, Axes>(a.dy.transposed(0, 1)[c])(h, b, t[0], t[1], t[2]);
        const T x = u(h, b, s[0], s[1], s[2]), scaled = dy / static_cast<T>(f.ranks);
        T k = 1;
        for (std::size_t i = 0; i < Axes; ++i) k *= separable::tap(f, i, row, h, t[i] - s[i]);
        if (du.data()) du(h, b, s[0], s[1], s[2]) += scaled * k;
        for (std::size_t i = 0; i < Axes; ++i) {
            T others = 1;
            for (std::size_t j = 0; j < Axes; ++j) {
                if (j != i) others *= separable::tap(f, j, row, h, t[j] - s[j]);
            }
            const index offset = t[i] - s[i], m = offset >= 0 ? offset : -offset - 1;
            const auto& dk = offset >= 0 ? a.dk[i] : a.dk_reverse[i];
            if (dk.data() && m < dk.extent(2)) dk(row, h, m) += scaled * others * x;
        }
        if (t == s && row < a.dy.extent(1)) {
            if (a.dD.data()) a.dD(c, h) += dy * x;
            if (du.data() && f.D.data()) du(h, b, s[0], s[1], s[2]) += dy * f.D(c, h);
        }
    });
}

}  // namespace ssmkit::reference
