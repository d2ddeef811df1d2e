#include <ssmkit/s4_backward.hpp>

#include <complex>
#include <string>
#include <vector>

#include <ssmkit/reference/s4.hpp>
#include <ssmkit/reference/s4_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "finite_differences.hpp"
#include "s4_layer_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-10 : 2e-5;

/// f(name, gradient of a, the same of b) for all gradients.
template <class A, class B, class F>
void for_each_gradient(const A& a, const B& b, F&& f)
{
    f("du", a.du, b.du);
    f("ddelta", a.ddelta, b.ddelta);
    f("dA", a.dA, b.dA);
    f("dB", a.dB, b.dB);
    f("dP", a.dP, b.dP);
    f("dC", a.dC, b.dC);
    f("dD", a.dD, b.dD);
}

template <class T>
void compare(const s4_layer_shape& s)
{
    INFO(s.text());
    const s4_layer_problem<T> p(s);
    const auto expected = p.wide();
    s4_backward(p.backward());
    reference::s4_backward(expected.backward());
    for_each_gradient(p, expected, [](const char* name, const auto& x, const auto& y) {
        INFO(name);
        using E = compute_t<T>;
        const double rounded = std::string(name) == "du" ? rounding<T> : 0;
        CHECK(relative_error(x, y) <= std::max(budget<E>, rounded));
        if (x.given()) CHECK(x.gaps_untouched());
    });
}

TEST_CASE("s4_backward: finite differences of the recurrence")
{
    for (const bool reverse : {false, true}) {
        s4_layer_shape s{.batch = 2, .length = 7, .dim = 2, .state = 2, .rank = 2, .copies = 1, .channels = 2, .prepared = 10};
        s.initial_state = s.tied = false;
        s.reverse = reverse;
        s.rate = 1.3;
        const s4_layer_problem<double> p(s);
        s4_backward(p.backward());
        const auto loss = [&] {
            auto a = p.args();
            a.final_state = {};
            reference::s4(a);
            return inner_product(p.y, p.dy);
        };
        CHECK(gradient_error(p.u, p.du, loss) < 1e-8);
        CHECK(gradient_error(p.delta, p.ddelta, loss, 1e-4) < 1e-6);
        CHECK(gradient_error(p.A, p.dA, loss) < 1e-8);
        CHECK(gradient_error(p.B, p.dB, loss) < 1e-8);
        CHECK(gradient_error(p.P, p.dP, loss) < 1e-8);
        CHECK(gradient_error(p.C, p.dC, loss) < 1e-8);
        CHECK(gradient_error(p.D, p.dD, loss) < 1e-8);
    }
}

TEMPLATE_TEST_CASE("s4_backward: agrees with the composed references", "", float, double, bfloat16)
{
    for (unsigned bits = 0; bits < 16; ++bits) {
        s4_layer_shape s{.length = bits % 2 ? 33 : 20, .dim = 4, .state = 3, .copies = 2, .prepared = bits % 3 ? 40 : 0};
        s.initial_state = false;
        s.D = bits & 1u, s.reverse = bits & 2u, s.tied = bits & 4u;
        s.rank = static_cast<index>(bits % 3);
        s.rate = bits & 8u ? 1.1 : 1;
        if (s.rate != 1) s.prepared = 60;
        s.form = all_layouts[bits % std::size(all_layouts)];
        compare<TestType>(s);
    }
    compare<TestType>({.batch = 0, .length = 5, .dim = 2, .copies = 1, .initial_state = false});
    compare<TestType>({.length = 5, .dim = 0, .copies = 1, .initial_state = false});
    compare<TestType>({.length = 5, .dim = 2, .copies = 1, .channels = 0, .initial_state = false});
}

