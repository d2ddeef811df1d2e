#include <ssmkit/causal_conv1d_backward.hpp>

#include <cmath>
#include <string>
#include <vector>

#include "allocation_count.hpp"
#include "causal_conv1d_problem.hpp"
#include "catch.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const conv_setup& s)
{
    compare_conv_backward<T>(s, [](const auto& a) { causal_conv1d_backward(a); });
}

}  // namespace

TEMPLATE_TEST_CASE("causal_conv1d_backward: agrees with the reference, whatever is switched on", "", float, double, bfloat16,
                   float16)
{
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            compare<TestType>(conv_setup{.length = 53, .dim = 21, .inputs = form, .outputs = form}.with_options(options));
        }
    }
}

TEMPLATE_TEST_CASE("causal_conv1d_backward: every length, number of channels and width", "", float, bfloat16)
{
    for (const index n : conv_sizes) {
        for (const index width : {1, 2, 3, 4, 7}) {
            conv_setup s{.width = width, .bias = true, .silu = true, .initial_states = true, .packed = width == 3};
            s.dim = n;
            compare<TestType>(s);
            s.dim = 3;
            s.length = n;
            compare<TestType>(s);
        }
    }
    for (const index width : {40, 520}) compare<TestType>({.length = 70, .dim = 3, .width = width, .silu = true});
    compare<TestType>({.batch = 1, .length = 1100, .dim = 3, .width = 520, .initial_states = true});
    compare<TestType>({.length = 1300, .dim = 3, .silu = true, .packed = true});
}

TEMPLATE_TEST_CASE("causal_conv1d_backward: reads and writes any layout", "", float, bfloat16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.length = 37, .dim = 19, .bias = true, .silu = true, .initial_states = true, .reverse = true,
                               .inputs = inputs, .outputs = outputs});
        }
    }
}

TEST_CASE("causal_conv1d_backward: the reference's gradients are those of finite differences")
{
    // F = Σ dy y + Σ dfinal_states final_states, central differences in double.
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        const conv_problem<double> p(conv_setup{.length = 9, .dim = 2, .width = 3}.with_options(options));
        INFO(p.s.text());
        reference::causal_conv1d_backward(p.backward_args());
        const auto loss = [&] {
            reference::causal_conv1d(p.args());
            double sum = 0;
            for_each_index(p.y.view(), [&](auto... i) { sum += p.dy(i...) * p.y(i...); });
            for_each_index(p.final_states.view(), [&](auto... i) { sum += p.dfinal_states(i...) * p.final_states(i...); });
            return sum;
        };
        const auto verify = [&](const auto& input, const auto& gradient) {
            if (!input.given()) return;
            for_each_index(input.view(), [&](auto... i) {
                const double h = 1e-5, here = input(i...);
                input(i...) = here + h;
                const double above = loss();
                input(i...) = here - h;
                const double below = loss();
                input(i...) = here;
                REQUIRE(std::abs((above - below) / (2 * h) - gradient(i...)) <= 1e-7);
            });
        };
        verify(p.x, p.dx);
        verify(p.weight, p.dweight);
        verify(p.bias, p.dbias);
        verify(p.initial_states, p.dinitial_states);
    }
}

TEMPLATE_TEST_CASE("causal_conv1d_backward: the gradient of padding is zero, whatever it holds", "", float, bfloat16)
{
    conv_problem<TestType> p({.length = 60, .dim = 18, .bias = true, .silu = true, .packed = true});
    p.x.fill([&](index b, index t, index c) { return p.seq_idx(b, t) < 0 ? quiet_nan<TestType>() : p.x(b, t, c); });
    p.dy.fill([&](index b, index t, index c) { return p.seq_idx(b, t) < 0 ? quiet_nan<TestType>() : p.dy(b, t, c); });
    causal_conv1d_backward(p.backward_args());
    index padding = 0;
    for_each_index(p.dx.view(), [&](index b, index t, index c) {
        REQUIRE(!is_nan(p.dx(b, t, c)));
        if (p.seq_idx(b, t) >= 0) return;
        REQUIRE(convert<double>(p.dx(b, t, c)) == 0);
        ++padding;
    });
    CHECK(padding > 0);
    for_each_index(p.dweight.view(), [&](auto... i) { REQUIRE(!is_nan(p.dweight(i...))); });
    for_each_index(p.dbias.view(), [&](auto... i) { REQUIRE(!is_nan(p.dbias(i...))); });
}

