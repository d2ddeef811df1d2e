#pragma once

#include <cstdint>
#include <limits>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// How ssd computes; results differ by rounding only.
enum class ssd_form {
    automatic,  ///< chunked; but recurrent where a state grows more than 2^64-fold within 32 tokens, and with AVX-512 and
                ///< NEON, from 128 tokens on, where every head has B and C of its own or the state is of 32 at most
                ///< (measured: up to 25 % less)
    chunked,    ///< matrix products over pieces of 32 tokens: the fewest operations
    recurrent,  ///< token by token, the state in registers: no product of decays is formed that could overflow
};

/// The state space model of Mamba-2 over whole sequences: a decay per head and token, computed in chunks (SSD).
///
///     Δ_t = min(max(r_t, delta_min), delta_max),  r_t = softplus(delta_t + delta_bias)  or  delta_t + delta_bias
///     H_t = exp(Δ_t A) H_{t-1} + Δ_t u_t ⊗ B_t        a matrix (headdim, state) for every head
///     p_t = H_t C_t + D u_t
///     y_t = p_t silu(z_t)  or  p_t
///
/// Dao & Gu, "Transformers are SSMs", arXiv:2405.21060: eq. 2 with exp(Δ_t A), a number times the identity, for A_t (section
/// 5.1) and Δ_t B_t for B_t. y = M (Δ u), M_ij = C_i·B_j exp(Δ_{j+1} A + ... + Δ_i A) for j <= i, is their eq. 3, the form
/// that resembles attention; section 6 and listing 1 mix the two in chunks. The authors' x, dt, dt_limit, T, N and P are u,
/// delta, (delta_min, delta_max), length, state and headdim here.
///
/// T is how inputs and outputs are stored (float, double, bfloat16, float16); parameters, steps and states are compute_t<T>.
/// Head i uses group i / (nheads / ngroups) of B and C. Any stride is legal: time-contiguous data is a view with transposed
/// axes, and what is shared along an axis has stride 0 there. D with one value a head is tied_over_head(D, headdim).
///
/// The clamp is always on: with the default limits a negative step counts as 0. A growing mode (Δ A > 0) needs
/// delta_min = -infinity or A > 0 and grows without bound. A NaN passes through the clamp.
///
/// Packed sequences, in one of two ways:
/// - seq_idx numbers the sequence of each token; the state is zero before a token that belongs to another one than the token
///   visited before it, padding aside. initial_state belongs to sequence 0: it reaches nothing if the first token is of
///   another, so a sequence that is continued at a cut has number 0 in the second part. A token with a negative number is
///   padding: its y is 0, its inputs are not looked at, and the state passes it by. final_state is that of the last sequence.
/// - cu_seqlens says where in the one row of a batch each sequence begins. initial_state and final_state then hold one state
///   a sequence, and an empty sequence ends as it began.
///
/// `sequences` stands for batch, or with cu_seqlens for cu_seqlens.extent(0) - 1. A sequence may be cut anywhere:
/// final_state of one piece is initial_state of the next.
///
/// Chunk c is made of the tokens visited from number c * chunk on, `chunk` of them, fewer in the last; there are
/// ssd_chunk_count(length, chunk). Its summary joins the states at its edges:
///
///     prev_states_{c+1} = exp(log_decay at the last token of chunk c) prev_states_c + chunk_states_c
///
/// or chunk_states_c alone where seq_idx sets the state to zero within chunk c; behind the last chunk this is final_state. With
/// chunk = length the whole sequence has one summary, so that pieces can be computed side by side and joined afterwards.
template <class T>
struct ssd_args {
    using compute = compute_t<T>;