TEST_CASE("s4_backward: writes what it is asked for, the same")
{
    s4_layer_shape s{.length = 40, .initial_state = false};
    const s4_layer_problem<float> all(s);
    s4_backward(all.backward());
    for (int only = 0; only < 7; ++only) {
        const s4_layer_problem<float> p(s);
        auto a = p.backward();
        if (only != 0) a.du = {};
        if (only != 1) a.ddelta = {};
        if (only != 2) a.dA = {};
        if (only != 3) a.dB = {};
        if (only != 4) a.dP = {};
        if (only != 5) a.dC = {};
        if (only != 6) a.dD = {};
        s4_backward(a);
        int i = 0;
        for_each_gradient(p, all, [&](const char* name, const auto& x, const auto& y) {
            INFO(name << ", only number " << only);
            if (i++ == only) {
                CHECK(same_bits(x, y));
            } else {
                for_each_index(x.view(), [&](auto... at) { CHECK(is_nan(x(at...))); });
            }
        });
    }
}

TEST_CASE("s4_backward: threads, workspaces and what they held change no bit")
{
    threads pool(3);
    const s4_layer_shape s{.length = 90, .dim = 21, .copies = 7, .initial_state = false};
    const s4_layer_problem<float> one(s), other(s);
    s4_backward(one.backward());
    const auto a = other.backward();
    std::vector<std::byte> memory(s4_backward_workspace_size(a, 4), std::byte{0xff});
    const auto compare_bits = [&] {
        for_each_gradient(one, other, [](const char* name, const auto& x, const auto& y) {
            INFO(name);
            CHECK(same_bits(x, y));
        });
    };
    s4_backward(a, memory, pool);
    compare_bits();
    std::fill(memory.begin(), memory.end(), std::byte{0x7f});
    s4_backward(a, memory, last_task_first{});
    compare_bits();
    memory.resize(s4_backward_workspace_size(a));
    CHECK(allocations_during([&] { s4_backward(a, memory); }) == 0);
    compare_bits();
    memory.pop_back();
    CHECK_THROWS_WITH(s4_backward(a, memory), Catch::Matchers::StartsWith("s4_backward: workspace has"));
}

TEST_CASE("s4_backward: names the argument that does not fit")
{
    const s4_layer_problem<float> p({.prepared = 80, .initial_state = false});
    const auto rejects = [&](auto&& change, const char* text) {
        auto a = p.backward();
        change(a);
        CHECK_THROWS_WITH(s4_backward(a), Catch::Matchers::StartsWith(text));
    };
    rejects([](auto& a) { a.forward.C = a.forward.C.slice(2, 0, 4); }, "s4_backward: C has shape");
    rejects([](auto& a) { a.forward.true_C = a.forward.C, a.forward.C = {}; }, "s4_backward: C is not given");
    rejects([](auto& a) { a.forward.prepared_length = 69; }, "s4_backward: u has a length above");
    rejects([&](auto& a) { a.forward.final_state = p.final_state; }, "s4_backward: forward has states");
    rejects([](auto& a) { a.dy = a.dy.slice(1, 0, 6); }, "s4_backward: dy has shape");
    rejects([](auto& a) { a.du = a.du.slice(2, 0, 5); }, "s4_backward: du has shape");
    rejects([](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 5); }, "s4_backward: ddelta has shape");
    rejects([](auto& a) { a.dA = a.dA.slice(1, 0, 4); }, "s4_backward: dA has shape");
    rejects([](auto& a) { a.dB = a.dB.slice(1, 0, 4); }, "s4_backward: dB has shape");
    rejects([](auto& a) { a.dP = a.dP.slice(1, 0, 2); }, "s4_backward: dP has shape");
    rejects([](auto& a) { a.dC = a.dC.slice(0, 0, 1); }, "s4_backward: dC has shape");
    rejects([](auto& a) { a.dD = a.dD.slice(1, 0, 5); }, "s4_backward: dD has shape");
    rejects([](auto& a) { a.dB = {a.dC.data(), a.dB.extents()}; }, "s4_backward: dC overlaps dB");
    rejects([](auto& a) { a.forward.u = view<const float, 3>(a.du.data(), a.du.extents()); }, "s4_backward: du overlaps u");
}

}  // namespace
}  // namespace ssmkit::testing
