#pragma once

#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// Cauchy sums, several numerators over the same denominators: what S4's kernel is made of.
///
///     out_l = Σ_n v_n / (z_l - w_n)                            Gu et al., "Efficiently Modeling Long Sequences with
///     out_l = Σ_n v_n / (z_l - w_n) + v̄_n / (z_l - w̄_n)        Structured State Spaces", arXiv:2111.00396, section 3.2
///
/// the latter with conjugate_pairs, where state counts pairs and one of each is given. Nodes that all lie on the imaginary axis,
/// as those of S4 do, take half the work then. |z - w| and |z - w̄| are to lie between 1e-9 and 1e9 for float, whose squares
/// would leave its range.
template <class T>
struct cauchy_args {
    view<const std::complex<T>, 3> v{};  ///< (terms, dim, state)   numerators
    view<const std::complex<T>, 1> z{};  ///< (length)              nodes
    view<const std::complex<T>, 2> w{};  ///< (dim, state)          poles, none of which is a node
    bool conjugate_pairs = false;        ///<
    view<std::complex<T>, 3> out{};      ///< (terms, dim, length)  output
};

namespace detail {

template <class T>
void check_cauchy_inputs(const char* op, const cauchy_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    require_shape(op, "v", a.v, {{"terms"}, {"dim"}, {"state"}});
    require_shape(op, "z", a.z, {{"length"}});
    require_shape(op, "w", a.w, {{"dim", a.v.extent(1)}, {"state", a.v.extent(2)}});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input. Values are trusted.
template <class T>
void check(const cauchy_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "cauchy";
    check_cauchy_inputs(op, a);
    require_shape(op, "out", a.out, {{"terms", a.v.extent(0)}, {"dim", a.v.extent(1)}, {"length", a.z.extent(0)}});
    require_distinct_elements(op, "out", a.out);
    const named_footprint outputs[] = {named("out", a.out)};
    const named_footprint inputs[] = {named("v", a.v), named("z", a.z), named("w", a.w)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
