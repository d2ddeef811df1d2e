#include <ssmkit/s5_backward.hpp>

#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/reference/s5.hpp>
#include <ssmkit/reference/s5_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s5_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-12 : 1e-5;

/// du is stored as T, twice where a second scan adds to what the first has stored.
template <class T>
constexpr double rounded = sizeof(T) == 2 ? 2 * rounding<T> : 0;

/// Runs kernel and 64-bit reference on the same numbers and compares.
template <class T>
void compare(const s5_setup& s)
{
    INFO(s.text());
    const s5_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    s5_backward(p.backward_args());
    reference::s5_backward(expected.backward_args());
    p.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
        INFO(name);
        CHECK(relative_error(got, want) <= budget<T> + rounded<T>);
    });
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

constexpr unsigned step = SSMKIT_SAMPLED_TESTS ? 11 : 1;

constexpr layout both[] = {layout::row_major, layout::time_contiguous};

/// Σ y dy + Re Σ final_state conj(dfinal_state): what the gradients are gradients of.
double loss(const s5_problem<double>& p)
{
    reference::s5(p.args());
    double sum = 0;
    for_each_index(p.y.view(), [&](auto... i) { sum += p.y(i...) * p.dy(i...); });
    if (p.dfinal_state.given()) {
        for_each_index(p.final_state.view(),
                       [&](auto... i) { sum += (p.final_state(i...) * std::conj(p.dfinal_state(i...))).real(); });
    }
    return sum;
}

}  // namespace

TEST_CASE("s5_backward: the reference's gradients are those of its forward pass")
{
    for (unsigned options = 0; options < 1u << s5_setup::options; options += 7) {
        for (const discretization method : {all_methods[options % 6], discretization::zoh}) {
            const s5_problem<double> p(
                s5_setup{.batch = 2, .length = 5, .dim = 2, .state = 2, .out = 2, .method = method}.with_options(options));
            INFO(p.s.text());
            reference::s5_backward(p.backward_args());
            const auto agrees = [&](const char* name, const auto& x, const auto& gradient) {
                if (!x.given()) return;
                INFO(name);
                using E = std::remove_cvref_t<decltype(*x.view().data())>;
                const double h = 1e-4;
                const auto slope = [&](E& at, E direction) {  // to the fourth order
                    const E middle = at;
                    const auto moved = [&](double by) {
                        at = middle + by * direction;
                        const double value = loss(p);
                        at = middle;
                        return value;
                    };
                    return (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
                };
                tensor<E, 3> measured({x.view().size(), 1, 1}), stated({x.view().size(), 1, 1});
                index k = 0;
                for_each_index(x.view(), [&](auto... i) {
                    E value = slope(x(i...), E(1));
                    if constexpr (detail::is_complex<E>) value += E(0, slope(x(i...), E(0, 1)));
                    measured(k, 0, 0) = value;
                    stated(k++, 0, 0) = gradient(i...);
                });
                CHECK(relative_error(stated, measured) <= 1e-7);
            };
            agrees("u", p.u, p.du), agrees("A", p.A, p.dA), agrees("B", p.B, p.dB), agrees("C", p.C, p.dC), agrees("D", p.D, p.dD);
            agrees("delta", p.delta, p.ddelta), agrees("interval", p.interval, p.dinterval);
            agrees("initial_state", p.initial_state, p.dinitial_state);
        }
    }
}

TEMPLATE_TEST_CASE("s5_backward: agrees with the reference, whatever is switched on, in any layout", "", float, double, bfloat16)
{
    for (unsigned options = 0; options < 1u << s5_setup::options; options += step) {
        const layout inputs = all_layouts[options % 6], outputs = all_layouts[options / 6 % 6];
        compare<TestType>(s5_setup{.inputs = inputs, .outputs = outputs}.with_options(options));
    }
}

TEMPLATE_TEST_CASE("s5_backward: every method, of tokens at equal and at any distance", "", float, double)
{
    for (const discretization method : all_methods) {
        for (const bool events : {false, true}) {
            for (const bool bidirectional : {false, true}) {
                compare<TestType>(
                    {.state = 19, .events = events, .initial_state = true, .bidirectional = bidirectional, .method = method});
            }
        }
    }
}

TEMPLATE_TEST_CASE("s5_backward: every number of tokens, channels, states and outputs", "", float, double)
{
    for (const index n : s5_sizes) {
        for (const bool events : {false, true}) {
            const s5_setup s{.length = 9, .events = events, .initial_state = true, .packed = true, .reverse = n % 3 == 0};
            for (index s5_setup::*axis : {&s5_setup::batch, &s5_setup::length, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
                s5_setup with = s;
                with.*axis = n;
                compare<TestType>(with);
            }
        }
    }
}

TEMPLATE_TEST_CASE("s5_backward: a NaN reaches exactly the gradients that depend on it", "", float, double)
{
    random numbers(3);
    for (unsigned options = 0; options < 1u << s5_setup::options; options += step) {
        s5_problem<TestType> p(s5_setup{.state = 19}.with_options(options));
        INFO(p.s.text());
        const index b = numbers.below(2), t = numbers.below(p.s.length);
        switch (numbers.below(3)) {
        case 0: p.u(b, t, numbers.below(p.s.dim)) = quiet_nan<TestType>(); break;
        case 1: p.dy(b, t, numbers.below(p.s.out)) = quiet_nan<TestType>(); break;
        default:
            if (p.s.initial_state) p.dfinal_state(b, numbers.below(19)) = quiet_nan<std::complex<TestType>>();
        }
        const auto expected = p.wide();
        s5_backward(p.backward_args());
        reference::s5_backward(expected.backward_args());
        p.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
            INFO(name);
            if (got.given()) CHECK(same_nans(got, want));
        });
    }
}

