#include <ssmkit/vandermonde.hpp>

#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include <ssmkit/reference/vandermonde.hpp>

#include "catch.hpp"
#include "resource_checks.hpp"
#include "sparse_memory.hpp"
#include "vandermonde_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, bool pairs = true)
{
    INFO(s.text());
    const vandermonde_problem<T> p(s, pairs);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    vandermonde(p.args());
    reference::vandermonde(expected.args());
    CHECK(relative_error(p.K, expected.K) <= kernel_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("vandermonde: sums by hand", "", float, double)
{
    using T = TestType;
    const double infinity = std::numeric_limits<double>::infinity();
    const complex_double half(-std::numbers::ln2, 0), quarter_turn(0, std::numbers::pi / 2), gone(-infinity, 0);
    const complex_double poles[] = {half, quarter_turn, gone};
    const std::complex<T> w[] = {{8, 5}, {1, -2}, {16, 1}};
    T K[5];
    vandermonde_args<T> a{.log_pole = {poles, 1, 3}, .w = {w, 1, 1, 3}, .K = {K, 1, 1, 5}};
    const auto gives = [&](std::array<double, 5> expected) {
        for (const bool plain : {false, true}) {
            plain ? reference::vandermonde(a) : vandermonde(a);
            for (std::size_t i = 0; i < 5; ++i) CHECK(std::abs(static_cast<double>(K[i]) - expected[i]) < 1e-5);
        }
    };
    gives({25, 6, 1, -1, 1.5});  // 8/2^l + (1, 2, -1, -2, 1) + 16 at l = 0
    a.conjugate_pairs = true;
    gives({50, 12, 2, -2, 3});
}

TEMPLATE_TEST_CASE("vandermonde: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) compare<TestType>({.length = length});
    for (const index state : kernel_states) compare<TestType>({.state = state, .length = 150}, state % 2 == 0);
    compare<TestType>({.channels = 0});
    compare<TestType>({.dim = 0});
    compare<TestType>({.channels = 5, .dim = 1, .state = 70, .length = 1100});
}

TEMPLATE_TEST_CASE("vandermonde: agrees with the reference in any layout", "", float, double)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.state = 19, .length = 1090, .inputs = inputs, .outputs = outputs});
        }
    }
}

TEMPLATE_TEST_CASE("vandermonde: kernels too large for the caches", "", float, double)
{
    const index length = detail::vandermonde_streaming_bytes / static_cast<index>(2 * sizeof(TestType));
    for (const index more : {0, 16, 17}) {  // all rows aligned, the last row of powers short, only the first row aligned
        const vandermonde_problem<TestType> p({.channels = 1, .dim = 2, .state = 3, .length = length + more});
        const auto expected = p.wide();
        vandermonde(p.args());
        reference::vandermonde(expected.args());
        CHECK(relative_error(p.K, expected.K) <= 10 * kernel_budget<TestType>);  // the reference's phases: l z is rounded
        CHECK(p.K.gaps_untouched());
    }
}

TEMPLATE_TEST_CASE("vandermonde: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 7, 16, 17, 33}) {
            compare<TestType>({.state = n, .length = 65, .edge = edge});
            compare<TestType>({.state = 3, .length = n, .edge = edge});
        }
    }
}

TEMPLATE_TEST_CASE("vandermonde: phases hold for 131072 steps", "", float, double)
{
    // The oracle has phases and decays in long double; slow decays, where a product that runs on is off by 8e-3.
    using T = TestType;
    constexpr index state = 32, length = 131072;
    std::vector<complex_double> z;
    std::vector<std::complex<T>> w;
    random numbers(5);
    for (index n = 0; n < state; ++n) {
        z.emplace_back(-5e-6, 1e-3 * std::numbers::pi * static_cast<double>(n) + (n % 2 ? 2.5 : 0.0));
        w.emplace_back(static_cast<T>(numbers.uniform(-1, 1)), static_cast<T>(numbers.uniform(-1, 1)));
    }
    std::vector<T> K(static_cast<std::size_t>(length));
    vandermonde(vandermonde_args<T>{.log_pole = {z, 1, state}, .w = {w, 1, 1, state}, .K = {K, 1, 1, length}});
    double worst = 0, largest = 0;
    for (index l = 0; l < length; l += 37) {
        long double sum = 0;
        for (std::size_t n = 0; n < z.size(); ++n) {
            const long double size = std::exp(static_cast<long double>(l) * z[n].real()),
                              angle = static_cast<long double>(l) * z[n].imag();
            sum += size * (w[n].real() * std::cos(angle) - w[n].imag() * std::sin(angle));
        }
        largest = std::max(largest, std::abs(static_cast<double>(sum)));
        worst = std::max(worst, std::abs(static_cast<double>(sum - static_cast<long double>(K[static_cast<std::size_t>(l)]))));
    }
    CHECK(worst <= (std::is_same_v<T, double> ? 1e-12 : 1e-6) * largest);
}

