#include <ssmkit/separable_conv.hpp>

#include <string>

#include <ssmkit/reference/separable_conv.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-14 : 3e-6;

template <class T, std::size_t Axes>
struct volume_problem {
    tensor<T, 2 + Axes> u, du;
    tensor<T, 3 + Axes> y, dy;
    std::array<tensor<T, 3>, Axes> k, k_reverse, dk, dk_reverse;
    tensor<T, 2> D, dD;
    index ranks;

    volume_problem(const std::array<index, Axes>& lengths, index channels, index ranks_, bool both, layout form) : ranks(ranks_)
    {
        random numbers(static_cast<std::uint64_t>(lengths[0]) + 5);
        std::array<index, 2 + Axes> shape{2, 3};
        std::array<index, 3 + Axes> out{2, channels, 3};
        std::copy(lengths.begin(), lengths.end(), shape.begin() + 2);
        std::copy(lengths.begin(), lengths.end(), out.begin() + 3);
        u = {shape, form};
        u.fill(numbers, {-1, 1});
        dy = {out, form};
        dy.fill(numbers, {-1, 1});
        D = {{channels, 3}, form};
        D.fill(numbers, {-1, 1});
        for (std::size_t i = 0; i < Axes; ++i) {
            const std::array<index, 3> rows{channels * ranks, 3,
                                            lengths[i] + 1 - 2 * static_cast<index>(i % 2)};  // longer or shorter
            k[i] = {rows, form};
            k[i].fill(numbers, {-1, 1});
            if (!both) continue;
            k_reverse[i] = {rows, form};
            k_reverse[i].fill(numbers, {-1, 1});
        }
        outputs(form);
    }
    volume_problem() = default;

    void outputs(layout form)
    {
        y = {dy.view().extents(), form};
        du = {u.view().extents(), form};
        dD = {D.view().extents(), form};
        for (std::size_t i = 0; i < Axes; ++i) {
            dk[i] = {k[i].view().extents(), form};
            if (k_reverse[i].given()) dk_reverse[i] = {k_reverse[i].view().extents(), form};
        }
    }

    volume_problem<double, Axes> wide() const
    {
        volume_problem<double, Axes> w;
        w.ranks = ranks;
        w.u = u.template as<double>();
        w.dy = dy.template as<double>();
        w.D = D.template as<double>();
        for (std::size_t i = 0; i < Axes; ++i) {
            w.k[i] = k[i].template as<double>();
            w.k_reverse[i] = k_reverse[i].template as<double>();
        }
        w.outputs(layout::row_major);
        return w;
    }

    separable_conv_args<T, Axes> args() const
    {
        separable_conv_args<T, Axes> a{.u = u.view(), .ranks = ranks, .D = D.view(), .y = y.view()};
        for (std::size_t i = 0; i < Axes; ++i) {
            a.k[i] = k[i].view();
            a.k_reverse[i] = k_reverse[i].view();
        }
        return a;
    }

    separable_conv_backward_args<T, Axes> backward_args() const
    {
        separable_conv_backward_args<T, Axes> a{.forward = args(), .dy = dy.view(), .du = du.view(), .dD = dD.view()};
        for (std::size_t i = 0; i < Axes; ++i) {
            a.dk[i] = dk[i].view();
            a.dk_reverse[i] = dk_reverse[i].view();
        }
        return a;
    }
};

