#include <ssmkit/s4d_step.hpp>

#include <chrono>
#include <cmath>

#include <ssmkit/reference/s4d_step.hpp>
#include <ssmkit/s4d_discretize.hpp>
#include <ssmkit/s4d_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct step_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    bool skip, pairs = true;
    tensor<E, 3> h, C;
    tensor<E, 2> pole, input;
    tensor<T, 2> D;
    tensor<T, 3> u;
    tensor<T, 4> y;

    explicit step_problem(const diagonal_setup& setup, bool with_skip = false) : s(setup), skip(with_skip)
    {
        random numbers(s.seed);
        h = s.input<E, 3>(numbers, {s.batch, s.dim, s.state}, {-1, 1});
        pole = s.input<E, 2>(numbers, {s.dim, s.state}, {-0.65, 0.65});
        input = s.input<E, 2>(numbers, {s.dim, s.state}, {-1, 1});
        C = s.input<E, 3>(numbers, {s.channels, s.dim, s.state}, {-1, 1});
        u = s.input<T, 3>(numbers, {s.batch, s.length, s.dim}, {-1, 1});
        if (skip) D = s.input<T, 2>(numbers, {s.channels, s.dim}, {-1, 1});
        y = s.output<T, 4>({s.batch, s.length, s.channels, s.dim});
    }

    step_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        step_problem<double> p(plain, skip);
        p.pairs = pairs;
        p.h = h.template as<complex_double>();
        p.pole = pole.template as<complex_double>();
        p.input = input.template as<complex_double>();
        p.C = C.template as<complex_double>();
        p.u = u.template as<double>();
        p.D = D.template as<double>();
        return p;
    }

    s4d_step_args<T> args() const
    {
        return {.h = h, .pole = pole, .input = input, .C = C, .D = D, .conjugate_pairs = pairs, .u = u, .y = y};
    }
};

template <class T>
void compare(const diagonal_setup& s, bool skip = false, bool pairs = true)
{
    INFO(s.text() << " skip " << skip);
    step_problem<T> p(s, skip);
    p.pairs = pairs;
    const auto expected = p.wide();
    s4d_step(p.args());
    reference::s4d_step(expected.args());
    CHECK(relative_error(p.y, expected.y) <= step_budget<T>);
    CHECK(relative_error(p.h, expected.h) <= step_budget<T>);
    CHECK(p.y.gaps_untouched());
    CHECK(p.h.gaps_untouched());
}

}  // namespace

TEST_CASE("s4d_step: a state by hand")
{
    std::complex<double> h(1, 1);
    const std::complex<double> pole(0, 1), input(2, 0), C(1, -1);
    const double u[] = {1, -1}, D = 10;
    double y[2];
    s4d_step_args<double> a{.h = {&h, 1, 1, 1}, .pole = {&pole, 1, 1}, .input = {&input, 1, 1}, .C = {&C, 1, 1, 1}, .D = {&D, 1, 1},
                            .u = {u, 1, 2, 1}, .y = {y, 1, 2, 1, 1}};
    s4d_step(a);
    CHECK(y[0] == 14);   // h = i (1 + i) + 2 = 1 + i; 2 Re((1 + i)(1 - i)) + 10
    CHECK(y[1] == -14);  // h = i (1 + i) - 2 = -3 + i; 2 Re((-3 + i)(1 - i)) - 10
    CHECK(h == std::complex<double>(-3, 1));
    a.conjugate_pairs = false;
    h = {1, 1};
    s4d_step(a);
    CHECK(y[0] == 12);
}

TEMPLATE_TEST_CASE("s4d_step: agrees with the reference, whatever the sizes and layouts", "", float, double)
{
    for (const index n : kernel_states) {
        compare<TestType>({.state = n, .length = 18}, n % 2 == 0);
        if (n > 0) compare<TestType>({.channels = 1, .state = 5, .length = n}, false, n % 3 == 0);
    }
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts)
            compare<TestType>({.state = 19, .length = 20, .inputs = inputs, .outputs = outputs}, true);
    }
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 8, 16, 17, 40}) compare<TestType>({.state = n, .length = 17, .edge = edge}, true);
    }
    compare<TestType>({.channels = 4, .dim = 70, .state = 65, .length = 33, .batch = 1});
    for (const diagonal_setup& s : {diagonal_setup{.length = 0}, {.batch = 0}, {.channels = 0}, {.dim = 0}}) {
        const step_problem<TestType> p(s);
        const auto before = p.h.template as<std::complex<TestType>>();
        s4d_step(p.args());
        if (s.length == 0) CHECK(same_bits(p.h, before));
    }
}

TEMPLATE_TEST_CASE("s4d_step: cutting the sequence changes no bit", "", float, double)
{
    for (const index state : {3, 32, 70}) {
        const diagonal_setup s{.state = state, .length = 50};
        const step_problem<TestType> whole(s, true);
        s4d_step(whole.args());
        for (const index piece : {1, 2, 7, 16, 17, 49}) {
            const step_problem<TestType> p(s, true);
            for (index t = 0; t < s.length; t += piece) {
                auto a = p.args();
                a.u = a.u.slice(1, t, std::min(piece, s.length - t));
                a.y = a.y.slice(1, t, std::min(piece, s.length - t));
                s4d_step(a);
            }
            INFO(piece);
            CHECK(same_bits(whole.y, p.y));
            CHECK(same_bits(whole.h, p.h));
        }
    }
}

