#include "catch.hpp"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace {

using ssmkit::index, ssmkit::view;
using namespace ssmkit::detail;

/// The message of the shape_error that f throws; empty if it throws none.
template <class F>
std::string complaint(F&& f)
{
    try {
        f();
    } catch (const ssmkit::shape_error& e) {
        return e.what();
    }
    return {};
}

template <class T, std::size_t RankA, class U, std::size_t RankB>
bool overlap(const view<T, RankA>& a, const view<U, RankB>& b)
{
    const bool result = may_overlap(footprint_of(a), footprint_of(b));
    CHECK(may_overlap(footprint_of(b), footprint_of(a)) == result);
    return result;
}

/// Addresses of all bytes of a view.
template <class T>
std::set<std::uintptr_t> bytes_of(const view<T, 2>& v)
{
    std::set<std::uintptr_t> bytes;
    for (index i = 0; i < v.extent(0); ++i) {
        for (index k = 0; k < v.extent(1); ++k) {
            for (std::size_t byte = 0; byte < sizeof(T); ++byte) {
                bytes.insert(reinterpret_cast<std::uintptr_t>(v.pointer(i, k)) + byte);
            }
        }
    }
    return bytes;
}

}  // namespace

TEST_CASE("check: shape_error names the operation, the argument, what it got and what was expected")
{
    std::vector<float> data(24);
    const view<float, 3> v{data.data(), 2, 3, 4};
    CHECK(complaint([&] { require_shape("scan", "u", v, {{"batch", 2}, {"length", 5}, {"dim"}}); }) ==
          "scan: u has shape (2, 3, 4), expected (batch = 2, length = 5, dim)");
    CHECK(complaint([&] { require_shape("scan", "u", v, {{"batch", 2}, {"length", 3}, {"dim"}}); }).empty());
    CHECK(complaint([&] { require_shape_if_given("scan", "z", view<float, 1>{}, {{"dim", 3}}); }).empty());
    CHECK(complaint([&] { require_shape_if_given("scan", "z", view<float, 1>{data.data(), 2}, {{"dim", 3}}); }) ==
          "scan: z has shape (2), expected (dim = 3)");
    CHECK(complaint([&] { require_shape("scan", "z", view<float, 1>{}, {{"dim", 3}}); }) ==
          "scan: z has shape (0), expected (dim = 3)");
    CHECK(complaint([&] { require(false, "scan", "order", "is not a permutation"); }) == "scan: order is not a permutation");
}

TEST_CASE("check: a negative extent fits nothing")
{
    float element = 0;
    const view<float, 2> v{&element, -1, 3};
    CHECK(complaint([&] { require_shape("op", "x", v, {{"batch"}, {"dim"}}); }) ==
          "op: x has shape (-1, 3), expected (batch, dim)");
}

TEST_CASE("check: shape_error is an invalid_argument")
{
    CHECK_THROWS_AS(ssmkit::detail::fail("x"), std::invalid_argument);
}

TEST_CASE("check: groups divide the channels")
{
    for (const index ngroups : {1, 2, 3, 6}) CHECK(complaint([&] { require_groups("op", "B", 6, ngroups); }).empty());
    CHECK(complaint([] { require_groups("op", "B", 6, 4); }) == "op: B has 4 groups, expected a divisor of 6 channels");
    CHECK(complaint([] { require_groups("op", "B", 6, 0); }) == "op: B has 0 groups, expected a divisor of 6 channels");
    CHECK(complaint([] { require_groups("op", "B", 6, 12); }) == "op: B has 12 groups, expected a divisor of 6 channels");
    CHECK(complaint([] { require_groups("op", "B", 0, 0); }).empty());
    CHECK(complaint([] { require_groups("op", "B", 0, 3); }).empty());
}

TEST_CASE("check: an output must have distinct elements")
{
    std::vector<float> data(8);
    const auto problem = [&](const view<float, 2>& v) { return complaint([&] { require_distinct_elements("op", "y", v); }); };
    CHECK(problem({data.data(), {2, 4}, {0, 1}}) == "op: y is written but has stride 0 along an axis");
    CHECK(problem({data.data(), {1, 4}, {0, 1}}).empty());  // a stride that is never used
    CHECK(problem({data.data(), {0, 4}, {0, 0}}).empty());
    CHECK(problem({data.data() + 7, {2, 4}, {-4, -1}}).empty());
    CHECK(problem({data.data(), {4, 4}, {1, 1}}) == "op: y is written but has strides by which two indices name one element");
    CHECK(problem({data.data(), {2, 3}, {3, 2}}).empty());  // neither inside the other, and yet apart
    // All pairs of axes, against the set of their addresses.
    for (const index rows : {1, 2, 3, 5}) {
        for (const index columns : {1, 2, 4}) {
            for (index s = -7; s <= 7; ++s) {
                for (index t = -7; t <= 7; ++t) {
                    std::set<index> addresses;
                    for (index i = 0; i < rows; ++i) {
                        for (index k = 0; k < columns; ++k) addresses.insert(i * s + k * t);
                    }
                    const bool distinct = addresses.size() == static_cast<std::size_t>(rows * columns);
                    REQUIRE(problem({data.data(), {rows, columns}, {s, t}}).empty() == distinct);
                }
            }
        }
    }
}

