#include <ssmkit/s4d_kernel.hpp>

#include <cmath>
#include <numbers>

#include <ssmkit/reference/s4d_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s4d_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, const s4d_options& o = {})
{
    INFO(s.text() << " method " << static_cast<int>(o.method) << " growing " << o.growing << " state " << o.initial_state);
    const s4d_problem<T> p(s, o);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    s4d_kernel(p.args());
    reference::s4d_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= kernel_budget<T>);
    CHECK(relative_error(p.K_state, expected.K_state) <= kernel_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("s4d_kernel: a pole by hand")
{
    // z = -ln 2: the pole is 1/2, the gain (1/2 - 1) / A; then the bilinear one with z = -1: 1/3 and 2/3 of the step.
    const double delta = std::log(2.0), one = 1;
    const complex_double A(-1), B(2), C(3);
    double K[3];
    s4d_kernel_args<double> a{.delta = {&delta, 1, 1}, .A = {&A, 1, 1}, .B = {&B, 1, 1}, .C = {&C, 1, 1, 1}, .K = {K, 1, 1, 3}};
    const auto gives = [&](double first, double factor) {
        for (const bool plain : {false, true}) {
            plain ? reference::s4d_kernel(a) : s4d_kernel(a);
            for (const double value : K) {
                CHECK(std::abs(value - first) < 1e-12);
                first *= factor;
            }
            first /= factor * factor * factor;
        }
    };
    gives(6, 0.5);
    a.conjugate_pairs = false;
    gives(3, 0.5);
    a.method = s4d_discretization::bilinear;
    a.delta = {&one, 1, 1};
    gives(4, 1.0 / 3);
    a.bandlimit = 0;  // everything is beyond
    gives(0, 1);
}

TEMPLATE_TEST_CASE("s4d_kernel: agrees with the reference, whatever is switched on", "", float, double)
{
    for (const s4d_options& o : all_s4d_options()) {
        compare<TestType>({.dim = 4, .state = 9, .length = 70, .copies = 2}, o);
    }
}

TEMPLATE_TEST_CASE("s4d_kernel: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) {
        compare<TestType>({.length = length}, {.initial_state = true});
        compare<TestType>({.dim = 1, .length = length, .copies = 1}, {.method = s4d_discretization::dss, .growing = true});
    }
    for (const index state : kernel_states)
        compare<TestType>({.state = state, .length = 150}, {.method = s4d_discretization::bilinear});
    compare<TestType>({.channels = 0});
    compare<TestType>({.dim = 0, .copies = 1});
    compare<TestType>({.dim = 0, .copies = 0});
    compare<TestType>({.batch = 0}, {.initial_state = true});
}

TEMPLATE_TEST_CASE("s4d_kernel: agrees with the reference in any layout", "", float, double)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.state = 19, .length = 90, .inputs = inputs, .outputs = outputs},
                              {.tied = true, .initial_state = true});
        }
    }
}

TEMPLATE_TEST_CASE("s4d_kernel: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 8, 17, 33}) {
            compare<TestType>({.state = n, .length = 65, .edge = edge}, {.initial_state = true});
            compare<TestType>({.state = 3, .length = n, .edge = edge}, {.tied = true});
        }
    }
}

TEST_CASE("s4d_kernel: the gain keeps its digits near z = 0, poles of zero are exact")
{
    for (const double size : {1e-1, 1e-4, 1e-8, 1e-12, 0.0}) {
        const double delta = 1;
        const complex_double A(-size, size / 2), B(1), C(1);
        double K[2];
        s4d_kernel(s4d_kernel_args<double>{.delta = {&delta, 1, 1},
                                           .A = {&A, 1, 1},
                                           .B = {&B, 1, 1},
                                           .C = {&C, 1, 1, 1},
                                           .conjugate_pairs = false,
                                           .K = {K, 1, 1, 2}});
        const complex_double gain = exprel(A);
        CHECK(std::abs(K[0] - gain.real()) < 1e-15);
        CHECK(std::abs(K[1] - (gain * std::exp(A)).real()) < 1e-15);
    }
    // z = -2: the bilinear pole is 0, beyond it negative.
    for (const double size : {2.0, 2.5, 1e6}) {
        const double delta = 1;
        const complex_double A(-size), B(1), C(1);
        double K[4];
        s4d_kernel(s4d_kernel_args<double>{.delta = {&delta, 1, 1}, .A = {&A, 1, 1}, .B = {&B, 1, 1}, .C = {&C, 1, 1, 1},
                                           .method = s4d_discretization::bilinear, .conjugate_pairs = false, .K = {K, 1, 1, 4}});
        const double pole = (1 - size / 2) / (1 + size / 2), gain = 1 / (1 + size / 2);
        for (int l = 0; l < 4; ++l) CHECK(std::abs(K[l] - gain * (l == 0 ? 1 : std::pow(pole, l))) < 1e-15);
    }
}

