#pragma once

#include <string>

#include <common/mamba_block.hpp>

#include "matrices.hpp"

namespace golden {

/// The weights of a Mamba-1 block by their names in a checkpoint.
template <class R>
mamba::block_weights<R> mamba1_weights(problem& p, const std::string& prefix)
{
    mamba::block_weights<R> weights{
        .in_proj_weight = matrix_of<R>(p, prefix + "in_proj.weight", 0, 1),
        .in_proj_bias = row_of<R>(p, prefix + "in_proj.bias"),
        .A_log = {},
        .inner = {.conv1d_weight = matrix_of<R>(p, prefix + "conv1d.weight", 0, 1, 2),
                  .conv1d_bias = row_of<R>(p, prefix + "conv1d.bias"),
                  .x_proj_weight = matrix_of<R>(p, prefix + "x_proj.weight", 0, 1),
                  .delta_proj_weight = matrix_of<R>(p, prefix + "dt_proj.weight", 0, 1),
                  .out_proj_weight = matrix_of<R>(p, prefix + "out_proj.weight", 0, 1),
                  .out_proj_bias = row_of<R>(p, prefix + "out_proj.bias"),
                  .A = {},
                  .B = {},
                  .C = {},
                  .B_proj_bias = {},
                  .C_proj_bias = {},
                  .D = row_of<R>(p, prefix + "D"),
                  .delta_bias = row_of<R>(p, prefix + "dt_proj.bias")},
    };
    weights.set_A_log(matrix_of<R>(p, prefix + "A_log", 0, 1));
    return weights;
}

template <class R>
void hand_in_block_gradients(problem& p, const std::string& prefix, const mamba::block_weights<R>& d)
{
    const std::string name = "d" + prefix;
    hand_in(p.output<R>(name + "A_log", 0, 1), d.A_log);
    hand_in(p.output<R>(name + "D", 0), d.inner.D);
    hand_in(p.output<R>(name + "in_proj.weight", 0, 1), d.in_proj_weight);
    hand_in(p.output<R>(name + "in_proj.bias", 0), d.in_proj_bias);
    hand_in(without_middle(p.output<R>(name + "conv1d.weight", 0, 1, 2)), d.inner.conv1d_weight);
    hand_in(p.output<R>(name + "conv1d.bias", 0), d.inner.conv1d_bias);
    hand_in(p.output<R>(name + "x_proj.weight", 0, 1), d.inner.x_proj_weight);
    hand_in(p.output<R>(name + "dt_proj.weight", 0, 1), d.inner.delta_proj_weight);
    hand_in(p.output<R>(name + "dt_proj.bias", 0), d.inner.delta_bias);
    hand_in(p.output<R>(name + "out_proj.weight", 0, 1), d.inner.out_proj_weight);
    hand_in(p.output<R>(name + "out_proj.bias", 0), d.inner.out_proj_bias);
}

/// A Mamba-1 block to code that is written for either.
template <class R>
struct mamba1 {
    using weights = mamba::block_weights<R>;
    using state = mamba::block_state<R>;
    using activations = mamba::block_activations<R>;
};

}  // namespace golden
