#pragma once

#include <cstdint>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The next tokens of causal_conv1d, decoded with a state that is updated in place: usually one, or several at once.
///
/// Row i uses entry e of conv_state: e = conv_state_indices[i], or i without indices. The state holds the last inputs, kept
/// as T and copied bit for bit.
///
/// - Shifting, without cache_seqlens: with Y = the entry followed by x along time, token l sees the `width` elements of Y
///   that end at x_l, and the new entry is the last state_len elements of Y.
/// - Circular, with cache_seqlens: before anything is written, the width - 1 inputs that precede the first token are read
///   from slots (cache_seqlens[i] - (width - 1) + k) mod state_len; token l is then written to slot (cache_seqlens[i] + l)
///   mod state_len, a later token over an earlier one. A fresh state must be zero: the slots of the time before the first
///   token are read like all others. cache_seqlens counts the tokens before this call; advancing it is the caller's part.
///
/// A row with a negative index is padding: its y is 0 and no state is touched. Otherwise every entry may be named once.
template <class T>
struct causal_conv1d_update_args {
    view<T, 3> conv_state{};                           ///< (entries, dim, state_len)  state_len >= width - 1; read, then written
    view<const T, 3> x{};                              ///< (batch, length, dim)       input: the new tokens
    view<const compute_t<T>, 2> weight{};              ///< (dim, width)               taps, oldest input first; width >= 1
    view<const compute_t<T>, 1> bias{};                ///< (dim)                      optional
    bool silu = false;                                 ///<                            apply silu to the sum
    view<const std::int32_t, 1> cache_seqlens{};       ///< (batch)                    optional: the state is circular
    view<const std::int32_t, 1> conv_state_indices{};  ///< (batch)                    optional: the entry that a row uses.
                                                       ///<                            Without it entries = batch
    view<T, 3> y{};                                    ///< (batch, length, dim)       output
};

namespace detail {

/// The indices' values are looked at only where the host can see them.
template <class T>
void check_causal_conv1d_update(const causal_conv1d_update_args<T>& a, memory where)
{
    static_assert(storage_element<T>);
    constexpr const char* op = "causal_conv1d_update";
    const axis batch{"batch", a.x.extent(0)}, length{"length", a.x.extent(1)}, dim{"dim", a.x.extent(2)};
    const bool indexed = a.conv_state_indices.data() != nullptr;
    require_shape(op, "x", a.x, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "weight", a.weight, {dim, {"width"}});
    require(a.weight.extent(1) >= 1, op, "weight", "has width 0, expected at least 1");
    require_shape(op, "conv_state", a.conv_state, {indexed ? axis{"entries"} : batch, dim, {"state_len"}});
    require(a.conv_state.extent(2) >= a.weight.extent(1) - 1, op, "conv_state", "is shorter than width - 1");
    require_shape_if_given(op, "bias", a.bias, {dim});
    require_shape_if_given(op, "cache_seqlens", a.cache_seqlens, {batch});
    require_shape_if_given(op, "conv_state_indices", a.conv_state_indices, {batch});
    for (index b = 0; where == memory::host && b < a.conv_state_indices.extent(0); ++b) {
        require(a.conv_state_indices[b] < a.conv_state.extent(0), op, "conv_state_indices",
                "names an entry that conv_state does not have");
    }
    require_shape(op, "y", a.y, {batch, length, dim});
    const named_footprint outputs[] = {named("conv_state", a.conv_state), named("y", a.y)};
    const named_footprint inputs[] = {named("x", a.x), named("weight", a.weight), named("bias", a.bias),
                                      named("cache_seqlens", a.cache_seqlens),
                                      named("conv_state_indices", a.conv_state_indices)};
    require_distinct_elements(op, "conv_state", a.conv_state);
    require_distinct_elements(op, "y", a.y);
    require_disjoint(op, outputs, inputs);
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit, the indices are entries of conv_state and nothing written
/// overlaps anything else. Other values are trusted.
template <class T>
void check(const causal_conv1d_update_args<T>& a)
{
    detail::check_causal_conv1d_update(a, detail::memory::host);
}

namespace detail {

/// The slot of a circular buffer of `slots` elements that holds element `position`, which may be negative.
constexpr index ring_slot(index position, index slots)
{
    const index slot = position % slots;
    return slot < 0 ? slot + slots : slot;
}

}  // namespace detail
}  // namespace ssmkit
