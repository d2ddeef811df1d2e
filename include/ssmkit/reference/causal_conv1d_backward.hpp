#pragma once

#include <cmath>
#include <vector>

#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>

namespace ssmkit::reference {

namespace parts {

template <class Real>
Real causal_conv1d_silu_derivative(Real x)
{
    const Real e = std::exp(-std::abs(x));
    const Real sigmoid = (x < Real(0) ? e : Real(1)) / (Real(1) + e);
    return sigmoid * (Real(1) + x * (Real(1) - sigmoid));
}

}  // namespace parts

/// The gradients of the causal convolution as their equations say it (args/causal_conv1d_backward.hpp): the oracle of the
/// tests. It keeps the gradient of one channel's X, width - 1 + length numbers.
template <class T>
void causal_conv1d_backward(const causal_conv1d_backward_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), width = f.weight.extent(1);
    const parts::causal_conv1d_input<T> input(f);
    const view<const T, 3> dy = ssmkit::detail::as_visited(a.dy, f.reverse);
    const view<T, 3> dx = ssmkit::detail::as_visited(a.dx, f.reverse);
    std::vector<real> dX(static_cast<std::size_t>(width - 1 + length)), dweight(static_cast<std::size_t>(width));
    const auto at = [](std::vector<real>& v, index i) -> real& { return v[static_cast<std::size_t>(i)]; };
    for (index c = 0; c < f.x.extent(2); ++c) {
        dweight.assign(dweight.size(), real(0));
        real dbias = 0;
        for (index b = 0; b < f.x.extent(0); ++b) {
            dX.assign(dX.size(), real(0));
            for (index t = 0; t < length; ++t) {
                const std::int32_t sequence = input.sequence(b, t);
                if (sequence < 0) continue;
                real e = static_cast<real>(dy(b, t, c));
                if (f.silu) e *= parts::causal_conv1d_silu_derivative(parts::causal_conv1d_sum(f, input, b, t, c));
                dbias += e;
                for (index j = 0; j < width; ++j) {
                    const index from = t + j - (width - 1);
                    if (input.sequence(b, from) != sequence) continue;
                    at(dweight, j) += e * static_cast<real>(input(b, from, c));
                    at(dX, t + j) += e * f.weight(c, j);
                }
            }
            if (a.dfinal_states.data() != nullptr) {
                const index n = f.seq_idx.data() ? ssmkit::detail::unpadded_length(input.seq_idx[b], length) : length;
                for (index j = 0; j < width - 1; ++j) {
                    const bool held = n == 0 || input.sequence(b, n + j - (width - 1)) == input.sequence(b, n - 1);
                    if (held) at(dX, n + j) += static_cast<real>(a.dfinal_states(b, c, j));
                }
            }
            for (index j = 0; j < width - 1 && a.dinitial_states.data() != nullptr; ++j) {
                a.dinitial_states(b, c, j) = static_cast<T>(at(dX, j));
            }
            for (index t = 0; t < length && dx.data() != nullptr; ++t) {
                dx(b, t, c) = static_cast<T>(at(dX, width - 1 + t));
            }
        }
        for (index j = 0; j < width && a.dweight.data() != nullptr; ++j) a.dweight(c, j) = at(dweight, j);
        if (a.dbias.data() != nullptr) a.dbias[c] = dbias;
    }
}

}  // namespace ssmkit::reference
