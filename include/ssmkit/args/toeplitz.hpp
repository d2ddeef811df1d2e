#pragma once

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The product of power series, or of a lower triangular Toeplitz matrix with a vector, row by row:
///
///     y_t = Σ_s u_s v_{t-s},   s = 0 ... t
///
/// A NaN or an infinity reaches what depends on it and may reach all of its row, but no other.
template <class T>
struct toeplitz_args {
    view<const T, 2> u{}, v{};  ///< (rows, length)
    view<T, 2> y{};             ///< (rows, length)  output
};

/// The gradients of toeplitz: du_s = Σ_t dy_t v_{t-s}, dv_s = Σ_t dy_t u_{t-s}. One whose view is left empty is not computed.
template <class T>
struct toeplitz_backward_args {
    view<const T, 2> u{}, v{}, dy{};  ///< (rows, length)
    view<T, 2> du{}, dv{};            ///< (rows, length)  outputs, each optional
};

/// The inverse of a power series, of which the product with g is 1, 0, 0, ...:
///
///     h_0 = 1 / g_0,   h_t = -1/g_0 Σ_m g_m h_{t-m},   m = 1 ... t
///
/// A g_0 of zero gives infinities and NaN.
template <class T>
struct toeplitz_inverse_args {
    view<const T, 2> g{};  ///< (rows, length)
    view<T, 2> h{};        ///< (rows, length)  output
};

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const toeplitz_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "toeplitz";
    const axis rows{"rows", a.u.extent(0)}, length{"length", a.u.extent(1)};
    require_shape(op, "u", a.u, {{"rows"}, {"length"}});
    require_shape(op, "v", a.v, {rows, length});
    require_shape(op, "y", a.y, {rows, length});
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("y", a.y)}, inputs[] = {named("u", a.u), named("v", a.v)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const toeplitz_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "toeplitz_backward";
    const axis rows{"rows", a.u.extent(0)}, length{"length", a.u.extent(1)};
    require_shape(op, "u", a.u, {{"rows"}, {"length"}});
    require_shape(op, "v", a.v, {rows, length});
    require_shape(op, "dy", a.dy, {rows, length});
    require_shape_if_given(op, "du", a.du, {rows, length});
    require_shape_if_given(op, "dv", a.dv, {rows, length});
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dv", a.dv);
    const named_footprint outputs[] = {named("du", a.du), named("dv", a.dv)};
    const named_footprint inputs[] = {named("u", a.u), named("v", a.v), named("dy", a.dy)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const toeplitz_inverse_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "toeplitz_inverse";
    require_shape(op, "g", a.g, {{"rows"}, {"length"}});
    require_shape(op, "h", a.h, {{"rows", a.g.extent(0)}, {"length", a.g.extent(1)}});
    require_distinct_elements(op, "h", a.h);
    const named_footprint outputs[] = {named("h", a.h)}, inputs[] = {named("g", a.g)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
