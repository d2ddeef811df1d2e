#include <ssmkit/detail/real_fft.hpp>

#include <cmath>
#include <complex>
#include <numbers>
#include <vector>

#include "catch.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

using arch = xsimd::default_arch;

/// Tables and scratch of one length.
template <class T>
struct transform {
    std::vector<std::byte> memory;
    std::vector<T> scratch;
    detail::real_fft<T> fft;

    explicit transform(index length) : memory(bytes(length)), fft(make(length))
    {
        scratch.resize(static_cast<std::size_t>(fft.template scratch_size<arch>()) + 16);
    }

    static std::size_t bytes(index length)
    {
        detail::arena sizes;
        detail::real_fft<T>(length, sizes);
        return sizes.size();
    }

    detail::real_fft<T> make(index length)
    {
        detail::arena tables{memory};
        return {length, tables};
    }
};

/// X_k in long double, every term with its own sine and cosine.
std::complex<double> bin(const std::vector<double>& x, index k)
{
    const auto n = static_cast<index>(x.size());
    std::complex<long double> sum = 0;
    for (index t = 0; t < n; ++t) {
        const long double angle =
            -2 * std::numbers::pi_v<long double> * static_cast<long double>(t * k % n) / static_cast<long double>(n);
        sum +=
            static_cast<long double>(x[static_cast<std::size_t>(t)]) * std::complex<long double>(std::cos(angle), std::sin(angle));
    }
    return {static_cast<double>(sum.real()), static_cast<double>(sum.imag())};
}

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 5e-7 : 2e-15;

template <class T>
void round_trip(index length, index channels)
{
    INFO("length " << length << ", channels " << channels);
    random numbers(static_cast<std::uint64_t>(length) + 1);
    tensor<T, 2> x({channels, length}), back({channels, length});
    tensor<std::complex<T>, 2> spectra({channels, length / 2 + 1});
    x.fill(numbers, {-1, 1});
    transform<T> t(length);
    detail::forward_rows<arch>(t.fft, view<const T, 2>(x), spectra.view(), t.scratch.data());
    double error = 0, largest = 1e-300;
    for (index c = 0; c < channels; ++c) {
        std::vector<double> row;
        for (index i = 0; i < length; ++i) row.push_back(static_cast<double>(x(c, i)));
        const index step = length > 200 ? length / 16 : 1;  // of long ones, some bins
        for (index k = 0; length > 0 && k <= length / 2; k += step) {
            const std::complex<double> expected = bin(row, k);
            const std::complex<double> got(static_cast<double>(spectra(c, k).real()), static_cast<double>(spectra(c, k).imag()));
            error = std::max(error, std::abs(got - expected));
            largest = std::max(largest, std::abs(expected));
        }
        if (length > 0) CHECK(spectra(c, 0).imag() == T(0));
    }
    if (length > 0) CHECK(error / largest <= budget<T>);
    detail::inverse_rows<arch>(t.fft, view<const std::complex<T>, 2>(spectra), back.view(), t.scratch.data());
    CHECK(relative_error(back, x) <= 2 * budget<T>);
}

}  // namespace

TEMPLATE_TEST_CASE("real_fft: every length up to 130, and back", "", float, double)
{
    for (index n = 0; n <= 130; ++n) round_trip<TestType>(n, 1 + n % 19);
}

TEMPLATE_TEST_CASE("real_fft: long lengths, smooth and prime", "", float, double)
{
    for (const index n : {256, 1000, 1024, 1021, 1155, 2048, 4095, 4096, 4099, 6144, 10007, 14113, 16384, 20480}) {
        round_trip<TestType>(n, 2);
    }
}

TEMPLATE_TEST_CASE("real_fft: the inverse ignores the imaginary parts that a real sequence does not have", "", float, double)
{
    for (const index n : {1, 2, 7, 12, 31, 64}) {
        transform<TestType> t(n);
        tensor<std::complex<TestType>, 2> spectra({1, n / 2 + 1});
        tensor<TestType, 2> x({1, n}), y({1, n});
        random numbers(3);
        spectra.fill(numbers, {-1, 1});
        detail::inverse_rows<arch>(t.fft, view<const std::complex<TestType>, 2>(spectra), x.view(), t.scratch.data());
        spectra(0, 0).imag(7);
        if (n % 2 == 0) spectra(0, n / 2).imag(-5);
        detail::inverse_rows<arch>(t.fft, view<const std::complex<TestType>, 2>(spectra), y.view(), t.scratch.data());
        CHECK(same_bits(x, y));
    }
}

TEST_CASE("real_fft: lanes do not meet")
{
    const index n = 48, channels = detail::lanes<float, arch>;
    transform<float> t(n);
    tensor<float, 2> x({channels, n});
    tensor<std::complex<float>, 2> alone({channels, n / 2 + 1}), beside({channels, n / 2 + 1});
    random numbers(5);
    x.fill(numbers, {-1, 1});
    detail::forward_rows<arch>(t.fft, view<const float, 2>(x), alone.view(), t.scratch.data());
    for (index i = 0; i < n; ++i) x(channels - 1, i) = quiet_nan<float>();
    detail::forward_rows<arch>(t.fft, view<const float, 2>(x), beside.view(), t.scratch.data());
    CHECK(same_bits(alone.view().slice(0, 0, channels - 1), beside.view().slice(0, 0, channels - 1)));
}

}  // namespace ssmkit::testing
