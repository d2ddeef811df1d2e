#include <ssmkit/krylov.hpp>

#include <vector>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct krylov_problem {
    index dim, state, length;
    tensor<T, 3> A, v, AbL, AL, dA;
    tensor<T, 2> b, c, k, scan, dk, db, dc;

    krylov_problem(index h, index n, index l, layout form) : dim(h), state(n), length(l)
    {
        random numbers(4);
        A = random_tensor<T, 3>(numbers, {h, n, n}, {-0.5, 0.5}, form);
        b = random_tensor<T, 2>(numbers, {h, n}, {-1, 1}, form);
        c = random_tensor<T, 2>(numbers, {h, n}, {-1, 1}, form);
        v = random_tensor<T, 3>(numbers, {h, n, l}, {-1, 1}, form);
        dk = random_tensor<T, 2>(numbers, {h, l}, {-1, 1}, form);
        AbL = tensor<T, 3>({h, n, l}, form), AL = tensor<T, 3>({h, n, n}, form), dA = tensor<T, 3>({h, n, n}, form);
        k = tensor<T, 2>({h, l}, form), scan = tensor<T, 2>({h, n}, form);
        db = tensor<T, 2>({h, n}, form), dc = tensor<T, 2>({h, n}, form);
    }

    krylov_args<T> args() const
    {
        return {.A = A, .b = b, .c = c, .v = v, .length = length, .k = k, .AbL = AbL, .AL = AL, .scan = scan};
    }
    krylov_backward_args<T> backward() const { return {.forward = args(), .dk = dk, .dA = dA, .db = db, .dc = dc}; }
};

/// Everything by powers of A, one entry after the other.
template <class T>
void compare(index state, index length, layout form)
{
    INFO(state << " " << length << " " << static_cast<int>(form));
    const krylov_problem<T> p(2, state, length, form);
    krylov(p.args());
    const double budget = std::is_same_v<T, float> ? 1e-6 : 1e-13;
    for (index h = 0; h < 2; ++h) {
        std::vector<std::vector<double>> power(static_cast<std::size_t>(state),
                                               std::vector<double>(static_cast<std::size_t>(state)));
        std::vector<double> scan(static_cast<std::size_t>(state));
        for (std::size_t i = 0; i < power.size(); ++i) power[i][i] = 1;
        for (index l = 0; l < length; ++l) {
            double k = 0;
            for (index i = 0; i < state; ++i) {
                double x = 0;
                for (index j = 0; j < state; ++j) {
                    const double entry = power[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
                    x += entry * static_cast<double>(p.b(h, j));
                    scan[static_cast<std::size_t>(i)] += entry * static_cast<double>(p.v(h, j, l));
                }
                k += static_cast<double>(p.c(h, i)) * x;
                CHECK(std::abs(static_cast<double>(p.AbL(h, i, l)) - x) <= budget);
            }
            CHECK(std::abs(static_cast<double>(p.k(h, l)) - k) <= budget);
            auto next = power;
            for (index i = 0; i < state; ++i) {
                for (index j = 0; j < state; ++j) {
                    double sum = 0;
                    for (index m = 0; m < state; ++m)
                        sum +=
                            static_cast<double>(p.A(h, i, m)) * power[static_cast<std::size_t>(m)][static_cast<std::size_t>(j)];
                    next[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] = sum;
                }
            }
            power = next;
        }
        for (index i = 0; i < state; ++i) {
            CHECK(std::abs(static_cast<double>(p.scan(h, i)) - scan[static_cast<std::size_t>(i)]) <= 4 * budget);
            for (index j = 0; j < state; ++j) {
                CHECK(std::abs(static_cast<double>(p.AL(h, i, j)) -
                               power[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)]) <= budget);
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("krylov: powers of the matrix, one after the other", "", float, double)
{
    for (const index length : {0, 1, 2, 3, 8, 13}) {
        for (const index state : {0, 1, 4}) compare<TestType>(state, length, layout::row_major);
    }
    for (const layout form : all_layouts) compare<TestType>(3, 6, form);
}

TEST_CASE("krylov_backward: finite differences")
{
    for (const index length : {1, 2, 9}) {
        const krylov_problem<double> p(2, 3, length, layout::row_major);
        krylov_backward(p.backward());
        const auto loss = [&] {
            krylov(p.args());
            return inner_product(p.k, p.dk);
        };
        CHECK(gradient_error(p.A, p.dA, loss) < 1e-9);
        CHECK(gradient_error(p.b, p.db, loss) < 1e-9);
        CHECK(gradient_error(p.c, p.dc, loss) < 1e-9);
    }
}

TEST_CASE("krylov: outputs that nobody asks for, threads")
{
    threads pool(2);
    const krylov_problem<float> p(3, 4, 7, layout::row_major), q(3, 4, 7, layout::row_major);
    krylov(p.args());
    krylov(q.args(), pool);
    krylov_backward(p.backward());
    krylov_backward(q.backward(), pool);
    CHECK((same_bits(p.k, q.k) && same_bits(p.scan, q.scan) && same_bits(p.dA, q.dA)));
    auto a = q.args();
    a.c = {}, a.v = {}, a.k = {}, a.scan = {}, a.AL = {};
    krylov(a);
    CHECK(same_bits(p.AbL, q.AbL));
}

TEST_CASE("krylov: names the argument that does not fit")
{
    const krylov_problem<float> p(2, 3, 4, layout::row_major);
    auto a = p.args();
    a.length = 5;
    CHECK(complaint_of([&] { krylov(a); }).find("krylov: v has shape") == 0);
    a = p.args();
    a.b = a.b.slice(1, 0, 2);
    CHECK(complaint_of([&] { krylov(a); }).find("krylov: b has shape") == 0);
    a = p.args();
    a.AL = {const_cast<float*>(a.A.data()), a.AL.extents()};
    CHECK(complaint_of([&] { krylov(a); }).find("krylov: AL overlaps A") == 0);
    auto b = p.backward();
    b.dk = b.dk.slice(1, 0, 2);
    CHECK(complaint_of([&] { krylov_backward(b); }).find("krylov_backward: dk has shape") == 0);
}

}  // namespace ssmkit::testing
