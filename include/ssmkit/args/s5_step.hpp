#pragma once

#include <complex>

#include <ssmkit/args/s5.hpp>

namespace ssmkit {

/// One token of S5 with discrete parameters, for loops that must answer at once: control, audio, decoding.
///
///     h ← Ā h + B̄ u,   y = f Re(C h) + D u              names and equations as at s5_args; discretize() makes Ā and B̄
///
/// No workspace, no allocation, no lock; once the shapes are right, nothing throws. Fast where the last axes of B, C, h and u
/// are contiguous; with other strides plain loops take over. A block of many tokens is s5 without delta.
template <class T>
struct s5_step_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const complex, 1> A{};   ///< (state)         Ā
    view<const complex, 2> B{};   ///< (state, dim)    B̄
    view<const complex, 2> C{};   ///< (out, state)
    view<const real, 1> D{};      ///< (dim)           optional: no skip; given, out is dim
    view<const T, 2> u{};         ///< (batch, dim)    input
    bool conjugate_pairs = true;  ///<                 state counts pairs, f = 2; otherwise f = 1
    bool liquid = false;          ///<                 Ā + B̄ u in place of Ā
    view<complex, 2> h{};         ///< (batch, state)  read, then overwritten
    view<T, 2> y{};               ///< (batch, out)    output; may be u, element for element
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input, but y may be u. Values are
/// trusted.
template <class T>
void check(const s5_step_args<T>& a)
{
    using namespace detail;
    static_assert(storage_element<T>);
    constexpr const char* op = "s5_step";
    const axis batch{"batch", a.u.extent(0)}, dim{"dim", a.u.extent(1)}, state{"state", a.A.extent(0)}, out{"out", a.C.extent(0)};
    require_shape(op, "u", a.u, {{"batch"}, {"dim"}});
    require_shape(op, "A", a.A, {{"state"}});
    require_shape(op, "B", a.B, {state, dim});
    require_shape(op, "C", a.C, {{"out"}, state});
    require_shape_if_given(op, "D", a.D, {dim});
    require(a.D.data() == nullptr || a.C.extent(0) == a.D.extent(0), op, "D",
            "is given although C has not as many outputs as u has channels");
    require_shape(op, "h", a.h, {batch, state});
    require_shape(op, "y", a.y, {batch, out});
    require_distinct_elements(op, "h", a.h);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("h", a.h), named("y", a.y)};
    const named_footprint inputs[] = {named("A", a.A), named("B", a.B), named("C", a.C), named("D", a.D),
                                      same_elements(a.y, a.u) ? named_footprint{"u", {}} : named("u", a.u)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
