#include <cstdint>
#include <stdexcept>
#include <string>

#include <ssmkit/args/causal_conv1d.hpp>
#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/args/causal_conv1d_varlen_states.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

bool is_silu(problem& p)
{
    const auto activation = p.flag<std::string>("activation");
    if (activation == "silu" || activation == "swish") return true;
    if (activation == "none") return false;
    throw std::runtime_error("activation is \"" + activation + "\", known are none, silu and swish");
}

// The files hold (batch, dim, length); a missing view has no axes to transpose.
const golden::handler causal_conv1d("causal_conv1d", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("width", "has_bias", "has_initial_states", "return_final_states", "has_dfinal_states", "has_seq_idx", "grads");
    const ssmkit::causal_conv1d_args<T> forward{
        .x = p.input<T>("x", 0, 2, 1),
        .weight = p.input<real>("weight", 0, 1),
        .bias = p.input<real>("bias", 0),
        .silu = is_silu(p),
        .initial_states = p.input<T>("initial_states", 0, 1, 2),
        .seq_idx = p.input<std::int32_t>("seq_idx", 0, 1),
        .y = p.output<T>("out", 0, 2, 1),
        .final_states = p.output<T>("final_states", 0, 1, 2),
    };
    p.run(forward);
    if (!p.has("dx")) return;
    const ssmkit::causal_conv1d_backward_args<T> backward{
        .forward = forward,
        .dy = p.input<T>("dout", 0, 2, 1),
        .dfinal_states = p.input<T>("dfinal_states", 0, 1, 2),
        .dx = p.output<T>("dx", 0, 2, 1),
        .dweight = p.output<real>("dweight", 0, 1),
        .dbias = p.output<real>("dbias", 0),
        .dinitial_states = p.output<T>("dinitial_states", 0, 1, 2),
    };
    p.run(backward);
}, {.f32 = 3e-4});

const golden::handler causal_conv1d_update("causal_conv1d_update", []<class T>(golden::element<T>, problem& p) {
    using real = ssmkit::compute_t<T>;
    p.descriptive("width", "state_len", "seqlen", "has_bias", "circular", "has_indices", "padded_rows");
    const bool one = p.shape("x").size() == 2;  // (batch, dim): one token
    const ssmkit::causal_conv1d_update_args<T> a{
        .conv_state = p.updated<T>("conv_state", "conv_state_out", 0, 1, 2),
        .x = one ? p.input<T>("x", 0, new_axis, 1) : p.input<T>("x", 0, 2, 1),
        .weight = p.input<real>("weight", 0, 1),
        .bias = p.input<real>("bias", 0),
        .silu = is_silu(p),
        .cache_seqlens = p.input<std::int32_t>("cache_seqlens", 0),
        .conv_state_indices = p.input<std::int32_t>("conv_state_indices", 0),
        .y = one ? p.output<T>("out", 0, new_axis, 1) : p.output<T>("out", 0, 2, 1),
    };
    p.run(a);
}, {.f32 = 3e-4});

const golden::handler causal_conv1d_varlen_states("causal_conv1d_varlen_states", []<class T>(golden::element<T>, problem& p) {
    p.descriptive("num_sequences");
    if (p.flag<index>("state_len") != p.shape("states").back()) {
        throw std::runtime_error("state_len is not the last extent of states");
    }
    const ssmkit::causal_conv1d_varlen_states_args<T> a{
        .x = p.input<T>("x", 0, 1),
        .cu_seqlens = p.input<index>("cu_seqlens", 0),
        .states = p.output<T>("states", 0, 1, 2),
    };
    p.run(a);
});

}  // namespace
