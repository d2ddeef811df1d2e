#include <ssmkit/discretize.hpp>
#include <ssmkit/discretize_dense.hpp>

#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

using complex = std::complex<double>;
using wide = std::complex<long double>;

constexpr discretization methods[] = {discretization::zoh,           discretization::bilinear, discretization::forward_euler,
                                      discretization::backward_euler, discretization::dirac,    discretization::async};

constexpr double infinity = std::numeric_limits<double>::infinity();

/// |a - b| / |b|.
template <class A, class B>
double distance(A a, B b)
{
    const wide x(a), y(b);
    return static_cast<double>(std::abs(x - y) / std::abs(y));
}

/// φ and φ' in long double: by their series, which cancel little for |z| < 5, and φ beyond 1 as it is written.
wide phi(wide z)
{
    if (std::abs(z) > 1) return (std::exp(z) - 1.0L) / z;
    wide sum = 0, term = 1;
    for (int k = 1; k < 200; ++k) {
        sum += term;
        term *= z / static_cast<long double>(k + 1);
    }
    return sum;
}

wide phi_derivative(wide z)
{
    wide sum = 0, term = 0.5L;  // (k + 1) z^k / (k + 2)!
    for (int k = 0; k < 200; ++k) {
        sum += term;
        term *= z * (static_cast<long double>(k + 2) / (static_cast<long double>(k + 1) * static_cast<long double>(k + 3)));
    }
    return sum;
}

/// Points of the complex plane from 1e-12 to 20, in every direction.
std::vector<complex> points()
{
    std::vector<complex> z;
    for (const double size : {1e-300, 1e-12, 1e-8, 1e-5, 1e-3, 0.1, 0.3, 0.4999, 0.5, 0.5001, 0.7, 1.0, 3.0, 8.0, 20.0}) {
        for (int direction = 0; direction < 16; ++direction) z.push_back(std::polar(size, direction * 0.39269908169872414 + 0.01));
    }
    return z;
}

TEST_CASE("discretize: (e^z - 1) / z and its derivative within a few roundings over the plane")
{
    for (const complex z : points()) {
        CAPTURE(z);
        CHECK(distance(exprel(z), phi(wide(z))) < 8 * rounding<double>);
        if (std::abs(z) < 5) CHECK(distance(exprel_derivative(z), phi_derivative(wide(z))) < 24 * rounding<double>);
        const std::complex<float> f(z);
        if (std::abs(f) == 0) continue;
        CHECK(distance(exprel(f), phi(wide(f))) < 8 * rounding<float>);
        if (std::abs(z) < 5) CHECK(distance(exprel_derivative(f), phi_derivative(wide(f))) < 24 * rounding<float>);
    }
    for (const double x : {-700.0, -30.0, -1.0, -0.4, -1e-9, 1e-9, 0.4, 1.0, 30.0}) {
        CAPTURE(x);
        const long double wide_x = x;
        CHECK(distance(exprel(x), std::expm1(wide_x) / wide_x) < 8 * rounding<double>);
    }
    for (const double size : {1e-3, 1e-9, 1e-15}) {
        for (const complex direction : {complex(1, 0), complex(-1, 0), complex(0, 1), complex(-0.6, 0.8), complex(0.6, -0.8)}) {
            const complex z = size * direction;
            CAPTURE(z);
            CHECK(std::abs(expm1(z) - z * (1.0 + z / 2.0 * (1.0 + z / 3.0 * (1.0 + z / 4.0 * (1.0 + z / 5.0))))) < 4e-15 * size);
        }
    }
    CHECK(exprel(0.0) == 1);
    CHECK(exprel(complex(0)) == complex(1));
    CHECK(exprel_derivative(0.0) == 0.5);
    CHECK(exprel_derivative(complex(0)) == complex(0.5));
    CHECK(exprel(-infinity) == 0);
    CHECK(is_nan(exprel(complex(0.1, std::nan("")))));
    CHECK(is_nan(exprel_derivative(std::nan(""))));
}

