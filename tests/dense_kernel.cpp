#include <ssmkit/dense_kernel.hpp>

#include <ssmkit/reference/dense_kernel.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

using complex = std::complex<double>;

template <class T>
struct dense_problem {
    using E = std::complex<T>;
    tensor<double, 1> delta, ddelta;
    tensor<E, 3> A, C, initial_state, dA, dC, dinitial_state;
    tensor<E, 2> B, dB;
    tensor<T, 3> K, dK;
    tensor<T, 4> K_state, dK_state;

    dense_problem(index channels, index dim, index state, index batch, index length, layout form = layout::row_major,
                  guard edge = guard::none)
    {
        random numbers(6);
        delta = random_tensor<double, 1>(numbers, {dim}, {0.1, 0.5}, form, edge);
        A = random_tensor<E, 3>(numbers, {dim, state, state}, {-1, 0.5}, form, edge);
        B = random_tensor<E, 2>(numbers, {dim, state}, {-1, 1}, form, edge);
        C = random_tensor<E, 3>(numbers, {channels, dim, state}, {-1, 1}, form, edge);
        dK = random_tensor<T, 3>(numbers, {channels, dim, length}, {-1, 1}, form, edge);
        ddelta = {{dim}, form, edge}, dA = {{dim, state, state}, form, edge}, dB = {{dim, state}, form, edge};
        dC = {{channels, dim, state}, form, edge}, K = {{channels, dim, length}, form, edge};
        if (batch == 0) return;
        initial_state = random_tensor<E, 3>(numbers, {batch, dim, state}, {-1, 1}, form, edge);
        dK_state = random_tensor<T, 4>(numbers, {batch, channels, dim, length}, {-1, 1}, form, edge);
        K_state = {{batch, channels, dim, length}, form, edge}, dinitial_state = {{batch, dim, state}, form, edge};
    }

    dense_kernel_args<T> args() const
    {
        return {.delta = delta, .A = A, .B = B, .C = C, .initial_state = initial_state, .K = K, .K_state = K_state};
    }
    dense_kernel_backward_args<T> backward() const
    {
        return {.forward = args(),
                .dK = dK,
                .dK_state = dK_state,
                .ddelta = ddelta,
                .dA = dA,
                .dB = dB,
                .dC = dC,
                .dinitial_state = dinitial_state};
    }

    void run() const
    {
        dense_kernel(args());
        dense_kernel_backward(backward());
    }

    /// f(name, result, other's)
    template <class F>
    void for_each_result(const dense_problem& o, F&& f) const
    {
        f("K", K, o.K), f("ddelta", ddelta, o.ddelta), f("dA", dA, o.dA), f("dB", dB, o.dB), f("dC", dC, o.dC);
        if (K_state.given()) f("K_state", K_state, o.K_state), f("dinitial_state", dinitial_state, o.dinitial_state);
    }
};

template <class T>
void compare(index channels, index dim, index state, index batch, index length, layout form = layout::row_major,
             guard edge = guard::none)
{
    INFO(channels << " " << dim << " " << state << " " << batch << " " << length << " " << static_cast<int>(form));
    const dense_problem<T> p(channels, dim, state, batch, length, form, edge), expected(channels, dim, state, batch, length);
    p.run();
    reference::dense_kernel(expected.args());
    reference::dense_kernel_backward(expected.backward());
    p.for_each_result(expected, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(relative_error(x, wanted) <= (std::is_same_v<T, float> ? 3e-7 : 1e-12));
        CHECK(x.gaps_untouched());
    });
}

}  // namespace

TEMPLATE_TEST_CASE("dense_kernel: agrees with the reference, whatever the sizes and layouts", "", float, double)
{
    for (const layout form : all_layouts) compare<TestType>(2, 3, 4, 2, 6, form);
    for (const guard edge : {guard::below, guard::above}) compare<TestType>(2, 3, 5, 1, 7, layout::row_major, edge);
    for (const index length : {0, 1, 2, 11, 17}) {
        for (const index batch : {0, 1}) compare<TestType>(1, 2, 3, batch, length);
    }
    for (const index state : {0, 1, 2, 7}) compare<TestType>(1, 2, state, 1, 5);
    compare<TestType>(0, 2, 1, 1, 3);
    compare<TestType>(1, 0, 1, 1, 3);
}

TEST_CASE("dense_kernel: a turn by hand")
{
    // z = i: Ā = (1 + i/2) / (1 - i/2) = (3 + 4i) / 5, B̄ = 1 / (1 - i/2) = (4 + 2i) / 5.
    const double delta = 0.5;
    const complex A(0, 2), B(2), C(5), s(1);
    double K[2], K_state[2];
    const dense_kernel_args<double> a{.delta = {&delta, 1}, .A = {&A, 1, 1, 1}, .B = {&B, 1, 1}, .C = {&C, 1, 1, 1},
                                      .initial_state = {&s, 1, 1, 1}, .K = {K, 1, 1, 2}, .K_state = {K_state, 1, 1, 1, 2}};
    for (const bool plain : {false, true}) {
        plain ? reference::dense_kernel(a) : dense_kernel(a);
        CHECK((std::abs(K[0] - 4) < 1e-14 && std::abs(K[1] - 0.8) < 1e-14));
        CHECK((std::abs(K_state[0] - 3) < 1e-14 && std::abs(K_state[1] + 1.4) < 1e-14));
    }
}

