#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <vector>

#include <ssmkit/parameters.hpp>

#include "catch.hpp"

using namespace ssmkit;

TEST_CASE("complex_normal_numbers: both parts have the variance asked for, and are independent")
{
    const std::vector<std::complex<double>> z = complex_normal_numbers(20000, 3, 0.125);
    REQUIRE(z.size() == 20000);
    double re = 0, im = 0, both = 0;
    for (const auto& x : z) re += x.real() * x.real(), im += x.imag() * x.imag(), both += x.real() * x.imag();
    CHECK(std::abs(re / 20000 - 0.125) < 0.006);  // five deviations of a variance from so many
    CHECK(std::abs(im / 20000 - 0.125) < 0.006);
    CHECK(std::abs(both / 20000) < 0.005);
    CHECK(complex_normal_numbers(0, 3).empty());
    CHECK(complex_normal_numbers(5, 3) == complex_normal_numbers(5, 3));
    CHECK_THROWS_AS(complex_normal_numbers(-1, 3), shape_error);
    CHECK_THROWS_AS(complex_normal_numbers(1, 3, -1), shape_error);
    CHECK_THROWS_AS(complex_normal_numbers(1, 3, std::numeric_limits<double>::quiet_NaN()), shape_error);
}

TEST_CASE("ema_init: the signs of beta alternate over the state, the spreads are Mega's")
{
    const index dim = 301, state = 7;
    const ema_parameters p = ema_init(dim, state, 9);
    const auto count = static_cast<std::size_t>(dim * state);
    REQUIRE(p.delta.size() == count);
    REQUIRE(p.alpha.size() == count);
    REQUIRE(p.gamma.size() == count);
    REQUIRE(p.omega.size() == static_cast<std::size_t>(dim));
    double delta = 0, alpha = 0, beta = 0, gamma = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const double rest = p.beta[i] - (i % 7 % 2 ? -1 : 1);
        delta += p.delta[i] * p.delta[i], alpha += p.alpha[i] * p.alpha[i], beta += rest * rest, gamma += p.gamma[i] * p.gamma[i];
    }
    const double n = static_cast<double>(count);
    CHECK(std::abs(delta / n / 0.04 - 1) < 0.16);  // five deviations of a variance from 2107 numbers
    CHECK(std::abs(alpha / n / 0.04 - 1) < 0.16);
    CHECK(std::abs(beta / n / 0.0004 - 1) < 0.16);
    CHECK(std::abs(gamma / n - 1) < 0.16);
    CHECK(ema_init(0, 3, 1).omega.empty());
    CHECK(ema_init(3, 0, 1).omega.size() == 3);
    CHECK_THROWS_AS(ema_init(-1, 3, 1), shape_error);
    CHECK_THROWS_AS(ema_init(3, -1, 1), shape_error);
}
