#include <ssmkit/companion_rollout.hpp>

#include <ssmkit/reference/companion_rollout.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct rollout_problem {
    int order;
    tensor<T, 3> u, y, u_next, y_open, u_next_open, dy, du_next, du;
    tensor<T, 2> a, b, c, k, da, db, dc, dk;

    rollout_problem(index batch, index lag, index horizon, index dim, index state, int norm_order, layout form = layout::row_major,
                    guard edge = guard::none)
        : order(norm_order)
    {
        random numbers(12);
        const std::array<index, 2> rows{dim, state};
        const std::array<index, 3> past{batch, lag, dim}, future{batch, horizon, dim};
        for (auto* t : {&a, &b, &c, &k}) *t = random_tensor<T, 2>(numbers, rows, {-0.5, 0.5}, form, edge);
        for (auto* t : {&da, &db, &dc, &dk}) *t = {rows, form, edge};
        u = random_tensor<T, 3>(numbers, past, {-1, 1}, form, edge);
        for (auto* t : {&dy, &du_next}) *t = random_tensor<T, 3>(numbers, future, {-1, 1}, form, edge);
        for (auto* t : {&y, &u_next}) *t = {future, form, edge};
        for (auto* t : {&y_open, &u_next_open, &du}) *t = {past, form, edge};
    }

    companion_rollout_args<T> args() const
    {
        return {.u = u,
                .a = a,
                .b = b,
                .c = c,
                .k = k,
                .norm_order = order,
                .y = y,
                .u_next = u_next,
                .y_open = y_open,
                .u_next_open = u_next_open};
    }
    companion_rollout_backward_args<T> backward() const
    {
        return {.forward = args(), .dy = dy, .du_next = du_next, .du = du, .da = da, .db = db, .dc = dc, .dk = dk};
    }

    void run() const
    {
        companion_rollout(args());
        companion_rollout_backward(backward());
    }

    /// f(name, result, other's)
    template <class F>
    void for_each_result(const rollout_problem& o, F&& f) const
    {
        f("y", y, o.y), f("u_next", u_next, o.u_next), f("y_open", y_open, o.y_open);
        f("u_next_open", u_next_open, o.u_next_open), f("du", du, o.du);
        f("da", da, o.da), f("db", db, o.db), f("dc", dc, o.dc), f("dk", dk, o.dk);
    }
};

template <class T>
void compare(const rollout_problem<T>& p, const rollout_problem<T>& expected)
{
    p.run();
    reference::companion_rollout(expected.args());
    reference::companion_rollout_backward(expected.backward());
    p.for_each_result(expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= (std::is_same_v<T, float> ? 3e-7 : 1e-12));
        CHECK(x.gaps_untouched());
    });
}

template <class T>
void compare(index batch, index lag, index horizon, index dim, index state, int order, layout form = layout::row_major,
             guard edge = guard::none)
{
    INFO(batch << " " << lag << " " << horizon << " " << dim << " " << state << " order " << order << " layout "
               << static_cast<int>(form));
    compare(rollout_problem<T>(batch, lag, horizon, dim, state, order, form, edge),
            rollout_problem<T>(batch, lag, horizon, dim, state, order));
}

}  // namespace

TEMPLATE_TEST_CASE("companion_rollout: agrees with the reference, for every norm, size and layout", "", float, double)
{
    for (const int order : {0, 1, 2}) {
        for (const layout form : all_layouts) compare<TestType>(2, 6, 4, 3, 4, order, form);
        for (const guard edge : {guard::below, guard::above}) compare<TestType>(2, 6, 4, 3, 5, order, layout::row_major, edge);
        for (const index n : {0, 1, 2, 7}) {
            compare<TestType>(2, n, 3, 2, 2, order);
            compare<TestType>(1, 5, n, 2, 3, order);
            if (n != 1 || order == 0) compare<TestType>(2, 5, 3, 2, n, order);  // of x / |x|, rounding is all the gradient
        }
        compare<TestType>(0, 5, 2, 2, 3, order);
        compare<TestType>(2, 5, 2, 0, 3, order);
    }
}

