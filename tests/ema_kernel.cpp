#include <ssmkit/ema_kernel.hpp>

#include <cmath>

#include <ssmkit/ema_kernel_backward.hpp>
#include <ssmkit/reference/ema_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct ema_problem {
    diagonal_setup s;
    tensor<T, 2> parameters[4], gradients[4], K, dK;  // delta, alpha, beta, gamma

    explicit ema_problem(const diagonal_setup& setup, double logits = 3) : s(setup)
    {
        random numbers(s.seed);
        for (index i = 0; i < 4; ++i) {
            parameters[i] = s.input<T, 2>(numbers, {s.dim, s.state}, i < 2 ? range{-logits, logits} : range{0.5, 1.5});
            gradients[i] = s.output<T, 2>({s.dim, s.state});
        }
        dK = s.input<T, 2>(numbers, {s.dim, s.length}, {-1, 1});
        K = s.output<T, 2>({s.dim, s.length});
    }

    ema_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        ema_problem<double> p(plain);
        for (index i = 0; i < 4; ++i) p.parameters[i] = parameters[i].template as<double>();
        p.dK = dK.template as<double>();
        return p;
    }

    ema_kernel_args<T> args() const
    {
        return {.delta = parameters[0], .alpha = parameters[1], .beta = parameters[2], .gamma = parameters[3], .K = K};
    }
    ema_kernel_backward_args<T> backward_args() const
    {
        ema_kernel_backward_args<T> a{.forward = args(),
                                      .dK = dK,
                                      .ddelta = gradients[0],
                                      .dalpha = gradients[1],
                                      .dbeta = gradients[2],
                                      .dgamma = gradients[3]};
        a.forward.K = {};
        return a;
    }
    void run() const
    {
        ema_kernel(args());
        ema_kernel_backward(backward_args());
    }
    void run_reference() const
    {
        reference::ema_kernel(args());
        reference::ema_kernel_backward(backward_args());
    }
    template <class U>
    bool same(const ema_problem<U>& other) const
    {
        bool result = same_bits(K, other.K);
        for (index i = 0; i < 4; ++i) result &= same_bits(gradients[i], other.gradients[i]);
        return result;
    }
};

template <class T>
void compare(const diagonal_setup& s, double logits = 3)
{
    INFO(s.text());
    const ema_problem<T> p(s, logits);
    const auto expected = p.wide();
    p.run();
    expected.run_reference();
    CHECK(relative_error(p.K, expected.K) <= kernel_budget<T>);
    CHECK(p.K.gaps_untouched());
    for (index i = 0; i < 4; ++i) {
        CHECK(relative_error(p.gradients[i], expected.gradients[i]) <= gradient_budget<T>);
        CHECK(p.gradients[i].gaps_untouched());
    }
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

TEST_CASE("ema_kernel: the reference's gradients are those of finite differences")
{
    const ema_problem<double> p({.state = 3, .length = 20});
    p.run_reference();
    const auto loss = [&] {
        reference::ema_kernel(p.args());
        double sum = 0;
        for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
        return sum;
    };
    for (index which = 0; which < 4; ++which) {
        for_each_index(p.parameters[which].view(), [&](auto... i) {
            double& x = p.parameters[which](i...);
            const double here = x;
            x = here + 1e-5;
            const double above = loss();
            x = here - 1e-5;
            const double slope = (above - loss()) / 2e-5;
            x = here;
            REQUIRE(std::abs(slope - p.gradients[which](i...)) <= 1e-7 * (1 + std::abs(slope)));
        });
    }
}

TEST_CASE("ema_kernel: a NaN reaches exactly what depends on it")
{
    for (index what = 0; what < 5; ++what) {
        const ema_problem<float> p({.state = 19, .length = 90});
        what < 4 ? p.parameters[what](1, 17) = quiet_nan<float>() : p.dK(2, 70) = quiet_nan<float>();
        const auto expected = p.wide();
        p.run();
        expected.run_reference();
        CHECK(same_nans(p.K, expected.K));
        for (index i = 0; i < 4; ++i) CHECK(same_nans(p.gradients[i], expected.gradients[i]));
    }
}

TEST_CASE("ema_kernel: neither threads nor the workspace's content change a bit")
{
    threads pool(3);
    const diagonal_setup s{.dim = 6, .state = 19, .length = 1200};
    const ema_problem<float> one(s), several(s);
    one.run();
    ema_kernel(several.args(), pool);
    ema_kernel_backward(several.backward_args(), pool);
    CHECK(one.same(several));
    for (const int pattern : {0xff, 0}) {
        const ema_problem<float> p(s);
        const poisoned_workspace forward(ema_kernel_workspace_size(p.args()), pattern),
            backward(ema_kernel_backward_workspace_size(p.backward_args()), pattern);
        CHECK(allocations_during([&] {
                  ema_kernel(p.args(), forward);
                  ema_kernel_backward(p.backward_args(), backward);
              }) == 0);
        CHECK(one.same(p));
    }
}

TEST_CASE("ema_kernel: names the argument that does not fit")
{
    const ema_problem<float> p({});
    const auto forward = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { ema_kernel(a); }).find(std::string("ema_kernel: ") + text) == 0);
    };
    forward("alpha has shape", [](auto& a) { a.alpha = a.alpha.slice(1, 0, 1); });
    forward("beta has shape", [](auto& a) { a.beta = a.beta.slice(0, 0, 1); });
    forward("gamma has shape", [](auto& a) { a.gamma = a.gamma.slice(0, 0, 1); });
    forward("K has shape", [](auto& a) { a.K = a.K.slice(0, 0, 1); });
    // Within K, which is larger: laid over beta, K would reach into whatever lies behind that.
    forward("K overlaps beta", [](auto& a) { a.beta = {a.K.data(), a.beta.extents()}; });
    const auto backward = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { ema_kernel_backward(a); }).find(std::string("ema_kernel_backward: ") + text) == 0);
    };
    backward("dK has shape", [](auto& a) { a.dK = a.dK.slice(0, 0, 1); });
    backward("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 1); });
    backward("dgamma has shape", [](auto& a) { a.dgamma = a.dgamma.slice(1, 0, 1); });
    backward("dbeta is written but", [](auto& a) { a.dbeta = {a.dbeta.data(), a.dbeta.extents(), {0, 1}}; });
    backward("dbeta overlaps dalpha", [](auto& a) { a.dbeta = a.dalpha; });
}

TEST_CASE("ema_kernel_backward: a single tap does not depend on the decay, NaN or not")
{
    const ema_problem<float> p({.state = 19, .length = 1});
    p.parameters[1](1, 17) = quiet_nan<float>();  // alpha
    const auto expected = p.wide();
    p.run();
    expected.run_reference();
    CHECK(is_nan(p.gradients[1](1, 17)));
    CHECK(!is_nan(p.gradients[2](1, 17)));
    for (index i = 0; i < 4; ++i) CHECK(same_nans(p.gradients[i], expected.gradients[i]));
}

}  // namespace ssmkit::testing