    view<const T, 4> u{};                    ///< (batch, length, nheads, headdim)     input
    view<const T, 3> delta{};                ///< (batch, length, nheads)              step size before bias and softplus
    view<const compute, 1> A{};              ///< (nheads)                             rate; < 0 for a stable model
    view<const T, 4> B{}, C{};               ///< (batch, length, ngroups, state)      input and output map
    view<const compute, 2> D{};              ///< (nheads, headdim)                    skip; optional
    view<const T, 4> z{};                    ///< (batch, length, nheads, headdim)     gate; optional
    view<const compute, 1> delta_bias{};     ///< (nheads)                             optional
    bool delta_softplus = false;             ///<                                      apply softplus to delta + delta_bias
    compute delta_min = 0;                   ///<                                      limits of the step after that:
                                             ///<                                      delta_min <= delta_max
    compute delta_max = std::numeric_limits<compute>::infinity();
    bool prescaled = false;                  ///<                                      u comes multiplied by Δ, which then only
                                             ///<                                      decays; for listing 1's A as delta, A is 1
                                             ///<                                      and delta_min -infinity
    view<const compute, 4> initial_state{};  ///< (sequences, nheads, headdim, state)  optional: zero
    view<const std::int32_t, 2> seq_idx{};   ///< (batch, length)                      sequence of each token; optional
    view<const index, 1> cu_seqlens{};       ///< (sequences + 1)                      first token of each sequence, then length:
                                             ///<                                      ascending from 0 (range-checked); optional,
                                             ///<                                      for batch = 1 and without seq_idx
    bool reverse = false;                    ///<                                      visit the tokens (of each sequence) from
                                             ///<                                      last to first
    index chunk = 256;                       ///<                                      tokens a chunk, >= 1: for log_decay and
                                             ///<                                      what follows it. The other outputs depend
                                             ///<                                      on it by rounding only
    ssd_form form = ssd_form::automatic;     ///<                                      how to compute
    view<T, 4> y{};                          ///< (batch, length, nheads, headdim)     output
    view<T, 4> y_ungated{};                  ///< (batch, length, nheads, headdim)     p, before the gate; optional
    view<compute, 4> final_state{};          ///< (sequences, nheads, headdim, state)  after the last token; optional
    view<compute, 3> delta_out{};            ///< (batch, length, nheads)              Δ, 0 for padding; optional
    view<compute, 3> log_decay{};            ///< (batch, length, nheads)              Δ A summed up to this token, from the
                                             ///<                                      first one of its chunk, or of its sequence
                                             ///<                                      if that is later; optional, like the next
                                             ///<                                      two not with cu_seqlens
    view<compute, 5> chunk_states{};         ///< (batch, chunks, nheads, headdim, state)  after a chunk, had it been zero
                                             ///<                                      before it; optional
    view<compute, 5> prev_states{};          ///< (batch, chunks, nheads, headdim, state)  before a chunk; optional
};

/// How many chunks a sequence has; the last one may be short.
constexpr index ssd_chunk_count(index length, index chunk)
{
    return length / chunk + (length % chunk != 0);
}

/// How many states go in and come out: one a row of the batch, or one a packed sequence.
template <class T>
index ssd_sequence_count(const ssd_args<T>& a)
{
    return a.cu_seqlens.data() ? a.cu_seqlens.extent(0) - 1 : a.u.extent(0);
}

namespace detail {

/// cu_seqlens, if given: the one row of a batch, cut into sequences. Its values only where the host can see them.
inline void check_packed_sequences(const char* op, const view<const index, 1>& cu_seqlens, index batch, index length,
                                   memory where = memory::host)
{
    if (cu_seqlens.data() == nullptr) return;
    require_shape(op, "cu_seqlens", cu_seqlens, {{"sequences + 1"}});
    require(cu_seqlens.extent(0) >= 1, op, "cu_seqlens", "is empty, expected sequences + 1 elements");
    require(batch == 1, op, "cu_seqlens", "is given for a batch that is not 1");
    if (where == memory::device) return;
    index last = 0;
    for (index i = 0; i < cu_seqlens.extent(0); ++i) {
        const index first = cu_seqlens[i];
        require(first >= last && (i > 0 || first == 0), op, "cu_seqlens", "is not ascending from 0 to length");
        last = first;
    }
    require(last == length, op, "cu_seqlens", "is not ascending from 0 to length");
}

/// Checks of everything that the forward and the backward pass read.
template <class T>
void check_ssd_inputs(const char* op, const ssd_args<T>& a, memory where = memory::host)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)};
    const axis nheads{"nheads", a.u.extent(2)}, headdim{"headdim", a.u.extent(3)};
    const axis groups{"ngroups", a.B.extent(2)}, state{"state", a.B.extent(3)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"nheads"}, {"headdim"}});
    require_shape(op, "delta", a.delta, {batch, length, nheads});
    require_shape(op, "A", a.A, {nheads});
    require_shape(op, "B", a.B, {batch, length, {"ngroups"}, {"state"}});
    require_shape(op, "C", a.C, {batch, length, groups, state});
    require_groups(op, "B", nheads.extent, groups.extent);
    require_shape_if_given(op, "D", a.D, {nheads, headdim});
    require_shape_if_given(op, "z", a.z, {batch, length, nheads, headdim});
    require_shape_if_given(op, "delta_bias", a.delta_bias, {nheads});
    require(a.delta_min <= a.delta_max, op, "delta_min", "is not at most delta_max");
    require(a.chunk >= 1, op, "chunk", "is below 1");
    require_shape_if_given(op, "seq_idx", a.seq_idx, {batch, length});
    check_packed_sequences(op, a.cu_seqlens, batch.extent, length.extent, where);
    require(a.cu_seqlens.data() == nullptr || a.seq_idx.data() == nullptr, op, "cu_seqlens", "is given together with seq_idx");
    const axis sequences{"sequences", ssd_sequence_count(a)};
    require_shape_if_given(op, "initial_state", a.initial_state, {sequences, nheads, headdim, state});
}

