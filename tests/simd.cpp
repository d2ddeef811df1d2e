#include "catch.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/element.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

using namespace detail;

using arch = xsimd::default_arch;

template <class T>
constexpr auto width = static_cast<std::size_t>(lanes<T, arch>);

template <class T>
std::array<T, width<T>> elements(const vec<T, arch>& x)
{
    std::array<T, width<T>> values{};
    x.store_unaligned(values.data());
    return values;
}

/// The register whose lanes are 100 row + lane.
template <class T>
vec<T, arch> numbered(index row)
{
    std::array<T, width<T>> values{};
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = T(100 * row) + T(i);
    return vec<T, arch>::load_unaligned(values.data());
}

}  // namespace

TEMPLATE_TEST_CASE("simd: ranges cover an axis once, the last one short", "", float, double)
{
    constexpr index n = lanes<TestType, arch>;
    for (index length = 0; length <= 3 * n + 1; ++length) {
        index next = 0;
        for_each_lanes<TestType, arch>(length, [&](auto range) {
            CHECK(range.first == next);
            CHECK(range.count == (range.full ? n : length % n));
            next += range.count;
        });
        CHECK(next == length);
    }
}

TEMPLATE_TEST_CASE("simd: a range loads zeros beyond its end and touches nothing outside it", "", float, double, bfloat16,
                   float16)
{
    using R = compute_t<TestType>;
    constexpr index n = lanes<R, arch>;
    for (const guard edge : {guard::below, guard::above}) {
        for (index length = 1; length <= 2 * n + 1; ++length) {
            const tensor<TestType, 1> from({length}, layout::row_major, edge);
            const tensor<TestType, 1> to({length}, layout::row_major, edge);
            for (index i = 0; i < length; ++i) from.view()[i] = TestType(R(i + 1));
            for_each_lanes<R, arch>(length, [&](auto range) {
                const auto loaded = range.load(from.view().data());
                const auto values = elements<R>(loaded);
                for (index i = 0; i < n; ++i) {
                    CHECK(values[static_cast<std::size_t>(i)] == (i < range.count ? R(range.first + i + 1) : R(0)));
                }
                range.store(loaded, to.view().data());
            });
            for (index i = 0; i < length; ++i) CHECK(static_cast<R>(to.view()[i]) == R(i + 1));
        }
    }
}

TEMPLATE_TEST_CASE("simd: strided ranges read and write every stride-th element", "", float, double, bfloat16)
{
    using R = compute_t<TestType>;
    constexpr index n = lanes<R, arch>, length = 2 * n + 1;
    for (const index stride : {index{2}, index{5}, index{-3}}) {
        const index span = std::abs(stride) * length;
        std::vector<TestType> from(static_cast<std::size_t>(span)), to(from.size(), TestType(R(-1)));
        const index base = stride < 0 ? -stride * (length - 1) : 0;
        for (index i = 0; i < length; ++i) from[static_cast<std::size_t>(base + i * stride)] = TestType(R(i + 1));
        for_each_lanes<R, arch>(length, [&](auto range) {
            range.store(range.load(from.data() + base, stride), to.data() + base, stride);
        });
        for (index k = 0; k < span; ++k) {
            const bool on_the_way = (k - base) % stride == 0 && (k - base) / stride < length && (k - base) / stride >= 0;
            const R expected = on_the_way ? R((k - base) / stride + 1) : R(-1);
            CHECK(static_cast<R>(to[static_cast<std::size_t>(k)]) == expected);
        }
    }
}

TEMPLATE_TEST_CASE("simd: keep clears what lies beyond the end, NaN and infinity too", "", float, double)
{
    constexpr index n = lanes<TestType, arch>;
    for (const TestType x : {std::numeric_limits<TestType>::quiet_NaN(), std::numeric_limits<TestType>::infinity()}) {
        for (index count = 1; count < n; ++count) {
            const auto kept = elements<TestType>(lane_range<TestType, arch, false>{0, count}.keep(vec<TestType, arch>(x)));
            for (index i = 0; i < n; ++i) {
                const TestType value = kept[static_cast<std::size_t>(i)];
                CHECK((i < count ? !std::isfinite(value) : value == 0));
            }
        }
    }
}

