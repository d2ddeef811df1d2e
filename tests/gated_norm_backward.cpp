#include <ssmkit/gated_norm_backward.hpp>

#include <ssmkit/reference/gated_norm_backward.hpp>

#include "norm_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct backward {
    using problem = gated_norm_problem<T>;

    template <class Exec>
    static void run(const problem& p, workspace memory, Exec&& exec)
    {
        gated_norm_backward(p.backward_args(), memory, exec);
    }

    template <class P>
    static void reference(const P& p)
    {
        ssmkit::reference::gated_norm_backward(p.backward_args());
    }

    static std::size_t workspace_size(const problem& p, std::size_t concurrency)
    {
        return gated_norm_backward_workspace_size(p.backward_args(), concurrency);
    }

    template <class P>
    static auto outputs(const P& p)
    {
        return std::tie(p.dx, p.dz, p.dweight, p.dbias);
    }
};

TEST_CASE("gated_norm_backward: the reference is the derivative of the reference")
{
    for (unsigned bits = 0; bits < 1u << norm_setup::options; ++bits) {
        norm_setup s{.batch = 2, .length = 3, .dim = 6, .groups = 2};
        s = s.with_options(bits);
        CAPTURE(s.text());
        gated_norm_problem<double> p(s);
        reference::gated_norm_backward(p.backward_args());
        const auto loss = [&] {
            reference::gated_norm(p.args());
            double sum = 0;
            for_each_index(p.y.view(), [&](auto... i) { sum += p.y(i...) * p.dy(i...); });
            return sum;
        };
        const auto check = [&](auto& input, const auto& gradient) {
            if (!input.given()) return;
            for_each_index(input.view(), [&](auto... i) {
                constexpr double step = 1e-5;
                const double at = input(i...);
                input(i...) = at + step;
                const double above = loss();
                input(i...) = at - step;
                const double below = loss();
                input(i...) = at;
                CHECK(std::abs(gradient(i...) - (above - below) / (2 * step)) < 1e-7);
            });
        };
        check(p.x, p.dx);
        check(p.z, p.dz);
        check(p.weight, p.dweight);
        check(p.bias, p.dbias);
    }
}

TEMPLATE_TEST_CASE("gated_norm_backward: agrees with the reference, whatever is switched on", "", float, double, bfloat16,
                   float16)
{
    agrees_with_the_reference<backward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm_backward: every number of tokens and channels, none included", "", float, double, bfloat16)
{
    holds_for_every_size<backward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm_backward: every group size", "", float, double, float16)
{
    holds_for_every_group_size<backward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm_backward: a NaN reaches what depends on it, and nothing else", "", float, double, bfloat16)
{
    nan_goes_where_it_belongs<backward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm_backward: threads and workspace do not change a bit", "", float, double, bfloat16)
{
    threads_and_workspace_change_nothing<backward<TestType>>();
}

TEST_CASE("gated_norm_backward: takes nothing from the heap when it is lent a workspace")
{
    takes_nothing_from_the_heap<backward<float>>();
    takes_nothing_from_the_heap<backward<bfloat16>>();
}

TEMPLATE_TEST_CASE("gated_norm_backward: touches nothing outside its arguments", "", float, double, float16)
{
    touches_nothing_outside<backward<TestType>>();
}

TEMPLATE_TEST_CASE("gated_norm_backward: huge inputs have small gradients, not zero ones", "", float, double)
{
    constexpr double huge = std::is_same_v<TestType, double> ? 1e200 : 1e25;
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const bool layer : {false, true}) {
            norm_setup s{.length = 3, .dim = 50, .layer = layer, .inputs = form};
            s.spread = huge;
            CHECK(against_reference<backward<TestType>>(gated_norm_problem<TestType>(s)) <= norm_budget<TestType>);
        }
    }
}

TEST_CASE("gated_norm_backward: gradients that are not asked for are not written, the others stay the same")
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        const norm_setup s{.dim = 21, .second = true, .bias = true, .inputs = form, .outputs = form};
        const gated_norm_problem<float> all(s);
        gated_norm_backward(all.backward_args());
        for (unsigned bits = 0; bits < 16; ++bits) {
            CAPTURE(bits);
            const gated_norm_problem<float> p(s);
            auto a = p.backward_args();
            if (!(bits & 1)) a.dx = {};
            if (!(bits & 2)) a.dz = {};
            if (!(bits & 4)) a.dweight = {};
            if (!(bits & 8)) a.dbias = {};
            gated_norm_backward(a);
            const gated_norm_problem<float> untouched(s);
            CHECK(same_bits(p.dx, bits & 1 ? all.dx : untouched.dx));
            CHECK(same_bits(p.dz, bits & 2 ? all.dz : untouched.dz));
            CHECK(same_bits(p.dweight, bits & 4 ? all.dweight : untouched.dweight));
            CHECK(same_bits(p.dbias, bits & 8 ? all.dbias : untouched.dbias));
        }
    }
}

TEST_CASE("gated_norm_backward: a mistake is named before anything is written")
{
    const gated_norm_problem<float> p(norm_setup{.batch = 2, .length = 3, .dim = 6, .second = true, .bias = true});
    using args = gated_norm_backward_args<float>;
    const auto message = [&](auto&& spoil) {
        args a = p.backward_args();
        spoil(a);
        return message_of([&] { gated_norm_backward(a); });
    };
    const std::vector<float> other(1000);
    CHECK(message([&](args& a) { a.dy = {other, 2, 3, 5}; }) ==
          "gated_norm_backward: dy has shape (2, 3, 5), expected (batch = 2, length = 3, dim = 6)");
    CHECK(message([&](args& a) { a.forward.weight = {other, 5}; }) ==
          "gated_norm_backward: weight has shape (5), expected (dim = 6)");
    CHECK(message([&](args& a) { a.forward.z = {}; }) == "gated_norm_backward: dz is asked for without a z");
    CHECK(message([&](args& a) { a.dz = a.dx; }) == "gated_norm_backward: dz overlaps dx in memory");
    CHECK(message([&](args& a) { a.dbias = a.dweight; }) == "gated_norm_backward: dbias overlaps dweight in memory");
    CHECK(message([&](args& a) { a.dy = a.dx; }) == "gated_norm_backward: dx overlaps dy in memory");
    for_each_index(p.dx.view(), [&](auto... i) { CHECK(std::isnan(p.dx(i...))); });
    for_each_index(p.dweight.view(), [&](auto... i) { CHECK(std::isnan(p.dweight(i...))); });
}

}  // namespace
}  // namespace ssmkit::testing
