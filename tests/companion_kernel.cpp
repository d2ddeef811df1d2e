#include <ssmkit/companion_kernel.hpp>

#include <complex>
#include <numbers>
#include <vector>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct companion_problem {
    int order;
    tensor<T, 2> a, b, c, K, dK, da, db, dc;

    companion_problem(index kernels, index state, index length, int norm_order, layout form = layout::row_major, double size = 1)
        : order(norm_order)
    {
        random numbers(2);
        const std::array<index, 2> rows{kernels, state}, outputs{kernels, length};
        a = random_tensor<T, 2>(numbers, rows, {-0.6 * size, 0.6 * size}, form);
        b = random_tensor<T, 2>(numbers, rows, {-1, 1}, form);
        c = random_tensor<T, 2>(numbers, rows, {-1, 1}, form);
        dK = random_tensor<T, 2>(numbers, outputs, {-1, 1}, form);
        K = tensor<T, 2>(outputs, form), da = tensor<T, 2>(rows, form), db = tensor<T, 2>(rows, form),
        dc = tensor<T, 2>(rows, form);
    }

    companion_kernel_args<T> args() const { return {.a = a, .b = b, .c = c, .norm_order = order, .K = K}; }
    companion_kernel_backward_args<T> backward() const { return {.forward = args(), .dK = dK, .da = da, .db = db, .dc = dc}; }

    /// a as it is used, in double.
    std::vector<double> used(index i) const
    {
        const auto norm = [&](index row) {
            double sum = 0;
            for (index n = 0; n < a.extent(1); ++n) {
                const auto x = static_cast<double>(a(row, n));
                sum += order == 1 ? std::abs(x) : x * x;
            }
            return order == 2 ? std::sqrt(sum) : sum;
        };
        double mean = 0;
        for (index row = 0; row < a.extent(0); ++row) mean += norm(row) / static_cast<double>(a.extent(0));
        std::vector<double> row;
        for (index n = 0; n < a.extent(1); ++n) row.push_back(static_cast<double>(a(i, n)) / (order && mean > 1e-4 ? norm(i) : 1));
        return row;
    }
};

/// c A^l b with A written out.
template <class T>
void compare(const companion_problem<T>& p)
{
    companion_kernel(p.args());
    const auto state = static_cast<std::size_t>(p.a.extent(1));
    for (index i = 0; i < p.a.extent(0); ++i) {
        const auto a = p.used(i);
        std::vector<double> x;
        for (index n = 0; n < p.a.extent(1); ++n) x.push_back(static_cast<double>(p.b(i, n)));
        for (index l = 0; l < p.K.extent(1); ++l) {
            double sum = 0;
            for (std::size_t n = 0; n < state; ++n) sum += static_cast<double>(p.c(i, static_cast<index>(n))) * x[n];
            CHECK(std::abs(static_cast<double>(p.K(i, l)) - sum) <= (std::is_same_v<T, float> ? 1e-6 : 1e-13));
            std::vector<double> next(state);
            for (std::size_t n = 0; n < state; ++n) {
                for (std::size_t m = 0; m < state; ++m) next[n] += ((n == m + 1 ? 1 : 0) + (m + 1 == state ? a[n] : 0)) * x[m];
            }
            x = next;
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("companion_kernel: the matrix written out, for every norm, size and layout", "", float, double)
{
    for (const int order : {0, 1, 2}) {
        for (const layout form : all_layouts) compare(companion_problem<TestType>(3, 5, 8, order, form));
        for (const index state : {0, 1, 2}) compare(companion_problem<TestType>(2, state, 6, order));
        for (const index length : {0, 1}) compare(companion_problem<TestType>(2, 3, length, order));
        compare(companion_problem<TestType>(2, 3, 9, order, layout::row_major, 1e-5));  // too small to be divided
        compare(companion_problem<TestType>(0, 3, 4, order));
    }
}

TEST_CASE("companion_kernel: the same through SpaceTime's frequencies")
{
    using number = std::complex<double>;
    const index d = 4, L = 11;
    const companion_problem<double> p(1, d, L, 1);
    companion_kernel(p.args());
    const auto a = p.used(0);
    // c̃ = c (I - A^L), by advancing the rows of A.
    std::vector<double> row, advanced, last(static_cast<std::size_t>(d)), b;
    for (index n = 0; n < d; ++n) {
        row.push_back(p.c(0, n));
        b.push_back(p.b(0, n));
    }
    last.back() = 1;
    advanced = row;
    for (index l = 0; l < L; ++l) {  // row A: elements move down by one, the last becomes row·a
        double product = 0;
        for (std::size_t n = 0; n < a.size(); ++n) product += advanced[n] * a[n];
        advanced.erase(advanced.begin());
        advanced.push_back(product);
    }
    for (std::size_t n = 0; n < row.size(); ++n) row[n] -= advanced[n];
    const auto q = [&](const std::vector<double>& u, const std::vector<double>& v, index j) {
        number sum = 0;
        for (index m = 0; m < d; ++m) {
            double r = 0;
            for (index i = 0; m + i < d; ++i) r += u[static_cast<std::size_t>(m + i)] * v[static_cast<std::size_t>(i)];
            sum += r * std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(m * j) / static_cast<double>(L));
        }
        return sum;
    };
    for (index l = 0; l < L; ++l) {
        number sum = 0;
        for (index j = 0; j < L; ++j) {
            const number omega = std::polar(1.0, 2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(L));
            sum +=
                (q(row, b, j) + q(row, a, j) * q(last, b, j) / (omega - q(last, a, j))) * std::pow(omega, static_cast<double>(l));
        }
        CHECK(std::abs(sum / static_cast<double>(L) - p.K(0, l)) < 1e-12);
    }
}

TEST_CASE("companion_kernel_backward: finite differences")
{
    for (const int order : {0, 1, 2}) {
        for (const double size : {1.0, 1e-5}) {
            const companion_problem<double> p(2, 4, 9, order, layout::row_major, size);
            companion_kernel_backward(p.backward());
            const auto loss = [&] {
                companion_kernel(p.args());
                return inner_product(p.K, p.dK);
            };
            if (size == 1 || order == 0) {
                CHECK(gradient_error(p.a, p.da, loss) < 2e-8);
            } else {
                CHECK(gradient_error(p.a, p.da, loss, 1e-6) < 1e-8);  // stays below the threshold
            }
            CHECK(gradient_error(p.b, p.db, loss) < 1e-9);
            CHECK(gradient_error(p.c, p.dc, loss) < 1e-9);
        }
    }
}

TEST_CASE("companion_kernel: names the argument that does not fit")
{
    const companion_problem<float> p(2, 3, 4, 1);
    auto a = p.args();
    a.norm_order = 3;
    CHECK(complaint_of([&] { companion_kernel(a); }).find("companion_kernel: norm_order is not") == 0);
    a = p.args();
    a.b = a.b.slice(1, 0, 2);
    CHECK(complaint_of([&] { companion_kernel(a); }).find("companion_kernel: b has shape") == 0);
    auto b = p.backward();
    b.da = b.da.slice(0, 0, 1);
    CHECK(complaint_of([&] { companion_kernel_backward(b); }).find("companion_kernel_backward: da has shape") == 0);
}

}  // namespace ssmkit::testing