TEST_CASE("s5_backward: gradients that are not asked for change nothing")
{
    const s5_setup s{.out = 5, .events = true, .D = true, .initial_state = true};
    const s5_problem<float> all(s);
    s5_backward(all.backward_args());
    for (int wanted = 0; wanted < 8; ++wanted) {
        const s5_problem<float> p(s);
        s5_backward_args<float> a{.forward = p.backward_args().forward, .dy = p.dy.view(), .dfinal_state = p.dfinal_state.view()};
        const auto full = p.backward_args();
        switch (wanted) {
        case 0: a.dA = full.dA; break;
        case 1: a.ddelta = full.ddelta; break;
        case 2: a.dinterval = full.dinterval; break;
        case 3: a.dB = full.dB; break;
        case 4: a.dC = full.dC; break;
        case 5: a.dD = full.dD; break;
        case 6: a.du = full.du; break;
        default: a.dinitial_state = full.dinitial_state;
        }
        s5_backward(a);
        int number = 0;
        const int order[] = {6, 3, 4, 0, 1, 5, 2, 7};
        p.for_each_gradient(all, [&](const char* name, const auto& got, const auto& complete) {
            INFO(name);
            if (order[number++] == wanted) CHECK(same_bits(got, complete));
        });
    }
}

TEMPLATE_TEST_CASE("s5_backward: threads and what the workspace held before change no bit", "", float, bfloat16)
{
    threads pool(3);
    for (const index batch : {1, 3}) {
        for (const bool bidirectional : {false, true}) {
            const s5_setup s{.batch = batch,
                             .length = 900,
                             .dim = 35,
                             .state = 40,
                             .out = 37,
                             .events = bidirectional,
                             .initial_state = true,
                             .packed = true,
                             .bidirectional = bidirectional};
            const s5_problem<TestType> one(s);
            s5_backward(one.backward_args());
            const auto agrees = [&](auto&& run) {
                const s5_problem<TestType> p(s);
                run(p.backward_args());
                p.for_each_gradient(one, [&](const char* name, const auto& got, const auto& want) {
                    INFO(name);
                    if (got.given()) CHECK(same_bits(got, want));
                });
            };
            agrees([&](const auto& a) { s5_backward(a, pool); });
            agrees([&](const auto& a) { s5_backward(a, last_task_first{}); });
            for (const int poison : {0x7f, 0xff}) {
                agrees([&](const auto& a) {
                    std::vector<std::byte> memory(s5_backward_workspace_size(a), static_cast<std::byte>(poison));
                    s5_backward(a, memory);
                });
            }
        }
    }
}

