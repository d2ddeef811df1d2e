#include "catch.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include <ssmkit/element.hpp>

namespace {

using ssmkit::bfloat16, ssmkit::float16;

/// Every so many floats are tried. A prime, so that all low bits occur.
constexpr std::uint64_t stride = SSMKIT_SAMPLED_TESTS ? 10007 : 97;

constexpr double infinity = std::numeric_limits<double>::infinity();

/// A binary format of 1 sign bit, `exponent` and `fraction` bits, by its definition.
struct format {
    int exponent, fraction;

    int bias() const { return (1 << (exponent - 1)) - 1; }

    /// The number that the bits stand for.
    double value(std::uint32_t bits) const
    {
        const std::uint32_t f = bits & ((1u << fraction) - 1), e = (bits >> fraction) & ((1u << exponent) - 1);
        const double sign = bits >> (exponent + fraction) ? -1 : 1;
        if (e == (1u << exponent) - 1) return f ? std::numeric_limits<double>::quiet_NaN() : sign * infinity;
        if (e == 0) return sign * std::ldexp(f, 1 - bias() - fraction);
        return sign * std::ldexp(f + (1u << fraction), static_cast<int>(e) - bias() - fraction);
    }

    /// x rounded to nearest, ties to even, overflow to infinity.
    double round(double x) const
    {
        if (x == 0 || !std::isfinite(x)) return x;
        const int lowest = 1 - bias();
        const int e = std::max(std::ilogb(x), lowest);
        const double unit = std::ldexp(1.0, e - fraction);  // distance of neighbours where x lies
        const double rounded = std::nearbyint(x / unit) * unit;
        const double largest = std::ldexp(2.0 - std::ldexp(1.0, -fraction), bias());
        return std::abs(rounded) > largest ? std::copysign(infinity, x) : rounded;
    }
};

constexpr format bfloat16_format{8, 7}, float16_format{5, 10};

/// Equal, and of equal sign where zero; both NaN.
bool same(double a, double b)
{
    return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

template <class T>
void test_widening(const format& f)
{
    for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
        T x;
        x.bits = static_cast<std::uint16_t>(bits);
        const float wide = static_cast<float>(x);
        if (!same(wide, f.value(bits))) FAIL("bits " << bits << " became " << wide);
        if (!std::isnan(wide) && T(wide).bits != bits) FAIL("bits " << bits << " do not survive a round trip");
        if (std::isnan(wide) && !std::isnan(static_cast<float>(T(wide)))) FAIL("the NaN " << bits << " was lost");
    }
}

template <class T>
void test_narrowing(const format& f)
{
    const auto test = [&](std::uint32_t bits) {
        const float x = std::bit_cast<float>(bits);
        const double expected = f.round(x), computed = static_cast<float>(T(x));
        if (!same(expected, computed)) FAIL(x << " became " << computed << ", expected " << expected);
    };
    for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += stride) test(static_cast<std::uint32_t>(bits));
    // Around every number of the format and the middle between it and its neighbour.
    for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
        const double low = f.value(bits), high = f.value((bits + 1) & 0xffffu);
        for (const double x : {low, (low + high) / 2}) {
            if (!std::isfinite(x)) continue;
            const std::uint32_t middle = std::bit_cast<std::uint32_t>(static_cast<float>(x));
            for (std::uint32_t i = 0; i < 5; ++i) test(middle + i - 2);
        }
    }
}

}  // namespace

TEST_CASE("element: every bfloat16 and float16 becomes the float of its value and back")
{
    test_widening<bfloat16>(bfloat16_format);
    test_widening<float16>(float16_format);
}

TEST_CASE("element: floats are rounded to nearest, ties to even")
{
    test_narrowing<bfloat16>(bfloat16_format);
    test_narrowing<float16>(float16_format);
}

TEST_CASE("element: the edges of the formats")
{
    CHECK(bfloat16(1.0f).bits == 0x3f80);
    CHECK(bfloat16(-0.0f).bits == 0x8000);
    CHECK(bfloat16(std::numeric_limits<float>::max()).bits == 0x7f80);  // rounds up to infinity
    CHECK(float16(65504.0f).bits == 0x7bff);
    CHECK(float16(65519.996f).bits == 0x7bff);
    CHECK(float16(65520.0f).bits == 0x7c00);
    CHECK(float16(5.9604645e-8f).bits == 0x0001);
    CHECK(float16(2.9802322e-8f).bits == 0x0000);  // half of the smallest: to even, which is zero
    CHECK(float16(2.9802326e-8f).bits == 0x0001);
}

TEST_CASE("element: conversions are constant expressions, explicit, and of 16 bits")
{
    STATIC_REQUIRE(static_cast<float>(bfloat16(3.140625f)) == 3.140625f);
    STATIC_REQUIRE(static_cast<float>(float16(0.333251953125f)) == 0.333251953125f);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<float, bfloat16>);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<float16, float>);
    STATIC_REQUIRE(sizeof(bfloat16) == 2);
    STATIC_REQUIRE(sizeof(float16) == 2);
    STATIC_REQUIRE(std::is_trivially_copyable_v<bfloat16>);
    STATIC_REQUIRE(std::is_trivially_copyable_v<float16>);
}

TEST_CASE("element: 16-bit storage computes in float")
{
    STATIC_REQUIRE(std::is_same_v<ssmkit::compute_t<bfloat16>, float>);
    STATIC_REQUIRE(std::is_same_v<ssmkit::compute_t<float16>, float>);
    STATIC_REQUIRE(std::is_same_v<ssmkit::compute_t<float>, float>);
    STATIC_REQUIRE(std::is_same_v<ssmkit::compute_t<double>, double>);
    STATIC_REQUIRE(ssmkit::storage_element<bfloat16>);
    STATIC_REQUIRE_FALSE(ssmkit::storage_element<int>);
}
