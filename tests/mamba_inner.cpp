// The composition of examples/common/mamba_inner.hpp and mamba_block.hpp, where the golden cases do not go.

#include <complex>

#include "../examples/common/mamba_block.hpp"

#include "catch.hpp"
#include "operations/operations.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

using mamba::matrix, mamba::row;

constexpr index batch = 2, length = 9, dim = 6, state = 3, rank = 3, width = 4, out = 5;

struct setup {
    bool constant_B, constant_C, biases;
};

template <class R, class Param>
struct inner_problem {
    mamba::inner_weights<R, Param> weights;
    matrix<R> xz, dout;

    explicit inner_problem(const setup& s)
    {
        random numbers(7);
        const auto fill = [&](auto& m, index rows, index columns) {
            using element = typename std::remove_reference_t<decltype(m)>::Scalar;
            m.resize(rows, columns);
            for (index i = 0; i < rows; ++i) {
                for (index k = 0; k < columns; ++k) {
                    const double re = numbers.uniform(-1, 1), im = numbers.uniform(-1, 1);
                    if constexpr (detail::is_complex<element>) {
                        m(i, k) = convert<element>(std::complex<double>(re, im));
                    } else {
                        m(i, k) = static_cast<element>(re);
                    }
                }
            }
        };
        const index n = state * (detail::is_complex<Param> ? 2 : 1);
        const index n_B = s.constant_B ? 0 : n, n_C = s.constant_C ? 0 : n;
        fill(weights.conv1d_weight, dim, width);
        fill(weights.x_proj_weight, rank + n_B + n_C, dim);
        fill(weights.delta_proj_weight, dim, rank);
        fill(weights.out_proj_weight, out, dim);
        fill(weights.A, dim, state);
        weights.A.array() -= Param(1.2);
        if (s.constant_B) fill(weights.B, dim, state);
        if (s.constant_C) fill(weights.C, dim, state);
        if (s.biases) {
            fill(weights.conv1d_bias, 1, dim);
            fill(weights.out_proj_bias, 1, out);
            fill(weights.B_proj_bias, 1, n_B);
            fill(weights.C_proj_bias, 1, n_C);
            fill(weights.D, 1, dim);
            fill(weights.delta_bias, 1, dim);
        }
        fill(xz, batch * length, 2 * dim);
        fill(dout, batch * length, out);
    }
};

/// Calls f with each argument of the first problem and its counterpart in the other.
template <class R, class Param, class F>
void for_each_argument(mamba::inner_weights<R, Param>& a, mamba::inner_weights<R, Param>& b, F&& f)
{
    f(a.conv1d_weight, b.conv1d_weight), f(a.conv1d_bias, b.conv1d_bias), f(a.x_proj_weight, b.x_proj_weight);
    f(a.delta_proj_weight, b.delta_proj_weight), f(a.out_proj_weight, b.out_proj_weight);
    f(a.out_proj_bias, b.out_proj_bias), f(a.A, b.A), f(a.B, b.B), f(a.C, b.C), f(a.B_proj_bias, b.B_proj_bias);
    f(a.C_proj_bias, b.C_proj_bias), f(a.D, b.D), f(a.delta_bias, b.delta_bias);
}

constexpr setup setups[] = {{false, false, true}, {true, false, true}, {false, true, false}, {true, true, true}};

