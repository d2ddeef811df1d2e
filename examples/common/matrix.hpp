#pragma once

#include <ssmkit/eigen.hpp>

namespace mamba {

using ssmkit::as_view;
using ssmkit::index;
using ssmkit::view;

/// Tokens of all sequences one below the other, or a weight as in the checkpoint, (out, in).
template <class R>
using matrix = Eigen::Matrix<R, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class R>
using row = Eigen::Matrix<R, 1, Eigen::Dynamic>;

namespace detail {

/// A vector that may be empty.
template <class R>
view<const R, 1> given(const row<R>& values)
{
    return values.size() ? as_view(values) : view<const R, 1>{};
}

}  // namespace detail
}  // namespace mamba
