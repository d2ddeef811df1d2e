#include <ssmkit/s4.hpp>

#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <vector>

#include <ssmkit/reference/s4.hpp>
#include <ssmkit/s4_setup.hpp>

#include "catch.hpp"
#include "complaint.hpp"
#include "layer_checks.hpp"
#include "s4_layer_problem.hpp"

namespace ssmkit::testing {
namespace {

struct s4_layer {
    template <class T>
    using problem = s4_layer_problem<T>;
    using form = s4_form;

    static constexpr auto run = [](const auto& a, auto&&... how) { s4(a, how...); };
    static constexpr auto run_reference = [](const auto& a) { reference::s4(a); };
    static constexpr auto workspace_size = [](const auto& a) { return s4_workspace_size(a); };

    /// Of the largest result: for 16 bits the rounding of the output.
    template <class T>
    static constexpr double budget = std::is_same_v<T, double> ? 1e-12 : std::is_same_v<T, float> ? 3e-6 : rounding<T>;
};

TEST_CASE("s4: two steps by hand")
{
    // One pair with P = 0: z = -2/3, Ā = 1/2 and B̄ = 3/8 of B. Prepared for 2 steps, C̃ = C (1 - 1/4).
    const std::vector<double> u{1, 10}, delta{0.5}, D{100};
    const std::vector<std::complex<double>> A{-4.0 / 3}, B{8.0}, C{{1.5, 0.75}}, true_C{{2.0, 1.0}}, x{4.0};
    std::vector<double> y(2);
    std::vector<std::complex<double>> last(1);
    s4_args<double> a{.u = {u, 1, 2, 1}, .delta = {delta, 1, 1}, .A = {A, 1, 1}, .B = {B, 1, 1}, .C = {C, 1, 1, 1}, .D = {D, 1, 1}};
    a.y = {y, 1, 2, 1};
    s4(a);
    CHECK(std::abs(y[0] - (2 * 2 * 3 + 100)) < 1e-10);
    CHECK(std::abs(y[1] - (2 * 2 * 31.5 + 1000)) < 1e-10);
    a.initial_state = {x, 1, 1, 1};
    a.final_state = {last, 1, 1, 1};
    const auto check_answer = [&] {
        CHECK(std::abs(y[0] - (2 * 2 * 5 + 100)) < 1e-10);  // 4 / 2 + 3
        CHECK(std::abs(y[1] - (2 * 2 * 32.5 + 1000)) < 1e-10);
        CHECK(std::abs(last[0].real() - 32.5) < 1e-10);
    };
    s4(a);
    check_answer();
    a.C = {};
    a.true_C = {true_C, 1, 1, 1};
    s4(a);
    check_answer();
    reference::s4(a);
    check_answer();
}

TEMPLATE_TEST_CASE("s4: agrees with dense matrices, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned options = 0; options < 1u << s4_layer_shape::options; ++options) {
        for (const layout form : all_layouts) {
            if (SSMKIT_SAMPLED_TESTS && (options + static_cast<unsigned>(form)) % 3 != 0) continue;
            s4_layer_shape s = s4_layer_shape{.form = form}.with_options(options);
            s.rank = static_cast<index>(options % 4);
            s.prepared = options % 3 == 0 ? 0 : 90;
            s.rate = options % 3 == 2 ? 0.7 : 1;
            check_layer<s4_layer, TestType>(s);
        }
    }
}

TEMPLATE_TEST_CASE("s4: every size by states", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        for (const index length : {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257, 290, 1025, 1100}) {
            for (const index state : {0, 1, 3, 8, 9}) {
                s4_layer_shape s{.batch = 1, .length = length, .dim = 1, .state = state, .copies = 1, .channels = 1, .form = form};
                s.edge = length % 2 ? guard::below : guard::above;
                check_layer<s4_layer, TestType>(s);
            }
        }
        for (const index state : {16, 17, 33}) {
            check_layer<s4_layer, TestType>({.batch = 1, .length = 70, .dim = 1, .state = state, .copies = 1, .form = form});
        }
        for (const index dim : {0, 1, 2, 15, 16, 17, 33}) {
            s4_layer_shape s{.length = 40, .dim = dim, .state = 3, .rank = 2, .copies = 1, .channels = 1, .form = form};
            s.edge = dim % 2 ? guard::below : guard::above;
            check_layer<s4_layer, TestType>(s);
            s.channels = 3;
            s.batch = dim % 3;
            check_layer<s4_layer, TestType>(s);
        }
    }
    check_layer<s4_layer, TestType>({.length = 9, .channels = 0});
}

