#include <ssmkit/vandermonde_transpose.hpp>

#include <complex>
#include <limits>
#include <numbers>
#include <string>

#include <ssmkit/reference/vandermonde.hpp>
#include <ssmkit/reference/vandermonde_transpose.hpp>

#include "catch.hpp"
#include "resource_checks.hpp"
#include "sparse_memory.hpp"
#include "vandermonde_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s)
{
    INFO(s.text());
    const vandermonde_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    vandermonde_transpose(p.transpose_args());
    reference::vandermonde_transpose(expected.transpose_args());
    CHECK(relative_error(p.sum, expected.sum) <= gradient_budget<T>);
    CHECK(relative_error(p.weighted, expected.weighted) <= gradient_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("vandermonde_transpose: sums by hand", "", float, double)
{
    using T = TestType;
    const double infinity = std::numeric_limits<double>::infinity();
    const complex_double half(-std::numbers::ln2, 0), quarter_turn(0, std::numbers::pi / 2), gone(-infinity, 0);
    const complex_double poles[] = {half, quarter_turn, gone};
    const T u[] = {1, 2, 3};
    std::complex<T> sum[3], weighted[3];
    const vandermonde_transpose_args<T> t{
        .log_pole = {poles, 1, 3}, .u = {u, 1, 1, 3}, .sum = {sum, 1, 1, 3}, .weighted = {weighted, 1, 1, 3}};
    for (const bool plain : {false, true}) {
        plain ? reference::vandermonde_transpose(t) : vandermonde_transpose(t);
        CHECK(std::abs(sum[0] - std::complex<T>(T(2.75))) < 1e-5);        // 1 + 2/2 + 3/4
        CHECK(std::abs(weighted[0] - std::complex<T>(T(2.5))) < 1e-5);    // 1 * 2/2 + 2 * 3/4
        CHECK(std::abs(sum[1] - std::complex<T>(-2, 2)) < 1e-5);          // 1 + 2i - 3
        CHECK(std::abs(weighted[1] - std::complex<T>(-6, 2)) < 1e-5);
        CHECK(std::abs(sum[2] - std::complex<T>(1)) < 1e-5);
        CHECK(std::abs(weighted[2]) < 1e-5);
    }
}

TEMPLATE_TEST_CASE("vandermonde_transpose: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) compare<TestType>({.length = length});
    for (const index state : kernel_states) compare<TestType>({.state = state, .length = 150});
    compare<TestType>({.channels = 0});
    compare<TestType>({.dim = 0});
    compare<TestType>({.channels = 5, .dim = 1, .state = 70, .length = 1100});
}

TEMPLATE_TEST_CASE("vandermonde_transpose: agrees with the reference in any layout", "", float, double)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.state = 19, .length = 1090, .inputs = inputs, .outputs = outputs});
        }
    }
}

TEMPLATE_TEST_CASE("vandermonde_transpose: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 7, 16, 17, 33}) {
            compare<TestType>({.state = n, .length = 65, .edge = edge});
            compare<TestType>({.state = 3, .length = n, .edge = edge});
        }
    }
}

TEST_CASE("vandermonde_transpose: is the transpose of vandermonde's sums")
{
    // Σ_l u_l Re Σ_n w_n e^{l z_n} = Re Σ_n w_n sum_n
    const vandermonde_problem<double> p({.length = 200}, false);
    reference::vandermonde(p.args());
    vandermonde_transpose(p.transpose_args());
    for (index c = 0; c < p.s.channels; ++c) {
        for (index h = 0; h < p.s.dim; ++h) {
            double by_rows = 0, by_poles = 0;
            for (index l = 0; l < p.s.length; ++l) by_rows += p.dK(c, h, l) * p.K(c, h, l);
            for (index n = 0; n < p.s.state; ++n) by_poles += (p.w(c, h, n) * p.sum(c, h, n)).real();
            CHECK(std::abs(by_rows - by_poles) < 1e-11);
        }
    }
}

TEMPLATE_TEST_CASE("vandermonde_transpose: a NaN reaches exactly what depends on it", "", float, double)
{
    for (index what = 0; what < 2; ++what) {
        const vandermonde_problem<TestType> p({.state = 19, .length = 90});
        if (what == 0) p.log_pole(1, 7) = quiet_nan<complex_double>();
        if (what == 1) p.dK(0, 1, 64) = quiet_nan<TestType>();
        const auto expected = p.wide();
        vandermonde_transpose(p.transpose_args());
        reference::vandermonde_transpose(expected.transpose_args());
        CHECK(same_nans(p.sum, expected.sum));
        CHECK(same_nans(p.weighted, expected.weighted));
    }
}

TEMPLATE_TEST_CASE("vandermonde_transpose: neither threads nor the workspace's content change a bit", "", float, double)
{
    check_resources([] { return vandermonde_problem<TestType>({.dim = 7, .state = 19, .length = 1200}); }, [](const auto& p, auto&&... how) { vandermonde_transpose(p.transpose_args(), how...); },
                    [](const auto& p) { return vandermonde_transpose_workspace_size(p.transpose_args()); },
                    [](const auto& a, const auto& b) { return same_bits(a.sum, b.sum) && same_bits(a.weighted, b.weighted); });
}

TEST_CASE("vandermonde_transpose: sums that are not asked for change nothing")
{
    const diagonal_setup s{.length = 100};
    const vandermonde_problem<float> all(s), first(s), second(s);
    vandermonde_transpose(all.transpose_args());
    auto a = first.transpose_args();
    a.sum = {};
    vandermonde_transpose(a);
    CHECK(same_bits(first.weighted, all.weighted));
    a = second.transpose_args();
    a.weighted = {};
    vandermonde_transpose(a);
    CHECK(same_bits(second.sum, all.sum));
}

TEST_CASE("vandermonde_transpose: offsets beyond 32 bits")
{
    const vandermonde_problem<float> p({.channels = 2, .dim = 2, .length = 70});
    vandermonde_transpose(p.transpose_args());
    try {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            sparse_memory memory;
            auto a = p.transpose_args();
            a.sum = memory.spread(p.sum.view(), axis, axis == 2 ? (index{1} << 28) + 1 : (index{1} << 31) + 5);
            vandermonde_transpose(a);
            CHECK(same_bits(a.sum, p.sum.view()));
        }
    } catch (const sparse_memory::refused&) {
        WARN("the system does not lend the address space");
    }
}

TEST_CASE("vandermonde_transpose: names the argument that does not fit")
{
    const vandermonde_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.transpose_args();
        spoil(a);
        CHECK(complaint_of([&] { vandermonde_transpose(a); }).find(std::string("vandermonde_transpose: ") + text) == 0);
    };
    named("u has shape", [](auto& a) { a.u = a.u.slice(1, 0, 1); });
    named("sum has shape", [](auto& a) { a.sum = a.sum.slice(1, 0, 1); });
    named("weighted overlaps sum", [](auto& a) { a.weighted = a.sum; });
}

}  // namespace ssmkit::testing
