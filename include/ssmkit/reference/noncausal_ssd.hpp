#pragma once

#include <cstddef>
#include <vector>

#include <ssmkit/args/noncausal_ssd.hpp>
#include <ssmkit/reference/scalar.hpp>
#include <ssmkit/reference/ssd.hpp>

namespace ssmkit::reference {

/// noncausal_ssd (args/noncausal_ssd.hpp) as its equations say it: the oracle of the tests, for any strides and options, in
/// compute_t<T> throughout.
template <class T>
void noncausal_ssd(const noncausal_ssd_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const ssd_args<T> as_ssd = ssmkit::detail::noncausal_ssd_as_ssd(a);
    const index nheads = a.u.extent(2), headdim = a.u.extent(3), state = a.B.extent(3);
    for (index sequence = 0; sequence < ssd_sequence_count(as_ssd); ++sequence) {
        const index b = parts::ssd_batch(as_ssd, sequence);
        for (index head = 0; head < nheads; ++head) {
            const index group = head / (nheads / a.B.extent(2));
            const auto steps = parts::ssd_steps(as_ssd, sequence, head);
            for (index c = 0; c < headdim; ++c) {
                std::vector<real> h = parts::ssd_initial_state(as_ssd, sequence, head, c);
                for (const auto& s : steps) {
                    const real input = s.delta * static_cast<real>(a.u(b, s.t, head, c));
                    for (index n = 0; n < state; ++n) {
                        h[static_cast<std::size_t>(n)] += input * static_cast<real>(a.B(b, s.t, group, n));
                    }
                }
                for (const auto& s : steps) {
                    real y = 0;
                    for (index n = 0; n < state; ++n) {
                        y += h[static_cast<std::size_t>(n)] * static_cast<real>(a.C(b, s.t, group, n));
                    }
                    if (a.D.data()) y += a.D(head, c) * static_cast<real>(a.u(b, s.t, head, c));
                    if (a.z.data()) y *= parts::silu(static_cast<real>(a.z(b, s.t, head, c)));
                    a.y(b, s.t, head, c) = static_cast<T>(y);
                }
                for (index n = 0; a.final_state.data() && n < state; ++n) {
                    a.final_state(sequence, head, c, n) = h[static_cast<std::size_t>(n)];
                }
            }
        }
    }
}

}  // namespace ssmkit::reference
