#pragma once

#include <array>
#include <cstddef>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The long convolution over several axes with kernels that are products of one for each axis, or means of such products: S4ND.
///
///     y = 1/ranks Σ_q (k_1^q ⊗ k_2^q ⊗ ...) * u + D u                  Nguyen et al., "S4ND", arXiv:2210.06583, section 3
///
/// along every axis with kernels for both directions as in fft_conv, of which the second looks from the next sample on. Rows
/// of a kernel are ordered by rank, then channel: q * channels + c. A NaN or an infinity reaches what depends on it and
/// may reach anything of its (batch, dim), but nothing of another.
template <class T, std::size_t Axes>
struct separable_conv_args {
    view<const T, 2 + Axes> u{};                     ///< (batch, dim, length ...)
    std::array<view<const T, 3>, Axes> k{};          ///< of each axis: (ranks * channels, dim, width)
    std::array<view<const T, 3>, Axes> k_reverse{};  ///< the same, optional: taps for the samples to come
    index ranks = 1;
    view<const T, 2> D{};                            ///< (channels, dim)  optional: zero
    view<T, 3 + Axes> y{};                           ///< (batch, channels, dim, length ...)  output
};

/// The gradients of separable_conv. One whose view is left empty is not computed.
template <class T, std::size_t Axes>
struct separable_conv_backward_args {
    separable_conv_args<T, Axes> forward{};           ///< y may be left empty
    view<const T, 3 + Axes> dy{};                     ///< (batch, channels, dim, length ...)
    view<T, 2 + Axes> du{};                           ///< outputs, each optional: as what they belong to
    std::array<view<T, 3>, Axes> dk{}, dk_reverse{};
    view<T, 2> dD{};
};

namespace detail {

template <class T, std::size_t Axes>
void check_separable_inputs(const char* op, const separable_conv_args<T, Axes>& a)
{
    static_assert(Axes >= 1 && Axes <= 3);
    require(a.ranks >= 1, op, "ranks", "is less than 1");
    const index rows = a.k[0].extent(0), dim = a.u.extent(1);
    require(rows % a.ranks == 0, op, "k[0]", "has rows that the ranks do not divide");
    for (const index extent : a.u.extents()) require(extent >= 0, op, "u", "has a negative extent");
    for (std::size_t i = 0; i < Axes; ++i) {
        require_shape(op, "k", a.k[i], {{"ranks * channels", rows}, {"dim", dim}, {"width"}});
        require_shape_if_given(op, "k_reverse", a.k_reverse[i], {{"ranks * channels", rows}, {"dim", dim}, {"width"}});
    }
    require_shape_if_given(op, "D", a.D, {{"channels", rows / a.ranks}, {"dim", dim}});
}

/// What y and its gradient must have: u's extents and the channels.
template <class T, std::size_t Axes, class U>
void require_separable_output(const char* op, const char* argument, const separable_conv_args<T, Axes>& a,
                              const view<U, 3 + Axes>& y)
{
    bool fits = y.extent(0) == a.u.extent(0) && y.extent(1) == a.k[0].extent(0) / a.ranks;
    for (std::size_t i = 1; i < 2 + Axes; ++i) fits = fits && y.extent(i + 1) == a.u.extent(i);
    require(fits, op, argument, "does not have the shape (batch, channels, dim, length ...) of u and k");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input. Values are trusted.
template <class T, std::size_t Axes>
void check(const separable_conv_args<T, Axes>& a)
{
    using namespace detail;
    constexpr const char* op = "separable_conv";
    check_separable_inputs(op, a);
    require_separable_output(op, "y", a, a.y);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("y", a.y)}, others[] = {named("u", a.u), named("D", a.D)};
    require_disjoint(op, outputs, others);
    for (std::size_t i = 0; i < Axes; ++i) {
        const named_footprint kernels[] = {named("k", a.k[i]), named("k_reverse", a.k_reverse[i])};
        require_disjoint(op, outputs, kernels);
    }
}

template <class T, std::size_t Axes>
void check(const separable_conv_backward_args<T, Axes>& a)
{
    using namespace detail;
    constexpr const char* op = "separable_conv_backward";
    const separable_conv_args<T, Axes>& f = a.forward;
    check_separable_inputs(op, f);
    require_separable_output(op, "dy", f, a.dy);
    if (a.du.data()) require(a.du.extents() == f.u.extents(), op, "du", "does not have u's shape");
    if (a.dD.data()) require_shape(op, "dD", a.dD, {{"channels", f.k[0].extent(0) / f.ranks}, {"dim", f.u.extent(1)}});
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dD", a.dD);
    for (std::size_t i = 0; i < Axes; ++i) {
        if (a.dk[i].data()) require(a.dk[i].extents() == f.k[i].extents(), op, "dk", "does not have k's shape");
        if (a.dk_reverse[i].data())
            require(a.dk_reverse[i].extents() == f.k_reverse[i].extents(), op, "dk_reverse", "does not have k_reverse's shape");
        require_distinct_elements(op, "dk", a.dk[i]);
        require_distinct_elements(op, "dk_reverse", a.dk_reverse[i]);
    }
    named_footprint outputs[2 + 2 * Axes] = {named("du", a.du), named("dD", a.dD)};
    named_footprint inputs[3 + 2 * Axes] = {named("u", f.u), named("D", f.D), named("dy", a.dy)};
    for (std::size_t i = 0; i < Axes; ++i) {
        outputs[2 + 2 * i] = named("dk", a.dk[i]);
        outputs[3 + 2 * i] = named("dk_reverse", a.dk_reverse[i]);
        inputs[3 + 2 * i] = named("k", f.k[i]);
        inputs[4 + 2 * i] = named("k_reverse", f.k_reverse[i]);
    }
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
