#pragma once

#include <cmath>

namespace ssmkit::reference::parts {

// The elementary functions of the reference operations, for float and double.

/// log(1 + e^x) up to x = 20, x beyond.
template <class Real>
Real softplus(Real x)
{
    return x > Real(20) ? x : std::log1p(std::exp(x));
}

/// 1 / (1 + e^-x); exp never sees a positive number.
template <class Real>
Real sigmoid(Real x)
{
    const Real e = std::exp(-std::abs(x));
    return (x < Real(0) ? e : Real(1)) / (Real(1) + e);
}

/// The derivative of softplus.
template <class Real>
Real softplus_derivative(Real x)
{
    return x > Real(20) ? Real(1) : sigmoid(x);
}

template <class Real>
Real silu(Real x)
{
    return x * sigmoid(x);
}

template <class Real>
Real silu_derivative(Real x)
{
    const Real s = sigmoid(x);
    return s * (Real(1) + x * (Real(1) - s));
}

}  // namespace ssmkit::reference::parts
