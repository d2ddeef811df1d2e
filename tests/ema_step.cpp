#include <ssmkit/ema_step.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include <ssmkit/reference/ema_kernel.hpp>
#include <ssmkit/reference/ema_step.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct ema_step_problem {
    diagonal_setup s;
    tensor<T, 3> h, x, y;
    tensor<T, 2> decay, input, output;

    explicit ema_step_problem(const diagonal_setup& setup) : s(setup)
    {
        random numbers(s.seed);
        h = s.input<T, 3>(numbers, {s.batch, s.dim, s.state}, {-1, 1});
        decay = s.input<T, 2>(numbers, {s.dim, s.state}, {0, 0.95});
        input = s.input<T, 2>(numbers, {s.dim, s.state}, {-1, 1});
        output = s.input<T, 2>(numbers, {s.dim, s.state}, {-1, 1});
        x = s.input<T, 3>(numbers, {s.batch, s.length, s.dim}, {-1, 1});
        y = s.output<T, 3>({s.batch, s.length, s.dim});
    }

    ema_step_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        ema_step_problem<double> p(plain);
        p.h = h.template as<double>();
        p.decay = decay.template as<double>();
        p.input = input.template as<double>();
        p.output = output.template as<double>();
        p.x = x.template as<double>();
        return p;
    }

    ema_step_args<T> args() const { return {.h = h, .decay = decay, .input = input, .output = output, .x = x, .y = y}; }
};

template <class T>
void compare(const diagonal_setup& s)
{
    INFO(s.text());
    const ema_step_problem<T> p(s);
    const auto expected = p.wide();
    ema_step(p.args());
    reference::ema_step(expected.args());
    CHECK(relative_error(p.y, expected.y) <= step_budget<T>);
    CHECK(relative_error(p.h, expected.h) <= step_budget<T>);
    CHECK((p.y.gaps_untouched() && p.h.gaps_untouched()));
}

}  // namespace

TEST_CASE("ema_step: two tokens by hand")
{
    double h[] = {4, 8};
    const double decay[] = {0.5, 0.25}, input[] = {1, 2}, output[] = {10, 1}, x[] = {1, -1};
    double y[2];
    const auto a = [&] {
        return ema_step_args<double>{.h = {h, 1, 1, 2}, .decay = {decay, 1, 2}, .input = {input, 1, 2}, .output = {output, 1, 2},
                                     .x = {x, 1, 2, 1}, .y = {y, 1, 2, 1}};
    };
    for (const bool plain : {false, true}) {
        h[0] = 4, h[1] = 8;
        plain ? reference::ema_step(a()) : ema_step(a());
        CHECK((y[0] == 34 && y[1] == 4));  // h = (3, 4), then (1/2, -1)
        CHECK((h[0] == 0.5 && h[1] == -1));
    }
}

TEMPLATE_TEST_CASE("ema_step: agrees with the reference, whatever the sizes and layouts", "", float, double)
{
    for (const index n : kernel_states) {
        compare<TestType>({.state = n, .length = 18});
        compare<TestType>({.state = 5, .length = n});
    }
    for (const index dim : {1, 2, 31, 33, 70}) compare<TestType>({.dim = dim, .state = 9, .length = 7, .batch = dim % 3});
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts)
            compare<TestType>({.state = 19, .length = 20, .inputs = inputs, .outputs = outputs});
    }
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 8, 16, 17, 40}) compare<TestType>({.state = n, .length = 17, .edge = edge});
    }
    compare<TestType>({.dim = 0});
}

TEMPLATE_TEST_CASE("ema_step: cutting the sequence changes no bit", "", float, double)
{
    for (const index state : {3, 32, 70}) {
        const diagonal_setup s{.state = state, .length = 50};
        const ema_step_problem<TestType> whole(s);
        ema_step(whole.args());
        for (const index piece : {1, 2, 7, 16, 17, 49}) {
            const ema_step_problem<TestType> p(s);
            for (index t = 0; t < s.length; t += piece) {
                auto a = p.args();
                a.x = a.x.slice(1, t, std::min(piece, s.length - t));
                a.y = a.y.slice(1, t, std::min(piece, s.length - t));
                ema_step(a);
            }
            INFO(piece);
            CHECK(same_bits(whole.y, p.y));
            CHECK(same_bits(whole.h, p.h));
        }
    }
}

TEST_CASE("ema_step: equals the convolution with ema_kernel's kernel")
{
    constexpr index dim = 3, state = 5, length = 60;
    random numbers(3);
    tensor<double, 2> parameters[4], maps[3];
    for (auto& t : parameters) t = diagonal_setup{}.input<double, 2>(numbers, {dim, state}, {-2, 2});
    for (auto& t : maps) t = tensor<double, 2>({dim, state});
    const tensor<double, 2> K({dim, length});
    reference::ema_kernel(ema_kernel_args<double>{parameters[0], parameters[1], parameters[2], parameters[3], K});
    ema_discretize(
        ema_discretize_args<double>{parameters[0], parameters[1], parameters[2], parameters[3], maps[0], maps[1], maps[2]});
    const tensor<double, 3> x({1, length, dim}), y({1, length, dim}), h({1, dim, state}), expected({1, length, dim});
    for_each_index(x.view(), [&](auto... i) { x(i...) = numbers.uniform(-1, 1); });
    for_each_index(h.view(), [&](auto... i) { h(i...) = 0; });
    ema_step(ema_step_args<double>{.h = h, .decay = maps[0], .input = maps[1], .output = maps[2], .x = x, .y = y});
    for_each_index(expected.view(), [&](index b, index t, index d) {
        expected(b, t, d) = 0;
        for (index l = 0; l <= t; ++l) expected(b, t, d) += K(d, l) * x(b, t - l, d);
    });
    CHECK(relative_error(y, expected) <= 1e-12);
}

