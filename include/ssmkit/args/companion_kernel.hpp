#pragma once

// The kernel of a companion state space model. double inside.

#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

///     K_l = c·A^l b                                   Zhang et al., "Effectively Modeling Time Series with Simple Discrete State
///     A = shift down + a e_lastᵀ                      Spaces" (SpaceTime), arXiv:2303.09489, section 3.1
///
/// with a divided by its norm of order 1 or 2; the division is left out for all kernels where their mean norm is at most 1e-4.
template <class T>
struct companion_kernel_args {
    view<const T, 2> a{};  ///< (kernels, state)
    view<const T, 2> b{};  ///< (kernels, state)
    view<const T, 2> c{};  ///< (kernels, state)
    int norm_order = 1;    ///<                   0: a as it is
    view<T, 2> K{};        ///< (kernels, length) output
};

/// The gradients of companion_kernel: ψ_l = Aᵀψ_{l+1} + dK_l c, db = ψ_0, dc = Σ dK_l A^l b, da = Σ_{l≥1} ψ_l (A^{l-1} b)_last,
/// and that of the norm. A gradient whose view is left empty is not written.
template <class T>
struct companion_kernel_backward_args {
    companion_kernel_args<T> forward{};  ///<                   K may be empty
    view<const T, 2> dK{};               ///< (kernels, length)
    view<T, 2> da{}, db{}, dc{};         ///< (kernels, state)  outputs, each optional
};

namespace detail {

template <class T>
void check_companion_inputs(const char* op, const companion_kernel_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis kernels{"kernels", a.a.extent(0)}, state{"state", a.a.extent(1)};
    require_shape(op, "a", a.a, {{"kernels"}, {"state"}});
    require_shape(op, "b", a.b, {kernels, state});
    require_shape(op, "c", a.c, {kernels, state});
    require(a.norm_order >= 0 && a.norm_order <= 2, op, "norm_order", "is not 0, 1 or 2");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const companion_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "companion_kernel";
    check_companion_inputs(op, a);
    require_shape(op, "K", a.K, {{"kernels", a.a.extent(0)}, {"length"}});
    require_distinct_elements(op, "K", a.K);
    const named_footprint outputs[] = {named("K", a.K)};
    const named_footprint inputs[] = {named("a", a.a), named("b", a.b), named("c", a.c)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const companion_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "companion_kernel_backward";
    const companion_kernel_args<T>& f = a.forward;
    check_companion_inputs(op, f);
    const axis kernels{"kernels", f.a.extent(0)}, state{"state", f.a.extent(1)};
    require_shape(op, "dK", a.dK, {kernels, {"length"}});
    require_shape_if_given(op, "da", a.da, {kernels, state});
    require_shape_if_given(op, "db", a.db, {kernels, state});
    require_shape_if_given(op, "dc", a.dc, {kernels, state});
    require_distinct_elements(op, "da", a.da);
    require_distinct_elements(op, "db", a.db);
    require_distinct_elements(op, "dc", a.dc);
    const named_footprint outputs[] = {named("da", a.da), named("db", a.db), named("dc", a.dc)};
    const named_footprint inputs[] = {named("a", f.a), named("b", f.b), named("c", f.c), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
