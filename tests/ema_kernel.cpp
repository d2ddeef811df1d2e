#include <ssmkit/ema_kernel.hpp>

#include <cmath>
#include <string>
#include <vector>

#include <ssmkit/reference/ema_kernel.hpp>

#include "catch.hpp"
#include "ema_problem.hpp"
#include "resource_checks.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, double logits = 3)
{
    INFO(s.text());
    const ema_problem<T> p(s, logits);
    const auto expected = p.wide();
    ema_kernel(p.args());
    reference::ema_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= kernel_budget<T>);
    CHECK(p.K.gaps_untouched());
}

}  // namespace

TEST_CASE("ema_kernel: a component by hand")
{
    // p = σ(0) = 1/2, q = 1 - 1/4.
    const double zero = 0, beta = 4, gamma = 3;
    double K[3];
    const ema_kernel_args<double> a{.delta = {&zero, 1, 1}, .alpha = {&zero, 1, 1}, .beta = {&beta, 1, 1}, .gamma = {&gamma, 1, 1},
                                    .K = {K, 1, 3}};
    for (const bool plain : {false, true}) {
        plain ? reference::ema_kernel(a) : ema_kernel(a);
        CHECK(std::abs(K[0] - 6) < 1e-14);
        CHECK(std::abs(K[1] - 4.5) < 1e-14);
        CHECK(std::abs(K[2] - 3.375) < 1e-14);
    }
}

TEMPLATE_TEST_CASE("ema_kernel: agrees with the reference, whatever the sizes and layouts", "", float, double)
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

TEST_CASE("ema_kernel: slow decays keep their digits over many steps")
{
    // p σ(α) = 3e-9: a q rounded to float is 1, and one rounded to double is off by 1e-8 of its distance from 1.
    const float delta = -19.6f, alpha = 0, beta = 1, gamma = 1;
    std::vector<float> K(50000);
    ema_kernel(ema_kernel_args<float>{
        .delta = {&delta, 1, 1}, .alpha = {&alpha, 1, 1}, .beta = {&beta, 1, 1}, .gamma = {&gamma, 1, 1}, .K = {K, 1, 50000}});
    const double p = 1 / (1 + std::exp(19.6f * 1.0)), log_q = std::log1p(-p / 2);
    for (std::size_t l = 0; l < K.size(); l += 999)
        CHECK(std::abs(static_cast<double>(K[l]) / (p * std::exp(static_cast<double>(l) * log_q)) - 1) < 1e-6);
}

TEST_CASE("ema_kernel: a NaN reaches exactly what depends on it")
{
    for (auto what : {0, 1, 2, 3}) {
        const ema_problem<float> p({.state = 19, .length = 90});
        p.parameters[what](1, 17) = quiet_nan<float>();
        const auto expected = p.wide();
        ema_kernel(p.args());
        reference::ema_kernel(expected.args());
        CHECK(same_nans(p.K, expected.K));
    }
}

TEMPLATE_TEST_CASE("ema_kernel: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return ema_problem<TestType>({.dim = 6, .state = 19, .length = 1200}); }, [](const auto& p, auto&&... how) { ema_kernel(p.args(), how...); },
                    [](const auto& p) { return ema_kernel_workspace_size(p.args()); },
                    [](const auto& a, const auto& b) { return same_bits(a.K, b.K); });
}

TEST_CASE("ema_kernel: names the argument that does not fit")
{
    const ema_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { ema_kernel(a); }).find(std::string("ema_kernel: ") + text) == 0);
    };
    named("alpha has shape", [](auto& a) { a.alpha = a.alpha.slice(1, 0, 1); });
    named("beta has shape", [](auto& a) { a.beta = a.beta.slice(0, 0, 1); });
    named("gamma has shape", [](auto& a) { a.gamma = a.gamma.slice(0, 0, 1); });
    named("K has shape", [](auto& a) { a.K = a.K.slice(0, 0, 1); });
    // Within K, which is larger: laid over beta, K would reach into whatever lies behind that.
    named("K overlaps beta", [](auto& a) { a.beta = {a.K.data(), a.beta.extents()}; });
}

}  // namespace ssmkit::testing
