#pragma once

#include <algorithm>
#include <complex>
#include <cstdint>
#include <type_traits>

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/check.hpp>
#include <ssmkit/discretize.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// S5: one diagonal complex state space model with several inputs and outputs, its projections included.
///
///     h_t = Ā h_{t-1} + B̄ u_t                          Smith et al., "Simplified State Space Layers", arXiv:2208.04933,
///     y_t = f Re(C h_t) + D u_t                        section 3; f = 2 where h holds one of each conjugate pair
///
/// Ā and B̄ are A and B by zero-order hold or another method over a step delta, one for every state; where delta is empty, A and
/// B are discrete already: so run LRU and blocks of a stream. With an interval for every token, the time since the event
/// before in units of delta, Ā_t and the gain of B follow it (Event-SSM, arXiv:2404.18508). bidirectional: a second scan runs
/// from last to first and C has its columns behind those of the first; both contain B̄ u_t. liquid: Ā + B̄ u_t takes the place
/// of Ā (Liquid-S4, arXiv:2209.12951, eq. 4). Where reset_t, what came before, initial_state included, does not matter.
///
/// T is how u and y are stored: float, double, bfloat16 or float16. Parameters and the state are compute_t<T>. Any strides are
/// legal. y may be u, element for element, unless bidirectional. final_state may be initial_state. A sequence may be cut
/// anywhere: final_state of one piece is initial_state of the next.
template <class T>
struct s5_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const complex, 1> A{};              ///< (state)               rates, 1 / time, Re A < 0 if stable; without delta: Ā
    view<const real, 1> delta{};             ///< (state)               step sizes; optional: A and B are discrete
    view<const real, 2> interval{};          ///< (batch, length)       in units of delta; optional: 1. Only with delta
    view<const complex, 2> B{};              ///< (state, dim)          without delta: B̄
    view<const complex, 2> C{};              ///< (out, state)          bidirectional: (out, 2 state)
    view<const real, 1> D{};                 ///< (dim)                 optional: no skip; given, out is dim
    view<const T, 3> u{};                    ///< (batch, length, dim)  input
    view<const complex, 2> initial_state{};  ///< (batch, state)        optional: zero; bidirectional: (batch, 2 state)
    view<const std::uint8_t, 2> reset{};     ///< (batch, length)       optional; non-zero: a sequence begins at this token
    discretization method = discretization::zoh;
    bool conjugate_pairs = true;  ///< state counts pairs, f = 2; otherwise f = 1
    bool clip_eigs = false;       ///< Re A above -1e-4 counts as -1e-4 and has no gradient; only with delta
    bool reverse = false;         ///< visit the tokens from last to first; the first visited is where a sequence begins
    bool bidirectional = false;   ///< both ways; reset then tells the first tokens in the order of time
    bool liquid = false;
    view<T, 3> y{};                  ///< (batch, length, out)  output
    view<complex, 2> final_state{};  ///< (batch, state)        state after the last token visited; optional
};

namespace detail {

/// What A says once it is clipped.
template <class T>
std::complex<double> s5_rate(const s5_args<T>& a, index n)
{
    const std::complex<double> A(a.A[n]);
    return a.clip_eigs ? std::complex<double>(A.real() > -1e-4 ? -1e-4 : A.real(), A.imag()) : A;
}

/// Pole and gain of a state. In double: the pole is raised to the power of every token that is remembered.
template <class T>
discrete<std::complex<double>> s5_system(const s5_args<T>& a, index n, double interval = 1)
{
    if (a.delta.data() == nullptr) return {s5_rate(a, n), 1.0};
    return discretize(s5_rate(a, n), static_cast<double>(a.delta[n]), a.method, interval);
}

/// True if a sequence begins at token t for a scan that runs backwards or not.
template <class T>
bool s5_begins(const s5_args<T>& a, index b, index t, bool backwards)
{
    if (a.reset.data() == nullptr) return false;
    if (!(a.bidirectional && backwards)) return a.reset(b, t) != 0;
    return t + 1 < a.reset.extent(1) && a.reset(b, t + 1) != 0;  // the last token of a sequence is where that scan begins
}

/// The scans of a call: forwards, backwards or both.
template <class T>
index s5_scans(const s5_args<T>& a)
{
    return a.bidirectional ? 2 : 1;
}

/// The arguments that forward and backward share.
template <class T>
void check_s5(const char* op, const s5_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    const axis state{"state", a.A.extent(0)}, states{a.bidirectional ? "2 state" : "state", s5_scans(a) * a.A.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "A", a.A, {{"state"}});
    require_shape_if_given(op, "delta", a.delta, {state});
    require_shape_if_given(op, "interval", a.interval, {batch, length});
    require(a.interval.data() == nullptr || a.delta.data() != nullptr, op, "interval", "is given without delta");
    require_shape(op, "B", a.B, {state, dim});
    require_shape(op, "C", a.C, {{"out"}, states});
    require_shape_if_given(op, "D", a.D, {dim});
    require(a.D.data() == nullptr || a.C.extent(0) == a.D.extent(0), op, "D",
            "is given although C has not as many outputs as u has channels");
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, states});
    require_shape_if_given(op, "reset", a.reset, {batch, length});
    require(!a.clip_eigs || a.delta.data() != nullptr, op, "clip_eigs", "is set without delta");
    require(!(a.reverse && a.bidirectional), op, "reverse", "is set beside bidirectional");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps another output or an input other than
/// the one it may replace. Values are trusted.
template <class T>
void check(const s5_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s5";
    check_s5(op, a);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, out{"out", a.C.extent(0)};
    require_shape(op, "y", a.y, {batch, length, out});
    require_shape_if_given(op, "final_state", a.final_state, {batch, {a.bidirectional ? "2 state" : "state", a.C.extent(1)}});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const bool replaces_u = !a.bidirectional && same_elements(a.y, a.u);
    const bool replaces_state = same_elements(a.final_state, a.initial_state);
    const named_footprint outputs[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint inputs[] = {
        named("A", a.A),
        named("delta", a.delta),
        named("interval", a.interval),
        named("B", a.B),
        named("C", a.C),
        named("D", a.D),
        replaces_u ? named_footprint{"u", {}} : named("u", a.u),
        replaces_state ? named_footprint{"initial_state", {}} : named("initial_state", a.initial_state),
        named("reset", a.reset)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