TEST_CASE("s5_backward: sums over many tokens keep their digits")
{
    // With a hold, the response to a constant does not depend on delta: its gradient would be a difference of equal numbers.
    const s5_setup s{.batch = 1, .length = 30000, .dim = 2, .state = 3, .out = 2, .method = discretization::dirac};
    s5_problem<float> p(s);
    p.u.fill([](auto...) { return 1.0f; });
    p.dy.fill([](auto...) { return 1.0f; });
    const auto expected = p.wide();
    s5_backward(p.backward_args());
    reference::s5_backward(expected.backward_args());
    p.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
        INFO(name);
        CHECK(relative_error(got, want) <= 1e-5);
    });
}

TEST_CASE("s5_backward: allocates nothing when lent a workspace, and refuses one that is too small")
{
    const s5_problem<float> p({.events = true, .initial_state = true, .packed = true});
    std::vector<std::byte> memory(s5_backward_workspace_size(p.backward_args()));
    CHECK(allocations_during([&] { s5_backward(p.backward_args(), memory); }) == 0);
    memory.pop_back();
    CHECK_THROWS_AS(s5_backward(p.backward_args(), memory), shape_error);
}

TEMPLATE_TEST_CASE("s5_backward: touches nothing outside its arguments", "", float, bfloat16, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : both) {
            for (const index n : {1, 3, 8, 9, 16, 17, 33, 65}) {
                for (index s5_setup::*axis : {&s5_setup::length, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
                    s5_setup s{.length = 10,
                               .events = true,
                               .initial_state = true,
                               .packed = true,
                               .inputs = form,
                               .outputs = form,
                               .edge = edge};
                    s.*axis = n;
                    compare<TestType>(s);
                }
            }
        }
    }
}

TEST_CASE("s5_backward: names the argument that does not fit")
{
    const s5_problem<float> p({.out = 5, .events = true, .D = true, .initial_state = true, .packed = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        std::string said;
        try {
            s5_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("s5_backward: ") + text) == 0);
    };
    named("B has shape", [](auto& a) { a.forward.B = a.forward.B.slice(1, 0, 1); });
    named("dy has shape", [](auto& a) { a.dy = a.dy.slice(1, 0, 1); });
    named("dfinal_state has shape", [](auto& a) { a.dfinal_state = a.dfinal_state.slice(1, 0, 1); });
    named("dA has shape", [](auto& a) { a.dA = a.dA.slice(0, 0, 1); });
    named("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 1); });
    named("dinterval has shape", [](auto& a) { a.dinterval = a.dinterval.slice(1, 0, 1); });
    named("dB has shape", [](auto& a) { a.dB = a.dB.slice(1, 0, 1); });
    named("dC has shape", [](auto& a) { a.dC = a.dC.slice(1, 0, 1); });
    named("dD has shape", [](auto& a) { a.dD = a.dD.slice(0, 0, 1); });
    named("du has shape", [](auto& a) { a.du = a.du.slice(1, 0, 1); });
    named("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(1, 0, 1); });
    named("ddelta is asked for although", [](auto& a) { a.forward.delta = {}, a.forward.interval = {}; });
    named("dinterval is asked for although", [](auto& a) { a.forward.interval = {}; });
    named("dD is asked for although", [](auto& a) { a.forward.D = {}; });
    named("du overlaps u", [](auto& a) { a.du = {const_cast<float*>(a.forward.u.data()), a.forward.u.extents()}; });
    named("du overlaps dy", [](auto& a) { a.du = {const_cast<float*>(a.dy.data()), a.dy.extents()}; });
    named("dB is written but", [](auto& a) { a.dB = {a.dB.data(), a.dB.extents(), {0, 1}}; });
}

}  // namespace ssmkit::testing
