#include <ssmkit/vandermonde.hpp>

#include <cmath>
#include <limits>
#include <numbers>

#include <ssmkit/reference/vandermonde.hpp>
#include <ssmkit/reference/vandermonde_backward.hpp>
#include <ssmkit/reference/vandermonde_transpose.hpp>
#include <ssmkit/vandermonde_backward.hpp>
#include <ssmkit/vandermonde_transpose.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "diagonal_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct vandermonde_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    bool pairs;
    tensor<complex_double, 2> log_pole, dlog_pole;
    tensor<E, 3> w, dw, sum, weighted;
    tensor<T, 3> K, dK;

    explicit vandermonde_problem(const diagonal_setup& setup, bool conjugate_pairs = true) : s(setup), pairs(conjugate_pairs)
    {
        random numbers(s.seed);
        log_pole = s.input<complex_double, 2>(numbers, {s.dim, s.state}, {-0.1, -1e-4, -3, 3});
        w = s.input<E, 3>(numbers, {s.channels, s.dim, s.state}, {0.2, 1, -1, 1});
        dK = s.input<T, 3>(numbers, {s.channels, s.dim, s.length}, {-1, 1});
        make_outputs();
    }

    void make_outputs()
    {
        K = s.output<T, 3>({s.channels, s.dim, s.length});
        dlog_pole = s.output<complex_double, 2>({s.dim, s.state});
        dw = s.output<E, 3>({s.channels, s.dim, s.state});
        sum = s.output<E, 3>({s.channels, s.dim, s.state});
        weighted = s.output<E, 3>({s.channels, s.dim, s.state});
    }

    /// The same numbers in 64 bits.
    vandermonde_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        vandermonde_problem<double> p(plain, pairs);
        p.log_pole = log_pole.template as<complex_double>();
        p.w = w.template as<complex_double>();
        p.dK = dK.template as<double>();
        return p;
    }

    vandermonde_args<T> args() const { return {.log_pole = log_pole, .w = w, .conjugate_pairs = pairs, .K = K}; }
    vandermonde_backward_args<T> backward_args() const { return {.forward = args(), .dK = dK, .dlog_pole = dlog_pole, .dw = dw}; }
    vandermonde_transpose_args<T> transpose_args() const
    {
        return {.log_pole = log_pole, .u = dK, .sum = sum, .weighted = weighted};
    }

    void run() const
    {
        vandermonde(args());
        vandermonde_backward(backward_args());
        vandermonde_transpose(transpose_args());
    }

    void run_reference() const
    {
        reference::vandermonde(args());
        reference::vandermonde_backward(backward_args());
        reference::vandermonde_transpose(transpose_args());
    }

    std::vector<std::vector<std::byte>> input_bytes() const { return {log_pole.bytes(), w.bytes(), dK.bytes()}; }
    bool gaps_untouched() const
    {
        return K.gaps_untouched() && dlog_pole.gaps_untouched() && dw.gaps_untouched() && sum.gaps_untouched() &&
               weighted.gaps_untouched();
    }
};