TEST_CASE("dense_kernel: gradients and states that are not asked for change nothing, nor do threads")
{
    threads pool(2);
    const dense_problem<float> p(2, 3, 4, 2, 6), q(2, 3, 4, 2, 6);
    p.run();
    dense_kernel(q.args(), pool);
    dense_kernel_backward(q.backward(), pool);
    p.for_each_result(q, [](const char* name, const auto& x, const auto& wanted) {
        INFO(name);
        CHECK(same_bits(x, wanted));
    });
    const dense_problem<float> few(2, 3, 4, 2, 6);
    auto a = few.args();
    a.K_state = {}, a.initial_state = {};
    dense_kernel(a);
    CHECK(same_bits(few.K, p.K));
    auto b = few.backward();
    b.ddelta = {}, b.dA = {}, b.dB = {}, b.dinitial_state = {};
    dense_kernel_backward(b);
    CHECK(same_bits(few.dC, p.dC));
    b = few.backward();
    b.dK_state = {};  // a state that nothing reaches has gradient zero
    dense_kernel_backward(b);
    for_each_index(few.dinitial_state.view(), [&](auto... i) { CHECK(std::abs(few.dinitial_state(i...)) == 0); });
}

TEST_CASE("dense_kernel: a NaN stays with its system")
{
    const dense_problem<double> p(2, 3, 4, 2, 6);
    p.A(1, 2, 3) = quiet_nan<complex>();
    p.initial_state(1, 2, 0) = quiet_nan<complex>();
    p.run();
    for_each_index(p.K.view(), [&](index c, index h, index l) { CHECK(is_nan(p.K(c, h, l)) == (h == 1)); });
    for_each_index(p.K_state.view(), [&](index b, index c, index h, index l) {
        CHECK(is_nan(p.K_state(b, c, h, l)) == (h == 1 || (h == 2 && b == 1)));
    });
    for (index h = 0; h < 3; ++h) CHECK(is_nan(p.ddelta(h)) == (h > 0));
}

TEST_CASE("dense_kernel_backward: finite differences")
{
    for (const index batch : {0, 2}) {
        for (const index length : {1, 6}) {
            const dense_problem<double> p(2, 2, 3, batch, length);
            dense_kernel_backward(p.backward());
            const auto loss = [&] {
                dense_kernel(p.args());
                return inner_product(p.K, p.dK) + (batch ? inner_product(p.K_state, p.dK_state) : 0);
            };
            CHECK(gradient_error(p.delta, p.ddelta, loss) < 1e-8);
            CHECK(gradient_error(p.A, p.dA, loss) < 1e-9);
            CHECK(gradient_error(p.B, p.dB, loss) < 1e-9);
            CHECK(gradient_error(p.C, p.dC, loss) < 1e-9);
            if (batch) CHECK(gradient_error(p.initial_state, p.dinitial_state, loss) < 1e-9);
        }
    }
}

TEST_CASE("dense_kernel: names the argument that does not fit")
{
    const dense_problem<float> p(2, 3, 4, 1, 5);
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { dense_kernel(a); }).find(std::string("dense_kernel: ") + text) == 0);
    };
    named("delta has shape", [](auto& a) { a.delta = a.delta.slice(0, 0, 2); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(2, 0, 2); });
    named("initial_state is not given", [](auto& a) { a.initial_state = {}; });
    named("K overlaps C", [](auto& a) { a.K = {reinterpret_cast<float*>(const_cast<std::complex<float>*>(a.C.data())), 2, 3, 5}; });
    named("K is written but", [](auto& a) { a.K = {a.K.data(), a.K.extents(), {0, 5, 1}}; });
    named("K_state has shape", [](auto& a) { a.K_state = a.K_state.slice(3, 0, 2); });
    auto b = p.backward();
    b.dA = b.dA.slice(0, 0, 1);
    CHECK(complaint_of([&] { dense_kernel_backward(b); }).find("dense_kernel_backward: dA has shape") == 0);
    b = p.backward();
    b.dB = {b.dA.data(), b.dB.extents()};
    CHECK(complaint_of([&] { dense_kernel_backward(b); }).find("dense_kernel_backward: dB overlaps dA") == 0);
}

TEST_CASE("dense_kernel_backward: kernels of no taps have no gradients, and nothing is written beside them")
{
    // So many states that one of them too many lands in what the allocator keeps beside the memory.
    const dense_problem<double> p(1, 1, 200, 2, 0);
    const double none = 0;
    auto a = p.backward();
    a.dK = {&none, 1, 1, 0};
    a.dK_state = {&none, 2, 1, 1, 0};
    p.dinitial_state.view()(0, 0, 0) = 7;
    dense_kernel_backward(a);
    const auto zero = [](const auto& t) { for_each_index(t.view(), [&](auto... i) { REQUIRE(std::abs(t(i...)) == 0); }); };
    zero(p.dA), zero(p.dB), zero(p.dC), zero(p.ddelta), zero(p.dinitial_state);
}

}  // namespace ssmkit::testing
