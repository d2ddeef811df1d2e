#pragma once

#include <ssmkit/args/s4d.hpp>

namespace ssmkit {

/// The gradients of s4d; complex ones are ∂/∂Re + i ∂/∂Im, so that factors come in conjugated. Tokens as visited, w = β ∘ B:
///
///     s_t = f Σ_c conj(C_c) dy_{t,c} + conj(λ) s_{t+1}      with dfinal_state in place of the second term for the last token
///     du_t = Re Σ_n conj(w_n) s_{t,n} + Σ_c D_c dy_{t,c}    dD_c = Σ dy_{t,c} u_t,   dC_c = f Σ dy_{t,c} conj(x_t)
///     g(w) = Σ s_t u_t,   g(λ) = Σ s_t conj(x_{t-1})        dinitial_state = conj(λ) s_0; dfinal_state where there is no token
///
/// sums are over all tokens of all sequences. From λ and w on to B, A and Δ by the derivatives of the discretisation
/// (discretize.hpp). dA and dB are sums over the channels of a copy; a ddelta with stride 0 along the state is the sum over it
/// (see tied_over_state). The forward pass need not have run. A gradient whose view is left empty is neither computed nor
/// written; one that is given is overwritten, not added to.
template <class T>
struct s4d_backward_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    s4d_args<T> forward{};                      ///<                                 its inputs, form and reverse; y and final_state
                                                ///<                                 may be left empty
    view<const T, 3> dy{};                      ///< (batch, length, channels · dim)  gradient of y
    view<const complex, 3> dfinal_state{};      ///< (batch, dim, state)             of final_state; optional: zero
    view<T, 3> du{};                            ///< (batch, length, dim)            outputs, here and below: each optional
    view<double, 2> ddelta{};                   ///< (dim, state)
    view<std::complex<double>, 2> dA{};         ///< (copies, state)
    view<complex, 2> dB{};                      ///< (copies, state)
    view<complex, 3> dC{};                      ///< (channels, dim, state)
    view<real, 2> dD{};                         ///< (channels, dim)                 also where D is not given
    view<complex, 3> dinitial_state{};          ///< (batch, dim, state)             also where initial_state is not given
};

/// Throws shape_error, naming the argument, unless the shapes fit and no gradient overlaps an input or another one. Values are
/// trusted.
template <class T>
void check(const s4d_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4d_backward";
    const s4d_args<T>& f = a.forward;
    check_s4d_inputs(op, f);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, dim{"dim", f.u.extent(2)};
    const axis copies{"copies", f.A.extent(0)}, state{"state", f.A.extent(1)}, channels{"channels", f.C.extent(0)};
    require_shape(op, "dy", a.dy, {batch, length, {"channels * dim", channels.extent * dim.extent}});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, dim, state});
    require_shape_if_given(op, "du", a.du, {batch, length, dim});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim, state});
    require_shape_if_given(op, "dA", a.dA, {copies, state});
    require_shape_if_given(op, "dB", a.dB, {copies, state});
    require_shape_if_given(op, "dC", a.dC, {channels, dim, state});
    require_shape_if_given(op, "dD", a.dD, {channels, dim});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});
    const bool convolved = f.form == s4d_form::convolution;
    require(!convolved || !a.dfinal_state.data(), op, "dfinal_state", "is given, but a convolution has no states");
    require(!convolved || !a.dinitial_state.data(), op, "dinitial_state", "is asked for, but a convolution has no states");
    require(a.ddelta.empty() || a.ddelta.extent(0) <= 1 || a.ddelta.stride(0) != 0, op, "ddelta",
            "is written but has stride 0 along dim");
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("du", a.du), named("ddelta", a.ddelta), named("dA", a.dA), named("dB", a.dB),
                                       named("dC", a.dC), named("dD", a.dD), named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("u", f.u), named("delta", f.delta), named("A", f.A), named("B", f.B), named("C", f.C),
                                      named("D", f.D), named("initial_state", f.initial_state), named("dy", a.dy),
                                      named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
