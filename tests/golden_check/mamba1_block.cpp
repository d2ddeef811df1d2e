#include "matrices.hpp"
#include "mamba1_weights.hpp"

namespace {

using golden::hand_in, golden::index, golden::problem, golden::without_middle;

const golden::handler mamba1_block("mamba1_block", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;  // the composition computes in float and double
    p.descriptive("d_model", "d_state", "d_conv");
    const mamba::block_weights<R> weights = golden::mamba1_weights<R>(p, "");
    const auto tokens = p.input<R>("hidden_states", 0, 1, 2);
    const index batch = tokens.extent(0), length = tokens.extent(1);
    const index prefill = p.flag<index>("prefill", length), steps = p.flag<index>("steps", 0);
    if (prefill < 1 || prefill + steps != length) throw std::runtime_error("prefill + steps is not the length");
    const mamba::matrix<R> hidden = golden::tokens_of(tokens);

    // (batch dim, columns) as (batch, dim, columns)
    const auto hand_in_state = [&](const mamba::block_state<R>& state, const std::string& when) {
        hand_in(p.output<R>("conv_state_" + when, 0, 1, 2), state.conv);
        hand_in(p.output<R>("ssm_state_" + when, 0, 1, 2), state.scan);
    };
    golden::with_operations(p, [&](const auto& operations) {
        mamba::block_activations<R> kept;
        hand_in(p.output<R>("out", 0, 1, 2), mamba_block(weights, hidden, batch, operations, kept));
        hand_in_state(state_after(weights, kept, batch), "final");

        mamba::block_activations<R> first;
        const mamba::matrix<R> prompt = golden::tokens_of(tokens.slice(1, 0, prefill));
        const auto pieces = p.output<R>("out", 0, 1, 2);
        hand_in(pieces.slice(1, 0, prefill), mamba_block(weights, prompt, batch, operations, first));
        mamba::block_state<R> state = state_after(weights, first, batch);
        hand_in_state(state, "prefill");
        const auto out_steps = p.output<R>("out_steps", 0, 1, 2);
        for (index i = 0; i < steps; ++i) {
            const mamba::matrix<R> token = golden::tokens_of(tokens.slice(1, prefill + i, 1));
            const mamba::matrix<R> out = mamba_block_step(weights, token, state, operations);
            hand_in(pieces.slice(1, prefill + i, 1), out);
            if (out_steps.data()) hand_in(out_steps.slice(1, i, 1), out);
        }
        hand_in_state(state, "final");

        if (!p.has("dout")) return;
        const mamba::matrix<R> dout = golden::tokens_of(p.input<R>("dout", 0, 1, 2));
        const auto d = mamba_block_backward(weights, hidden, batch, dout, operations, kept);
        hand_in(p.output<R>("dhidden_states", 0, 1, 2), d.hidden);
        golden::hand_in_mamba1_gradients(p, "", d.weights);
    });
});

}  // namespace
