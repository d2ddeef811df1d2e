#include <ssmkit/dense_kernel.hpp>

#include <ssmkit/discretize_dense.hpp>

#include "catch.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
struct dense_problem {
    using E = std::complex<T>;
    tensor<double, 1> delta, ddelta;
    tensor<E, 3> A, C, initial_state, dA, dC, dinitial_state;
    tensor<E, 2> B, dB;
    tensor<T, 3> K, dK;
    tensor<T, 4> K_state, dK_state;

    dense_problem(index channels, index dim, index state, index batch, index length, layout form = layout::row_major)
    {
        random numbers(6);
        delta = random_tensor<double, 1>(numbers, {dim}, {0.1, 0.5}, form);
        A = random_tensor<E, 3>(numbers, {dim, state, state}, {-1, 0.5}, form);
        B = random_tensor<E, 2>(numbers, {dim, state}, {-1, 1}, form);
        C = random_tensor<E, 3>(numbers, {channels, dim, state}, {-1, 1}, form);
        dK = random_tensor<T, 3>(numbers, {channels, dim, length}, {-1, 1}, form);
        ddelta = tensor<double, 1>({dim}, form), dA = tensor<E, 3>({dim, state, state}, form),
        dB = tensor<E, 2>({dim, state}, form);
        dC = tensor<E, 3>({channels, dim, state}, form), K = tensor<T, 3>({channels, dim, length}, form);
        if (batch == 0) return;
        initial_state = random_tensor<E, 3>(numbers, {batch, dim, state}, {-1, 1}, form);
        dK_state = random_tensor<T, 4>(numbers, {batch, channels, dim, length}, {-1, 1}, form);
        K_state = tensor<T, 4>({batch, channels, dim, length}, form);
        dinitial_state = tensor<E, 3>({batch, dim, state}, form);
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
};

template <class T>
void compare(const dense_problem<T>& p)
{
    using W = std::complex<double>;
    dense_kernel(p.args());
    const double budget = std::is_same_v<T, float> ? 2e-6 : 1e-13;
    const auto A = p.A.template as<W>(), C = p.C.template as<W>(), states = p.initial_state.template as<W>();
    const auto B = p.B.template as<W>();
    for (index h = 0; h < p.A.extent(0); ++h) {
        const auto s = generalized_bilinear(dense<W>(as_eigen(A.view()[h])), dense<W>(as_eigen(B.view()[h])), p.delta(h), 0.5);
        for (index c = 0; c < p.K.extent(0); ++c) {
            Eigen::VectorXcd x = s.B.col(0);
            const Eigen::VectorXcd map = as_eigen(C.view()[c][h]);
            for (index l = 0; l < p.K.extent(2); ++l, x = s.A * x) {
                CHECK(std::abs((map.transpose() * x)(0, 0).real() - static_cast<double>(p.K(c, h, l))) <= budget);
            }
            for (index b = 0; b < p.K_state.extent(0); ++b) {
                x = s.A * as_eigen(states.view()[b][h]);
                for (index l = 0; l < p.K.extent(2); ++l, x = s.A * x) {
                    CHECK(std::abs((map.transpose() * x)(0, 0).real() - static_cast<double>(p.K_state(b, c, h, l))) <= budget);
                }
            }
        }
    }
}

}  // namespace

TEMPLATE_TEST_CASE("dense_kernel: Eigen's matrices, one product after the other", "", float, double)
{
    for (const layout form : all_layouts) compare(dense_problem<TestType>(2, 3, 4, 2, 6, form));
    for (const index length : {0, 1, 11}) compare(dense_problem<TestType>(1, 2, 3, 0, length));
    compare(dense_problem<TestType>(1, 2, 0, 1, 3));
    compare(dense_problem<TestType>(0, 0, 1, 1, 3));
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
    named("K_state has shape", [](auto& a) { a.K_state = a.K_state.slice(3, 0, 2); });
    auto b = p.backward();
    b.dA = b.dA.slice(0, 0, 1);
    CHECK(complaint_of([&] { dense_kernel_backward(b); }).find("dense_kernel_backward: dA has shape") == 0);
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
