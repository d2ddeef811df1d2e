#pragma once

#include <array>
#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/reference/selective_scan.hpp>

namespace ssmkit::reference {

namespace parts {

/// conj and the real part for real numbers too, where std::conj would turn them into complex ones.
template <class Param>
Param conjugate(const Param& x)
{
    if constexpr (ssmkit::detail::is_complex<Param>) {
        return std::conj(x);
    } else {
        return x;
    }
}

template <class Param>
auto real_part(const Param& x)
{
    if constexpr (ssmkit::detail::is_complex<Param>) {
        return x.real();
    } else {
        return x;
    }
}

template <class T, std::size_t Rank, class F>
void for_each_element(const view<T, Rank>& v, F&& f)
{
    for (index i = 0; i < v.extent(0); ++i) {
        if constexpr (Rank > 1) {
            for_each_element(v[i], f);
        } else {
            f(v[i]);
        }
    }
}

/// Zeros, also the one element of an axis that is summed over where there is nothing to sum.
template <class T, std::size_t Rank>
void clear(const view<T, Rank>& v)
{
    if (v.data() == nullptr) return;
    std::array<index, Rank> extents;
    for (std::size_t axis = 0; axis < Rank; ++axis) extents[axis] = v.stride(axis) == 0 ? 1 : v.extent(axis);
    for_each_element(view<T, Rank>(v.data(), extents, v.strides()), [](T& x) { x = T(0); });
}

}  // namespace parts

/// The gradients of the selective scan (args/selective_scan_backward.hpp) as their equations say it: the oracle of the
/// tests. It keeps all states of a channel, (length + 1) * state numbers.
template <class T, class Param>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a)
{
    check(a);
    using real = compute_t<T>;
    using parts::conjugate;
    using parts::real_part;
    constexpr real m = ssmkit::detail::is_complex<Param> ? 2 : 1;
    const selective_scan_args<T, Param>& f = a.forward;
    const index length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(1);

    // What is summed over tokens or channels starts at zero.
    parts::clear(a.dA);
    parts::clear(a.dB);
    parts::clear(a.dC);
    parts::clear(a.dD);
    parts::clear(a.ddelta_bias);

    std::vector<Param> states(static_cast<std::size_t>((length + 1) * state));
    std::vector<Param> gradient(static_cast<std::size_t>(state));
    std::vector<real> ungated(static_cast<std::size_t>(length));
    const auto state_after = [&](index step, index n) -> Param& {
        return states[static_cast<std::size_t>(step * state + n)];
    };
    for (index b = 0; b < f.u.extent(0); ++b) {
        for (index c = 0; c < dim; ++c) {
            const index group_of_B = c / (dim / f.B.extent(2)), group_of_C = c / (dim / f.C.extent(2));
            parts::selective_scan_channel(
                f, b, c,
                [&](index step, const std::vector<Param>& h) {
                    for (index n = 0; n < state; ++n) state_after(step, n) = h[static_cast<std::size_t>(n)];
                },
                [&](index step, index, real p) { ungated[static_cast<std::size_t>(step)] = p; });

            // gradient holds K of the equations: what reaches the state after `step` tokens from later than that.
            index unread = a.dsnapshots.data() ? f.snapshot_after.extent(1) : 0;
            const auto add_snapshots = [&](index step) {
                for (; unread > 0 && f.snapshot_after(b, unread - 1) == step; --unread) {
                    for (index n = 0; n < state; ++n) {
                        gradient[static_cast<std::size_t>(n)] += a.dsnapshots(b, unread - 1, c, n);
                    }
                }
            };
            for (index n = 0; n < state; ++n) {
                gradient[static_cast<std::size_t>(n)] = a.dfinal_state.data() ? a.dfinal_state(b, c, n) : Param(0);
            }
            add_snapshots(length);

            for (index step = length; step-- > 0;) {
                const index t = parts::selective_scan_position(f, step);
                const real u = static_cast<real>(f.u(b, t, c)), dy = static_cast<real>(a.dy(b, t, c));
                const parts::step_size<real> delta = parts::selective_scan_step_size(f, b, t, c);
                const bool reset = f.reset.data() && f.reset(b, t) != 0;
                real dp = dy;
                if (f.z.data()) {
                    const real z = static_cast<real>(f.z(b, t, c)), p = ungated[static_cast<std::size_t>(step)];
                    dp = dy * parts::silu(z);
                    if (a.dz.data()) a.dz(b, t, c) = static_cast<T>(dy * p * parts::silu_derivative(z));
                }
                real du = f.D.data() ? f.D[c] * dp : real(0), ddelta = 0;
                for (index n = 0; n < state; ++n) {
                    const Param A = f.A(c, n), decay = std::exp(delta.value * A);
                    const Param B = static_cast<Param>(f.B(b, t, group_of_B, n));
                    const Param C = static_cast<Param>(f.C(b, t, group_of_C, n));
                    const Param kept = decay * (reset ? Param(0) : state_after(step, n));
                    Param& G = gradient[static_cast<std::size_t>(n)];
                    G += m * dp * conjugate(C);
                    du += delta.value * real_part(G * conjugate(B));
                    ddelta += real_part(G * conjugate(A * kept + B * u));
                    if (a.dA.data()) a.dA(c, n) += delta.value * G * conjugate(kept);
                    if (a.dB.data()) a.dB(b, t, group_of_B, n) += delta.value * u * G;
                    if (a.dC.data()) a.dC(b, t, group_of_C, n) += m * dp * conjugate(state_after(step + 1, n));
                    G = reset ? Param(0) : conjugate(decay) * G;
                }
                if (f.delta_softplus) ddelta *= parts::softplus_derivative(delta.raw);
                if (a.du.data()) a.du(b, t, c) = static_cast<T>(du);
                if (a.ddelta.data()) a.ddelta(b, t, c) = static_cast<T>(ddelta);
                if (a.dD.data()) a.dD[c] += dp * u;
                if (a.ddelta_bias.data()) a.ddelta_bias[c] += ddelta;
                add_snapshots(step);
            }
            if (a.dinitial_state.data()) {
                for (index n = 0; n < state; ++n) a.dinitial_state(b, c, n) = gradient[static_cast<std::size_t>(n)];
            }
        }
    }
}

}  // namespace ssmkit::reference
