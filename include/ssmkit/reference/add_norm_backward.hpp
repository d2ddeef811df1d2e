#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/args/add_norm_backward.hpp>
#include <ssmkit/reference/norm.hpp>

namespace ssmkit::reference {

/// The gradients of add_norm as their equations say them (args/add_norm_backward.hpp): the oracle of the tests.
template <class T, class Residual>
void add_norm_backward(const add_norm_backward_args<T, Residual>& a)
{
    check(a);
    using real = compute_t<T>;
    const index dim = a.residual_out.extent(2);
    for (index c = 0; c < a.dweight.extent(0); ++c) a.dweight[c] = real(0);
    for (index c = 0; c < a.dbias.extent(0); ++c) a.dbias[c] = real(0);
    for (index b = 0; b < a.residual_out.extent(0); ++b) {
        for (index t = 0; t < a.residual_out.extent(1); ++t) {
            std::vector<real> v, w;
            for (index c = 0; c < dim; ++c) v.push_back(static_cast<real>(a.residual_out(b, t, c)));
            const parts::normalised<real> n(std::move(v), a.eps, a.layer);
            for (index c = 0; c < dim; ++c) {
                const real dy = static_cast<real>(a.dy(b, t, c));
                if (a.dweight.data()) a.dweight[c] += dy * n.value[static_cast<std::size_t>(c)];
                if (a.dbias.data()) a.dbias[c] += dy;
                w.push_back(dy * a.weight[c]);
            }
            const std::vector<real> dv = n.backward(w);
            for (index c = 0; c < dim; ++c) {
                const real passed_on = a.dresidual_out.data() ? static_cast<real>(a.dresidual_out(b, t, c)) : real(0);
                const real g = dv[static_cast<std::size_t>(c)] + passed_on;
                if (a.dx.data()) a.dx(b, t, c) = static_cast<T>(g);
                if (a.dresidual.data()) a.dresidual(b, t, c) = static_cast<Residual>(g);
            }
        }
    }
}

}  // namespace ssmkit::reference
