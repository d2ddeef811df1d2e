#pragma once

// Data of the benchmarks of linear_attention and its members: forward, backward and step.

#include <cmath>
#include <string>

#include <ssmkit/linear_attention.hpp>
#include <ssmkit/reference/linear_attention.hpp>

#include "harness.hpp"

namespace bench {

using ssmkit::index;

enum class member { linear_attention, retention, simple_gla, gla, gated_delta_rule };

struct attention_shape {
    member which;
    index batch, length, nheads, key, value, groups;

    const char* op() const
    {
        constexpr const char* names[] = {"linear_attention", "retention", "simple_gla", "gla", "gated_delta_rule"};
        return names[static_cast<int>(which)];
    }
    std::string name() const
    {
        std::string text;
        for (const index extent : {batch, length, nheads, key, value, groups}) text += (text.empty() ? "" : "x") + std::to_string(extent);
        return text;
    }
    bool by_head() const { return which != member::linear_attention && which != member::gla; }
    bool by_key() const { return which == member::gla; }
    bool delta_rule() const { return which == member::gated_delta_rule; }
};

/// Keys of length 1, as the delta rule wants them; gates of e^-0.5 to 1.
struct attention_problem {
    attention_shape shape;
    array<float> q, k, v, g, gk, beta;

    explicit attention_problem(const attention_shape& s) : shape(s)
    {
        const auto tokens = static_cast<std::size_t>(s.batch * s.length), heads = tokens * static_cast<std::size_t>(s.nheads);
        const auto maps = tokens * static_cast<std::size_t>(s.groups * s.key), key = static_cast<std::size_t>(s.key);
        q = fill<float>(maps, -1, 1, 1);
        k = fill<float>(maps, -1, 1, 2);
        for (std::size_t first = 0; first < maps; first += key) {
            float square = 0;
            for (std::size_t i = 0; i < key; ++i) square += k[first + i] * k[first + i];
            for (std::size_t i = 0; i < key; ++i) k[first + i] /= std::sqrt(square);
        }
        v = fill<float>(heads * static_cast<std::size_t>(s.value), -1, 1, 3);
        g = fill<float>(s.which == member::retention ? static_cast<std::size_t>(s.nheads) : heads, -0.5, 0, 4);
        if (s.by_key()) gk = fill<float>(maps, -0.5, 0, 5);
        if (s.delta_rule()) beta = fill<float>(heads, 0, 1, 6);
    }

    ssmkit::linear_attention_args<float> args(array<float>& y) const
    {
        const auto [which, batch, length, nheads, key, value, groups] = shape;
        ssmkit::linear_attention_args<float> a{.q = {q.data(), batch, length, groups, key},
                                               .k = {k.data(), batch, length, groups, key},
                                               .v = {v.data(), batch, length, nheads, value},
                                               .y = {y.data(), batch, length, nheads, value}};
        if (which == member::retention) {
            a.g = ssmkit::fixed_decay(ssmkit::view<const float, 1>(g.data(), nheads), batch, length);
        } else if (shape.by_head()) {
            a.g = {g.data(), batch, length, nheads};
        }
        if (shape.by_key()) a.gk = {gk.data(), batch, length, groups, key};
        if (shape.delta_rule()) a.beta = {beta.data(), batch, length, nheads};
        return a;
    }

    array<float> expected() const
    {
        array<float> y(v.size());
        ssmkit::reference::linear_attention(args(y));
        return y;
    }

    /// As for ssd where it is ssd. Otherwise per update: decay and input's product, and what takes it in, and the output; the
    /// delta rule reads the state once more.
    work needs() const
    {
        constexpr double piece = 32;
        const double heads = static_cast<double>(shape.batch * shape.length * shape.nheads);
        const double key = static_cast<double>(shape.key), value = static_cast<double>(shape.value);
        work w;
        w.token_channels = heads * value;
        w.updates = w.token_channels * key;
        w.bytes = sizeof(float) * (2 * w.token_channels + static_cast<double>(q.size() + k.size() + gk.size()) + heads);
        if (shape.delta_rule()) {
            w.fmas = 4 * w.updates;
        } else if (shape.by_key()) {
            w.fmas = 3 * w.updates;
            w.exps = static_cast<double>(gk.size());
        } else {
            w.fmas = 2 * w.updates + w.token_channels * piece / 2 + w.updates / piece +
                     heads * piece * key * static_cast<double>(shape.groups) / static_cast<double>(shape.nheads);
            w.exps = heads * piece / 2;
        }
        return w;
    }
};

}  // namespace bench
