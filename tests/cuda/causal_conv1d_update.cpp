#include "../catch.hpp"
#include "../causal_conv1d_update_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const update_setup& s)
{
    compare_update<T>(s, [](const auto& a) { run_on_device(a); });
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_update: agrees with the reference, shifting and circular", "", float, bfloat16, float16)
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

TEMPLATE_TEST_CASE("cuda::causal_conv1d_update: every number of rows and channels, any layout", "", float, bfloat16)
{
    for (const layout form : all_layouts) {
        for (const bool ring : {false, true}) {
            for (const index dim : {0, 1, 3, 4, 16, 31, 32, 33, 127, 128, 129, 1000}) {
                for (const index state_len : {3, 4, 5}) {
                    compare<TestType>({.dim = dim, .state_len = state_len, .ring = ring, .form = form});
                }
                compare<TestType>({.length = 1, .dim = dim, .state_len = 3, .ring = ring, .form = form});
                compare<TestType>({.length = 1, .dim = dim, .state_len = 4, .ring = ring, .indices = true, .form = form});
            }
            for (const index batch : {0, 1, 64, 65}) {
                compare<TestType>({.batch = batch, .length = 1, .dim = 36, .ring = ring, .form = form});
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_update: token by token is causal_conv1d, bit for bit", "", float, bfloat16)
{
    for (const bool ring : {false, true}) {
        for (const index at_once : {1, 3}) {
            const conv_problem<TestType> p({.length = 30, .dim = 16, .bias = true, .silu = true, .initial_states = true});
            run_on_device(p.args());
            tensor<TestType, 3> state({p.s.batch, p.s.dim, 3}), y(p.y.view().extents());
            state.fill([&](index b, index c, index j) { return p.initial_states(b, c, j); });
            tensor<std::int32_t, 1> count({p.s.batch});
            for (index t = 0; t < p.s.length; t += at_once) {
                count.fill([&](index) { return static_cast<std::int32_t>(t); });
                run_on_device(causal_conv1d_update_args<TestType>{
                    .conv_state = state.view(), .x = p.args().x.slice(1, t, at_once), .weight = p.weight.view(),
                    .bias = p.bias.view(), .silu = true, .cache_seqlens = ring ? view<const std::int32_t, 1>(count.view()) : view<const std::int32_t, 1>{},
                    .y = y.view().slice(1, t, at_once)});
            }
            CHECK(same_bits(y, p.y));
            if (!ring) CHECK(same_bits(state, p.final_states));
        }
    }
}

TEST_CASE("cuda::causal_conv1d_update: padded rows give zeros and touch no state")
{
    update_problem<float> p({.indices = true});
    p.x.fill([&](index b, index t, index c) { return b == 1 ? quiet_nan<float>() : p.x(b, t, c); });
    const auto before = p.conv_state.as<float>();
    run_on_device(p.args());
    for_each_index(p.y.view()[1], [&](index t, index c) { CHECK(p.y(1, t, c) == 0.0f); });
    for (const index unused : {0, 1, 3}) CHECK(same_bits(p.conv_state.view()[unused], before.view()[unused]));
    for (const index used : {2, 4}) CHECK(!same_bits(p.conv_state.view()[used], before.view()[used]));
}

TEST_CASE("cuda::causal_conv1d_update: a NaN reaches exactly the outputs that depend on it")
{
    for (index slot = 0; slot < 5; ++slot) {
        const update_problem<float> p({.length = 1});
        p.conv_state(1, 2, slot) = quiet_nan<float>();
        run_on_device(p.args());
        for_each_index(p.y.view(), [&](index b, index t, index c) {
            CHECK(is_nan(p.y(b, t, c)) == (b == 1 && c == 2 && slot >= 2));  // width - 1 = 3 of 5 slots are read
        });
        for_each_index(p.conv_state.view(), [&](index b, index c, index j) {
            CHECK(is_nan(p.conv_state(b, c, j)) == (b == 1 && c == 2 && j == slot - 1));
        });
    }
}

}  // namespace
}  // namespace ssmkit::testing
