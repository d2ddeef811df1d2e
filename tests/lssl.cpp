#include <ssmkit/lssl.hpp>

#include <ssmkit/reference/lssl.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct lssl_problem {
    double alpha = 0.5;
    tensor<T, 2> A, D, dA, dD;
    tensor<T, 1> B, dB;
    tensor<double, 1> delta, ddelta;
    tensor<T, 3> u, C, initial_state, k, final_state, du, dC, dinitial_state, dfinal_state;
    tensor<T, 4> y, dy;

    lssl_problem(index length, index batch, index dim, index state, index channels, layout form = layout::row_major,
                 guard edge = guard::none)
    {
        random numbers(8);
        A = random_tensor<T, 2>(numbers, {state, state}, {-1, 0.4}, form, edge);
        B = random_tensor<T, 1>(numbers, {state}, {-1, 1}, form, edge);
        delta = random_tensor<double, 1>(numbers, {dim}, {0.1, 0.5}, form, edge);
        u = random_tensor<T, 3>(numbers, {length, batch, dim}, {-1, 1}, form, edge);
        C = random_tensor<T, 3>(numbers, {dim, channels, state}, {-1, 1}, form, edge);
        D = random_tensor<T, 2>(numbers, {dim, channels}, {-1, 1}, form, edge);
        initial_state = random_tensor<T, 3>(numbers, {batch, dim, state}, {-1, 1}, form, edge);
        dy = random_tensor<T, 4>(numbers, {length, batch, dim, channels}, {-1, 1}, form, edge);
        dfinal_state = random_tensor<T, 3>(numbers, {batch, dim, state}, {-1, 1}, form, edge);
        dA = {{state, state}, form, edge}, dB = {{state}, form, edge}, ddelta = {{dim}, form, edge};
        du = {{length, batch, dim}, form, edge}, dC = {{dim, channels, state}, form, edge}, dD = {{dim, channels}, form, edge};
        dinitial_state = {{batch, dim, state}, form, edge}, final_state = {{batch, dim, state}, form, edge};
        y = {{length, batch, dim, channels}, form, edge}, k = {{dim, state, length}, form, edge};
    }

    lssl_args<T> args() const
    {
        return {.A = A,
                .B = B,
                .delta = delta,
                .alpha = alpha,
                .u = u,
                .C = C,
                .D = D,
                .initial_state = initial_state,
                .y = y,
                .k = k,
                .final_state = final_state};
    }
    lssl_backward_args<T> backward() const
    {
        return {.forward = args(),
                .dy = dy,
                .dfinal_state = dfinal_state,
                .dA = dA,
                .dB = dB,
                .ddelta = ddelta,
                .du = du,
                .dC = dC,
                .dD = dD,
                .dinitial_state = dinitial_state};
    }

    void run() const
    {
        lssl(args());
        lssl_backward(backward());
    }

    /// f(name, result, other's)
    template <class F>
    void for_each_result(const lssl_problem& o, F&& f) const
    {
        f("y", y, o.y), f("k", k, o.k), f("final_state", final_state, o.final_state);
        f("dA", dA, o.dA), f("dB", dB, o.dB), f("ddelta", ddelta, o.ddelta), f("du", du, o.du), f("dC", dC, o.dC);
        f("dD", dD, o.dD), f("dinitial_state", dinitial_state, o.dinitial_state);
    }
};

template <class T>
void compare(index length, index batch, index dim, index state, index channels, double alpha = 0.5,
             layout form = layout::row_major, guard edge = guard::none)
{
    INFO(length << " " << batch << " " << dim << " " << state << " " << channels << " " << static_cast<int>(form));
    lssl_problem<T> p(length, batch, dim, state, channels, form, edge), expected(length, batch, dim, state, channels);
    p.alpha = expected.alpha = alpha;
    p.run();
    reference::lssl(expected.args());
    reference::lssl_backward(expected.backward());
    p.for_each_result(expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= (std::is_same_v<T, float> ? 3e-7 : 1e-12));
        CHECK(x.gaps_untouched());
    });
}

}  // namespace

TEMPLATE_TEST_CASE("lssl: agrees with the reference, whatever the sizes, weights and layouts", "", float, double)
{
    for (const double alpha : {0.0, 0.5, 0.7, 1.0}) {
        for (const layout form : all_layouts) compare<TestType>(7, 2, 3, 4, 2, alpha, form);
        for (const index length : {0, 1, 2, 17}) compare<TestType>(length, 2, 3, 4, 1, alpha);
        for (const index state : {0, 1, 7}) compare<TestType>(5, 1, 2, state, 3, alpha);
    }
    for (const guard edge : {guard::below, guard::above}) compare<TestType>(7, 2, 3, 5, 2, 0.5, layout::row_major, edge);
    for (const index n : {0, 1}) {
        compare<TestType>(5, n, 3, 2, 2);
        compare<TestType>(5, 2, n, 2, 2);
        compare<TestType>(5, 2, 3, 2, n);
    }
}

TEST_CASE("lssl: two steps by hand")
{
    // z = -2/3: Ā = 1/2, B̄ = 3/8 of B.
    const double A = -4.0 / 3, B = 8, delta = 0.5, u[] = {1, 10}, C = 2, D = 100, before = 4;
    double y[2], k[2], last;
    const lssl_args<double> a{.A = {&A, 1, 1}, .B = {&B, 1}, .delta = {&delta, 1}, .u = {u, 2, 1, 1}, .C = {&C, 1, 1, 1},
                              .D = {&D, 1, 1}, .initial_state = {&before, 1, 1, 1}, .y = {y, 2, 1, 1, 1}, .k = {k, 1, 1, 2},
                              .final_state = {&last, 1, 1, 1}};
    for (const bool plain : {false, true}) {
        plain ? reference::lssl(a) : lssl(a);
        CHECK((std::abs(y[0] - 110) < 1e-12 && std::abs(y[1] - 1065) < 1e-12));  // 4 / 2 + 3, 5 / 2 + 30
        CHECK((std::abs(k[0] - 3) < 1e-14 && std::abs(k[1] - 1.5) < 1e-14));
        CHECK(std::abs(last - 32.5) < 1e-13);
    }
}

