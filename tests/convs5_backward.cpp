#include <ssmkit/convs5_backward.hpp>

#include <string>

#include <ssmkit/reference/convs5.hpp>
#include <ssmkit/reference/convs5_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "convs5_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const convs5_setup& s)
{
    INFO(s.text());
    const convs5_problem<T> p(s);
    const auto expected = p.wide();
    convs5_backward(p.backward_args());
    reference::convs5_backward(expected.backward_args());
    p.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
        INFO(name);
        CHECK(relative_error(got, want) <= (std::is_same_v<T, double> ? 1e-13 : 1e-5) + (sizeof(T) == 2 ? rounding<T> : 0));
    });
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("convs5_backward: the reference's gradients are those of its forward pass")
{
    const convs5_problem<double> p({.batch = 1,
                                    .length = 3,
                                    .height = 3,
                                    .width = 2,
                                    .state = 2,
                                    .in_rows = 2,
                                    .out_rows = 3,
                                    .out_columns = 2,
                                    .initial_state = true});
    reference::convs5_backward(p.backward_args());
    const auto loss = [&] {
        reference::convs5(p.args());
        double sum = 0;
        for_each_index(p.y.view(), [&](auto... i) { sum += p.y(i...) * p.dy(i...); });
        for_each_index(p.final_state.view(),
                       [&](auto... i) { sum += (p.final_state(i...) * std::conj(p.dfinal_state(i...))).real(); });
        return sum;
    };
    const auto agrees = [&](const char* name, const auto& x, const auto& gradient) {
        INFO(name);
        using E = std::remove_cvref_t<decltype(*x.view().data())>;
        for_each_index(x.view(), [&](auto... i) {
            const E middle = x(i...);
            const auto slope = [&](E direction) {
                const double h = 1e-3;
                const auto moved = [&](double by) {
                    x(i...) = middle + by * direction;
                    const double value = loss();
                    x(i...) = middle;
                    return value;
                };
                return (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
            };
            E measured(slope(E(1)));
            if constexpr (detail::is_complex<E>) measured += E(0, slope(E(0, 1)));
            CHECK(std::abs(measured - gradient(i...)) <= 1e-8 * (1 + std::abs(measured)));
        });
    };
    agrees("A", p.A, p.dA), agrees("B", p.B, p.dB), agrees("C", p.C, p.dC), agrees("u", p.u, p.du);
    agrees("initial_state", p.initial_state, p.dinitial_state);
}

TEMPLATE_TEST_CASE("convs5_backward: agrees with the reference, any layout and size", "", float, double, bfloat16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>(
                {.in_rows = 2, .out_rows = 3, .out_columns = 2, .initial_state = true, .inputs = inputs, .outputs = outputs});
        }
    }
    for (const convs5_setup& s : convs5_setups()) compare<TestType>(s);
    compare<TestType>({.batch = 1, .length = 17, .height = 15, .width = 16, .dim = 5, .out = 3, .out_rows = 3, .out_columns = 3});
}

TEST_CASE("convs5_backward: gradients that are not asked for change nothing")
{
    const convs5_setup s{.initial_state = true};
    const convs5_problem<float> all(s);
    convs5_backward(all.backward_args());
    for (int wanted = 0; wanted < 5; ++wanted) {
        const convs5_problem<float> p(s);
        const auto full = p.backward_args();
        convs5_backward_args<float> a{.forward = full.forward, .dy = full.dy, .dfinal_state = full.dfinal_state};
        switch (wanted) {
        case 0: a.dA = full.dA; break;
        case 1: a.dB = full.dB; break;
        case 2: a.dC = full.dC; break;
        case 3: a.du = full.du; break;
        default: a.dinitial_state = full.dinitial_state;
        }
        convs5_backward(a);
        int number = 0;
        p.for_each_gradient(all, [&](const char* name, const auto& got, const auto& complete) {
            INFO(name);
            if (number++ == wanted) CHECK(same_bits(got, complete));
        });
    }
}

TEST_CASE("convs5_backward: threads and what the workspace held before change no bit, nothing is allocated")
{
    threads pool(3);
    const convs5_setup s{.height = 9, .out_rows = 3, .initial_state = true};
    const convs5_problem<float> one(s), several(s), other(s), lent(s);
    convs5_backward(one.backward_args());
    convs5_backward(several.backward_args(), pool);
    convs5_backward(other.backward_args(), last_task_first{});
    std::vector<std::byte> memory(convs5_backward_workspace_size(lent.backward_args()), std::byte{0xff});
    CHECK(allocations_during([&] { convs5_backward(lent.backward_args(), memory); }) == 0);
    for (const auto* p : {&several, &other, &lent}) {
        p->for_each_gradient(one, [&](const char* name, const auto& got, const auto& want) {
            INFO(name);
            CHECK(same_bits(got, want));
        });
    }
    memory.pop_back();
    CHECK_THROWS_AS(convs5_backward(lent.backward_args(), memory), shape_error);
}

TEST_CASE("convs5_backward: names the argument that does not fit")
{
    const convs5_problem<float> p({.initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        std::string said;
        try {
            convs5_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("convs5_backward: ") + text) == 0);
    };
    named("B has shape", [](auto& a) { a.forward.B = a.forward.B.slice(2, 0, 1); });
    named("dy has shape", [](auto& a) { a.dy = a.dy.slice(4, 0, 1); });
    named("dA has shape", [](auto& a) { a.dA = a.dA.slice(0, 0, 1); });
    named("dB has shape", [](auto& a) { a.dB = a.dB.slice(0, 0, 1); });
    named("dC has shape", [](auto& a) { a.dC = a.dC.slice(3, 0, 1); });
    named("du has shape", [](auto& a) { a.du = a.du.slice(4, 0, 1); });
    named("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(1, 0, 1); });
    named("du overlaps dy", [](auto& a) { a.du = {const_cast<float*>(a.dy.data()), a.dy.extents()}; });
}

}  // namespace ssmkit::testing
