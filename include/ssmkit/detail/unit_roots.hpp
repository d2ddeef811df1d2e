#pragma once

#include <cmath>
#include <complex>
#include <cstddef>

#include <ssmkit/view.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit::detail {

/// exp(2πi j / n) for j = 0 ... n - 1, in double: a product of two table entries, accurate to 4e-16, at a twentieth of the cost
/// of a sine and a cosine. The tables, of about √n entries each, come from an arena; one without memory is only counted.
class unit_roots {
public:
    unit_roots(index n, arena& memory) : n_(n)
    {
        while ((index{1} << (2 * shift_)) < n) ++shift_;
        const index fine = index{1} << shift_, coarse = (n >> shift_) + 1;
        fine_ = memory.take<std::complex<double>>(static_cast<std::size_t>(fine));
        coarse_ = memory.take<std::complex<double>>(static_cast<std::size_t>(coarse));
        if (fine_ == nullptr) return;
        for (index j = 0; j < fine; ++j) fine_[j] = exact(j);
        for (index j = 0; j < coarse; ++j) coarse_[j] = exact(j << shift_);
    }

    std::complex<double> operator()(index j) const
    {
        const std::complex<double> a = coarse_[j >> shift_], b = fine_[j & ((index{1} << shift_) - 1)];
        return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
    }

private:
    /// By the nearest eighth of a turn, so that the angle that is rounded is small and a whole quarter gives 0 and 1 exactly.
    std::complex<double> exact(index j) const
    {
        const index eighths = (8 * j + n_ / 2) / n_;
        const double angle = static_cast<double>(8 * j - eighths * n_) / static_cast<double>(n_) * 0.78539816339744830962;
        constexpr double h = 0.70710678118654752440;
        constexpr double cosines[] = {1, h, 0, -h, -1, -h, 0, h};
        const double c = cosines[eighths % 8], s = cosines[(eighths + 6) % 8];
        const double x = std::cos(angle), y = std::sin(angle);
        return {x * c - y * s, y * c + x * s};
    }

    index n_;
    int shift_ = 0;
    std::complex<double>*fine_, *coarse_;
};

}  // namespace ssmkit::detail