TEST_CASE("lssl: a NaN reaches what comes after it in its sequence")
{
    const lssl_problem<float> p(9, 2, 3, 4, 2);
    p.u(4, 1, 2) = quiet_nan<float>();
    lssl(p.args());
    for_each_index(p.y.view(), [&](index l, index b, index h, index m) {
        CHECK(is_nan(p.y(l, b, h, m)) == (l >= 4 && b == 1 && h == 2));
    });
    for_each_index(p.final_state.view(), [&](index b, index h, index n) {
        CHECK(is_nan(p.final_state(b, h, n)) == (b == 1 && h == 2));
    });
}

TEMPLATE_TEST_CASE("lssl: convolution with its kernel equals recurrence", "", float, double)
{
    const double budget = std::is_same_v<TestType, float> ? 2e-6 : 1e-13;
    for (const layout form : all_layouts) {
        lssl_problem<TestType> p(7, 2, 3, 4, 2, form);
        auto a = p.args();
        a.initial_state = {};
        lssl(a);
        for_each_index(p.y.view(), [&](index l, index b, index h, index m) {
            double sum = static_cast<double>(p.D(h, m)) * static_cast<double>(p.u(l, b, h));
            for (index s = 0; s <= l; ++s) {
                for (index n = 0; n < 4; ++n) {
                    sum += static_cast<double>(p.C(h, m, n)) * static_cast<double>(p.k(h, n, l - s)) *
                           static_cast<double>(p.u(s, b, h));
                }
            }
            CHECK(std::abs(static_cast<double>(p.y(l, b, h, m)) - sum) <= 10 * budget);
        });
    }
}

TEST_CASE("lssl: cutting the sequence and carrying the state changes no bit")
{
    const lssl_problem<double> p(9, 2, 2, 3, 1);
    lssl(p.args());
    for (index cut = 0; cut <= 9; ++cut) {
        const lssl_problem<double> q(9, 2, 2, 3, 1);
        auto a = q.args();
        a.k = {};
        a.u = a.u.slice(0, 0, cut), a.y = a.y.slice(0, 0, cut);
        lssl(a);
        const auto between = q.final_state.as<double>();
        a = q.args();
        a.k = {};
        a.u = a.u.slice(0, cut, 9 - cut), a.y = a.y.slice(0, cut, 9 - cut), a.initial_state = between;
        lssl(a);
        CHECK((same_bits(p.y, q.y) && same_bits(p.final_state, q.final_state)));
    }
}

TEST_CASE("lssl_backward: finite differences, states included")
{
    for (const double alpha : {0.0, 0.5, 0.7}) {
        lssl_problem<double> p(4, 2, 2, 3, 2);
        p.alpha = alpha;
        lssl_backward(p.backward());
        const auto loss = [&] {
            lssl(p.args());
            return inner_product(p.y, p.dy) + inner_product(p.final_state, p.dfinal_state);
        };
        CHECK(gradient_error(p.A, p.dA, loss) < 1e-9);
        CHECK(gradient_error(p.B, p.dB, loss) < 1e-9);
        CHECK(gradient_error(p.delta, p.ddelta, loss) < 1e-8);
        CHECK(gradient_error(p.u, p.du, loss) < 1e-9);
        CHECK(gradient_error(p.C, p.dC, loss) < 1e-9);
        CHECK(gradient_error(p.D, p.dD, loss) < 1e-9);
        CHECK(gradient_error(p.initial_state, p.dinitial_state, loss) < 1e-9);
    }
}

TEST_CASE("lssl: neither threads nor what is not asked for change a bit")
{
    threads pool(2);
    const lssl_problem<float> p(6, 2, 5, 3, 1), q(6, 2, 5, 3, 1);
    p.run();
    lssl(q.args(), pool);
    lssl_backward(q.backward(), pool);
    p.for_each_result(q, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(same_bits(x, wanted));
    });
    const lssl_problem<float> few(6, 2, 5, 3, 1);
    auto a = few.args();
    a.k = {}, a.final_state = {};
    lssl(a);
    CHECK(same_bits(few.y, p.y));
    auto b = few.backward();
    b.dA = {}, b.dC = {}, b.du = {}, b.dinitial_state = {}, b.ddelta = {};
    lssl_backward(b);
    CHECK(same_bits(few.dB, p.dB));
}

TEST_CASE("lssl: names the argument that does not fit")
{
    const lssl_problem<float> p(6, 2, 5, 3, 1);
    auto a = p.args();
    a.D = a.D.slice(0, 0, 2);
    CHECK(complaint_of([&] { lssl(a); }).find("lssl: D has shape") == 0);
    a = p.args();
    a.u = a.u.slice(2, 0, 2);
    CHECK(complaint_of([&] { lssl(a); }).find("lssl: u has shape") == 0);
    a = p.args();
    a.final_state = {const_cast<float*>(a.initial_state.data()), a.final_state.extents()};
    CHECK(complaint_of([&] { lssl(a); }).find("lssl: final_state overlaps initial_state") == 0);
    auto b = p.backward();
    b.dB = b.dB.slice(0, 0, 2);
    CHECK(complaint_of([&] { lssl_backward(b); }).find("lssl_backward: dB has shape") == 0);
}

}  // namespace ssmkit::testing
