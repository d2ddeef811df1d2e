#include <ssmkit/companion_kernel.hpp>

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include <ssmkit/reference/companion_kernel.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct companion_problem {
    int order;
    tensor<T, 2> a, b, c, K, dK, da, db, dc;

    companion_problem(index kernels, index state, index length, int norm_order, layout form = layout::row_major, double size = 1,
                      guard edge = guard::none)
        : order(norm_order)
    {
        random numbers(2);
        const std::array<index, 2> rows{kernels, state}, outputs{kernels, length};
        a = random_tensor<T, 2>(numbers, rows, {-0.6 * size, 0.6 * size}, form, edge);
        b = random_tensor<T, 2>(numbers, rows, {-1, 1}, form, edge);
        c = random_tensor<T, 2>(numbers, rows, {-1, 1}, form, edge);
        dK = random_tensor<T, 2>(numbers, outputs, {-1, 1}, form, edge);
        K = {outputs, form, edge};
        for (auto* t : {&da, &db, &dc}) *t = {rows, form, edge};
    }

    companion_kernel_args<T> args() const { return {.a = a, .b = b, .c = c, .norm_order = order, .K = K}; }
    companion_kernel_backward_args<T> backward() const { return {.forward = args(), .dK = dK, .da = da, .db = db, .dc = dc}; }

    void run() const
    {
        companion_kernel(args());
        companion_kernel_backward(backward());
    }

    /// f(name, result, other's)
    template <class F>
    void for_each_result(const companion_problem& o, F&& f) const
    {
        f("K", K, o.K), f("da", da, o.da), f("db", db, o.db), f("dc", dc, o.dc);
    }
};

template <class T>
void compare(index kernels, index state, index length, int order, layout form = layout::row_major, double size = 1,
             guard edge = guard::none)
{
    INFO(kernels << " " << state << " " << length << " order " << order << " layout " << static_cast<int>(form));
    const companion_problem<T> p(kernels, state, length, order, form, size, edge), expected(kernels, state, length, order,
                                                                                            layout::row_major, size);
    p.run();
    reference::companion_kernel(expected.args());
    reference::companion_kernel_backward(expected.backward());
    p.for_each_result(expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= (std::is_same_v<T, float> ? 3e-7 : 1e-12));
        CHECK(x.gaps_untouched());
    });
}

}  // namespace

TEST_CASE("companion_kernel: four steps by hand")
{
    // â = (1/4, -3/4): x = (1, 0), (0, 1), (1/4, -3/4), (-3/16, 13/16).
    const double a[] = {1, -3}, b[] = {1, 0}, c[] = {16, 1};
    double K[4];
    const companion_kernel_args<double> args{.a = {a, 1, 2}, .b = {b, 1, 2}, .c = {c, 1, 2}, .K = {K, 1, 4}};
    for (const bool plain : {false, true}) {
        plain ? reference::companion_kernel(args) : companion_kernel(args);
        CHECK((K[0] == 16 && K[1] == 1 && K[2] == 3.25 && K[3] == -2.1875));
    }
}

TEMPLATE_TEST_CASE("companion_kernel: agrees with the reference, for every norm, size and layout", "", float, double)
{
    for (const int order : {0, 1, 2}) {
        for (const layout form : all_layouts) compare<TestType>(3, 5, 8, order, form);
        for (const guard edge : {guard::below, guard::above}) compare<TestType>(3, 5, 8, order, layout::row_major, 1, edge);
        for (const index state : {0, 2, 7, 17}) compare<TestType>(2, state, 23, order);
        if (order == 0) compare<TestType>(2, 1, 23, order);  // of x / |x|, rounding is all the gradient
        for (const index length : {0, 1, 2}) compare<TestType>(2, 3, length, order);
        compare<TestType>(2, 3, 9, order, layout::row_major, 1e-5);  // too small to be divided
        compare<TestType>(0, 3, 4, order);
    }
}

TEST_CASE("companion_kernel: neither threads nor what is not asked for change a bit")
{
    threads pool(2);
    const companion_problem<float> p(5, 4, 9, 1), q(5, 4, 9, 1);
    p.run();
    companion_kernel(q.args(), pool);
    companion_kernel_backward(q.backward(), pool);
    p.for_each_result(q, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(same_bits(x, wanted));
    });
    const companion_problem<float> few(5, 4, 9, 1);
    auto b = few.backward();
    b.da = {}, b.dc = {};
    companion_kernel_backward(b);
    CHECK(same_bits(few.db, p.db));
}

TEST_CASE("companion_kernel: a NaN stays with its kernel, and reaches what comes after")
{
    for (const int order : {0, 1, 2}) {
        const companion_problem<float> p(3, 4, 9, order);
        p.a(1, 2) = quiet_nan<float>();
        p.run();
        for_each_index(p.K.view(), [&](index i, index l) { CHECK(is_nan(p.K(i, l)) == (i == 1 && l > 0)); });
        for_each_index(p.db.view(), [&](index i, index n) { CHECK((is_nan(p.db(i, n)) && i != 1) == false); });
    }
}

TEST_CASE("companion_kernel: the same through SpaceTime's frequencies")
{
    using number = std::complex<double>;
    const index d = 4, L = 11;
    const companion_problem<double> p(1, d, L, 1);
    companion_kernel(p.args());
    std::vector<double> a;
    for (index n = 0; n < d; ++n) a.push_back(p.a(0, n));
    double norm = 0;
    for (const double x : a) norm += std::abs(x);
    for (double& x : a) x /= norm;
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
    a = p.args();
    a.c = {a.K.data(), a.c.extents()};
    CHECK(complaint_of([&] { companion_kernel(a); }).find("companion_kernel: K overlaps c") == 0);
    auto b = p.backward();
    b.da = b.dc;
    CHECK(complaint_of([&] { companion_kernel_backward(b); }).find("companion_kernel_backward: dc overlaps da") == 0);
    b = p.backward();
    b.da = b.da.slice(0, 0, 1);
    CHECK(complaint_of([&] { companion_kernel_backward(b); }).find("companion_kernel_backward: da has shape") == 0);
}

}  // namespace ssmkit::testing
