#pragma once

#include <complex>

#include <ssmkit/args/linear_scan.hpp>
#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// ConvS5: S5's recurrence at every pixel of a sequence of images, with convolutions in the place of its projections.
///
///     h_t = Ā h_{t-1} + B̄ * u_t                        Smith et al., "Convolutional State Space Models for Long-Range
///     y_t = f Re(C * h_t)                              Spatiotemporal Modeling", arXiv:2310.19694, section 3; f = 2 where h
///                                                      holds one of each conjugate pair
///
/// The convolutions are cross-correlations that keep the size: kernel element (r, c) meets the pixel r - ⌊(rows - 1) / 2⌋
/// below and c - ⌊(columns - 1) / 2⌋ to the right, zero outside. A NaN reaches what depends on it, and one in B or C the pixels too
/// at which its element meets the zeros outside, which are multiplied like others.
///
/// T is how u and y are stored; parameters, which are discrete (see discretize()), and the state are compute_t<T>. Any strides are
/// legal. final_state may be initial_state. A sequence may be cut anywhere: final_state of one piece is initial_state of the next.
template <class T>
struct convs5_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const complex, 1> A{};              ///< (state)
    view<const complex, 4> B{};              ///< (rows, columns, dim, state)         the kernel of the input
    view<const complex, 4> C{};              ///< (rows, columns, state, out)         that of the output; a size of its own
    view<const T, 5> u{};                    ///< (batch, length, height, width, dim) input
    view<const complex, 4> initial_state{};  ///< (batch, height, width, state)       optional: zero
    bool conjugate_pairs = true;             ///<                                     state counts pairs, f = 2; otherwise f = 1
    view<T, 5> y{};                          ///< (batch, length, height, width, out) output
    view<complex, 4> final_state{};          ///< (batch, height, width, state)       optional
};

namespace detail {

template <class T>
void check_convs5(const char* op, const convs5_args<T>& a)
{
    static_assert(storage_element<T>);
    const axis batch{"batch", a.u.extent(0)}, height{"height", a.u.extent(2)}, width{"width", a.u.extent(3)},
        dim{"dim", a.u.extent(4)};
    const axis state{"state", a.A.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, {"length"}, {"height"}, {"width"}, {"dim"}});
    require_shape(op, "A", a.A, {{"state"}});
    require_shape(op, "B", a.B, {{"rows"}, {"columns"}, dim, state});
    require_shape(op, "C", a.C, {{"rows"}, {"columns"}, state, {"out"}});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, height, width, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps another output or an input other than
/// the one it may replace. Values are trusted.
template <class T>
void check(const convs5_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "convs5";
    check_convs5(op, a);
    const axis batch{"batch", a.u.extent(0)}, height{"height", a.u.extent(2)}, width{"width", a.u.extent(3)};
    require_shape(op, "y", a.y, {batch, {"length", a.u.extent(1)}, height, width, {"out", a.C.extent(3)}});
    require_shape_if_given(op, "final_state", a.final_state, {batch, height, width, {"state", a.A.extent(0)}});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const bool replaces_state = same_elements(a.final_state, a.initial_state);
    const named_footprint outputs[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint inputs[] = {
        named("A", a.A), named("B", a.B), named("C", a.C), named("u", a.u),
        replaces_state ? named_footprint{"initial_state", {}} : named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