TEMPLATE_TEST_CASE("mamba_inner: gradients are difference quotients, for kernels and references alike", "", double,
                   std::complex<double>)
{
    threads pool(2);
    const auto check_all = [](const auto& run) {
        for (const setup& s : setups) {
            CAPTURE(s.constant_B, s.constant_C, s.biases);
            inner_problem<double, TestType> p(s);
            mamba::inner_activations<double, TestType> kept;
            const auto loss = [&] {
                mamba::inner_activations<double, TestType> scratch;
                return mamba_inner(p.weights, p.xz, batch, run, scratch).cwiseProduct(p.dout).sum();
            };
            mamba_inner(p.weights, p.xz, batch, run, kept);
            auto d = mamba_inner_backward(p.weights, p.xz, batch, p.dout, run, kept);
            const auto check = [&](auto& argument, const auto& gradient) {
                REQUIRE(argument.rows() == gradient.rows());
                REQUIRE(argument.cols() == gradient.cols());
                using element = typename std::remove_reference_t<decltype(argument)>::Scalar;
                constexpr double step = 1e-5;
                const auto slope = [&](element& x, const element& direction) {
                    const element at = x;
                    x = at + direction * step;
                    const double above = loss();
                    x = at - direction * step;
                    const double below = loss();
                    x = at;
                    return (above - below) / (2 * step);
                };
                double worst = 0;
                for (index i = 0; i < argument.rows(); ++i) {
                    for (index k = 0; k < argument.cols(); ++k) {
                        const element g = gradient(i, k);
                        element& x = argument(i, k);
                        worst = std::max(worst, std::abs(slope(x, element(1)) - std::real(g)));
                        if constexpr (detail::is_complex<element>) {
                            worst = std::max(worst, std::abs(slope(x, element(0, 1)) - std::imag(g)));
                        }
                    }
                }
                CHECK(worst < 1e-7);
            };
            check(p.xz, d.xz);
            for_each_argument(p.weights, d.weights, check);
        }
    };
    check_all(operations{.reference = false, .pool = pool});
    check_all(operations{.reference = true, .pool = pool});
}

TEMPLATE_TEST_CASE("mamba_inner: kernels in float agree with the reference in double", "", float, std::complex<float>)
{
    using wide = wide_t<TestType>;
    threads pool(2);
    for (const setup& s : setups) {
        CAPTURE(s.constant_B, s.constant_C, s.biases);
        const inner_problem<float, TestType> p(s);
        const inner_problem<double, wide> expected(s);
        mamba::inner_activations<float, TestType> kept;
        mamba::inner_activations<double, wide> kept_expected;
        const auto check = [](const auto& a, const auto& b) {
            using element = typename std::remove_cvref_t<decltype(b)>::Scalar;
            CHECK((a.template cast<element>() - b).norm() <= 1e-5 * b.norm());
        };
        check(mamba_inner(p.weights, p.xz, batch, operations{.reference = false, .pool = pool}, kept),
              mamba_inner(expected.weights, expected.xz, batch, operations{.reference = true, .pool = pool}, kept_expected));
        check(kept.final_state, kept_expected.final_state);
    }
}

TEST_CASE("mamba_block: any cut between prefill and steps gives the same outputs and states")
{
    constexpr index hidden = 4;
    inner_problem<double, double> p({false, false, true});
    mamba::block_weights<double> weights{.in_proj_weight = matrix<double>::Random(2 * dim, hidden),
                                         .in_proj_bias = row<double>::Random(2 * dim),
                                         .A_log = {},
                                         .inner = p.weights};
    weights.inner.out_proj_weight = matrix<double>::Random(hidden, dim);
    weights.inner.out_proj_bias.resize(0);
    weights.inner.B_proj_bias.resize(0);
    weights.inner.C_proj_bias.resize(0);
    weights.set_A_log(matrix<double>::Random(dim, state));
    const matrix<double> tokens = matrix<double>::Random(batch * length, hidden);
    threads pool(1);
    const operations run{.reference = false, .pool = pool};
    mamba::block_activations<double> kept;
    const matrix<double> whole = mamba_block(weights, tokens, batch, run, kept);
    const auto end = state_after(weights, kept, batch);
    const auto rows_of = [&](const matrix<double>& m, index first, index count) {
        matrix<double> part(batch * count, m.cols());
        for (index b = 0; b < batch; ++b) part.middleRows(b * count, count) = m.middleRows(b * length + first, count);
        return part;
    };
    for (index prefill = 1; prefill <= length; ++prefill) {  // shorter than the convolution, too
        CAPTURE(prefill);
        mamba::block_activations<double> first;
        mamba_block(weights, rows_of(tokens, 0, prefill), batch, run, first);
        auto state_now = state_after(weights, first, batch);
        for (index t = prefill; t < length; ++t) {
            const matrix<double> y = mamba_block_step(weights, rows_of(tokens, t, 1), state_now, run);
            CHECK((y - rows_of(whole, t, 1)).norm() < 1e-12);
        }
        CHECK((state_now.conv - end.conv).norm() < 1e-12);
        CHECK((state_now.scan - end.scan).norm() < 1e-12);
    }
}

}  // namespace
}  // namespace ssmkit::testing