TEMPLATE_TEST_CASE("s4d_step: equals the convolution with s4d_kernel's kernels", "", float, double)
{
    using T = TestType;
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
        constexpr index dim = 4, copies = 2, state = 9, length = 200, channels = 2;
        random numbers(7);
        const tensor<double, 2> delta = diagonal_setup{}.input<double, 2>(numbers, {dim, state}, {0.01, 0.2});
        const tensor<complex_double, 2> A = diagonal_setup{}.input<complex_double, 2>(numbers, {copies, state}, {-1, -0.1, -6, 6});
        const auto B = diagonal_setup{}.input<std::complex<T>, 2>(numbers, {copies, state}, {-1, 1});
        const auto C = diagonal_setup{}.input<std::complex<T>, 3>(numbers, {channels, dim, state}, {-1, 1});
        const auto start = diagonal_setup{}.input<std::complex<T>, 3>(numbers, {1, dim, state}, {-1, 1});
        const auto u = diagonal_setup{}.input<T, 3>(numbers, {1, length, dim}, {-1, 1});
        const tensor<T, 3> K({channels, dim, length});
        const tensor<T, 4> K_state({1, channels, dim, length}), y({1, length, channels, dim});
        s4d_kernel(s4d_kernel_args<T>{.delta = delta,
                                      .A = A,
                                      .B = B,
                                      .C = C,
                                      .method = method,
                                      .rate = 0.9,
                                      .initial_state = start,
                                      .K = K,
                                      .K_state = K_state});
        const tensor<std::complex<T>, 2> pole({dim, state}), input({dim, state});
        s4d_discretize(
            s4d_discretize_args<T>{.delta = delta, .A = A, .B = B, .method = method, .rate = 0.9, .pole = pole, .input = input});
        const auto h = start.template as<std::complex<T>>();
        s4d_step(s4d_step_args<T>{.h = h, .pole = pole, .input = input, .C = C, .u = u, .y = y});
        const tensor<double, 4> expected({1, length, channels, dim});
        for_each_index(expected.view(), [&](index b, index t, index c, index d) {
            double sum = static_cast<double>(K_state(b, c, d, t));
            for (index l = 0; l <= t; ++l) sum += static_cast<double>(K(c, d, l)) * static_cast<double>(u(b, t - l, d));
            expected(b, t, c, d) = sum;
        });
        CHECK(relative_error(y, expected) <= 10 * step_budget<T>);
    }
}

TEMPLATE_TEST_CASE("s4d_step: a NaN reaches exactly what depends on it", "", float, double)
{
    for (index what = 0; what < 5; ++what) {
        const step_problem<TestType> p({.dim = 4, .state = 19, .length = 40});
        using E = std::complex<TestType>;
        if (what == 0) p.h(1, 2, 18) = quiet_nan<E>();
        if (what == 1) p.pole(1, 18) = quiet_nan<E>();
        if (what == 2) p.input(0, 3) = quiet_nan<E>();
        if (what == 3) p.C(1, 2, 16) = quiet_nan<E>();
        if (what == 4) p.u(1, 20, 3) = quiet_nan<TestType>();
        const auto expected = p.wide();
        s4d_step(p.args());
        reference::s4d_step(expected.args());
        CHECK(same_nans(p.y, expected.y));
        CHECK(same_nans(p.h, expected.h));
    }
}

TEST_CASE("s4d_step: threads change no bit, and nothing is allocated")
{
    threads pool(3);
    const diagonal_setup s{.dim = 100, .state = 32, .length = 20};
    const step_problem<float> one(s, true), several(s, true);
    CHECK(allocations_during([&] { s4d_step(one.args()); }) == 0);
    s4d_step(several.args(), pool);
    CHECK(same_bits(one.y, several.y));
    CHECK(same_bits(one.h, several.h));
}

TEST_CASE("s4d_step: silence costs no more than sound")
{
    step_problem<float> p({.channels = 1, .dim = 16, .state = 32, .length = 512, .batch = 1});
    const auto time_of = [&] {
        double best = 1e9;
        for (int repeat = 0; repeat < 30; ++repeat) {
            const auto start = std::chrono::steady_clock::now();
            s4d_step(p.args());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    const double loud = time_of();
    p.u.fill([](auto...) { return 0.0f; });
    p.pole.fill([](auto...) { return std::complex<float>(0.999f, 0); });
    p.h.fill([](auto...) { return std::complex<float>(1e-38f, 1e-38f); });
    CHECK(time_of() < 3 * loud);
}

TEST_CASE("s4d_step: names the argument that does not fit")
{
    const step_problem<float> p({}, true);
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint_of([&] { s4d_step(a); });
        INFO(said);
        CHECK(said.find(std::string("s4d_step: ") + text) == 0);
    };
    named("h has shape", [](auto& a) { a.h = a.h.slice(0, 0, 1); });
    named("pole has shape", [](auto& a) { a.pole = a.pole.slice(0, 0, 1); });
    named("input has shape", [](auto& a) { a.input = a.input.slice(1, 0, 1); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(1, 0, 1); });
    named("D has shape", [](auto& a) { a.D = a.D.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("y overlaps u", [&](auto& a) { a.y = {p.u.view().data(), a.y.extents()}; });
    named("h overlaps C", [&](auto& a) { a.h = {p.C.view().data(), a.h.extents()}; });
}

}  // namespace ssmkit::testing
