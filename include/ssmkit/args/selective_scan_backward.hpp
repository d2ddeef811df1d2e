#pragma once

#include <ssmkit/args/selective_scan.hpp>

namespace ssmkit {

/// The gradients of the selective scan: of a real loss F, given its gradients with respect to what the scan put out.
///
/// dX is dF/dX; for complex X = a + ib it is dF/da + i dF/db. conj() does nothing to a real number, m is 1 for real A
/// and 2 for complex A. Let s count the tokens in the order in which they are visited (forward.reverse, forward.order),
/// H_s the state after s of them, H_0 the initial state, and t the position visited at step s, from H_s to H_{s+1}:
///
///     dp_t     = dy_t silu(z_t)                                   dy_t without z
///     dz_t     = dy_t p_t silu'(z_t)
///     G_{s+1}  = m dp_t conj(C_t) + K_{s+1}                       the gradient of H_{s+1}; K is what comes from later:
///     K_s      = conj(a_t) G_{s+1} + S_s                          a_t = exp(Δ_t A), 0 in its place at a reset
///     K_L      = dfinal_state + S_L                               after the last of L tokens
///     S_s      = Σ_{i: snapshot_after_i = s} dsnapshots_i
///     k_t      = a_t H_s                                          0 at a reset
///     du_t     = D dp_t + Δ_t Re(Σ_n G_{s+1} conj(B_t))
///     dΔ_t     = Re(Σ_n G_{s+1} conj(A k_t + B_t u_t))
///     ddelta_t = dΔ_t softplus'(delta_t + delta_bias)             dΔ_t without softplus
///     dA       = Σ_{b,t} Δ_t G_{s+1} conj(k_t)
///     dB_t     = Σ_{channels of the group} Δ_t u_t G_{s+1}
///     dC_t     = Σ_{channels of the group} m dp_t conj(H_{s+1})
///     dD       = Σ_{b,t} dp_t u_t,    ddelta_bias = Σ_{b,t} ddelta_t,    dinitial_state = K_0
///
/// (Differentiated by hand from the equations in args/selective_scan.hpp.)
///
/// A gradient whose view is left empty is neither computed nor written; one that is given is overwritten, not added to.
/// dB and dC are what the group map leaves, one value a token and group, unless the view of dB itself has stride 0
/// along batch, length or ngroups: along such an axis the gradient is summed. So the gradient of a constant B,
/// (dim, state), is asked for as summed_over_time(dB, batch, length). Sums, dB and dC among them, are not rounded to T.
///
/// D, delta_bias and initial_state that are not given count as zeros, and have gradients all the same.
template <class T, class Param = compute_t<T>>
struct selective_scan_backward_args {
    selective_scan_args<T, Param> forward{};   ///<                                  the scan's inputs; its outputs are
                                               ///<                                  ignored and may be empty
    view<const T, 3> dy{};                     ///< (batch, length, dim)
    view<const Param, 3> dfinal_state{};       ///< (batch, dim, state)              optional: zero
    view<const Param, 4> dsnapshots{};         ///< (batch, count, dim, state)       optional: zero; with snapshot_after

    view<T, 3> du{}, ddelta{};                 ///< (batch, length, dim)             outputs, here and below: optional
    view<T, 3> dz{};                           ///< (batch, length, dim)             only where there is a z
    view<Param, 2> dA{};                       ///< (dim, state)
    view<Param, 4> dB{}, dC{};                 ///< (batch, length, ngroups, state)  as in B and in C; stride 0 sums
    view<compute_t<T>, 1> dD{}, ddelta_bias{}; ///< (dim)
    view<Param, 3> dinitial_state{};           ///< (batch, dim, state)
};

/// The gradient (dim, state) of a parameter that does not change with the token: constant_over_time's counterpart for
/// dB and dC.
template <class T>
view<T, 4> summed_over_time(const view<T, 2>& gradient, index batch, index length)
{
    return {gradient.data(),
            {batch, length, gradient.extent(0), gradient.extent(1)},
            {0, 0, gradient.stride(0), gradient.stride(1)}};
}

namespace detail {

template <class T, class Param>
void check_selective_scan_backward(const selective_scan_backward_args<T, Param>& a, memory where)
{
    constexpr const char* op = "selective_scan_backward";
    const selective_scan_args<T, Param>& f = a.forward;
    check_selective_scan_inputs(op, f, where);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, dim{"dim", f.u.extent(2)};
    const axis state{"state", f.A.extent(1)}, count{"count", f.snapshot_after.extent(1)};
    const axis groups_of_B{"ngroups", f.B.extent(2)}, groups_of_C{"ngroups", f.C.extent(2)};
    require_shape(op, "dy", a.dy, {batch, length, dim});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, dim, state});
    require_shape_if_given(op, "dsnapshots", a.dsnapshots, {batch, count, dim, state});
    require_shape_if_given(op, "du", a.du, {batch, length, dim});
    require_shape_if_given(op, "ddelta", a.ddelta, {batch, length, dim});
    require_shape_if_given(op, "dz", a.dz, {batch, length, dim});
    require(a.dz.data() == nullptr || f.z.data() != nullptr, op, "dz", "is asked for without a z");
    require_shape_if_given(op, "dA", a.dA, {dim, state});
    require_shape_if_given(op, "dB", a.dB, {batch, length, groups_of_B, state});
    require_shape_if_given(op, "dC", a.dC, {batch, length, groups_of_C, state});
    require_shape_if_given(op, "dD", a.dD, {dim});
    require_shape_if_given(op, "ddelta_bias", a.ddelta_bias, {dim});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});

    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "dz", a.dz);
    require_distinct_elements(op, "dA", a.dA);
    require(a.dB.empty() || state.extent <= 1 || a.dB.stride(3) != 0, op, "dB", "has stride 0 along state");
    require(a.dC.empty() || state.extent <= 1 || a.dC.stride(3) != 0, op, "dC", "has stride 0 along state");
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "ddelta_bias", a.ddelta_bias);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {
        named("du", a.du), named("ddelta", a.ddelta), named("dz", a.dz), named("dA", a.dA),
        named("dB", a.dB), named("dC", a.dC),         named("dD", a.dD), named("ddelta_bias", a.ddelta_bias),
        named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {
        named("u", f.u), named("delta", f.delta), named("A", f.A), named("B", f.B), named("C", f.C), named("D", f.D),
        named("z", f.z), named("delta_bias", f.delta_bias), named("initial_state", f.initial_state),
        named("reset", f.reset), named("order", f.order), named("snapshot_after", f.snapshot_after), named("dy", a.dy),
        named("dfinal_state", a.dfinal_state), named("dsnapshots", a.dsnapshots)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
/// Values are trusted, except for order and snapshot_after.
template <class T, class Param>
void check(const selective_scan_backward_args<T, Param>& a)
{
    detail::check_selective_scan_backward(a, detail::memory::host);
}

}  // namespace ssmkit
