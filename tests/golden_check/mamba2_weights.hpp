#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include <nlohmann/json.hpp>

#include <common/mamba2_block.hpp>

#include "limits.hpp"
#include "matrices.hpp"

namespace golden {

/// What a Mamba-2 block's tensors do not tell, under the names of its constructor's arguments.
struct mamba2_options {
    index headdim = 64, ngroups = 1;
    std::pair<double, double> dt_limit = limits({0.0, "inf"});
    bool norm_before_gate = false;
};

/// The weights of a Mamba-2 block by their names in a checkpoint.
template <class R>
mamba::mamba2_block_weights<R> mamba2_weights(problem& p, const std::string& prefix, const mamba2_options& options)
{
    mamba::mamba2_block_weights<R> weights{
        .in_proj_weight = matrix_of<R>(p, prefix + "in_proj.weight", 0, 1),
        .in_proj_bias = row_of<R>(p, prefix + "in_proj.bias"),
        .inner = {.conv1d_weight = matrix_of<R>(p, prefix + "conv1d.weight", 0, 1, 2),
                  .conv1d_bias = row_of<R>(p, prefix + "conv1d.bias"),
                  .A = {},
                  .D = row_of<R>(p, prefix + "D"),
                  .delta_bias = row_of<R>(p, prefix + "dt_bias"),
                  .norm_weight = row_of<R>(p, prefix + "norm.weight"),
                  .out_proj_weight = matrix_of<R>(p, prefix + "out_proj.weight", 0, 1),
                  .out_proj_bias = row_of<R>(p, prefix + "out_proj.bias"),
                  .headdim = options.headdim,
                  .ngroups = options.ngroups,
                  .delta_min = static_cast<R>(options.dt_limit.first),
                  .delta_max = static_cast<R>(options.dt_limit.second),
                  .norm_before_gate = options.norm_before_gate},
    };
    weights.set_A_log(row_of<R>(p, prefix + "A_log"));
    if (weights.inner.inputs() != weights.in_proj_weight.rows()) throw std::runtime_error("the options do not fit the tensors");
    return weights;
}

template <class R>
void hand_in_block_gradients(problem& p, const std::string& prefix, const mamba::mamba2_block_weights<R>& d)
{
    const std::string name = "d" + prefix;
    hand_in(p.output<R>(name + "A_log", 0), d.A_log);
    hand_in(p.output<R>(name + "D", 0), d.inner.D);
    hand_in(p.output<R>(name + "dt_bias", 0), d.inner.delta_bias);
    hand_in(p.output<R>(name + "in_proj.weight", 0, 1), d.in_proj_weight);
    hand_in(p.output<R>(name + "in_proj.bias", 0), d.in_proj_bias);
    hand_in(without_middle(p.output<R>(name + "conv1d.weight", 0, 1, 2)), d.inner.conv1d_weight);
    hand_in(p.output<R>(name + "conv1d.bias", 0), d.inner.conv1d_bias);
    hand_in(p.output<R>(name + "norm.weight", 0), d.inner.norm_weight);
    hand_in(p.output<R>(name + "out_proj.weight", 0, 1), d.inner.out_proj_weight);
    hand_in(p.output<R>(name + "out_proj.bias", 0), d.inner.out_proj_bias);
}

/// A Mamba-2 block to code that is written for either.
template <class R>
struct mamba2 {
    using weights = mamba::mamba2_block_weights<R>;
    using state = mamba::mamba2_block_state<R>;
    using activations = mamba::mamba2_block_activations<R>;
};

}  // namespace golden
