#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <nlohmann/json.hpp>

#include <ssmkit/args/ema_kernel.hpp>
#include <ssmkit/args/ema_kernel_backward.hpp>
#include <ssmkit/ema_step.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

/// Mega's layer: y = silu(K * x + ω x), the second half of the kernels, where there are two, on the reversed sequence and with the
/// current token. Convolutions by plain loops.
const golden::handler ema(
    "ema",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        const bool both = p.flag<bool>("bidirectional", false);
        p.descriptive("truncation");  // the kernel's length tells
        const auto x = p.input<R>("x", 0, 1, 2);
        const auto without_last_axis = [](const view<const R, 3>& v) {
            return v.slice(2, 0, 1).transposed(0, 2)[0].transposed(0, 1);
        };
        const auto omega = p.input<R>("omega", 0);
        const auto K = p.output<R>("k", 0, 1);
        const ssmkit::ema_kernel_args<R> forward{.delta = without_last_axis(p.input<R>("delta", 0, 1, 2)),
                                                 .alpha = without_last_axis(p.input<R>("alpha", 0, 1, 2)),
                                                 .beta = without_last_axis(p.input<R>("beta", 0, 1, 2)),
                                                 .gamma = p.input<R>("gamma", 0, 1),
                                                 .K = K};
        p.run(forward);
        const index length = x.extent(0), batch = x.extent(1), dim = x.extent(2), taps = K.extent(1),
                    state = forward.delta.extent(1);

        // Calls f(kernel row, tap, output token, input token) for all terms of a channel's convolutions.
        const auto for_each_term = [&](index h, auto&& f) {
            for (index t = 0; t < length; ++t) {
                for (index l = 0; l < std::min(taps, t + 1); ++l) f(h, l, t, t - l);
                for (index l = 0; both && l < std::min(taps, length - t); ++l) f(dim + h, l, t, t + l);
            }
        };
        const auto y = p.output<R>("y_silu", 0, 1, 2);
        const auto dy = p.input<R>("dout", 0, 1, 2);
        const auto dx = p.output<R>("d_x", 0, 1, 2);
        const auto domega = p.output<R>("d_omega", 0);
        std::vector<R> dK(static_cast<std::size_t>(K.extent(0) * taps)), linear(static_cast<std::size_t>(length)),
            slope(linear.size());
        for (index h = 0; h < dim; ++h) {
            if (dy.data()) domega[h] = 0;
            for (index b = 0; b < batch; ++b) {
                for (index t = 0; t < length; ++t) linear[static_cast<std::size_t>(t)] = omega[h] * x(t, b, h);
                for_each_term(h, [&](index row, index l, index to, index from) {
                    linear[static_cast<std::size_t>(to)] += K(row, l) * x(from, b, h);
                });
                for (index t = 0; t < length; ++t) {
                    const R value = linear[static_cast<std::size_t>(t)], gate = 1 / (1 + std::exp(-value));
                    y(t, b, h) = value * gate;
                    if (!dy.data()) continue;
                    slope[static_cast<std::size_t>(t)] = dy(t, b, h) * gate * (1 + value * (1 - gate));
                    dx(t, b, h) = omega[h] * slope[static_cast<std::size_t>(t)];
                    domega[h] += x(t, b, h) * slope[static_cast<std::size_t>(t)];
                }
                if (!dy.data()) continue;
                for_each_term(h, [&](index row, index l, index to, index from) {
                    dx(from, b, h) += K(row, l) * slope[static_cast<std::size_t>(to)];
                    dK[static_cast<std::size_t>(row * taps + l)] += x(from, b, h) * slope[static_cast<std::size_t>(to)];
                });
            }
        }
        if (dy.data()) {
            const auto output = [&](const char* name) {
                const view<R, 3> v = p.output<R>(name, 0, 1, 2);
                return view<R, 2>(v.data(), {v.extent(0), v.extent(1)}, {v.stride(0), v.stride(1)});
            };
            const ssmkit::ema_kernel_backward_args<R> backward{.forward = forward,
                                                               .dK = {dK, K.extent(0), taps},
                                                               .ddelta = output("d_delta"),
                                                               .dalpha = output("d_alpha"),
                                                               .dbeta = output("d_beta"),
                                                               .dgamma = p.output<R>("d_gamma", 0, 1)};
            p.run(backward);
        }

        // The recurrence, over all tokens and over the first alone.
        const auto count = static_cast<std::size_t>(forward.delta.size());
        std::vector<R> decay(count), input(count), out(count);
        const index rows = forward.delta.extent(0);
        const ssmkit::ema_discretize_args<R> maps{forward.delta, forward.alpha, forward.beta, forward.gamma,
                                                  {decay, rows, state}, {input, rows, state}, {out, rows, state}};
        const auto steps = [&](const char* name, const char* final_state) {
            if (!p.has(name)) return;
            ssmkit::ema_discretize(maps);
            const auto to = p.output<R>(name, 0, 1, 2);
            const ssmkit::ema_step_args<R> a{.h = p.updated<R>("h0", final_state, 0, 1, 2),
                                             .decay = maps.decay,
                                             .input = maps.input,
                                             .output = maps.output,
                                             .x = x.slice(0, 0, to.extent(0)).transposed(0, 1),
                                             .y = to.transposed(0, 1)};
            p.run(a);
        };
        steps("step_out", "step_h");
        steps("one_out", "one_h");
    });

}  // namespace
