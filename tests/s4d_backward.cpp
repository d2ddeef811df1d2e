#include <ssmkit/s4d_backward.hpp>

#include <algorithm>
#include <limits>
#include <vector>

#include <ssmkit/reference/s4d.hpp>
#include <ssmkit/reference/s4d_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "finite_differences.hpp"
#include "s4d_layer_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-12 : 1e-5;

template <class T>
void check_gradients(const s4d_layer_backward_problem<T>& q, const s4d_layer_backward_problem<double>& expected,
                     double allowance = 1)
{
    INFO(q.p.s.text());
    q.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
        INFO(name);
        const double rounded = sizeof(T) == 2 && std::string(name) == "du" ? rounding<T> : 0;
        REQUIRE(relative_error(got, want) <= allowance * budget<T> + rounded);
        REQUIRE(got.gaps_untouched());
    });
}

template <class T>
void compare(const s4d_layer_setup& s, double allowance = 1)
{
    const s4d_layer_backward_problem<T> q(s);
    const auto expected = q.wide();
    auto a = q.args();
    a.forward.form = s4d_form::states;
    s4d_backward(a);
    reference::s4d_backward(expected.args());
    check_gradients(q, expected, allowance);
}

template <class T>
void require_same(const s4d_layer_backward_problem<T>& a, const s4d_layer_backward_problem<T>& b)
{
    a.for_each_gradient(b, [](const char* name, const auto& x, const auto& y) {
        INFO(name);
        REQUIRE(same_bits(x.view(), y.view()));
    });
}

constexpr unsigned options = 1u << s4d_layer_setup::options;

}  // namespace

TEST_CASE("s4d_backward: two steps by hand")
{
    // z = -2/3 by the bilinear method: λ = 1/2, β = 3/8, so that states are 4, 5, 32.5.
    const std::vector<double> u{1, 10}, delta{0.5}, D{100}, dy{1, 1};
    const std::vector<std::complex<double>> A{-4.0 / 3}, B{8.0}, C{{2.0, 1.0}}, x{4.0}, last{0.5};
    std::vector<double> du(2), dD(1);
    std::vector<std::complex<double>> dB(1), dC(1), first(1);
    s4d_backward_args<double> a;
    a.forward = {.u = {u, 1, 2, 1}, .delta = {delta, 1, 1}, .A = {A, 1, 1}, .B = {B, 1, 1}, .C = {C, 1, 1, 1}, .D = {D, 1, 1}};
    a.forward.method = s4d_discretization::bilinear;
    a.forward.conjugate_pairs = false;
    a.forward.initial_state = {x, 1, 1, 1};
    a.dy = {dy, 1, 2, 1};
    a.dfinal_state = {last, 1, 1, 1};
    a.du = {du, 1, 2, 1};
    a.dB = {dB, 1, 1};
    a.dC = {dC, 1, 1, 1};
    a.dD = {dD, 1, 1};
    a.dinitial_state = {first, 1, 1, 1};
    const auto check_answer = [&] {  // gradients of the states, from the last: 2.5 - i, 3.25 - 1.5 i
        CHECK(du[1] == Approx(3 * 2.5 + 100));
        CHECK(du[0] == Approx(3 * 3.25 + 100));
        CHECK(std::abs(first[0] - std::complex<double>(1.625, -0.75)) < 1e-12);
        CHECK(std::abs(dC[0] - 37.5) < 1e-12);
        CHECK(std::abs(dB[0] - 0.375 * std::complex<double>(28.25, -11.5)) < 1e-12);
        CHECK(dD[0] == Approx(11));
    };
    s4d_backward(a);
    check_answer();
    reference::s4d_backward(a);
    check_answer();
}

TEMPLATE_TEST_CASE("s4d_backward: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned bits = 0; bits < options; ++bits) {
        for (const layout form : all_layouts) {
            s4d_layer_setup s = s4d_layer_setup{.form = form}.with_options(bits);
            s.method = bits % 4 < 2 ? s4d_discretization::zoh : s4d_discretization::bilinear;
            s.rate = bits % 3 == 0 ? 1 : 0.5;
            compare<TestType>(s);
        }
    }
}

