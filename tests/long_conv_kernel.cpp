#include <ssmkit/long_conv_kernel.hpp>

#include <cmath>
#include <string>

#include <ssmkit/reference/long_conv_kernel.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, double> ? 1e-14 : 2e-6;

constexpr long_conv_smoothing ways[] = {long_conv_smoothing::none, long_conv_smoothing::time, long_conv_smoothing::frequency};

template <class T>
struct regular_problem {
    tensor<T, 3> kernel, K, dK, dkernel;
    long_conv_smoothing smoothing;
    index window;
    T lambda = T(0.125);

    regular_problem(std::array<index, 3> shape, long_conv_smoothing way, index window_, layout form = layout::row_major)
        : smoothing(way), window(window_)
    {
        random numbers(static_cast<std::uint64_t>(shape[2]) + 1);
        const std::array<index, 3> out{shape[0], shape[1], way == long_conv_smoothing::frequency ? shape[2] / 2 * 2 : shape[2]};
        kernel = {shape, form};
        kernel.fill(numbers, {-1, 1});
        dK = {out, form};
        dK.fill(numbers, {-1, 1});
        K = {out, form};
        dkernel = {shape, form};
    }

    regular_problem<double> wide() const
    {
        regular_problem<double> w(kernel.view().extents(), smoothing, window);
        w.kernel = kernel.template as<double>();
        w.dK = dK.template as<double>();
        w.lambda = static_cast<double>(lambda);
        return w;
    }

    long_conv_kernel_args<T> args() const { return {kernel.view(), lambda, smoothing, window, K.view()}; }
    long_conv_kernel_backward_args<T> backward_args() const
    {
        auto f = args();
        f.K = {};
        return {f, dK.view(), dkernel.view()};
    }
};

}  // namespace

TEST_CASE("long_conv_kernel: squashed by hand")
{
    const float kernel[] = {0.5f, -0.5f, 0.25f, -0.125f, 0.0f, std::nanf("")};
    float K[6];
    long_conv_kernel(long_conv_kernel_args<float>{.kernel = {kernel, 1, 1, 6}, .lambda = 0.25f, .K = {K, 1, 1, 6}});
    const float expected[] = {0.25f, -0.25f, 0, 0, 0};
    CHECK(std::equal(expected, expected + 5, K));
    CHECK(std::isnan(K[5]));
    long_conv_kernel(long_conv_kernel_args<float>{.kernel = {kernel, 1, 1, 4}, .smoothing = long_conv_smoothing::time, .window = 3,
                                                  .K = {K, 1, 1, 4}});
    const float means[] = {0, 0.25f / 3, -0.375f / 3, 0.125f / 3};
    for (int l = 0; l < 4; ++l) CHECK(std::abs(K[l] - means[l]) <= 1e-7f);
}

TEMPLATE_TEST_CASE("long_conv_kernel: agrees with the reference, any length, any window, any layout", "", float, double)
{
    for (const long_conv_smoothing way : ways) {
        for (const index length : {0, 1, 2, 3, 14, 15, 16, 18, 33, 64, 101}) {
            for (const index window : {1, 3, 5, 7, 41, 203}) {
                for (const layout form : {layout::row_major, layout::column_major}) {
                    INFO("way " << static_cast<int>(way) << " length " << length << " window " << window);
                    const regular_problem<TestType> p({2, 11, length}, way, window, form);
                    const auto expected = p.wide();
                    long_conv_kernel(p.args());
                    reference::long_conv_kernel(expected.args());
                    CHECK(relative_error(p.K, expected.K) <= budget<TestType>);
                    long_conv_kernel_backward(p.backward_args());
                    reference::long_conv_kernel_backward(expected.backward_args());
                    CHECK(relative_error(p.dkernel, expected.dkernel) <= budget<TestType>);
                }
            }
        }
    }
    const regular_problem<TestType> none({0, 3, 5}, ways[1], 3);
    long_conv_kernel(none.args());
}

