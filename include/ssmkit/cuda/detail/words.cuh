#pragma once

// Several elements in one access of 4, 8 or 16 bytes.

#include <cstring>
#include <type_traits>

#include <ssmkit/cuda/device.cuh>

namespace ssmkit::cuda::detail {

template <class T, int Count>
using word_of = std::conditional_t<sizeof(T) * Count == 16, uint4, std::conditional_t<sizeof(T) * Count == 8, uint2, unsigned>>;

/// Elements that 16 bytes hold.
template <class T>
inline constexpr int wide = 16 / sizeof(T);

template <int Count, class T>
__device__ __forceinline__ word_of<T, Count> load_word(const T* from)
{
    return *reinterpret_cast<const word_of<T, Count>*>(from);
}

template <class T, int Count>
__device__ __forceinline__ void unpack(const word_of<T, Count>& word, float (&to)[Count])
{
    T elements[Count];
    std::memcpy(elements, &word, sizeof(word));
#pragma unroll
    for (int i = 0; i < Count; ++i) to[i] = widened(elements[i]);
}

template <class T, int Count>
__device__ __forceinline__ void store_word(T* to, const float (&from)[Count])
{
    T elements[Count];
#pragma unroll
    for (int i = 0; i < Count; ++i) elements[i] = narrowed<T>(from[i]);
    word_of<T, Count> word;
    std::memcpy(&word, elements, sizeof(word));
    *reinterpret_cast<word_of<T, Count>*>(to) = word;
}

/// True if words of `count` elements along axis `along` may be read and written: it is contiguous, and all else keeps them aligned.
template <class T, std::size_t Rank>
bool in_words(const view<T, Rank>& v, std::size_t along, int count)
{
    if (v.stride(along) != 1 && v.extent(along) > 1) return false;
    for (std::size_t axis = 0; axis < Rank; ++axis) {
        if (axis != along && v.extent(axis) > 1 && v.stride(axis) % count != 0) return false;
    }
    return reinterpret_cast<std::uintptr_t>(v.data()) % (sizeof(T) * static_cast<std::size_t>(count)) == 0;
}

/// Blocks of `threads` for so many items, checked against what a grid holds.
inline unsigned blocks_for(const char* op, const char* argument, index items, index threads)
{
    const index blocks = (items + threads - 1) / threads;
    ssmkit::detail::require(blocks < (index{1} << 31), op, argument, "asks for more blocks than a grid has");
    return static_cast<unsigned>(blocks);
}

}  // namespace ssmkit::cuda::detail