TEMPLATE_TEST_CASE("ema_step: a NaN reaches exactly what depends on it", "", float, double)
{
    for (index what = 0; what < 5; ++what) {
        const ema_step_problem<TestType> p({.dim = 4, .state = 19, .length = 40});
        if (what == 0) p.h(1, 2, 18) = quiet_nan<TestType>();
        if (what == 1) p.decay(1, 18) = quiet_nan<TestType>();
        if (what == 2) p.input(0, 3) = quiet_nan<TestType>();
        if (what == 3) p.output(2, 16) = quiet_nan<TestType>();
        if (what == 4) p.x(1, 20, 3) = quiet_nan<TestType>();
        const auto expected = p.wide();
        ema_step(p.args());
        reference::ema_step(expected.args());
        CHECK(same_nans(p.y, expected.y));
        CHECK(same_nans(p.h, expected.h));
    }
}

TEST_CASE("ema_step: threads change no bit, and nothing is allocated")
{
    threads pool(3);
    const diagonal_setup s{.dim = 100, .state = 32, .length = 20};
    const ema_step_problem<float> one(s), several(s), reversed(s);
    CHECK(allocations_during([&] { ema_step(one.args()); }) == 0);
    ema_step(several.args(), pool);
    CHECK((same_bits(one.y, several.y) && same_bits(one.h, several.h)));
    ema_step(reversed.args(), last_task_first{});
    CHECK((same_bits(one.y, reversed.y) && same_bits(one.h, reversed.h)));
}

TEST_CASE("ema_step: silence costs no more than sound")
{
    ema_step_problem<float> p({.dim = 16, .state = 32, .length = 512, .batch = 1});
    const auto time_of = [&] {
        double best = 1e9;
        for (int repeat = 0; repeat < 30; ++repeat) {
            const auto start = std::chrono::steady_clock::now();
            ema_step(p.args());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    const double loud = time_of();
    p.x.fill([](auto...) { return 0.0f; });
    p.decay.fill([](auto...) { return 0.999f; });
    p.h.fill([](auto...) { return 1e-38f; });
    CHECK(time_of() < 3 * loud);
}

TEST_CASE("ema_discretize: a component by hand, in place of nothing, and the argument that does not fit")
{
    // p = σ(0) = 1/2, σ(α) = 1/2; two components: γ / √2.
    const double zero[] = {0, 0}, beta[] = {4, 6}, gamma[] = {std::sqrt(2.0), -std::sqrt(8.0)};
    double decay[2], input[2], output[2];
    ema_discretize_args<double> a{.delta = {zero, 1, 2}, .alpha = {zero, 1, 2}, .beta = {beta, 1, 2}, .gamma = {gamma, 1, 2},
                                  .decay = {decay, 1, 2}, .input = {input, 1, 2}, .output = {output, 1, 2}};
    ema_discretize(a);
    CHECK((decay[0] == 0.75 && decay[1] == 0.75 && input[0] == 2 && input[1] == 3));
    CHECK((std::abs(output[0] - 1) < 1e-15 && std::abs(output[1] + 2) < 1e-15));
    const auto complains = [&](const char* text) {
        CHECK(complaint_of([&] { ema_discretize(a); }).find(std::string("ema_discretize: ") + text) == 0);
    };
    a.decay = a.input;
    complains("input overlaps decay");
    a.decay = {decay, 2, 1};
    complains("decay has shape");
}

TEST_CASE("ema_step: names the argument that does not fit")
{
    const ema_step_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { ema_step(a); }).find(std::string("ema_step: ") + text) == 0);
    };
    named("h has shape", [](auto& a) { a.h = a.h.slice(0, 0, 1); });
    named("decay has shape", [](auto& a) { a.decay = a.decay.slice(0, 0, 1); });
    named("input has shape", [](auto& a) { a.input = a.input.slice(1, 0, 1); });
    named("output has shape", [](auto& a) { a.output = a.output.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("y is written but", [](auto& a) { a.y = {a.y.data(), a.y.extents(), {0, a.y.stride(1), 1}}; });
    named("y overlaps h", [](auto& a) { a.h = {a.y.data(), a.h.extents()}; });
    named("y overlaps x", [&](auto& a) { a.y = p.x; });
}

TEST_CASE("ema_step: silence costs no more than sound, nothing is allocated, a NaN stays in its channel")
{
    ema_step_problem<float> p({.dim = 16, .state = 32, .length = 512, .batch = 2});
    const auto time_of = [&] {
        double best = 1e9;
        for (int repeat = 0; repeat < 30; ++repeat) {
            const auto start = std::chrono::steady_clock::now();
            ema_step(p.args());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    const double loud = time_of();
    CHECK(allocations_during([&] { ema_step(p.args()); }) == 0);
    p.x.fill([](auto...) { return 0.0f; });
    p.decay.fill([](auto...) { return 0.999f; });
    p.h.fill([](auto...) { return 1e-38f; });
    CHECK(time_of() < 3 * loud);
    p.x(1, 100, 5) = quiet_nan<float>();
    ema_step(p.args());
    for_each_index(p.y.view(), [&](index b, index t, index d) {
        REQUIRE(is_nan(p.y(b, t, d)) == (b == 1 && d == 5 && t >= 100));
    });
    for_each_index(p.h.view(), [&](index b, index d, index n) { REQUIRE(is_nan(p.h(b, d, n)) == (b == 1 && d == 5)); });
}

}  // namespace ssmkit::testing