TEMPLATE_TEST_CASE("s4d_backward: every size", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index length : {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 290, 1023, 1025, 1100, 2080}) {
            for (const index state : {0, 1, 7, 8, 9, 16, 33}) {
                s4d_layer_setup s{.batch = 1, .length = length, .dim = 1, .state = state, .copies = 1, .channels = 1, .form = form};
                s.edge = length % 2 ? guard::below : guard::above;
                s.seed = static_cast<std::uint64_t>(100 * length + state);
                compare<TestType>(s, 4);
            }
        }
        for (const index dim : {0, 1, 2, 15, 16, 17, 33}) {
            s4d_layer_setup s{.length = 40, .dim = dim, .state = 3, .copies = 1, .channels = 1, .form = form};
            s.edge = dim % 2 ? guard::below : guard::above;
            compare<TestType>(s);
            s.channels = dim % 4;
            s.batch = dim % 3;
            compare<TestType>(s);
        }
    }
    compare<TestType>({.batch = 150, .dim = 3, .channels = 1}, 4);  // sums of several sequences at a time
}

TEMPLATE_TEST_CASE("s4d_backward: the convolution gives the same", "", float, double, bfloat16)
{
    for (unsigned bits = 0; bits < options; ++bits) {
        for (const layout form : all_layouts) {
            s4d_layer_setup s = s4d_layer_setup{.length = bits % 3 == 0 ? 300 : 77, .form = form}.with_options(bits);
            s.initial_state = false;
            s.method = bits % 4 < 2 ? s4d_discretization::zoh : s4d_discretization::bilinear;
            const s4d_layer_backward_problem<TestType> q(s);
            const auto expected = q.wide();
            reference::s4d_backward(expected.args());
            auto a = q.args();
            a.forward.form = s4d_form::convolution;
            s4d_backward(a);
            check_gradients(q, expected);
        }
    }
    // Without outputs, gradients are zeros.
    const s4d_layer_backward_problem<TestType> none({.length = 9, .channels = 0, .initial_state = false});
    const auto zeros = none.wide();
    reference::s4d_backward(zeros.args());
    auto without = none.args();
    without.forward.form = s4d_form::convolution;
    s4d_backward(without);
    check_gradients(none, zeros);
    // The kernel's gradient asks for more memory than the transforms.
    for (const index length : {0, 1, 250}) {
        s4d_layer_setup s{.batch = length == 1 ? 0 : 1, .length = length, .dim = 300, .state = 100, .initial_state = false};
        s.form = layout::time_contiguous;
        const s4d_layer_backward_problem<TestType> q(s);
        const auto expected = q.wide();
        reference::s4d_backward(expected.args());
        auto a = q.args();
        a.forward.form = s4d_form::convolution;
        std::vector<std::byte> memory(s4d_backward_workspace_size(a), std::byte{0xff});
        CHECK(allocations_during([&] { s4d_backward(a, memory); }) == 0);
        check_gradients(q, expected);
    }
}

TEMPLATE_TEST_CASE("s4d_backward: chooses the convolution, but not for long sequences through few states", "", float, bfloat16)
{
    for (const index state : {16, 17}) {
        for (const index length : {2047, 2048}) {
            for (const index batch : {1, 2}) {
                const s4d_layer_setup s{.batch = batch, .length = length, .dim = 3, .state = state, .initial_state = false};
                const s4d_layer_backward_problem<TestType> q(s), other(s);
                auto a = other.args();
                const bool few = batch == 1 && length == 2048 && state == 16;
                a.forward.form = few ? s4d_form::states : s4d_form::convolution;
                s4d_backward(a);
                s4d_backward(q.args());
                require_same(q, other);
            }
        }
    }
}