TEMPLATE_TEST_CASE("s4: the convolution gives the same", "", float, double, bfloat16)
{
    for (unsigned options = 0; options < 1u << s4_layer_shape::options; ++options) {
        s4_layer_shape s = s4_layer_shape{.length = options % 3 == 0 ? 300 : 77}.with_options(options);
        s.form = all_layouts[options % std::size(all_layouts)];
        s.initial_state = s.true_C = false;
        s.rank = static_cast<index>(options % 3);
        s.prepared = options % 4 == 0 ? 0 : 400;
        s.rate = options % 4 == 2 ? 1.3 : 1;
        s.bandlimit = options % 4 == 3 ? 0.3 : std::numeric_limits<double>::infinity();
        for (const s4_form form : {s4_form::convolution, s4_form::automatic, s4_form::states})
            check_layer_in_form<s4_layer, TestType>(s, form);
    }
}

TEST_CASE("s4: the map that s4_setup recovers is the one that states recover")
{
    for (const double rate : {1.0, 1.5}) {
        s4_layer_shape s{.length = 50, .rank = 2, .tied = false};
        s.prepared = 90, s.rate = rate;
        s4_layer_problem<double> p(s);
        auto a = p.args();
        s4(a);
        const auto y = p.y.as<double>();
        tensor<double, 2> steps({s.dim, s.state});
        steps.fill([&](auto... i) { return p.delta(i...) * rate; });
        p.true_C = tensor<std::complex<double>, 3>(p.C.view().extents());
        s4_setup(s4_setup_args<double>{.delta = steps,
                                       .A = p.A,
                                       .P = p.P,
                                       .C = p.C,
                                       .length = static_cast<index>(std::nearbyint(90 / rate)),
                                       .map = s4_map::recover,
                                       .out = p.true_C});
        a = p.args();
        a.C = {};
        s4(a);
        CHECK(relative_error(p.y, y) <= 1e-12);
    }
}

TEMPLATE_TEST_CASE("s4: chooses the convolution unless there are states, and only for numbers", "", float, double)
{
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::strided}) {
        for (const bool reverse : {false, true}) {
            const s4_layer_shape s{.length = 300, .initial_state = false, .reverse = reverse, .form = form};
            check_choice_of_convolution<s4_layer, TestType>(s);
            const s4_layer_problem<TestType> p(s);
            auto a = p.args();
            a.final_state = {};
            a.prepared_length = 299;  // too short for a kernel
            s4(a);
            const auto automatic = p.y.template as<TestType>();
            a.form = s4_form::states;
            s4(a);
            CHECK(same_bits(automatic, p.y));
        }
    }
}

TEMPLATE_TEST_CASE("s4: a sequence may be cut anywhere", "", float, double)
{
    for (const bool reverse : {false, true}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            const s4_layer_shape cut{.length = 100, .rank = 2, .prepared = 100, .reverse = reverse, .form = form};
            check_cuts<s4_layer, TestType>(cut, {0, 1, 31, 32, 50, 99, 100});
        }
    }
}

TEMPLATE_TEST_CASE("s4: what is not finite reaches what depends on it and nothing else", "", float, double, bfloat16)
{
    check_what_is_not_finite<s4_layer, TestType>();
}

TEMPLATE_TEST_CASE("s4: threads change no bit, nor does what the workspace held", "", float, bfloat16)
{
    check_resources<s4_layer, TestType>();
}