/// Those and what is written: everything that check(ssd_args) promises, for an operation of any name.
template <class T>
void check_ssd(const char* op, const ssd_args<T>& a, memory where = memory::host)
{
    check_ssd_inputs(op, a, where);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)};
    const axis nheads{"nheads", a.u.extent(2)}, headdim{"headdim", a.u.extent(3)}, state{"state", a.B.extent(3)};
    const axis chunks{"chunks", ssd_chunk_count(length.extent, a.chunk)};
    require_shape(op, "y", a.y, {batch, length, nheads, headdim});
    require_shape_if_given(op, "y_ungated", a.y_ungated, {batch, length, nheads, headdim});
    require_shape_if_given(op, "final_state", a.final_state, {{"sequences", ssd_sequence_count(a)}, nheads, headdim, state});
    require_shape_if_given(op, "delta_out", a.delta_out, {batch, length, nheads});
    require_shape_if_given(op, "log_decay", a.log_decay, {batch, length, nheads});
    require_shape_if_given(op, "chunk_states", a.chunk_states, {batch, chunks, nheads, headdim, state});
    require_shape_if_given(op, "prev_states", a.prev_states, {batch, chunks, nheads, headdim, state});
    const bool whole_rows = a.cu_seqlens.data() == nullptr;  // with cu_seqlens nobody promises where chunks begin
    require(whole_rows || a.log_decay.data() == nullptr, op, "log_decay", "is asked for with cu_seqlens");
    require(whole_rows || a.chunk_states.data() == nullptr, op, "chunk_states", "is asked for with cu_seqlens");
    require(whole_rows || a.prev_states.data() == nullptr, op, "prev_states", "is asked for with cu_seqlens");

    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "y_ungated", a.y_ungated);
    require_distinct_elements(op, "final_state", a.final_state);
    require_distinct_elements(op, "delta_out", a.delta_out);
    require_distinct_elements(op, "log_decay", a.log_decay);
    require_distinct_elements(op, "chunk_states", a.chunk_states);
    require_distinct_elements(op, "prev_states", a.prev_states);
    const named_footprint outputs[] = {named("y", a.y), named("y_ungated", a.y_ungated), named("final_state", a.final_state),
                                       named("delta_out", a.delta_out), named("log_decay", a.log_decay),
                                       named("chunk_states", a.chunk_states), named("prev_states", a.prev_states)};
    const named_footprint inputs[] = {named("u", a.u), named("delta", a.delta), named("A", a.A), named("B", a.B),
                                      named("C", a.C), named("D", a.D), named("z", a.z), named("delta_bias", a.delta_bias),
                                      named("initial_state", a.initial_state), named("seq_idx", a.seq_idx),
                                      named("cu_seqlens", a.cu_seqlens)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit, the limits are in order and no output overlaps an input or
/// another output. Values are trusted, except for cu_seqlens.
template <class T>
void check(const ssd_args<T>& a)
{
    detail::check_ssd("ssd", a);
}

}  // namespace ssmkit