TEMPLATE_TEST_CASE("s4d_kernel: dss neither overflows nor vanishes where powers grow", "", float, double)
{
    using T = TestType;
    const double delta[] = {0.1, 3};
    const complex_double A[] = {{2, 1}, {-1, 3}};
    const std::complex<T> B[] = {{1, 0}, {1, 0}}, C[] = {{1, 0}, {1, 0}, {1, 1}, {1, 0}};
    constexpr index length = 20000;
    std::vector<T> K(2 * length);
    std::vector<double> expected(2 * length);
    const complex_double B_wide[] = {1, 1}, C_wide[] = {1, 1, {1, 1}, 1};
    const view<const double, 2> steps(delta, {2, 2}, {1, 0});
    s4d_kernel(s4d_kernel_args<T>{.delta = steps,
                                  .A = {A, 1, 2},
                                  .B = {B, 1, 2},
                                  .C = {C, 1, 2, 2},
                                  .method = s4d_discretization::dss,
                                  .K = {K, 1, 2, length}});
    reference::s4d_kernel(s4d_kernel_args<double>{.delta = steps, .A = {A, 1, 2}, .B = {B_wide, 1, 2}, .C = {C_wide, 1, 2, 2},
                                                  .method = s4d_discretization::dss, .K = {expected, 1, 2, length}});
    CHECK(relative_error(view<const T, 1>(K, 2 * length), view<const double, 1>(expected, 2 * length)) <= 10 * kernel_budget<T>);
}

TEMPLATE_TEST_CASE("s4d_kernel: phases hold for 131072 taps", "", float, double)
{
    // Slow decays against an oracle in long double, which has λ by itself: the product Δ A alone is rounded, as the kernel's.
    using T = TestType;
    constexpr index state = 32, length = 131072;
    const double delta = 1e-3;
    std::vector<complex_double> A;
    std::vector<std::complex<T>> B(state, std::complex<T>(1)), C;
    random numbers(9);
    for (index n = 0; n < state; ++n) {
        A.emplace_back(-0.05, std::numbers::pi * static_cast<double>(n));
        C.emplace_back(static_cast<T>(numbers.uniform(-1, 1)), static_cast<T>(numbers.uniform(-1, 1)));
    }
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
        std::vector<T> K(static_cast<std::size_t>(length));
        s4d_kernel(s4d_kernel_args<T>{.delta = {&delta, {1, state}, {0, 0}}, .A = {A, 1, state}, .B = {B, 1, state},
                                      .C = {C, 1, 1, state}, .method = method, .K = {K, 1, 1, length}});
        long double worst = 0, largest = 0;
        for (index l = 0; l < length; l += 411) {
            std::complex<long double> sum = 0;
            for (std::size_t n = 0; n < A.size(); ++n) {
                const std::complex<long double> z(delta * A[n]), one(1), rate(A[n]), below = one - z / 2.0L;
                const bool bilinear = method == s4d_discretization::bilinear;
                const std::complex<long double> log = bilinear ? std::log((one + z / 2.0L) / below) : z;
                const std::complex<long double> gain = bilinear    ? static_cast<long double>(delta) / below
                                                       : z == 0.0L ? delta
                                                                   : (std::exp(z) - one) / rate;
                sum += 2.0L * std::complex<long double>(C[n]) * gain * std::exp(static_cast<long double>(l) * log);
            }
            largest = std::max(largest, std::abs(sum.real()));
            worst = std::max(worst, std::abs(sum.real() - static_cast<long double>(K[static_cast<std::size_t>(l)])));
        }
        CHECK(worst <= (std::is_same_v<T, double> ? 2e-12L : 1e-6L) * largest);
    }
}

