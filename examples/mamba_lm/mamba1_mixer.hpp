#pragma once

#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/selective_scan.hpp>
#include <ssmkit/selective_state_update.hpp>

#include "config.hpp"
#include "weights.hpp"
#include "workbench.hpp"

namespace mamba_lm {

/// The inside of a Mamba-1 block (Gu & Dao, "Mamba", arXiv:2312.00752, figure 3): one token by the functions for a single
/// step, more of them as a whole sequence.
class mamba1_mixer {
public:
    using weights = mamba1_weights;

    explicit mamba1_mixer(const config& c) : config_(c), rank_(std::get<mamba1_sizes>(c.mixer).rank) {}

    void resize(index length)
    {
        xz_.resize(length, 2 * config_.dim);
        x_.resize(length, config_.dim);
        parameters_.resize(length, rank_ + 2 * config_.state);
        delta_.resize(length, config_.dim);
        y_.resize(length, config_.dim);
    }

    /// (length, hidden) from (length, hidden)
    void operator()(const mamba1_weights& w, index layer, matrix& in, matrix& out, workbench& bench)
    {
        const bool step = in.rows() == 1;
        bench.project(w.in_proj, in, xz_);
        step ? convolve_step(w, bench.before.conv(layer)) : convolve(w, layer, bench);
        bench.watch.lap(part::conv);
        bench.project(w.x_proj, x_, parameters_);
        bench.project(w.delta_proj, parameters_, delta_);
        step ? scan_step(w, bench.before.scan(layer)) : scan(w, layer, bench);
        bench.watch.lap(part::scan);
        bench.project(w.out_proj, y_, out);
    }

private:
    view<float, 3> gate() { return columns(xz_, config_.dim, config_.dim); }
    view<float, 3> B() { return columns(parameters_, rank_, config_.state); }
    view<float, 3> C() { return columns(parameters_, rank_ + config_.state, config_.state); }

    void convolve(const mamba1_weights& w, index layer, workbench& bench)
    {
        const ssmkit::causal_conv1d_args<float> args{
            .x = columns(xz_, 0, config_.dim),
            .weight = {w.conv, config_.dim, config_.width},
            .bias = optional(w.conv_bias),
            .silu = true,
            .initial_states = bench.before.conv(layer),
            .y = columns(x_),
            .final_states = bench.after.conv(layer),
        };
        ssmkit::causal_conv1d(args, bench.pool);
    }

    void convolve_step(const mamba1_weights& w, const view<float, 3>& conv_state)
    {
        const ssmkit::causal_conv1d_update_args<float> args{
            .conv_state = conv_state,
            .x = columns(xz_, 0, config_.dim),
            .weight = {w.conv, config_.dim, config_.width},
            .bias = optional(w.conv_bias),
            .silu = true,
            .y = columns(x_),
        };
        ssmkit::causal_conv1d_update(args);
    }

    void scan(const mamba1_weights& w, index layer, workbench& bench)
    {
        const ssmkit::selective_scan_args<float> args{
            .u = columns(x_),
            .delta = columns(delta_),
            .A = {w.A, config_.dim, config_.state},
            .B = columns_of(B(), 1),
            .C = columns_of(C(), 1),
            .D = {w.D, config_.dim},
            .z = gate(),
            .delta_bias = {w.delta_bias, config_.dim},
            .delta_softplus = true,
            .initial_state = bench.before.scan(layer),
            .y = columns(y_),
            .final_state = bench.after.scan(layer),
        };
        ssmkit::selective_scan(args, bench.pool);
    }

    void scan_step(const mamba1_weights& w, const view<float, 3>& scan_state)
    {
        const ssmkit::selective_state_update_args<float> args{
            .h = {scan_state.data(), 1, 1, config_.dim, config_.state},
            .u = columns(x_),
            .delta = columns(delta_),
            .A = {w.A, 1, config_.dim, config_.state},
            .B = B(),
            .C = C(),
            .D = {w.D, 1, config_.dim},
            .z = gate(),
            .delta_bias = {w.delta_bias, 1, config_.dim},
            .delta_softplus = true,
            .y = columns(y_),
        };
        ssmkit::selective_state_update(args);
    }

    const config& config_;
    index rank_;
    matrix xz_;          // (length, 2 dim)             in_proj: the scan's path and its gate
    matrix x_;           // (length, dim)               convolved
    matrix parameters_;  // (length, rank + 2 state)    x_proj: delta's input, B, C
    matrix delta_;       // (length, dim)
    matrix y_;           // (length, dim)               scanned and gated
};

}  // namespace mamba_lm
