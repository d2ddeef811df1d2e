#pragma once

#include <complex>
#include <cstdint>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// How the time-varying parameters B and C are stored: like the inputs if A is real, as complex numbers if A is complex.
template <class T, class Param>
using selective_element_t = std::conditional_t<detail::is_complex<Param>, Param, T>;

/// The selective scan of Mamba over whole sequences.
///
///     Δ_t = softplus(delta_t + delta_bias)            or delta_t + delta_bias
///     h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t u_t          Gu & Dao, "Mamba", arXiv:2312.00752, eqs. 2a, 2b and 4, with Δ B for
///     p_t = C_t·h_t + D u_t                           eq. 4's B̄ as the authors' code has it; for complex A, 2 Re(C_t·h_t),
///     y_t = p_t silu(z_t)                             each state standing for a conjugate pair
///
/// T is how inputs and outputs are stored (float, double, bfloat16, float16), Param the type of A and of the state: double
/// for T = double and float otherwise, or std::complex of it. Sums and state are in Param, whatever T is.
///
/// Channel c uses group c / (dim / ngroups) of B and C. Any stride is legal, with two consequences: a constant B or C,
/// (dim, state), is a view with ngroups = dim and strides 0 along batch and length (see constant_over_time), and
/// time-contiguous data, (batch, dim, length), is a view with its last two axes transposed. Both cost no time.
template <class T, class Param = compute_t<T>>
struct selective_scan_args {
    using element = selective_element_t<T, Param>;

    view<const T, 3> u{};                      ///< (batch, length, dim)             input
    view<const T, 3> delta{};                  ///< (batch, length, dim)             step size before bias and softplus
    view<const Param, 2> A{};                  ///< (dim, state)                     rate; real part < 0 if stable
    view<const element, 4> B{}, C{};         ///< (batch, length, ngroups, state)  input and output map; same ngroups or dim
    view<const compute_t<T>, 1> D{};           ///< (dim)                            skip; optional
    view<const T, 3> z{};                      ///< (batch, length, dim)             gate; optional
    view<const compute_t<T>, 1> delta_bias{};  ///< (dim)                            optional
    bool delta_softplus = false;               ///<                                  apply softplus to delta + delta_bias
    view<const Param, 3> initial_state{};      ///< (batch, dim, state)              optional: zero
    view<const std::uint8_t, 2> reset{};       ///< (batch, length)                  non-zero: the state is zero before this token
    bool reverse = false;                      ///<                                  visit the tokens from last to first
    view<const index, 1> order{};              ///< (length)                         optional: the position visited at each step,
                                               ///<                                  a permutation (range-checked); reverse applies
                                               ///<                                  to it. y_t lands at the position it belongs to
    view<T, 3> y{};                            ///< (batch, length, dim)             output
    view<T, 3> y_ungated{};                    ///< (batch, length, dim)             p, the output before the gate; optional
    view<Param, 3> final_state{};              ///< (batch, dim, state)              state after the last token visited; optional
    view<const index, 2> snapshot_after{};     ///< (batch, count)                   after how many tokens to emit the state:
                                               ///<                                  ascending, 0 (before any) to length
    view<Param, 4> snapshots{};                ///< (batch, count, dim, state)       those states; given with snapshot_after
};

/// A parameter (dim, state) that does not change with the token, as B or C of the selective scan: (batch, length, dim, state).
template <class T>
view<const T, 4> constant_over_time(const view<T, 2>& parameter, index batch, index length)
{
    return {parameter.data(),
            {batch, length, parameter.extent(0), parameter.extent(1)},
            {0, 0, parameter.stride(0), parameter.stride(1)}};
}

namespace detail {

/// Checks of everything that the forward and the backward pass read; of values only where the host can see them.
template <class T, class Param>
void check_selective_scan_inputs(const char* op, const selective_scan_args<T, Param>& a, memory where = memory::host)
{
    static_assert(storage_element<T>);
    static_assert(std::is_same_v<Param, compute_t<T>> || std::is_same_v<Param, std::complex<compute_t<T>>>,
                  "A and the state are double for T = double, float otherwise, or complex numbers of that");
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    const axis state{"state", a.A.extent(1)}, groups{"ngroups"};
    require_shape(op, "delta", a.delta, {batch, length, dim});
    require_shape(op, "A", a.A, {dim, state});
    require_shape(op, "B", a.B, {batch, length, groups, state});
    require_shape(op, "C", a.C, {batch, length, groups, state});
    require_groups(op, "B", dim.extent, a.B.extent(2));
    require_groups(op, "C", dim.extent, a.C.extent(2));
    require_shape_if_given(op, "D", a.D, {dim});
    require_shape_if_given(op, "z", a.z, {batch, length, dim});
    require_shape_if_given(op, "delta_bias", a.delta_bias, {dim});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, dim, state});
    require_shape_if_given(op, "reset", a.reset, {batch, length});
    require_shape_if_given(op, "order", a.order, {length});
    require_shape_if_given(op, "snapshot_after", a.snapshot_after, {batch, {"count"}});
    if (where == memory::device) return;
    for (index t = 0; t < a.order.extent(0); ++t) {
        require(a.order[t] >= 0 && a.order[t] < length.extent, op, "order", "holds a position outside the sequence");
    }
    for (index b = 0; b < a.snapshot_after.extent(0); ++b) {
        index last = 0;
        for (index i = 0; i < a.snapshot_after.extent(1); ++i) {
            const index tokens = a.snapshot_after(b, i);
            require(tokens >= last && tokens <= length.extent, op, "snapshot_after", "is not ascending from 0 to length");
            last = tokens;
        }
    }
}

template <class T, class Param>
void check_selective_scan(const selective_scan_args<T, Param>& a, memory where)
{
    constexpr const char* op = "selective_scan";
    check_selective_scan_inputs(op, a, where);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    const axis state{"state", a.A.extent(1)}, count{"count", a.snapshot_after.extent(1)};
    require_shape(op, "y", a.y, {batch, length, dim});
    require_shape_if_given(op, "y_ungated", a.y_ungated, {batch, length, dim});
    require_shape_if_given(op, "final_state", a.final_state, {batch, dim, state});
    if (!a.snapshot_after.empty() || !a.snapshots.empty()) {
        require_shape(op, "snapshots", a.snapshots, {batch, count, dim, state});
    }
    const named_footprint outputs[] = {named("y", a.y), named("y_ungated", a.y_ungated), named("final_state", a.final_state),
                                       named("snapshots", a.snapshots)};
    const named_footprint inputs[] = {named("u", a.u), named("delta", a.delta), named("A", a.A), named("B", a.B),
                                      named("C", a.C), named("D", a.D), named("z", a.z), named("delta_bias", a.delta_bias),
                                      named("initial_state", a.initial_state), named("reset", a.reset),
                                      named("order", a.order), named("snapshot_after", a.snapshot_after)};
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "y_ungated", a.y_ungated);
    require_distinct_elements(op, "final_state", a.final_state);
    require_distinct_elements(op, "snapshots", a.snapshots);
    require_disjoint(op, outputs, inputs);
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
/// Values are trusted, except for order and snapshot_after.
template <class T, class Param>
void check(const selective_scan_args<T, Param>& a)
{
    detail::check_selective_scan(a, detail::memory::host);
}

}  // namespace ssmkit