TEST_CASE("long_conv_kernel: the reference's gradient is the derivative")
{
    for (const long_conv_smoothing way : ways) {
        const regular_problem<double> p({1, 2, 13}, way, 5);
        reference::long_conv_kernel_backward(p.backward_args());
        const auto loss = [&] {
            reference::long_conv_kernel(p.args());
            double sum = 0;
            for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
            return sum;
        };
        for_each_index(p.kernel.view(), [&](auto... i) {
            const double at = p.kernel(i...), step = 1e-6;
            p.kernel(i...) = at + step;
            const double above = loss();
            p.kernel(i...) = at - step;
            const double below = loss();
            p.kernel(i...) = at;
            CHECK(std::abs((above - below) / (2 * step) - p.dkernel(i...)) <= 1e-8);
        });
    }
}

TEST_CASE("long_conv_kernel: threads and workspace change no bit; nothing is allocated with one")
{
    threads pool(3);
    for (const long_conv_smoothing way : ways) {
        const regular_problem<float> one({2, 21, 101}, way, 7), other({2, 21, 101}, way, 7);
        long_conv_kernel(one.args());
        long_conv_kernel_backward(one.backward_args());
        long_conv_kernel(other.args(), {}, pool);
        long_conv_kernel_backward(other.backward_args(), {}, pool);
        CHECK((same_bits(one.K, other.K) && same_bits(one.dkernel, other.dkernel)));
        for (const unsigned char garbage : {0xff, 0x7f}) {
            std::vector<std::byte> memory(long_conv_kernel_workspace_size(other.args()), std::byte{garbage});
            CHECK(allocations_during([&] {
                long_conv_kernel(other.args(), memory);
                long_conv_kernel_backward(other.backward_args(), memory);
            }) == 0);
            CHECK((same_bits(one.K, other.K) && same_bits(one.dkernel, other.dkernel)));
        }
    }
}

TEST_CASE("double_exponential: agrees with the reference")
{
    for (const index dim : {0, 1, 2, 3, 8}) {
        tensor<double, 3> a({2, dim, 14}), b({2, dim, 14});
        double_exponential(double_exponential_args<double>{a.view()});
        reference::double_exponential(double_exponential_args<double>{b.view()});
        CHECK(same_bits(a, b));
        if (dim == 8) CHECK(std::abs(a(1, 4, 7) - std::exp(-0.5 * 2)) <= 1e-15);  // 4^(4/8) = 2, half way
    }
}

TEST_CASE("long_conv_kernel: names the argument that does not fit")
{
    const regular_problem<float> p({2, 3, 9}, long_conv_smoothing::frequency, 5);
    const auto complaint = [](auto&& call) -> std::string {
        try {
            call();
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    auto a = p.args();
    a.window = 4;
    CHECK(complaint([&] { long_conv_kernel(a); }).find("long_conv_kernel: window") == 0);
    a = p.args();
    a.lambda = -1;
    CHECK(complaint([&] { long_conv_kernel(a); }).find("long_conv_kernel: lambda") == 0);
    a = p.args();
    a.smoothing = long_conv_smoothing::time;  // K keeps the length then
    CHECK(complaint([&] { long_conv_kernel(a); }).find("long_conv_kernel: K has shape") == 0);
    auto b = p.backward_args();
    b.dkernel = {const_cast<float*>(p.kernel.view().data()), 2, 3, 9};
    CHECK(complaint([&] { long_conv_kernel_backward(b); }).find("long_conv_kernel_backward: dkernel overlaps kernel") == 0);
}

TEST_CASE("long_conv_kernel: a window that nothing is smoothed with does not matter")
{
    const regular_problem<double> one({1, 2, 9}, long_conv_smoothing::none, 1);
    long_conv_kernel(one.args());
    for (const index window : {index{-9}, index{-1000}, index{0}, index{1} << 61}) {
        const regular_problem<double> other({1, 2, 9}, long_conv_smoothing::none, window);
        CHECK(long_conv_kernel_workspace_size(other.args()) == long_conv_kernel_workspace_size(one.args()));
        long_conv_kernel(other.args());
        CHECK(same_bits(one.K, other.K));
    }
}

}  // namespace ssmkit::testing
