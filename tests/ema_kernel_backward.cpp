#include <ssmkit/ema_kernel_backward.hpp>

#include <string>

#include <ssmkit/reference/ema_kernel.hpp>
#include <ssmkit/reference/ema_kernel_backward.hpp>

#include "catch.hpp"
#include "ema_problem.hpp"
#include "finite_differences.hpp"
#include "resource_checks.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, double logits = 3)
{
    INFO(s.text());
    const ema_problem<T> p(s, logits);
    const auto expected = p.wide();
    ema_kernel_backward(p.backward_args());
    reference::ema_kernel_backward(expected.backward_args());
    for (index i = 0; i < 4; ++i) {
        CHECK(relative_error(p.gradients[i], expected.gradients[i]) <= gradient_budget<T>);
        CHECK(p.gradients[i].gaps_untouched());
    }
}

template <class T>
bool same_gradients(const ema_problem<T>& a, const ema_problem<T>& b)
{
    bool same = true;
    for (index i = 0; i < 4; ++i) same &= same_bits(a.gradients[i], b.gradients[i]);
    return same;
}

}  // namespace

TEMPLATE_TEST_CASE("ema_kernel_backward: agrees with the reference, whatever the sizes and layouts", "", float, double)
{
    for (const index length : kernel_lengths) compare<TestType>({.length = length});
    for (const index state : kernel_states) {
        if (state > 0) compare<TestType>({.state = state, .length = 150});
    }
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts)
            compare<TestType>({.state = 19, .length = 90, .inputs = inputs, .outputs = outputs});
    }
    for (const guard edge : {guard::below, guard::above}) compare<TestType>({.state = 17, .length = 65, .edge = edge});
    compare<TestType>({.dim = 0});
    compare<TestType>({.length = 70}, 40);  // logits at which σ is 0 or 1
}

TEST_CASE("ema_kernel_backward: the reference's gradients are those of finite differences")
{
    const ema_problem<double> p({.state = 3, .length = 20});
    reference::ema_kernel_backward(p.backward_args());
    const auto loss = [&] {
        reference::ema_kernel(p.args());
        return inner_product(p.K, p.dK);
    };
    for (index i = 0; i < 4; ++i) CHECK(gradient_error(p.parameters[i], p.gradients[i], loss) < 1e-9);
}

TEST_CASE("ema_kernel_backward: a NaN reaches exactly what depends on it")
{
    for (index what = 0; what < 5; ++what) {
        const ema_problem<float> p({.state = 19, .length = 90});
        what < 4 ? p.parameters[what](1, 17) = quiet_nan<float>() : p.dK(2, 70) = quiet_nan<float>();
        const auto expected = p.wide();
        ema_kernel_backward(p.backward_args());
        reference::ema_kernel_backward(expected.backward_args());
        for (index i = 0; i < 4; ++i) CHECK(same_nans(p.gradients[i], expected.gradients[i]));
    }
}

TEMPLATE_TEST_CASE("ema_kernel_backward: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return ema_problem<TestType>({.dim = 6, .state = 19, .length = 1200}); }, [](const auto& p, auto&&... how) { ema_kernel_backward(p.backward_args(), how...); },
                    [](const auto& p) { return ema_kernel_backward_workspace_size(p.backward_args()); },
                    [](const auto& a, const auto& b) { return same_gradients(a, b); });
}

TEST_CASE("ema_kernel_backward: gradients that are not asked for change nothing")
{
    const ema_problem<float> all({});
    ema_kernel_backward(all.backward_args());
    for (index i = 0; i < 4; ++i) {
        const ema_problem<float> p({});
        const auto a = p.backward_args();
        ema_kernel_backward_args<float> only{.forward = a.forward, .dK = a.dK};
        (i == 0 ? only.ddelta : i == 1 ? only.dalpha : i == 2 ? only.dbeta : only.dgamma) = p.gradients[i];
        ema_kernel_backward(only);
        CHECK(same_bits(p.gradients[i], all.gradients[i]));
    }
}

TEST_CASE("ema_kernel_backward: names the argument that does not fit")
{
    const ema_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { ema_kernel_backward(a); }).find(std::string("ema_kernel_backward: ") + text) == 0);
    };
    named("dK has shape", [](auto& a) { a.dK = a.dK.slice(0, 0, 1); });
    named("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 1); });
    named("dgamma has shape", [](auto& a) { a.dgamma = a.dgamma.slice(1, 0, 1); });
    named("dbeta is written but", [](auto& a) { a.dbeta = {a.dbeta.data(), a.dbeta.extents(), {0, 1}}; });
    named("dbeta overlaps dalpha", [](auto& a) { a.dbeta = a.dalpha; });
}

TEST_CASE("ema_kernel_backward: a single tap does not depend on the decay, NaN or not")
{
    const ema_problem<float> p({.state = 19, .length = 1});
    p.parameters[1](1, 17) = quiet_nan<float>();  // alpha
    const auto expected = p.wide();
    ema_kernel_backward(p.backward_args());
    reference::ema_kernel_backward(expected.backward_args());
    CHECK(is_nan(p.gradients[1](1, 17)));
    CHECK(!is_nan(p.gradients[2](1, 17)));
    for (index i = 0; i < 4; ++i) CHECK(same_nans(p.gradients[i], expected.gradients[i]));
}

}  // namespace ssmkit::testing
