#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/args/gated_norm.hpp>
#include <ssmkit/reference/norm.hpp>
#include <ssmkit/reference/scalar.hpp>

namespace ssmkit::reference {

namespace parts {

/// Calls f(b, t, first, n) with every group of every token: its first channel and its values, normalised.
template <class T, class F>
void for_each_normalised_group(const gated_norm_args<T>& a, F&& f)
{
    using real = compute_t<T>;
    const index dim = a.x.extent(2), size = a.group_size ? a.group_size : dim;
    const bool gate_first = a.z.data() && !a.norm_before_gate;
    for (index b = 0; b < a.x.extent(0); ++b) {
        for (index t = 0; t < a.x.extent(1); ++t) {
            for (index first = 0; first < dim; first += size) {
                std::vector<real> v;
                for (index c = first; c < first + size; ++c) {
                    const real x = static_cast<real>(a.x(b, t, c));
                    v.push_back(gate_first ? x * silu(static_cast<real>(a.z(b, t, c))) : x);
                }
                f(b, t, first, normalised<real>(std::move(v), a.eps, a.layer));
            }
        }
    }
}

}  // namespace parts

/// The gated norm as its equations say it (args/gated_norm.hpp): the oracle of the tests.
template <class T>
void gated_norm(const gated_norm_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const bool gate_last = a.z.data() && a.norm_before_gate;
    parts::for_each_normalised_group(a, [&](index b, index t, index first, const parts::normalised<real>& n) {
        for (std::size_t i = 0; i < n.value.size(); ++i) {
            const index c = first + static_cast<index>(i);
            const real y = n.value[i] * a.weight[c] + (a.bias.data() ? a.bias[c] : real(0));
            a.y(b, t, c) = static_cast<T>(gate_last ? y * parts::silu(static_cast<real>(a.z(b, t, c))) : y);
        }
    });
}

}  // namespace ssmkit::reference
