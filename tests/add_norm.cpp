#include <ssmkit/add_norm.hpp>

#include <ssmkit/reference/add_norm.hpp>

#include "norm_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class Storage>
struct forward {
    using problem = add_norm_problem<Storage>;

    template <class Exec>
    static void run(const problem& p, workspace memory, Exec&& exec)
    {
        add_norm(p.args(), memory, exec);
    }

    template <class P>
    static void reference(const P& p)
    {
        ssmkit::reference::add_norm(p.args());
    }

    static std::size_t workspace_size(const problem& p, std::size_t concurrency)
    {
        return add_norm_workspace_size(p.args(), concurrency);
    }

    template <class P>
    static auto outputs(const P& p)
    {
        return std::tie(p.y, p.residual_out);
    }
};

using f32 = add_norm_storage<float>;
using f64 = add_norm_storage<double>;
using bf16 = add_norm_storage<bfloat16>;
using f16 = add_norm_storage<float16>;
using bf16_throughout = add_norm_storage<bfloat16, bfloat16>;

TEMPLATE_TEST_CASE("add_norm: agrees with the reference, whatever is switched on", "", f32, f64, bf16, f16, bf16_throughout)
{
    agrees_with_the_reference<forward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm: every number of tokens and channels, none included", "", f32, f64, bf16, bf16_throughout)
{
    holds_for_every_size<forward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm: a NaN reaches the token that it is in, and nothing else", "", f32, f64, bf16)
{
    nan_goes_where_it_belongs<forward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm: squares neither overflow nor vanish", "", f32, f64)
{
    holds_for_huge_and_tiny_values<forward<TestType>>();
}

TEST_CASE("add_norm: a large mean costs the layer form nothing")
{
    layer_form_survives_a_large_mean<forward<f32>>();
}

TEMPLATE_TEST_CASE("add_norm: threads and workspace do not change a bit", "", f32, f64, bf16_throughout)
{
    threads_and_workspace_change_nothing<forward<TestType>>();
}

TEST_CASE("add_norm: takes nothing from the heap when it is lent a workspace")
{
    takes_nothing_from_the_heap<forward<f32>>();
    takes_nothing_from_the_heap<forward<bf16>>();
}

TEMPLATE_TEST_CASE("add_norm: touches nothing outside its arguments", "", f32, f64, f16)
{
    touches_nothing_outside<forward<TestType>>();
}

TEMPLATE_TEST_CASE("add_norm: the residual can be updated in place", "", f32, bf16, bf16_throughout)
{
    for (const layout form : all_layouts) {
        norm_setup s{.dim = 37, .second = true, .norm_before_gate = true, .inputs = form, .outputs = form};
        s.spread = 1e20;  // the squares of bfloat16 and float overflow: the sum must not be taken twice
        const add_norm_problem<TestType> apart(s), together(s);
        add_norm(apart.args());
        auto a = together.args();
        a.residual_out = together.residual;
        add_norm(a);
        CHECK(same_bits(together.y, apart.y));
        CHECK(same_bits(together.residual, apart.residual_out));
    }
}

TEMPLATE_TEST_CASE("add_norm: y does not depend on whether residual_out is asked for", "", f32, bf16, bf16_throughout)
{
    norm_setup s{.dim = 37, .second = true, .norm_before_gate = true};
    const add_norm_problem<TestType> with(s), without(s);
    add_norm(with.args());
    auto a = without.args();
    a.residual_out = {};
    add_norm(a);
    CHECK(same_bits(with.y, without.y));
}

TEST_CASE("add_norm: a mistake is named before anything is written")
{
    const add_norm_problem<f32> p(
        norm_setup{.batch = 2, .length = 3, .dim = 6, .second = true, .norm_before_gate = true, .bias = true});
    using args = add_norm_args<float>;
    const auto message = [&](auto&& spoil) {
        args a = p.args();
        spoil(a);
        return message_of([&] { add_norm(a); });
    };
    std::vector<float> other(1000);
    CHECK(message([&](args& a) { a.residual = {other, 2, 3, 5}; }) ==
          "add_norm: residual has shape (2, 3, 5), expected (batch = 2, length = 3, dim = 6)");
    CHECK(message([&](args& a) { a.residual_out = {other, 1, 3, 6}; }) ==
          "add_norm: residual_out has shape (1, 3, 6), expected (batch = 2, length = 3, dim = 6)");
    CHECK(message([&](args& a) { a.weight = {}; }) == "add_norm: weight has shape (0), expected (dim = 6)");
    CHECK(message([&](args& a) { a.eps = -1; }) == "add_norm: eps is not a number >= 0");
    CHECK(message([&](args& a) { a.residual_out = a.y; }) == "add_norm: residual_out overlaps y in memory");
    CHECK(message([&](args& a) { a.residual = a.y; }) == "add_norm: y overlaps residual in memory");
    CHECK(message([&](args& a) { a.residual_out = {const_cast<float*>(a.x.data()), 2, 3, 6}; }) ==
          "add_norm: residual_out overlaps x in memory");
    // In place, but not each element in its own place.
    CHECK(message([&](args& a) { a.residual = view<const float, 3>(a.residual_out).reversed(1); }) ==
          "add_norm: residual_out overlaps residual in memory");
    for_each_index(p.y.view(), [&](auto... i) { CHECK(std::isnan(p.y(i...))); });
}

}  // namespace
}  // namespace ssmkit::testing
