#include <ssmkit/fft_conv.hpp>

#include <cmath>
#include <string>

#include <ssmkit/reference/fft_conv.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "fft_conv_problem.hpp"

namespace ssmkit::testing {
namespace {

/// What the header promises, and one rounding to T.
template <class T>
constexpr double budget = (std::is_same_v<T, double> ? 1e-14 : 2e-6) + (sizeof(T) == 2 ? rounding<T> : 0);

/// Runs kernel and 64-bit reference on the same numbers and compares.
template <class T>
void compare(const long_setup& s)
{
    INFO(s.text());
    const long_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    fft_conv(p.args());
    reference::fft_conv(expected.args());
    CHECK(relative_error(p.y, expected.y) <= budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.y.gaps_untouched());
}

}  // namespace

TEST_CASE("fft_conv: a sequence by hand")
{
    const float u[] = {1, 2, 3}, k[] = {1, 10, 100, 1000}, reverse[] = {1e4f, 1e5f}, D[] = {5};
    float y[3];
    fft_conv_args<float> a{.u = {u, 1, 1, 3}, .k = {k, 1, 1, 4}, .y = {y, 1, 1, 1, 3}};
    const auto gives = [&](std::array<float, 3> expected) {
        reference::fft_conv(a);
        CHECK(std::equal(expected.begin(), expected.end(), y));
        fft_conv(a);
        for (std::size_t t = 0; t < 3; ++t) CHECK(std::abs(y[t] - expected[t]) <= 2e-6 * 3e5);
    };
    gives({1, 12, 123});
    a.D = {D, 1, 1};
    gives({6, 22, 138});
    a.k_reverse = {reverse, 1, 1, 2};
    gives({320006, 30022, 138});
    a.reverse_includes_current = true;
    gives({210006, 320022, 30138});
}

TEMPLATE_TEST_CASE("fft_conv: an impulse gives the kernel, wherever it is: nothing wraps around", "", float, double)
{
    for (const index length : {257, 1000, 5000}) {
        for (const bool low : {true, false}) {
            const index width = low ? length : 2 * length + 7;
            long_problem<TestType> p({.batch = 1, .dim = 1, .length = length, .width = width, .reverse_width = width});
            for (const index at : {index{0}, index{1}, length / 2, length - 1}) {
                p.u.fill([&](index, index, index t) { return TestType(t == at); });
                fft_conv(p.args());
                double worst = 0;
                for (index t = 0; t < length; ++t) {
                    const TestType expected = t >= at ? p.k(0, 0, t - at) : p.k_reverse(0, 0, at - t - 1);
                    worst = std::max(worst, std::abs(static_cast<double>(p.y(0, 0, 0, t) - expected)));
                }
                CHECK(worst <= budget<TestType>);
            }
        }
    }
}

TEMPLATE_TEST_CASE("fft_conv: agrees with the reference, whatever is switched on, in any layout", "", float, double, bfloat16,
                   float16)
{
    for (unsigned options = 0; options < 1u << long_setup::options; ++options) {
        for (const layout inputs : all_layouts) {
            for (const layout outputs : all_layouts) {
                const bool many = inputs == layout::column_major;
                compare<TestType>(long_setup{.channels = 1 + index(options % 3 == 0),
                                             .dim = many ? 19 : 2,
                                             .length = 121,
                                             .width = 133,
                                             .inputs = inputs,
                                             .outputs = outputs}
                                      .with_options(options));
            }
        }
    }
}

TEMPLATE_TEST_CASE("fft_conv: any length and any width", "", float, double)
{
    const index sizes[] = {0, 1, 2, 3, 15, 16, 17, 31, 33, 64, 79, 80, 81, 82, 97, 127, 128, 129, 200, 255, 256, 257, 511, 600};
    for (const index length : sizes) {
        for (const index width : sizes) {
            compare<TestType>({.batch = 1, .dim = 2, .length = length, .width = width, .D = true});
            compare<TestType>({.batch = 2, .dim = 1, .length = length, .width = width / 2, .reverse_width = width,
                               .includes_current = length % 2 == 0});
        }
    }
    compare<TestType>({.batch = 0});
    compare<TestType>({.channels = 0});
    compare<TestType>({.dim = 0});
}

TEMPLATE_TEST_CASE("fft_conv: lengths of every kind of transform, and rows in pieces", "", float, double)
{
    for (const index length : {1024, 1279, 1500, 2048, 2500, 3000, 4099, 6000, 9000, 14113}) {
        compare<TestType>({.batch = 1, .dim = 1, .length = length, .width = length, .seed = 7});
        compare<TestType>({.batch = 1, .dim = 1, .length = length, .width = 300, .reverse_width = 101, .input_gate = true,
                           .output_gate = true, .seed = 8});
        compare<TestType>({.batch = 1, .dim = 1, .length = length, .width = 90, .seed = 9});
        compare<TestType>(
            {.batch = 1, .dim = 1, .length = length, .width = 33, .input_gate = true, .output_gate = true, .seed = 9});
    }
}

TEMPLATE_TEST_CASE("fft_conv: a row that leaves the caches", "", float, double)
{
    // Of a long row, some samples: two impulses and a kernel of which every tap differs.
    const index length = 150001;
    long_problem<TestType> p({.batch = 1, .dim = 1, .length = length, .width = length});
    p.u.fill([](index, index, index t) { return TestType(t == 17 ? 2 : t == 99000 ? -3 : 0); });
    fft_conv(p.args());
    double worst = 0;
    for (index t = 0; t < length; ++t) {
        const double expected = (t >= 17 ? 2 * static_cast<double>(p.k(0, 0, t - 17)) : 0) -
                                (t >= 99000 ? 3 * static_cast<double>(p.k(0, 0, t - 99000)) : 0);
        worst = std::max(worst, std::abs(static_cast<double>(p.y(0, 0, 0, t)) - expected));
    }
    CHECK(worst <= 5 * budget<TestType>);
}

TEST_CASE("fft_conv: the flattened axis has the channels outside or inside")
{
    const long_problem<float> p({.channels = 3, .dim = 4, .length = 100, .width = 100});
    fft_conv(p.args());
    tensor<float, 3> flat({2, 12, 100}), swapped({2, 12, 100});
    auto a = p.args();
    a.y = flattened(flat.view(), 3);
    fft_conv(a);
    a.y = flattened(swapped.view(), 3, true);
    fft_conv(a);
    for_each_index(p.y.view(), [&](index b, index c, index h, index t) {
        REQUIRE(flat(b, c * 4 + h, t) == p.y(b, c, h, t));
        REQUIRE(swapped(b, h * 3 + c, t) == p.y(b, c, h, t));
    });
}

TEST_CASE("fft_conv: a NaN stays in its row")
{
    for (const layout form : {layout::row_major, layout::column_major}) {
        for (const index width : {20, 200}) {
            long_problem<float> p({.batch = 2, .dim = 18, .length = 200, .width = width, .inputs = form, .outputs = form});
            fft_conv(p.args());
            const auto clean = p.y.as<float>();
            p.u(1, 5, 90) = quiet_nan<float>();
            fft_conv(p.args());
            for_each_index(p.y.view(), [&](index b, index c, index h, index t) {
                if (b == 1 && h == 5) {
                    if (t >= 90 && t < 90 + width) REQUIRE(std::isnan(p.y(b, c, h, t)));
                } else {
                    REQUIRE(p.y(b, c, h, t) == clean(b, c, h, t));
                }
            });
        }
    }
}

TEMPLATE_TEST_CASE("fft_conv: neither threads nor the workspace change a bit", "", float, bfloat16)
{
    threads pool(3);
    for (const layout form : {layout::row_major, layout::column_major}) {
        for (const index width : {40, 700}) {
            for (const index dim : {1, 5, 33}) {
                const long_setup s{.batch = 3,
                                   .channels = 1 + dim % 2,
                                   .dim = dim,
                                   .length = 700,
                                   .width = width,
                                   .reverse_width = width / 2,
                                   .D = true,
                                   .input_gate = true,
                                   .inputs = form,
                                   .outputs = form};
                const long_problem<TestType> one(s);
                fft_conv(one.args());
                long_problem<TestType> several(s);
                fft_conv(several.args(), pool);
                CHECK(same_bits(one.y, several.y));
                for (const unsigned char garbage : {0xff, 0x7f}) {
                    several.make_outputs();
                    const std::size_t need = fft_conv_workspace_size(several.args(), 4);
                    std::vector<std::byte> memory(need + 3, std::byte{garbage});
                    fft_conv(several.args(), workspace(memory).subspan(3), last_task_first{});
                    CHECK(same_bits(one.y, several.y));
                }
            }
        }
    }
}

TEST_CASE("fft_conv: allocates nothing when it is lent a workspace")
{
    for (const index width : {40, 700}) {
        for (const layout form : {layout::row_major, layout::column_major}) {
            const long_problem<float> p({.channels = 2, .length = 700, .width = width, .reverse_width = 9, .inputs = form});
            std::vector<std::byte> memory(fft_conv_workspace_size(p.args()));
            CHECK(allocations_during([&] { fft_conv(p.args(), memory); }) == 0);
        }
    }
}

TEMPLATE_TEST_CASE("fft_conv: touches nothing outside its arguments and its workspace", "", float, bfloat16)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::column_major}) {
            for (const index n : {1, 15, 16, 17, 90, 128, 255, 1000}) {
                for (const bool reverse : {false, true}) {
                    const long_setup s{.batch = 1,
                                       .dim = n < 100 ? 17 : 1,
                                       .length = n,
                                       .width = 2 * n / 3 + 1,
                                       .reverse_width = reverse ? n : 0,
                                       .D = true,
                                       .input_gate = true,
                                       .output_gate = true,
                                       .inputs = form,
                                       .outputs = form,
                                       .edge = edge};
                    compare<TestType>(s);
                    const long_problem<TestType> p(s);
                    const std::size_t need = fft_conv_workspace_size(p.args());
                    const raw_memory lent(need, edge);
                    fft_conv(p.args(), workspace(lent.data(), need));
                }
            }
        }
    }
}