TEST_CASE("companion_rollout: a forecast by hand")
{
    // a = b̂ = (1, 0)ᵀ, one state element: A = 1, k̂ = 1: the state doubles with every prediction.
    const double u[] = {1, 2}, a = 5, b = 3, c = 7, k = 2;
    double y[2], u_next[2], y_open[2], u_next_open[2];
    const companion_rollout_args<double> args{.u = {u, 1, 2, 1}, .a = {&a, 1, 1}, .b = {&b, 1, 1}, .c = {&c, 1, 1}, .k = {&k, 1, 1},
                                              .y = {y, 1, 2, 1}, .u_next = {u_next, 1, 2, 1}, .y_open = {y_open, 1, 2, 1},
                                              .u_next_open = {u_next_open, 1, 2, 1}};
    for (const bool plain : {false, true}) {
        plain ? reference::companion_rollout(args) : companion_rollout(args);
        CHECK((y[0] == 9 && y[1] == 18));             // 3 + 6, by ĉ = 1
        CHECK((u_next[0] == 18 && u_next[1] == 36));  // by k
        CHECK((y_open[0] == 1 && y_open[1] == 3));    // all divided
        CHECK((u_next_open[0] == 1 && u_next_open[1] == 3));
    }
}

TEST_CASE("companion_rollout: neither threads nor what is not asked for change a bit")
{
    threads pool(2);
    const rollout_problem<float> p(2, 5, 4, 3, 3, 1), q(2, 5, 4, 3, 3, 1);
    p.run();
    companion_rollout(q.args(), pool);
    companion_rollout_backward(q.backward(), pool);
    p.for_each_result(q, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(same_bits(x, wanted));
    });
    const rollout_problem<float> few(2, 5, 4, 3, 3, 1);
    auto a = few.args();
    a.y = {}, a.y_open = {};
    companion_rollout(a);
    CHECK((same_bits(few.u_next, p.u_next) && same_bits(few.u_next_open, p.u_next_open)));
    auto b = few.backward();
    b.da = {}, b.dk = {}, b.du = {};
    companion_rollout_backward(b);
    CHECK((same_bits(few.db, p.db) && same_bits(few.dc, p.dc)));
}

TEST_CASE("companion_rollout: a NaN stays with its sequence and reaches what comes after")
{
    const rollout_problem<float> p(2, 6, 4, 3, 3, 2);
    p.u(1, 3, 2) = quiet_nan<float>();
    companion_rollout(p.args());
    for_each_index(p.y.view(), [&](index b, index t, index h) { CHECK(is_nan(p.y(b, t, h)) == (b == 1 && h == 2)); });
    for_each_index(p.y_open.view(),
                   [&](index b, index t, index h) { CHECK(is_nan(p.y_open(b, t, h)) == (b == 1 && h == 2 && t >= 3)); });
}

TEST_CASE("companion_rollout: with no norm, k is divided by its count of non-zeros in the open loop")
{
    rollout_problem<double> p(1, 4, 2, 1, 3, 0), expected(1, 4, 2, 1, 3, 0), counted(1, 4, 2, 1, 3, 0);
    p.k(0, 1) = expected.k(0, 1) = 0;
    compare(p, expected);
    counted.k(0, 1) = 1e-300;  // as good as zero, but counted
    companion_rollout(counted.args());
    for (index t = 0; t < 4; ++t) CHECK(std::abs(1.5 * counted.u_next_open(0, t, 0) - p.u_next_open(0, t, 0)) < 1e-14);
}

TEST_CASE("companion_rollout_backward: finite differences")
{
    for (const int order : {0, 1, 2}) {
        const rollout_problem<double> p(2, 5, 4, 2, 3, order);
        companion_rollout_backward(p.backward());
        const auto loss = [&] {
            companion_rollout(p.args());
            return inner_product(p.y, p.dy) + inner_product(p.u_next, p.du_next);
        };
        CHECK(gradient_error(p.u, p.du, loss) < 1e-9);
        CHECK(gradient_error(p.a, p.da, loss, 1e-4) < 1e-8);
        CHECK(gradient_error(p.b, p.db, loss, 1e-4) < 1e-8);
        CHECK(gradient_error(p.c, p.dc, loss, 1e-4) < 1e-8);
        CHECK(gradient_error(p.k, p.dk, loss, 1e-4) < 1e-8);
    }
}

TEST_CASE("companion_rollout: names the argument that does not fit")
{
    const rollout_problem<float> p(2, 5, 4, 3, 3, 1);
    auto a = p.args();
    a.u_next = a.u_next.slice(1, 0, 2);
    CHECK(complaint_of([&] { companion_rollout(a); }).find("companion_rollout: u_next has shape") == 0);
    a = p.args();
    a.y_open = a.y_open.slice(1, 0, 2);
    CHECK(complaint_of([&] { companion_rollout(a); }).find("companion_rollout: y_open has shape") == 0);
    a = p.args();
    a.u_next = a.y;
    CHECK(complaint_of([&] { companion_rollout(a); }).find("companion_rollout: u_next overlaps y") == 0);
    auto b = p.backward();
    b.dy = b.dy.slice(2, 0, 1);
    CHECK(complaint_of([&] { companion_rollout_backward(b); }).find("companion_rollout_backward: dy has shape") == 0);
}

}  // namespace ssmkit::testing
