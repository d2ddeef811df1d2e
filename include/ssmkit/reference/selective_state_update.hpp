#pragma once

#include <cmath>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/reference/scalar.hpp>

namespace ssmkit::reference {

/// The decoding step (args/selective_state_update.hpp) as its equations say it: the oracle of the tests, for any
/// strides and options, in compute_t<T> throughout.
template <class T>
void selective_state_update(const selective_state_update_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const index nheads = a.u.extent(1), headdim = a.u.extent(2), ngroups = a.B.extent(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        const index entry = a.state_batch_indices.data() ? a.state_batch_indices[b] : b;
        for (index head = 0; head < nheads; ++head) {
            for (index c = 0; c < headdim; ++c) {
                if (entry < 0) {  // padding
                    a.y(b, head, c) = static_cast<T>(real(0));
                    continue;
                }
                const index group = nheads == 1 ? c / (headdim / ngroups) : head / (nheads / ngroups);
                const real u = static_cast<real>(a.u(b, head, c));
                real delta = static_cast<real>(a.delta(b, head, c));
                if (a.delta_bias.data()) delta += a.delta_bias(head, c);
                if (a.delta_softplus) delta = parts::softplus(delta);
                real y = 0;
                for (index n = 0; n < a.h.extent(3); ++n) {
                    real& h = a.h(entry, head, c, n);
                    h = std::exp(delta * a.A(head, c, n)) * h + delta * u * static_cast<real>(a.B(b, group, n));
                    y += static_cast<real>(a.C(b, group, n)) * h;
                }
                if (a.D.data()) y += a.D(head, c) * u;
                if (a.z.data()) y *= parts::silu(static_cast<real>(a.z(b, head, c)));
                a.y(b, head, c) = static_cast<T>(y);
            }
        }
    }
}

}  // namespace ssmkit::reference
