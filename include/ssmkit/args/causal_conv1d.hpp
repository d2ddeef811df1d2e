#pragma once

#include <cstddef>
#include <cstdint>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The short causal convolution of Mamba: every channel is filtered on its own with `width` taps.
///
///     X = initial_states, then x                                  along time, so that X[width - 1 + t] = x_t
///     p_t = bias + Σ_j weight_j X[t + j],  j = 0 ... width - 1    the last tap meets the newest input: cross-correlation
///     y_t = silu(p_t)  or  p_t                                    Gu & Dao, "Mamba", arXiv:2312.00752, section 3.4
///
/// T is how inputs and outputs are stored (float, double, bfloat16, float16); parameters and sums are in compute_t<T>. The
/// states hold inputs, not sums: they are kept as T and copied bit for bit, oldest first, so nothing drifts. A sequence may
/// be cut anywhere: final_states of one piece is initial_states of the next, at any length, also below width - 1.
///
/// With seq_idx, a tap reads zero where X belongs to another sequence than token t, and a token with a negative seq_idx is
/// padding: its y is 0 and nobody reads it. initial_states then belongs to the sequence of the first token (hand in zeros
/// where a cut falls between two sequences), and final_states is what a token right after the last one that is not padding
/// would read, were it of the same sequence; if all are padding, it is initial_states.
///
/// Any stride is legal: time-contiguous data, (batch, dim, length), is a view with its last two axes transposed.
template <class T>
struct causal_conv1d_args {
    view<const T, 3> x{};                   ///< (batch, length, dim)     input
    view<const compute_t<T>, 2> weight{};   ///< (dim, width)             taps, oldest input first; width >= 1
    view<const compute_t<T>, 1> bias{};     ///< (dim)                    optional
    bool silu = false;                      ///<                          apply silu to the sum
    view<const T, 3> initial_states{};      ///< (batch, dim, width - 1)  inputs before the first token; optional: zero
    view<const std::int32_t, 2> seq_idx{};  ///< (batch, length)          optional: the sequence that a token belongs to
    bool reverse = false;                   ///<                          visit the tokens from last to first (anti-causal);
                                            ///<                          states are oldest first as visited
    view<T, 3> y{};                         ///< (batch, length, dim)     output
    view<T, 3> final_states{};              ///< (batch, dim, width - 1)  last inputs visited; optional
};

namespace detail {

/// The view with its time axis in the order of visiting.
template <class T, std::size_t Rank>
view<T, Rank> as_visited(const view<T, Rank>& v, bool reverse)
{
    return reverse ? v.reversed(1) : v;
}

/// Tokens up to and including the last one that is not padding. seq_idx: (length), as visited, or empty.
inline index unpadded_length(const view<const std::int32_t, 1>& seq_idx, index length)
{
    if (seq_idx.data() == nullptr) return length;
    while (length > 0 && seq_idx[length - 1] < 0) --length;
    return length;
}

/// Checks of everything that the forward and the backward pass read.
template <class T>
void check_causal_conv1d_inputs(const char* op, const causal_conv1d_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)};
    require_shape(op, "x", a.x, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "weight", a.weight, {dim, {"width"}});
    require(a.weight.extent(1) >= 1, op, "weight", "has width 0, expected at least 1");
    const axis states{"width - 1", a.weight.extent(1) - 1};
    require_shape_if_given(op, "bias", a.bias, {dim});
    require_shape_if_given(op, "initial_states", a.initial_states, {batch, dim, states});
    require_shape_if_given(op, "seq_idx", a.seq_idx, {batch, length});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
/// Values are trusted.
template <class T>
void check(const causal_conv1d_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "causal_conv1d";
    check_causal_conv1d_inputs(op, a);
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)};
    require_shape(op, "y", a.y, {batch, length, dim});
    require_shape_if_given(op, "final_states", a.final_states, {batch, dim, {"width - 1", a.weight.extent(1) - 1}});
    const named_footprint outputs[] = {named("y", a.y), named("final_states", a.final_states)};
    const named_footprint inputs[] = {named("x", a.x), named("weight", a.weight), named("bias", a.bias),
                                      named("initial_states", a.initial_states), named("seq_idx", a.seq_idx)};
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_states", a.final_states);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
