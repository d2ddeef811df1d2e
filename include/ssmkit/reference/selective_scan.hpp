#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/reference/scalar.hpp>

namespace ssmkit::reference {

namespace parts {

/// The position that is visited at a step.
template <class T, class Param>
index selective_scan_position(const selective_scan_args<T, Param>& a, index step)
{
    const index i = a.reverse ? a.u.extent(1) - 1 - step : step;
    return a.order.data() ? a.order[i] : i;
}

/// What the raw step size of a token becomes before and after softplus.
template <class Real>
struct step_size {
    Real raw, value;
};

template <class T, class Param>
step_size<compute_t<T>> selective_scan_step_size(const selective_scan_args<T, Param>& a, index b, index t, index c)
{
    using real = compute_t<T>;
    const real raw = static_cast<real>(a.delta(b, t, c)) + (a.delta_bias.data() ? a.delta_bias[c] : real(0));
    return {raw, a.delta_softplus ? softplus(raw) : raw};
}

/// Runs one channel and calls `visit(step, h)` with the state after `step` tokens for step = 0 ... length, and
/// `token(step, t, p)` with the position and the output before the gate in between.
template <class T, class Param, class Visit, class Token>
void selective_scan_channel(const selective_scan_args<T, Param>& a, index b, index c, Visit&& visit, Token&& token)
{
    using real = compute_t<T>;
    const index length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(1);
    const index group_of_B = c / (dim / a.B.extent(2)), group_of_C = c / (dim / a.C.extent(2));
    std::vector<Param> h(static_cast<std::size_t>(state));
    for (index n = 0; n < state; ++n) {
        h[static_cast<std::size_t>(n)] = a.initial_state.data() ? a.initial_state(b, c, n) : Param(0);
    }
    visit(index{0}, h);
    for (index step = 0; step < length; ++step) {
        const index t = selective_scan_position(a, step);
        const real u = static_cast<real>(a.u(b, t, c));
        const real delta = selective_scan_step_size(a, b, t, c).value;
        const bool reset = a.reset.data() && a.reset(b, t) != 0;
        Param y(0);
        for (index n = 0; n < state; ++n) {
            Param& h_n = h[static_cast<std::size_t>(n)];
            if (reset) h_n = Param(0);
            h_n = std::exp(delta * a.A(c, n)) * h_n + delta * u * static_cast<Param>(a.B(b, t, group_of_B, n));
            y += static_cast<Param>(a.C(b, t, group_of_C, n)) * h_n;
        }
        real p;
        if constexpr (ssmkit::detail::is_complex<Param>) {
            p = real(2) * y.real();
        } else {
            p = y;
        }
        if (a.D.data()) p += a.D[c] * u;
        token(step, t, p);
        visit(step + 1, h);
    }
}

}  // namespace parts

/// The selective scan (args/selective_scan.hpp) as its equations say it: the oracle of the tests, for any strides and
/// options, in compute_t<T> throughout.
template <class T, class Param>
void selective_scan(const selective_scan_args<T, Param>& a)
{
    check(a);
    using real = compute_t<T>;
    const index length = a.u.extent(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        for (index c = 0; c < a.u.extent(2); ++c) {
            index emitted = 0;
            parts::selective_scan_channel(
                a, b, c,
                [&](index step, const std::vector<Param>& h) {
                    for (; emitted < a.snapshot_after.extent(1) && a.snapshot_after(b, emitted) == step; ++emitted) {
                        for (std::size_t n = 0; n < h.size(); ++n) a.snapshots(b, emitted, c, n) = h[n];
                    }
                    if (step == length && a.final_state.data()) {
                        for (std::size_t n = 0; n < h.size(); ++n) a.final_state(b, c, n) = h[n];
                    }
                },
                [&](index, index t, real p) {
                    if (a.y_ungated.data()) a.y_ungated(b, t, c) = static_cast<T>(p);
                    a.y(b, t, c) = static_cast<T>(a.z.data() ? p * parts::silu(static_cast<real>(a.z(b, t, c))) : p);
                });
        }
    }
}

}  // namespace ssmkit::reference
