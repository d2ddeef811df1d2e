#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/args/add_norm.hpp>
#include <ssmkit/reference/norm.hpp>

namespace ssmkit::reference {

/// Residual and norm as their equations say it (args/add_norm.hpp): the oracle of the tests.
template <class T, class Residual>
void add_norm(const add_norm_args<T, Residual>& a)
{
    check(a);
    using real = compute_t<T>;
    for (index b = 0; b < a.x.extent(0); ++b) {
        for (index t = 0; t < a.x.extent(1); ++t) {
            std::vector<real> v;
            for (index c = 0; c < a.x.extent(2); ++c) {
                const real residual = a.residual.data() ? static_cast<real>(a.residual(b, t, c)) : real(0);
                const auto sum = static_cast<Residual>(static_cast<real>(a.x(b, t, c)) + residual);
                if (a.residual_out.data()) a.residual_out(b, t, c) = sum;
                v.push_back(static_cast<real>(sum));
            }
            const parts::normalised<real> n(std::move(v), a.eps, a.layer);
            for (index c = 0; c < a.x.extent(2); ++c) {
                const real bias = a.bias.data() ? a.bias[c] : real(0);
                a.y(b, t, c) = static_cast<T>(n.value[static_cast<std::size_t>(c)] * a.weight[c] + bias);
            }
        }
    }
}

}  // namespace ssmkit::reference
