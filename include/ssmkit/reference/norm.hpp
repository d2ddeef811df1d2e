#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <ssmkit/view.hpp>

namespace ssmkit::reference::parts {

/// The power of 2 that brings m near 1; 1 where there is none.
template <class Real>
Real power_of_2_to_scale(Real m)
{
    constexpr int largest = std::numeric_limits<Real>::max_exponent - 2;
    if (!(m > Real(0)) || std::isinf(m)) return Real(1);
    return std::ldexp(Real(1), -std::clamp(std::ilogb(m), -largest, largest));
}

/// RMSNorm or LayerNorm of one group of channels, forward and backward (args/gated_norm.hpp and its backward).
///
/// r² = 1 / (mean(v²) + eps) is s² / (mean((s v)²) + eps s²) for any s. The power of 2 that brings the larger of |v|
/// and sqrt(eps) near 1 keeps everything in range and changes no rounding.
template <class Real>
class normalised {
public:
    normalised(std::vector<Real> v, Real eps, bool layer) : value(std::move(v)), layer_(layer)
    {
        Real largest = std::sqrt(eps);
        for (const Real x : value) largest = std::max(largest, std::abs(x));
        scale_ = power_of_2_to_scale(largest);
        for (Real& x : value) x *= scale_;
        if (layer) {
            const Real m = mean(value);
            for (Real& x : value) x -= m;
        }
        std::vector<Real> squares;
        for (const Real x : value) squares.push_back(x * x);
        r_ = Real(1) / std::sqrt(mean(squares) + eps * scale_ * scale_);
        for (Real& x : value) x *= r_;
    }

    /// The gradient of v for the gradient of the normalised value.
    std::vector<Real> backward(const std::vector<Real>& w) const
    {
        std::vector<Real> products, dv;
        for (std::size_t i = 0; i < w.size(); ++i) products.push_back(value[i] * w[i]);
        const Real along = mean(products), across = layer_ ? mean(w) : Real(0);
        for (std::size_t i = 0; i < w.size(); ++i) dv.push_back(scale_ * (r_ * (w[i] - value[i] * along - across)));
        return dv;
    }

    std::vector<Real> value;  ///< (group_size) the normalised values

private:
    static Real mean(const std::vector<Real>& v)
    {
        double sum = 0;
        for (const Real x : v) sum += static_cast<double>(x);
        return static_cast<Real>(sum / static_cast<double>(v.size()));
    }

    bool layer_;
    Real scale_, r_;
};

}  // namespace ssmkit::reference::parts
