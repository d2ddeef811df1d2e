#pragma once

// Problems of causal_conv1d_update with random content, for its tests on all backends.

#include <cstdint>
#include <vector>

#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/reference/causal_conv1d_update.hpp>

#include "causal_conv1d_problem.hpp"

namespace ssmkit::testing {

struct update_setup {
    index batch = 3, length = 2, dim = 6, width = 4, state_len = 5;
    bool bias = true, silu = true, ring = false, indices = false;
    layout form = layout::row_major;
    guard edge = guard::none;
};

template <class T>
struct update_problem {
    update_setup s;
    tensor<T, 3> conv_state, x, y;
    tensor<compute_t<T>, 2> weight;
    tensor<compute_t<T>, 1> bias;
    tensor<std::int32_t, 1> cache_seqlens, conv_state_indices;

    explicit update_problem(const update_setup& setup) : s(setup)
    {
        random numbers(7);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents) {
            t = tensor<E, Rank>(extents, s.form, s.edge);
            t.fill(numbers, {-2, 2});
        };
        filled(conv_state, {s.indices ? s.batch + 2 : s.batch, s.dim, s.state_len});
        filled(x, {s.batch, s.length, s.dim});
        filled(weight, {s.dim, s.width});
        if (s.bias) filled(bias, {s.dim});
        y = {{s.batch, s.length, s.dim}, s.form, s.edge};
        if (s.ring) {
            cache_seqlens = tensor<std::int32_t, 1>({s.batch}, s.form, s.edge);
            cache_seqlens.fill([&](index) { return static_cast<std::int32_t>(numbers.below(2 * s.state_len + 1)); });
        }
        if (s.indices) {  // row 1 is padding, the others use entries from the end
            conv_state_indices = tensor<std::int32_t, 1>({s.batch}, s.form, s.edge);
            conv_state_indices.fill([&](index b) { return static_cast<std::int32_t>(b == 1 ? -1 : s.batch + 1 - b); });
        }
    }

    causal_conv1d_update_args<T> args() const
    {
        return {.conv_state = conv_state.view(), .x = x.view(), .weight = weight.view(), .bias = bias.view(), .silu = s.silu,
                .cache_seqlens = cache_seqlens.view(), .conv_state_indices = conv_state_indices.view(), .y = y.view()};
    }
};

/// Compares what `run` makes of the arguments with the reference in double, on the same numbers; the state bit for bit.
template <class T, class Run>
void compare_update(const update_setup& s, Run&& run)
{
    INFO("(" << s.batch << ", " << s.length << ", " << s.dim << ") width " << s.width << " state_len " << s.state_len << " ring "
             << s.ring << " indices " << s.indices << " layout " << static_cast<int>(s.form));
    const update_problem<T> p(s);
    const auto state = p.conv_state.template as<double>(), x = p.x.template as<double>();
    const auto weight = p.weight.template as<double>();
    const auto bias = p.bias.template as<double>();
    const tensor<double, 3> y(p.y.view().extents());
    const auto before = std::vector{p.x.bytes(), p.weight.bytes(), p.bias.bytes(), p.cache_seqlens.bytes()};
    run(p.args());
    reference::causal_conv1d_update<double>({.conv_state = state.view(), .x = x.view(), .weight = weight.view(),
                                             .bias = bias.view(), .silu = s.silu, .cache_seqlens = p.cache_seqlens.view(),
                                             .conv_state_indices = p.conv_state_indices.view(), .y = y.view()});
    CHECK(relative_error(p.y, y) <= conv_budget<T>);
    CHECK(relative_error(p.conv_state, state) == 0);
    CHECK(before == std::vector{p.x.bytes(), p.weight.bytes(), p.bias.bytes(), p.cache_seqlens.bytes()});
    CHECK((p.y.gaps_untouched() && p.conv_state.gaps_untouched()));
}

}  // namespace ssmkit::testing