template <class T, std::size_t Axes>
void compare(const std::array<index, Axes>& lengths)
{
    for (const bool both : {false, true}) {
        for (const index ranks : {1, 2}) {
            for (const layout form : {layout::row_major, layout::column_major, layout::negative}) {
                const volume_problem<T, Axes> p(lengths, 2, ranks, both, form);
                const auto expected = p.wide();
                separable_conv(p.args());
                separable_conv_backward(p.backward_args());
                reference::separable_conv(expected.args());
                reference::separable_conv_backward(expected.backward_args());
                CHECK(relative_error(p.y, expected.y) <= budget<T>);
                CHECK(relative_error(p.du, expected.du) <= budget<T>);
                CHECK(relative_error(p.dD, expected.dD) <= budget<T>);
                for (std::size_t i = 0; i < Axes; ++i) {
                    CHECK(relative_error(p.dk[i], expected.dk[i]) <= budget<T>);
                    CHECK(relative_error(p.dk_reverse[i], expected.dk_reverse[i]) <= budget<T>);
                }
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("separable_conv: agrees with the reference over one, two and three axes", "", float, double)
{
    compare<TestType, 1>({33});
    compare<TestType, 1>({1});
    compare<TestType, 2>({6, 5});
    compare<TestType, 2>({1, 17});
    compare<TestType, 2>({12, 3});
    compare<TestType, 2>({0, 3});
    compare<TestType, 3>({3, 4, 2});
}

TEST_CASE("separable_conv: large enough for transforms, an impulse gives the product of its kernels")
{
    volume_problem<float, 2> p({130, 90}, 1, 1, true, layout::row_major);
    p.u.fill([](index, index, index i, index j) { return i == 60 && j == 40 ? 1.0f : 0.0f; });
    auto a = p.args();
    a.D = {};
    separable_conv(a);
    const auto tap = [&](std::size_t axis, index h, index offset) {
        const auto& k = offset >= 0 ? p.k[axis] : p.k_reverse[axis];
        return static_cast<double>(k(0, h, offset >= 0 ? offset : -offset - 1));
    };
    double worst = 0;
    for_each_index(p.y.view(), [&](index b, index c, index h, index i, index j) {
        worst = std::max(worst, std::abs(static_cast<double>(p.y(b, c, h, i, j)) - tap(0, h, i - 60) * tap(1, h, j - 40)));
    });
    CHECK(worst <= 3e-6);
}

TEST_CASE("separable_conv: threads and workspace change no bit; nothing is allocated with one")
{
    threads pool(3);
    const volume_problem<float, 2> one({70, 20}, 2, 2, true, layout::row_major), other({70, 20}, 2, 2, true, layout::row_major);
    separable_conv(one.args());
    separable_conv_backward(one.backward_args());
    separable_conv(other.args(), {}, pool);
    separable_conv_backward(other.backward_args(), {}, pool);
    const auto same = [&] {
        return same_bits(one.y, other.y) && same_bits(one.du, other.du) && same_bits(one.dk[0], other.dk[0]) &&
               same_bits(one.dk_reverse[1], other.dk_reverse[1]) && same_bits(one.dD, other.dD);
    };
    CHECK(same());
    for (const unsigned char garbage : {0xff, 0x7f}) {
        std::vector<std::byte> memory(std::max(separable_conv_workspace_size(other.args()),
                                               separable_conv_backward_workspace_size(other.backward_args())), std::byte{garbage});
        CHECK(allocations_during([&] {
            separable_conv(other.args(), memory);
            separable_conv_backward(other.backward_args(), memory);
        }) == 0);
        CHECK(same());
    }
}

TEST_CASE("separable_conv: names the argument that does not fit")
{
    const volume_problem<float, 2> p({6, 5}, 2, 1, true, layout::row_major);
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        std::string said;
        try {
            separable_conv(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("separable_conv: ") + text) == 0);
    };
    named("ranks", [](auto& a) { a.ranks = 0; });
    named("k[0] has rows", [](auto& a) { a.ranks = 3; });
    named("k has shape", [](auto& a) { a.k[1] = a.k[1].slice(1, 0, 2); });
    named("k_reverse has shape", [](auto& a) { a.k_reverse[1] = a.k_reverse[1].slice(0, 0, 1); });
    named("D has shape", [](auto& a) { a.D = a.D.slice(0, 0, 1); });
    named("y does not have", [](auto& a) { a.y = a.y.slice(4, 0, 2); });
    named("y overlaps u", [](auto& a) { a.y = {const_cast<float*>(a.u.data()), a.y.extents()}; });
}

TEST_CASE("separable_conv_backward: names the argument that does not fit, gradients of different axes included")
{
    const volume_problem<float, 2> p({6, 6}, 2, 1, true, layout::row_major);
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        std::string said;
        try {
            separable_conv_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("separable_conv_backward: ") + text) == 0);
    };
    named("dy does not have", [](auto& a) { a.dy = a.dy.slice(4, 0, 2); });
    named("du does not have", [](auto& a) { a.du = a.du.slice(3, 0, 2); });
    named("dk does not have", [](auto& a) { a.dk[1] = a.dk[1].slice(2, 0, 2); });
    named("dk_reverse does not have", [](auto& a) { a.dk_reverse[0] = a.dk_reverse[0].slice(2, 0, 2); });
    named("dD has shape", [](auto& a) { a.dD = a.dD.slice(0, 0, 1); });
    named("dk overlaps dk", [](auto& a) { a.dk[1] = {a.dk[0].data(), a.dk[1].extents()}; });
    named("dk_reverse overlaps dk", [](auto& a) { a.dk_reverse[1] = {a.dk[0].data(), a.dk_reverse[1].extents()}; });
    named("dk overlaps k", [](auto& a) { a.dk[0] = {const_cast<float*>(a.forward.k[1].data()), a.dk[0].extents()}; });
}

TEST_CASE("separable_conv: a NaN reaches what depends on it, and nothing of another batch or channel")
{
    for (const index width : {20, 2}) {  // as long as an axis, or so short that nothing is transformed
        const volume_problem<float, 2> p({9, 20}, 2, 2, true, layout::row_major);
        const auto expected = p.wide();
        p.u(1, 2, 4, 3) = quiet_nan<float>();
        expected.u(1, 2, 4, 3) = quiet_nan<double>();
        const auto run = [&](auto&& op, auto a) {
            for (auto* const kernels : {&a.k, &a.k_reverse}) {
                for (auto& k : *kernels) k = k.slice(2, 0, std::min(width, k.extent(2)));
            }
            op(a);
        };
        run([](const auto& a) { separable_conv(a); }, p.args());
        run([](const auto& a) { reference::separable_conv(a); }, expected.args());
        for_each_index(p.y.view(), [&](index b, index c, index h, index i, index j) {
            if (b != 1 || h != 2) REQUIRE(!is_nan(p.y(b, c, h, i, j)));
            if (is_nan(expected.y(b, c, h, i, j))) REQUIRE(is_nan(p.y(b, c, h, i, j)));
        });
        CHECK(is_nan(expected.y(1, 1, 2, 0, 0)) == (width == 20));
    }
}

}  // namespace ssmkit::testing
