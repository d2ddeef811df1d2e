#include <stdexcept>

#include <common/s7_layer.hpp>

#include "matrices.hpp"

namespace {

using golden::hand_in, golden::index, golden::matrix_of, golden::problem, golden::row_of;

/// The files have the tokens last.
const golden::handler s7_scan(
    "s7_scan",
    []<class T>(golden::element<T>, problem& p) {
        const ssmkit::s7_scan_args<T> forward{
            .u = p.input<T>("u", 0, 2, 1),
            .A = p.input<T>("A", 0, 2, 1),
            .B = p.input<T>("B", 0, 3, 2, 1),
            .C = p.input<T>("C", 0, 3, 1, 2),
            .bias = p.input<T>("bias", 0, 2, 1),
            .y = p.output<T>("y", 0, 2, 1),
            .final_state = p.output<ssmkit::compute_t<T>>("last_state", 0, 1),
        };
        p.run(forward);
        if (!p.has("dout")) return;
        const ssmkit::s7_scan_backward_args<T> backward{
            .forward = forward,
            .dy = p.input<T>("dout", 0, 2, 1),
            .du = p.output<T>("d_u", 0, 2, 1),
            .dA = p.output<T>("d_A", 0, 2, 1),
            .dB = p.output<T>("d_B", 0, 3, 2, 1),
            .dC = p.output<T>("d_C", 0, 3, 1, 2),
            .dbias = p.output<T>("d_bias", 0, 2, 1),
        };
        p.run(backward);
    },
    {1e-10, 1e-5});  // in single precision what the specification grants gradients

const golden::handler s7_layer(
    "s7_layer",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        const auto tokens = p.input<R>("hidden_states", 0, 1, 2);
        const mamba::matrix<R> hidden = golden::tokens_of(tokens);
        const layers::s7_weights<R> weights{
            .in_proj = matrix_of<R>(p, "in_proj", 0, 1),
            .x_proj = matrix_of<R>(p, "x_proj", 0, 1),
            .gate_proj = matrix_of<R>(p, "gate_proj", 0, 1),
            .base = row_of<R>(p, "base_params"),
        };
        if (p.flag<index>("d_state", weights.state()) != weights.state()) throw std::runtime_error("base_params does not fit d_state");
        layers::s7_activations<R> kept;
        const index batch = tokens.extent(0);
        hand_in(p.output<R>("out", 0, 1, 2), layers::s7_layer(weights, hidden, batch, p.operations(), kept));
        if (!p.has("dout")) return;
        const mamba::matrix<R> dout = golden::tokens_of(p.input<R>("dout", 0, 1, 2));
        const auto d = layers::s7_layer_backward(weights, hidden, batch, dout, p.operations(), kept);
        hand_in(p.output<R>("d_hidden_states", 0, 1, 2), d.hidden);
        hand_in(p.output<R>("d_in_proj", 0, 1), d.weights.in_proj);
        hand_in(p.output<R>("d_x_proj", 0, 1), d.weights.x_proj);
        hand_in(p.output<R>("d_gate_proj", 0, 1), d.weights.gate_proj);
        hand_in(p.output<R>("d_base_params", 0), d.weights.base);
    },
    {1e-10, 1e-5});

}  // namespace
