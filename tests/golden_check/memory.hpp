#pragma once

// Memory of a handler's own, and tensors that the file stores with an axis more than the library has.

#include <array>
#include <cstddef>
#include <stdexcept>
#include <vector>

#include "golden.hpp"

namespace golden {

/// Memory with a view.
template <class E, std::size_t Rank>
struct owned {
    std::vector<E> data;
    view<E, Rank> all;

    explicit owned(const std::array<index, Rank>& extents)
    {
        index n = 1;
        for (const index e : extents) n *= e;
        data.resize(static_cast<std::size_t>(n));
        all = {data.data(), extents};
    }
};

/// Element for element; nothing if there is nowhere to.
template <class E, std::size_t Rank>
void copy(const view<const E, Rank>& from, const view<E, Rank>& to)
{
    if (to.data() == nullptr) return;
    for (index i = 0; i < from.extent(0); ++i) {
        if constexpr (Rank == 1) {
            to[i] = from[i];
        } else {
            copy<E, Rank - 1>(from[i], to[i]);
        }
    }
}

/// The first index of a tensor dropped: (1, a, b) to (a, b).
template <class E>
view<E, 2> only(const view<E, 3>& v)
{
    if (v.data() != nullptr && v.extent(0) != 1) throw std::runtime_error("a first axis is not 1");
    return v.data() ? v[0] : view<E, 2>{};
}

template <class E>
view<E, 1> only_row(const view<E, 2>& v)
{
    if (v.data() != nullptr && v.extent(0) != 1) throw std::runtime_error("a first axis is not 1");
    return v.data() ? v[0] : view<E, 1>{};
}

}  // namespace golden
