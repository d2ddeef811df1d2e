#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <ssmkit/add_norm.hpp>
#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/selective_scan.hpp>
#include <ssmkit/selective_state_update.hpp>

#include "config.hpp"
#include "linear.hpp"
#include "state.hpp"
#include "stopwatch.hpp"
#include "weights.hpp"

namespace mamba_lm {

/// A Mamba-1 language model at work on one text (Gu & Dao, "Mamba", arXiv:2312.00752, figure 3):
///
///     residual = embedding(token)
///     residual = residual + block(norm(residual))       for every layer
///     logits   = head(norm(residual))
///
/// The weights and the pool of threads must outlive it.
class model {
public:
    model(const config& c, const weights& w, ssmkit::threads& pool) : config_(c), weights_(w), pool_(pool), state_(c), next_(c)
    {
    }

    /// Reads on: one token by the functions for a single step, more of them as whole sequences. The text may be cut
    /// anywhere. Returns what the head turns into logits, (length, hidden), valid until the next call.
    view<const float, 2> read(std::span<const index> tokens)
    {
        watch_.start();
        resize(static_cast<index>(tokens.size()));
        for (index t = 0; t < length_; ++t) mixed_.row(t) = weights_.embedding.weight.row(tokens[static_cast<std::size_t>(t)]);
        watch_.lap(part::rest);
        for (index layer = 0; layer < config_.layers; ++layer) {
            const block_weights& block = weights_.blocks[static_cast<std::size_t>(layer)];
            norm(block.norm, layer > 0);
            project(block.in_proj, normed_, xz_);
            length_ == 1 ? convolve_step(block, layer) : convolve(block, layer);
            project(block.x_proj, x_, parameters_);
            project(block.delta_proj, parameters_, delta_);
            length_ == 1 ? scan_step(block, layer) : scan(block, layer);
            project(block.out_proj, y_, mixed_);
        }
        if (length_ != 1) std::swap(state_, next_);
        norm(weights_.norm, config_.layers > 0);
        return {normed_.data(), length_, config_.hidden};
    }

    /// The logits of each row, (length, vocab), for the token after it; valid until the next call.
    view<const float, 2> logits(const view<const float, 2>& hidden)
    {
        watch_.start();
        logits_.resize(hidden.extent(0), config_.vocab_padded);
        apply(weights_.output(), hidden, {logits_.data(), hidden.extent(0), config_.vocab_padded}, pool_);
        watch_.lap(part::linear);
        return view<const float, 2>{logits_.data(), hidden.extent(0), config_.vocab_padded}.slice(1, 0, config_.vocab);
    }

    /// Reads on and tells what comes next: the logits after the last token, (vocab).
    std::span<const float> next(std::span<const index> tokens)
    {
        const view<const float, 2> hidden = read(tokens);
        const view<const float, 2> last = logits(hidden.slice(0, hidden.extent(0) - 1, 1));
        return {last.data(), static_cast<std::size_t>(config_.vocab)};
    }

    /// All that depends on the text read so far.
    const state& memory() const { return state_; }
    void restore(const state& s) { state_ = s; }

    stopwatch& watch() { return watch_; }

private:
    void resize(index length)
    {
        length_ = length;
        mixed_.resize(length, config_.hidden);
        residual_.resize(length, config_.hidden);
        normed_.resize(length, config_.hidden);
        xz_.resize(length, 2 * config_.dim);
        x_.resize(length, config_.dim);
        parameters_.resize(length, config_.rank + 2 * config_.state);
        delta_.resize(length, config_.dim);
        y_.resize(length, config_.dim);
    }

    /// Columns of a buffer as the library's (batch, length, dim) with a batch of one.
    static view<float, 3> columns(matrix& m, index first, index count)
    {
        return {m.data() + first, {1, m.rows(), count}, {m.size(), m.cols(), 1}};
    }
    static view<float, 3> columns(matrix& m) { return columns(m, 0, m.cols()); }

    view<float, 3> gate() { return columns(xz_, config_.dim, config_.dim); }
    view<float, 3> B() { return columns(parameters_, config_.rank, config_.state); }
    view<float, 3> C() { return columns(parameters_, config_.rank + config_.state, config_.state); }

    /// Reads as many columns of `from` as the layer has inputs.
    void project(const linear& l, matrix& from, matrix& to)
    {
        apply(l, columns(from, 0, l.weight.cols())[0], columns(to)[0], pool_);
        watch_.lap(part::linear);
    }

