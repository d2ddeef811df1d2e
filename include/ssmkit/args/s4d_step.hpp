#pragma once

#include <complex>

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit {

/// The recurrence of a diagonal state space model, one token or a block of any length at a time, with the state carried in
/// memory: S4D as an audio thread or a decoder runs it. Nothing is allocated, locked or, once checked, thrown; decayed states
/// cost no more than others.
///
///     x_t = λ x_{t-1} + B̄ u_t,   y_t = f Re Σ_n C_n x_t + D u_t        f = 2 for conjugate pairs, otherwise 1
///
/// λ and B̄ are made once: by s4d_discretize from S4D's parameters. A sequence may be cut anywhere, which changes no bit. y is
/// that of the convolution with s4d_kernel's K and, for the state it begins with, K_state.
template <class T>
struct s4d_step_args {
    view<std::complex<T>, 3> h{};           ///< (batch, dim, state)               the state: read, then overwritten
    view<const std::complex<T>, 2> pole{};  ///< (dim, state)                      λ
    view<const std::complex<T>, 2> input{}; ///< (dim, state)                      B̄
    view<const std::complex<T>, 3> C{};     ///< (channels, dim, state)            output maps
    view<const T, 2> D{};                   ///< (channels, dim)                   skip; optional
    bool conjugate_pairs = true;            ///<                                   state counts pairs, one of each is given
    view<const T, 3> u{};                   ///< (batch, length, dim)              input
    view<T, 4> y{};                         ///< (batch, length, channels, dim)    output
};

/// Throws shape_error, naming the argument, unless the shapes fit and nothing written overlaps an input. Values are trusted.
template <class T>
void check(const s4d_step_args<T>& a)
{
    using namespace detail;
    static_assert(kernel_element<T>);
    constexpr const char* op = "s4d_step";
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, dim{"dim", a.u.extent(2)};
    const axis state{"state", a.h.extent(2)}, channels{"channels", a.C.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"dim"}});
    require_shape(op, "h", a.h, {batch, dim, {"state"}});
    require_shape(op, "pole", a.pole, {dim, state});
    require_shape(op, "input", a.input, {dim, state});
    require_shape(op, "C", a.C, {{"channels"}, dim, state});
    require_shape_if_given(op, "D", a.D, {channels, dim});
    require_shape(op, "y", a.y, {batch, length, channels, dim});
    require_distinct_elements(op, "h", a.h);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("h", a.h), named("y", a.y)};
    const named_footprint inputs[] = {named("u", a.u), named("pole", a.pole), named("input", a.input), named("C", a.C),
                                      named("D", a.D)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
