#pragma once

#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <type_traits>
#include <vector>

#include <ssmkit/view.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

/// Address space that takes memory only where it is touched, for views with strides of billions of elements.
class sparse_memory {
public:
    struct refused {};

    sparse_memory() = default;
    sparse_memory(const sparse_memory&) = delete;
    sparse_memory& operator=(const sparse_memory&) = delete;
    ~sparse_memory()
    {
        for (const mapping& m : mappings_) munmap(m.address, m.bytes);
    }

    /// The elements of `v`, copied to where they are `stride` elements apart along one axis. Throws refused if the system
    /// will not lend the address space.
    template <class T, std::size_t Rank>
    view<T, Rank> spread(const view<T, Rank>& v, std::size_t axis, index stride)
    {
        std::array<index, Rank> strides{};
        index packed = 1;
        for (std::size_t i = Rank; i-- > 0;) {
            strides[i] = i == axis ? stride : packed;
            if (i != axis) packed *= v.extent(i);
        }
        const std::size_t bytes = static_cast<std::size_t>((v.extent(axis) - 1) * stride + packed) * sizeof(T);
        void* const p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) throw refused{};
        mappings_.push_back({p, bytes});
        using element = std::remove_const_t<T>;
        const view<element, Rank> copy(static_cast<element*>(p), v.extents(), strides);
        for_each_index(v, [&](auto... i) { copy(i...) = v(i...); });
        return copy;
    }

private:
    struct mapping {
        void* address;
        std::size_t bytes;
    };
    std::vector<mapping> mappings_;
};

}  // namespace ssmkit::testing