TEMPLATE_TEST_CASE("s4d_backward: chooses the convolution only for numbers", "", float, bfloat16)
{
    threads pool(3);
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
        for (const bool reverse : {false, true}) {
            const s4d_layer_setup s{.length = 300, .state = 20, .initial_state = false, .reverse = reverse, .form = form};
            const s4d_layer_backward_problem<TestType> convolved(s), states(s), q(s);
            const auto run = [](const auto& problem, s4d_form which, auto&&... rest) {
                auto a = problem.args();
                a.forward.form = which;
                s4d_backward(a, rest...);
            };
            run(convolved, s4d_form::convolution);
            run(states, s4d_form::states);
            CHECK(!same_bits(convolved.dC, states.dC));  // or the next lines say nothing
            run(q, s4d_form::automatic);
            require_same(q, convolved);
            q.spoil();
            run(q, s4d_form::automatic, pool);
            require_same(q, convolved);
            std::vector<std::byte> memory(s4d_backward_workspace_size(q.args()), std::byte{0xff});
            q.spoil();
            CHECK(allocations_during([&] { run(q, s4d_form::automatic, memory); }) == 0);
            require_same(q, convolved);

            q.dy(1, 200, 3) = static_cast<TestType>(std::numeric_limits<float>::infinity());
            run(q, s4d_form::automatic);
            for_each_index(q.du.view(), [&](index b, index t, index h) {
                const bool depends = b == 1 && h == 3 && (reverse ? t >= 200 : t <= 200);
                REQUIRE(std::isfinite(convert<double>(q.du(b, t, h))) == !depends);
            });
            for_each_index(q.dC.view(), [&](index c, index h, index n) {
                REQUIRE(std::isfinite(std::abs(q.dC(c, h, n))) == !(c == 0 && h == 3));
            });
        }
    }
}

TEST_CASE("s4d_backward: slow poles over 131072 tokens")
{
    s4d_layer_setup s{.batch = 1, .length = 131072, .dim = 1, .state = 16, .copies = 1, .channels = 1};
    s.form = layout::time_contiguous;
    for (const auto form : {s4d_form::states, s4d_form::convolution}) {
        s.initial_state = form == s4d_form::states;
        s4d_layer_backward_problem<float> q(s);
        q.p.delta.fill([](index, index) { return 1e-3; });
        q.p.A.fill([](index, index n) { return std::complex<double>(-0.5, 3.14159265 * static_cast<double>(n)); });
        q.p.B.fill([](index, index) { return std::complex<float>(1); });
        const auto expected = q.wide();
        reference::s4d_backward(expected.args());
        auto a = q.args();
        a.forward.form = form;
        s4d_backward(a);
        check_gradients(q, expected);
    }
}

TEMPLATE_TEST_CASE("s4d_backward: a sequence may be cut anywhere", "", float, double)
{
    for (const bool reverse : {false, true}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            const s4d_layer_backward_problem<TestType> q({.length = 100, .reverse = reverse, .form = form});
            s4d_backward(q.args());
            for (const index cut : {0, 1, 31, 32, 50, 99, 100}) {
                INFO("cut at " << cut);
                s4d_layer_backward_problem<TestType> first(q.p.s), second(q.p.s);
                const auto part = [&](const auto& of, index begin, index count) {
                    auto a = of.args();
                    for (auto* v : {&a.forward.u, &a.dy}) *v = v->slice(1, begin, count);
                    a.du = a.du.slice(1, begin, count);
                    return a;
                };
                const index rest = q.p.s.length - cut;
                auto earlier = part(first, reverse ? rest : 0, cut), later = part(second, reverse ? 0 : cut, rest);
                auto forward = earlier.forward;
                forward.y = first.p.y.view().slice(1, 0, cut);
                forward.final_state = first.p.final_state;
                s4d(forward);
                later.forward.initial_state = forward.final_state;
                s4d_backward(later);
                earlier.dfinal_state = later.dinitial_state;
                s4d_backward(earlier);
                CHECK(relative_error(first.dinitial_state, q.dinitial_state) <= budget<TestType>);
                for_each_index(q.dC.view(), [&](auto... i) { first.dC(i...) += second.dC(i...); });
                for_each_index(q.dA.view(), [&](auto... i) { first.dA(i...) += second.dA(i...); });
                CHECK(relative_error(first.dC, q.dC) <= budget<TestType>);
                CHECK(relative_error(first.dA, q.dA) <= budget<TestType>);
                const auto du_of = [&](const auto& a) { return a.du; };
                const auto whole = q.args().du;
                CHECK(relative_error(du_of(earlier), whole.slice(1, reverse ? rest : 0, cut)) <= 4 * budget<TestType>);
                CHECK(relative_error(du_of(later), whole.slice(1, reverse ? 0 : cut, rest)) <= 4 * budget<TestType>);
            }
        }
    }
}

