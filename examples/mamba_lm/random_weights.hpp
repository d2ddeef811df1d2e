#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <variant>
#include <vector>

#include "config.hpp"
#include "weights.hpp"

namespace mamba_lm {

/// The sizes of the released models: 130m, 370m, 790m, 1.4b, 2.8b of Mamba-1 and mamba2-130m, -370m, -780m, -1.3b, -2.7b.
inline config released_sizes(const std::string& name)
{
    struct release {
        const char *mamba1, *mamba2;
        index layers, hidden;
    };
    constexpr release releases[] = {{"130m", "mamba2-130m", 24, 768},
                                    {"370m", "mamba2-370m", 48, 1024},
                                    {"790m", "mamba2-780m", 48, 1536},
                                    {"1.4b", "mamba2-1.3b", 48, 2048},
                                    {"2.8b", "mamba2-2.7b", 64, 2560}};
    std::string known;
    for (const release& r : releases) {
        config c{.layers = r.layers, .hidden = r.hidden, .dim = 2 * r.hidden, .width = 4, .mixer = {}};
        if (name == r.mamba1) {
            c.vocab = c.vocab_padded = 50280;
            c.state = 16;
            c.mixer = mamba1_sizes{.rank = r.hidden / 16};
            return c;
        }
        if (name == r.mamba2) {
            c.vocab = c.vocab_padded = 50288;
            c.state = 128;
            c.mixer = mamba2_sizes{.nheads = c.dim / 64, .headdim = 64};
            return c;
        }
        known += std::string(known.empty() ? "" : ", ") + r.mamba1 + ", " + r.mamba2;
    }
    throw error("--random: \"" + name + "\" is none of " + known);
}

namespace detail {

/// Draws weights as training starts with them.
class weight_source {
public:
    std::vector<float> vector(index size, double bound)
    {
        std::vector<float> values(static_cast<std::size_t>(size));
        fill(values, bound);
        return values;
    }

    linear layer(index out, index in)
    {
        linear l{matrix(out, in), {}};
        fill(l.weight, 1 / std::sqrt(static_cast<double>(in)));
        return l;
    }

    /// softplus of these: step sizes of about 1e-3 to 1e-1
    std::vector<float> delta_bias(index size)
    {
        std::vector<float> values = vector(size, 1);
        for (float& d : values) d = -4.6f + 2.3f * d;
        return values;
    }

    static std::vector<float> ones(index size) { return std::vector<float>(static_cast<std::size_t>(size), 1.0f); }

    mamba1_weights mixer(const config& c, const mamba1_sizes& sizes)
    {
        const double conv_bound = 1 / std::sqrt(static_cast<double>(c.width));
        mamba1_weights w{.in_proj = layer(2 * c.dim, c.hidden),
                         .conv = vector(c.dim * c.width, conv_bound),
                         .conv_bias = vector(c.dim, conv_bound),
                         .x_proj = layer(sizes.rank + 2 * c.state, c.dim),
                         .delta_proj = layer(c.dim, sizes.rank),
                         .delta_bias = delta_bias(c.dim),
                         .A = {},
                         .D = ones(c.dim),
                         .out_proj = layer(c.hidden, c.dim)};
        for (index channel = 0; channel < c.dim; ++channel) {
            for (index n = 0; n < c.state; ++n) w.A.push_back(-static_cast<float>(n + 1));
        }
        return w;
    }

    mamba2_weights mixer(const config& c, const mamba2_sizes& sizes)
    {
        const double conv_bound = 1 / std::sqrt(static_cast<double>(c.width));
        mamba2_weights w{.in_proj = layer(c.dim + c.channels() + sizes.nheads, c.hidden),
                         .conv = vector(c.channels() * c.width, conv_bound),
                         .conv_bias = vector(c.channels(), conv_bound),
                         .delta_bias = delta_bias(sizes.nheads),
                         .A = vector(sizes.nheads, 7.5),
                         .D = ones(sizes.D_per_channel ? c.dim : sizes.nheads),
                         .norm = sizes.norm ? ones(c.dim) : std::vector<float>{},
                         .out_proj = layer(c.hidden, c.dim)};
        for (float& a : w.A) a -= 8.5f;  // -16 to -1
        return w;
    }

private:
    template <class Values>
    void fill(Values& values, double bound)
    {
        std::uniform_real_distribution<float> uniform(static_cast<float>(-bound), static_cast<float>(bound));
        std::generate_n(values.data(), values.size(), [&] { return uniform(generator_); });
    }

    std::minstd_rand generator_{1};
};

}  // namespace detail

/// Weights as training starts with them: what they cost to run is what trained ones cost.
inline weights random_weights(const config& c)
{
    detail::weight_source source;
    weights w;
    w.embedding = source.layer(c.vocab_padded, c.hidden);
    for (index i = 0; i < c.layers; ++i) {
        layer_weights& layer = w.layers.emplace_back();
        layer.norm = source.ones(c.hidden);
        std::visit([&](const auto& sizes) { layer.mixer = source.mixer(c, sizes); }, c.mixer);
    }
    w.norm = source.ones(c.hidden);
    return w;
}

}  // namespace mamba_lm
