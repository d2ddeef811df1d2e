#include <ssmkit/s4_kernel_backward.hpp>

#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/reference/s4_kernel_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "finite_differences.hpp"
#include "s4_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 2e-5 : 1e-10;

/// f(name, gradient, other's) for those that the problem has.
template <class T, class U, class F>
void for_each_gradient(const s4_problem<T>& p, const s4_problem<U>& o, F&& f)
{
    f("ddelta", p.ddelta, o.ddelta), f("dA", p.dA, o.dA), f("dB", p.dB, o.dB), f("dC", p.dC, o.dC);
    if (p.dP.given()) f("dP", p.dP, o.dP);
    if (p.dinitial_state.given()) f("dinitial_state", p.dinitial_state, o.dinitial_state);
}

template <class T>
void compare(const s4_shape& s)
{
    INFO(s.text());
    const s4_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.C.bytes();
    s4_kernel_backward(p.backward());
    reference::s4_kernel_backward(expected.backward());
    for_each_gradient(p, expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= budget<T>);
        CHECK(x.gaps_untouched());
    });
    CHECK(p.C.bytes() == before);
}

template <class T>
void check_same_bits(const s4_problem<T>& p, const s4_problem<T>& wanted)
{
    for_each_gradient(p, wanted, [](const char* name, const auto& x, const auto& y) {
        INFO(name);
        CHECK(same_bits(x, y));
    });
}

}  // namespace

TEMPLATE_TEST_CASE("s4_kernel_backward: agrees with dense matrices for every size, option and layout", "", float, double)
{
    for (const s4_shape& s : all_s4_shapes()) compare<TestType>(s);
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
        return inner_product(p.K, p.dK) + inner_product(p.K_state, p.dK_state);
    };
    CHECK(gradient_error(p.delta, p.ddelta, loss, 1e-4) < 1e-8);
    CHECK(gradient_error(p.A, p.dA, loss) < 1e-8);
    CHECK(gradient_error(p.B, p.dB, loss) < 1e-8);
    CHECK(gradient_error(p.P, p.dP, loss) < 1e-8);
    CHECK(gradient_error(p.C, p.dC, loss) < 1e-8);
    CHECK(gradient_error(p.initial_state, p.dinitial_state, loss) < 1e-8);
}

TEMPLATE_TEST_CASE("s4_kernel_backward: poles beside nodes, as LegT and the Fourier measures have them", "", float, double)
{
    // Sums differentiated one by one would agree to 1e-6 in double.
    const s4_problem<TestType> p = problem_beside_nodes<TestType>();
    constexpr bool single = std::is_same_v<TestType, float>;
    const auto expected = p.wide();
    s4_kernel_backward(p.backward());
    reference::s4_kernel_backward(expected.backward());
    CHECK(relative_error(p.dA, expected.dA) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.dB, expected.dB) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.dP, expected.dP) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.dC, expected.dC) <= (single ? 1e-4 : 1e-10));
    CHECK(relative_error(p.ddelta, expected.ddelta) <= (single ? 1e-4 : 1e-10));
}

