#include <ssmkit/add_norm_backward.hpp>

#include <ssmkit/reference/add_norm.hpp>
#include <ssmkit/reference/add_norm_backward.hpp>

#include "norm_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class Storage>
struct backward {
    using problem = add_norm_problem<Storage>;

    template <class Exec>
    static void run(const problem& p, workspace memory, Exec&& exec)
    {
        add_norm_backward(p.backward_args(), memory, exec);
    }

    template <class P>
    static void reference(const P& p)
    {
        ssmkit::reference::add_norm_backward(p.backward_args());
    }

    static std::size_t workspace_size(const problem& p, std::size_t concurrency)
    {
        return add_norm_backward_workspace_size(p.backward_args(), concurrency);
    }

    template <class P>
    static auto outputs(const P& p)
    {
        return std::tie(p.dx, p.dresidual, p.dweight, p.dbias);
    }
};

using f32 = add_norm_storage<float>;
using f64 = add_norm_storage<double>;
using bf16 = add_norm_storage<bfloat16>;
using f16 = add_norm_storage<float16>;
using bf16_throughout = add_norm_storage<bfloat16, bfloat16>;

TEST_CASE("add_norm_backward: the reference is the derivative of the reference")
{
    for (unsigned bits = 0; bits < 1u << norm_setup::options; ++bits) {
        norm_setup s{.batch = 2, .length = 3, .dim = 6};
        s = s.with_options(bits);
        CAPTURE(s.text());
        add_norm_problem<f64> p(s);
        reference::add_norm(p.args());
        auto gradients = p.backward_args();
        const tensor<double, 3> sum = p.residual_out.given() ? p.residual_out.as<double>() : p.x.as<double>();
        if (p.residual.given() && !p.residual_out.given()) {
            for_each_index(sum.view(), [&](auto... i) { sum(i...) += p.residual(i...); });
        }
        gradients.residual_out = sum;
        reference::add_norm_backward(gradients);
        const auto loss = [&] {
            reference::add_norm(p.args());
            double total = 0;
            for_each_index(p.y.view(), [&](auto... i) { total += p.y(i...) * p.dy(i...); });
            if (p.residual_out.given()) {
                for_each_index(p.y.view(), [&](auto... i) { total += p.residual_out(i...) * p.dresidual_out(i...); });
            }
            return total;
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
        check(p.residual, p.dresidual);
        check(p.weight, p.dweight);
        check(p.bias, p.dbias);
    }
}

TEMPLATE_TEST_CASE("add_norm_backward: agrees with the reference, whatever is switched on", "", f32, f64, bf16, f16,
                   bf16_throughout)
{
    agrees_with_the_reference<backward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm_backward: every number of tokens and channels, none included", "", f32, f64, bf16)
{
    holds_for_every_size<backward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm_backward: a NaN reaches what depends on it, and nothing else", "", f32, f64, bf16)
{
    nan_goes_where_it_belongs<backward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm_backward: threads and workspace do not change a bit", "", f32, f64, bf16_throughout)
{
    threads_and_workspace_change_nothing<backward<TestType>>();
}

TEST_CASE("add_norm_backward: takes nothing from the heap when it is lent a workspace")
{
    takes_nothing_from_the_heap<backward<f32>>();
    takes_nothing_from_the_heap<backward<bf16>>();
}

TEMPLATE_TEST_CASE("add_norm_backward: touches nothing outside its arguments", "", f32, f64, f16)
{
    touches_nothing_outside<backward<TestType>>();
}

TEST_CASE("add_norm_backward: gradients that are not asked for are not written, the others stay the same")
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        const norm_setup s{.dim = 21, .norm_before_gate = true, .bias = true, .inputs = form, .outputs = form};
        const add_norm_problem<f32> all(s);
        add_norm_backward(all.backward_args());
        for (unsigned bits = 0; bits < 16; ++bits) {
            CAPTURE(bits);
            const add_norm_problem<f32> p(s);
            auto a = p.backward_args();
            if (!(bits & 1)) a.dx = {};
            if (!(bits & 2)) a.dresidual = {};
            if (!(bits & 4)) a.dweight = {};
            if (!(bits & 8)) a.dbias = {};
            add_norm_backward(a);
            const add_norm_problem<f32> untouched(s);
            CHECK(same_bits(p.dx, bits & 1 ? all.dx : untouched.dx));
            CHECK(same_bits(p.dresidual, bits & 2 ? all.dresidual : untouched.dresidual));
            CHECK(same_bits(p.dweight, bits & 4 ? all.dweight : untouched.dweight));
            CHECK(same_bits(p.dbias, bits & 8 ? all.dbias : untouched.dbias));
        }
    }
}

TEST_CASE("add_norm_backward: a mistake is named before anything is written")
{
    const add_norm_problem<f32> p(norm_setup{.batch = 2, .length = 3, .dim = 6, .norm_before_gate = true});
    using args = add_norm_backward_args<float>;
    const auto message = [&](auto&& spoil) {
        args a = p.backward_args();
        spoil(a);
        return message_of([&] { add_norm_backward(a); });
    };
    const std::vector<float> other(1000);
    CHECK(message([&](args& a) { a.dy = {other, 2, 3, 5}; }) ==
          "add_norm_backward: dy has shape (2, 3, 5), expected (batch = 2, length = 3, dim = 6)");
    CHECK(message([&](args& a) { a.dresidual_out = {other, 2, 3, 5}; }) ==
          "add_norm_backward: dresidual_out has shape (2, 3, 5), expected (batch = 2, length = 3, dim = 6)");
    CHECK(message([&](args& a) { a.weight = {other, 5}; }) ==
          "add_norm_backward: weight has shape (5), expected (dim = 6)");
    CHECK(message([&](args& a) { a.dresidual = a.dx; }) == "add_norm_backward: dresidual overlaps dx in memory");
    CHECK(message([&](args& a) { a.residual_out = a.dx; }) == "add_norm_backward: dx overlaps residual_out in memory");
    for_each_index(p.dx.view(), [&](auto... i) { CHECK(std::isnan(p.dx(i...))); });
    for_each_index(p.dweight.view(), [&](auto... i) { CHECK(std::isnan(p.dweight(i...))); });
}

}  // namespace
}  // namespace ssmkit::testing
