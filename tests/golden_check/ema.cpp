#include <cstddef>
#include <stdexcept>
#include <vector>

#include <nlohmann/json.hpp>

#include <common/mega_ema.hpp>
#include <ssmkit/ema_step.hpp>

#include "matrices.hpp"

namespace {

using golden::hand_in, golden::index, golden::matrix_of, golden::problem, golden::row_of, golden::view, golden::without_middle;
using ssmkit::as_view;

/// The files have the tokens before the batch.
const golden::handler ema(
    "ema",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        const auto tokens = p.input<R>("x", 1, 0, 2);
        const mamba::matrix<R> x = golden::tokens_of(tokens);
        const layers::mega_weights<R> weights{
            .delta = matrix_of<R>(p, "delta", 0, 2, 1),
            .alpha = matrix_of<R>(p, "alpha", 0, 2, 1),
            .beta = matrix_of<R>(p, "beta", 0, 2, 1),
            .gamma = matrix_of<R>(p, "gamma", 0, 1),
            .omega = row_of<R>(p, "omega"),
        };
        if (p.flag<bool>("bidirectional", false) != weights.bidirectional()) throw std::runtime_error("omega does not fit bidirectional");
        const auto truncation = p.flag<nlohmann::json>("truncation", nullptr);
        const index batch = tokens.extent(0), taps = truncation.is_null() ? 0 : truncation.get<index>();
        layers::mega_activations<R> kept;
        hand_in(p.output<R>("y_silu", 1, 0, 2), layers::mega_ema(weights, x, batch, taps, p.operations(), kept));
        hand_in(p.output<R>("k", 0, 1), kept.K);
        if (p.has("dout")) {
            const mamba::matrix<R> dy = golden::tokens_of(p.input<R>("dout", 1, 0, 2));
            const auto d = layers::mega_ema_backward(weights, x, batch, dy, p.operations(), kept);
            hand_in(p.output<R>("d_x", 1, 0, 2), d.x);
            hand_in(without_middle(p.output<R>("d_delta", 0, 2, 1)), d.weights.delta);
            hand_in(without_middle(p.output<R>("d_alpha", 0, 2, 1)), d.weights.alpha);
            hand_in(without_middle(p.output<R>("d_beta", 0, 2, 1)), d.weights.beta);
            hand_in(p.output<R>("d_gamma", 0, 1), d.weights.gamma);
            hand_in(p.output<R>("d_omega", 0), d.weights.omega);
        }

        // The recurrence, over all tokens and over the first alone.
        const auto count = static_cast<std::size_t>(weights.delta.size());
        std::vector<R> decay(count), input(count), out(count);
        const index rows = weights.delta.rows(), state = weights.delta.cols();
        const ssmkit::ema_discretize_args<R> maps{as_view(weights.delta), as_view(weights.alpha), as_view(weights.beta), as_view(weights.gamma),
                                                  {decay, rows, state}, {input, rows, state}, {out, rows, state}};
        const auto steps = [&](const char* name, const char* final_state) {
            if (!p.has(name)) return;
            ssmkit::ema_discretize(maps);
            const auto to = p.output<R>(name, 0, 1, 2);
            const ssmkit::ema_step_args<R> a{.h = p.updated<R>("h0", final_state, 0, 1, 2),
                                             .decay = maps.decay,
                                             .input = maps.input,
                                             .output = maps.output,
                                             .x = tokens.slice(1, 0, to.extent(0)),
                                             .y = to.transposed(0, 1)};
            p.run(a);
        };
        steps("step_out", "step_h");
        steps("one_out", "one_h");
    });

}  // namespace
