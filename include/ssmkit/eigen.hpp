#pragma once

// Views of Eigen's matrices, and Eigen's maps of views: for code that does its linear algebra with Eigen, 3.4 or newer.
// No kernel includes this.

#include <string>
#include <type_traits>
#include <utility>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // g++ 12 takes deliberately undefined operands in its own AVX-512 intrinsics for mistakes
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <Eigen/Core>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// What as_view takes: something of Eigen's with elements in memory (a matrix, a Map, a Ref, a block, a transpose),
/// that does not own them if it is a temporary.
template <class M>
concept eigen_memory =
    requires(std::remove_reference_t<M>& m) {
        m.data();
        m.rowStride();
        m.colStride();
        typename std::remove_cvref_t<M>::PlainObject;
    } && (std::is_lvalue_reference_v<M> ||
          !std::is_same_v<std::remove_cvref_t<M>, typename std::remove_cvref_t<M>::PlainObject>);

/// The elements of a matrix, (rows, cols), or of a vector, (size), in either storage order. Elements of something const
/// are const.
template <eigen_memory M>
auto as_view(M&& m)
{
    using element = std::remove_pointer_t<decltype(m.data())>;
    if constexpr (std::remove_cvref_t<M>::IsVectorAtCompileTime) {
        return view<element, 1>{m.data(), {m.size()}, {m.innerStride()}};
    } else {
        return view<element, 2>{m.data(), {m.rows(), m.cols()}, {m.rowStride(), m.colStride()}};
    }
}

/// A matrix whose rows are the tokens of `batch` sequences, one sequence after the other, as (batch, length, dim).
/// Throws shape_error if the sequences cannot be equally long.
template <eigen_memory M>
auto as_view(M&& m, index batch)
{
    using element = std::remove_pointer_t<decltype(m.data())>;
    if (batch <= 0 ? m.rows() != 0 : m.rows() % batch != 0) [[unlikely]] {
        detail::fail("as_view: the matrix has " + std::to_string(m.rows()) + " rows, expected a multiple of batch = " +
                     std::to_string(batch));
    }
    const index length = batch > 0 ? m.rows() / batch : 0;
    return view<element, 3>{
        m.data(), {batch, length, m.cols()}, {length * m.rowStride(), m.rowStride(), m.colStride()}};
}

/// The view as a matrix of Eigen's that shares its memory. Eigen knows no negative strides; where the last axis is
/// contiguous, a Map with an OuterStride made by hand spares its products a copy.
template <class T>
auto as_eigen(const view<T, 2>& v)
{
    using matrix = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
    return Eigen::Map<std::conditional_t<std::is_const_v<T>, const matrix, matrix>, Eigen::Unaligned, strides>(
        v.data(), v.extent(0), v.extent(1), strides(v.stride(0), v.stride(1)));
}

/// The same for a vector, as a column.
template <class T>
auto as_eigen(const view<T, 1>& v)
{
    using vector = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, 1>;
    using strides = Eigen::InnerStride<Eigen::Dynamic>;
    return Eigen::Map<std::conditional_t<std::is_const_v<T>, const vector, vector>, Eigen::Unaligned, strides>(
        v.data(), v.extent(0), strides(v.stride(0)));
}

}  // namespace ssmkit
