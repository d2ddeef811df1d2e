#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/args/gated_norm_backward.hpp>
#include <ssmkit/reference/gated_norm.hpp>

namespace ssmkit::reference {

/// The gradients of the gated norm as their equations say them (args/gated_norm_backward.hpp): the oracle of the tests.
template <class T>
void gated_norm_backward(const gated_norm_backward_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const gated_norm_args<T>& f = a.forward;
    const bool gated = f.z.data() != nullptr;
    for (index c = 0; c < a.dweight.extent(0); ++c) a.dweight[c] = real(0);
    for (index c = 0; c < a.dbias.extent(0); ++c) a.dbias[c] = real(0);
    parts::for_each_normalised_group(f, [&](index b, index t, index first, const parts::normalised<real>& n) {
        std::vector<real> w;
        for (std::size_t i = 0; i < n.value.size(); ++i) {
            const index c = first + static_cast<index>(i);
            const real dy = static_cast<real>(a.dy(b, t, c)), z = gated ? static_cast<real>(f.z(b, t, c)) : real(0);
            const real d = gated && f.norm_before_gate ? dy * parts::silu(z) : dy;
            if (a.dweight.data()) a.dweight[c] += d * n.value[i];
            if (a.dbias.data()) a.dbias[c] += d;
            if (a.dz.data() && f.norm_before_gate) {
                const real y = n.value[i] * f.weight[c] + (f.bias.data() ? f.bias[c] : real(0));
                a.dz(b, t, c) = static_cast<T>(dy * y * parts::silu_derivative(z));
            }
            w.push_back(d * f.weight[c]);
        }
        const std::vector<real> dv = n.backward(w);
        for (std::size_t i = 0; i < n.value.size(); ++i) {
            const index c = first + static_cast<index>(i);
            const real x = static_cast<real>(f.x(b, t, c)), z = gated ? static_cast<real>(f.z(b, t, c)) : real(0);
            const bool gate_first = gated && !f.norm_before_gate;
            if (a.dx.data()) a.dx(b, t, c) = static_cast<T>(gate_first ? dv[i] * parts::silu(z) : dv[i]);
            if (a.dz.data() && gate_first) a.dz(b, t, c) = static_cast<T>(dv[i] * x * parts::silu_derivative(z));
        }
    });
}

}  // namespace ssmkit::reference
