#include <ssmkit/vandermonde_backward.hpp>

#include <string>

#include <ssmkit/reference/vandermonde.hpp>
#include <ssmkit/reference/vandermonde_backward.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"
#include "resource_checks.hpp"
#include "vandermonde_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, bool pairs = true)
{
    INFO(s.text());
    const vandermonde_problem<T> p(s, pairs);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    vandermonde_backward(p.backward_args());
    reference::vandermonde_backward(expected.backward_args());
    CHECK(relative_error(p.dw, expected.dw) <= gradient_budget<T>);
    CHECK(relative_error(p.dlog_pole, expected.dlog_pole) <= gradient_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("vandermonde_backward: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) compare<TestType>({.length = length});
    for (const index state : kernel_states) compare<TestType>({.state = state, .length = 150}, state % 2 == 0);
    compare<TestType>({.channels = 0});
    compare<TestType>({.dim = 0});
    compare<TestType>({.channels = 5, .dim = 1, .state = 70, .length = 1100});
}

TEMPLATE_TEST_CASE("vandermonde_backward: agrees with the reference in any layout", "", float, double)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.state = 19, .length = 1090, .inputs = inputs, .outputs = outputs});
        }
    }
}

TEMPLATE_TEST_CASE("vandermonde_backward: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 7, 16, 17, 33}) {
            compare<TestType>({.state = n, .length = 65, .edge = edge});
            compare<TestType>({.state = 3, .length = n, .edge = edge});
        }
    }
}

TEST_CASE("vandermonde_backward: the reference's gradients are those of finite differences")
{
    for (const bool pairs : {false, true}) {
        const vandermonde_problem<double> p({.state = 3, .length = 20}, pairs);
        reference::vandermonde_backward(p.backward_args());
        const auto loss = [&] {
            reference::vandermonde(p.args());
            return inner_product(p.K, p.dK);
        };
        CHECK(gradient_error(p.log_pole, p.dlog_pole, loss) < 1e-6);
        CHECK(gradient_error(p.w, p.dw, loss) < 1e-9);
    }
}

TEMPLATE_TEST_CASE("vandermonde_backward: a NaN reaches exactly what depends on it", "", float, double)
{
    for (index what = 0; what < 3; ++what) {
        const vandermonde_problem<TestType> p({.state = 19, .length = 90});
        if (what == 0) p.log_pole(1, 7) = quiet_nan<complex_double>();
        if (what == 1) p.w(1, 2, 18) = quiet_nan<std::complex<TestType>>();
        if (what == 2) p.dK(0, 1, 64) = quiet_nan<TestType>();
        const auto expected = p.wide();
        vandermonde_backward(p.backward_args());
        reference::vandermonde_backward(expected.backward_args());
        CHECK(same_nans(p.dw, expected.dw));
        CHECK(same_nans(p.dlog_pole, expected.dlog_pole));
    }
}

TEMPLATE_TEST_CASE("vandermonde_backward: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return vandermonde_problem<TestType>({.dim = 7, .state = 19, .length = 1200}); }, [](const auto& p, auto&&... how) { vandermonde_backward(p.backward_args(), how...); },
                    [](const auto& p) { return vandermonde_backward_workspace_size(p.backward_args()); },
                    [](const auto& a, const auto& b) { return same_bits(a.dw, b.dw) && same_bits(a.dlog_pole, b.dlog_pole); });
}

TEST_CASE("vandermonde_backward: gradients that are not asked for change nothing")
{
    const diagonal_setup s{.length = 100};
    const vandermonde_problem<float> all(s), poles(s), weights(s);
    vandermonde_backward(all.backward_args());
    auto a = poles.backward_args();
    a.dw = {};
    vandermonde_backward(a);
    CHECK(same_bits(poles.dlog_pole, all.dlog_pole));
    a = weights.backward_args();
    a.dlog_pole = {};
    vandermonde_backward(a);
    CHECK(same_bits(weights.dw, all.dw));
}

TEST_CASE("vandermonde_backward: names the argument that does not fit")
{
    const vandermonde_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { vandermonde_backward(a); }).find(std::string("vandermonde_backward: ") + text) == 0);
    };
    named("w has shape", [](auto& a) { a.forward.w = a.forward.w.slice(0, 0, 1); });
    named("dK has shape", [](auto& a) { a.dK = a.dK.slice(1, 0, 1); });
    named("dw has shape", [](auto& a) { a.dw = a.dw.slice(1, 0, 1); });
    named("dlog_pole has shape", [](auto& a) { a.dlog_pole = a.dlog_pole.slice(1, 0, 1); });
    named("dlog_pole is written but", [](auto& a) { a.dlog_pole = {a.dlog_pole.data(), a.dlog_pole.extents(), {0, 1}}; });
    named("dw overlaps w", [&](auto& a) { a.dw = p.w; });
}

}  // namespace ssmkit::testing
