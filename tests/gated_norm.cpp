#include <ssmkit/gated_norm.hpp>

#include <ssmkit/reference/gated_norm.hpp>

#include "norm_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct forward {
    using problem = gated_norm_problem<T>;

    template <class Exec>
    static void run(const problem& p, workspace memory, Exec&& exec)
    {
        gated_norm(p.args(), memory, exec);
    }

    template <class P>
    static void reference(const P& p)
    {
        ssmkit::reference::gated_norm(p.args());
    }

    static std::size_t workspace_size(const problem& p, std::size_t concurrency)
    {
        return gated_norm_workspace_size(p.args(), concurrency);
    }

    template <class P>
    static auto outputs(const P& p)
    {
        return std::tie(p.y);
    }
};

TEMPLATE_TEST_CASE("gated_norm: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    agrees_with_the_reference<forward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm: every number of tokens and channels, none included", "", float, double, bfloat16)
{
    holds_for_every_size<forward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm: every group size", "", float, double, float16)
{
    holds_for_every_group_size<forward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm: a NaN reaches the group that it is in, and nothing else", "", float, double, bfloat16)
{
    nan_goes_where_it_belongs<forward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm: squares neither overflow nor vanish", "", float, double)
{
    holds_for_huge_and_tiny_values<forward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm: scaling by a power of 2 changes nothing without eps", "", float, double)
{
    for (const bool layer : {false, true}) {
        norm_setup s{.dim = 50, .groups = 2, .layer = layer};
        s.eps = 0;
        const gated_norm_problem<TestType> p(s);
        gated_norm(p.args());
        const int range = std::numeric_limits<TestType>::max_exponent - 4;
        for (const int exponent : {-range, -range / 2 - 10, range / 2 + 10, range}) {
            gated_norm_problem<TestType> q(s);
            // Small elements of small multiples would be subnormal, which is zero here.
            q.x.fill([&](auto... i) { return std::ldexp(p.x(i...) > 0 ? TestType(1) : TestType(-2), exponent); });
            gated_norm_problem<TestType> unit(s);
            unit.x.fill([&](auto... i) { return p.x(i...) > 0 ? TestType(1) : TestType(-2); });
            gated_norm(q.args());
            gated_norm(unit.args());
            CHECK(relative_error(q.y, unit.y) <= norm_budget<TestType>);
        }
    }
}

TEMPLATE_TEST_CASE("gated_norm: an infinite input counts as the formula says", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const bool layer : {false, true}) {
            const norm_setup s{.dim = 40, .groups = 2, .layer = layer, .inputs = form, .outputs = form};
            gated_norm_problem<TestType> p(s);
            p.x(1, 3, 7) = -std::numeric_limits<TestType>::infinity();
            gated_norm(p.args());
            for (index c = 0; c < 20; ++c) {
                CAPTURE(c);
                CHECK(std::isnan(p.y(1, 3, c)) == (layer || c == 7));
                if (!layer && c != 7) CHECK(p.y(1, 3, c) == 0);
            }
            p.x(1, 3, 7) = 1;
            const gated_norm_problem<TestType> untouched(s);
            gated_norm(untouched.args());
            for (index c = 20; c < 40; ++c) CHECK(p.y(1, 3, c) == untouched.y(1, 3, c));
            for (index c = 0; c < 40; ++c) CHECK(p.y(1, 2, c) == untouched.y(1, 2, c));
        }
    }
}

TEST_CASE("gated_norm: a large mean costs the layer form nothing")
{
    layer_form_survives_a_large_mean<forward<float>>();
}

TEMPLATE_TEST_CASE("gated_norm: threads and workspace do not change a bit", "", float, double, bfloat16)
{
    threads_and_workspace_change_nothing<forward<TestType>>();
}

TEST_CASE("gated_norm: takes nothing from the heap when it is lent a workspace")
{
    takes_nothing_from_the_heap<forward<float>>();
    takes_nothing_from_the_heap<forward<bfloat16>>();
}

TEMPLATE_TEST_CASE("gated_norm: touches nothing outside its arguments", "", float, double, float16)
{
    touches_nothing_outside<forward<TestType>>();
}

TEST_CASE("gated_norm: offsets beyond 2^32 elements")
{
    const norm_setup s{.batch = 2, .length = 3, .dim = 5, .second = true};
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 5}) {
        for (const std::size_t axis : {0, 1, 2}) {
            const gated_norm_problem<bfloat16> p(s);
            sparse_memory memory;
            gated_norm_args<bfloat16> a = p.args();
            try {
                a.x = memory.spread(a.x, axis, stride);
                a.z = memory.spread(a.z, axis, stride);
                a.y = memory.spread(a.y, axis, stride);
            } catch (const sparse_memory::refused&) {
                WARN("the system lends no address space for this test");
                return;
            }
            gated_norm(a);
            gated_norm(p.args());
            CHECK(relative_error(a.y, p.y.view()) <= 2 * rounding<bfloat16>);
        }
    }
}

TEST_CASE("gated_norm: a mistake is named before anything is written")
{
    const gated_norm_problem<float> p(norm_setup{.batch = 2, .length = 3, .dim = 6, .second = true, .bias = true});
    const auto message = [&](auto&& spoil) {
        gated_norm_args<float> a = p.args();
        spoil(a);
        return message_of([&] { gated_norm(a); });
    };
    const std::vector<float> other(1000);
    using args = gated_norm_args<float>;
    CHECK(message([&](args& a) { a.z = {other, 2, 3, 5}; }) ==
          "gated_norm: z has shape (2, 3, 5), expected (batch = 2, length = 3, dim = 6)");
    CHECK(message([&](args& a) { a.weight = {other, 7}; }) ==
          "gated_norm: weight has shape (7), expected (dim = 6)");
    CHECK(message([&](args& a) { a.weight = {}; }) == "gated_norm: weight has shape (0), expected (dim = 6)");
    CHECK(message([&](args& a) { a.bias = {other, 5}; }) == "gated_norm: bias has shape (5), expected (dim = 6)");
    CHECK(message([&](args& a) { a.y = {}; }).find("gated_norm: y has shape (0, 0, 0)") == 0);
    CHECK(message([&](args& a) { a.group_size = 4; }) == "gated_norm: group_size does not divide dim");
    CHECK(message([&](args& a) { a.group_size = -2; }) == "gated_norm: group_size does not divide dim");
    CHECK(message([&](args& a) { a.eps = -1; }) == "gated_norm: eps is not a number >= 0");
    CHECK(message([&](args& a) { a.eps = std::numeric_limits<float>::quiet_NaN(); }) ==
          "gated_norm: eps is not a number >= 0");
    CHECK(message([&](args& a) { a.x = a.y; }) == "gated_norm: y overlaps x in memory");
    CHECK(message([&](args& a) { a.y = {a.y.data(), a.y.extents(), {18, 0, 1}}; }).find("stride 0") != std::string::npos);
    for_each_index(p.y.view(), [&](auto... i) { CHECK(std::isnan(p.y(i...))); });
}

}  // namespace
}  // namespace ssmkit::testing