TEST_CASE("fft_conv: names the argument that does not fit")
{
    const long_problem<float> p({.reverse_width = 7, .D = true, .input_gate = true, .output_gate = true});
    const auto complaint = [](const fft_conv_args<float>& a, workspace memory = {}) -> std::string {
        try {
            fft_conv(a, memory);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint(a);
        INFO(said);
        CHECK(said.find(std::string("fft_conv: ") + text) == 0);
    };
    CHECK(complaint(p.args()).empty());
    named("k has shape", [](auto& a) { a.k = a.k.slice(1, 0, 2); });
    named("k_reverse has shape", [](auto& a) { a.k_reverse = a.k_reverse.slice(1, 0, 2); });
    named("D has shape", [](auto& a) { a.D = a.D.slice(1, 0, 2); });
    named("input_gate has shape", [](auto& a) { a.input_gate = a.input_gate.slice(2, 0, 2); });
    named("output_gate has shape", [](auto& a) { a.output_gate = a.output_gate.slice(0, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(3, 0, 2); });
    named("y has shape", [](auto& a) { a.y = {}; });
    named("y is written but", [](auto& a) { a.y = {a.y.data(), a.y.extents(), {0, 0, 50, 1}}; });
    named("y overlaps u", [](auto& a) { a.y = {const_cast<float*>(a.u.data()), a.y.extents()}; });
    named("y overlaps input_gate", [](auto& a) { a.y = {const_cast<float*>(a.input_gate.data()), a.y.extents()}; });
    const long_problem<float> transformed({.length = 500, .width = 500});
    std::byte little[16];
    CHECK(complaint(transformed.args(), little).find("fft_conv: workspace has 16 bytes, expected ") == 0);
    for_each_index(p.y.view(), [&](auto... i) { p.y(i...) = 7; });
    auto wrong = p.args();
    wrong.D = wrong.D.slice(0, 0, 0);
    CHECK(!complaint(wrong).empty());
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(p.y(i...) == 7); });  // nothing is written
}

}  // namespace ssmkit::testing
