#include <ssmkit/parameters.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <vector>

#include "catch.hpp"

namespace ssmkit::testing {
namespace {

constexpr positive_transform transforms[] = {positive_transform::none, positive_transform::exp, positive_transform::relu,
                                             positive_transform::sigmoid, positive_transform::softplus};

TEMPLATE_TEST_CASE("parameters: what is stored comes back", "", float, double)
{
    using T = TestType;
    for (const positive_transform transform : transforms) {
        for (const T p : {T(1e-4), T(3e-4), T(0.01), T(0.5), T(0.9), T(3), T(15), T(25), T(80)}) {
            if (transform == positive_transform::sigmoid && p >= 1) continue;
            const T back = to_positive(transform, from_positive(transform, p));
            CAPTURE(static_cast<int>(transform), p, back);
            const T expected = transform == positive_transform::relu ? p + T(1e-4) : p;
            // ln p has the absolute error of its size: a few roundings of p. Beyond 20 softplus leaves out e^-20.
            CHECK(std::abs(back - expected) <= 12 * std::numeric_limits<T>::epsilon() * expected + (p > 20 ? T(3e-9) : T(0)));
        }
        const T floor = to_positive(transform, from_positive(transform, T(0)));
        CHECK(std::abs(floor - (transform == positive_transform::relu ? T(2e-4) : T(1e-4))) < T(1e-9));
        CHECK(from_positive(transform, T(-5)) == from_positive(transform, T(1e-4)));
        CHECK(std::isnan(from_positive(transform, std::numeric_limits<T>::quiet_NaN())));
        CHECK(std::isnan(to_positive(transform, std::numeric_limits<T>::quiet_NaN())));
        CHECK(std::isnan(to_positive_derivative(transform, std::numeric_limits<T>::quiet_NaN())));
    }
}

TEST_CASE("parameters: derivatives equal difference quotients")
{
    for (const positive_transform transform : transforms) {
        for (const double theta : {-15.0, -2.0, -0.3, 0.2, 1.0, 7.0, 19.0, 25.0}) {
            const double h = 1e-4;
            const double slope = (to_positive(transform, theta + h) - to_positive(transform, theta - h)) / (2 * h);
            CAPTURE(static_cast<int>(transform), theta);
            CHECK(std::abs(to_positive_derivative(transform, theta) - slope) < 1e-8 * std::max(1.0, std::abs(slope)));
        }
    }
    CHECK(to_positive_derivative(positive_transform::relu, 0.0) == 0);
}

TEST_CASE("parameters: transforms at the ends of their range")
{
    CHECK(to_positive(positive_transform::softplus, 1e4f) == 1e4f);
    CHECK(to_positive(positive_transform::softplus, -100.0) == std::exp(-100.0));
    CHECK(to_positive(positive_transform::sigmoid, -700.0) == std::exp(-700.0));
    CHECK(to_positive(positive_transform::sigmoid, 1e4) == 1);
    CHECK(to_positive_derivative(positive_transform::sigmoid, -1e4) == 0);
    CHECK(std::abs(from_positive(positive_transform::softplus, 1e-3) + 6.9072552373154705) < 1e-14);
    CHECK(from_positive(positive_transform::softplus, 1000.0) == 1000);
    CHECK(std::isinf(from_positive(positive_transform::sigmoid, 1.0)));
}

TEST_CASE("parameters: numbers from a seed")
{
    const std::vector<double> u = uniform_numbers(20001, 5), n = normal_numbers(20001, 5);
    CHECK(u == uniform_numbers(20001, 5));
    CHECK(u != uniform_numbers(20001, 6));
    CHECK(*std::min_element(u.begin(), u.end()) >= 0);
    CHECK(*std::max_element(u.begin(), u.end()) < 1);
    const auto moment = [](const std::vector<double>& x, int power) {
        double sum = 0;
        for (const double v : x) sum += std::pow(v, power);
        return sum / static_cast<double>(x.size());
    };
    CHECK(std::abs(moment(u, 1) - 0.5) < 0.01);
    CHECK(std::abs(moment(u, 2) - 1.0 / 3) < 0.01);
    CHECK(std::abs(moment(n, 1)) < 0.03);
    CHECK(std::abs(moment(n, 2) - 1) < 0.04);
    CHECK(std::abs(moment(n, 4) - 3) < 0.3);
    double neighbours = 0;
    for (std::size_t i = 0; i + 1 < n.size(); ++i) neighbours += n[i] * n[i + 1];
    CHECK(std::abs(neighbours) < 0.03 * 20000);
    CHECK(normal_numbers(0, 1).empty());
    CHECK_THROWS_AS(uniform_numbers(-1, 1), shape_error);
    CHECK_THROWS_AS(normal_numbers(-1, 1), shape_error);
    CHECK(uniform_numbers(2, 5489)[0] == 0.7868209548678019);  // mt19937_64's first word, 14514284786278117030, / 2^64
}

TEST_CASE("parameters: step sizes lie in their range, evenly by ratio")
{
    const delta_range range{1e-3, 1e-1};
    CHECK(std::abs(delta_init(0.0) - std::log(1e-3)) < 1e-14);
    CHECK(std::abs(delta_init(1.0) - std::log(1e-1)) < 1e-14);
    CHECK(std::abs(delta_init(0.5) - std::log(1e-2)) < 1e-14);
    const std::vector<double> u = uniform_numbers(50, 3);
    for (const positive_transform transform : transforms) {
        const std::vector<double> stored = delta_init(u, transform, range);
        for (std::size_t i = 0; i < u.size(); ++i) {
            const double expected = 1e-3 * std::pow(100.0, u[i]) + (transform == positive_transform::relu ? 1e-4 : 0);
            CHECK(std::abs(to_positive(transform, stored[i]) - expected) < 1e-14);
        }
    }
    CHECK(std::abs(to_positive(positive_transform::none, delta_init(0, positive_transform::none, {1e-6, 1})) - 1e-4) < 1e-18);
    const std::vector<double> even = delta_init_deterministic(3, range);
    CHECK(std::abs(even[0] - 1e-3) < 1e-17);
    CHECK(std::abs(even[1] - 1e-2) < 1e-16);
    CHECK(std::abs(even[2] - 1e-1) < 1e-15);
    CHECK(delta_init_deterministic(1, range).size() == 1);
    CHECK(delta_init_deterministic(0, range).empty());
    CHECK_THROWS_AS(delta_init(0.5, positive_transform::exp, {0, 1}), shape_error);
    CHECK_THROWS_AS(delta_init(0.5, positive_transform::exp, {2, 1}), shape_error);
    CHECK_THROWS_AS(delta_init(u, positive_transform::exp, {std::nan(""), 1}), shape_error);
    CHECK_THROWS_AS(delta_init_deterministic(-1), shape_error);
}

TEST_CASE("parameters: LRU's eigenvalues lie on the ring, the state of a white input has variance 1")
{
    const std::vector<double> u = uniform_numbers(200, 1), v = uniform_numbers(200, 2);
    const lru_parameters p = lru_init(u, v, 0.4, 0.95, 1.5);
    double squares = 0;
    for (std::size_t n = 0; n < u.size(); ++n) {
        const double modulus = std::exp(-std::exp(p.nu_log[n])), phase = std::exp(p.theta_log[n]);
        CHECK(modulus >= 0.4 - 1e-14);
        CHECK(modulus <= 0.95 + 1e-14);
        CHECK(phase >= 0);
        CHECK(phase < 1.5);
        squares += modulus * modulus;
        CHECK(std::abs(std::exp(2 * p.gamma_log[n]) / (1 - modulus * modulus) - 1) < 1e-13);
    }
    CHECK(std::abs(squares / 200 - (0.16 + 0.9025) / 2) < 0.05);  // uniform by area
    const std::vector<double> one{1.0 - 1e-9}, half{0.5};
    const double near = lru_init(one, half, 0, 1).gamma_log[0];   // 1 - |λ|² = 1e-9, of which a subtraction keeps 7 digits
    CHECK(std::abs(std::exp(2 * near) / (1 - one[0]) - 1) < 1e-12);
    CHECK_THROWS_AS(lru_init(u, half), shape_error);
    CHECK_THROWS_AS(lru_init(half, half, 0.9, 0.5), shape_error);
    CHECK_THROWS_AS(lru_init(half, half, -0.1, 0.5), shape_error);
    CHECK_THROWS_AS(lru_init(half, half, 0, 1.5), shape_error);
    CHECK_THROWS_AS(lru_init(half, half, 0, 1, std::nan("")), shape_error);
}

}  // namespace
}  // namespace ssmkit::testing
