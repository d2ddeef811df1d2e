#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>

#include "model.hpp"

namespace mamba_lm {

/// -log2 of the probability that the logits give to a token.
inline double surprise(const view<const float, 1>& logits, index token)
{
    float largest = logits[0];
    for (index i = 1; i < logits.extent(0); ++i) largest = std::max(largest, logits[i]);
    double sum = 0;
    for (index i = 0; i < logits.extent(0); ++i) sum += std::exp(static_cast<double>(logits[i] - largest));
    return (std::log(sum) + static_cast<double>(largest - logits[token])) / std::log(2.0);
}

/// Mean bits that each token but the first costs, given all before it; two tokens at least. The text is read in pieces with
/// the state carried over, so memory does not grow with it. `progress` is told how many tokens are done.
inline double bits_per_token(model& m, std::span<const index> tokens, const std::function<void(std::size_t)>& progress)
{
    constexpr std::size_t piece = 1024;
    constexpr index rows = 64;  // at once through the head: 13 MB of logits for a vocabulary of 50280
    const std::size_t predicted = tokens.size() - 1;
    double bits = 0;
    for (std::size_t first = 0; first < predicted; first += piece) {
        const std::size_t length = std::min(piece, predicted - first);
        const view<const float, 2> hidden = m.read(tokens.subspan(first, length));
        for (index row = 0; row < hidden.extent(0); row += rows) {
            const view<const float, 2> logits = m.logits(hidden.slice(0, row, std::min(rows, hidden.extent(0) - row)));
            for (index i = 0; i < logits.extent(0); ++i) {
                bits += surprise(logits[i], tokens[first + static_cast<std::size_t>(row + i) + 1]);
            }
        }
        progress(first + length);
    }
    if (!std::isfinite(bits)) throw error("the model's output is not finite: are these the weights it was trained to?");
    return bits / static_cast<double>(predicted);
}

}  // namespace mamba_lm