TEMPLATE_TEST_CASE("simd: transpose exchanges rows and lanes", "", float, double)
{
    vec<TestType, arch> rows[width<TestType>];
    for (std::size_t i = 0; i < width<TestType>; ++i) rows[i] = numbered<TestType>(static_cast<index>(i));
    transpose<TestType, arch>(rows);
    for (std::size_t i = 0; i < width<TestType>; ++i) {
        const auto row = elements<TestType>(rows[i]);
        for (std::size_t k = 0; k < width<TestType>; ++k) CHECK(row[k] == TestType(100 * k) + TestType(i));
    }
}

TEMPLATE_TEST_CASE("simd: the sums of the lanes, of one register and of each of many", "", float, double)
{
    const auto exact = [](index row) {
        const auto n = static_cast<TestType>(width<TestType>);
        return TestType(100 * row) * n + n * (n - 1) / 2;
    };
    vec<TestType, arch> rows[width<TestType>];
    for (std::size_t i = 0; i < width<TestType>; ++i) {
        rows[i] = numbered<TestType>(static_cast<index>(i));
        CHECK(sum(rows[i]) == exact(static_cast<index>(i)));
    }
    const auto sums = elements<TestType>(sum_each<TestType, arch>(rows));
    for (std::size_t i = 0; i < width<TestType>; ++i) CHECK(sums[i] == exact(static_cast<index>(i)));
}

TEMPLATE_TEST_CASE("simd: records are taken apart and put together again", "", float, double)
{
    const auto check = [](auto size) {
        constexpr index N = size();
        constexpr auto count = width<TestType> * static_cast<std::size_t>(N);
        std::array<TestType, count> memory{}, back{};
        for (std::size_t i = 0; i < count; ++i) memory[i] = TestType(i);
        vec<TestType, arch> columns[static_cast<std::size_t>(N)];
        load_records<N>(memory.data(), columns);
        for (std::size_t k = 0; k < static_cast<std::size_t>(N); ++k) {
            const auto column = elements<TestType>(columns[k]);
            for (std::size_t i = 0; i < width<TestType>; ++i) CHECK(column[i] == TestType(i * N + k));
        }
        store_records<N>(columns, back.data());
        CHECK(back == memory);
    };
    check(std::integral_constant<index, 1>{});
    check(std::integral_constant<index, 2>{});
    check(std::integral_constant<index, 3>{});
    check(std::integral_constant<index, 4>{});
}

TEST_CASE("simd: multiply_add rounds once where the instruction set can, product_error is exact everywhere")
{
    const auto test = [](auto unit) {
        using T = decltype(unit);
        const T x = T(1) + std::numeric_limits<T>::epsilon(), squared = x * x;
        const vec<T, arch> v(x), error = product_error(v, v, vec<T, arch>(squared));
        const T exact = std::numeric_limits<T>::epsilon() * std::numeric_limits<T>::epsilon();
        CHECK(error.get(0) == exact);
        if (fused_multiply_add<arch>) CHECK(multiply_add(v, v, vec<T, arch>(-squared)).get(0) == exact);
    };
    test(1.0f);
    test(1.0);
}

TEMPLATE_TEST_CASE("simd: the inverse is right to 1 ulp, a NaN stays one", "", float, double)
{
    constexpr TestType epsilon = std::numeric_limits<TestType>::epsilon();
    TestType worst = 0;
    for (TestType x = TestType(1e-30); x < TestType(1e30); x *= TestType(1.0009765)) {
        for (const TestType signed_x : {x, -x}) {
            const TestType y = inverse(vec<TestType, arch>(signed_x)).get(0), exact = TestType(1) / signed_x;
            worst = std::max(worst, std::abs(y - exact) / std::abs(exact));
        }
    }
    CHECK(worst <= epsilon);
    CHECK(std::isnan(inverse(vec<TestType, arch>(std::numeric_limits<TestType>::quiet_NaN())).get(0)));
}

TEST_CASE("simd: look_up finds the entry by the last bits")
{
    if constexpr (table_entries<arch> > 1) {
        float_table<arch> table{};
        for (std::size_t i = 0; i < table.size(); ++i) table[i] = 3.0f * static_cast<float>(i);
        for (std::uint32_t i = 0; i < 2 * table.size(); ++i) {
            const vec<float, arch> t(std::bit_cast<float>(0x49c00000u + i));
            CHECK(look_up<arch>(table, t).get(0) == 3.0f * static_cast<float>(i % table.size()));
        }
    } else {
        CHECK(look_up<arch>({7.0f}, vec<float, arch>(1.5f)).get(0) == 7.0f);
    }
}

}  // namespace ssmkit::testing
