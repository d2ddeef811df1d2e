#include <ssmkit/s4_kernel.hpp>

#include <array>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/reference/s4_step.hpp>
#include <ssmkit/s4_setup.hpp>
#include <ssmkit/s4_step.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "complaint.hpp"
#include "s4_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 3e-6 : 1e-12;

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
    CHECK(p.C.bytes() == before);
    CHECK((p.K.gaps_untouched() && (s.batch == 0 || p.K_state.gaps_untouched())));
}

}  // namespace

TEMPLATE_TEST_CASE("s4_kernel: agrees with dense matrices for every size, option and layout", "", float, double)
{
    for (const s4_shape& s : all_s4_shapes()) compare<TestType>(s);
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
    const s4_problem<TestType> p = problem_beside_nodes<TestType>();
    constexpr bool single = std::is_same_v<TestType, float>;
    const auto expected = p.wide();
    s4_kernel(p.args());
    reference::s4_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= (single ? 2e-5 : 1e-11));
}

TEST_CASE("s4_kernel: float keeps its digits where the low-rank part takes poles away from nodes")
{
    // With all nodes in float, kernels were off by up to 5e-5 with one row and 2e-4 with two.
    for (const index rank : {1, 2, 3}) {
        for (const index length : {256, 511}) {
            INFO(rank << " " << length);
            const s4_problem<float> p = closed_fourier_problem(rank, length);
            const auto expected = p.wide();
            s4_kernel(p.args());
            s4_kernel(expected.args());
            CHECK(relative_error(p.K, expected.K) <= 3e-6);
            CHECK(relative_error(p.K_state, expected.K_state) <= 3e-6);
        }
    }
}

TEMPLATE_TEST_CASE("s4_kernel: a NaN stays with its channel", "", float, double)
{
    const s4_problem<TestType> p({.dim = 20, .copies = 20, .batch = 1});
    p.C(0, 7, 2) = quiet_nan<std::complex<TestType>>();
    p.initial_state(0, 9, 1) = quiet_nan<std::complex<TestType>>();
    s4_kernel(p.args());
    for_each_index(p.K.view(), [&](index c, index h, index l) { CHECK(is_nan(p.K(c, h, l)) == (h == 7)); });
    for_each_index(p.K_state.view(), [&](index b, index c, index h, index l) {
        CHECK(is_nan(p.K_state(b, c, h, l)) == (h == 7 || h == 9));
    });
}

TEMPLATE_TEST_CASE("s4_kernel: threads, workspaces and what they held change no bit", "", float, double)
{
    threads pool(3);
    const s4_shape s{.channels = 2, .dim = 21, .copies = 7, .batch = 1, .length = 40};
    const s4_problem<TestType> one(s);
    s4_problem<TestType> other(s);
    s4_kernel(one.args());
    std::vector<std::byte> memory(s4_kernel_workspace_size(other.args(), 4) + 1);
    for (int repeat = 0; repeat < 3; ++repeat) {
        other.make_outputs();
        std::fill(memory.begin(), memory.end(), std::byte(repeat == 0 ? 0xff : 0x7f));
        const workspace lent = workspace(memory).subspan(1);
        repeat < 2 ? s4_kernel(other.args(), lent, pool) : s4_kernel(other.args(), lent, last_task_first{});
        CHECK((same_bits(one.K, other.K) && same_bits(one.K_state, other.K_state)));
    }
    CHECK(allocations_during([&] { s4_kernel(other.args(), workspace(memory)); }) == 0);
}

TEMPLATE_TEST_CASE("s4_kernel: nothing of anything", "", float, double)
{
    compare<TestType>({.dim = 0, .copies = 1});
    compare<TestType>({.channels = 0});
    compare<TestType>({.state = 0});
    compare<TestType>({.batch = 1, .length = 0});
}

TEST_CASE("s4_kernel: names the argument that does not fit")
{
    const s4_problem<float> p({.copies = 1, .batch = 1});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint_of([&] { s4_kernel(a); });
        INFO(said);
        CHECK(said.find(std::string("s4_kernel: ") + text) == 0);
    };
    named("A has shape", [](auto& a) { a.A = a.A.slice(1, 0, 2); });
    named("P has shape", [](auto& a) { a.P = a.P.slice(2, 0, 2); });
    named("delta has shape", [](auto& a) { a.delta = a.delta.slice(0, 0, 2); });
    named("K has a length above", [](auto& a) { a.prepared_length = 20; });
    named("rate is not positive", [](auto& a) { a.rate = 0; });
    named("rate makes of the prepared length", [](auto& a) { a.rate = 1e-30; });
    named("rate makes of the prepared length", [](auto& a) { a.prepared_length = index{1} << 62; });
    named("initial_state is not given", [](auto& a) { a.initial_state = {}; });
    named("K_state has shape", [](auto& a) { a.K_state = a.K_state.slice(3, 0, 2); });
    named("K overlaps", [](auto& a) {
        a.K = {reinterpret_cast<float*>(const_cast<std::complex<float>*>(a.C.data())), a.K.extents()};
    });
}

}  // namespace ssmkit::testing
