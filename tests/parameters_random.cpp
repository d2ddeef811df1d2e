#include <algorithm>
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

TEST_CASE("truncated_normal_numbers: the variance asked for, within two deviations, all of them used")
{
    const std::vector<double> x = truncated_normal_numbers(20000, 7, 0.25);
    REQUIRE(x.size() == 20000);
    double mean = 0, square = 0, most = 0;
    for (const double v : x) mean += v, square += v * v, most = std::max(most, std::abs(v));
    CHECK(std::abs(mean / 20000) < 0.018);
    CHECK(std::abs(square / 20000 - 0.25) < 0.008);
    CHECK(most <= 0.5 * 2 / 0.8796);
    CHECK(most > 0.5 * 1.99 / 0.8797);
    const std::vector<double> again = truncated_normal_numbers(20000, 7, 0.25);
    CHECK(x == again);
    CHECK(truncated_normal_numbers(0, 1).empty());
    CHECK(truncated_normal_numbers(3, 1, 0) == std::vector<double>(3));
    CHECK_THROWS_AS(truncated_normal_numbers(-1, 1), shape_error);
    CHECK_THROWS_AS(truncated_normal_numbers(1, 1, -1), shape_error);
}

TEST_CASE("long_conv_init: the spread of every tap is its envelope's")
{
    const index channels = 2000, dim = 4, length = 6;
    const auto spread = [&](const std::vector<double>& kernel, index h, index l) {
        double sum = 0;
        for (index c = 0; c < channels; ++c) {
            const double x = kernel[static_cast<std::size_t>((c * dim + h) * length + l)];
            sum += x * x;
        }
        return std::sqrt(sum / static_cast<double>(channels));
    };
    const auto flat = long_conv_init(long_conv_start::random, channels, dim, length, 5);
    const auto falling = long_conv_init(long_conv_start::double_exponential, channels, dim, length, 5);
    REQUIRE(flat.size() == static_cast<std::size_t>(channels * dim * length));
    for (index h = 0; h < dim; ++h) {
        for (index l = 0; l < length; ++l) {
            const double envelope = std::exp(-static_cast<double>(l) / 6 * std::pow(2.0, static_cast<double>(h) / 4));
            CHECK(std::abs(spread(flat, h, l) / 0.002 - 1) < 0.08);  // five deviations of a deviation from so many
            CHECK(std::abs(spread(falling, h, l) / (0.02 * envelope) - 1) < 0.08);
        }
    }
    CHECK(flat == long_conv_init(long_conv_start::random, channels, dim, length, 5));
    CHECK(long_conv_init(long_conv_start::random, 1, 0, 3, 1).empty());
    CHECK(long_conv_init(long_conv_start::double_exponential, 1, 1, 1, 1).size() == 1);
    CHECK_THROWS_AS(long_conv_init(long_conv_start::random, 1, 1, -1, 1), shape_error);
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
