#include <ssmkit/s4_step.hpp>

#include <chrono>
#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <vector>

#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/reference/s4_step.hpp>
#include <ssmkit/s4_modes.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "complaint.hpp"
#include "s4_problem.hpp"

namespace ssmkit::testing {
namespace {

/// A model made ready, an input, and states and outputs.
template <class T>
struct step_problem {
    using E = std::complex<T>;
    s4_problem<T> model;
    tensor<E, 2> pole, gain;
    tensor<E, 3> U, V, h;
    tensor<T, 3> u;
    tensor<T, 4> y;

    explicit step_problem(const s4_shape& s) : model(s)
    {
        random numbers(9);
        pole = tensor<E, 2>({s.dim, s.state}, s.inputs, s.edge);
        gain = tensor<E, 2>({s.dim, s.state}, s.inputs, s.edge);
        U = tensor<E, 3>({s.rank, s.dim, s.state}, s.inputs, s.edge);
        V = tensor<E, 3>({s.rank, s.dim, s.state}, s.inputs, s.edge);
        s4_step_setup(setup());
        u = tensor<T, 3>({s.batch, s.dim, s.length}, s.inputs, s.edge);
        u.fill(numbers, {-1, 1});
        start();
    }

    void start()
    {
        const s4_shape& s = model.s;
        h = tensor<E, 3>({s.batch, s.dim, s.state}, s.outputs, s.edge);
        h.fill([&](auto... i) { return model.initial_state(i...); });
        y = tensor<T, 4>({s.batch, s.channels, s.dim, s.length}, s.outputs, s.edge);
    }

    s4_step_setup_args<T> setup() const
    {
        const auto a = model.args();
        return {.delta = a.delta, .A = a.A, .B = a.B, .P = a.P, .rate = a.rate, .pole = pole, .gain = gain, .U = U, .V = V};
    }

    s4_step_args<T> args() const { return {.pole = pole, .gain = gain, .U = U, .V = V, .C = model.C, .u = u, .h = h, .y = y}; }

    /// The reference's steps in double, of the same numbers.
    std::pair<tensor<double, 4>, tensor<std::complex<double>, 3>> expected() const
    {
        using W = std::complex<double>;
        const auto p = pole.template as<W>(), g = gain.template as<W>();
        const auto left = U.template as<W>(), right = V.template as<W>(), C = model.C.template as<W>();
        const auto input = u.template as<double>();
        auto state = model.initial_state.template as<W>();
        tensor<double, 4> out(y.view().extents());
        reference::s4_step(
            s4_step_args<double>{.pole = p, .gain = g, .U = left, .V = right, .C = C, .u = input, .h = state, .y = out});
        return {std::move(out), std::move(state)};
    }
};

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 2e-6 : 1e-14;

template <class T>
void compare(const s4_shape& s)
{
    INFO(s.text());
    const step_problem<T> p(s);
    const auto [y, h] = p.expected();
    s4_step(p.args());
    CHECK(relative_error(p.y, y) <= budget<T>);
    CHECK(relative_error(p.h, h) <= budget<T>);
    CHECK((p.y.gaps_untouched() && p.h.gaps_untouched()));
}

}  // namespace

TEMPLATE_TEST_CASE("s4_step: agrees with the reference for every state, rank and layout", "", float, double)
{
    for (const index state : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33})
        compare<TestType>({.state = state, .batch = 2, .length = 9});
    for (const index rank : {0, 2, 5}) compare<TestType>({.channels = 2, .rank = rank, .batch = 1, .length = 7});
    for (const index channels : {0, 3}) compare<TestType>({.channels = channels, .batch = 1});
    for (const index length : {0, 1}) compare<TestType>({.batch = 1, .length = length});
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>(
                {.channels = 2, .state = 9, .rank = 2, .batch = 2, .length = 5, .inputs = inputs, .outputs = outputs});
        }
    }
    for (const guard edge : {guard::below, guard::above}) {
        for (const index state : {3, 8, 17}) compare<TestType>({.state = state, .batch = 1, .edge = edge});
    }
}

TEMPLATE_TEST_CASE("s4_step: cutting the sequence changes no bit, nor do threads", "", float, double)
{
    threads pool(3);
    const step_problem<TestType> whole({.channels = 2, .state = 13, .rank = 2, .batch = 2});
    s4_step(whole.args());
    for (index cut = 0; cut <= whole.model.s.length; ++cut) {
        step_problem<TestType> p(whole.model.s);
        for (const auto& [first, count] : {std::pair(index{0}, cut), std::pair(cut, p.model.s.length - cut)}) {
            auto a = p.args();
            a.u = a.u.slice(2, first, count);
            a.y = a.y.slice(3, first, count);
            s4_step(a, pool);
        }
        CHECK((same_bits(p.y, whole.y) && same_bits(p.h, whole.h)));
    }
}

TEST_CASE("s4_step: allocates nothing")
{
    const step_problem<float> p({.batch = 2}), turned({.batch = 2, .inputs = layout::strided, .outputs = layout::negative});
    CHECK(allocations_during([&] { s4_step(p.args()); }) == 0);
    CHECK(allocations_during([&] { s4_step(turned.args()); }) == 0);
}