template <class T>
void compare(const diagonal_setup& s, bool pairs = true)
{
    INFO(s.text());
    const vandermonde_problem<T> p(s, pairs);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    p.run();
    expected.run_reference();
    CHECK(relative_error(p.K, expected.K) <= kernel_budget<T>);
    CHECK(relative_error(p.sum, expected.sum) <= gradient_budget<T>);
    CHECK(relative_error(p.weighted, expected.weighted) <= gradient_budget<T>);
    CHECK(relative_error(p.dw, expected.dw) <= gradient_budget<T>);
    CHECK(relative_error(p.dlog_pole, expected.dlog_pole) <= gradient_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

template <class T>
bool same_results(const vandermonde_problem<T>& a, const vandermonde_problem<T>& b)
{
    return same_bits(a.K, b.K) && same_bits(a.sum, b.sum) && same_bits(a.weighted, b.weighted) && same_bits(a.dw, b.dw) &&
           same_bits(a.dlog_pole, b.dlog_pole);
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
    for (index what = 0; what < 3; ++what) {
        const vandermonde_problem<TestType> p({.state = 19, .length = 90});
        if (what == 0) p.log_pole(1, 7) = quiet_nan<complex_double>();
        if (what == 1) p.w(1, 2, 18) = quiet_nan<std::complex<TestType>>();
        if (what == 2) p.dK(0, 1, 64) = quiet_nan<TestType>();
        const auto expected = p.wide();
        p.run();
        expected.run_reference();
        CHECK(same_nans(p.K, expected.K));
        CHECK(same_nans(p.sum, expected.sum));
        CHECK(same_nans(p.dw, expected.dw));
        CHECK(same_nans(p.dlog_pole, expected.dlog_pole));
    }
}

TEMPLATE_TEST_CASE("vandermonde: neither threads nor the workspace's content change a bit", "", float, double)
{
    threads pool(3);
    const diagonal_setup s{.dim = 7, .state = 19, .length = 1200};
    const vandermonde_problem<TestType> one(s), several(s), reversed(s);
    one.run();
    vandermonde(several.args(), pool);
    vandermonde_backward(several.backward_args(), pool);
    vandermonde_transpose(several.transpose_args(), pool);
    CHECK(same_results(one, several));
    vandermonde(reversed.args(), last_task_first{});
    vandermonde_backward(reversed.backward_args(), last_task_first{});
    vandermonde_transpose(reversed.transpose_args(), last_task_first{});
    CHECK(same_results(one, reversed));
    for (const int pattern : {0xff, 0x7f, 0}) {
        const vandermonde_problem<TestType> p(s);
        const poisoned_workspace sums(vandermonde_workspace_size(p.args()), pattern),
            backward(vandermonde_backward_workspace_size(p.backward_args()), pattern),
            transpose(vandermonde_transpose_workspace_size(p.transpose_args()), pattern);
        CHECK(allocations_during([&] {
                  vandermonde(p.args(), sums);
                  vandermonde_backward(p.backward_args(), backward);
                  vandermonde_transpose(p.transpose_args(), transpose);
              }) == 0);
        CHECK(same_results(one, p));
    }
    std::byte few[8];
    CHECK(complaint_of([&] { vandermonde(one.args(), workspace(few)); }).find("workspace has 8 bytes") != std::string::npos);
}

TEST_CASE("vandermonde_backward: the reference's gradients are those of finite differences")
{
    const vandermonde_problem<double> p({.state = 3, .length = 20});
    p.run_reference();
    const auto loss = [&] {
        reference::vandermonde(p.args());
        double sum = 0;
        for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
        return sum;
    };
    const auto verify = [&](const auto& input, const auto& gradient) {
        for_each_index(input.view(), [&](auto... i) {
            complex_double slope;
            for (const complex_double direction : {complex_double(1), complex_double(0, 1)}) {
                const complex_double here = input(i...);
                input(i...) = here + 1e-5 * direction;
                const double above = loss();
                input(i...) = here - 1e-5 * direction;
                slope += direction * (above - loss()) / 2e-5;
                input(i...) = here;
            }
            REQUIRE(std::abs(slope - gradient(i...)) <= 1e-6 * (1 + std::abs(slope)));
        });
    };
    verify(p.log_pole, p.dlog_pole);
    verify(p.w, p.dw);
}

TEST_CASE("vandermonde: gradients and sums that are not asked for change nothing")
{
    const diagonal_setup s{.length = 100};
    const vandermonde_problem<float> all(s), first(s), second(s);
    all.run();
    auto backward = first.backward_args();
    backward.dw = {};
    vandermonde_backward(backward);
    CHECK(same_bits(first.dlog_pole, all.dlog_pole));
    backward = second.backward_args();
    backward.dlog_pole = {};
    vandermonde_backward(backward);
    CHECK(same_bits(second.dw, all.dw));
    auto transpose = first.transpose_args();
    transpose.sum = {};
    vandermonde_transpose(transpose);
    CHECK(same_bits(first.weighted, all.weighted));
}

TEST_CASE("vandermonde: offsets beyond 32 bits")
{
    const vandermonde_problem<float> p({.channels = 2, .dim = 2, .length = 70});
    p.run();
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
    const auto forward = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { vandermonde(a); }).find(std::string("vandermonde: ") + text) == 0);
    };
    forward("w has shape", [](auto& a) { a.w = a.w.slice(2, 0, 1); });
    forward("w has shape", [](auto& a) { a.log_pole = a.log_pole.slice(0, 0, 1); });
    forward("K has shape", [](auto& a) { a.K = a.K.slice(0, 0, 1); });
    forward("K is written but", [](auto& a) { a.K = {a.K.data(), a.K.extents(), {0, 40, 1}}; });
    forward("K overlaps w", [&](auto& a) { a.K = {reinterpret_cast<float*>(p.w.view().data()), 2, 3, 1}; });
    const auto backward = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { vandermonde_backward(a); }).find(std::string("vandermonde_backward: ") + text) == 0);
    };
    backward("w has shape", [](auto& a) { a.forward.w = a.forward.w.slice(0, 0, 1); });
    backward("dK has shape", [](auto& a) { a.dK = a.dK.slice(1, 0, 1); });
    backward("dw has shape", [](auto& a) { a.dw = a.dw.slice(1, 0, 1); });
    backward("dlog_pole has shape", [](auto& a) { a.dlog_pole = a.dlog_pole.slice(1, 0, 1); });
    backward("dlog_pole is written but", [](auto& a) { a.dlog_pole = {a.dlog_pole.data(), a.dlog_pole.extents(), {0, 1}}; });
    backward("dw overlaps w", [&](auto& a) { a.dw = p.w; });
    const auto transpose = [&](const char* text, auto&& spoil) {
        auto a = p.transpose_args();
        spoil(a);
        CHECK(complaint_of([&] { vandermonde_transpose(a); }).find(std::string("vandermonde_transpose: ") + text) == 0);
    };
    transpose("u has shape", [](auto& a) { a.u = a.u.slice(1, 0, 1); });
    transpose("sum has shape", [](auto& a) { a.sum = a.sum.slice(1, 0, 1); });
    transpose("weighted overlaps sum", [](auto& a) { a.weighted = a.sum; });
}

}  // namespace ssmkit::testing
