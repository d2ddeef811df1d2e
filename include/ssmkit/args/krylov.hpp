#pragma once

// Krylov sequences of a dense matrix: A^l b, what it gives through c, and A's powers. Small matrices, any length; double inside.

#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// The kernel of a dense discrete system and what belongs to it.
///
///     AbL_l = A^l b,   k_l = c·A^l b,   AL = A^length,   scan = Σ_l A^l v_l
///
/// Outputs are optional, v is given if scan is.
template <class T>
struct krylov_args {
    view<const T, 3> A{};  ///< (dim, state, state)
    view<const T, 2> b{};  ///< (dim, state)
    view<const T, 2> c{};  ///< (dim, state)
    view<const T, 3> v{};  ///< (dim, state, length)  optional
    index length = 0;      ///<
    view<T, 2> k{};        ///< (dim, length)         outputs, here and below
    view<T, 3> AbL{};      ///< (dim, state, length)
    view<T, 3> AL{};       ///< (dim, state, state)
    view<T, 2> scan{};     ///< (dim, state)
};

/// The gradients of k: with ψ_l = Aᵀ ψ_{l+1} + dk_l c,  db = ψ_0,  dc = Σ dk_l A^l b,  dA = Σ_{l≥1} ψ_l (A^{l-1} b)ᵀ.
template <class T>
struct krylov_backward_args {
    krylov_args<T> forward{};  ///<                      A, b, c and length
    view<const T, 2> dk{};     ///< (dim, length)
    view<T, 3> dA{};           ///< (dim, state, state)  outputs, here and below: each optional
    view<T, 2> db{};           ///< (dim, state)
    view<T, 2> dc{};           ///< (dim, state)
};

namespace detail {

template <class T>
void check_krylov_inputs(const char* op, const krylov_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis dim{"dim", a.A.extent(0)}, state{"state", a.A.extent(1)};
    require_shape(op, "A", a.A, {{"dim"}, {"state"}, state});
    require_shape(op, "b", a.b, {dim, state});
    require(a.length >= 0, op, "length", "is negative");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const krylov_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "krylov";
    check_krylov_inputs(op, a);
    const axis dim{"dim", a.A.extent(0)}, state{"state", a.A.extent(1)}, length{"length", a.length};
    if (a.k.data()) require_shape(op, "c", a.c, {dim, state});
    if (a.scan.data()) require_shape(op, "v", a.v, {dim, state, length});
    require_shape_if_given(op, "k", a.k, {dim, length});
    require_shape_if_given(op, "AbL", a.AbL, {dim, state, length});
    require_shape_if_given(op, "AL", a.AL, {dim, state, state});
    require_shape_if_given(op, "scan", a.scan, {dim, state});
    require_distinct_elements(op, "k", a.k);
    require_distinct_elements(op, "AbL", a.AbL);
    require_distinct_elements(op, "AL", a.AL);
    require_distinct_elements(op, "scan", a.scan);
    const named_footprint outputs[] = {named("k", a.k), named("AbL", a.AbL), named("AL", a.AL), named("scan", a.scan)};
    const named_footprint inputs[] = {named("A", a.A), named("b", a.b), named("c", a.c), named("v", a.v)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const krylov_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "krylov_backward";
    const krylov_args<T>& f = a.forward;
    check_krylov_inputs(op, f);
    const axis dim{"dim", f.A.extent(0)}, state{"state", f.A.extent(1)};
    require_shape(op, "c", f.c, {dim, state});
    require_shape(op, "dk", a.dk, {dim, {"length", f.length}});
    require_shape_if_given(op, "dA", a.dA, {dim, state, state});
    require_shape_if_given(op, "db", a.db, {dim, state});
    require_shape_if_given(op, "dc", a.dc, {dim, state});
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "db", a.db);
    require_distinct_elements(op, "dc", a.dc);
    const named_footprint outputs[] = {named("dA", a.dA), named("db", a.db), named("dc", a.dc)};
    const named_footprint inputs[] = {named("A", f.A), named("b", f.b), named("c", f.c), named("dk", a.dk)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
