#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "config.hpp"
#include "weights.hpp"

namespace mamba_lm {

/// The sizes of the released models: 130m, 370m, 790m, 1.4b, 2.8b.
inline config released_sizes(const std::string& name)
{
    struct release {
        const char* name;
        index layers, hidden;
    };
    constexpr release releases[] = {{"130m", 24, 768}, {"370m", 48, 1024}, {"790m", 48, 1536}, {"1.4b", 48, 2048}, {"2.8b", 64, 2560}};
    for (const release& r : releases) {
        if (name != r.name) continue;
        return {.vocab = 50280, .vocab_padded = 50280, .layers = r.layers, .hidden = r.hidden, .dim = 2 * r.hidden, .state = 16,
                .width = 4, .rank = r.hidden / 16};
    }
    throw error("--random: \"" + name + "\" is none of 130m, 370m, 790m, 1.4b, 2.8b");
}

/// Weights as training starts with them: what they cost to run is what trained ones cost.
inline weights random_weights(const config& c)
{
    std::minstd_rand generator(1);
    const auto fill = [&](auto& values, double bound) {
        std::uniform_real_distribution<float> uniform(static_cast<float>(-bound), static_cast<float>(bound));
        std::generate_n(values.data(), values.size(), [&] { return uniform(generator); });
    };
    const auto vector = [&](index size, double bound) {
        std::vector<float> values(static_cast<std::size_t>(size));
        fill(values, bound);
        return values;
    };
    const auto layer = [&](index out, index in) {
        linear l{matrix(out, in), {}};
        fill(l.weight, 1 / std::sqrt(static_cast<double>(in)));
        return l;
    };
    const auto ones = [](index size) { return std::vector<float>(static_cast<std::size_t>(size), 1.0f); };

    weights w;
    w.embedding = layer(c.vocab_padded, c.hidden);
    for (index i = 0; i < c.layers; ++i) {
        block_weights b;
        b.norm = ones(c.hidden);
        b.in_proj = layer(2 * c.dim, c.hidden);
        b.conv = vector(c.dim * c.width, 1 / std::sqrt(static_cast<double>(c.width)));
        b.conv_bias = vector(c.dim, 1 / std::sqrt(static_cast<double>(c.width)));
        b.x_proj = layer(c.rank + 2 * c.state, c.dim);
        b.delta_proj = layer(c.dim, c.rank);
        b.delta_bias = vector(c.dim, 1);
        for (float& d : b.delta_bias) d = -4.6f + 2.3f * d;  // softplus of it: step sizes of about 1e-3 to 1e-1
        b.D = ones(c.dim);
        b.out_proj = layer(c.hidden, c.dim);
        for (index channel = 0; channel < c.dim; ++channel) {
            for (index n = 0; n < c.state; ++n) b.A.push_back(-static_cast<float>(n + 1));
        }
        w.blocks.push_back(std::move(b));
    }
    w.norm = ones(c.hidden);
    return w;
}

}  // namespace mamba_lm
