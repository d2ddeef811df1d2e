#pragma once

#include <cstdint>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// One step of a selective state space model: decoding, a token at a time, for Mamba-1 and Mamba-2. The state is updated in
/// place; nothing is allocated, locked or, once checked, thrown.
///
///     Δ = softplus(delta + delta_bias)      or delta + delta_bias
///     h ← exp(Δ A) h + Δ B u                Gu & Dao, "Mamba", arXiv:2312.00752, eqs. 2a, 2b and 4,
///     y = (C·h + D u) silu(z)               with Δ B for eq. 4's B̄, as the authors' code has it
///
/// T is how inputs and outputs are stored; the state, A, D and delta_bias are compute_t<T>, never 16 bits.
///
/// Mamba-1 has one head: nheads = 1, headdim = dim. Where Mamba-2 ties a parameter over a head, its view has stride 0 there
/// (see tied_over_head); exp is then evaluated once a head. Head i uses group i / (nheads / ngroups) of B and C; for one head
/// and more groups, channel c uses group c / (headdim / ngroups).
template <class T>
struct selective_state_update_args {
    using compute = compute_t<T>;

    view<compute, 4> h{};                            ///< (entries, nheads, headdim, state) the state: read, then overwritten
    view<const T, 3> u{};                            ///< (batch, nheads, headdim)  input
    view<const T, 3> delta{};                        ///< (batch, nheads, headdim)  step size before bias and softplus
    view<const compute, 3> A{};                      ///< (nheads, headdim, state)  rate; < 0 for a stable model
    view<const T, 3> B{}, C{};                       ///< (batch, ngroups, state)   input and output map
    view<const compute, 2> D{};                      ///< (nheads, headdim)         skip; optional
    view<const T, 3> z{};                            ///< (batch, nheads, headdim)  gate; optional
    view<const compute, 2> delta_bias{};             ///< (nheads, headdim)         optional
    bool delta_softplus = false;                     ///<                           apply softplus to delta + delta_bias
    view<const std::int32_t, 1> state_batch_indices{}; ///< (batch)                   optional: the entry of h that a row uses, each
                                                     ///<                           at most once; negative: y = 0, no state touched.
                                                     ///<                           Without it entries = batch
    view<T, 3> y{};                                  ///< (batch, nheads, headdim)  output
};

/// A parameter with one value a head, (nheads), as (nheads, headdim): D or delta_bias of Mamba-2.
template <class T>
view<const T, 2> tied_over_head(const view<T, 1>& parameter, index headdim)
{
    return {parameter.data(), {parameter.extent(0), headdim}, {parameter.stride(0), 0}};
}

/// A of Mamba-2, (nheads), as (nheads, headdim, state).
template <class T>
view<const T, 3> tied_over_head(const view<T, 1>& parameter, index headdim, index state)
{
    return {parameter.data(), {parameter.extent(0), headdim, state}, {parameter.stride(0), 0, 0}};
}

/// delta of Mamba-2, (batch, nheads), as (batch, nheads, headdim).
template <class T>
view<const T, 3> tied_over_head(const view<T, 2>& parameter, index headdim)
{
    return {parameter.data(),
            {parameter.extent(0), parameter.extent(1), headdim},
            {parameter.stride(0), parameter.stride(1), 0}};
}

namespace detail {

/// The indices' values are looked at only where the host can see them.
template <class T>
void check_selective_state_update(const selective_state_update_args<T>& a, memory where)
{
    static_assert(storage_element<T>);
    constexpr const char* op = "selective_state_update";
    const axis batch{"batch", a.u.extent(0)}, nheads{"nheads", a.u.extent(1)}, headdim{"headdim", a.u.extent(2)};
    const axis state{"state", a.h.extent(3)}, groups{"ngroups", a.B.extent(1)};
    const bool indexed = a.state_batch_indices.data() != nullptr;
    require_shape(op, "h", a.h, {indexed ? axis{"entries"} : batch, nheads, headdim, state});
    require_shape(op, "delta", a.delta, {batch, nheads, headdim});
    require_shape(op, "A", a.A, {nheads, headdim, state});
    require_shape(op, "B", a.B, {batch, {"ngroups"}, state});
    require_shape(op, "C", a.C, {batch, groups, state});
    require_groups(op, "B", nheads.extent == 1 ? headdim.extent : nheads.extent, groups.extent);
    require_shape_if_given(op, "D", a.D, {nheads, headdim});
    require_shape_if_given(op, "z", a.z, {batch, nheads, headdim});
    require_shape_if_given(op, "delta_bias", a.delta_bias, {nheads, headdim});
    require_shape_if_given(op, "state_batch_indices", a.state_batch_indices, {batch});
    for (index b = 0; where == memory::host && b < a.state_batch_indices.extent(0); ++b) {
        require(a.state_batch_indices[b] < a.h.extent(0), op, "state_batch_indices", "names an entry that h does not have");
    }
    require_shape(op, "y", a.y, {batch, nheads, headdim});
    const named_footprint outputs[] = {named("h", a.h), named("y", a.y)};
    const named_footprint inputs[] = {named("u", a.u), named("delta", a.delta), named("A", a.A), named("B", a.B),
                                      named("C", a.C), named("D", a.D), named("z", a.z), named("delta_bias", a.delta_bias),
                                      named("state_batch_indices", a.state_batch_indices)};
    require_distinct_elements(op, "h", a.h);
    require_distinct_elements(op, "y", a.y);
    require_disjoint(op, outputs, inputs);
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit, the indices are entries of h and nothing written overlaps
/// an input. Other values are trusted.
template <class T>
void check(const selective_state_update_args<T>& a)
{
    detail::check_selective_state_update(a, detail::memory::host);
}

}  // namespace ssmkit
