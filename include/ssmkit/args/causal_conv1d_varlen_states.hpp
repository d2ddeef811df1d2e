#pragma once

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The states with which causal_conv1d_update continues each of several sequences packed into one: their last inputs.
///
///     states[i, c, state_len - 1 - k] = x[cu_seqlens[i + 1] - 1 - k, c]   if that token is of sequence i, otherwise 0
///
/// Sequence i holds the tokens cu_seqlens[i] ... cu_seqlens[i + 1] - 1; an empty one gets zeros. Elements are copied bit for
/// bit.
template <class T>
struct causal_conv1d_varlen_states_args {
    view<const T, 2> x{};               ///< (tokens, dim)                packed input
    view<const index, 1> cu_seqlens{};  ///< (sequences + 1)              first token of each sequence, then the end of the last;
                                        ///<                              ascending, 0 to tokens
    view<T, 3> states{};                ///< (sequences, dim, state_len)  output
};

/// Throws shape_error, naming the argument, unless the shapes fit, cu_seqlens ascends within x and states overlaps no input.
template <class T>
void check(const causal_conv1d_varlen_states_args<T>& a)
{
    using namespace detail;
    static_assert(storage_element<T>);
    constexpr const char* op = "causal_conv1d_varlen_states";
    require_shape(op, "x", a.x, {{"tokens"}, {"dim"}});
    require_shape(op, "cu_seqlens", a.cu_seqlens, {{"sequences + 1"}});
    require(a.cu_seqlens.extent(0) >= 1, op, "cu_seqlens", "is empty, expected sequences + 1 elements");
    require_shape(op, "states", a.states,
                  {{"sequences", a.cu_seqlens.extent(0) - 1}, {"dim", a.x.extent(1)}, {"state_len"}});
    index last = 0;
    for (index i = 0; i < a.cu_seqlens.extent(0); ++i) {
        const index first = a.cu_seqlens[i];
        require(first >= last && first <= a.x.extent(0), op, "cu_seqlens", "is not ascending from 0 to tokens");
        last = first;
    }
    const named_footprint outputs[] = {named("states", a.states)};
    const named_footprint inputs[] = {named("x", a.x), named("cu_seqlens", a.cu_seqlens)};
    require_distinct_elements(op, "states", a.states);
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
