#pragma once

#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <ssmkit/add_norm.hpp>
#include <ssmkit/execution.hpp>

#include "config.hpp"
#include "linear.hpp"
#include "mamba1_mixer.hpp"
#include "mamba2_mixer.hpp"
#include "state.hpp"
#include "stopwatch.hpp"
#include "weights.hpp"
#include "workbench.hpp"

namespace mamba_lm {

/// A Mamba language model at work on one text (Gu & Dao, "Mamba", arXiv:2312.00752, figure 3; Mamba-2's differs inside the
/// block only):
///
///     residual = embedding(token)
///     residual = residual + mixer(norm(residual))       for every layer
///     logits   = head(norm(residual))
///
/// The sizes, the weights and the pool of threads must outlive it.
class model {
public:
    model(const config& c, const weights& w, ssmkit::threads& pool)
        : config_(c), weights_(w), bench_(c, pool),
          mixer_(std::holds_alternative<mamba1_sizes>(c.mixer) ? mixer(std::in_place_type<mamba1_mixer>, c)
                                                               : mixer(std::in_place_type<mamba2_mixer>, c))
    {
    }

    /// Reads on: one token by the functions for a single step, more of them as whole sequences. The text may be cut
    /// anywhere. Returns what the head turns into logits, (length, hidden), valid until the next call.
    view<const float, 2> read(std::span<const index> tokens)
    {
        return std::visit([&](auto& mixer) { return read(tokens, mixer); }, mixer_);
    }

    /// The logits of each row, (length, vocab), for the token after it; valid until the next call.
    view<const float, 2> logits(const view<const float, 2>& hidden)
    {
        bench_.watch.start();
        logits_.resize(hidden.extent(0), config_.vocab_padded);
        apply(weights_.output(), hidden, {logits_.data(), hidden.extent(0), config_.vocab_padded}, bench_.pool);
        bench_.watch.lap(part::linear);
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
    const state& memory() const { return bench_.before; }
    void restore(const state& s) { bench_.before = s; }

    stopwatch& watch() { return bench_.watch; }

private:
    using mixer = std::variant<mamba1_mixer, mamba2_mixer>;

    template <class Mixer>
    view<const float, 2> read(std::span<const index> tokens, Mixer& mix)
    {
        bench_.watch.start();
        const auto length = static_cast<index>(tokens.size());
        mixed_.resize(length, config_.hidden);
        residual_.resize(length, config_.hidden);
        normed_.resize(length, config_.hidden);
        mix.resize(length);
        for (index t = 0; t < length; ++t) mixed_.row(t) = weights_.embedding.weight.row(tokens[static_cast<std::size_t>(t)]);
        bench_.watch.lap(part::rest);
        for (index i = 0; i < config_.layers; ++i) {
            const layer_weights& layer = weights_.layers[static_cast<std::size_t>(i)];
            norm(layer.norm, i > 0);
            mix(std::get<typename Mixer::weights>(layer.mixer), i, normed_, mixed_, bench_);
        }
        if (length != 1) std::swap(bench_.before, bench_.after);
        norm(weights_.norm, config_.layers > 0);
        return {normed_.data(), length, config_.hidden};
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
        ssmkit::add_norm(args, bench_.scratch(ssmkit::add_norm_workspace_size(args, bench_.pool.concurrency())), bench_.pool);
        bench_.watch.lap(part::norm);
    }

    const config& config_;
    const weights& weights_;
    workbench bench_;
    mixer mixer_;
    matrix mixed_;     // (length, hidden)  what a block gives
    matrix residual_;  // (length, hidden)  the sum of what the embedding and the blocks gave
    matrix normed_;    // (length, hidden)  that, normalised: what a block takes
    matrix logits_;    // (rows asked for, vocab_padded)
};

}  // namespace mamba_lm
