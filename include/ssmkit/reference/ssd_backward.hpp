#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

#include <ssmkit/args/ssd_backward.hpp>
#include <ssmkit/reference/selective_scan_backward.hpp>
#include <ssmkit/reference/ssd.hpp>

namespace ssmkit::reference {

/// The gradients of ssd (args/ssd_backward.hpp) as their equations say it: the oracle of the tests. It keeps all states of a
/// channel, (length + 1) * state numbers.
template <class T>
void ssd_backward(const ssd_backward_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const ssd_args<T>& f = a.forward;
    const index nheads = f.u.extent(2), headdim = f.u.extent(3), state = f.B.extent(3);

    // What is summed over tokens, heads or channels starts at zero.
    parts::clear(a.dA);
    parts::clear(a.dB);
    parts::clear(a.dC);
    parts::clear(a.dD);
    parts::clear(a.ddelta_bias);

    for (index sequence = 0; sequence < ssd_sequence_count(f); ++sequence) {
        const index b = parts::ssd_batch(f, sequence);
        for (index head = 0; head < nheads; ++head) {
            const index group = head / (nheads / f.B.extent(2));
            const auto steps = parts::ssd_steps(f, sequence, head);
            const index length = static_cast<index>(steps.size());
            const real A = f.A[head];
            std::vector<real> dsteps(steps.size()), dA(steps.size());  // dΔ and Δ q, which all channels of the head add to

            for (index channel = 0; channel < headdim; ++channel) {
                std::vector<real> h = parts::ssd_initial_state(f, sequence, head, channel);
                std::vector<std::vector<real>> states{h};  // after step - 1, so that states[step] is what that step meets
                std::vector<real> ungated;
                parts::ssd_channel(f, steps, b, head, channel, 0, length, h, [&](index, real p) {
                    states.push_back(h);
                    ungated.push_back(p);
                });

                // The gradient of the state from everything that happens later.
                std::vector<real> gradient(h.size());
                if (a.dfinal_state.data()) {
                    for (std::size_t n = 0; n < h.size(); ++n) gradient[n] = a.dfinal_state(sequence, head, channel, n);
                }
                for (std::size_t step = steps.size(); step-- > 0;) {
                    const auto& s = steps[step];
                    real du = 0, dz = 0, dstep = 0, decayed = 0;
                    if (!s.padding) {
                        const real u = static_cast<real>(f.u(b, s.t, head, channel)), decay = std::exp(s.delta * A);
                        const real scale = f.prescaled ? real(1) : s.delta;
                        const real dy = static_cast<real>(a.dy(b, s.t, head, channel));
                        real dp = dy;
                        if (f.z.data()) {
                            const real z = static_cast<real>(f.z(b, s.t, head, channel));
                            dp = dy * parts::silu(z);
                            dz = dy * ungated[step] * parts::silu_derivative(z);
                        }
                        if (f.D.data()) du = f.D(head, channel) * dp;
                        if (a.dD.data()) a.dD(head, channel) += dp * u;
                        for (index n = 0; n < state; ++n) {
                            const auto i = static_cast<std::size_t>(n);
                            const real B = static_cast<real>(f.B(b, s.t, group, n));
                            const real C = static_cast<real>(f.C(b, s.t, group, n));
                            const real kept = s.first ? real(0) : decay * states[step][i];
                            const real G = dp * C + gradient[i];
                            du += scale * G * B;
                            if (!f.prescaled) dstep += G * u * B;
                            if (!s.first) {  // nothing is kept, and a G that is NaN does not meet it
                                dstep += A * G * kept;
                                decayed += s.delta * G * kept;
                            }
                            if (a.dB.data()) a.dB(b, s.t, group, n) += scale * u * G;
                            if (a.dC.data()) a.dC(b, s.t, group, n) += dp * states[step + 1][i];
                            gradient[i] = s.first ? real(0) : decay * G;
                        }
                    }
                    dsteps[step] += dstep;
                    dA[step] += decayed;
                    if (a.du.data()) a.du(b, s.t, head, channel) = static_cast<T>(du);
                    if (a.dz.data()) a.dz(b, s.t, head, channel) = static_cast<T>(dz);
                }
                if (a.dinitial_state.data()) {
                    for (std::size_t n = 0; n < h.size(); ++n) a.dinitial_state(sequence, head, channel, n) = gradient[n];
                }
            }

            for (std::size_t step = 0; step < steps.size(); ++step) {
                const auto& s = steps[step];
                const bool clamped = s.r < f.delta_min || s.r > f.delta_max;  // a NaN is not
                real ddelta = 0;
                if (!s.padding && !clamped && headdim * state > 0) {  // where there is a state that the step changes
                    ddelta = f.delta_softplus ? dsteps[step] * parts::softplus_derivative(s.raw) : dsteps[step];
                }
                if (a.ddelta.data()) a.ddelta(b, s.t, head) = static_cast<T>(ddelta);
                if (a.ddelta_bias.data()) a.ddelta_bias[head] += ddelta;
                if (a.dA.data()) a.dA[head] += dA[step];
            }
        }
    }
}

}  // namespace ssmkit::reference
