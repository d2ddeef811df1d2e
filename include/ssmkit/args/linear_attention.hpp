#pragma once

#include <cmath>

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// Linear attention with a matrix for a state: ssd's relatives, which differ in how the state forgets and in what it takes in.
///
///     S'_t = diag(exp(g_t + gk_t)) S_{t-1}              a matrix (key, value) for every head
///     u_t  = β_t (v_t - S'_t^T k_t)   or  v_t           with beta, the state is corrected; without, it is added to
///     S_t  = S'_t + k_t ⊗ u_t
///     y_t  = scale S_t^T q_t
///
/// Each optional argument names a member of the family:
///
/// | function          | takes      | source                                                                               |
/// | ----------------- | ---------- | ------------------------------------------------------------------------------------ |
/// | linear_attention  | any        | none of them: Katharopoulos et al., arXiv:2006.16236, eqs. 18 to 20, not normalised   |
/// | retention         | g          | Sun et al., "Retentive network", arXiv:2307.08621, eq. 6: g is the same for all tokens |
/// | simple_gla        | g          | a decay a head and token: that of Mamba-2, arXiv:2405.21060                           |
/// | gla               | gk         | Yang et al., "Gated linear attention", arXiv:2312.06635, eq. 3                        |
/// | gated_delta_rule  | g, beta    | Yang et al., "Gated delta networks", arXiv:2412.06464, eq. 10                         |
///
/// beta alone is DeltaNet, and beta with gk the gate a channel of Kimi Delta Attention. ssd itself is q = C, k = B,
/// v = Δ u, g = Δ A and scale = 1, with the transposed state. Gates are logarithms: at most 0 for a state that forgets. They
/// are not limited; a growing state grows.
///
/// T is how inputs and outputs are stored; states are compute_t<T>. Any stride is legal. Head i uses group
/// i / (nheads / ngroups) of q, k and gk. `sequences` stands for batch, or with cu_seqlens, which says where in the one row of
/// a batch each sequence begins, for cu_seqlens.extent(0) - 1. A sequence may be cut anywhere: final_state of one piece is
/// initial_state of the next, or the state of linear_attention_update.
template <class T>
struct linear_attention_args {
    using compute = compute_t<T>;

    view<const T, 4> q{}, k{};               ///< (batch, length, ngroups, key)
    view<const T, 4> v{};                    ///< (batch, length, nheads, value)
    view<const T, 3> g{};                    ///< (batch, length, nheads)           log of the head's decay; optional: 0
    view<const T, 4> gk{};                   ///< (batch, length, ngroups, key)     log of each key's decay; optional: 0
    view<const T, 3> beta{};                 ///< (batch, length, nheads)           step of the delta rule, usually in [0, 1];
                                             ///<                                   optional
    compute scale = 0;                       ///<                                   factor of q; 0 stands for key^-1/2
    view<const compute, 4> initial_state{};  ///< (sequences, nheads, key, value)   optional: zero
    view<const index, 1> cu_seqlens{};       ///< (sequences + 1)                   first token of each sequence, then length:
                                             ///<                                   ascending from 0 (range-checked); optional,
                                             ///<                                   for batch = 1
    bool reverse = false;                    ///<                                   visit the tokens (of each sequence) from
                                             ///<                                   last to first
    view<T, 4> y{};                          ///< (batch, length, nheads, value)    output
    view<compute, 4> final_state{};          ///< (sequences, nheads, key, value)   after the last token; optional
};

/// RetNet's decay, one number a head, as g of every token: (nheads) as (batch, length, nheads).
template <class T>
view<const T, 3> fixed_decay(const view<T, 1>& log_decay, index batch, index length)
{
    return {log_decay.data(), {batch, length, log_decay.extent(0)}, {0, 0, log_decay.stride(0)}};
}

/// How many states go in and come out: one a row of the batch, or one a packed sequence.
template <class T>
index linear_attention_sequence_count(const linear_attention_args<T>& a)
{
    return a.cu_seqlens.data() ? a.cu_seqlens.extent(0) - 1 : a.v.extent(0);
}

/// The factor of q.
template <class T>
compute_t<T> linear_attention_scale(compute_t<T> scale, index key)
{
    return scale == 0 && key > 0 ? 1 / std::sqrt(static_cast<compute_t<T>>(key)) : scale;
}

namespace detail {

/// Checks of everything that the forward and the backward pass read.
template <class T>
void check_linear_attention_inputs(const char* op, const linear_attention_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.v.extent(0)}, length{"length", a.v.extent(1)};
    const axis nheads{"nheads", a.v.extent(2)}, value{"value", a.v.extent(3)};
    const axis groups{"ngroups", a.k.extent(2)}, key{"key", a.k.extent(3)};
    require_shape(op, "v", a.v, {{"batch"}, {"length"}, {"nheads"}, {"value"}});
    require_shape(op, "k", a.k, {batch, length, {"ngroups"}, {"key"}});
    require_shape(op, "q", a.q, {batch, length, groups, key});
    require_groups(op, "k", nheads.extent, groups.extent);
    require_shape_if_given(op, "g", a.g, {batch, length, nheads});
    require_shape_if_given(op, "gk", a.gk, {batch, length, groups, key});
    require_shape_if_given(op, "beta", a.beta, {batch, length, nheads});
    check_packed_sequences(op, a.cu_seqlens, batch.extent, length.extent);
    require_shape_if_given(op, "initial_state", a.initial_state,
                           {{"sequences", linear_attention_sequence_count(a)}, nheads, key, value});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output. Values
/// are trusted, except for cu_seqlens.
template <class T>
void check(const linear_attention_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "linear_attention";
    check_linear_attention_inputs(op, a);
    const axis nheads{"nheads", a.v.extent(2)}, value{"value", a.v.extent(3)}, key{"key", a.k.extent(3)};
    require_shape(op, "y", a.y, {{"batch", a.v.extent(0)}, {"length", a.v.extent(1)}, nheads, value});
    require_shape_if_given(op, "final_state", a.final_state,
                           {{"sequences", linear_attention_sequence_count(a)}, nheads, key, value});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint outputs[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint inputs[] = {named("q", a.q),       named("k", a.k),
                                      named("v", a.v),       named("g", a.g),
                                      named("gk", a.gk),     named("beta", a.beta),
                                      named("initial_state", a.initial_state), named("cu_seqlens", a.cu_seqlens)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