TEST_CASE("s4: names the argument that does not fit")
{
    const s4_layer_problem<float> p({.prepared = 80});
    const auto rejects = [&](auto&& change, const char* text) {
        auto a = p.args();
        change(a);
        const std::string said = complaint_of([&] { s4(a); });
        INFO(said);
        CHECK(said.find(text) == 0);
    };
    const auto convolve = [](auto& a) { a.form = s4_form::convolution, a.initial_state = {}, a.final_state = {}; };
    rejects([](auto& a) { a.C = a.C.slice(2, 0, 4); }, "s4: C has shape");
    rejects([](auto& a) { a.C = {}; }, "s4: C has shape");
    rejects([](auto& a) { a.true_C = a.C.slice(1, 0, 4); }, "s4: true_C has shape");
    rejects([](auto& a) { a.true_C = a.C.slice(1, 0, 4), a.C = {}; }, "s4: true_C has shape");
    rejects([](auto& a) { a.true_C = a.C, a.bandlimit = 1; }, "s4: bandlimit is given with true_C");
    rejects([](auto& a) { a.B = a.B.slice(0, 0, 2); }, "s4: B has shape");
    rejects([](auto& a) { a.P = a.P.slice(2, 0, 2); }, "s4: P has shape");
    rejects([](auto& a) { a.delta = a.delta.slice(0, 0, 5); }, "s4: delta has shape");
    rejects([](auto& a) { a.D = a.D.slice(1, 0, 5); }, "s4: D has shape");
    rejects([](auto& a) { a.y = a.y.slice(2, 0, 6); }, "s4: y has shape");
    rejects([](auto& a) { a.A = a.A.slice(0, 0, 0), a.B = a.B.slice(0, 0, 0), a.P = a.P.slice(1, 0, 0); }, "s4: A has copies");
    rejects([](auto& a) { a.rate = 0; }, "s4: rate is not positive");
    rejects([](auto& a) { a.rate = 1e-30; }, "s4: rate makes of the prepared length more than");
    rejects([](auto& a) { a.rate = 1e-30, a.prepared_length = 0; }, "s4: rate makes of the prepared length more than");
    rejects([](auto& a) { a.rate = 1000; }, "s4: rate leaves nothing");
    rejects([](auto& a) { a.prepared_length = -1; }, "s4: prepared_length is negative");
    rejects([&](auto& a) { convolve(a), a.prepared_length = 69; }, "s4: u has a length above");
    rejects([&](auto& a) { convolve(a), a.true_C = a.C, a.C = {}; }, "s4: C is not given, but a convolution");
    rejects([](auto& a) { a.form = s4_form::convolution; }, "s4: initial_state is given, but a convolution");
    rejects([](auto& a) { a.form = s4_form::convolution, a.initial_state = {}; }, "s4: final_state is asked for, but a conv");
    rejects([](auto& a) { a.initial_state = a.initial_state.slice(0, 0, 1); }, "s4: initial_state has shape");
    rejects([](auto& a) { a.u = view<const float, 3>(a.y.data(), a.u.extents()); }, "s4: y overlaps u in memory");
}

TEST_CASE("s4: offsets beyond 2^31 and 2^32 elements")
{
    const s4_layer_problem<float> p({.length = 5, .dim = 3, .initial_state = false});
    for (const s4_form form : {s4_form::states, s4_form::convolution}) {
        auto near = p.args();
        near.form = form;
        if (form == s4_form::convolution) near.final_state = {};
        check_far_offsets(near, [](const auto& a) { s4(a); });
    }
}

TEST_CASE("s4: a convolution without outputs writes none")
{
    const s4_layer_problem<float> p({.length = 9, .channels = 0, .initial_state = false});
    auto a = p.args();
    a.final_state = {};
    a.form = s4_form::convolution;
    CHECK_NOTHROW(s4(a));
}

}  // namespace
}  // namespace ssmkit::testing
