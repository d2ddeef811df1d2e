#include <ssmkit/s4_kernel.hpp>
#include <ssmkit/s4_kernel_backward.hpp>

#include <array>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/reference/s4_kernel_backward.hpp>
#include <ssmkit/s4_setup.hpp>
#include <ssmkit/s4_step.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s4_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 3e-6 : 1e-12;
template <class T>
constexpr double gradient_budget = std::is_same_v<T, float> ? 2e-5 : 1e-10;

template <class T>
void compare(const s4_shape& s)
{
    INFO(s.text());
    const s4_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.C.bytes();
    s4_kernel(p.args());
    reference::s4_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= budget<T>);
    CHECK(relative_error(p.K_state, expected.K_state) <= budget<T>);
    s4_kernel_backward(p.backward());
    reference::s4_kernel_backward(expected.backward());
    CHECK(relative_error(p.ddelta, expected.ddelta) <= gradient_budget<T>);
    CHECK(relative_error(p.dA, expected.dA) <= gradient_budget<T>);
    CHECK(relative_error(p.dB, expected.dB) <= gradient_budget<T>);
    CHECK(relative_error(p.dP, expected.dP) <= gradient_budget<T>);
    CHECK(relative_error(p.dC, expected.dC) <= gradient_budget<T>);
    CHECK(relative_error(p.dinitial_state, expected.dinitial_state) <= gradient_budget<T>);
    CHECK(p.C.bytes() == before);
    CHECK((p.K.gaps_untouched() && p.dA.gaps_untouched() && p.dC.gaps_untouched()));
}

}  // namespace

TEMPLATE_TEST_CASE("s4_kernel: agrees with dense matrices for every length, rank and number of kernels", "", float, double)
{
    compare<TestType>({.length = 1, .prepared = 3});  // with L' = 1, K does not depend on Δ
    for (const index length : {2, 3, 4, 7, 8, 15, 16, 17, 30, 31, 33, 64}) compare<TestType>({.length = length});
    for (const index rank : {0, 2, 3, 5}) compare<TestType>({.channels = 2, .rank = rank, .batch = 2, .length = 12});
    for (const index channels : {1, 3, 4})
        compare<TestType>({.channels = channels, .dim = 4, .copies = 2, .batch = 3, .length = 9});
    compare<TestType>({.dim = 18, .state = 3, .copies = 1, .length = 10});
    compare<TestType>({.channels = 3, .dim = 7, .state = 1, .copies = 7, .batch = 1, .length = 5});
}

TEMPLATE_TEST_CASE("s4_kernel: other rates, longer preparation, a band limit, a step for each state", "", float, double)
{
    for (const bool tied : {false, true}) {
        compare<TestType>({.batch = 1, .length = 11, .prepared = 32, .tied = tied});
        compare<TestType>({.batch = 1, .length = 9, .prepared = 20, .rate = 2, .tied = tied});
        compare<TestType>({.batch = 1, .length = 30, .prepared = 20, .rate = 0.6, .tied = tied});
        compare<TestType>({.rank = 2, .batch = 1, .bandlimit = 0.1, .tied = tied});
    }
}

TEMPLATE_TEST_CASE("s4_kernel: several chunks of nodes", "", float, double)
{
    compare<TestType>({.dim = 1, .state = 2, .copies = 1, .batch = 1, .length = 700, .prepared = 1201});
}

TEMPLATE_TEST_CASE("s4_kernel: any layout, nothing outside the arguments", "", float, double)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.channels = 2, .dim = 2, .state = 3, .rank = 2, .copies = 2, .batch = 1, .length = 6, .tied = false,
                               .inputs = inputs, .outputs = outputs});
        }
    }
    for (const guard edge : {guard::below, guard::above}) compare<TestType>({.batch = 1, .length = 17, .edge = edge});
}

