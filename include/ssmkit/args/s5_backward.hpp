#pragma once

#include <ssmkit/args/s5.hpp>

namespace ssmkit {

/// The gradients of s5. Complex ones are ∂/∂Re + i ∂/∂Im, so that factors come in conjugated; tokens as visited, per scan.
///
///     s_t = f C^H dy_t + conj(Ā_{t+1}) s_{t+1}      without the second term where reset_{t+1}; dfinal_state for the last
///     dĀ_t = s_t conj(h_{t-1}),  dB̄_t = s_t u_t^T    dĀ_t is 0 where reset_t; liquid: s_t + dĀ_t in place of the second s_t
///     dC = f Σ dy_t h_t^H,  dD = Σ dy_t u_t,  du_t = Re(B̄^H s_t) + D dy_t
///
/// and from Ā, B̄ by the chain rule to A, delta, interval and B. The forward pass need not have run: states are computed again
/// from one state every few dozen tokens. A gradient whose view is left empty is neither computed nor written; one that is
/// given is overwritten, not added to.
template <class T>
struct s5_backward_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    s5_args<T> forward{};                    ///<                       its inputs; y and final_state may be left empty
    view<const T, 3> dy{};                   ///< (batch, length, out)  gradient of y
    view<const complex, 2> dfinal_state{};   ///< (batch, state)        of final_state; optional: zero; bidirectional: 2 state
    view<complex, 1> dA{};                   ///< (state)               outputs, here and below: each optional
    view<real, 1> ddelta{};                  ///< (state)
    view<real, 2> dinterval{};               ///< (batch, length)
    view<complex, 2> dB{};                   ///< (state, dim)
    view<complex, 2> dC{};                   ///< (out, state)          bidirectional: (out, 2 state)
    view<real, 1> dD{};                      ///< (dim)
    view<T, 3> du{};                         ///< (batch, length, dim)
    view<complex, 2> dinitial_state{};       ///< (batch, state)        bidirectional: (batch, 2 state)
};

/// Throws shape_error, naming the argument, unless the shapes fit, no gradient overlaps an input or another one, and what a
/// gradient belongs to is given. Values are trusted.
template <class T>
void check(const s5_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s5_backward";
    const s5_args<T>& f = a.forward;
    check_s5(op, f);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, dim{"dim", f.u.extent(2)}, out{"out", f.C.extent(0)};
    const axis state{"state", f.A.extent(0)}, states{f.bidirectional ? "2 state" : "state", f.C.extent(1)};
    require_shape(op, "dy", a.dy, {batch, length, out});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, states});
    require_shape_if_given(op, "dA", a.dA, {state});
    require_shape_if_given(op, "ddelta", a.ddelta, {state});
    require_shape_if_given(op, "dinterval", a.dinterval, {batch, length});
    require_shape_if_given(op, "dB", a.dB, {state, dim});
    require_shape_if_given(op, "dC", a.dC, {out, states});
    require_shape_if_given(op, "dD", a.dD, {dim});
    require_shape_if_given(op, "du", a.du, {batch, length, dim});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, states});
    require(!a.ddelta.data() || f.delta.data(), op, "ddelta", "is asked for although delta is not given");
    require(!a.dinterval.data() || f.interval.data(), op, "dinterval", "is asked for although interval is not given");
    require(!a.dD.data() || f.D.data(), op, "dD", "is asked for although D is not given");
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "dinterval", a.dinterval);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("dA", a.dA),
                                       named("ddelta", a.ddelta),
                                       named("dinterval", a.dinterval),
                                       named("dB", a.dB),
                                       named("dC", a.dC),
                                       named("dD", a.dD),
                                       named("du", a.du),
                                       named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("A", f.A), named("delta", f.delta), named("interval", f.interval), named("B", f.B),
                                      named("C", f.C), named("D", f.D), named("u", f.u), named("initial_state", f.initial_state),
                                      named("reset", f.reset), named("dy", a.dy), named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