    void norm(const std::vector<float>& weight, bool has_residual)
    {
        const ssmkit::add_norm_args<float> args{
            .x = columns(mixed_),
            .residual = has_residual ? columns(residual_) : view<float, 3>{},
            .weight = {weight, config_.hidden},
            .eps = config_.epsilon,
            .y = columns(normed_),
            .residual_out = columns(residual_),
        };
        const std::size_t need = ssmkit::add_norm_workspace_size(args, pool_.concurrency());
        if (scratch_.size() < need) scratch_.resize(need);
        ssmkit::add_norm(args, scratch_, pool_);
        watch_.lap(part::norm);
    }

    void convolve(const block_weights& block, index layer)
    {
        const ssmkit::causal_conv1d_args<float> args{
            .x = columns(xz_, 0, config_.dim),
            .weight = {block.conv, config_.dim, config_.width},
            .bias = optional(block.conv_bias),
            .silu = true,
            .initial_states = state_.conv(layer),
            .y = columns(x_),
            .final_states = next_.conv(layer),
        };
        ssmkit::causal_conv1d(args, pool_);
        watch_.lap(part::conv);
    }

    void convolve_step(const block_weights& block, index layer)
    {
        const ssmkit::causal_conv1d_update_args<float> args{
            .conv_state = state_.conv(layer),
            .x = columns(xz_, 0, config_.dim),
            .weight = {block.conv, config_.dim, config_.width},
            .bias = optional(block.conv_bias),
            .silu = true,
            .y = columns(x_),
        };
        ssmkit::causal_conv1d_update(args);
        watch_.lap(part::conv);
    }

    void scan(const block_weights& block, index layer)
    {
        const auto grouped = [](const view<float, 3>& v) -> view<const float, 4> {
            return {v.data(), {1, v.extent(1), 1, v.extent(2)}, {v.stride(0), v.stride(1), 0, 1}};
        };
        const ssmkit::selective_scan_args<float> args{
            .u = columns(x_),
            .delta = columns(delta_),
            .A = {block.A, config_.dim, config_.state},
            .B = grouped(B()),
            .C = grouped(C()),
            .D = {block.D, config_.dim},
            .z = gate(),
            .delta_bias = {block.delta_bias, config_.dim},
            .delta_softplus = true,
            .initial_state = state_.scan(layer),
            .y = columns(y_),
            .final_state = next_.scan(layer),
        };
        ssmkit::selective_scan(args, pool_);
        watch_.lap(part::scan);
    }

    void scan_step(const block_weights& block, index layer)
    {
        const ssmkit::selective_state_update_args<float> args{
            .h = {state_.scan(layer).data(), 1, 1, config_.dim, config_.state},
            .u = columns(x_),
            .delta = columns(delta_),
            .A = {block.A, 1, config_.dim, config_.state},
            .B = B(),
            .C = C(),
            .D = {block.D, 1, config_.dim},
            .z = gate(),
            .delta_bias = {block.delta_bias, 1, config_.dim},
            .delta_softplus = true,
            .y = columns(y_),
        };
        ssmkit::selective_state_update(args);
        watch_.lap(part::scan);
    }

    static view<const float, 1> optional(const std::vector<float>& values)
    {
        return values.empty() ? view<const float, 1>{} : view<const float, 1>{values, static_cast<index>(values.size())};
    }

    const config& config_;
    const weights& weights_;
    ssmkit::threads& pool_;
    stopwatch watch_;
    state state_, next_;  // a sequence reads the one and writes the other; a step updates in place
    index length_ = 0;
    matrix mixed_;       // (length, hidden)            what a block gives
    matrix residual_;    // (length, hidden)            the sum of what the embedding and the blocks gave
    matrix normed_;      // (length, hidden)            that, normalised: what a block takes
    matrix xz_;          // (length, 2 dim)             in_proj: the scan's path and its gate
    matrix x_;           // (length, dim)               convolved
    matrix parameters_;  // (length, rank + 2 state)    x_proj: delta's input, B, C
    matrix delta_;       // (length, dim)
    matrix y_;           // (length, dim)               scanned and gated
    matrix logits_;      // (rows asked for, vocab_padded)
    std::vector<std::byte> scratch_;  // for the norms
};

}  // namespace mamba_lm
