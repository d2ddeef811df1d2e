#include <ssmkit/liquid_polyb.hpp>

#include <complex>

#include <ssmkit/reference/liquid_polyb.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct polyb_problem {
    using E = std::complex<T>;
    using W = std::complex<double>;
    int degree;
    bool all, both;
    tensor<T, 3> u, k, y, dy, du, dk;
    tensor<T, 1> D, dD;
    tensor<double, 1> delta, ddelta;
    tensor<W, 2> w, dw;
    tensor<E, 2> B, dB;
    tensor<E, 3> C, dC;

    polyb_problem(index batch, index dim, index length, index state, int p, bool combinations, bool bidirectional,
                  layout form = layout::row_major, guard edge = guard::none)
        : degree(p), all(combinations), both(bidirectional)
    {
        random numbers(14);
        const index directions = both ? 2 : 1;
        const std::array<index, 2> poles{dim, state};
        const std::array<index, 3> rows{batch, dim, length}, taps{directions, dim, length}, maps{directions, dim, state};
        u = random_tensor<T, 3>(numbers, rows, {-1, 1}, form, edge);
        k = random_tensor<T, 3>(numbers, taps, {-1, 1}, form, edge);
        D = random_tensor<T, 1>(numbers, {dim}, {-1, 1}, form, edge);
        delta = random_tensor<double, 1>(numbers, {dim}, {0.3, 0.6}, form, edge);
        w = random_tensor<W, 2>(numbers, poles, {-1, -0.2, -2, 2}, form, edge);
        B = random_tensor<E, 2>(numbers, poles, {0.2, 1}, form, edge);
        C = random_tensor<E, 3>(numbers, maps, {-1, 1}, form, edge);
        dy = random_tensor<T, 3>(numbers, rows, {-1, 1}, form, edge);
        y = {rows, form, edge}, du = {rows, form, edge}, dk = {taps, form, edge}, dD = {{dim}, form, edge};
        ddelta = {{dim}, form, edge}, dw = {poles, form, edge}, dB = {poles, form, edge}, dC = {maps, form, edge};
    }

    liquid_polyb_args<T> args() const
    {
        return {.u = u,
                .k = k,
                .D = D,
                .delta = delta,
                .w = w,
                .B = B,
                .C = C,
                .degree = degree,
                .all_combinations = all,
                .bidirectional = both,
                .y = y};
    }
    liquid_polyb_backward_args<T> backward() const
    {
        return {.forward = args(), .dy = dy, .du = du, .dk = dk, .dD = dD, .ddelta = ddelta, .dw = dw, .dB = dB, .dC = dC};
    }

    void run() const
    {
        liquid_polyb(args());
        liquid_polyb_backward(backward());
    }

    /// f(name, result, other's)
    template <class F>
    void for_each_result(const polyb_problem& o, F&& f) const
    {
        f("y", y, o.y), f("du", du, o.du), f("dk", dk, o.dk), f("dD", dD, o.dD);
        f("ddelta", ddelta, o.ddelta), f("dw", dw, o.dw), f("dB", dB, o.dB), f("dC", dC, o.dC);
    }
};

template <class T>
void compare(index batch, index dim, index length, index state, int degree, bool all, bool both, layout form = layout::row_major,
             guard edge = guard::none)
{
    INFO(batch << " " << dim << " " << length << " " << state << " degree " << degree << " all " << all << " both " << both
               << " layout " << static_cast<int>(form));
    const polyb_problem<T> p(batch, dim, length, state, degree, all, both, form, edge),
        expected(batch, dim, length, state, degree, all, both);
    p.run();
    reference::liquid_polyb(expected.args());
    reference::liquid_polyb_backward(expected.backward());
    p.for_each_result(expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= (std::is_same_v<T, float> ? 3e-7 : 1e-12));
        CHECK(x.gaps_untouched());
    });
}

}  // namespace

TEMPLATE_TEST_CASE("liquid_polyb: agrees with the reference, for every degree, direction, size and layout", "", float, double)
{
    for (const bool both : {false, true}) {
        for (const bool all : {false, true}) {
            for (const int degree : {1, 2, 3, 4}) {
                for (const index length : {9, 13, 31}) compare<TestType>(2, 2, length, 3, degree, all, both);
            }
            for (const layout form : all_layouts) compare<TestType>(2, 3, 8, 2, 2, all, both, form);
            for (const guard edge : {guard::below, guard::above})
                compare<TestType>(2, 3, 8, 3, 3, all, both, layout::row_major, edge);
            compare<TestType>(1, 2, 5, 1, 2, all, both);  // the shortest with all combinations
            for (const index state : {0, 7}) compare<TestType>(1, 2, 6, state, 2, all, both);
            compare<TestType>(0, 2, 6, 1, 2, all, both);
            compare<TestType>(1, 0, 6, 1, 2, all, both);
            compare<TestType>(1, 2, 0, 1, 2, all, both);
        }
        for (const index length : {1, 2}) compare<TestType>(1, 1, length, 1, 3, false, both);
    }
}

