#include <ssmkit/companion_rollout.hpp>

#include <cmath>
#include <vector>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct rollout_problem {
    int order;
    tensor<T, 3> u, y, u_next, y_open, u_next_open, dy, du_next, du;
    tensor<T, 2> a, b, c, k, da, db, dc, dk;

    rollout_problem(index batch, index lag, index horizon, index dim, index state, int norm_order, layout form = layout::row_major)
        : order(norm_order)
    {
        random numbers(12);
        const std::array<index, 2> rows{dim, state};
        for (auto* t : {&a, &b, &c, &k}) *t = random_tensor<T, 2>(numbers, rows, {-0.5, 0.5}, form);
        for (auto* t : {&da, &db, &dc, &dk}) *t = tensor<T, 2>(rows, form);
        u = random_tensor<T, 3>(numbers, {batch, lag, dim}, {-1, 1}, form);
        for (auto* t : {&dy, &du_next}) *t = random_tensor<T, 3>(numbers, {batch, horizon, dim}, {-1, 1}, form);
        for (auto* t : {&y, &u_next}) *t = tensor<T, 3>({batch, horizon, dim}, form);
        for (auto* t : {&y_open, &u_next_open, &du}) *t = tensor<T, 3>({batch, lag, dim}, form);
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
};

/// The equations on matrices.
template <class T>
void compare(const rollout_problem<T>& p)
{
    using row = std::vector<double>;
    companion_rollout(p.args());
    const double budget = std::is_same_v<T, float> ? 2e-6 : 1e-13;
    const auto state = static_cast<std::size_t>(p.a.extent(1));
    const auto raw = [&](const tensor<T, 2>& t, index h) {
        row r;
        for (index n = 0; n < t.extent(1); ++n) r.push_back(static_cast<double>(t(h, n)));
        return r;
    };
    const auto unit = [&](row r) {
        double norm = 0;
        for (const double x : r) norm += p.order == 1 ? std::abs(x) : x * x;
        for (double& x : r) x /= p.order == 0 ? 1 : p.order == 1 ? norm : std::sqrt(norm);
        return r;
    };
    const auto product = [](const row& x, const row& z) {
        double sum = 0;
        for (std::size_t n = 0; n < x.size(); ++n) sum += x[n] * z[n];
        return sum;
    };
    for (index h = 0; h < p.a.extent(0); ++h) {
        const row a = unit(raw(p.a, h)), b = unit(raw(p.b, h)), c = unit(raw(p.c, h)), k = unit(raw(p.k, h));
        const auto advance = [&](const row& x, const row& in, double u) {
            row next(state);
            for (std::size_t n = 0; n < state; ++n) next[n] = (n ? x[n - 1] : 0) + a[n] * x[state - 1] + in[n] * u;
            return next;
        };
        row open = k;
        if (p.order == 0) {
            double count = 0;
            for (const double x : k) count += x != 0;
            for (double& x : open) x /= count;
        }
        for (index i = 0; i < p.u.extent(0); ++i) {
            row x(state), z(state);
            for (index t = 0; t < p.u.extent(1); ++t) {
                const auto u = static_cast<double>(p.u(i, t, h));
                x = advance(x, b, u);
                z = advance(z, raw(p.b, h), u);
                CHECK(std::abs(static_cast<double>(p.y_open(i, t, h)) - product(c, x)) <= budget);
                CHECK(std::abs(static_cast<double>(p.u_next_open(i, t, h)) - product(open, x)) <= budget);
            }
            for (index j = 0; j < p.y.extent(1); ++j) {
                CHECK(std::abs(static_cast<double>(p.y(i, j, h)) - product(c, z)) <= budget);
                CHECK(std::abs(static_cast<double>(p.u_next(i, j, h)) - product(raw(p.k, h), z)) <= budget);
                z = advance(z, b, product(p.order ? k : b, z));
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("companion_rollout: its equations, for every norm and layout", "", float, double)
{
    for (const int order : {0, 1, 2}) {
        for (const layout form : all_layouts) compare(rollout_problem<TestType>(2, 6, 4, 3, 4, order, form));
        compare(rollout_problem<TestType>(2, 0, 3, 1, 2, order));
        compare(rollout_problem<TestType>(1, 5, 0, 2, 1, order));
        compare(rollout_problem<TestType>(0, 5, 2, 2, 3, order));
    }
}

TEST_CASE("companion_rollout: with no norm, k is divided by its count of non-zeros in the open loop")
{
    rollout_problem<double> p(1, 4, 2, 1, 3, 0);
    p.k(0, 1) = 0;
    compare(p);
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

TEST_CASE("companion_rollout: names the argument that does not fit, threads")
{
    threads pool(2);
    const rollout_problem<float> p(2, 5, 4, 3, 3, 1), q(2, 5, 4, 3, 3, 1);
    companion_rollout_backward(p.backward());
    companion_rollout_backward(q.backward(), pool);
    CHECK((same_bits(p.da, q.da) && same_bits(p.du, q.du)));
    auto a = p.args();
    a.u_next = a.u_next.slice(1, 0, 2);
    CHECK(complaint_of([&] { companion_rollout(a); }).find("companion_rollout: u_next has shape") == 0);
    a = p.args();
    a.y_open = a.y_open.slice(1, 0, 2);
    CHECK(complaint_of([&] { companion_rollout(a); }).find("companion_rollout: y_open has shape") == 0);
    auto b = p.backward();
    b.dy = b.dy.slice(2, 0, 1);
    CHECK(complaint_of([&] { companion_rollout_backward(b); }).find("companion_rollout_backward: dy has shape") == 0);
}

}  // namespace ssmkit::testing
