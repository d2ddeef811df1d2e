#include <ssmkit/krylov.hpp>

#include <ssmkit/reference/krylov.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct krylov_problem {
    index dim, state, length;
    tensor<T, 3> A, v, AbL, AL, dA;
    tensor<T, 2> b, c, k, scan, dk, db, dc;

    krylov_problem(index h, index n, index l, layout form = layout::row_major, guard edge = guard::none)
        : dim(h), state(n), length(l)
    {
        random numbers(4);
        A = random_tensor<T, 3>(numbers, {h, n, n}, {-0.5, 0.5}, form, edge);
        b = random_tensor<T, 2>(numbers, {h, n}, {-1, 1}, form, edge);
        c = random_tensor<T, 2>(numbers, {h, n}, {-1, 1}, form, edge);
        v = random_tensor<T, 3>(numbers, {h, n, l}, {-1, 1}, form, edge);
        dk = random_tensor<T, 2>(numbers, {h, l}, {-1, 1}, form, edge);
        AbL = {{h, n, l}, form, edge}, AL = {{h, n, n}, form, edge}, dA = {{h, n, n}, form, edge};
        k = {{h, l}, form, edge}, scan = {{h, n}, form, edge}, db = {{h, n}, form, edge}, dc = {{h, n}, form, edge};
    }

    krylov_args<T> args() const
    {
        return {.A = A, .b = b, .c = c, .v = v, .length = length, .k = k, .AbL = AbL, .AL = AL, .scan = scan};
    }
    krylov_backward_args<T> backward() const { return {.forward = args(), .dk = dk, .dA = dA, .db = db, .dc = dc}; }

    void run() const
    {
        krylov(args());
        krylov_backward(backward());
    }

    /// f(name, result, other's)
    template <class F>
    void for_each_result(const krylov_problem& o, F&& f) const
    {
        f("k", k, o.k), f("AbL", AbL, o.AbL), f("AL", AL, o.AL), f("scan", scan, o.scan);
        f("dA", dA, o.dA), f("db", db, o.db), f("dc", dc, o.dc);
    }
};

template <class T>
void compare(index state, index length, layout form = layout::row_major, guard edge = guard::none)
{
    INFO(state << " " << length << " " << static_cast<int>(form));
    const krylov_problem<T> p(2, state, length, form, edge), expected(2, state, length);
    p.run();
    reference::krylov(expected.args());
    reference::krylov_backward(expected.backward());
    p.for_each_result(expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= (std::is_same_v<T, float> ? 3e-7 : 1e-13));
        CHECK(x.gaps_untouched());
    });
}

}  // namespace

TEMPLATE_TEST_CASE("krylov: agrees with the reference, whatever the sizes and layouts", "", float, double)
{
    for (const index length : {0, 1, 2, 3, 8, 13, 31}) {
        for (const index state : {0, 1, 4, 7}) compare<TestType>(state, length);
    }
    for (const layout form : all_layouts) compare<TestType>(3, 6, form);
    for (const guard edge : {guard::below, guard::above}) compare<TestType>(5, 7, layout::row_major, edge);
    krylov_problem<TestType>(0, 3, 4).run();
}

TEST_CASE("krylov: a rotation by hand")
{
    // A quarter turn and half its length: (1, 0), (0, 1/2), (-1/4, 0).
    const double A[] = {0, -0.5, 0.5, 0}, b[] = {1, 0}, c[] = {1, 10}, v[] = {1, 0, 4, 0, 2, 0};
    double k[3], AbL[6], AL[4], scan[2];
    const krylov_args<double> a{.A = {A, 1, 2, 2}, .b = {b, 1, 2}, .c = {c, 1, 2}, .v = {v, 1, 2, 3}, .length = 3, .k = {k, 1, 3},
                                .AbL = {AbL, 1, 2, 3}, .AL = {AL, 1, 2, 2}, .scan = {scan, 1, 2}};
    for (const bool plain : {false, true}) {
        plain ? reference::krylov(a) : krylov(a);
        CHECK((k[0] == 1 && k[1] == 5 && k[2] == -0.25));
        CHECK((AbL[0] == 1 && AbL[4] == 0.5 && AbL[2] == -0.25));
        CHECK((AL[1] == 0.125 && AL[2] == -0.125));       // A³ = -A / 4
        CHECK((scan[0] == -1 && scan[1] == 0));           // (1, 0) + A (0, 2) - (4, 0) / 4
    }
}

TEST_CASE("krylov: a NaN stays with its system, and reaches what comes after")
{
    const krylov_problem<float> p(3, 4, 9);
    p.A(1, 2, 3) = quiet_nan<float>();
    p.run();
    for (index h = 0; h < 3; ++h) {
        for (index l = 0; l < 9; ++l) CHECK(is_nan(p.k(h, l)) == (h == 1 && l > 0));
        for (index n = 0; n < 4; ++n) CHECK(is_nan(p.db(h, n)) == (h == 1));
    }
}

TEST_CASE("krylov_backward: finite differences")
{
    for (const index length : {1, 2, 9}) {
        const krylov_problem<double> p(2, 3, length);
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
    const krylov_problem<float> p(3, 4, 7), q(3, 4, 7);
    krylov(p.args());
    krylov(q.args(), pool);
    krylov_backward(p.backward());
    krylov_backward(q.backward(), pool);
    p.for_each_result(q, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(same_bits(x, wanted));
    });
    auto a = q.args();
    a.c = {}, a.v = {}, a.k = {}, a.scan = {}, a.AL = {};
    krylov(a);
    CHECK(same_bits(p.AbL, q.AbL));
}

TEST_CASE("krylov: names the argument that does not fit")
{
    const krylov_problem<float> p(2, 3, 4);
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