TEST_CASE("discretize: known values")
{
    const auto equals = [](discrete<double> d, double pole, double gain) {
        return std::abs(d.pole - pole) < 1e-15 && std::abs(d.gain - gain) < 1e-15;
    };
    CHECK(equals(discretize(-2.0, 0.25, discretization::zoh), std::exp(-0.5), (1 - std::exp(-0.5)) / 2));
    CHECK(equals(discretize(-2.0, 0.25, discretization::bilinear), 0.6, 0.2));
    CHECK(equals(discretize(-2.0, 0.25, discretization::forward_euler), 0.5, 0.25));
    CHECK(equals(discretize(-2.0, 0.25, discretization::backward_euler), 1 / 1.5, 0.25 / 1.5));
    CHECK(equals(discretize(-2.0, 0.25, discretization::dirac), std::exp(-0.5), 1));
    CHECK(equals(discretize(-2.0, 0.25, discretization::dirac, 3), std::exp(-1.5), 1));
    CHECK(equals(discretize(-2.0, 0.25, discretization::async, 3), std::exp(-1.5), (1 - std::exp(-0.5)) / 2));
    CHECK(equals(discretize(-2.0, 0.25, discretization::zoh, 3), std::exp(-1.5), (1 - std::exp(-1.5)) / 2));
    CHECK(equals(generalized_bilinear(-2.0, 0.25, 0.25), 0.625 / 1.125, 0.25 / 1.125));
}

TEST_CASE("discretize: two steps are one of twice the length, under zero-order hold")
{
    for (const complex A : {complex(-0.5, 3), complex(-4, 0), complex(0, 100), complex(0, 0)}) {
        const discrete<complex> once = discretize(A, 0.07, discretization::zoh), twice = discretize(A, 0.14, discretization::zoh);
        CHECK(std::abs(once.pole * once.pole - twice.pole) < 1e-14);
        CHECK(std::abs(once.pole * once.gain + once.gain - twice.gain) < 1e-15);
    }
}

TEMPLATE_TEST_CASE("discretize: continuous to a rounding where delta A vanishes", "", float, double)
{
    using T = TestType;
    for (const discretization method : methods) {
        for (int digit = 1; digit < 30; ++digit) {
            const T tiny = static_cast<T>(std::pow(10.0, -digit));
            const std::complex<T> A = std::complex<T>(T(-0.6), T(0.8)) * tiny;
            CAPTURE(static_cast<int>(method), digit);
            const discrete<std::complex<T>> d = discretize(A, T(0.5), method);
            const T gain = method == discretization::dirac ? T(1) : T(0.5);
            // A gain is at most Δ |z| from its limit: nothing is lost below that.
            CHECK(std::abs(d.gain - gain) <= tiny / 4 + 4 * static_cast<T>(rounding<T>) * gain);
            CHECK(std::abs(d.pole - T(1)) <= tiny + 4 * static_cast<T>(rounding<T>));
        }
        CHECK(discretize(std::complex<T>(0), T(0.5), method).pole == std::complex<T>(1));
        CHECK(discretize(std::complex<T>(-1, 2), T(0), method).pole == std::complex<T>(1));
    }
}

TEST_CASE("discretize: float's zero-order hold keeps its digits where the quotient loses all")
{
    for (const double z : {1e-1, 1e-2, 1e-4, 1e-6, 1e-8, 1e-12}) {
        const std::complex<float> A(static_cast<float>(-z), static_cast<float>(z));
        const std::complex<float> gain = discretize(A, 1.0f, discretization::zoh).gain;
        CHECK(distance(gain, phi(wide(A))) < 4 * rounding<float>);
    }
}

TEST_CASE("discretize: strong decay stays within the unit circle and finite")
{
    for (const double rate : {1.0, 1e2, 1e4, 1e8, 1e100, 1e300}) {
        for (const discretization method :
             {discretization::zoh, discretization::bilinear, discretization::backward_euler, discretization::async}) {
            for (const complex direction : {complex(-1, 0), complex(-0.6, 0.8), complex(-0.6, -0.8)}) {
                CAPTURE(static_cast<int>(method), rate, direction);
                const complex A = rate * direction;
                const discrete<complex> d = discretize(A, 0.1, method);
                CHECK(std::abs(d.pole) <= 1);
                CHECK(std::isfinite(std::abs(d.gain)));
                CHECK(std::abs(d.gain) <= 0.2 + 1e-15);
                if (rate > 1e4 && method == discretization::zoh) CHECK(distance(d.gain, wide(-1) / wide(A)) < 1e-15);
            }
        }
    }
    CHECK(discretize(-1e300, 1e10, discretization::zoh).pole == 0);
}

TEST_CASE("discretize: a NaN reaches the result")
{
    for (const discretization method : methods) {
        CHECK(is_nan(discretize(std::nan(""), 0.5, method).pole));
        CHECK(is_nan(discretize(-1.0, std::nan(""), method).pole));
        CHECK(is_nan(discretize(complex(-1, std::nan("")), 0.5, method).pole));
        if (method != discretization::dirac && method != discretization::forward_euler) {
            CHECK(is_nan(discretize(std::nan(""), 0.5, method).gain));
        }
    }
}

