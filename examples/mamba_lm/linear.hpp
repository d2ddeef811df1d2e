#pragma once

#include <algorithm>
#include <vector>

#include <ssmkit/execution.hpp>
#include <ssmkit/view.hpp>

#include "../common/eigen.hpp"

namespace mamba_lm {

using ssmkit::index;
using ssmkit::view;

/// Row-major as in the checkpoint, aligned as the processor likes it.
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// y = W x + bias.
struct linear {
    matrix weight;            ///< (out, in)
    std::vector<float> bias;  ///< (out), or empty
};

/// Applies a linear layer to every row of x (length, in), giving y (length, out); rows may lie apart, their elements not.
/// One row is a product of matrix and vector, limited by the memory that the weights come from; more are one of matrices.
/// Work splits over blocks of outputs that do not depend on the number of threads, so neither does the result.
inline void apply(const linear& l, const view<const float, 2>& x, const view<float, 2>& y, ssmkit::threads& pool)
{
    using rows_in = Eigen::Map<const matrix, Eigen::Unaligned, Eigen::OuterStride<>>;
    using rows_out = Eigen::Map<matrix, Eigen::Unaligned, Eigen::OuterStride<>>;
    const rows_in in(x.data(), x.extent(0), x.extent(1), Eigen::OuterStride<>(x.stride(0)));
    const index outputs = l.weight.rows(), length = x.extent(0);
    // Waking the pool takes 4 to 11 us, reading half a megabyte of weights 27: smaller layers stay on one thread.
    constexpr index step_block_floats = index(1) << 17;
    constexpr index sequence_block = 192;  // 4 of Eigen's 48-row panels; as fast as one block, though x is packed for each
    const index block = length == 1 ? std::max<index>(16, step_block_floats / l.weight.cols()) : sequence_block;
    const index blocks = (outputs + block - 1) / block;
    ssmkit::detail::run_tasks(pool, static_cast<std::size_t>(blocks), [&](std::size_t task, std::size_t) {
        const index first = static_cast<index>(task) * block, count = std::min(block, outputs - first);
        const auto weight = l.weight.middleRows(first, count);
        rows_out out(y.pointer(0, first), length, count, Eigen::OuterStride<>(y.stride(0)));
        if (length == 1) {
            out.row(0).transpose().noalias() = weight * in.row(0).transpose();
        } else {
            out.noalias() = in * weight.transpose();
        }
        if (!l.bias.empty()) out.rowwise() += Eigen::Map<const Eigen::RowVectorXf>(l.bias.data() + first, count);
    });
}

}  // namespace mamba_lm