TEMPLATE_TEST_CASE("s4_kernel: convolution equals recurrence", "", float, double)
{
    for (const index rank : {0, 1, 2}) {
        for (const index length : {16, 21}) {
            s4_problem<double> p({.channels = 2, .rank = rank, .batch = 2, .length = length, .tied = false});
            const auto wide = p.args();
            tensor<std::complex<double>, 3> prepared(p.C.view().extents());
            s4_setup(s4_setup_args<double>{
                .delta = wide.delta, .A = wide.A, .P = wide.P, .C = wide.C, .length = length, .out = prepared});
            s4_problem<TestType> q(p.s, nullptr);
            using E = std::complex<TestType>;
            q.delta = p.delta.template as<double>(), q.A = p.A.template as<std::complex<double>>(), q.B = p.B.template as<E>();
            q.P = p.P.template as<E>(), q.C = prepared.template as<E>(), q.initial_state = p.initial_state.template as<E>();
            q.make_outputs();
            s4_kernel(q.args());

            tensor<std::complex<double>, 2> pole({p.s.dim, p.s.state}), gain({p.s.dim, p.s.state});
            tensor<std::complex<double>, 3> U({rank, p.s.dim, p.s.state}), V({rank, p.s.dim, p.s.state});
            s4_step_setup(s4_step_setup_args<double>{
                .delta = wide.delta, .A = wide.A, .B = wide.B, .P = wide.P, .pole = pole, .gain = gain, .U = U, .V = V});
            const auto respond = [&](index batch, bool impulse, const tensor<std::complex<double>, 3>& h) {
                tensor<double, 3> u({batch, p.s.dim, length});
                u.fill([&](index, index, index t) { return impulse && t == 0 ? 1.0 : 0.0; });
                tensor<double, 4> y({batch, p.s.channels, p.s.dim, length});
                reference::s4_step(
                    s4_step_args<double>{.pole = pole, .gain = gain, .U = U, .V = V, .C = wide.C, .u = u, .h = h, .y = y});
                return y;
            };
            tensor<std::complex<double>, 3> zero({1, p.s.dim, p.s.state});
            zero.fill([](auto...) { return std::complex<double>(0); });
            const auto K = respond(1, true, zero);
            CHECK(relative_error(q.K.view(), K.view()[0]) <= budget<TestType>);
            const auto state = p.initial_state.template as<std::complex<double>>();
            CHECK(relative_error(q.K_state.view(), respond(p.s.batch, false, state).view()) <= budget<TestType>);
        }
    }
}

TEST_CASE("s4_kernel_backward: finite differences of the reference, states and their gradients included")
{
    s4_problem<double> p({.channels = 2,
                          .dim = 2,
                          .state = 2,
                          .rank = 2,
                          .copies = 1,
                          .batch = 1,
                          .length = 7,
                          .prepared = 10,
                          .rate = 1.3,
                          .tied = false});
    reference::s4_kernel_backward(p.backward());
    const auto loss = [&] {
        reference::s4_kernel(p.args());
        double sum = 0;
        for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
        for_each_index(p.K_state.view(), [&](auto... i) { sum += p.K_state(i...) * p.dK_state(i...); });
        return sum;
    };
    const auto slope = [&](double& x) {
        constexpr double step = 1e-5;
        const double at = x;
        x = at + step;
        const double above = loss();
        x = at - step;
        const double below = loss();
        x = at;
        return (above - below) / (2 * step);
    };
    const auto check_all = [&](const auto& parameter, const auto& gradient) {
        for_each_index(parameter.view(), [&](auto... i) {
            using E = std::remove_cvref_t<decltype(parameter(i...))>;
            if constexpr (detail::is_complex<E>) {
                double* const parts = reinterpret_cast<double*>(&parameter(i...));
                CHECK(std::abs(slope(parts[0]) - gradient(i...).real()) < 1e-7);
                CHECK(std::abs(slope(parts[1]) - gradient(i...).imag()) < 1e-7);
            } else {
                CHECK(std::abs(slope(parameter(i...)) - gradient(i...)) < 1e-6);
            }
        });
    };
    check_all(p.delta, p.ddelta);
    check_all(p.A, p.dA);
    check_all(p.B, p.dB);
    check_all(p.P, p.dP);
    check_all(p.C, p.dC);
    check_all(p.initial_state, p.dinitial_state);
}

TEMPLATE_TEST_CASE("s4_kernel: fast poles and slow ones, as HiPPO-LegS spreads them", "", float, double)
{
    // Im Λ from 1 to 1300, Re Λ = -1/2, low-rank entries growing with it.
    s4_problem<TestType> p({.dim = 2, .state = 32, .copies = 2, .length = 300});
    using E = std::complex<TestType>;
    p.delta.fill([](index h, index) { return h == 0 ? 1e-3 : 1e-1; });
    p.A.fill([](index, index n) { return std::complex<double>(-0.5, -std::exp(0.231 * static_cast<double>(n))); });
    p.P.fill([](index, index, index n) { return E(static_cast<TestType>(std::exp(0.1 * static_cast<double>(n))), TestType(0.1)); });
    const auto expected = p.wide();
    s4_kernel(p.args());
    reference::s4_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= (std::is_same_v<TestType, float> ? 2e-6 : 1e-12));
}