TEST_CASE("s4_kernel_backward: float keeps its digits where the low-rank part takes poles away from nodes")
{
    // With all nodes in float, gradients were off by up to 1e-2.
    for (const index rank : {1, 2, 3}) {
        for (const index length : {256, 511}) {
            INFO(rank << " " << length);
            const s4_problem<float> p = closed_fourier_problem(rank, length);
            const auto expected = p.wide();
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

TEMPLATE_TEST_CASE("s4_kernel_backward: a NaN stays with its channel and what that shares", "", float, double)
{
    s4_problem<TestType> p({.dim = 20, .copies = 20, .batch = 1});
    p.C(0, 7, 2) = quiet_nan<std::complex<TestType>>();
    s4_kernel_backward(p.backward());
    for_each_index(p.dA.view(), [&](index h, index n) { CHECK(is_nan(p.dA(h, n)) == (h == 7)); });
    s4_problem<TestType> shared({.dim = 6, .copies = 3});
    shared.dK(0, 4, 3) = quiet_nan<TestType>();
    s4_kernel_backward(shared.backward());
    for_each_index(shared.dC.view(), [&](index c, index h, index n) { CHECK(is_nan(shared.dC(c, h, n)) == (h == 4)); });
    for_each_index(shared.dB.view(), [&](index copy, index n) { CHECK(is_nan(shared.dB(copy, n)) == (copy == 1)); });
}

TEMPLATE_TEST_CASE("s4_kernel_backward: threads, workspaces and what they held change no bit", "", float, double)
{
    threads pool(3);
    const s4_shape s{.channels = 2, .dim = 21, .copies = 7, .batch = 1, .length = 40};
    const s4_problem<TestType> one(s);
    s4_problem<TestType> other(s);
    s4_kernel_backward(one.backward());
    std::vector<std::byte> memory(s4_kernel_backward_workspace_size(other.backward(), 4) + 1);
    for (int repeat = 0; repeat < 3; ++repeat) {
        other.make_outputs();
        std::fill(memory.begin(), memory.end(), std::byte(repeat == 0 ? 0xff : 0x7f));
        const workspace lent = workspace(memory).subspan(1);
        repeat < 2 ? s4_kernel_backward(other.backward(), lent, pool)
                   : s4_kernel_backward(other.backward(), lent, last_task_first{});
        check_same_bits(one, other);
    }
    CHECK(allocations_during([&] { s4_kernel_backward(other.backward(), workspace(memory)); }) == 0);
}

TEST_CASE("s4_kernel_backward: gradients that are not asked for change nothing")
{
    const s4_shape s{.channels = 2, .batch = 1};
    const s4_problem<float> all(s);
    s4_kernel_backward(all.backward());
    for (unsigned wanted = 0; wanted < 64; ++wanted) {
        const s4_problem<float> p(s);
        auto a = p.backward();
        if (!(wanted & 1u)) a.ddelta = {};
        if (!(wanted & 2u)) a.dA = {};
        if (!(wanted & 4u)) a.dB = {};
        if (!(wanted & 8u)) a.dP = {};
        if (!(wanted & 16u)) a.dC = {};
        if (!(wanted & 32u)) a.dinitial_state = {};
        s4_kernel_backward(a);
        if (wanted & 1u) CHECK(same_bits(p.ddelta, all.ddelta));
        if (wanted & 2u) CHECK(same_bits(p.dA, all.dA));
        if (wanted & 4u) CHECK(same_bits(p.dB, all.dB));
        if (wanted & 8u) CHECK(same_bits(p.dP, all.dP));
        if (wanted & 16u) CHECK(same_bits(p.dC, all.dC));
        if (wanted & 32u) CHECK(same_bits(p.dinitial_state, all.dinitial_state));
    }
}

TEMPLATE_TEST_CASE("s4_kernel_backward: nothing of anything", "", float, double)
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

TEST_CASE("s4_kernel_backward: names the argument that does not fit")
{
    const s4_problem<float> p({.copies = 1, .batch = 1});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward();
        spoil(a);
        const std::string said = complaint_of([&] { s4_kernel_backward(a); });
        INFO(said);
        CHECK(said.find(std::string("s4_kernel_backward: ") + text) == 0);
    };
    named("rate makes of the prepared length", [](auto& a) { a.forward.rate = 1e-15; });
    named("dK has shape", [](auto& a) { a.dK = a.dK.slice(1, 0, 2); });
    named("dP has shape", [](auto& a) { a.dP = a.dP.slice(2, 0, 2); });
    named("dC overlaps dB", [](auto& a) { a.dB = {a.dC.data(), a.dB.extents()}; });
    named("dK_state has shape", [](auto& a) { a.dK_state = a.dK_state.slice(3, 0, 2); });
    named("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 2); });
    named("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(0, 0, 0); });
    named("dA is written but", [](auto& a) { a.dA = {a.dA.data(), a.dA.extents(), {4, 0}}; });
    named("dC overlaps C", [&](auto& a) { a.dC = p.C; });
    std::vector<std::byte> small(s4_kernel_backward_workspace_size(p.backward()) - 1);
    const std::string said = complaint_of([&] { s4_kernel_backward(p.backward(), workspace(small)); });
    CHECK(said.find("s4_kernel_backward: workspace has") == 0);
}

}  // namespace ssmkit::testing
