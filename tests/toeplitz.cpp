#include <ssmkit/toeplitz.hpp>

#include <string>

#include <ssmkit/reference/toeplitz.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-14 : 2e-6;

template <class T>
struct series {
    tensor<T, 2> u, v, y, dy, du, dv, g, h;

    series(index rows, index length, layout form = layout::row_major)
    {
        random numbers(static_cast<std::uint64_t>(length) + 1);
        const std::array<index, 2> shape{rows, length};
        for (tensor<T, 2>* t : {&u, &v, &dy}) (*t = tensor<T, 2>(shape, form)).fill(numbers, {-1, 1});
        for (tensor<T, 2>* t : {&y, &du, &dv, &h}) *t = tensor<T, 2>(shape, form);
        // A series without zeros within the unit circle, whose inverse therefore stays small.
        g = tensor<T, 2>(shape, form);
        g.fill(
            [&](index, index t) { return static_cast<T>(t == 0 ? 1.5 : numbers.uniform(-0.4, 0.4) / static_cast<double>(t * t)); });
    }

    series<double> wide() const
    {
        series<double> w(u.extent(0), u.extent(1));
        w.u = u.template as<double>();
        w.v = v.template as<double>();
        w.dy = dy.template as<double>();
        w.g = g.template as<double>();
        return w;
    }

    toeplitz_args<T> args() const { return {u.view(), v.view(), y.view()}; }
    toeplitz_backward_args<T> backward_args() const { return {u.view(), v.view(), dy.view(), du.view(), dv.view()}; }
    toeplitz_inverse_args<T> inverse_args() const { return {g.view(), h.view()}; }
};

}  // namespace

TEST_CASE("toeplitz: by hand")
{
    const float u[] = {1, 2, 3}, v[] = {4, 5, 6}, g[] = {2, -2, 0};
    float y[3], h[3];
    toeplitz(toeplitz_args<float>{{u, 1, 3}, {v, 1, 3}, {y, 1, 3}});
    const float expected[] = {4, 13, 28};
    for (int t = 0; t < 3; ++t) CHECK(std::abs(y[t] - expected[t]) <= 1e-5f);
    toeplitz_inverse(toeplitz_inverse_args<float>{{g, 1, 3}, {h, 1, 3}});  // 1/2 (1 + x + x² ...)
    for (const float x : h) CHECK(x == 0.5f);
}

TEMPLATE_TEST_CASE("toeplitz: agrees with the reference, any length, any layout", "", float, double)
{
    for (const index length : {0, 1, 2, 16, 63, 64, 65, 127, 128, 129, 200, 600, 1500}) {
        for (const layout form : {layout::row_major, layout::column_major, layout::strided, layout::negative}) {
            INFO(length);
            const series<TestType> s(3, length, form);
            const series<double> expected = s.wide();
            toeplitz(s.args());
            toeplitz_backward(s.backward_args());
            toeplitz_inverse(s.inverse_args());
            reference::toeplitz(expected.args());
            reference::toeplitz_backward(expected.backward_args());
            reference::toeplitz_inverse(expected.inverse_args());
            CHECK(relative_error(s.y, expected.y) <= budget<TestType>);
            CHECK(relative_error(s.du, expected.du) <= budget<TestType>);
            CHECK(relative_error(s.dv, expected.dv) <= budget<TestType>);
            CHECK(relative_error(s.h, expected.h) <= budget<TestType>);
            CHECK(s.y.gaps_untouched());
            CHECK(s.h.gaps_untouched());
        }
    }
    const series<TestType> none(0, 5);
    toeplitz(none.args());
    toeplitz_inverse(none.inverse_args());
}

TEST_CASE("toeplitz: a series times its inverse is one")
{
    const series<double> s(2, 1000);
    toeplitz_inverse(s.inverse_args());
    toeplitz(toeplitz_args<double>{s.g.view(), s.h.view(), s.y.view()});
    for_each_index(s.y.view(), [&](index r, index t) { REQUIRE(std::abs(s.y(r, t) - (t == 0)) <= 1e-14); });
}

TEST_CASE("toeplitz: threads and workspace change no bit; nothing is allocated with one")
{
    threads pool(3);
    const series<float> one(5, 700), other(5, 700);
    toeplitz(one.args());
    toeplitz_inverse(one.inverse_args());
    toeplitz(other.args(), {}, pool);
    CHECK(same_bits(one.y, other.y));
    toeplitz_inverse(other.inverse_args(), {}, pool);
    CHECK(same_bits(one.h, other.h));
    for (const unsigned char garbage : {0xff, 0x7f}) {
        std::vector<std::byte> memory(
            std::max({toeplitz_workspace_size(other.args()), toeplitz_inverse_workspace_size(other.inverse_args()),
                      toeplitz_backward_workspace_size(other.backward_args())}),
            std::byte{garbage});
        CHECK(allocations_during([&] {
            toeplitz(other.args(), memory);
            toeplitz_inverse(other.inverse_args(), memory);
            toeplitz_backward(other.backward_args(), memory);
        }) == 0);
        CHECK(same_bits(one.y, other.y));
        CHECK(same_bits(one.h, other.h));
    }
}

TEST_CASE("toeplitz: names the argument that does not fit")
{
    const series<float> s(2, 9);
    const auto complaint = [](auto&& call) -> std::string {
        try {
            call();
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    auto a = s.args();
    a.v = a.v.slice(1, 0, 3);
    CHECK(complaint([&] { toeplitz(a); }).find("toeplitz: v has shape") == 0);
    a = s.args();
    a.y = {const_cast<float*>(a.u.data()), 2, 9};
    CHECK(complaint([&] { toeplitz(a); }).find("toeplitz: y overlaps u") == 0);
    auto i = s.inverse_args();
    i.h = i.h.slice(0, 0, 1);
    CHECK(complaint([&] { toeplitz_inverse(i); }).find("toeplitz_inverse: h has shape") == 0);
    auto b = s.backward_args();
    b.du = b.dv;
    CHECK(complaint([&] { toeplitz_backward(b); }).find("toeplitz_backward: dv overlaps du") == 0);
}

}  // namespace ssmkit::testing
