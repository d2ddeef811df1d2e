#include "catch.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include <ssmkit/detail/math.hpp>
#include <ssmkit/execution.hpp>

namespace {

using namespace ssmkit::detail;

using arch = xsimd::default_arch;
using floats = vec<float, arch>;
using doubles = vec<double, arch>;

/// Every so many floats are tried: all of them, unless an emulator or a sanitizer makes that take hours.
constexpr std::uint64_t stride = SSMKIT_SAMPLED_TESTS ? 10007 : 1;
/// For functions that need no proof over all floats.
constexpr std::uint64_t sampled_stride = SSMKIT_SAMPLED_TESTS ? 100003 : 1009;

constexpr double infinity = std::numeric_limits<double>::infinity();

/// |computed - exact| in units of the last place of a float near exact, which is a positive normal float.
double ulps(float computed, double exact)
{
    const auto exponent = std::bit_cast<std::uint64_t>(exact) >> 52;  // of a positive double
    const double ulp = std::bit_cast<double>((exponent - 23) << 52);
    return std::abs(static_cast<double>(computed) - exact) / ulp;
}

/// Calls test(x, f(x)) for every stride-th float x, NaNs and infinities included, in the mode that kernels run in. Several
/// threads share the work; returns what they found, largest first. `test` returns a number that has to be small.
template <class F, class Test>
double worst_over_floats(std::uint64_t step, F&& f, Test&& test)
{
    constexpr std::uint64_t blocks = 512, block = (std::uint64_t{1} << 32) / blocks;
    constexpr auto n = static_cast<std::size_t>(lanes<float, arch>);
    std::vector<double> worst(blocks);
    ssmkit::threads pool(std::max(1u, std::thread::hardware_concurrency()));
    run_tasks(pool, blocks, [&](std::size_t task, std::size_t) {
        const flush_denormals mode;
        std::array<float, n> x{}, y{};
        for (std::uint64_t bits = task * block; bits < (task + 1) * block;) {
            for (std::size_t i = 0; i < n; ++i, bits += step) x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
            f(floats::load_unaligned(x.data())).store_unaligned(y.data());
            for (std::size_t i = 0; i < n; ++i) worst[task] = std::max(worst[task], test(x[i], y[i]));
        }
    });
    return *std::max_element(worst.begin(), worst.end());
}

/// Judges an exponential: base^x in ulps where it is a normal float; infinite if it is not as documented elsewhere. Floats
/// between `zero_below` and `accurate_from` may go either way, as may those between `finite_to` and `infinite_from`.
template <class Exact>
auto exponential_test(Exact exact, float zero_below, float accurate_from, float finite_to, float infinite_from)
{
    return [=](float x, float y) {
        if (std::isnan(x)) return std::isnan(y) ? 0.0 : infinity;
        if (std::abs(x) < 0x1p-27f) return y == 1.0f ? 0.0 : ulps(y, 1.0);
        if (x < zero_below) return y == 0.0f ? 0.0 : infinity;
        if (x >= infinite_from) return std::isinf(y) && y > 0 ? 0.0 : infinity;
        const double expected = exact(static_cast<double>(x));
        if (x < accurate_from && y == 0.0f) return 0.0;
        if (x >= finite_to && std::isinf(y) && y > 0) return 0.0;
        if (expected > std::numeric_limits<float>::max()) return y >= std::numeric_limits<float>::max() ? 0.0 : infinity;
        return ulps(y, expected);
    };
}

/// The largest error of f over the sampled floats in [low, high], relative to max(|exact|, floor).
template <class F, class Exact>
double relative_error(float low, float high, F&& f, Exact exact, double floor = 0x1p-126)
{
    return worst_over_floats(sampled_stride, f, [=](float x, float y) {
        if (!(x >= low && x <= high)) return 0.0;
        const double expected = exact(static_cast<double>(x));
        return std::abs(static_cast<double>(y) - expected) / std::max(std::abs(expected), floor);
    });
}

/// The same for double, over random numbers.
template <class F, class Exact>
double relative_error_of_doubles(double low, double high, F&& f, Exact exact, double floor)
{
    std::mt19937_64 random(1);
    std::uniform_real_distribution<double> uniform(low, high);
    constexpr auto n = static_cast<std::size_t>(lanes<double, arch>);
    double worst = 0;
    for (int round = 0; round < (SSMKIT_SAMPLED_TESTS ? 1000 : 100'000); ++round) {
        std::array<double, n> x{}, y{};
        for (double& value : x) value = uniform(random);
        f(doubles::load_unaligned(x.data())).store_unaligned(y.data());
        for (std::size_t i = 0; i < n; ++i) {
            const long double expected = exact(static_cast<long double>(x[i]));
            const double error = static_cast<double>(std::abs(y[i] - expected) / std::max<long double>(std::abs(expected), floor));
            worst = std::max(worst, std::isnan(error) ? infinity : error);
        }
    }
    return worst;
}

/// CHECK(error <= bound), with digits.
void check_error(const char* what, double error, double bound)
{
    std::ostringstream text;
    text << what << ": error " << error << ", bound " << bound;
    INFO(text.str());
    CHECK(error <= bound);
}

// The functions by their definitions, for double and long double.
constexpr auto exact_softplus = [](auto x) { return x > 20 ? x : std::max(x, decltype(x)(0)) + std::log1p(std::exp(-std::abs(x))); };
constexpr auto exact_sigmoid = [](auto x) {
    const auto e = std::exp(-std::abs(x));
    return (x < 0 ? e : 1) / (1 + e);
};
constexpr auto exact_softplus_derivative = [](auto x) { return x > 20 ? decltype(x)(1) : exact_sigmoid(x); };
constexpr auto exact_silu = [](auto x) { return x * exact_sigmoid(x); };
constexpr auto exact_silu_derivative = [](auto x) {
    const auto s = exact_sigmoid(x);
    return s * (1 + x * (1 - s));
};

// The same on registers, as objects.
constexpr auto vec_softplus = [](const auto& x) { return softplus(x); };
constexpr auto vec_sigmoid = [](const auto& x) { return sigmoid(x); };
constexpr auto vec_softplus_derivative = [](const auto& x) { return softplus_with_derivative(x).derivative; };
constexpr auto vec_silu = [](const auto& x) { return silu(x); };
constexpr auto vec_silu_derivative = [](const auto& x) { return silu_derivative(x); };

constexpr double epsilon = 0x1p-24;  // half an ulp of 1.0f, relative
constexpr float largest = std::numeric_limits<float>::max();

}  // namespace

TEST_CASE("math: fast_exp2 is within 2.5 ulp over all floats, flushes to zero and overflows where it says")
{
    const auto exact = [](double x) { return std::exp2(x); };
    const double worst = worst_over_floats(
        stride, [](const floats& x) { return fast_exp2(x); }, exponential_test(exact, -126.0f, -126.0f, 127.5f, 128.0f));
    check_error("ulp", worst, 2.5);
}

TEST_CASE("math: fast_exp is within 2.5 ulp over all floats, flushes to zero and overflows where it says")
{
    const auto exact = [](double x) { return std::exp(x); };
    const double worst = worst_over_floats(
        stride, [](const floats& x) { return fast_exp(x); }, exponential_test(exact, -87.34f, -87.336f, 88.37f, 88.73f));
    check_error("ulp", worst, 2.5);
}

TEST_CASE("math: fast_exp2 is exactly 1 at 0")
{
    for (const float zero : {0.0f, -0.0f}) CHECK(fast_exp2(floats(zero)).get(0) == 1.0f);
    CHECK(fast_exp2(doubles(0.0)).get(0) == 1.0);
    CHECK(fast_exp2(doubles(-3.0)).get(0) == 0.125);
}

TEST_CASE("math: log1p_unit is within 2.5 ulp on [0, 1]")
{
    const double worst = worst_over_floats(
        SSMKIT_SAMPLED_TESTS ? sampled_stride : 11, [](const floats& x) { return log1p_unit(x); },
        [](float x, float y) {
            if (!(x >= 0x1p-126f && x <= 1)) return 0.0;
            return ulps(y, std::log1p(static_cast<double>(x)));
        });
    check_error("ulp", worst, 2.5);
}

TEST_CASE("math: softplus, sigmoid and silu keep their relative accuracy for every float")  // F4
{
    // Down to where exp is flushed; below, the result is zero (see the next test).
    const auto test = [](const char* name, auto f, auto exact, double bound, double floor = 0x1p-126) {
        check_error(name, relative_error(-87.0f, largest, f, exact, floor), bound * epsilon);
    };
    test("softplus", vec_softplus, exact_softplus, 6);
    test("sigmoid", vec_sigmoid, exact_sigmoid, 6);
    test("softplus_derivative", vec_softplus_derivative, exact_softplus_derivative, 6);
    test("silu", vec_silu, exact_silu, 7, 0x1p-102);  // below, x / 2 is flushed
    // It crosses zero at -1.278: its error is measured against its scale, 1.
    test("silu_derivative", vec_silu_derivative, exact_silu_derivative, 4, 1);
}

TEST_CASE("math: far out, softplus is 0 or x, sigmoid 0 or 1, silu 0 or x")
{
    for (const float x : {1e2f, 1e4f, 1e7f, 3e38f}) {
        CHECK(softplus(floats(x)).get(0) == x);
        CHECK(sigmoid(floats(x)).get(0) == 1.0f);
        CHECK(silu(floats(x)).get(0) == x);
        CHECK(softplus_with_derivative(floats(x)).derivative.get(0) == 1.0f);
        CHECK(silu_derivative(floats(x)).get(0) == 1.0f);
        const flush_denormals mode;
        CHECK(softplus(floats(-x)).get(0) == 0.0f);
        CHECK(sigmoid(floats(-x)).get(0) == 0.0f);
        CHECK(silu(floats(-x)).get(0) == 0.0f);
        CHECK(softplus_with_derivative(floats(-x)).derivative.get(0) == 0.0f);
        CHECK(silu_derivative(floats(-x)).get(0) == 0.0f);
    }
}

TEST_CASE("math: softplus takes the logarithm up to 20 and x beyond")
{
    CHECK(softplus(floats(20.0f)).get(0) == 20.0f);
    CHECK(softplus_with_derivative(floats(20.0f)).derivative.get(0) == 1.0f);  // sigmoid(20) differs by 2e-9
    CHECK(softplus(doubles(20.0)).get(0) == 20.0 + std::log1p(std::exp(-20.0)));
    CHECK(softplus_with_derivative(doubles(20.0)).derivative.get(0) < 1.0);
    const double above = std::nextafter(20.0, 21.0);
    CHECK(softplus(doubles(above)).get(0) == above);
    CHECK(softplus_with_derivative(doubles(above)).derivative.get(0) == 1.0);
}

TEST_CASE("math: double is within a few ulp")
{
    const auto test = [](const char* name, double low, double high, auto f, auto exact, double bound, double floor) {
        check_error(name, relative_error_of_doubles(low, high, f, exact, floor), bound * 0x1p-52);
    };
    constexpr double smallest = 0x1p-1022;
    test("exp", -700, 700, [](const auto& x) { return fast_exp(x); }, [](auto x) { return std::exp(x); }, 2, smallest);
    test("exp2", -1000, 1000, [](const auto& x) { return fast_exp2(x); }, [](auto x) { return std::exp2(x); }, 2, smallest);
    test("log1p", 0, 1, [](const auto& x) { return log1p_unit(x); }, [](auto x) { return std::log1p(x); }, 2, smallest);
    for (const double range : {1.0, 30.0, 700.0}) {
        test("softplus", -range, range, vec_softplus, exact_softplus, 4, smallest);
        test("sigmoid", -range, range, vec_sigmoid, exact_sigmoid, 4, smallest);
        test("silu", -range, range, vec_silu, exact_silu, 4, smallest);
        test("silu_derivative", -range, range, vec_silu_derivative, exact_silu_derivative, 4, 1);
    }
}

TEST_CASE("math: a NaN stays one and stays in its lane")  // F5
{
    const auto test = [](auto number, const auto& f) {
        using T = decltype(number);
        constexpr auto n = static_cast<std::size_t>(lanes<T, arch>);
        for (std::size_t bad = 0; bad < n; ++bad) {
            std::array<T, n> x{}, y{};
            x.fill(number);
            x[bad] = std::numeric_limits<T>::quiet_NaN();
            vec<T, arch>(f(vec<T, arch>::load_unaligned(x.data()))).store_unaligned(y.data());
            for (std::size_t i = 0; i < n; ++i) CHECK(std::isnan(y[i]) == (i == bad));
        }
    };
    const auto all = [&](auto number) {
        test(number, [](const auto& x) { return fast_exp2(x); });
        test(number, [](const auto& x) { return fast_exp(x); });
        test(number, [](const auto& x) { return log1p_unit(x); });
        test(number, vec_softplus);
        test(number, vec_sigmoid);
        test(number, vec_softplus_derivative);
        test(number, vec_silu);
        test(number, vec_silu_derivative);
    };
    all(0.5f);
    all(0.5);
}

TEST_CASE("math: cosine and sine of turns, carried in double the precision")
{
    const auto test = [](auto zero, double largest_turns, double bound) {
        using T = decltype(zero);
        std::mt19937_64 random(2);
        std::uniform_real_distribution<double> uniform(-1, 1);
        double worst = 0;
        for (int round = 0; round < 100'000; ++round) {
            const T step = static_cast<T>(std::exp2(8 * uniform(random)));
            const double rate = uniform(random) * largest_turns / static_cast<double>(step);
            const T high = static_cast<T>(rate);
            const T low = static_cast<T>(rate - static_cast<double>(high));
            const auto [cosine, sine] = cos_sin_of_turns(vec<T, arch>(step), vec<T, arch>(high), vec<T, arch>(low));
            const long double turns = static_cast<long double>(step) * (static_cast<long double>(high) + low);
            const long double angle = 6.283185307179586476925L * (turns - std::round(turns));
            worst = std::max({worst, static_cast<double>(std::abs(cosine.get(0) - std::cos(angle))),
                              static_cast<double>(std::abs(sine.get(0) - std::sin(angle)))});
        }
        check_error("absolute", worst, bound);
    };
    test(0.0f, 1.0, 8e-7);
    test(0.0f, 0x1p15, 8e-7);
    test(0.0f, 0x1p20, 4e-6);
    test(0.0, 1.0, 1e-15);
    test(0.0, 0x1p15, 1e-14);
}

TEST_CASE("math: while flush_denormals lives there are no subnormal numbers, then the caller's mode is back")  // F28
{
    const auto tiny_is_flushed = [] {
        volatile float smallest = std::numeric_limits<float>::min(), half = 0.5f;
        volatile float product = smallest * half;
        return std::bit_cast<std::uint32_t>(static_cast<float>(product)) == 0;
    };
    REQUIRE_FALSE(tiny_is_flushed());
    {
        const flush_denormals outer;
        CHECK(tiny_is_flushed());
        {
            const flush_denormals inner;
            CHECK(tiny_is_flushed());
        }
        CHECK(tiny_is_flushed());
    }
    CHECK_FALSE(tiny_is_flushed());
}
