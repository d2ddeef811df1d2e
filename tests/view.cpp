#include "catch.hpp"

#include <array>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include <ssmkit/view.hpp>

namespace {

using ssmkit::index, ssmkit::view;

/// 0, 1, 2, ...
std::vector<int> counting(std::size_t n)
{
    std::vector<int> values(n);
    std::iota(values.begin(), values.end(), 0);
    return values;
}

}  // namespace

TEST_CASE("view: extents alone mean row-major")
{
    std::vector<int> data = counting(24);
    const view<int, 3> v{data.data(), 2, 3, 4};
    CHECK(v.strides() == std::array<index, 3>{12, 4, 1});
    CHECK(v(1, 2, 3) == 23);
    CHECK(v(1, 0, 2) == 14);
    CHECK(v.size() == 24);
    CHECK(v[1](2, 3) == 23);
    CHECK(v[1][2][3] == 23);
    CHECK(*v.pointer(1) == 12);
    CHECK(*v.pointer(1, 1) == 16);
}

TEST_CASE("view: a default-constructed one is empty and points nowhere")
{
    const view<double, 4> nothing;
    CHECK(nothing.empty());
    CHECK(nothing.data() == nullptr);
    CHECK(nothing.size() == 0);
}

TEST_CASE("view: any extent of 0 makes it empty")
{
    int element = 0;
    CHECK(view<int, 3>{&element, 2, 0, 3}.empty());
    CHECK(view<int, 3>{&element, 0, 2, 3}.size() == 0);
    CHECK_FALSE(view<int, 3>{&element, 1, 1, 1}.empty());
}

TEST_CASE("view: strides of any sign")
{
    std::vector<int> data = counting(12);
    const view<int, 2> transposed{data.data(), {4, 3}, {1, 4}};
    CHECK(transposed(3, 2) == 11);
    const view<int, 2> backwards{data.data() + 11, {3, 4}, {-4, -1}};
    CHECK(backwards(0, 0) == 11);
    CHECK(backwards(2, 3) == 0);
    const view<int, 2> shared{data.data(), {5, 3}, {0, 1}};
    CHECK(shared(4, 2) == 2);
    CHECK(shared.size() == 15);
}

TEST_CASE("view: slicing, transposing and reversing change the view and no data")
{
    std::vector<int> data = counting(24);
    const view<int, 3> v{data.data(), 2, 3, 4};
    const auto middle = v.slice(2, 1, 2);
    CHECK(middle.extents() == std::array<index, 3>{2, 3, 2});
    CHECK(middle(1, 2, 1) == v(1, 2, 2));
    const auto swapped = v.transposed(1, 2);
    CHECK(swapped.extents() == std::array<index, 3>{2, 4, 3});
    CHECK(swapped(1, 3, 2) == v(1, 2, 3));
    const auto mirrored = v.reversed(1);
    for (index i = 0; i < 3; ++i) CHECK(mirrored(1, i, 2) == v(1, 2 - i, 2));
    CHECK(mirrored.reversed(1).data() == v.data());
    CHECK(mirrored.slice(1, 1, 2)(0, 1, 0) == v(0, 0, 0));
    CHECK(v.slice(1, 0, 0).reversed(1).data() == v.data());  // nothing to go to the end of
    swapped(0, 1, 2) = -7;
    CHECK(data[9] == -7);
    CHECK(data == [] {
        auto expected = counting(24);
        expected[9] = -7;
        return expected;
    }());
}

TEST_CASE("view: made from vectors and spans that are large enough")
{
    std::vector<float> data(6, 1.0f);
    const std::vector<float>& constant = data;
    CHECK(view<float, 2>{data, 2, 3}.data() == data.data());
    CHECK(view<const float, 2>{constant, 2, 3}.data() == data.data());
    CHECK(view<float, 1>{std::span<float>(data), 5}.size() == 5);
    CHECK_THROWS_AS((view<float, 2>{data, 2, 4}), ssmkit::shape_error);
    CHECK_THROWS_AS((view<const float, 2>{constant, 7, 1}), ssmkit::shape_error);
    CHECK_THROWS_AS((view<float, 1>{std::span<float>(data), 7}), ssmkit::shape_error);
}

TEST_CASE("view: a view of mutable elements becomes one of const elements and not the reverse")
{
    STATIC_REQUIRE(std::is_convertible_v<view<float, 2>, view<const float, 2>>);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<view<const float, 2>, view<float, 2>>);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<view<float, 2>, view<const double, 2>>);
    STATIC_REQUIRE_FALSE(std::is_convertible_v<view<float, 2>, view<float, 3>>);
    std::vector<float> data(4);
    const view<float, 2> v{data.data(), {2, 2}, {1, 2}};
    const view<const float, 2> c = v;
    CHECK(c.data() == v.data());
    CHECK(c.strides() == v.strides());
}

TEST_CASE("view: offsets beyond 2^32 elements")  // F7
{
    // Addresses are formed, not read: there is no such memory here, which the compiler need not know.
    char byte = 0;
    char* volatile opaque = &byte;
    char* const base = opaque;
    const auto address = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p); };
    const index long_axis = index{1} << 33;
    const view<char, 3> v{base, 3, long_axis, 2};
    CHECK(v.size() == 3 * 2 * long_axis);
    CHECK(v.stride(0) == 2 * long_axis);
    CHECK(address(v.pointer(2, long_axis - 1, 1)) - address(base) == static_cast<std::uintptr_t>(6 * long_axis - 1));
    CHECK(address(v[2].data()) - address(base) == static_cast<std::uintptr_t>(4 * long_axis));
    CHECK(address(v.slice(1, long_axis - 5, 5).data()) - address(base) == static_cast<std::uintptr_t>(2 * (long_axis - 5)));
    CHECK(address(v.reversed(1).data()) - address(base) == static_cast<std::uintptr_t>(2 * (long_axis - 1)));
}

TEST_CASE("view: usable in constant expressions")
{
    static constexpr int data[6] = {0, 1, 2, 3, 4, 5};
    constexpr view<const int, 2> v{data, 2, 3};
    STATIC_REQUIRE(v(1, 1) == 4);
    STATIC_REQUIRE(v.transposed(0, 1)(2, 0) == 2);
    STATIC_REQUIRE(v.reversed(0)(0, 0) == 3);
}
