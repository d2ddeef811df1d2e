#pragma once

#include <cstdint>

#include <ssmkit/args/linear_attention.hpp>

namespace ssmkit {

/// One step of linear_attention or a relative: decoding, a token at a time. The state is updated in place; nothing is
/// allocated, locked or, once checked, thrown. Equations and members: args/linear_attention.hpp.
///
/// The kernels are made for states whose values are neighbours in memory, (key, value) row by row.
template <class T>
struct linear_attention_update_args {
    using compute = compute_t<T>;

    view<compute, 4> S{};                    ///< (entries, nheads, key, value) the state: read, then overwritten
    view<const T, 3> q{}, k{};               ///< (batch, ngroups, key)
    view<const T, 3> v{};                    ///< (batch, nheads, value)
    view<const T, 2> g{};                    ///< (batch, nheads)           log of the head's decay; optional: 0
    view<const T, 3> gk{};                   ///< (batch, ngroups, key)     log of each key's decay; optional: 0
    view<const T, 2> beta{};                 ///< (batch, nheads)           step of the delta rule; optional
    compute scale = 0;                       ///<                           factor of q; 0 stands for key^-1/2
    view<const std::int32_t, 1> state_batch_indices{}; ///< (batch)         optional: the entry of S that a row uses, each at
                                             ///<                           most once; negative: y = 0, no state touched. Without
                                             ///<                           it entries = batch
    view<T, 3> y{};                          ///< (batch, nheads, value)    output
};

/// Throws shape_error, naming the argument, unless the shapes fit, the indices are entries of S and nothing written overlaps
/// an input. Other values are trusted.
template <class T>
void check(const linear_attention_update_args<T>& a)
{
    using namespace detail;
    static_assert(storage_element<T>);
    constexpr const char* op = "linear_attention_update";
    const axis batch{"batch", a.v.extent(0)}, nheads{"nheads", a.v.extent(1)}, value{"value", a.v.extent(2)};
    const axis groups{"ngroups", a.k.extent(1)}, key{"key", a.k.extent(2)};
    require_shape(op, "v", a.v, {{"batch"}, {"nheads"}, {"value"}});
    require_shape(op, "k", a.k, {batch, {"ngroups"}, {"key"}});
    require_shape(op, "q", a.q, {batch, groups, key});
    require_groups(op, "k", nheads.extent, groups.extent);
    require_shape(op, "S", a.S, {a.state_batch_indices.data() ? axis{"entries"} : batch, nheads, key, value});
    require_shape_if_given(op, "g", a.g, {batch, nheads});
    require_shape_if_given(op, "gk", a.gk, {batch, groups, key});
    require_shape_if_given(op, "beta", a.beta, {batch, nheads});
    require_shape_if_given(op, "state_batch_indices", a.state_batch_indices, {batch});
    for (index b = 0; b < a.state_batch_indices.extent(0); ++b) {
        require(a.state_batch_indices[b] < a.S.extent(0), op, "state_batch_indices", "names an entry that S does not have");
    }
    require_shape(op, "y", a.y, {batch, nheads, value});
    require_distinct_elements(op, "S", a.S);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("S", a.S), named("y", a.y)};
    const named_footprint inputs[] = {named("q", a.q),   named("k", a.k),       named("v", a.v),
                                      named("g", a.g),   named("gk", a.gk),     named("beta", a.beta),
                                      named("state_batch_indices", a.state_batch_indices)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
