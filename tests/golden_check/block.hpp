#pragma once

#include <stdexcept>
#include <string>

#include "matrices.hpp"

namespace golden {

/// A case of a block, mamba1<R> or mamba2<R>: the whole sequence, prefill and steps, and the gradients.
template <class Block, class R>
void run_block(problem& p, const typename Block::weights& weights)
{
    const auto tokens = p.input<R>("hidden_states", 0, 1, 2);
    const index batch = tokens.extent(0), length = tokens.extent(1);
    const index prefill = p.flag<index>("prefill", length), steps = p.flag<index>("steps", 0);
    if (prefill < 1 || prefill + steps != length) throw std::runtime_error("prefill + steps is not the length");
    const mamba::matrix<R> hidden = tokens_of(tokens);

    const auto hand_in_state = [&](const typename Block::state& state, const std::string& when) {
        hand_in_states(p, "conv_state_" + when, state.conv);
        hand_in_states(p, "ssm_state_" + when, state.scan);
    };
    const auto operations = p.operations();
    typename Block::activations kept;
    hand_in(p.output<R>("out", 0, 1, 2), mamba_block(weights, hidden, batch, operations, kept));
    hand_in_state(state_after(weights, kept, batch), "final");

    typename Block::activations first;
    const mamba::matrix<R> prompt = tokens_of(tokens.slice(1, 0, prefill));
    const auto pieces = p.output<R>("out", 0, 1, 2);
    hand_in(pieces.slice(1, 0, prefill), mamba_block(weights, prompt, batch, operations, first));
    typename Block::state state = state_after(weights, first, batch);
    hand_in_state(state, "prefill");
    const auto out_steps = p.output<R>("out_steps", 0, 1, 2);
    for (index i = 0; i < steps; ++i) {
        const mamba::matrix<R> token = tokens_of(tokens.slice(1, prefill + i, 1));
        const mamba::matrix<R> out = mamba_block_step(weights, token, state, operations);
        hand_in(pieces.slice(1, prefill + i, 1), out);
        if (out_steps.data()) hand_in(out_steps.slice(1, i, 1), out);
    }
    hand_in_state(state, "final");

    if (!p.has("dout")) return;
    const mamba::matrix<R> dout = tokens_of(p.input<R>("dout", 0, 1, 2));
    const auto d = mamba_block_backward(weights, hidden, batch, dout, operations, kept);
    hand_in(p.output<R>("dhidden_states", 0, 1, 2), d.hidden);
    hand_in_block_gradients(p, "", d.weights);
}

}  // namespace golden
