#pragma once

// Volumes of separable convolutions: dense, dim outermost, the axis at work innermost, so that its rows are a batch.

#include <algorithm>
#include <array>
#include <cstddef>

#include <ssmkit/view.hpp>

namespace ssmkit::detail {

/// (batch, dim, length ...) as dim by batch by three lengths, of which the missing ones are 1.
template <class T, std::size_t Axes>
view<T, 5> as_volume(const view<T, 2 + Axes>& v)
{
    std::array<index, 5> extents{v.extent(1), v.extent(0), 1, 1, 1}, strides{v.stride(1), v.stride(0), 0, 0, 0};
    for (std::size_t i = 0; i < Axes; ++i) {
        extents[2 + i] = v.extent(2 + i);
        strides[2 + i] = v.stride(2 + i);
    }
    return {v.data(), extents, strides};
}

/// Dense memory of such a volume with axis number `inner` of the lengths innermost; the axes keep their numbers.
template <class T>
view<T, 5> volume_in(T* memory, const std::array<index, 5>& extents, std::size_t inner)
{
    std::array<index, 5> strides{};
    index stride = extents[2 + inner];
    strides[2 + inner] = 1;
    for (std::size_t axis = 5; axis-- > 0;) {
        if (axis == 2 + inner) continue;
        strides[axis] = stride;
        stride *= extents[axis];
    }
    return {memory, extents, strides};
}

/// f(to, from) of all elements, in squares of two axes, so that neither side leaves the caches.
template <class T, class U, class F>
void for_each_pair(const view<T, 5>& to, const view<U, 5>& from, F&& f)
{
    std::size_t inner = 4, other = 4;  // the axes along which the two are densest
    for (std::size_t axis = 0; axis < 5; ++axis) {
        if (to.extent(axis) > 1 && (to.extent(inner) <= 1 || to.stride(axis) < to.stride(inner))) inner = axis;
        if (to.extent(axis) > 1 && (to.extent(other) <= 1 || from.stride(axis) < from.stride(other))) other = axis;
    }
    view<T, 5> a = to.transposed(4, inner);
    view<U, 5> b = from.transposed(4, inner);
    if (other == 4) other = inner;
    else if (other == inner) other = 4;
    if (other != 4) {
        a = a.transposed(3, other);
        b = b.transposed(3, other);
    }
    constexpr index side = 32;
    for (index i = 0; i < a.extent(0); ++i) {
        for (index j = 0; j < a.extent(1); ++j) {
            for (index k = 0; k < a.extent(2); ++k) {
                for (index l0 = 0; l0 < a.extent(3); l0 += side) {
                    for (index m0 = 0; m0 < a.extent(4); m0 += side) {
                        for (index l = l0; l < std::min(l0 + side, a.extent(3)); ++l) {
                            for (index m = m0; m < std::min(m0 + side, a.extent(4)); ++m) f(a(i, j, k, l, m), b(i, j, k, l, m));
                        }
                    }
                }
            }
        }
    }
}

/// Rows along the innermost axis of a dense volume: (rows of a channel, dim, length).
template <class T>
view<T, 3> as_rows(const view<T, 5>& v, std::size_t inner)
{
    const index length = v.extent(2 + inner),
                rows = v.extent(1) * v.extent(2) * v.extent(3) * v.extent(4) / std::max<index>(length, 1);
    return {v.data(), {rows, v.extent(0), length}, {length, v.stride(0), 1}};
}

}  // namespace ssmkit::detail
