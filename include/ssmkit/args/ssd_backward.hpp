#pragma once

#include <ssmkit/args/ssd.hpp>

namespace ssmkit {

/// The gradients of ssd: of a real loss F, given its gradients with respect to what ssd put out.
///
/// dX is dF/dX. t is a token and t + 1 the one visited after it, padding aside; <X, Y> is the sum of products of elements,
/// and κ_t = Δ_t, or 1 if forward.prescaled. Dao & Gu, arXiv:2405.21060, leave them to automatic differentiation; these are
/// the derivatives of the equations in args/ssd.hpp:
///
///     dp_t     = dy_t silu(z_t)                                dy_t without z
///     dz_t     = dy_t p_t silu'(z_t)
///     a_t      = exp(Δ_t A),  0 in its place at the first token of a sequence without an initial state
///     G_t      = dp_t ⊗ C_t + a_{t+1} G_{t+1}                  the gradient of H_t; the last token of a sequence has its
///                                                              dfinal_state in place of the second term
///     q_t      = <G_t, a_t H_{t-1}>
///     du_t     = D dp_t + κ_t G_t B_t
///     dΔ_t     = <G_t, u_t ⊗ B_t> + A q_t                      A q_t if prescaled
///     dr_t     = dΔ_t  if delta_min <= r_t <= delta_max, otherwise 0
///     ddelta_t = dr_t softplus'(delta_t + delta_bias)          dr_t without softplus
///     dA       = Σ_{b,t} Δ_t q_t
///     dB_t     = Σ_{heads of the group} κ_t G_t^T u_t
///     dC_t     = Σ_{heads of the group} H_t^T dp_t
///     dD       = Σ_{b,t} dp_t u_t,    ddelta_bias = Σ_{b,t} ddelta_t,    dinitial_state = a_0 G_0
///
/// q_t is computed as it stands: what the authors' kernels take for its running sum, y·dy - Δ (du without the skip)·u,
/// cancels. The gradients of padding are 0, and it adds nothing to the others. With seq_idx, dfinal_state belongs to the last
/// sequence, and dinitial_state is 0 unless the first token is of sequence 0; without any token it is dfinal_state.
///
/// A gradient whose view is left empty is neither computed nor written; one that is given is overwritten, not added to.
/// dB and dC are what the group map leaves, one value a token and group, and dD one a channel, unless the view has stride 0
/// along an axis (of dB and dC: batch, length or ngroups): along such an axis the gradient is summed. So that of D with one
/// value a head is asked for as summed_over_head(dD, headdim). Sums, dB and dC among them, are not rounded to T.
///
/// D, delta_bias and initial_state that are not given count as zeros, and have gradients all the same. Gradients through
/// delta_out, log_decay, chunk_states and prev_states are not taken.
template <class T>
struct ssd_backward_args {
    using compute = compute_t<T>;

    ssd_args<T> forward{};                   ///<                                      ssd's inputs; its outputs are ignored and
                                             ///<                                      may be empty
    view<const T, 4> dy{};                   ///< (batch, length, nheads, headdim)
    view<const compute, 4> dfinal_state{};   ///< (sequences, nheads, headdim, state)  optional: zero

    view<T, 4> du{};                         ///< (batch, length, nheads, headdim)     outputs, here and below: optional
    view<T, 3> ddelta{};                     ///< (batch, length, nheads)
    view<T, 4> dz{};                         ///< (batch, length, nheads, headdim)     only where there is a z
    view<compute, 1> dA{};                   ///< (nheads)
    view<compute, 4> dB{}, dC{};             ///< (batch, length, ngroups, state)      stride 0 sums
    view<compute, 2> dD{};                   ///< (nheads, headdim)                    stride 0 sums
    view<compute, 1> ddelta_bias{};          ///< (nheads)
    view<compute, 4> dinitial_state{};       ///< (sequences, nheads, headdim, state)
};

/// The gradient, (nheads), of a parameter with one value a head: tied_over_head's counterpart for dD.
template <class T>
view<T, 2> summed_over_head(const view<T, 1>& gradient, index headdim)
{
    return {gradient.data(), {gradient.extent(0), headdim}, {gradient.stride(0), 0}};
}

namespace detail {

/// Everything that check(ssd_backward_args) promises, for arrays of either kind of memory.
template <class T>
void check_ssd_backward(const char* op, const ssd_backward_args<T>& a, memory where = memory::host)
{
    const ssd_args<T>& f = a.forward;
    check_ssd_inputs(op, f, where);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)};
    const axis nheads{"nheads", f.u.extent(2)}, headdim{"headdim", f.u.extent(3)};
    const axis groups{"ngroups", f.B.extent(2)}, state{"state", f.B.extent(3)}, sequences{"sequences", ssd_sequence_count(f)};
    require_shape(op, "dy", a.dy, {batch, length, nheads, headdim});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {sequences, nheads, headdim, state});
    require_shape_if_given(op, "du", a.du, {batch, length, nheads, headdim});
    require_shape_if_given(op, "ddelta", a.ddelta, {batch, length, nheads});
    require_shape_if_given(op, "dz", a.dz, {batch, length, nheads, headdim});
    require(a.dz.data() == nullptr || f.z.data() != nullptr, op, "dz", "is asked for without a z");
    require_shape_if_given(op, "dA", a.dA, {nheads});
    require_shape_if_given(op, "dB", a.dB, {batch, length, groups, state});
    require_shape_if_given(op, "dC", a.dC, {batch, length, groups, state});
    require_shape_if_given(op, "dD", a.dD, {nheads, headdim});
    require_shape_if_given(op, "ddelta_bias", a.ddelta_bias, {nheads});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {sequences, nheads, headdim, state});

    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "dz", a.dz);
    require_distinct_elements(op, "dA", a.dA);
    require(a.dB.empty() || state.extent <= 1 || a.dB.stride(3) != 0, op, "dB", "has stride 0 along state");
    require(a.dC.empty() || state.extent <= 1 || a.dC.stride(3) != 0, op, "dC", "has stride 0 along state");
    require_distinct_elements(op, "ddelta_bias", a.ddelta_bias);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {
        named("du", a.du), named("ddelta", a.ddelta), named("dz", a.dz), named("dA", a.dA),
        named("dB", a.dB), named("dC", a.dC),         named("dD", a.dD), named("ddelta_bias", a.ddelta_bias),
        named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {
        named("u", f.u), named("delta", f.delta), named("A", f.A), named("B", f.B), named("C", f.C), named("D", f.D),
        named("z", f.z), named("delta_bias", f.delta_bias), named("initial_state", f.initial_state),
        named("seq_idx", f.seq_idx), named("cu_seqlens", f.cu_seqlens), named("dy", a.dy),
        named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit, the limits are in order and no output overlaps an input or
/// another output. Values are trusted, except for cu_seqlens.
template <class T>
void check(const ssd_backward_args<T>& a)
{
    detail::check_ssd_backward("ssd_backward", a);
}

}  // namespace ssmkit
