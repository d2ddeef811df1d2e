#include <ssmkit/s5_step.hpp>

#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/discretize.hpp>
#include <ssmkit/reference/s5_step.hpp>
#include <ssmkit/s5.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s5_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double state_budget = std::is_same_v<T, double> ? 4e-15 : 2e-6;
template <class T>
constexpr double budget = state_budget<T> + (sizeof(T) == 2 ? rounding<T> : 0);

/// A step is the first token of a sequence; h starts with the initial state.
template <class T>
struct step_problem {
    s5_problem<T> p;
    tensor<typename s5_args<T>::complex, 2> h;

    explicit step_problem(s5_setup s) : p(adapted(s)) { reset(); }

    static s5_setup adapted(s5_setup s)
    {
        s.length = 1;
        s.discrete = s.initial_state = true;
        s.events = s.bidirectional = s.reverse = s.clip_eigs = s.packed = false;
        return s;
    }

    void reset()
    {
        h = tensor<typename s5_args<T>::complex, 2>(p.initial_state.view().extents(), p.s.outputs, p.s.edge);
        h.fill([&](auto... i) { return p.initial_state(i...); });
    }

    static auto token(const auto& v) { return v.transposed(0, 1)[0]; }

    s5_step_args<T> args() const
    {
        return {.A = p.A.view(), .B = p.B.view(), .C = p.C.view(), .D = p.D.view(), .u = token(view<const T, 3>(p.u.view())),
                .conjugate_pairs = p.s.conjugate_pairs, .liquid = p.s.liquid, .h = h.view(), .y = token(p.y.view())};
    }
};

template <class T>
void compare(const s5_setup& s)
{
    INFO(s.text());
    const step_problem<T> x(s);
    auto expected = x.p.wide();
    tensor<std::complex<double>, 2> h = x.p.initial_state.template as<std::complex<double>>();
    s5_step(x.args());
    reference::s5_step(s5_step_args<double>{.A = expected.A.view(),
                                            .B = expected.B.view(),
                                            .C = expected.C.view(),
                                            .D = expected.D.view(),
                                            .u = x.token(view<const double, 3>(expected.u.view())),
                                            .conjugate_pairs = s.conjugate_pairs,
                                            .liquid = s.liquid,
                                            .h = h.view(),
                                            .y = x.token(expected.y.view())});
    CHECK(relative_error(x.p.y, expected.y) <= budget<T>);
    CHECK(relative_error(x.h, h) <= state_budget<T>);
    CHECK(x.p.gaps_untouched());
    CHECK(x.h.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("s5_step: agrees with the reference, every size and any layout", "", float, double, bfloat16, float16)
{
    for (const index n : s5_sizes) {
        for (index s5_setup::*axis : {&s5_setup::batch, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
            s5_setup s{.conjugate_pairs = n % 2 == 0};
            s.*axis = n;
            s.liquid = n % 3 == 0;
            compare<TestType>(s);
            s.D = true;
            s.out = s.dim;
            compare<TestType>(s);
        }
    }
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts)
            compare<TestType>({.dim = 35, .state = 33, .out = 35, .D = true, .inputs = inputs, .outputs = outputs});
    }
}

TEMPLATE_TEST_CASE("s5_step: token by token is the scan", "", float, double)
{
    for (const bool liquid : {false, true}) {
        const s5_problem<TestType> p({.length = 80,
                                      .dim = 19,
                                      .state = 21,
                                      .out = 19,
                                      .discrete = true,
                                      .D = true,
                                      .initial_state = true,
                                      .liquid = liquid});
        s5(p.args());
        auto h = p.initial_state.template as<std::complex<TestType>>();
        tensor<TestType, 3> y(p.y.view().extents());
        for (index t = 0; t < 80; ++t) {
            s5_step(s5_step_args<TestType>{.A = p.A.view(), .B = p.B.view(), .C = p.C.view(), .D = p.D.view(),
                                           .u = view<const TestType, 3>(p.u.view()).transposed(0, 1)[t], .conjugate_pairs = false,
                                           .liquid = liquid, .h = h.view(), .y = y.view().transposed(0, 1)[t]});
        }
        CHECK(relative_error(y, p.y) <= (std::is_same_v<TestType, double> ? 1e-14 : 4e-6));
        CHECK(relative_error(h, p.final_state) <= (std::is_same_v<TestType, double> ? 1e-14 : 4e-6));
    }
}

TEMPLATE_TEST_CASE("s5_step: a NaN reaches exactly the outputs that depend on it", "", float, double)
{
    for (const index n : {3, 8, 17, 35}) {
        step_problem<TestType> x({.dim = n, .state = 19, .out = n, .D = true});
        x.p.C(2, 5) = quiet_nan<std::complex<TestType>>();
        x.p.D(1) = quiet_nan<TestType>();
        s5_step(x.args());
        for (index b = 0; b < 2; ++b) {
            for (index o = 0; o < n; ++o) CHECK(std::isnan(x.p.y(b, 0, o)) == (o == 1 || o == 2));
            for (index i = 0; i < 19; ++i) CHECK(!is_nan(x.h(b, i)));
        }
        x.p.B(7, 0) = quiet_nan<std::complex<TestType>>();
        s5_step(x.args());
        for (index i = 0; i < 19; ++i) CHECK(is_nan(x.h(0, i)) == (i == 7));
    }
}

TEST_CASE("s5_step: threads change no bit, nothing is allocated, y may be u")
{
    threads pool(3);
    const s5_setup s{.batch = 5, .dim = 35, .state = 33, .out = 35, .D = true};
    step_problem<float> x(s), other(s);
    CHECK(allocations_during([&] { s5_step(x.args()); }) == 0);
    s5_step(other.args(), pool);
    CHECK(same_bits(x.p.y, other.p.y));
    CHECK(same_bits(x.h, other.h));
    other.reset();
    auto u = other.p.u.as<float>();
    auto a = other.args();
    a.u = a.y = other.token(u.view());
    s5_step(a);
    CHECK(same_bits(x.p.y, u));
}

TEMPLATE_TEST_CASE("s5_step: touches nothing outside its arguments", "", float, bfloat16, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 33}) {
            compare<TestType>({.dim = n, .edge = edge});
            compare<TestType>({.state = n, .edge = edge});
            compare<TestType>({.out = n, .edge = edge});
        }
    }
}

TEST_CASE("s5_step: names the argument that does not fit")
{
    const step_problem<float> x({.out = 5, .D = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = x.args();
        spoil(a);
        std::string said;
        try {
            s5_step(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("s5_step: ") + text) == 0);
    };
    named("B has shape", [](auto& a) { a.B = a.B.slice(1, 0, 1); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(1, 0, 1); });
    named("D has shape", [](auto& a) { a.D = a.D.slice(0, 0, 1); });
    named("D is given although", [](auto& a) { a.C = a.C.slice(0, 0, 1); });
    named("h has shape", [](auto& a) { a.h = a.h.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("y is written but", [](auto& a) { a.y = {a.y.data(), a.y.extents(), {0, 1}}; });
    named("h overlaps A", [](auto& a) { a.h = {const_cast<std::complex<float>*>(a.A.data()), {2, 6}, {6, 1}}; });
}

}  // namespace ssmkit::testing