/// A loss of one eigenvalue: the real part of the upstream's conjugate times pole and gain.
double loss(complex A, double delta, discretization method, double interval, const discrete<complex>& upstream)
{
    const discrete<complex> d = discretize(A, delta, method, interval);
    return (std::conj(upstream.pole) * d.pole + std::conj(upstream.gain) * d.gain).real();
}

TEST_CASE("discretize: gradients equal difference quotients, also at A = 0")
{
    const discrete<complex> upstream{{0.7, -1.3}, {2.1, 0.4}};
    for (const discretization method : methods) {
        for (const complex A : {complex(-0.5, 3), complex(-4, -1), complex(1e-9, 1e-9), complex(0, 0)}) {
            for (const double interval : {1.0, 0.3, 2.5}) {
                CAPTURE(static_cast<int>(method), A, interval);
                const double delta = 0.2, step = 1e-4;
                const auto slope = [&](auto f) { return (8 * (f(step) - f(-step)) - (f(2 * step) - f(-2 * step))) / (12 * step); };
                const discretize_gradient<complex> g = discretize_backward(A, delta, method, interval, upstream);
                CHECK(std::abs(g.A.real() - slope([&](double h) { return loss(A + h, delta, method, interval, upstream); })) < 1e-10);
                CHECK(std::abs(g.A.imag() - slope([&](double h) { return loss(A + complex(0, h), delta, method, interval, upstream); })) < 1e-10);
                CHECK(std::abs(g.delta - slope([&](double h) { return loss(A, delta + h, method, interval, upstream); })) < 1e-10);
                CHECK(std::abs(g.interval - slope([&](double h) { return loss(A, delta, method, interval + h, upstream); })) < 1e-10);
            }
        }
    }
}

/// A whole state, in any layout.
struct problem {
    index state, dim;
    tensor<complex, 1> A, A_bar, dA_bar, dA;
    tensor<complex, 2> B, B_bar, dB_bar, dB;
    tensor<double, 1> delta, interval, ddelta, dinterval;

    problem(index state, index dim, layout form) : state(state), dim(dim)
    {
        random numbers(7);
        const range r{-1, 1};
        for (tensor<complex, 1>* t : {&A, &dA_bar}) (*t = tensor<complex, 1>({state}, form)).fill(numbers, r);
        for (tensor<complex, 2>* t : {&B, &dB_bar}) (*t = tensor<complex, 2>({state, dim}, form)).fill(numbers, r);
        (delta = tensor<double, 1>({state}, form)).fill(numbers, {0.01, 0.5});
        (interval = tensor<double, 1>({1}, form)).fill(numbers, {0.5, 2});
        dA = tensor<complex, 1>({state}, form);
        A_bar = tensor<complex, 1>({state}, form);
        B_bar = tensor<complex, 2>({state, dim}, form);
        dB = tensor<complex, 2>({state, dim}, form);
        ddelta = tensor<double, 1>({state}, form);
        dinterval = tensor<double, 1>({1}, form);
    }

    discretize_args<complex> args(discretization method) const
    {
        return {.A = A, .B = B, .delta = delta, .interval = interval, .method = method, .A_bar = A_bar, .B_bar = B_bar};
    }

    discretize_backward_args<complex> backward(discretization method) const
    {
        return {.forward = args(method), .dA_bar = dA_bar, .dB_bar = dB_bar, .dA = dA, .dB = dB, .ddelta = ddelta, .dinterval = dinterval};
    }
};

TEST_CASE("discretize: a state and its gradients, any layout, are those of its eigenvalues")
{
    for (const layout form : {layout::row_major, layout::column_major, layout::strided, layout::negative, layout::unaligned}) {
        for (const index state : {0, 1, 5}) {
            for (const index dim : {0, 1, 3}) {
                for (const discretization method : methods) {
                    const problem p(state, dim, form);
                    discretize(p.args(method));
                    discretize_backward(p.backward(method));
                    double dinterval = 0;
                    for (index n = 0; n < state; ++n) {
                        const discrete<complex> d = discretize(p.A(n), p.delta(n), method, p.interval(0));
                        CHECK(p.A_bar(n) == d.pole);
                        discrete<complex> upstream{p.dA_bar(n), 0};
                        for (index c = 0; c < dim; ++c) {
                            CHECK(std::abs(p.B_bar(n, c) - d.gain * p.B(n, c)) < 1e-15);
                            CHECK(std::abs(p.dB(n, c) - p.dB_bar(n, c) * std::conj(d.gain)) < 1e-15);
                            upstream.gain += p.dB_bar(n, c) * std::conj(p.B(n, c));
                        }
                        const discretize_gradient<complex> g = discretize_backward(p.A(n), p.delta(n), method, p.interval(0), upstream);
                        CHECK(std::abs(p.dA(n) - g.A) < 1e-14);
                        CHECK(std::abs(p.ddelta(n) - g.delta) < 1e-14);
                        dinterval += g.interval;
                    }
                    CHECK(std::abs(p.dinterval(0) - dinterval) < 1e-14);
                    CHECK(p.A_bar.gaps_untouched());
                    CHECK(p.dA.gaps_untouched());
                }
            }
        }
    }
}

