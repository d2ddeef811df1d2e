#include <ssmkit/causal_conv1d_update.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/reference/causal_conv1d_update.hpp>

#include "allocation_count.hpp"
#include "causal_conv1d_problem.hpp"
#include "catch.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = (std::is_same_v<T, double> ? 4e-15 : 2e-6) + (sizeof(T) == 2 ? rounding<T> : 0);

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

/// Against the reference in double, on the same numbers; the state bit for bit.
template <class T>
void compare(const update_setup& s)
{
    INFO("(" << s.batch << ", " << s.length << ", " << s.dim << ") width " << s.width << " state_len " << s.state_len << " ring "
             << s.ring << " indices " << s.indices << " layout " << static_cast<int>(s.form));
    const update_problem<T> p(s);
    const auto state = p.conv_state.template as<double>(), x = p.x.template as<double>();
    const auto weight = p.weight.template as<double>();
    const auto bias = p.bias.template as<double>();
    const tensor<double, 3> y(p.y.view().extents());
    const auto before = std::vector{p.x.bytes(), p.weight.bytes(), p.bias.bytes(), p.cache_seqlens.bytes()};
    causal_conv1d_update(p.args());
    reference::causal_conv1d_update<double>({.conv_state = state.view(), .x = x.view(), .weight = weight.view(),
                                             .bias = bias.view(), .silu = s.silu, .cache_seqlens = p.cache_seqlens.view(),
                                             .conv_state_indices = p.conv_state_indices.view(), .y = y.view()});
    CHECK(relative_error(p.y, y) <= budget<T>);
    CHECK(relative_error(p.conv_state, state) == 0);
    CHECK(before == std::vector{p.x.bytes(), p.weight.bytes(), p.bias.bytes(), p.cache_seqlens.bytes()});
    CHECK((p.y.gaps_untouched() && p.conv_state.gaps_untouched()));
}

}  // namespace

