#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include <ssmkit/args/separable_conv.hpp>
#include <ssmkit/detail/separable_rows.hpp>
#include <ssmkit/fft_conv.hpp>
#include <ssmkit/fft_conv_backward.hpp>

namespace ssmkit {
namespace detail {

/// The volumes of a call and the convolutions along its axes, of one row of the kernels at a time: Σ lengths operations instead
/// of their product, and an exchange of axes between.
template <class T, std::size_t Axes>
struct separable_chain {
    const separable_conv_args<T, Axes>& a;
    std::array<index, 5> extents;
    index channels, elements;

    explicit separable_chain(const separable_conv_args<T, Axes>& args)
        : a(args),
          extents(as_volume<const T, Axes>(args.u).extents()),
          channels(args.k[0].extent(0) / args.ranks),
          elements(args.u.size())
    {
    }

    view<T, 5> volume(T* memory, std::size_t axis) const { return volume_in(memory, extents, axis); }

    /// Along one axis, from one dense volume to another.
    fft_conv_args<T> along(std::size_t axis, index row, T* from, T* to) const
    {
        const auto one = [&](const view<const T, 3>& k) { return k.data() ? k.slice(0, row, 1) : k; };
        return {.u = as_rows(view<const T, 5>(volume(from, axis)), axis), .k = one(a.k[axis]), .k_reverse = one(a.k_reverse[axis]),
                .y = flattened(as_rows(volume(to, axis), axis), 1)};
    }

