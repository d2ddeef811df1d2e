#include <cstddef>
#include <vector>

#include "../catch.hpp"
#include "../causal_conv1d_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const conv_setup& s)
{
    compare_conv_backward<T>(s, [](const auto& a) { run_on_device(a); });
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_backward: agrees with the reference, whatever is switched on", "", float, bfloat16, float16)
{
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        for (const layout form : all_layouts) {
            for (const index width : {1, 2, 3, 4, 7}) {
                const conv_setup s{.length = 64, .dim = 24, .width = width, .inputs = form, .outputs = form};
                compare<TestType>(s.with_options(options));
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_backward: every length and number of channels", "", float, bfloat16)
{
    // Around a group of tokens, a warp's chunk, a block's chunks, a tile of 32 words and a segment; around a block's channels.
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index n : {0,  1,  2,  3,  4,  5,   7,   8,   9,   11,  12,  13,  31,  32,  33,  34,  35,   36,   39,  40,
                              63, 64, 65, 127, 128, 129, 131, 136, 255, 256, 257, 259, 511, 512, 515, 1024, 2047, 2048, 2056}) {
            for (const bool dim : {false, true}) {
                for (const bool packed : {false, true}) {
                    conv_setup s{.bias = true, .silu = true, .initial_states = true, .packed = packed, .inputs = form,
                                 .outputs = form};
                    s.length = dim ? 16 : n;
                    s.dim = dim ? n : 16;
                    compare<TestType>(s);
                }
            }
        }
    }
    // Enough rows that chunks and segments are long.
    for (const index length : {255, 256, 257, 300, 1030}) {
        compare<TestType>({.batch = 90, .length = length, .dim = 132, .bias = true, .silu = true, .packed = length == 300});
        compare<TestType>({.batch = 90, .length = length, .dim = 132, .width = 3, .inputs = layout::time_contiguous,
                           .outputs = layout::time_contiguous});
    }
    for (const index width : {17, 40}) {
        compare<TestType>({.length = 30, .dim = 3, .width = width, .silu = true, .initial_states = true});
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_backward: reads and writes any layout", "", float, bfloat16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.length = 40, .dim = 16, .bias = true, .silu = true, .initial_states = true, .reverse = true,
                               .inputs = inputs, .outputs = outputs});
        }
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_backward: a NaN reaches exactly the gradients that depend on it", "", float, bfloat16)
{
    random numbers(3);
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
            for (const index length : {2, 37, 38, 64, 160}) {
                const conv_setup s{.length = length, .dim = 16, .inputs = form, .outputs = form};
                compare_conv_backward_nans<TestType>(s.with_options(options), numbers, [](const auto& a) { run_on_device(a); });
            }
        }
    }
}

TEST_CASE("cuda::causal_conv1d_backward: the gradient of padding is zero, whatever it holds")
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        conv_problem<float> p({.length = 60, .dim = 20, .bias = true, .silu = true, .packed = true, .inputs = form,
                               .outputs = form});
        p.x.fill([&](index b, index t, index c) { return p.seq_idx(b, t) < 0 ? quiet_nan<float>() : p.x(b, t, c); });
        p.dy.fill([&](index b, index t, index c) { return p.seq_idx(b, t) < 0 ? quiet_nan<float>() : p.dy(b, t, c); });
        run_on_device(p.backward_args());
        for_each_index(p.dx.view(), [&](index b, index t, index c) {
            REQUIRE(!is_nan(p.dx(b, t, c)));
            if (p.seq_idx(b, t) < 0) REQUIRE(p.dx(b, t, c) == 0);
        });
        for_each_index(p.dweight.view(), [&](auto... i) { REQUIRE(!is_nan(p.dweight(i...))); });
        for_each_index(p.dbias.view(), [&](auto... i) { REQUIRE(!is_nan(p.dbias(i...))); });
    }
}

TEMPLATE_TEST_CASE("cuda::causal_conv1d_backward: gradients that are not asked for change nothing, nor does another run", "", float,
                   bfloat16)
{
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
        const conv_setup s{.length = 330, .dim = 40, .bias = true, .silu = true, .initial_states = true, .inputs = form,
                           .outputs = form};
        const conv_problem<TestType> all(s);
        run_on_device(all.backward_args());
        for (unsigned wanted = 0; wanted < 16; ++wanted) {
            const conv_problem<TestType> p(s);
            auto a = p.backward_args();
            if (!(wanted & 1u)) a.dx = {};
            if (!(wanted & 2u)) a.dweight = {};
            if (!(wanted & 4u)) a.dbias = {};
            if (!(wanted & 8u)) a.dinitial_states = {};
            run_on_device(a);
            if (wanted & 1u) CHECK(same_bits(p.dx, all.dx));
            if (wanted & 2u) CHECK(same_bits(p.dweight, all.dweight));
            if (wanted & 4u) CHECK(same_bits(p.dbias, all.dbias));
            if (wanted & 8u) CHECK(same_bits(p.dinitial_states, all.dinitial_states));
        }
    }
}

TEST_CASE("cuda::causal_conv1d_backward: a workspace that is too small is refused")
{
    const conv_problem<float> p({.length = 100, .dim = 40});
    const auto a = p.backward_args();
    const device_operation& op = device_operations().at(typeid(a));
    const std::size_t need = op.workspace_size(&a);
    REQUIRE(need > 0);
    std::vector<std::byte> memory(need - 1);
    CHECK_THROWS_AS(op.run(&a, memory, nullptr), shape_error);
    CHECK_THROWS_AS(op.run(&a, {}, nullptr), shape_error);
}

}  // namespace
}  // namespace ssmkit::testing