TEMPLATE_TEST_CASE("s4d_kernel: a NaN reaches exactly what depends on it", "", float, double)
{
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
        for (index what = 0; what < 5; ++what) {
            const s4d_problem<TestType> p({.dim = 4, .state = 19, .length = 90, .copies = 2},
                                          {.method = method, .initial_state = true});
            if (what == 0) p.delta(1, 7) = quiet_nan<double>();
            if (what == 1) p.A(1, 18) = quiet_nan<complex_double>();
            if (what == 2) p.B(0, 3) = quiet_nan<std::complex<TestType>>();
            if (what == 3) p.C(1, 2, 16) = quiet_nan<std::complex<TestType>>();
            if (what == 4) p.state(1, 0, 5) = quiet_nan<std::complex<TestType>>();
            INFO(what);
            const auto expected = p.wide();
            s4d_kernel(p.args());
            reference::s4d_kernel(expected.args());
            CHECK(same_nans(p.K, expected.K));
            CHECK(same_nans(p.K_state, expected.K_state));
        }
    }
}

TEMPLATE_TEST_CASE("s4d_kernel: neither threads nor the workspace's content change a bit", "", float, double)
{
    threads pool(3);
    const diagonal_setup s{.dim = 6, .state = 19, .length = 1200};
    const s4d_options o{.initial_state = true};
    const s4d_problem<TestType> one(s, o), several(s, o), reversed(s, o);
    s4d_kernel(one.args());
    s4d_kernel(several.args(), pool);
    s4d_kernel(reversed.args(), last_task_first{});
    CHECK(same_bits(one.K, several.K));
    CHECK(same_bits(one.K_state, several.K_state));
    CHECK(same_bits(one.K, reversed.K));
    for (const int pattern : {0xff, 0}) {
        const s4d_problem<TestType> p(s, o);
        const poisoned_workspace memory(s4d_kernel_workspace_size(p.args()), pattern);
        CHECK(allocations_during([&] { s4d_kernel(p.args(), memory); }) == 0);
        CHECK(same_bits(one.K, p.K));
        CHECK(same_bits(one.K_state, p.K_state));
    }
}

TEST_CASE("s4d_kernel: names the argument that does not fit")
{
    const s4d_problem<float> p({.dim = 4, .copies = 2}, {.initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint_of([&] { s4d_kernel(a); });
        INFO(said);
        CHECK(said.find(std::string("s4d_kernel: ") + text) == 0);
    };
    CHECK(complaint_of([&] { s4d_kernel(p.args()); }).empty());
    named("delta has shape", [](auto& a) { a.delta = a.delta.slice(0, 0, 1); });
    named("A has shape", [](auto& a) { a.A = a.A.slice(1, 0, 1); });
    named("A has copies that do not divide", [](auto& a) {
        a.A = {a.A.data(), {3, 5}, {1, 1}}, a.B = {a.B.data(), {3, 5}, {1, 1}};
    });
    named("B has shape", [](auto& a) { a.B = a.B.slice(0, 0, 1); });
    named("initial_state has shape", [](auto& a) { a.initial_state = a.initial_state.slice(2, 0, 1); });
    named("initial_state has no meaning", [](auto& a) { a.method = s4d_discretization::dss; });
    named("K_state has shape", [](auto& a) { a.K_state = a.K_state.slice(3, 0, 1); });
    named("K_state has shape", [](auto& a) { a.initial_state = {}; });
    named("K has shape", [](auto& a) { a.K = a.K.slice(0, 0, 1); });
    named("K is written but", [](auto& a) { a.K = {a.K.data(), a.K.extents(), {0, 40, 1}}; });
    named("K_state overlaps K", [](auto& a) { a.K = {a.K_state.data(), a.K.extents()}; });
    named("K overlaps C", [&](auto& a) { a.K = {reinterpret_cast<float*>(p.C.view().data()), 2, 4, 1}, a.K_state = {}; });
}

}  // namespace ssmkit::testing
