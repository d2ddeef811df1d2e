#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include "config.hpp"

namespace mamba_lm {

struct sampling {
    double temperature = 0;  ///< 0 takes the most likely token; else logits are divided by it
    index top_k = 0;         ///< draw among the k most likely tokens; 0: all
    double top_p = 1;        ///< draw among the fewest tokens that together are at least this likely
    std::uint64_t seed = 0;
};

/// Chooses the next token. The same seed and logits give the same tokens on every machine: the generator is one that the
/// standard defines to the bit, and the draw from it is our own.
class sampler {
public:
    sampler(const sampling& how, index vocab)
        : how_(how), generator_(how.seed), order_(static_cast<std::size_t>(vocab)), mass_(order_.size())
    {
    }

    /// Of equally likely tokens the lowest goes first. Throws error if a logit is a NaN or an infinity.
    index operator()(std::span<const float> logits)
    {
        for (const float l : logits) {
            if (!std::isfinite(l)) throw error("the model's output is not finite: are these the weights it was trained to?");
        }
        if (how_.temperature == 0) return std::max_element(logits.begin(), logits.end()) - logits.begin();
        const std::span<const index> candidates = rank(logits);
        return candidates[draw(candidates.size())];
    }

private:
    /// The tokens to draw from, most likely first, and in mass_ their probabilities relative to the first one's.
    std::span<const index> rank(std::span<const float> logits)
    {
        const auto logit = [&](index token) { return logits[static_cast<std::size_t>(token)]; };
        const auto likelier = [&](index a, index b) { return logit(a) != logit(b) ? logit(a) > logit(b) : a < b; };
        std::iota(order_.begin(), order_.end(), index(0));
        const bool all = how_.top_k == 0 || how_.top_k >= static_cast<index>(order_.size());
        const std::size_t kept = all ? order_.size() : static_cast<std::size_t>(how_.top_k);
        std::partial_sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(kept), order_.end(), likelier);
        double total = 0;
        for (std::size_t i = 0; i < kept; ++i) {
            total += mass_[i] = std::exp((double(logit(order_[i])) - double(logit(order_[0]))) / how_.temperature);
        }
        std::size_t nucleus = 1;
        for (double sum = mass_[0]; nucleus < kept && sum < how_.top_p * total; ++nucleus) sum += mass_[nucleus];
        return {order_.data(), nucleus};
    }

    std::size_t draw(std::size_t count)
    {
        const double total = std::accumulate(mass_.begin(), mass_.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
        double left = std::ldexp(static_cast<double>(generator_() >> 11), -53) * total;  // 53 bits: uniform in [0, total)
        for (std::size_t i = 0; i + 1 < count; ++i) {
            if ((left -= mass_[i]) < 0) return i;
        }
        return count - 1;
    }

    sampling how_;
    std::mt19937_64 generator_;
    std::vector<index> order_;
    std::vector<double> mass_;
};

}  // namespace mamba_lm
