#include <ssmkit/s4d.hpp>

#include <chrono>
#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <vector>

#include <ssmkit/reference/s4d.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "complaint.hpp"
#include "layer_checks.hpp"
#include "s4d_layer_problem.hpp"

namespace ssmkit::testing {
namespace {

struct s4d_layer {
    template <class T>
    using problem = s4d_layer_problem<T>;
    using form = s4d_form;

    static constexpr auto run = [](const auto& a, auto&&... how) { s4d(a, how...); };
    static constexpr auto run_reference = [](const auto& a) { reference::s4d(a); };
    static constexpr auto workspace_size = [](const auto& a) { return s4d_workspace_size(a); };

    /// Of the largest result: for double what 70 steps of different order leave, for 16 bits the rounding of the output.
    template <class T>
    static constexpr double budget = std::is_same_v<T, double> ? 1e-13 : std::is_same_v<T, float> ? 2e-6 : rounding<T>;
};

TEST_CASE("s4d: two steps by hand")
{
    // z = -2/3 by the bilinear method: λ = 1/2, β = 3/8.
    const std::vector<double> u{1, 10}, delta{0.5}, D{100};
    const std::vector<std::complex<double>> A{-4.0 / 3}, B{8.0}, C{{2.0, 1.0}}, x{4.0};
    std::vector<double> y(2);
    std::vector<std::complex<double>> last(1);
    s4d_args<double> a{.u = {u, 1, 2, 1}, .delta = {delta, 1, 1}, .A = {A, 1, 1}, .B = {B, 1, 1}, .C = {C, 1, 1, 1}, .D = {D, 1, 1}};
    a.method = s4d_discretization::bilinear;
    a.initial_state = {x, 1, 1, 1};
    a.y = {y, 1, 2, 1};
    a.final_state = {last, 1, 1, 1};
    const auto check_answer = [&](double factor) {
        CHECK(std::abs(y[0] - (factor * 2 * 5 + 100)) < 1e-10);  // 4 / 2 + 3
        CHECK(std::abs(y[1] - (factor * 2 * 32.5 + 1000)) < 1e-10);
        CHECK(std::abs(last[0].real() - 32.5) < 1e-10);
    };
    s4d(a);
    check_answer(2);
    reference::s4d(a);
    check_answer(2);
    a.conjugate_pairs = false;
    s4d(a);
    check_answer(1);
}

TEMPLATE_TEST_CASE("s4d: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned options = 0; options < 1u << s4d_layer_setup::options; ++options) {
        for (const layout form : all_layouts) {
            s4d_layer_setup s = s4d_layer_setup{.form = form}.with_options(options);
            s.method = options % 4 < 2 ? s4d_discretization::zoh : s4d_discretization::bilinear;
            s.rate = options % 3 == 0 ? 1 : 0.5;
            check_layer<s4d_layer, TestType>(s);
        }
    }
}

TEMPLATE_TEST_CASE("s4d: every size", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index length : {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 290, 1023, 1025, 1100}) {
            for (const index state : {0, 1, 7, 8, 9, 16, 33}) {
                s4d_layer_setup s{.batch = 1, .length = length, .dim = 1, .state = state, .copies = 1, .channels = 1, .form = form};
                s.edge = length % 2 ? guard::below : guard::above;
                s.seed = static_cast<std::uint64_t>(100 * length + state);
                check_layer<s4d_layer, TestType>(s);
            }
        }
        for (const index dim : {0, 1, 2, 15, 16, 17, 33}) {
            s4d_layer_setup s{.length = 40, .dim = dim, .state = 3, .copies = 1, .channels = 1, .form = form};
            s.edge = dim % 2 ? guard::below : guard::above;
            check_layer<s4d_layer, TestType>(s);
            s.channels = 3;
            s.batch = dim % 3;
            check_layer<s4d_layer, TestType>(s);
        }
    }
}

TEMPLATE_TEST_CASE("s4d: the convolution gives the same", "", float, double, bfloat16)
{
    for (unsigned options = 0; options < 1u << s4d_layer_setup::options; ++options) {
        for (const layout form : all_layouts) {
            s4d_layer_setup s = s4d_layer_setup{.length = options % 3 == 0 ? 300 : 77, .form = form}.with_options(options);
            s.initial_state = false;
            s.method = options % 4 < 2 ? s4d_discretization::zoh : s4d_discretization::bilinear;
            check_layer_in_form<s4d_layer, TestType>(s, s4d_form::convolution);
        }
    }
}

TEST_CASE("s4d: the convolution runs in the workspace it asks for, also where making kernels takes more of it than transforms")
{
    const s4d_layer_problem<float> p(
        {.batch = 1, .length = 250, .dim = 300, .state = 100, .initial_state = false, .form = layout::time_contiguous});
    const auto expected = p.wide();
    reference::s4d(expected.args());
    auto a = p.args();
    a.final_state = {};
    a.form = s4d_form::convolution;
    std::vector<std::byte> memory(s4d_workspace_size(a), std::byte{0xff});
    CHECK(allocations_during([&] { s4d(a, memory); }) == 0);
    CHECK(relative_error(p.y, expected.y) <= s4d_layer::budget<float>);
}

TEMPLATE_TEST_CASE("s4d: chooses the convolution where there are many states, and only for numbers", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
        for (const bool reverse : {false, true}) {
            check_choice_of_convolution<s4d_layer, TestType>(
                {.length = 300, .state = 20, .initial_state = false, .reverse = reverse, .form = form});
        }
    }
}