TEMPLATE_TEST_CASE("causal_conv1d_update: agrees with the reference, shifting and circular", "", float, double, bfloat16, float16)
{
    for (const index length : {0, 1, 2, 4, 9}) {
        for (const index width : {1, 2, 3, 4, 6}) {
            for (const index more : {0, 1, 4}) {
                for (const bool ring : {false, true}) {
                    for (const bool indices : {false, true}) {
                        if (ring && width - 1 + more == 0) continue;  // a ring without slots has no position
                        compare<TestType>({.length = length, .width = width, .state_len = width - 1 + more, .bias = ring,
                                           .silu = indices, .ring = ring, .indices = indices});
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d_update: every number of channels, any layout, nothing beyond", "", float, bfloat16)
{
    for (const layout form : all_layouts) {
        for (const guard edge : {guard::none, guard::below, guard::above}) {
            for (const index dim : {0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 35}) {
                for (const bool ring : {false, true}) compare<TestType>({.dim = dim, .ring = ring, .form = form, .edge = edge});
            }
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d_update: token by token is causal_conv1d, bit for bit", "", float, double, bfloat16)
{
    for (const bool ring : {false, true}) {
        for (const index at_once : {1, 3}) {
            const conv_problem<TestType> p({.length = 30, .dim = 19, .bias = true, .silu = true, .initial_states = true});
            causal_conv1d(p.args());
            tensor<TestType, 3> state({p.s.batch, p.s.dim, 3}), y(p.y.view().extents());
            state.fill([&](index b, index c, index j) { return p.initial_states(b, c, j); });
            tensor<std::int32_t, 1> count({p.s.batch});
            for (index t = 0; t < p.s.length; t += at_once) {
                count.fill([&](index) { return static_cast<std::int32_t>(t); });
                causal_conv1d_update<xsimd::default_arch, TestType>(
                    {.conv_state = state.view(), .x = p.args().x.slice(1, t, at_once), .weight = p.weight.view(),
                     .bias = p.bias.view(), .silu = true,
                     .cache_seqlens = ring ? view<const std::int32_t, 1>(count.view()) : view<const std::int32_t, 1>{},
                     .y = y.view().slice(1, t, at_once)});
            }
            CHECK(same_bits(y, p.y));
            if (!ring) CHECK(same_bits(state, p.final_states));
        }
    }
}

TEST_CASE("causal_conv1d_update: padded rows give zeros and touch no state")
{
    update_problem<float> p({.indices = true});
    p.x.fill([&](index b, index t, index c) { return b == 1 ? quiet_nan<float>() : p.x(b, t, c); });
    const auto before = p.conv_state.as<float>();
    causal_conv1d_update(p.args());
    for_each_index(p.y.view()[1], [&](index t, index c) { CHECK(p.y(1, t, c) == 0.0f); });
    for (const index unused : {0, 1, 3}) CHECK(same_bits(p.conv_state.view()[unused], before.view()[unused]));
    for (const index used : {2, 4}) CHECK(!same_bits(p.conv_state.view()[used], before.view()[used]));
}

TEST_CASE("causal_conv1d_update: threads change no bit, nothing is allocated")
{
    threads pool(3);
    const update_problem<float> one({.batch = 9, .ring = true}), several({.batch = 9, .ring = true});
    CHECK(allocations_during([&] { causal_conv1d_update(one.args()); }) == 0);
    causal_conv1d_update(several.args(), pool);
    CHECK(same_bits(one.y, several.y));
    CHECK(same_bits(one.conv_state, several.conv_state));
}

TEST_CASE("causal_conv1d_update: a NaN reaches exactly the outputs that depend on it")
{
    for (index slot = 0; slot < 5; ++slot) {
        const update_problem<float> p({.length = 1});
        p.conv_state(1, 2, slot) = quiet_nan<float>();
        causal_conv1d_update(p.args());
        for_each_index(p.y.view(), [&](index b, index t, index c) {
            CHECK(is_nan(p.y(b, t, c)) == (b == 1 && c == 2 && slot >= 2));  // width - 1 = 3 of 5 slots are read
        });
        for_each_index(p.conv_state.view(), [&](index b, index c, index j) {
            CHECK(is_nan(p.conv_state(b, c, j)) == (b == 1 && c == 2 && j == slot - 1));
        });
    }
}

TEST_CASE("causal_conv1d_update: offsets beyond 2^32 elements")
{
    const update_problem<float> p({}), same({});
    causal_conv1d_update(same.args());
    for (std::size_t axis = 0; axis < 3; ++axis) {
        sparse_memory memory;
        try {
            auto far = p.args();
            far.x = memory.spread(far.x, axis, (index{1} << 32) + 7);
            far.conv_state = memory.spread(p.conv_state.view(), axis, (index{1} << 32) + 7);
            causal_conv1d_update(far);
            CHECK(same_bits(p.y, same.y));
            CHECK(same_bits(far.conv_state, same.conv_state.view()));
        } catch (const sparse_memory::refused&) {
            WARN("no address space");
        }
    }
}

TEST_CASE("causal_conv1d_update: names the argument that does not fit")
{
    const update_problem<float> p({.ring = true, .indices = true});
    const auto named = [&](const char* name, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        std::string text;
        try {
            causal_conv1d_update(a);
        } catch (const shape_error& e) {
            text = e.what();
        }
        INFO(text);
        CHECK(text.find(std::string("causal_conv1d_update: ") + name) == 0);
    };
    named("conv_state", [](auto& a) { a.conv_state = a.conv_state.slice(2, 0, 2); });
    named("conv_state", [](auto& a) { a.conv_state_indices = {}; });
    named("weight", [](auto& a) { a.weight = a.weight.slice(0, 0, 1); });
    named("bias", [](auto& a) { a.bias = a.bias.slice(0, 0, 1); });
    named("cache_seqlens", [](auto& a) { a.cache_seqlens = a.cache_seqlens.slice(0, 0, 1); });
    named("y", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("conv_state_indices", [&](auto&) { p.conv_state_indices(0) = 5; });
}

}  // namespace ssmkit::testing
