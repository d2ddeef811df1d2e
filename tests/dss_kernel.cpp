#include <ssmkit/dss_kernel.hpp>

#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/reference/dss_kernel.hpp>

#include "catch.hpp"
#include "dss_problem.hpp"
#include "resource_checks.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, const dss_options& o = {})
{
    INFO(s.text() << o.text());
    const dss_problem<T> p(s, o);
    const auto expected = p.wide();
    dss_kernel(p.args());
    reference::dss_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= 2 * kernel_budget<T>);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("dss_kernel: a pole by hand")
{
    // z = -ln 2, A = -1: softmax over 2 taps (1, 1/2) / (1.5 A); where it grows, the same from the other end.
    const double delta[] = {std::log(2.0), 0};
    complex_double A(-1);
    const complex_double W(3);
    double K[2];
    dss_kernel_args<double> a{.delta = {delta, 1, 2}, .A = {&A, 1}, .W = {&W, 1, 1, 1}, .epsilon = 0, .K = {K, 1, 1, 2}};
    const auto gives = [&](double first, double second) {
        for (const bool plain : {false, true}) {
            plain ? reference::dss_kernel(a) : dss_kernel(a);
            CHECK(std::abs(K[0] - first) < 1e-12);
            CHECK(std::abs(K[1] - second) < 1e-12);
        }
    };
    gives(-2, -1);  // (1/2 - 1) / (A (1/4 - 1))
    a.scaling = dss_scaling::exponential;
    gives(1.5, 0.75);
    a.scaling = dss_scaling::none;
    gives(3, 1.5);
    A = 1;
    gives(3, 6);
    a.scaling = dss_scaling::softmax;
    gives(1, 2);
}

TEMPLATE_TEST_CASE("dss_kernel: agrees with the reference, whatever is switched on", "", float, double)
{
    for (const dss_options& o : all_dss_options()) {
        compare<TestType>({.state = 9, .length = 70}, o);
        for (const layout form : all_layouts) compare<TestType>({.state = 19, .length = 33, .inputs = form, .outputs = form}, o);
    }
}

TEMPLATE_TEST_CASE("dss_kernel: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) {
        if (length > 1) compare<TestType>({.dim = 2, .length = length}, {.growing = length % 2 == 0});
    }
    for (const index state : kernel_states) {
        if (state > 0) compare<TestType>({.state = state, .length = 90}, {.scaling = dss_scaling::exponential});
    }
    compare<TestType>({.channels = 0});
    compare<TestType>({.length = 1});
    for (const guard edge : {guard::below, guard::above})
        compare<TestType>({.state = 17, .length = 65, .edge = edge}, {.growing = true});
    compare<TestType>({.dim = 0});
    compare<TestType>({.state = 0});
}

TEMPLATE_TEST_CASE("dss_kernel: a NaN reaches exactly what depends on it", "", float, double)
{
    for (const auto scaling : {dss_scaling::softmax, dss_scaling::exponential, dss_scaling::none}) {
        for (index what = 0; what < 3; ++what) {
            const dss_problem<TestType> p({.state = 19, .length = 90}, {.scaling = scaling});
            if (what == 0) p.delta(1, 1) = quiet_nan<double>();
            if (what == 1) p.A(18) = quiet_nan<complex_double>();
            if (what == 2) p.W(1, 2, 16) = quiet_nan<std::complex<TestType>>();
            INFO(what << p.o.text());
            const auto expected = p.wide();
            dss_kernel(p.args());
            reference::dss_kernel(expected.args());
            CHECK(same_nans(p.K, expected.K));
        }
    }
}

TEMPLATE_TEST_CASE("dss_kernel: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return dss_problem<TestType>({.dim = 6, .state = 19, .length = 1200}, {.growing = true}); }, [](const auto& p, auto&&... how) { dss_kernel(p.args(), how...); },
                    [](const auto& p) { return dss_kernel_workspace_size(p.args()); },
                    [](const auto& a, const auto& b) { return same_bits(a.K, b.K); });
}

TEST_CASE("dss_kernel: names the argument that does not fit")
{
    const dss_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { dss_kernel(a); }).find(std::string("dss_kernel: ") + text) == 0);
    };
    named("delta has shape", [](auto& a) { a.delta = a.delta.slice(1, 0, 1); });
    named("A has shape", [](auto& a) { a.A = a.A.slice(0, 0, 1); });
    named("K has shape", [](auto& a) { a.K = a.K.slice(1, 0, 1); });
    // Within K, as in the other tests: an output laid over a smaller input could reach into what lies behind that.
    named("K overlaps W", [](auto& a) { a.W = {reinterpret_cast<std::complex<float>*>(a.K.data()), a.W.extents()}; });
}

TEST_CASE("dss_kernel: without a gain the first tap depends on no pole, NaN or not")
{
    for (const index length : {1, 2}) {
        const dss_problem<float> p({.state = 19, .length = length}, {.scaling = dss_scaling::none});
        p.A(18) = quiet_nan<complex_double>();
        const auto expected = p.wide();
        dss_kernel(p.args());
        reference::dss_kernel(expected.args());
        CHECK(!is_nan(p.K(0, 0, 0)));
        CHECK(same_nans(p.K, expected.K));
    }
}

}  // namespace ssmkit::testing
