#include <ssmkit/dss_kernel_backward.hpp>

#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/reference/dss_kernel.hpp>
#include <ssmkit/reference/dss_kernel_backward.hpp>

#include "catch.hpp"
#include "dss_problem.hpp"
#include "finite_differences.hpp"
#include "resource_checks.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, const dss_options& o = {})
{
    INFO(s.text() << o.text());
    const dss_problem<T> p(s, o);
    const auto expected = p.wide();
    dss_kernel_backward(p.backward_args());
    reference::dss_kernel_backward(expected.backward_args());
    CHECK(relative_error(p.ddelta, expected.ddelta) <= 4 * gradient_budget<T>);
    CHECK(relative_error(p.dA, expected.dA) <= 4 * gradient_budget<T>);
    CHECK(relative_error(p.dW, expected.dW) <= 4 * gradient_budget<T>);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("dss_kernel_backward: the reference's gradients are those of finite differences")
{
    for (const dss_options& o : all_dss_options()) {
        const dss_problem<double> p({.dim = 2, .state = 3, .length = 12}, o);
        INFO(o.text());
        reference::dss_kernel_backward(p.backward_args());
        const auto loss = [&] {
            reference::dss_kernel(p.args());
            return inner_product(p.K, p.dK);
        };
        if (!o.one_step) CHECK(gradient_error(p.delta, p.ddelta, loss, 1e-4) < 1e-6);
        CHECK(gradient_error(p.A, p.dA, loss, 1e-4) < 1e-6);
        CHECK(gradient_error(p.W, p.dW, loss) < 1e-9);
    }
}

TEMPLATE_TEST_CASE("dss_kernel_backward: agrees with the reference, whatever is switched on", "", float, double)
{
    for (const dss_options& o : all_dss_options()) {
        compare<TestType>({.state = 9, .length = 70}, o);
        for (const layout form : all_layouts) compare<TestType>({.state = 19, .length = 33, .inputs = form, .outputs = form}, o);
    }
}

TEMPLATE_TEST_CASE("dss_kernel_backward: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) {
        if (length > 1) compare<TestType>({.dim = 2, .length = length}, {.growing = length % 2 == 0});
    }
    for (const index state : kernel_states) {
        if (state > 0) compare<TestType>({.state = state, .length = 90}, {.scaling = dss_scaling::exponential});
    }
    compare<TestType>({.channels = 0});
    const dss_problem<TestType> one({.length = 1});  // nearly W / A: what remains of A's gradient is below rounding
    const auto expected = one.wide();
    dss_kernel_backward(one.backward_args());
    reference::dss_kernel_backward(expected.backward_args());
    CHECK(relative_error(one.dW, expected.dW) <= gradient_budget<TestType>);
    for (const guard edge : {guard::below, guard::above})
        compare<TestType>({.state = 17, .length = 65, .edge = edge}, {.growing = true});
    compare<TestType>({.dim = 0});
    const dss_problem<TestType> none({.length = 0});  // written: no tap has a gradient
    dss_kernel_backward(none.backward_args());
    for_each_index(none.dA.view(), [&](index n) { CHECK(std::abs(none.dA(n)) == 0); });
}

TEMPLATE_TEST_CASE("dss_kernel_backward: a NaN reaches exactly what depends on it", "", float, double)
{
    for (const auto scaling : {dss_scaling::softmax, dss_scaling::exponential, dss_scaling::none}) {
        for (index what = 0; what < 4; ++what) {
            const dss_problem<TestType> p({.state = 19, .length = 90}, {.scaling = scaling});
            if (what == 0) p.delta(1, 1) = quiet_nan<double>();
            if (what == 1) p.A(18) = quiet_nan<complex_double>();
            if (what == 2) p.W(1, 2, 16) = quiet_nan<std::complex<TestType>>();
            if (what == 3) p.dK(1, 2, 64) = quiet_nan<TestType>();
            INFO(what << p.o.text());
            const auto expected = p.wide();
            dss_kernel_backward(p.backward_args());
            reference::dss_kernel_backward(expected.backward_args());
            CHECK(same_nans(p.ddelta, expected.ddelta));
            CHECK(same_nans(p.dA, expected.dA));
            CHECK(same_nans(p.dW, expected.dW));
        }
    }
}

TEMPLATE_TEST_CASE("dss_kernel_backward: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return dss_problem<TestType>({.dim = 6, .state = 19, .length = 1200}, {.growing = true}); }, [](const auto& p, auto&&... how) { dss_kernel_backward(p.backward_args(), how...); },
                    [](const auto& p) { return dss_kernel_backward_workspace_size(p.backward_args()); },
                    [](const auto& a, const auto& b) { return same_bits(a.ddelta, b.ddelta) && same_bits(a.dA, b.dA) && same_bits(a.dW, b.dW); });
}

TEST_CASE("dss_kernel_backward: gradients that are not asked for change nothing")
{
    const dss_problem<float> all({});
    dss_kernel_backward(all.backward_args());
    for (unsigned wanted = 0; wanted < 8; ++wanted) {
        const dss_problem<float> p({});
        auto a = p.backward_args();
        if (!(wanted & 1u)) a.ddelta = {};
        if (!(wanted & 2u)) a.dA = {};
        if (!(wanted & 4u)) a.dW = {};
        dss_kernel_backward(a);
        if (wanted & 1u) CHECK(same_bits(p.ddelta, all.ddelta));
        if (wanted & 2u) CHECK(same_bits(p.dA, all.dA));
        if (wanted & 4u) CHECK(same_bits(p.dW, all.dW));
    }
}

TEST_CASE("dss_kernel_backward: names the argument that does not fit")
{
    const dss_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { dss_kernel_backward(a); }).find(std::string("dss_kernel_backward: ") + text) == 0);
    };
    named("dK has shape", [](auto& a) { a.dK = a.dK.slice(1, 0, 1); });
    named("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(1, 0, 1); });
    named("ddelta is written but", [](auto& a) { a.ddelta = {a.ddelta.data(), a.ddelta.extents(), {0, 1}}; });
    named("dA has shape", [](auto& a) { a.dA = a.dA.slice(0, 0, 1); });
    named("dW has shape", [](auto& a) { a.dW = a.dW.slice(0, 0, 1); });
    named("dW overlaps W", [&](auto& a) { a.dW = p.W; });
}

TEST_CASE("dss_kernel_backward: without a gain the first tap's weight depends on no pole, NaN or not")
{
    for (const index length : {1, 2}) {
        const dss_problem<float> p({.state = 19, .length = length}, {.scaling = dss_scaling::none});
        p.A(18) = quiet_nan<complex_double>();
        const auto expected = p.wide();
        dss_kernel_backward(p.backward_args());
        reference::dss_kernel_backward(expected.backward_args());
        CHECK(is_nan(p.dW(0, 0, 18)) == (length == 2));
        CHECK(same_nans(p.dW, expected.dW));
    }
}

}  // namespace ssmkit::testing