TEST_CASE("s4_step: silence costs no more than sound")
{
    const auto seconds = [](bool silent) {
        step_problem<float> p({.dim = 4, .state = 32, .copies = 1, .batch = 1, .length = 20000});
        if (silent) p.u.fill([](index, index, index t) { return t == 0 ? 1e-30f : 0.0f; });
        double best = 1e30;
        for (int i = 0; i < 5; ++i) {
            p.start();
            if (silent) p.h.fill([](auto...) { return std::complex<float>(0); });
            const auto start = std::chrono::steady_clock::now();
            s4_step(p.args());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    CHECK(seconds(true) <= 2 * seconds(false));
}

TEMPLATE_TEST_CASE("s4_step: a NaN in a channel's input stays there", "", float, double)
{
    step_problem<TestType> p({.dim = 5, .copies = 5, .batch = 2});
    p.u(1, 3, 8) = quiet_nan<TestType>();
    s4_step(p.args());
    for_each_index(p.y.view(),
                   [&](index b, index c, index h, index t) { CHECK(is_nan(p.y(b, c, h, t)) == (b == 1 && h == 3 && t >= 8)); });
}

TEST_CASE("s4_step_setup: the bilinear transform of the dense matrix, for any rank, rate and step")
{
    for (const index rank : {0, 1, 2, 4}) {
        for (const bool tied : {false, true}) {
            const step_problem<double> p({.rank = rank, .batch = 1, .rate = 1.7, .tied = tied});
            for (index h = 0; h < p.model.s.dim; ++h) {
                const auto full = reference::parts::s4_expanded(p.model.args(), h);
                const index n = full.full;
                dense<std::complex<double>> A(n, n), B(n, 1);
                for (index i = 0; i < n; ++i) {
                    for (index k = 0; k < n; ++k)
                        A(i, k) = full.delta[static_cast<std::size_t>(i)] * full.A[static_cast<std::size_t>(i * n + k)];
                    B(i, 0) = full.delta[static_cast<std::size_t>(i)] * full.B[static_cast<std::size_t>(i)];
                }
                const auto expected = generalized_bilinear(A, B, 1, 0.5);
                const auto s = s4_dense(p.setup(), view<const std::complex<double>, 3>(p.model.C), h);
                CHECK((s.A - expected.A).norm() <= 1e-13 * expected.A.norm());
                CHECK((s.B - expected.B).norm() <= 1e-13 * expected.B.norm());
            }
        }
    }
}

TEST_CASE("s4_diagonal: the same outputs in another basis")
{
    const step_problem<double> p({.channels = 2, .rank = 2, .batch = 1});
    const auto s = s4_dense(p.setup(), view<const std::complex<double>, 3>(p.model.C), 1), d = s4_diagonal(s);
    Eigen::VectorXcd x = s.B.col(0), y = d.B.col(0);
    for (int l = 0; l < 20; ++l) {
        CHECK((s.C * x - d.C * y).norm() <= 1e-10);
        x = s.A * x;
        y = d.A * y;
    }
    CHECK(d.A.isDiagonal());
}

TEST_CASE("s4_step, s4_step_setup: name the argument that does not fit")
{
    const step_problem<float> p({.batch = 2});
    const auto step = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { s4_step(a); }).find(std::string("s4_step: ") + text) == 0);
    };
    step("pole has shape", [](auto& a) { a.pole = a.pole.slice(0, 0, 1); });
    step("V has another rank", [](auto& a) { a.V = {}; });
    step("u has shape", [](auto& a) { a.u = a.u.slice(0, 0, 1); });
    step("y has shape", [](auto& a) { a.y = a.y.slice(3, 0, 1); });
    step("C has shape", [](auto& a) { a.C = {}; });
    step("y overlaps h", [](auto& a) { a.y = {reinterpret_cast<float*>(a.h.data()), a.y.extents()}; });
    const auto setup = [&](const char* text, auto&& spoil) {
        auto a = p.setup();
        spoil(a);
        CHECK(complaint_of([&] { s4_step_setup(a); }).find(std::string("s4_step_setup: ") + text) == 0);
    };
    setup("B has shape", [](auto& a) { a.B = a.B.slice(1, 0, 1); });
    setup("U has shape", [](auto& a) { a.U = {}; });
    setup("gain overlaps pole", [](auto& a) { a.gain = a.pole; });
}

TEST_CASE("s4_dense: names the argument that does not fit")
{
    const step_problem<double> p({.channels = 2, .rank = 2, .batch = 1});
    const auto named = [&](const char* text, auto&& spoil, index h = 1) {
        auto a = p.setup();
        view<const std::complex<double>, 3> C = p.model.C;
        spoil(a, C);
        CHECK(complaint_of([&] { s4_dense(a, C, h); }).find(std::string("s4_dense: ") + text) == 0);
    };
    named("A has shape", [](auto& a, auto&) { a.A = a.A.slice(1, 0, 2); });
    named("A has copies", [](auto& a, auto&) { a.A = a.A.slice(0, 0, 0), a.B = a.B.slice(0, 0, 0), a.P = a.P.slice(1, 0, 0); });
    named("B has shape", [](auto& a, auto&) { a.B = {}; });
    named("P has shape", [](auto& a, auto&) { a.P = a.P.slice(2, 0, 1); });
    named("delta has shape", [](auto& a, auto&) { a.delta = a.delta.slice(0, 0, 1); });
    named("C has shape", [](auto&, auto& C) { C = C.slice(2, 0, 1), C = {C.data(), {C.extent(0), C.extent(1), -1}}; });
    named("h is no channel", [](auto&, auto&) {}, -1);
}

}  // namespace ssmkit::testing
