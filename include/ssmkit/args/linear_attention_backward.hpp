#pragma once

#include <ssmkit/args/linear_attention.hpp>

namespace ssmkit {

/// The gradients of linear_attention: of a real loss F, given its gradients with respect to what linear_attention put out.
///
/// dX is dF/dX, t + 1 the token visited after t; S', S and u are those of args/linear_attention.hpp, whose derivatives these
/// are. Without beta, du_t is dv_t and the terms with β are absent:
///
///     G_t    = scale q_t ⊗ dy_t + exp(g_{t+1} + gk_{t+1}) G'_{t+1}   the gradient of S_t; the last token of a sequence has
///                                                                   its dfinal_state in place of the second term
///     du_t   = G_t^T k_t
///     G'_t   = G_t - β_t k_t ⊗ du_t                                  the gradient of S'_t
///     dq_t   = Σ_{heads of the group} scale S_t dy_t
///     dk_t   = Σ_{heads of the group} G_t u_t - β_t S'_t du_t
///     dv_t   = β_t du_t
///     dβ_t   = du_t·(v_t - S'_t^T k_t)
///     dgk_t  = Σ_{heads of the group} Σ_value G'_t S'_t,   dg_t = Σ_{key, value} G'_t S'_t   (products of elements)
///     dinitial_state = exp(g + gk) G' of the first token; without any token it is dfinal_state
///
/// A gradient whose view is left empty is neither computed nor written; one that is given is overwritten, not added to.
/// Optional inputs that are not given count as zeros, beta excepted, and g, gk and initial_state have gradients all the same.
template <class T>
struct linear_attention_backward_args {
    using compute = compute_t<T>;

    linear_attention_args<T> forward{};      ///< linear_attention's inputs; its outputs are ignored and may be empty
    view<const T, 4> dy{};                   ///< (batch, length, nheads, value)
    view<const compute, 4> dfinal_state{};   ///< (sequences, nheads, key, value)   optional: zero

    view<compute, 4> dq{}, dk{};             ///< (batch, length, ngroups, key)     outputs, here and below: optional
    view<T, 4> dv{};                         ///< (batch, length, nheads, value)
    view<compute, 3> dg{};                   ///< (batch, length, nheads)
    view<compute, 4> dgk{};                  ///< (batch, length, ngroups, key)
    view<compute, 3> dbeta{};                ///< (batch, length, nheads)           only where there is a beta
    view<compute, 4> dinitial_state{};       ///< (sequences, nheads, key, value)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output. Values
/// are trusted, except for cu_seqlens.
template <class T>
void check(const linear_attention_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "linear_attention_backward";
    const linear_attention_args<T>& f = a.forward;
    check_linear_attention_inputs(op, f);
    const axis batch{"batch", f.v.extent(0)}, length{"length", f.v.extent(1)};
    const axis nheads{"nheads", f.v.extent(2)}, value{"value", f.v.extent(3)};
    const axis groups{"ngroups", f.k.extent(2)}, key{"key", f.k.extent(3)};
    const axis sequences{"sequences", linear_attention_sequence_count(f)};
    require_shape(op, "dy", a.dy, {batch, length, nheads, value});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {sequences, nheads, key, value});
    require_shape_if_given(op, "dq", a.dq, {batch, length, groups, key});
    require_shape_if_given(op, "dk", a.dk, {batch, length, groups, key});
    require_shape_if_given(op, "dv", a.dv, {batch, length, nheads, value});
    require_shape_if_given(op, "dg", a.dg, {batch, length, nheads});
    require_shape_if_given(op, "dgk", a.dgk, {batch, length, groups, key});
    require_shape_if_given(op, "dbeta", a.dbeta, {batch, length, nheads});
    require(a.dbeta.data() == nullptr || f.beta.data() != nullptr, op, "dbeta", "is asked for without a beta");
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {sequences, nheads, key, value});

    require_distinct_elements(op, "dq", a.dq);
    require_distinct_elements(op, "dk", a.dk);
    require_distinct_elements(op, "dv", a.dv);
    require_distinct_elements(op, "dg", a.dg);
    require_distinct_elements(op, "dgk", a.dgk);
    require_distinct_elements(op, "dbeta", a.dbeta);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("dq", a.dq), named("dk", a.dk),   named("dv", a.dv),
                                       named("dg", a.dg), named("dgk", a.dgk), named("dbeta", a.dbeta),
                                       named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("q", f.q),   named("k", f.k),   named("v", f.v),
                                      named("g", f.g),   named("gk", f.gk), named("beta", f.beta),
                                      named("initial_state", f.initial_state), named("cu_seqlens", f.cu_seqlens),
                                      named("dy", a.dy), named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