    fft_conv_backward_args<T> back_along(const separable_conv_backward_args<T, Axes>& g, std::size_t axis, index row, T* x, T* dy,
                                         T* dx) const
    {
        const auto one = [&](const view<T, 3>& k) { return k.data() ? k.slice(0, row, 1) : k; };
        fft_conv_backward_args<T> b{.forward = along(axis, row, x, dx),
                                    .dy = flattened(view<const T, 3>(as_rows(volume(dy, axis), axis)), 1),
                                    .du = as_rows(volume(dx, axis), axis),
                                    .dk = one(g.dk[axis]),
                                    .dk_reverse = one(g.dk_reverse[axis])};
        b.forward.y = {};
        return b;
    }
};

}  // namespace detail

template <class Arch = xsimd::default_arch, class T, std::size_t Axes>
std::size_t separable_conv_workspace_size(const separable_conv_args<T, Axes>& a, std::size_t workers = 1)
{
    using namespace detail;
    const separable_chain<T, Axes> chain(a);
    if (chain.elements == 0 || chain.channels == 0) return 0;
    arena sizes;
    for (int i = 0; i < 2; ++i) sizes.take<T>(static_cast<std::size_t>(chain.elements));
    std::size_t largest = 0;
    for (std::size_t axis = 0; axis < Axes; ++axis) {
        largest = std::max(largest, fft_conv_workspace_size<Arch>(chain.along(axis, 0, nullptr, nullptr), workers));
    }
    sizes.take<std::byte>(largest);
    return sizes.size();
}

/// The separable long convolution: shapes and equation at separable_conv_args. Convolutions along one axis after the other, by
/// fft_conv, whose accuracy and splitting it has.
template <class Arch = xsimd::default_arch, class T, std::size_t Axes, execution_resource Exec = in_place>
void separable_conv(const separable_conv_args<T, Axes>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const separable_chain<T, Axes> chain(a);
    if (chain.elements == 0 || chain.channels == 0) return;
    const scratch memory("separable_conv", lent, separable_conv_workspace_size<Arch>(a, concurrency(exec)));
    arena all(memory.memory());
    T* from = all.take<T>(static_cast<std::size_t>(chain.elements));
    T* to = all.take<T>(static_cast<std::size_t>(chain.elements));
    const view<const T, 5> u = as_volume<const T, Axes>(a.u);
    for (index row = 0; row < a.k[0].extent(0); ++row) {
        const index c = row % chain.channels;
        for_each_pair(chain.volume(from, 0), u, [](T& x, const T& y) { x = y; });
        for (std::size_t axis = 0; axis < Axes; ++axis) {
            if (axis > 0) {
                for_each_pair(chain.volume(to, axis), chain.volume(from, axis - 1), [](T& x, const T& y) { x = y; });
                std::swap(from, to);
            }
            const fft_conv_args<T> x = chain.along(axis, row, from, to);
            const std::size_t bytes = fft_conv_workspace_size<Arch>(x, concurrency(exec));
            arena rest = all;
            fft_conv<Arch>(x, workspace(rest.take<std::byte>(bytes), bytes), exec);
            std::swap(from, to);
        }
        const T share = T(1) / static_cast<T>(a.ranks);
        const view<T, 5> y = as_volume<T, Axes>(a.y.transposed(0, 1)[c]), last = chain.volume(from, Axes - 1);
        for_each_pair(y, last,
                      [&, first = row < chain.channels](T& out, const T& x) { out = first ? share * x : out + share * x; });
    }
    for (index c = 0; c < chain.channels && a.D.data(); ++c) {
        for (index h = 0; h < a.D.extent(1); ++h) {
            const view<T, 5> y = as_volume<T, Axes>(a.y.transposed(0, 1)[c]).slice(0, h, 1);
            for_each_pair(y, u.slice(0, h, 1), [D = a.D(c, h)](T& out, const T& x) { out += D * x; });
        }
    }
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, std::size_t Axes, execution_resource Exec>
void separable_conv(const separable_conv_args<T, Axes>& a, Exec&& exec)
{
    separable_conv<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T, std::size_t Axes>
std::size_t separable_conv_backward_workspace_size(const separable_conv_backward_args<T, Axes>& a, std::size_t workers = 1)
{
    using namespace detail;
    const separable_chain<T, Axes> chain(a.forward);
    if (chain.elements == 0 || chain.channels == 0) return 0;
    arena sizes;
    for (std::size_t i = 0; i < Axes + 2; ++i) sizes.take<T>(static_cast<std::size_t>(chain.elements));
    std::size_t largest = 0;
    for (std::size_t axis = 0; axis < Axes; ++axis) {
        largest =
            std::max({largest, fft_conv_workspace_size<Arch>(chain.along(axis, 0, nullptr, nullptr), workers),
                      fft_conv_backward_workspace_size<Arch>(chain.back_along(a, axis, 0, nullptr, nullptr, nullptr), workers)});
    }
    sizes.take<std::byte>(largest);
    return sizes.size();
}

/// The gradients of the separable long convolution. What came into every axis is computed again and kept: axes + 2 volumes of u's
/// size.
template <class Arch = xsimd::default_arch, class T, std::size_t Axes, execution_resource Exec = in_place>
void separable_conv_backward(const separable_conv_backward_args<T, Axes>& a, workspace lent = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const separable_conv_args<T, Axes>& f = a.forward;
    const separable_chain<T, Axes> chain(f);
    if (chain.elements == 0 || chain.channels == 0) {
        for (std::size_t i = 0; i < Axes; ++i) {
            fill_zeros(a.dk[i]);
            fill_zeros(a.dk_reverse[i]);
        }
        fill_zeros(a.dD);
        return fill_zeros(a.du);
    }
    const scratch memory("separable_conv_backward", lent, separable_conv_backward_workspace_size<Arch>(a, concurrency(exec)));
    arena all(memory.memory());
    std::array<T*, Axes> inputs{};  // of each axis, dense along it
    for (T*& x : inputs) x = all.take<T>(static_cast<std::size_t>(chain.elements));
    T* dy = all.take<T>(static_cast<std::size_t>(chain.elements));
    T* dx = all.take<T>(static_cast<std::size_t>(chain.elements));
    const view<const T, 5> u = as_volume<const T, Axes>(f.u);
    const view<T, 5> du = a.du.data() ? as_volume<T, Axes>(a.du) : view<T, 5>{};
    const auto assign = [](T& x, const T& y) { x = y; };
    for (index row = 0; row < f.k[0].extent(0); ++row) {
        const view<const T, 5> dy_c = as_volume<const T, Axes>(a.dy.transposed(0, 1)[row % chain.channels]);
        for_each_pair(chain.volume(inputs[0], 0), u, assign);
        for (std::size_t axis = 0; axis + 1 < Axes; ++axis) {
            const fft_conv_args<T> x = chain.along(axis, row, inputs[axis], dx);
            const std::size_t bytes = fft_conv_workspace_size<Arch>(x, concurrency(exec));
            arena rest = all;
            fft_conv<Arch>(x, workspace(rest.take<std::byte>(bytes), bytes), exec);
            for_each_pair(chain.volume(inputs[axis + 1], axis + 1), chain.volume(dx, axis), assign);
        }
        const T share = T(1) / static_cast<T>(f.ranks);
        for_each_pair(chain.volume(dy, Axes - 1), dy_c, [&](T& x, const T& y) { x = share * y; });
        for (std::size_t axis = Axes; axis-- > 0;) {
            const fft_conv_backward_args<T> x = chain.back_along(a, axis, row, inputs[axis], dy, dx);
            const std::size_t bytes = fft_conv_backward_workspace_size<Arch>(x, concurrency(exec));
            arena rest = all;
            fft_conv_backward<Arch>(x, workspace(rest.take<std::byte>(bytes), bytes), exec);
            if (axis > 0) for_each_pair(chain.volume(dy, axis - 1), chain.volume(dx, axis), assign);
        }
        if (du.data()) {
            for_each_pair(du, chain.volume(dx, 0), [first = row == 0](T& out, const T& x) { out = first ? x : out + x; });
        }
    }
    for (index c = 0; c < chain.channels; ++c) {
        for (index h = 0; h < f.u.extent(1); ++h) {
            const view<const T, 5> dy_h = as_volume<const T, Axes>(a.dy.transposed(0, 1)[c]).slice(0, h, 1);
            if (du.data() && f.D.data())
                for_each_pair(du.slice(0, h, 1), dy_h, [D = f.D(c, h)](T& out, const T& y) { out += D * y; });
            if (a.dD.data() == nullptr) continue;
            double sum = 0;
            for_each_pair(dy_h, u.slice(0, h, 1),
                          [&](const T& y, const T& x) { sum += static_cast<double>(y) * static_cast<double>(x); });
            a.dD(c, h) = static_cast<T>(sum);
        }
    }
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, std::size_t Axes, execution_resource Exec>
void separable_conv_backward(const separable_conv_backward_args<T, Axes>& a, Exec&& exec)
{
    separable_conv_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