TEMPLATE_TEST_CASE("s4_kernel: poles beside nodes, as LegT and the Fourier measures have them", "", float, double)
{
    // Re Λ = -1e-4 and Im Λ on nodes: |E| is some 1e-5 there, and sums differentiated one by one would agree to 1e-6 in double.
    // For float, of whose gradients even the sums lose eps / |E|, ten times as far.
    s4_problem<TestType> p({.dim = 1, .state = 4, .copies = 1, .length = 32});
    constexpr bool single = std::is_same_v<TestType, float>;
    p.delta.fill([](auto...) { return 0.1; });
    p.A.fill([](index, index n) {
        const double y = 2 * std::tan(3.14159265358979324 * static_cast<double>(3 * n + 1) / 32);
        return std::complex<double>(single ? -1e-3 : -1e-4, -y / 0.1);
    });
    const auto expected = p.wide();
    s4_kernel(p.args());
    reference::s4_kernel(expected.args());
    s4_kernel_backward(p.backward());
    reference::s4_kernel_backward(expected.backward());
    CHECK(relative_error(p.K, expected.K) <= (single ? 2e-5 : 1e-11));
    CHECK(relative_error(p.dA, expected.dA) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.dB, expected.dB) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.dP, expected.dP) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.dC, expected.dC) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.ddelta, expected.ddelta) <= (single ? 1e-4 : 1e-10));
}

TEST_CASE("s4_kernel: float keeps its digits where the low-rank part takes poles away from nodes")
{
    // The Fourier measure in closed form, its low-rank part in one row or split into two or three; Re Λ is the least that is
    // stored. With all nodes in float, kernels were off by up to 5e-5 with one row and 2e-4 with two, gradients by 1e-2.
    for (const index rank : {1, 2, 3}) {
        for (const index length : {256, 511}) {
            INFO(rank << " " << length);
            s4_problem<float> p({.channels = 2, .dim = 4, .state = 16, .rank = rank, .copies = 1, .batch = 1, .length = length});
            p.delta.fill([](index h, index) { return std::array{1e-3, 4e-3, 2e-2, 1e-1}[static_cast<std::size_t>(h)]; });
            p.A.fill([](index, index n) { return std::complex<double>(-1e-4, -3.14159265358979324 * static_cast<double>(15 - n)); });
            const auto b = [](index n) { return n == 15 ? 0.70710678f : 1.0f; };
            p.B.fill([&](index, index n) { return std::complex<float>(b(n)); });
            p.P.fill([&](index r, index, index n) { return std::complex<float>(n % rank == r ? b(n) : 0.0f); });
            const auto expected = p.wide();
            s4_kernel(p.args());
            s4_kernel(expected.args());
            CHECK(relative_error(p.K, expected.K) <= 3e-6);
            CHECK(relative_error(p.K_state, expected.K_state) <= 3e-6);
            s4_kernel_backward(p.backward());
            s4_kernel_backward(expected.backward());
            CHECK(relative_error(p.ddelta, expected.ddelta) <= 2e-5);
            CHECK(relative_error(p.dA, expected.dA) <= 2e-5);
            CHECK(relative_error(p.dB, expected.dB) <= 2e-5);
            CHECK(relative_error(p.dP, expected.dP) <= 2e-5);
            CHECK(relative_error(p.dC, expected.dC) <= 2e-5);
            CHECK(relative_error(p.dinitial_state, expected.dinitial_state) <= 2e-5);
        }
    }
}

TEMPLATE_TEST_CASE("s4_kernel: a NaN stays with its channel", "", float, double)
{
    s4_problem<TestType> p({.dim = 20, .copies = 20, .batch = 1});
    p.C(0, 7, 2) = quiet_nan<std::complex<TestType>>();
    s4_kernel(p.args());
    s4_kernel_backward(p.backward());
    for (index h = 0; h < 20; ++h) {
        for (index l = 0; l < p.s.length; ++l) CHECK(is_nan(p.K(0, h, l)) == (h == 7));
        for (index n = 0; n < p.s.state; ++n) CHECK(is_nan(p.dA(h, n)) == (h == 7));
    }
}

