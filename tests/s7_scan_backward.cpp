#include <ssmkit/s7_scan_backward.hpp>

#include <string>

#include <ssmkit/reference/s7_scan.hpp>
#include <ssmkit/reference/s7_scan_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s7_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const s7_setup& s)
{
    INFO(s.text());
    const s7_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    s7_scan_backward(p.backward_args());
    reference::s7_scan_backward(expected.backward_args());
    p.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
        INFO(name);
        CHECK(relative_error(got, want) <= (std::is_same_v<T, double> ? 1e-13 : 1e-5) + (sizeof(T) == 2 ? rounding<T> : 0));
    });
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("s7_scan_backward: the reference's gradients are those of its forward pass")
{
    const s7_problem<double> p({.length = 4, .dim = 2, .state = 2, .out = 2, .bias = true, .initial_state = true});
    reference::s7_scan_backward(p.backward_args());
    const auto loss = [&] {
        reference::s7_scan(p.args());
        double sum = 0;
        for_each_index(p.y.view(), [&](auto... i) { sum += p.y(i...) * p.dy(i...); });
        for_each_index(p.final_state.view(), [&](auto... i) { sum += p.final_state(i...) * p.dfinal_state(i...); });
        return sum;
    };
    const auto agrees = [&](const char* name, const auto& x, const auto& gradient) {
        INFO(name);
        for_each_index(x.view(), [&](auto... i) {
            const double middle = x(i...), h = 1e-3;
            const auto moved = [&](double by) {
                x(i...) = middle + by;
                const double value = loss();
                x(i...) = middle;
                return value;
            };
            const double slope = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
            CHECK(std::abs(slope - gradient(i...)) <= 1e-7 * (1 + std::abs(slope)));
        });
    };
    agrees("u", p.u, p.du), agrees("A", p.A, p.dA), agrees("B", p.B, p.dB), agrees("C", p.C, p.dC), agrees("bias", p.bias, p.dbias);
    agrees("initial_state", p.initial_state, p.dinitial_state);
}

TEMPLATE_TEST_CASE("s7_scan_backward: agrees with the reference, any layout and size", "", float, double, bfloat16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            for (const bool more : {false, true}) {
                compare<TestType>({.state = 19, .bias = more, .initial_state = more, .inputs = inputs, .outputs = outputs});
            }
        }
    }
    for (const index n : s7_sizes) {
        for (index s7_setup::*axis : {&s7_setup::batch, &s7_setup::length, &s7_setup::dim, &s7_setup::state, &s7_setup::out}) {
            s7_setup s{.length = 9, .bias = true, .initial_state = true};
            s.*axis = n;
            compare<TestType>(s);
        }
    }
}

TEST_CASE("s7_scan_backward: gradients that are not asked for change nothing")
{
    const s7_setup s{.bias = true, .initial_state = true};
    const s7_problem<float> all(s);
    s7_scan_backward(all.backward_args());
    for (int wanted = 0; wanted < 6; ++wanted) {
        const s7_problem<float> p(s);
        const auto full = p.backward_args();
        s7_scan_backward_args<float> a{.forward = full.forward, .dy = full.dy, .dfinal_state = full.dfinal_state};
        switch (wanted) {
        case 0: a.du = full.du; break;
        case 1: a.dA = full.dA; break;
        case 2: a.dB = full.dB; break;
        case 3: a.dC = full.dC; break;
        case 4: a.dbias = full.dbias; break;
        default: a.dinitial_state = full.dinitial_state;
        }
        s7_scan_backward(a);
        int number = 0;
        p.for_each_gradient(all, [&](const char* name, const auto& got, const auto& complete) {
            INFO(name);
            if (number++ == wanted) CHECK(same_bits(got, complete));
        });
    }
}

TEST_CASE("s7_scan_backward: threads and what the workspace held before change no bit, nothing is allocated")
{
    threads pool(3);
    const s7_setup s{.length = 700, .state = 35, .initial_state = true};
    const s7_problem<float> one(s), several(s), other(s), lent(s);
    s7_scan_backward(one.backward_args());
    s7_scan_backward(several.backward_args(), pool);
    s7_scan_backward(other.backward_args(), last_task_first{});
    std::vector<std::byte> memory(s7_scan_backward_workspace_size(lent.backward_args()), std::byte{0xff});
    CHECK(allocations_during([&] { s7_scan_backward(lent.backward_args(), memory); }) == 0);
    for (const auto* p : {&several, &other, &lent}) {
        p->for_each_gradient(one, [&](const char* name, const auto& got, const auto& want) {
            INFO(name);
            CHECK(same_bits(got, want));
        });
    }
    memory.pop_back();
    CHECK_THROWS_AS(s7_scan_backward(lent.backward_args(), memory), shape_error);
}

TEMPLATE_TEST_CASE("s7_scan_backward: touches nothing outside its arguments", "", float, bfloat16, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 3, 8, 9, 16, 17, 33}) {
            for (index s7_setup::*axis : {&s7_setup::length, &s7_setup::dim, &s7_setup::state, &s7_setup::out}) {
                s7_setup s{.length = 10, .bias = true, .initial_state = true, .edge = edge};
                s.*axis = n;
                compare<TestType>(s);
            }
        }
    }
}

TEST_CASE("s7_scan_backward: names the argument that does not fit")
{
    const s7_problem<float> p({.bias = true, .initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        std::string said;
        try {
            s7_scan_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("s7_scan_backward: ") + text) == 0);
    };
    named("B has shape", [](auto& a) { a.forward.B = a.forward.B.slice(2, 0, 1); });
    named("dy has shape", [](auto& a) { a.dy = a.dy.slice(2, 0, 1); });
    named("du has shape", [](auto& a) { a.du = a.du.slice(2, 0, 1); });
    named("dA has shape", [](auto& a) { a.dA = a.dA.slice(2, 0, 1); });
    named("dB has shape", [](auto& a) { a.dB = a.dB.slice(2, 0, 1); });
    named("dC has shape", [](auto& a) { a.dC = a.dC.slice(2, 0, 1); });
    named("dbias has shape", [](auto& a) { a.dbias = a.dbias.slice(2, 0, 1); });
    named("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(1, 0, 1); });
    named("dbias overlaps dA", [](auto& a) { a.dbias = a.dA; });
}

}  // namespace ssmkit::testing