TEMPLATE_TEST_CASE("causal_conv1d_backward: a NaN reaches exactly the gradients that depend on it", "", float, double, bfloat16)
{
    random numbers(3);
    for (unsigned options = 0; options < 1u << conv_setup::options; ++options) {
        compare_conv_backward_nans<TestType>(conv_setup{.length = 38, .dim = 18}.with_options(options), numbers,
                                             [](const auto& a) { causal_conv1d_backward(a); });
    }
}

TEST_CASE("causal_conv1d_backward: gradients that are not asked for change nothing")
{
    const conv_setup s{.length = 40, .bias = true, .silu = true, .initial_states = true};
    const conv_problem<float> all(s);
    causal_conv1d_backward(all.backward_args());
    for (unsigned wanted = 0; wanted < 16; ++wanted) {
        const conv_problem<float> p(s);
        auto a = p.backward_args();
        if (!(wanted & 1u)) a.dx = {};
        if (!(wanted & 2u)) a.dweight = {};
        if (!(wanted & 4u)) a.dbias = {};
        if (!(wanted & 8u)) a.dinitial_states = {};
        causal_conv1d_backward(a);
        if (wanted & 1u) CHECK(same_bits(p.dx, all.dx));
        if (wanted & 2u) CHECK(same_bits(p.dweight, all.dweight));
        if (wanted & 4u) CHECK(same_bits(p.dbias, all.dbias));
        if (wanted & 8u) CHECK(same_bits(p.dinitial_states, all.dinitial_states));
    }
}

TEMPLATE_TEST_CASE("causal_conv1d_backward: neither threads nor the workspace change a bit", "", float, bfloat16)
{
    threads pool(3);
    for (const index width : {4, 6}) {
        const conv_setup s{.length = 1300, .dim = 300, .width = width, .bias = true, .silu = true, .packed = true};
        const conv_problem<TestType> one(s);
        causal_conv1d_backward(one.backward_args());
        const auto same = [&](const conv_problem<TestType>& p) {
            return same_bits(one.dx, p.dx) && same_bits(one.dweight, p.dweight) && same_bits(one.dbias, p.dbias) &&
                   same_bits(one.dinitial_states, p.dinitial_states);
        };
        conv_problem<TestType> p(s);
        causal_conv1d_backward(p.backward_args(), pool);
        CHECK(same(p));
        for (const int poison : {0, 0xff, 0x7f}) {
            p.make_outputs();
            std::vector<std::byte> memory(causal_conv1d_backward_workspace_size(p.backward_args(), 4) + 1, std::byte(poison));
            causal_conv1d_backward(p.backward_args(), workspace(memory).subspan(1), last_task_first{});
            CHECK(same(p));
        }
    }
}

TEST_CASE("causal_conv1d_backward: allocates nothing when it is lent a workspace")
{
    const conv_problem<float> p({.bias = true, .silu = true, .initial_states = true, .packed = true});
    std::vector<std::byte> memory(causal_conv1d_backward_workspace_size(p.backward_args()));
    CHECK(allocations_during([&] { causal_conv1d_backward(p.backward_args(), memory); }) == 0);
}

TEMPLATE_TEST_CASE("causal_conv1d_backward: touches nothing outside its arguments", "", float, bfloat16)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index n : {1, 3, 16, 17, 63, 65, 129}) {
                conv_setup s{.dim = n, .initial_states = true, .packed = true, .inputs = form, .outputs = form, .edge = edge};
                compare<TestType>(s);
                s.dim = 5;
                s.length = n;
                compare<TestType>(s);
            }
        }
    }
}

TEST_CASE("causal_conv1d_backward: names the argument that does not fit")
{
    const conv_problem<float> p({.bias = true, .initial_states = true});
    const auto named = [&](const char* name, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        std::string text;
        try {
            causal_conv1d_backward(a);
        } catch (const shape_error& e) {
            text = e.what();
        }
        INFO(text);
        CHECK(text.find(std::string("causal_conv1d_backward: ") + name) == 0);
    };
    named("dy", [](auto& a) { a.dy = a.dy.slice(1, 0, 1); });
    named("dfinal_states", [](auto& a) { a.dfinal_states = a.dfinal_states.slice(2, 0, 1); });
    named("dx", [](auto& a) { a.dx = a.dx.slice(1, 0, 1); });
    named("dweight", [](auto& a) { a.dweight = a.dweight.slice(1, 0, 1); });
    named("dbias", [](auto& a) { a.dbias = a.dbias.slice(0, 0, 1); });
    named("dinitial_states", [](auto& a) { a.dinitial_states = a.dinitial_states.slice(2, 0, 1); });
    named("dx", [](auto& a) { a.dx = {const_cast<float*>(a.dy.data()), a.dx.extents()}; });
}

}  // namespace ssmkit::testing
