#pragma once

// From parameters of diagonal models as the files store them, transformed and in real and imaginary parts, to what the library
// takes, and gradients back.

#include <complex>
#include <cstddef>
#include <string>
#include <vector>

#include <ssmkit/parameters.hpp>

#include "golden.hpp"

namespace golden {

/// p = sign T(θ) for every θ of a tensor, row by row.
inline std::vector<double> transformed(const view<const double, 2>& stored, ssmkit::positive_transform transform, double sign)
{
    std::vector<double> values;
    for (index i = 0; i < stored.extent(0); ++i) {
        for (index k = 0; k < stored.extent(1); ++k) values.push_back(sign * ssmkit::to_positive(transform, stored(i, k)));
    }
    return values;
}

/// The way back: dℒ/dθ = sign T'(θ) dℒ/dp; `gradient(i, k)` is that of p.
template <class F>
void store_transformed(const view<double, 2>& to, const view<const double, 2>& stored, ssmkit::positive_transform transform,
                       double sign, F&& gradient)
{
    for (index i = 0; i < to.extent(0); ++i) {
        for (index k = 0; k < to.extent(1); ++k) {
            to(i, k) = sign * ssmkit::to_positive_derivative(transform, stored(i, k)) * gradient(i, k);
        }
    }
}

/// A complex tensor, or a real one that is to be taken as complex.
template <class E, std::size_t Rank>
class complex_tensor {
public:
    using real = typename E::value_type;

    template <class... Axes>
    view<const E, Rank> input(problem& p, const std::string& name, bool is_real, Axes... axes)
    {
        if (!is_real) return p.input<E>(name, axes...);
        return widen(p.input<real>(name, axes...));
    }

    /// Memory for a result; of a real tensor, store() takes the real parts.
    template <class... Axes>
    view<E, Rank> output(problem& p, const std::string& name, bool is_real, Axes... axes)
    {
        if (!is_real) return p.output<E>(name, axes...);
        to_ = p.output<real>(name, axes...);
        return widen(view<const real, Rank>(to_));
    }

    void store()
    {
        index i = 0;
        for_each(to_, [&](real& x) { x = values_[static_cast<std::size_t>(i++)].real(); });
    }

private:
    template <class X, std::size_t R, class F>
    static void for_each(const view<X, R>& v, F&& f)
    {
        for (index i = 0; v.data() && i < v.extent(0); ++i) {
            if constexpr (R == 1) f(v[i]);
            else for_each(v[i], f);
        }
    }

    view<E, Rank> widen(const view<const real, Rank>& from)
    {
        if (!from.data()) return {};
        for_each(from, [&](const real& x) { values_.emplace_back(x); });
        return {values_.data(), from.extents()};
    }

    std::vector<E> values_;
    view<real, Rank> to_;
};

}  // namespace golden