TEMPLATE_TEST_CASE("s4d_backward: a NaN reaches exactly what depends on it", "", float, double, bfloat16)
{
    using complex = std::complex<compute_t<TestType>>;
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const bool reverse : {false, true}) {
            for (index what = 0; what < 16; ++what) {
                const s4d_layer_backward_problem<TestType> q({.reverse = reverse, .tied = false, .form = form});
                const s4d_layer_problem<TestType>& p = q.p;
                if (what == 0) p.delta(1, 3) = quiet_nan<double>();
                if (what == 1) p.A(1, 4) = quiet_nan<std::complex<double>>();
                if (what == 2) p.B(0, 3) = quiet_nan<complex>();
                if (what == 3) p.C(1, 2, 0) = quiet_nan<complex>();
                if (what == 4) p.D(1, 2) = quiet_nan<compute_t<TestType>>();
                if (what == 5) p.initial_state(1, 0, 4) = quiet_nan<complex>();
                if (what == 6) q.dfinal_state(1, 0, 4) = quiet_nan<complex>();
                const index at[] = {0, 1, 31, 32, 47, 64, 69};
                if (what == 7) p.u(1, 40, 2) = quiet_nan<TestType>();
                if (what == 8) p.u(1, 66, 2) = quiet_nan<TestType>();
                if (what >= 9) q.dy(1, at[what - 9], 6 + 2) = quiet_nan<TestType>();
                INFO(what << " reverse " << reverse);
                const auto expected = q.wide();
                s4d_backward(q.args());
                reference::s4d_backward(expected.args());
                q.for_each_gradient(expected, [](const char* name, const auto& got, const auto& want) {
                    INFO(name);
                    CHECK(same_nans(got, want));
                });
            }
        }
    }
}

TEMPLATE_TEST_CASE("s4d_backward: threads change no bit, nor does what the workspace held", "", float, bfloat16)
{
    threads pool(3);
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index dim : {1, 2, 40}) {
            const s4d_layer_setup s{.length = 300, .dim = dim, .copies = 1, .form = form};
            const s4d_layer_backward_problem<TestType> one(s), q(s);
            s4d_backward(one.args());
            const auto again = [&](auto&& run) {
                q.spoil();
                run();
                require_same(q, one);
            };
            again([&] { s4d_backward(q.args(), pool); });
            again([&] { s4d_backward(q.args(), last_task_first{}); });
            const auto a = q.args();
            std::vector<std::byte> memory(s4d_backward_workspace_size(a), std::byte{0xff});
            again([&] { CHECK(allocations_during([&] { s4d_backward(a, memory); }) == 0); });
            memory.pop_back();
            CHECK_THROWS_WITH(s4d_backward(a, memory), Catch::Matchers::StartsWith("s4d_backward: workspace has"));
        }
    }
}

