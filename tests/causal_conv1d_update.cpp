#include <ssmkit/causal_conv1d_update.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "allocation_count.hpp"
#include "causal_conv1d_update_problem.hpp"
#include "catch.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const update_setup& s)
{
    compare_update<T>(s, [](const auto& a) { causal_conv1d_update(a); });
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
