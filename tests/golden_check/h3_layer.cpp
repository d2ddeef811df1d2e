#include <stdexcept>
#include <string>

#include <common/h3_layer.hpp>

#include "matrices.hpp"

namespace {

using golden::hand_in, golden::index, golden::matrix_of, golden::problem, golden::row_of;

const golden::handler h3_layer("h3_layer", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;
    const auto tokens = p.input<R>("u", 0, 1, 2);
    const mamba::matrix<R> u = golden::tokens_of(tokens);
    const layers::h3_weights<R> weights{
        .q_proj = matrix_of<R>(p, "Wq", 0, 1),
        .k_proj = matrix_of<R>(p, "Wk", 0, 1),
        .v_proj = matrix_of<R>(p, "Wv", 0, 1),
        .q_bias = row_of<R>(p, "bq"),
        .k_bias = row_of<R>(p, "bk"),
        .v_bias = row_of<R>(p, "bv"),
        .shift_kernel = matrix_of<R>(p, "k_shift", 0, 1),
        .shift_D = row_of<R>(p, "D_shift"),
        .diag_kernel = matrix_of<R>(p, "k_diag", 0, 1),
        .diag_D = row_of<R>(p, "D_diag"),
    };
    if (p.flag<index>("head_dim", weights.headdim()) * weights.heads() != u.cols()) throw std::runtime_error("k_diag does not fit head_dim");
    layers::h3_activations<R> kept;
    const index batch = tokens.extent(0);
    hand_in(p.output<R>("y", 0, 1, 2), layers::h3_layer(weights, u, batch, p.operations(), kept));
    if (!p.has("dout")) return;
    const mamba::matrix<R> dout = golden::tokens_of(p.input<R>("dout", 0, 1, 2));
    const auto d = layers::h3_layer_backward(weights, u, batch, dout, p.operations(), kept);
    hand_in(p.output<R>("d_u", 0, 1, 2), d.u);
    hand_in(p.output<R>("d_Wq", 0, 1), d.weights.q_proj);
    hand_in(p.output<R>("d_Wk", 0, 1), d.weights.k_proj);
    hand_in(p.output<R>("d_Wv", 0, 1), d.weights.v_proj);
    hand_in(p.output<R>("d_bq", 0), d.weights.q_bias);
    hand_in(p.output<R>("d_bk", 0), d.weights.k_bias);
    hand_in(p.output<R>("d_bv", 0), d.weights.v_bias);
    hand_in(p.output<R>("d_k_shift", 0, 1), d.weights.shift_kernel);
    hand_in(p.output<R>("d_D_shift", 0), d.weights.shift_D);
    hand_in(p.output<R>("d_k_diag", 0, 1), d.weights.diag_kernel);
    hand_in(p.output<R>("d_D_diag", 0), d.weights.diag_D);
});

}  // namespace