TEST_CASE("vandermonde: poles that grow and poles that are gone after a step")
{
    const complex_double z[] = {{0.3, 1}, {-90, 2}, {-800, 0}, {-1e300, 1}};
    const std::complex<double> w[] = {{1, 0}, {2, 1}, {3, 0}, {4, 0}};
    std::vector<double> K(300), expected(300);
    const vandermonde_args<double> a{.log_pole = {z, 1, 4}, .w = {w, 1, 1, 4}, .K = {K, 1, 1, 300}};
    auto reference_args = a;
    reference_args.K = {expected, 1, 1, 300};
    vandermonde(a);
    reference::vandermonde(reference_args);
    for (std::size_t l = 0; l < K.size(); ++l)
        CHECK(std::abs(K[l] - expected[l]) <= 1e-12 * (1 + std::exp(0.3 * static_cast<double>(l))));
}

TEMPLATE_TEST_CASE("vandermonde: a NaN reaches exactly what depends on it", "", float, double)
{
    for (index what = 0; what < 2; ++what) {
        const vandermonde_problem<TestType> p({.state = 19, .length = 90});
        if (what == 0) p.log_pole(1, 7) = quiet_nan<complex_double>();
        if (what == 1) p.w(1, 2, 18) = quiet_nan<std::complex<TestType>>();
        const auto expected = p.wide();
        vandermonde(p.args());
        reference::vandermonde(expected.args());
        CHECK(same_nans(p.K, expected.K));
    }
}

TEMPLATE_TEST_CASE("vandermonde: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return vandermonde_problem<TestType>({.dim = 7, .state = 19, .length = 1200}); }, [](const auto& p, auto&&... how) { vandermonde(p.args(), how...); },
                    [](const auto& p) { return vandermonde_workspace_size(p.args()); },
                    [](const auto& a, const auto& b) { return same_bits(a.K, b.K); });
}

TEST_CASE("vandermonde: offsets beyond 32 bits")
{
    const vandermonde_problem<float> p({.channels = 2, .dim = 2, .length = 70});
    vandermonde(p.args());
    try {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            sparse_memory memory;
            auto a = p.args();
            a.K = memory.spread(p.K.view(), axis, axis == 2 ? (index{1} << 26) + 1 : (index{1} << 31) + 5);
            vandermonde(a);
            CHECK(same_bits(view<float, 3>(a.K), p.K.view()));
        }
    } catch (const sparse_memory::refused&) {
        WARN("the system does not lend the address space");
    }
}

TEST_CASE("vandermonde: names the argument that does not fit")
{
    const vandermonde_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { vandermonde(a); }).find(std::string("vandermonde: ") + text) == 0);
    };
    named("w has shape", [](auto& a) { a.w = a.w.slice(2, 0, 1); });
    named("w has shape", [](auto& a) { a.log_pole = a.log_pole.slice(0, 0, 1); });
    named("K has shape", [](auto& a) { a.K = a.K.slice(0, 0, 1); });
    named("K is written but", [](auto& a) { a.K = {a.K.data(), a.K.extents(), {0, 40, 1}}; });
    named("K overlaps w", [&](auto& a) { a.K = {reinterpret_cast<float*>(p.w.view().data()), 2, 3, 1}; });
}

}  // namespace ssmkit::testing
