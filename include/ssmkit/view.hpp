#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>
#if __has_include(<mdspan>)
#include <mdspan>
#endif

#include <ssmkit/check.hpp>

namespace ssmkit {

/// Extents, strides and offsets count elements and are signed 64-bit: a tensor may hold more than 2^32 of them, and a
/// stride may be negative (an axis read backwards) or zero (an axis shared by all its indices).
using index = std::int64_t;

/// A tensor in memory that somebody else owns: pointer, extents, strides. The only array type of the interface.
///
///     view<float, 3> u{data, batch, length, dim};                        // row-major
///     view<float, 3> v{data, {batch, length, dim}, {dim * length, 1, length}}; // the same shape, time-contiguous
///
/// A default-constructed view is empty and stands for an optional argument that is not given.
template <class T, std::size_t Rank>
class view {
public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    static constexpr std::size_t rank = Rank;

    constexpr view() = default;

    /// Row-major: the last axis is contiguous.
    template <class... Extents>
        requires(sizeof...(Extents) == Rank && (std::is_convertible_v<Extents, index> && ...))
    constexpr view(T* data, Extents... extents) : view(data, std::array<index, Rank>{static_cast<index>(extents)...})
    {
    }

    constexpr view(T* data, const std::array<index, Rank>& extents)
        : data_(data), extents_(extents), strides_(row_major(extents))
    {
    }

    constexpr view(T* data, const std::array<index, Rank>& extents, const std::array<index, Rank>& strides)
        : data_(data), extents_(extents), strides_(strides)
    {
    }

    /// Row-major over a vector. Throws shape_error if it holds fewer elements than the extents ask for.
    template <class... Extents>
        requires(sizeof...(Extents) == Rank && (std::is_convertible_v<Extents, index> && ...))
    constexpr view(std::vector<value_type>& data, Extents... extents) : view(data.data(), extents...)
    {
        detail::require_elements(static_cast<index>(data.size()), size());
    }

    template <class... Extents>
        requires(std::is_const_v<T> && sizeof...(Extents) == Rank && (std::is_convertible_v<Extents, index> && ...))
    constexpr view(const std::vector<value_type>& data, Extents... extents) : view(data.data(), extents...)
    {
        detail::require_elements(static_cast<index>(data.size()), size());
    }

    /// Row-major over a span. Throws shape_error if it holds fewer elements than the extents ask for.
    template <class... Extents>
        requires(sizeof...(Extents) == Rank && (std::is_convertible_v<Extents, index> && ...))
    constexpr view(std::span<T> data, Extents... extents) : view(data.data(), extents...)
    {
        detail::require_elements(static_cast<index>(data.size()), size());
    }

#ifdef __cpp_lib_mdspan
    template <class Index, std::size_t... E, class Layout>
        requires(sizeof...(E) == Rank)
    constexpr view(const std::mdspan<T, std::extents<Index, E...>, Layout>& m) : data_(m.data_handle())
    {
        for (std::size_t axis = 0; axis < Rank; ++axis) {
            extents_[axis] = static_cast<index>(m.extent(axis));
            strides_[axis] = static_cast<index>(m.stride(axis));
        }
    }
#endif

    /// A view of mutable elements serves wherever a view of const ones is asked for.
    template <class U>
        requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>)
    constexpr view(const view<U, Rank>& other)
        : data_(other.data()), extents_(other.extents()), strides_(other.strides())
    {
    }

    constexpr T* data() const { return data_; }
    constexpr index extent(std::size_t axis) const { return extents_[axis]; }
    constexpr index stride(std::size_t axis) const { return strides_[axis]; }
    constexpr const std::array<index, Rank>& extents() const { return extents_; }
    constexpr const std::array<index, Rank>& strides() const { return strides_; }

    constexpr index size() const
    {
        index n = 1;
        for (const index e : extents_) n *= e;
        return n;
    }

    constexpr bool empty() const { return size() == 0; }

    template <class... Indices>
        requires(sizeof...(Indices) == Rank && (std::is_convertible_v<Indices, index> && ...))
    constexpr T& operator()(Indices... indices) const
    {
        return *pointer(indices...);
    }

    /// The address of an element; legal to form for fewer indices than axes, the missing ones being 0.
    template <class... Indices>
        requires(sizeof...(Indices) <= Rank && (std::is_convertible_v<Indices, index> && ...))
    constexpr T* pointer(Indices... indices) const
    {
        std::size_t axis = 0;
        index offset = 0;
        ((offset += static_cast<index>(indices) * strides_[axis++]), ...);
        return data_ + offset;
    }

    /// The view at index `i` of the first axis.
    constexpr view<T, Rank - 1> operator[](index i) const
        requires(Rank > 1)
    {
        std::array<index, Rank - 1> extents{}, strides{};
        for (std::size_t axis = 1; axis < Rank; ++axis) {
            extents[axis - 1] = extents_[axis];
            strides[axis - 1] = strides_[axis];
        }
        return {data_ + i * strides_[0], extents, strides};
    }

    constexpr T& operator[](index i) const
        requires(Rank == 1)
    {
        return data_[i * strides_[0]];
    }

    /// Indices `first` to `first + count - 1` of an axis.
    constexpr view slice(std::size_t axis, index first, index count) const
    {
        view part = *this;
        part.data_ += first * strides_[axis];
        part.extents_[axis] = count;
        return part;
    }

    constexpr view transposed(std::size_t a, std::size_t b) const
    {
        view other = *this;
        std::swap(other.extents_[a], other.extents_[b]);
        std::swap(other.strides_[a], other.strides_[b]);
        return other;
    }

    /// The axis read from its end to its beginning.
    constexpr view reversed(std::size_t axis) const
    {
        view other = *this;
        if (extents_[axis] > 0) other.data_ += (extents_[axis] - 1) * strides_[axis];
        other.strides_[axis] = -strides_[axis];
        return other;
    }

private:
    static constexpr std::array<index, Rank> row_major(const std::array<index, Rank>& extents)
    {
        std::array<index, Rank> strides{};
        index stride = 1;
        for (std::size_t axis = Rank; axis-- > 0;) {
            strides[axis] = stride;
            stride *= extents[axis];
        }
        return strides;
    }

    T* data_ = nullptr;
    std::array<index, Rank> extents_{};
    std::array<index, Rank> strides_{};
};

}  // namespace ssmkit