TEST_CASE("liquid_polyb: products by hand")
{
    // β = 1/2 and its conjugate: s = 1, G = 2 Re C β = 3. The pairs of the last 4 tokens, in order: 23 24 25 34 35 45, of which the
    // last 5 stay, from the end.
    const double u[] = {11, 2, 3, 5, 7}, k[5] = {}, delta = 0.5;
    const std::complex<double> w = 0, B = 1, C(3, 8);
    double y[5];
    liquid_polyb_args<double> a{.u = {u, 1, 1, 5}, .k = {k, 1, 1, 5}, .delta = {&delta, 1}, .w = {&w, 1, 1}, .B = {&B, 1, 1},
                                .C = {&C, 1, 1, 1}, .y = {y, 1, 1, 5}};
    const auto gives = [&](std::array<double, 5> expected) {
        for (const bool plain : {false, true}) {
            plain ? reference::liquid_polyb(a) : liquid_polyb(a);
            for (std::size_t t = 0; t < 5; ++t) CHECK(std::abs(y[t] - 3 * expected[t]) < 1e-12);
        }
    };
    gives({35, 21, 15, 14, 10});
    a.all_combinations = false;
    gives({35, 15, 6, 22, 0});
    a.degree = 3;
    gives({35 + 35 * 15, 15 + 15 * 6, 6 + 6 * 22, 22, 0});
}

TEST_CASE("liquid_polyb: neither threads nor what is not asked for change a bit")
{
    threads pool(2);
    const polyb_problem<float> p(2, 5, 9, 3, 3, true, true), q(2, 5, 9, 3, 3, true, true);
    p.run();
    liquid_polyb(q.args(), pool);
    liquid_polyb_backward(q.backward(), pool);
    p.for_each_result(q, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(same_bits(x, wanted));
    });
    const polyb_problem<float> few(2, 5, 9, 3, 3, true, true);
    auto b = few.backward();
    b.du = {}, b.dk = {}, b.dD = {}, b.ddelta = {}, b.dw = {}, b.dC = {};
    liquid_polyb_backward(b);
    CHECK(same_bits(few.dB, p.dB));
}

TEST_CASE("liquid_polyb: a NaN stays with its sequence")
{
    for (const bool all : {false, true}) {
        const polyb_problem<float> p(2, 3, 9, 2, 2, all, false);
        p.u(1, 2, 8) = quiet_nan<float>();
        p.run();
        for_each_index(p.y.view(), [&](index b, index h, index t) { CHECK((is_nan(p.y(b, h, t)) && !(b == 1 && h == 2)) == false); });
        CHECK((is_nan(p.y(1, 2, 8)) && is_nan(p.y(1, 2, 0)) && !is_nan(p.y(1, 2, 7))));  // as token 8 and in the first product
        for (index h = 0; h < 3; ++h) CHECK(is_nan(p.dD(h)) == (h == 2));
    }
}

TEST_CASE("liquid_polyb_backward: finite differences")
{
    for (const bool both : {false, true}) {
        for (const bool all : {false, true}) {
            for (const int degree : {1, 2, 3}) {
                const polyb_problem<double> p(2, 2, 7, 2, degree, all, both);
                liquid_polyb_backward(p.backward());
                const auto loss = [&] {
                    liquid_polyb(p.args());
                    return inner_product(p.y, p.dy);
                };
                CHECK(gradient_error(p.u, p.du, loss) < 1e-8);
                CHECK(gradient_error(p.k, p.dk, loss) < 1e-8);
                CHECK(gradient_error(p.D, p.dD, loss) < 1e-8);
                CHECK(gradient_error(p.delta, p.ddelta, loss) < 1e-7);
                CHECK(gradient_error(p.w, p.dw, loss) < 1e-8);
                CHECK(gradient_error(p.B, p.dB, loss) < 1e-8);
                CHECK(gradient_error(p.C, p.dC, loss) < 1e-8);
            }
        }
    }
}

TEST_CASE("liquid_polyb: names the argument that does not fit")
{
    const polyb_problem<float> p(1, 2, 6, 2, 2, true, false), tiny(1, 2, 4, 2, 2, true, false);
    CHECK(complaint_of([&] { liquid_polyb(tiny.args()); }).find("liquid_polyb: u is too short") == 0);
    auto a = p.args();
    a.bidirectional = true;
    CHECK(complaint_of([&] { liquid_polyb(a); }).find("liquid_polyb: k has shape") == 0);
    a = p.args();
    a.degree = 0;
    CHECK(complaint_of([&] { liquid_polyb(a); }).find("liquid_polyb: degree is not") == 0);
    a = p.args();
    a.y = {const_cast<float*>(a.u.data()), a.y.extents()};
    CHECK(complaint_of([&] { liquid_polyb(a); }).find("liquid_polyb: y overlaps u") == 0);
    auto b = p.backward();
    b.dw = {reinterpret_cast<std::complex<double>*>(b.du.data()), b.dw.extents()};
    CHECK(complaint_of([&] { liquid_polyb_backward(b); }).find("liquid_polyb_backward: dw overlaps du") == 0);
    b = p.backward();
    b.dw = b.dw.slice(1, 0, 1);
    CHECK(complaint_of([&] { liquid_polyb_backward(b); }).find("liquid_polyb_backward: dw has shape") == 0);
}

}  // namespace ssmkit::testing