TEST_CASE("discretize: names the argument that does not fit")
{
    const problem p(4, 3, layout::row_major), other(5, 2, layout::row_major);
    const auto complaint = [](const auto& a) -> std::string {
        try {
            check(a);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "none";
    };
    const auto with = [&](auto change) {
        discretize_args<complex> a = p.args(discretization::zoh);
        change(a);
        return complaint(a);
    };
    CHECK(with([](auto&) {}) == "none");
    CHECK(with([&](auto& a) { a.delta = other.delta; }) == "discretize: delta has shape (5), expected (state = 4)");
    CHECK(with([&](auto& a) { a.B = other.B; }) == "discretize: B has shape (5, 2), expected (state = 4, dim)");
    CHECK(with([&](auto& a) { a.A_bar = {}; }) == "discretize: A_bar has shape (0), expected (state = 4)");
    CHECK(with([&](auto& a) { a.B_bar = {}; }) == "discretize: B_bar has shape (0, 0), expected (state = 4, dim = 3)");
    CHECK(with([&](auto& a) { a.interval = other.delta; }) == "discretize: interval has shape (5), expected (1 = 1)");
    CHECK(with([&](auto& a) { a.A = p.A_bar; }) == "discretize: A_bar overlaps A in memory");
    CHECK(with([&](auto& a) { a.B = {}, a.B_bar = {}; }) == "none");
    discretize_backward_args<complex> b = p.backward(discretization::zoh);
    CHECK(complaint(b) == "none");
    b.dA = other.A;
    CHECK(complaint(b) == "discretize_backward: dA has shape (5), expected (state = 4)");
    b.dA = {};
    b.dB = p.B;
    CHECK(complaint(b) == "discretize_backward: dB overlaps B in memory");
}

TEST_CASE("discretize: a missing upstream is zero, a gradient not asked for is left alone")
{
    const problem p(4, 3, layout::row_major);
    discretize_backward_args<complex> b = p.backward(discretization::bilinear);
    b.dA_bar = {};
    b.dB_bar = {};
    b.dB = {};
    discretize_backward(b);
    for (index n = 0; n < 4; ++n) CHECK(p.dA(n) == complex(0));
    CHECK(is_nan(p.dB(0, 0)));
}

TEST_CASE("discretize: float's gradients are a rounding from exact, though sums of steps cancel")
{
    using narrow = std::complex<float>;
    random numbers(11);
    for (const discretization method : methods) {
        for (int repetition = 0; repetition < 30; ++repetition) {
            std::vector<narrow> A(8), up(8);
            std::vector<float> delta(8), interval(1), dinterval(1), ddelta(8);
            for (std::size_t n = 0; n < 8; ++n) {
                A[n] = {static_cast<float>(numbers.uniform(-1, 0)), static_cast<float>(numbers.uniform(-4, 4))};
                up[n] = {static_cast<float>(numbers.uniform(-1, 1)), static_cast<float>(numbers.uniform(-1, 1))};
                delta[n] = static_cast<float>(numbers.uniform(0.1, 0.5));
            }
            interval[0] = static_cast<float>(numbers.uniform(0.5, 2));
            discretize_backward(discretize_backward_args<narrow>{
                .forward = {.A = {A, 8}, .delta = {delta, 8}, .interval = {interval, 1}, .method = method},
                .dA_bar = {up, 8}, .ddelta = {ddelta, 8}, .dinterval = {dinterval, 1}});
            double sum = 0;
            for (std::size_t n = 0; n < 8; ++n) {
                const auto g = discretize_backward(complex(A[n]), static_cast<double>(delta[n]), method,
                                                   static_cast<double>(interval[0]), discrete<complex>{complex(up[n]), 0});
                CHECK(std::abs(static_cast<double>(ddelta[n]) - g.delta) <= 6e-8 * std::abs(g.delta));
                sum += g.interval;
            }
            CHECK(std::abs(static_cast<double>(dinterval[0]) - sum) <= 6e-8 * std::abs(sum));
        }
    }
}

using matrix = dense<double>;
using complex_matrix = dense<complex>;

/// A dense matrix with these eigenvalues, and its eigenvectors.
struct dense_problem {
    complex_matrix V = complex_matrix::Random(4, 4) + 3 * complex_matrix::Identity(4, 4), B = complex_matrix::Random(4, 2);
    Eigen::Vector4cd Lambda{complex(-0.5, 3), complex(-2, 0), complex(0, 0), complex(-1, -7)};
    complex_matrix A = V * Lambda.asDiagonal() * V.inverse();
};

TEST_CASE("discretize_dense: every method is the diagonal form in the basis of eigenvectors")
{
    const dense_problem p;
    for (const discretization method : methods) {
        for (const double interval : {1.0, 2.5}) {
            CAPTURE(static_cast<int>(method), interval);
            Eigen::Vector4cd pole, gain;
            for (index n = 0; n < 4; ++n) {
                const discrete<complex> d = discretize(p.Lambda[n], 0.3, method, interval);
                pole[n] = d.pole;
                gain[n] = d.gain;
            }
            const dense_system<complex> d = discretize(p.A, p.B, 0.3, method, interval);
            CHECK((d.A - p.V * pole.asDiagonal() * p.V.inverse()).norm() < 1e-12);
            CHECK((d.B - p.V * gain.asDiagonal() * p.V.inverse() * p.B).norm() < 1e-12);
        }
    }
    const dense_system<complex> d = generalized_bilinear(p.A, p.B, 0.3, 0.75);
    CHECK(std::abs(d.A.trace() - (generalized_bilinear(p.Lambda[0], 0.3, 0.75).pole + generalized_bilinear(p.Lambda[1], 0.3, 0.75).pole +
                                  1.0 + generalized_bilinear(p.Lambda[3], 0.3, 0.75).pole)) < 1e-12);
}

TEST_CASE("discretize_dense: the exponential of a nilpotent, a rotation, a large and a triangular matrix")
{
    matrix nilpotent = matrix::Zero(3, 3), expected = matrix::Identity(3, 3);
    nilpotent(0, 1) = 2;
    nilpotent(1, 2) = 3;
    expected(0, 1) = 2;
    expected(1, 2) = 3;
    expected(0, 2) = 3;
    CHECK((matrix_exponential(nilpotent) - expected).norm() < 1e-15);
    for (const double angle : {1e-9, 0.5, 6.0, 100.0}) {
        matrix rotation(2, 2), turned(2, 2);
        rotation << 0, -angle, angle, 0;
        turned << std::cos(angle), -std::sin(angle), std::sin(angle), std::cos(angle);
        CHECK((matrix_exponential(rotation) - turned).norm() < 1e-15 * std::max(10.0, 4 * angle));
    }
    const dense<float> small = dense<float>::Identity(2, 2) * -3.0f;
    CHECK((matrix_exponential(small) - std::exp(-3.0f) * dense<float>::Identity(2, 2)).norm() < 1e-7f);
    CHECK((matrix_exponential(matrix(matrix::Identity(2, 2) * -200)) - std::exp(-200.0) * matrix::Identity(2, 2)).norm() < 1e-12 * std::exp(-200.0));
    CHECK(matrix_exponential(matrix(0, 0)).size() == 0);
}

TEST_CASE("discretize_dense: mistakes are named")
{
    const matrix A = matrix::Identity(3, 3), B = matrix::Ones(3, 1);
    CHECK_THROWS_AS(zero_order_hold(A, matrix(matrix::Ones(2, 1)), 0.1), shape_error);
    CHECK_THROWS_AS(generalized_bilinear(matrix(3, 2), B, 0.1, 0.5), shape_error);
    CHECK_THROWS_AS(matrix_exponential(matrix(matrix::Ones(2, 3))), shape_error);
    CHECK_THROWS_AS(zero_order_hold(matrix(A * std::nan("")), B, 0.1), shape_error);
    CHECK_THROWS_AS(zero_order_hold(A, B, infinity), shape_error);
    CHECK(generalized_bilinear(matrix(A * std::nan("")), B, 0.1, 0.5).A.hasNaN());
    CHECK(zero_order_hold(matrix(0, 0), matrix(0, 1), 0.1).B.cols() == 1);
}

}  // namespace
}  // namespace ssmkit::testing