TEST_CASE("s4d: slow poles over 131072 tokens")
{
    s4d_layer_setup s{.batch = 1, .length = 131072, .dim = 1, .state = 16, .copies = 1, .channels = 1, .form = layout::time_contiguous};
    s4d_layer_problem<float> p(s);
    p.delta.fill([](index, index) { return 1e-3; });
    p.A.fill([](index, index n) { return std::complex<double>(-0.5, 3.14159265 * static_cast<double>(n)); });
    p.B.fill([](index, index) { return std::complex<float>(1); });
    const auto expected = p.wide();
    s4d(p.args());
    reference::s4d(expected.args());
    CHECK(relative_error(p.y, expected.y) <= s4d_layer::budget<float>);
    CHECK(relative_error(p.final_state, expected.final_state) <= s4d_layer::budget<float>);
}

TEMPLATE_TEST_CASE("s4d: a sequence may be cut anywhere", "", float, double)
{
    for (const bool reverse : {false, true}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            const s4d_layer_setup cut{.length = 100, .reverse = reverse, .form = form};
            check_cuts<s4d_layer, TestType>(cut, {0, 1, 31, 32, 50, 99, 100});
        }
    }
}

TEMPLATE_TEST_CASE("s4d: what is not finite reaches what depends on it and nothing else", "", float, double, bfloat16)
{
    check_what_is_not_finite<s4d_layer, TestType>();
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const bool reverse : {false, true}) {
            s4d_layer_problem<TestType> p({.reverse = reverse, .form = form});
            p.initial_state(0, 3, 2) = quiet_nan<typename s4d_layer_problem<TestType>::complex>();
            s4d(p.args());
            for_each_index(p.y.view(), [&](index b, index at, index column) {
                REQUIRE(is_nan(p.y(b, at, column)) == (b == 0 && column % 6 == 3));
            });
            for_each_index(p.final_state.view(), [&](index b, index h, index n) {
                REQUIRE(is_nan(p.final_state(b, h, n)) == (b == 0 && h == 3 && n == 2));
            });
        }
    }
}

TEMPLATE_TEST_CASE("s4d: threads change no bit, nor does what the workspace held", "", float, bfloat16)
{
    check_resources<s4d_layer, TestType>();
}

TEST_CASE("s4d: names the argument that does not fit")
{
    const s4d_layer_problem<float> p(s4d_layer_setup{});
    const auto rejects = [&](auto&& change, const char* text) {
        auto a = p.args();
        change(a);
        const std::string said = complaint_of([&] { s4d(a); });
        INFO(said);
        CHECK(said.find(text) == 0);
    };
    rejects([](auto& a) { a.C = a.C.slice(2, 0, 4); }, "s4d: C has shape");
    rejects([](auto& a) { a.B = a.B.slice(0, 0, 2); }, "s4d: B has shape");
    rejects([](auto& a) { a.delta = a.delta.slice(0, 0, 5); }, "s4d: delta has shape");
    rejects([](auto& a) { a.D = a.D.slice(1, 0, 5); }, "s4d: D has shape");
    rejects([](auto& a) { a.y = a.y.slice(2, 0, 6); }, "s4d: y has shape");
    rejects([](auto& a) { a.A = a.A.slice(0, 0, 0); }, "s4d: A");
    rejects([](auto& a) { a.method = s4d_discretization::dss; }, "s4d: method is dss");
    rejects([](auto& a) { a.form = s4d_form::convolution; }, "s4d: initial_state is given, but a convolution");
    rejects(
        [](auto& a) {
            a.form = s4d_form::convolution;
            a.initial_state = {};
        },
        "s4d: final_state is asked for, but a convolution");
    rejects([](auto& a) { a.initial_state = a.initial_state.slice(0, 0, 1); }, "s4d: initial_state has shape");
    rejects([](auto& a) { a.u = view<const float, 3>(a.y.data(), a.u.extents()); }, "s4d: y overlaps u in memory");
}

TEST_CASE("s4d: offsets beyond 2^31 and 2^32 elements")
{
    const s4d_layer_problem<float> p({.length = 5, .dim = 3, .initial_state = false});
    for (const s4d_form form : {s4d_form::states, s4d_form::convolution}) {
        auto near = p.args();
        near.form = form;
        if (form == s4d_form::convolution) near.final_state = {};
        check_far_offsets(near, [](const auto& a) { s4d(a); });
    }
}

TEST_CASE("s4d: a state that dies away stays fast, and the caller's mode stays")
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        const auto seconds = [&](bool silent) {
            s4d_layer_problem<float> p(
                {.batch = 1, .length = 4000, .dim = 16, .state = 4, .copies = 1, .initial_state = false, .form = form});
            p.A.fill([](auto...) { return std::complex<double>(-0.05, 0); });
            p.u.fill([&](index, index t, index) { return silent ? (t == 0 ? 1e-36f : 0.0f) : 1.0f; });
            auto a = p.args();
            a.form = s4d_form::states;
            double best = 1e30;
            for (int i = 0; i < 9; ++i) {
                const auto start = std::chrono::steady_clock::now();
                s4d(a);
                best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
            }
            return best;
        };
        CHECK(seconds(true) <= 2 * seconds(false));
    }
    volatile float tiny = std::numeric_limits<float>::min();
    CHECK(tiny / 2 > 0);
}

TEST_CASE("s4d: a convolution without outputs writes none")
{
    const s4d_layer_problem<float> p({.length = 9, .channels = 0, .initial_state = false});
    auto a = p.args();
    a.final_state = {};
    a.form = s4d_form::convolution;
    CHECK_NOTHROW(s4d(a));
}

}  // namespace
}  // namespace ssmkit::testing