TEST_CASE("s4d_backward: gradients that are not asked for change nothing")
{
    for (const index state : {5, 20}) {
        for (const bool states : {true, false}) {
            const s4d_layer_setup s{.length = 300, .state = state, .initial_state = states};
            const s4d_layer_backward_problem<float> all(s);
            s4d_backward(all.args());
            for (unsigned wanted = 0; wanted < 128; ++wanted) {
                const s4d_layer_backward_problem<float> q(s);
                auto a = q.args();
                unsigned bit = 1;
                const auto maybe = [&](auto& gradient) {
                    if (!(wanted & bit)) gradient = {};
                    bit *= 2;
                };
                maybe(a.du), maybe(a.ddelta), maybe(a.dA), maybe(a.dB), maybe(a.dC), maybe(a.dD), maybe(a.dinitial_state);
                // Whether states are asked for decides the form; here it is the same for all.
                a.forward.form = states ? s4d_form::states : s4d_form::convolution;
                const auto before = q.dA.bytes();
                s4d_backward(a);
                INFO(wanted << " " << state << " " << states);
                if (wanted & 1u) REQUIRE(same_bits(q.du, all.du));
                if (wanted & 2u) REQUIRE(same_bits(q.ddelta, all.ddelta));
                if (wanted & 4u) REQUIRE(same_bits(q.dA, all.dA));
                else REQUIRE(q.dA.bytes() == before);
                if (wanted & 8u) REQUIRE(same_bits(q.dB, all.dB));
                if (wanted & 16u) REQUIRE(same_bits(q.dC, all.dC));
                if (wanted & 32u) REQUIRE(same_bits(q.dD, all.dD));
                if (states && (wanted & 64u)) REQUIRE(same_bits(q.dinitial_state, all.dinitial_state));
            }
        }
    }
}

TEST_CASE("s4d_backward: names the argument that does not fit")
{
    const s4d_layer_backward_problem<float> q(s4d_layer_setup{});
    const auto rejects = [&](const char* text, auto&& change) {
        auto a = q.args();
        change(a);
        const std::string said = complaint_of([&] { s4d_backward(a); });
        INFO(said);
        CHECK(said.find(std::string("s4d_backward: ") + text) == 0);
    };
    CHECK(complaint_of([&] { s4d_backward(q.args()); }).empty());
    rejects("C has shape", [](auto& a) { a.forward.C = a.forward.C.slice(2, 0, 4); });
    rejects("D has shape", [](auto& a) { a.forward.D = a.forward.D.slice(1, 0, 5); });
    rejects("method is dss", [](auto& a) { a.forward.method = s4d_discretization::dss; });
    rejects("dy has shape", [](auto& a) { a.dy = a.dy.slice(2, 0, 6); });
    rejects("dfinal_state has shape", [](auto& a) { a.dfinal_state = a.dfinal_state.slice(0, 0, 1); });
    rejects("du has shape", [](auto& a) { a.du = a.du.slice(1, 0, 1); });
    rejects("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 1); });
    rejects("ddelta is written but", [](auto& a) { a.ddelta = {a.ddelta.data(), a.ddelta.extents(), {0, 1}}; });
    rejects("dA has shape", [](auto& a) { a.dA = a.dA.slice(0, 0, 1); });
    rejects("dB has shape", [](auto& a) { a.dB = a.dB.slice(0, 0, 1); });
    rejects("dC has shape", [](auto& a) { a.dC = a.dC.slice(0, 0, 1); });
    rejects("dD has shape", [](auto& a) { a.dD = a.dD.slice(0, 0, 1); });
    rejects("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(0, 0, 1); });
    rejects("dC overlaps C", [&](auto& a) { a.dC = q.p.C; });
    rejects("du overlaps u", [&](auto& a) { a.du = q.p.u; });
    rejects("dinitial_state overlaps dfinal_state", [&](auto& a) { a.dinitial_state = q.dfinal_state; });
    rejects("initial_state is given, but a convolution", [](auto& a) { a.forward.form = s4d_form::convolution; });
    const auto stateless = [](auto& a) {
        a.forward.form = s4d_form::convolution;
        a.forward.initial_state = {};
    };
    rejects("dfinal_state is given, but a convolution", stateless);
    rejects("dinitial_state is asked for, but a convolution", [&](auto& a) {
        stateless(a);
        a.dfinal_state = {};
    });
}

}  // namespace ssmkit::testing