TEMPLATE_TEST_CASE("s4_kernel: threads, workspaces and what they held change no bit", "", float, double)
{
    threads pool(3);
    const s4_shape s{.channels = 2, .dim = 21, .copies = 7, .batch = 1, .length = 40};
    const s4_problem<TestType> one(s);
    s4_problem<TestType> other(s);
    s4_kernel(one.args());
    s4_kernel_backward(one.backward());
    std::vector<std::byte> memory(
        std::max(s4_kernel_workspace_size(other.args(), 4), s4_kernel_backward_workspace_size(other.backward(), 4)) + 1);
    for (int repeat = 0; repeat < 3; ++repeat) {
        other.make_outputs();
        std::fill(memory.begin(), memory.end(), std::byte(repeat == 0 ? 0xff : 0x7f));
        const workspace lent = workspace(memory).subspan(1);
        repeat < 2 ? s4_kernel(other.args(), lent, pool) : s4_kernel(other.args(), lent, last_task_first{});
        repeat < 2 ? s4_kernel_backward(other.backward(), lent, pool)
                   : s4_kernel_backward(other.backward(), lent, last_task_first{});
        CHECK((same_bits(one.K, other.K) && same_bits(one.K_state, other.K_state)));
        CHECK((same_bits(one.ddelta, other.ddelta) && same_bits(one.dA, other.dA) && same_bits(one.dB, other.dB)));
        CHECK((same_bits(one.dP, other.dP) && same_bits(one.dC, other.dC) && same_bits(one.dinitial_state, other.dinitial_state)));
    }
    CHECK(allocations_during([&] {
              s4_kernel(other.args(), workspace(memory));
              s4_kernel_backward(other.backward(), workspace(memory));
          }) == 0);
}

TEMPLATE_TEST_CASE("s4_kernel: nothing of anything", "", float, double)
{
    compare<TestType>({.dim = 0, .copies = 1});
    compare<TestType>({.channels = 0});
    compare<TestType>({.state = 0});
    compare<TestType>({.batch = 1, .length = 0});
    s4_problem<TestType> p({.batch = 2});  // a state that nothing reaches has gradient zero
    auto b = p.backward();
    b.dK_state = {};
    s4_kernel_backward(b);
    for_each_index(p.dinitial_state.view(), [&](auto... i) { CHECK(std::abs(p.dinitial_state(i...)) == TestType(0)); });
}

TEST_CASE("s4_kernel: names the argument that does not fit")
{
    const s4_problem<float> p({.copies = 1, .batch = 1});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward();
        spoil(a);
        std::string said;
        try {
            std::string(text).find("s4_kernel:") == 0 ? s4_kernel(a.forward) : s4_kernel_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(text) == 0);
    };
    named("s4_kernel: A has shape", [](auto& a) { a.forward.A = a.forward.A.slice(1, 0, 2); });
    named("s4_kernel: P has shape", [](auto& a) { a.forward.P = a.forward.P.slice(2, 0, 2); });
    named("s4_kernel: delta has shape", [](auto& a) { a.forward.delta = a.forward.delta.slice(0, 0, 2); });
    named("s4_kernel: K has a length above", [](auto& a) { a.forward.prepared_length = 20; });
    named("s4_kernel: rate is not positive", [](auto& a) { a.forward.rate = 0; });
    named("s4_kernel: initial_state is not given", [](auto& a) { a.forward.initial_state = {}; });
    named("s4_kernel: K_state has shape", [](auto& a) { a.forward.K_state = a.forward.K_state.slice(3, 0, 2); });
    named("s4_kernel: K overlaps", [](auto& a) {
        a.forward.K = {reinterpret_cast<float*>(const_cast<std::complex<float>*>(a.forward.C.data())), a.forward.K.extents()};
    });
    named("s4_kernel_backward: dK has shape", [](auto& a) { a.dK = a.dK.slice(1, 0, 2); });
    named("s4_kernel_backward: dP has shape", [](auto& a) { a.dP = a.dP.slice(2, 0, 2); });
    named("s4_kernel_backward: dC overlaps dB", [](auto& a) { a.dB = {a.dC.data(), a.dB.extents()}; });
}

}  // namespace ssmkit::testing
