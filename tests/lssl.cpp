#include <ssmkit/lssl.hpp>

#include <ssmkit/discretize_dense.hpp>

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

    lssl_problem(index length, index batch, index dim, index state, index channels, layout form = layout::row_major)
    {
        random numbers(8);
        A = random_tensor<T, 2>(numbers, {state, state}, {-1, 0.4}, form);
        B = random_tensor<T, 1>(numbers, {state}, {-1, 1}, form);
        delta = random_tensor<double, 1>(numbers, {dim}, {0.1, 0.5}, form);
        u = random_tensor<T, 3>(numbers, {length, batch, dim}, {-1, 1}, form);
        C = random_tensor<T, 3>(numbers, {dim, channels, state}, {-1, 1}, form);
        D = random_tensor<T, 2>(numbers, {dim, channels}, {-1, 1}, form);
        initial_state = random_tensor<T, 3>(numbers, {batch, dim, state}, {-1, 1}, form);
        dy = random_tensor<T, 4>(numbers, {length, batch, dim, channels}, {-1, 1}, form);
        dfinal_state = random_tensor<T, 3>(numbers, {batch, dim, state}, {-1, 1}, form);
        make_outputs(length, batch, dim, state, channels, form);
    }

    void make_outputs(index length, index batch, index dim, index state, index channels, layout form)
    {
        dA = tensor<T, 2>({state, state}, form), dB = tensor<T, 1>({state}, form), ddelta = tensor<double, 1>({dim}, form);
        du = tensor<T, 3>({length, batch, dim}, form), dC = tensor<T, 3>({dim, channels, state}, form),
        dD = tensor<T, 2>({dim, channels}, form);
        dinitial_state = tensor<T, 3>({batch, dim, state}, form), final_state = tensor<T, 3>({batch, dim, state}, form);
        y = tensor<T, 4>({length, batch, dim, channels}, form), k = tensor<T, 3>({dim, state, length}, form);
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
};

}  // namespace

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

TEST_CASE("lssl: its kernel is that of the discretised matrix, for every weight")
{
    for (const double alpha : {0.0, 0.5, 1.0}) {
        lssl_problem<double> p(5, 1, 2, 3, 1);
        p.alpha = alpha;
        lssl(p.args());
        for (index h = 0; h < 2; ++h) {
            const auto s =
                generalized_bilinear(dense<double>(as_eigen(p.A.view())), dense<double>(as_eigen(p.B.view())), p.delta(h), alpha);
            Eigen::VectorXd x = s.B.col(0);
            for (index l = 0; l < 5; ++l, x = s.A * x) CHECK((x - as_eigen(p.k.view()[h]).col(l)).norm() < 1e-14);
        }
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

TEST_CASE("lssl: nothing of anything, threads, names of what does not fit")
{
    lssl(lssl_problem<float>(0, 2, 2, 3, 1).args());
    lssl(lssl_problem<float>(3, 0, 2, 3, 1).args());
    lssl_backward(lssl_problem<float>(3, 1, 0, 0, 1).backward());
    threads pool(2);
    const lssl_problem<float> p(6, 2, 5, 3, 1), q(6, 2, 5, 3, 1);
    lssl_backward(p.backward());
    lssl_backward(q.backward(), pool);
    CHECK((same_bits(p.dA, q.dA) && same_bits(p.dB, q.dB) && same_bits(p.du, q.du)));
    auto a = p.args();
    a.D = a.D.slice(0, 0, 2);
    CHECK(complaint_of([&] { lssl(a); }).find("lssl: D has shape") == 0);
    a = p.args();
    a.u = a.u.slice(2, 0, 2);
    CHECK(complaint_of([&] { lssl(a); }).find("lssl: u has shape") == 0);
    auto b = p.backward();
    b.dB = b.dB.slice(0, 0, 2);
    CHECK(complaint_of([&] { lssl_backward(b); }).find("lssl_backward: dB has shape") == 0);
}

}  // namespace ssmkit::testing
