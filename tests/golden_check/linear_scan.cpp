#include <complex>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <ssmkit/linear_scan.hpp>
#include <ssmkit/linear_scan_backward.hpp>
#include <ssmkit/reference/linear_scan.hpp>
#include <ssmkit/reference/linear_scan_backward.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

template <class T>
void scan(const ssmkit::linear_scan_args<T>& a, problem& p)
{
    p.reference() ? ssmkit::reference::linear_scan(a) : ssmkit::linear_scan(a, p.execution());
}

template <class T>
void scan_backward(const ssmkit::linear_scan_backward_args<T>& a, problem& p)
{
    p.reference() ? ssmkit::reference::linear_scan_backward(a) : ssmkit::linear_scan_backward(a, p.execution());
}

// The files hold one sequence, (length, state). An initial state of (state) is the row of a batch of one.
const golden::handler diag_scan("diag_scan", []<class T>(golden::element<T>, problem& p) {
    using E = std::complex<ssmkit::compute_t<T>>;
    ssmkit::linear_scan_args<E> forward{
        .a = p.input<E>("a", new_axis, 0, 1),
        .b = p.input<E>("b", new_axis, 0, 1),
        .initial_state = p.input<E>("x0", new_axis, 0),
        .reverse = p.flag<bool>("reverse"),
        .h = p.output<E>("x", new_axis, 0, 1),
    };
    scan(forward, p);
    if (!p.has("d_b")) return;
    scan_backward(ssmkit::linear_scan_backward_args<E>{
                      .forward = forward,
                      .dh = p.input<E>("dout", new_axis, 0, 1),
                      .da = p.output<E>("d_a", new_axis, 0, 1),
                      .db = p.output<E>("d_b", new_axis, 0, 1),
                      .dinitial_state = p.output<E>("d_x0", new_axis, 0),
                  },
                  p);
});

/// S5 over episodes: one factor for all tokens, projections by plain loops around the scan.
///
///     b_t = B̄ u_t,  h_t = Λ̄ h_{t-1} + b_t or b_t where reset_t,  y_t = f Re(C h_t)      f = 2 with conjugate symmetry
const golden::handler s5_reset("s5_reset", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;
    using E = std::complex<R>;
    const auto factor = p.input<E>("Lambda_bar", 0);
    const auto B = p.input<E>("B_bar", 0, 1), C = p.input<E>("C", 0, 1);
    const auto u = p.input<R>("u", 0, 1), flags = p.input<R>("resets", new_axis, 0);
    const auto y = p.output<R>("y", 0, 1);
    const R f = p.flag<bool>("conj_sym") ? R(2) : R(1);
    const index length = u.extent(0), inputs = u.extent(1), state = factor.extent(0);

    const auto count = static_cast<std::size_t>(length * state);
    std::vector<E> b(count), h(count), dh(count), db(count);
    std::vector<std::uint8_t> reset(static_cast<std::size_t>(length));
    for (index t = 0; t < length; ++t) {
        reset[static_cast<std::size_t>(t)] = flags(0, t) != R(0);
        for (index n = 0; n < state; ++n) {
            for (index i = 0; i < inputs; ++i) b[static_cast<std::size_t>(t * state + n)] += B(n, i) * u(t, i);
        }
    }
    const ssmkit::linear_scan_args<E> forward{
        .a = ssmkit::constant_over_time(factor, 1, length),
        .b = {b, 1, length, state},
        .initial_state = p.input<E>("hidden", 0, 1),
        .reset = {reset, 1, length},
        .h = {h, 1, length, state},
        .final_state = p.output<E>("hidden_out", 0, 1),
    };
    scan(forward, p);
    const view<const E, 2> states(h, length, state);
    for (index t = 0; t < length; ++t) {
        for (index o = 0; o < y.extent(1); ++o) {
            y(t, o) = 0;
            for (index n = 0; n < state; ++n) y(t, o) += f * (C(o, n) * states(t, n)).real();
        }
    }
    if (!p.has("dout")) return;

    const auto dy = p.input<R>("dout", 0, 1);
    const auto dB = p.output<E>("d_B_bar", 0, 1), dC = p.output<E>("d_C", 0, 1);
    const auto du = p.output<R>("d_u", 0, 1);
    for (index t = 0; t < length; ++t) {
        for (index n = 0; n < state; ++n) {
            for (index o = 0; o < dy.extent(1); ++o) dh[static_cast<std::size_t>(t * state + n)] += f * dy(t, o) * std::conj(C(o, n));
        }
    }
    scan_backward(ssmkit::linear_scan_backward_args<E>{
                      .forward = forward,
                      .dh = {dh, 1, length, state},
                      .da = ssmkit::summed_over_time(p.output<E>("d_Lambda_bar", 0), 1, length),
                      .db = {db, 1, length, state},
                      .dinitial_state = p.output<E>("d_hidden", 0, 1),
                  },
                  p);
    const view<const E, 2> s(db, length, state);
    for (index n = 0; n < state; ++n) {
        for (index i = 0; i < inputs; ++i) {
            dB(n, i) = E(0);
            for (index t = 0; t < length; ++t) dB(n, i) += s(t, n) * u(t, i);
        }
        for (index o = 0; o < dC.extent(0); ++o) {
            dC(o, n) = E(0);
            for (index t = 0; t < length; ++t) dC(o, n) += f * dy(t, o) * std::conj(states(t, n));
        }
    }
    for (index t = 0; t < length; ++t) {
        for (index i = 0; i < inputs; ++i) {
            du(t, i) = 0;
            for (index n = 0; n < state; ++n) du(t, i) += (std::conj(B(n, i)) * s(t, n)).real();
        }
    }
});

}  // namespace
