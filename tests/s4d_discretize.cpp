#include <ssmkit/s4d_discretize.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/reference/s4d_discretize.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct discretize_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    bool tied;
    s4d_discretization method;
    double rate;
    tensor<double, 2> delta;  // (dim, 1) if tied
    tensor<complex_double, 2> A;
    tensor<E, 2> B, pole, input;

    discretize_problem(const diagonal_setup& setup, s4d_discretization m, double r = 1, bool tied_over_state = false)
        : s(setup), tied(tied_over_state), method(m), rate(r)
    {
        random numbers(s.seed);
        delta = s.input<double, 2>(numbers, {s.dim, tied ? 1 : s.state}, {0.001, 1});
        A = s.input<complex_double, 2>(numbers, {s.copies, s.state}, {-2, 0.1, -30, 30});
        B = s.input<E, 2>(numbers, {s.copies, s.state}, {-1, 1});
        pole = s.output<E, 2>({s.dim, s.state});
        input = s.output<E, 2>({s.dim, s.state});
    }

    s4d_discretize_args<T> args() const
    {
        view<const double, 2> steps = delta;
        if (tied) steps = {steps.data(), {s.dim, s.state}, {steps.stride(0), 0}};
        return {.delta = steps, .A = A, .B = B, .method = method, .rate = rate, .pole = pole, .input = input};
    }
};

constexpr s4d_discretization methods[] = {s4d_discretization::zoh, s4d_discretization::bilinear};

/// Element by element: a small gain beside large ones has all its digits.
template <class T>
void compare(const diagonal_setup& s, double rate = 1, bool tied = false)
{
    diagonal_setup plain = s;
    plain.inputs = plain.outputs = layout::row_major;
    plain.edge = guard::none;
    for (const s4d_discretization method : methods) {
        INFO(s.text() << " method " << static_cast<int>(method) << " rate " << rate << " tied " << tied);
        const discretize_problem<T> p(s, method, rate, tied), expected(plain, method, rate, tied);
        s4d_discretize(p.args());
        reference::s4d_discretize(expected.args());
        double worst = 0;
        for_each_index(p.pole.view(), [&](auto... i) {
            const auto error = [](complex_double x, complex_double wanted) { return std::abs(x - wanted) / std::abs(wanted); };
            worst = std::max({worst, error(complex_double(p.pole(i...)), complex_double(expected.pole(i...))),
                              error(complex_double(p.input(i...)), complex_double(expected.input(i...)))});
        });
        // In double, phases up to 30 rate and what e^z - 1 loses beside multiples of 2πi.
        CHECK(worst <= (std::is_same_v<T, float> ? 2e-7 : 5e-14 * std::max(1.0, rate)));
        CHECK((p.pole.gaps_untouched() && p.input.gaps_untouched()));
    }
}

}  // namespace

TEST_CASE("s4d_discretize: by hand")
{
    // z = -2/3, bilinear: λ = 1/2, β = 3/8; z = -ln 2, zero-order hold: λ = 1/2, β = (1 - 1/2) / ln 2 of Δ.
    const double delta[] = {0.25}, A_rate = 2;
    complex_double A(-4.0 / 3), pole, input;
    const complex_double B(8, 16);
    s4d_discretize_args<double> a{.delta = {delta, 1, 1}, .A = {&A, 1, 1}, .B = {&B, 1, 1}, .method = s4d_discretization::bilinear,
                                  .rate = A_rate, .pole = {&pole, 1, 1}, .input = {&input, 1, 1}};
    const auto gives = [&](double wanted_pole, complex_double wanted_input) {
        for (const bool plain : {false, true}) {
            plain ? reference::s4d_discretize(a) : s4d_discretize(a);
            CHECK(std::abs(pole - wanted_pole) < 1e-15);
            CHECK(std::abs(input - wanted_input) < 1e-14);
        }
    };
    gives(0.5, {3, 6});
    a.method = s4d_discretization::zoh;
    A = -2 * std::log(2.0);
    gives(0.5, complex_double(2, 4) / std::log(2.0));
    A = 0;  // the gain is Δ
    gives(1, {4, 8});
    A = -1e-12;
    gives(1 - 0.5e-12, complex_double(4, 8) * (1 - 0.25e-12));
}

TEMPLATE_TEST_CASE("s4d_discretize: agrees with the reference, whatever the sizes and layouts", "", float, double)
{
    for (const index state : kernel_states) compare<TestType>({.state = state});
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) compare<TestType>({.inputs = inputs, .outputs = outputs}, 0.7, inputs == outputs);
    }
    for (const guard edge : {guard::below, guard::above}) compare<TestType>({.state = 7, .edge = edge});
    for (const double rate : {1e-6, 0.5, 2.0, 30.0}) compare<TestType>({.dim = 6, .state = 17, .copies = 2}, rate);
    compare<TestType>({.dim = 0, .copies = 1});
}

TEST_CASE("s4d_discretize: a NaN reaches exactly what depends on it, and nothing is allocated")
{
    for (index what = 0; what < 3; ++what) {
        const discretize_problem<float> p({.dim = 4, .state = 5, .copies = 2}, s4d_discretization::zoh);
        if (what == 0) p.delta(2, 3) = quiet_nan<double>();
        if (what == 1) p.A(0, 3) = quiet_nan<complex_double>();
        if (what == 2) p.B(0, 3) = quiet_nan<std::complex<float>>();
        CHECK(allocations_during([&] { s4d_discretize(p.args()); }) == 0);
        for_each_index(p.pole.view(), [&](index h, index n) {
            const bool depends = n == 3 && (what == 0 ? h == 2 : h % 2 == 0);
            CHECK(is_nan(p.pole(h, n)) == (depends && what < 2));
            CHECK(is_nan(p.input(h, n)) == depends);
        });
    }
}

TEST_CASE("s4d_discretize: names the argument that does not fit")
{
    const discretize_problem<float> p({.dim = 4, .copies = 2}, s4d_discretization::zoh);
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint_of([&] { s4d_discretize(a); });
        INFO(said);
        CHECK(said.find(std::string("s4d_discretize: ") + text) == 0);
    };
    named("A has shape", [](auto& a) { a.A = a.A.slice(1, 0, 1); });
    named("A has copies that do not divide dim", [](auto& a) { a.A = a.A.slice(0, 0, 0), a.B = a.B.slice(0, 0, 0); });
    named("B has shape", [](auto& a) { a.B = a.B.slice(0, 0, 1); });
    named("pole has shape", [](auto& a) { a.pole = a.pole.slice(0, 0, 1); });
    named("input has shape", [](auto& a) { a.input = {}; });
    named("method is dss, which has no recurrence", [](auto& a) { a.method = s4d_discretization::dss; });
    named("input overlaps pole", [](auto& a) { a.input = a.pole; });
    named("pole overlaps B", [](auto& a) { a.B = {a.pole.data(), a.B.extents()}; });
    named("pole is written but", [](auto& a) { a.pole = {a.pole.data(), a.pole.extents(), {0, 1}}; });
}

}  // namespace ssmkit::testing