TEST_CASE("check: halves of one buffer do not overlap")
{
    std::vector<float> data(2 * 5 * 12);
    const view<float, 3> xz{data.data(), 2, 5, 12};  // (batch, length, 2 dim), as an input projection leaves them
    const auto x = xz.slice(2, 0, 6), z = xz.slice(2, 6, 6);
    CHECK_FALSE(overlap(x, z));
    CHECK(overlap(x, xz.slice(2, 5, 6)));
    CHECK(overlap(x, x));
    CHECK_FALSE(overlap(x.transposed(1, 2), z));
    CHECK_FALSE(overlap(x.reversed(1), z));
    CHECK_FALSE(overlap(x, z.reversed(1).reversed(2)));
    CHECK(overlap(x.reversed(0), xz.slice(2, 5, 1)));
    CHECK_FALSE(overlap(xz.slice(1, 0, 2), xz.slice(1, 2, 3)));
    CHECK(overlap(xz.slice(1, 0, 3), xz.slice(1, 2, 3)));
    CHECK_FALSE(overlap(xz.slice(0, 0, 1), xz.slice(0, 1, 1)));
}

TEST_CASE("check: halves that alternate along time do not overlap either")
{
    std::vector<float> data(40);
    const view<float, 2> even{data.data(), {20, 1}, {2, 1}}, odd{data.data() + 1, {20, 1}, {2, 1}};
    CHECK_FALSE(overlap(even, odd));
    CHECK_FALSE(overlap(even.reversed(0), odd));
    CHECK(overlap(even, even.slice(0, 10, 10)));
    CHECK_FALSE(overlap(even.slice(0, 0, 10), even.slice(0, 10, 10)));
}

TEST_CASE("check: views that are empty overlap nothing")
{
    std::vector<float> data(8);
    const view<float, 2> all{data.data(), 2, 4};
    CHECK_FALSE(overlap(all, all.slice(0, 1, 0)));
    CHECK_FALSE(overlap(all, view<float, 2>{}));
    CHECK_FALSE(overlap(view<float, 2>{}, view<float, 2>{}));
}

TEST_CASE("check: no overlap is missed, whatever the strides and element sizes")
{
    // Against the sets of bytes themselves, over all small views of one buffer. may_overlap may err on the other side, but
    // not where both have one shape and the same strides, as slices of one buffer do.
    alignas(8) static unsigned char buffer[256];
    const auto at = [&](index byte) { return buffer + 96 + byte; };
    std::vector<view<unsigned char, 2>> small;
    std::vector<view<std::uint16_t, 2>> wide;
    for (const index first : {0, 3, 4, 8}) {
        for (const index outer : {-8, -4, 3, 4, 8, 12}) {
            for (const index inner : {-2, -1, 0, 1, 2, 4}) {
                for (const index n : {1, 2, 3}) small.push_back({at(first), {2, n}, {outer, inner}});
                wide.push_back({reinterpret_cast<std::uint16_t*>(at(first & ~index{1})), {3, 2}, {outer, inner}});
            }
        }
    }
    std::size_t overlapping = 0, disjoint = 0;
    const auto compare = [&](const auto& some, const auto& others) {
        for (const auto& a : some) {
            const std::set<std::uintptr_t> bytes = bytes_of(a);
            for (const auto& b : others) {
                const std::set<std::uintptr_t> other = bytes_of(b);
                const bool truly = std::any_of(other.begin(), other.end(), [&](auto byte) { return bytes.contains(byte); });
                const bool told = may_overlap(footprint_of(a), footprint_of(b));
                if (truly && !told) FAIL("missed an overlap");
                ++(truly ? overlapping : disjoint);
            }
        }
    };
    compare(small, small);
    compare(small, wide);
    CHECK(overlapping > 1000);
    CHECK(disjoint > 1000);
}

TEST_CASE("check: slices of one buffer are told apart exactly")
{
    std::vector<double> data(4 * 6 * 8);
    const view<double, 3> whole{data.data(), 4, 6, 8};
    for (const auto& v : {whole, whole.reversed(0), whole.transposed(0, 2), whole.reversed(2).transposed(1, 2)}) {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            const index extent = v.extent(axis);
            for (index cut = 1; cut < extent; ++cut) {
                CHECK_FALSE(overlap(v.slice(axis, 0, cut), v.slice(axis, cut, extent - cut)));
                CHECK(overlap(v.slice(axis, 0, cut + 1), v.slice(axis, cut, extent - cut)));
            }
        }
    }
}

TEST_CASE("check: an output that overlaps an input or another output is named with it")
{
    std::vector<float> data(12);
    const view<float, 1> u{data.data(), 4}, y{data.data() + 4, 4}, h{data.data() + 8, 4};
    const auto disjoint = [&](const view<float, 1>& out, const view<float, 1>& other_out, const view<float, 1>& in) {
        return complaint([&] {
            const named_footprint outputs[] = {named("y", out), named("h", other_out)};
            const named_footprint inputs[] = {named("u", in)};
            require_disjoint("op", outputs, inputs);
        });
    };
    CHECK(disjoint(y, h, u).empty());
    CHECK(disjoint(y, h, y.slice(0, 3, 1)) == "op: y overlaps u in memory");
    CHECK(disjoint(y, y, u) == "op: h overlaps y in memory");
    CHECK(disjoint(y, h, h) == "op: h overlaps u in memory");
}

TEST_CASE("check: the error handler can be replaced and is given back")
{
    static std::string told;
    const auto mine = [](const char* message) { told = message; };
    const ssmkit::error_handler before = ssmkit::set_error_handler(mine);
    CHECK(ssmkit::set_error_handler(before) != before);
    // With exceptions on, as here, it is not called.
    CHECK(complaint([] { ssmkit::detail::fail("text"); }) == "text");
    CHECK(told.empty());
}
