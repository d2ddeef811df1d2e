#pragma once

#include <limits>

#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/gated_norm.hpp>
#include <ssmkit/selective_state_update.hpp>
#include <ssmkit/ssd.hpp>

#include "../common/limited_step.hpp"
#include "config.hpp"
#include "weights.hpp"
#include "workbench.hpp"

namespace mamba_lm {

/// The inside of a Mamba-2 block (Dao & Gu, "Transformers are SSMs", arXiv:2405.21060, figure 6): one token by the functions
/// for a single step, more of them as a whole sequence.
class mamba2_mixer {
public:
    using weights = mamba2_weights;

    explicit mamba2_mixer(const config& c) : config_(c), sizes_(std::get<mamba2_sizes>(c.mixer)) {}

    void resize(index length)
    {
        zxbcdt_.resize(length, config_.dim + config_.channels() + sizes_.nheads);
        xBC_.resize(length, config_.channels());
        y_.resize(length, config_.dim);
        normed_.resize(length, sizes_.norm ? config_.dim : 0);
    }

    /// (length, hidden) from (length, hidden)
    void operator()(const mamba2_weights& w, index layer, matrix& in, matrix& out, workbench& bench)
    {
        const bool step = in.rows() == 1;
        bench.project(w.in_proj, in, zxbcdt_);
        step ? convolve_step(w, bench.before.conv(layer)) : convolve(w, layer, bench);
        bench.watch.lap(part::conv);
        step ? scan_step(w, bench.before.scan(layer)) : scan(w, layer, bench);
        bench.watch.lap(part::scan);
        if (sizes_.norm) norm(w, bench);
        bench.project(w.out_proj, sizes_.norm ? normed_ : y_, out);
    }

private:
    view<float, 3> gate() { return columns(zxbcdt_, 0, config_.dim); }
    view<float, 3> conv_inputs() { return columns(zxbcdt_, config_.dim, config_.channels()); }
    view<float, 3> delta() { return columns(zxbcdt_, config_.dim + config_.channels(), sizes_.nheads); }

    view<float, 4> heads(const view<float, 3>& v) { return columns_of(v, sizes_.nheads); }
    view<float, 4> x() { return heads(columns(xBC_, 0, config_.dim)); }
    view<float, 4> B() { return columns_of(columns(xBC_, config_.dim, sizes_.ngroups * config_.state), sizes_.ngroups); }
    view<float, 4> C()
    {
        const index count = sizes_.ngroups * config_.state;
        return columns_of(columns(xBC_, config_.dim + count, count), sizes_.ngroups);
    }

    /// A parameter of each head, or D of each channel, as (nheads, headdim).
    view<const float, 2> per_channel(const std::vector<float>& values)
    {
        const view<const float, 1> v(values, static_cast<index>(values.size()));
        if (v.extent(0) == sizes_.nheads) return ssmkit::tied_over_head(v, sizes_.headdim);
        return {values, sizes_.nheads, sizes_.headdim};
    }

    /// (1, dim, state) as (1, nheads, headdim, state)
    view<float, 4> state_of_heads(const view<float, 3>& v) { return {v.data(), 1, sizes_.nheads, sizes_.headdim, config_.state}; }

    void convolve(const mamba2_weights& w, index layer, workbench& bench)
    {
        const ssmkit::causal_conv1d_args<float> args{
            .x = conv_inputs(),
            .weight = {w.conv, config_.channels(), config_.width},
            .bias = optional(w.conv_bias),
            .silu = true,
            .initial_states = bench.before.conv(layer),
            .y = columns(xBC_),
            .final_states = bench.after.conv(layer),
        };
        ssmkit::causal_conv1d(args, bench.pool);
    }

    void convolve_step(const mamba2_weights& w, const view<float, 3>& conv_state)
    {
        const ssmkit::causal_conv1d_update_args<float> args{
            .conv_state = conv_state,
            .x = conv_inputs(),
            .weight = {w.conv, config_.channels(), config_.width},
            .bias = optional(w.conv_bias),
            .silu = true,
            .y = columns(xBC_),
        };
        ssmkit::causal_conv1d_update(args);
    }

    void scan(const mamba2_weights& w, index layer, workbench& bench)
    {
        const ssmkit::ssd_args<float> args{
            .u = x(),
            .delta = delta(),
            .A = {w.A, sizes_.nheads},
            .B = B(),
            .C = C(),
            .D = per_channel(w.D),
            .z = sizes_.norm ? view<float, 4>{} : heads(gate()),
            .delta_bias = {w.delta_bias, sizes_.nheads},
            .delta_softplus = true,
            .delta_min = sizes_.delta_min,
            .delta_max = sizes_.delta_max,
            .initial_state = state_of_heads(bench.before.scan(layer)),
            .y = heads(columns(y_)),
            .final_state = state_of_heads(bench.after.scan(layer)),
        };
        ssmkit::ssd(args, bench.scratch(ssmkit::ssd_workspace_size(args, bench.pool.concurrency())), bench.pool);
    }

    void scan_step(const mamba2_weights& w, const view<float, 3>& scan_state)
    {
        const bool limited = sizes_.delta_min > 0 || sizes_.delta_max < std::numeric_limits<float>::infinity();
        const view<float, 2> steps = delta()[0];  // (1, nheads)
        for (index head = 0; limited && head < sizes_.nheads; ++head) {
            float& r = steps(0, head);
            r = mamba::limited_step(r + w.delta_bias[static_cast<std::size_t>(head)], sizes_.delta_min, sizes_.delta_max);
        }
        const ssmkit::selective_state_update_args<float> args{
            .h = state_of_heads(scan_state),
            .u = x()[0],
            .delta = ssmkit::tied_over_head(steps, sizes_.headdim),
            .A = ssmkit::tied_over_head(view<const float, 1>(w.A, sizes_.nheads), sizes_.headdim, config_.state),
            .B = B()[0],
            .C = C()[0],
            .D = per_channel(w.D),
            .z = sizes_.norm ? view<float, 3>{} : heads(gate())[0],
            .delta_bias = limited ? view<const float, 2>{} : per_channel(w.delta_bias),
            .delta_softplus = !limited,
            .y = heads(columns(y_))[0],
        };
        ssmkit::selective_state_update(args);
    }

    void norm(const mamba2_weights& w, workbench& bench)
    {
        const ssmkit::gated_norm_args<float> args{
            .x = columns(y_),
            .z = gate(),
            .weight = {w.norm, config_.dim},
            .eps = config_.epsilon,
            .group_size = config_.dim / sizes_.ngroups,
            .norm_before_gate = sizes_.norm_before_gate,
            .y = columns(normed_),
        };
        ssmkit::gated_norm(args, bench.scratch(ssmkit::gated_norm_workspace_size(args, bench.pool.concurrency())), bench.pool);
        bench.watch.lap(part::norm);
    }

    const config& config_;
    const mamba2_sizes& sizes_;
    matrix zxbcdt_;  // (length, 2 dim + 2 ngroups state + nheads)  in_proj: gate, the scan's path, step sizes
    matrix xBC_;     // (length, dim + 2 ngroups state)             convolved
    matrix y_;       // (length, dim)                               scanned
    matrix normed_;  // (length, dim)                               gated and normalised
};

}  // namespace mamba_lm
