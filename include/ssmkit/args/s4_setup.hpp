#pragma once

#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// What s4_setup makes of an output map.
enum class s4_map {
    prepare,  ///< C̃ = C (I - Ā^length), what s4_kernel takes and S4 trains
    extend,   ///< C̃ (I + Ā^length): from a map prepared for `length` to one for twice that
    recover   ///< C = C̃ (I - Ā^length)^-1, what stepping takes
};

/// The output map of S4 between its two forms (arXiv:2111.00396, section 3.2 and appendix C.3), with Ā the bilinear
/// discretisation of A = diag(Λ, Λ̄) - Σ_r P_r P_r* with step Δ. The map is not prepared anew when A, P or Δ change in training:
/// the prepared one is the parameter. `state` counts conjugate pairs, of which one is given.
template <class T>
struct s4_setup_args {
    view<const double, 2> delta{};          ///< (dim, state)            step size Δ > 0; stride 0 along the state if tied
    view<const std::complex<double>, 2> A{};///< (copies, state)         Λ; channel h has copy h mod copies
    view<const std::complex<T>, 3> P{};     ///< (rank, copies, state)   low-rank part; rank may be 0
    view<const std::complex<T>, 3> C{};     ///< (channels, dim, state)
    index length = 0;                       ///<                         ℓ
    s4_map map = s4_map::prepare;           ///<
    view<std::complex<T>, 3> out{};         ///< (channels, dim, state)  output; may be C, element for element
};

/// Throws shape_error, naming the argument, unless the shapes fit and the output overlaps no input but C. Values are trusted.
template <class T>
void check(const s4_setup_args<T>& a)
{
    using namespace detail;
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    constexpr const char* op = "s4_setup";
    const axis copies{"copies", a.A.extent(0)}, channels{"channels", a.C.extent(0)}, dim{"dim", a.C.extent(1)},
        state{"state", a.C.extent(2)};
    require_shape(op, "C", a.C, {{"channels"}, {"dim"}, {"state"}});
    require_shape(op, "delta", a.delta, {dim, state});
    require_shape(op, "A", a.A, {{"copies"}, state});
    if (a.P.extent(0) != 0) require_shape(op, "P", a.P, {{"rank"}, copies, state});
    require_shape(op, "out", a.out, {channels, dim, state});
    require(dim.extent == 0 || (copies.extent > 0 && dim.extent % copies.extent == 0), op, "A",
            "has copies that do not divide dim");
    require(a.length >= 0, op, "length", "is negative");
    require_distinct_elements(op, "out", a.out);
    const bool replaces =
        static_cast<const void*>(a.out.data()) == static_cast<const void*>(a.C.data()) && a.out.strides() == a.C.strides();
    const named_footprint outputs[] = {named("out", a.out)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("P", a.P),
                                      replaces ? named_footprint{"C", {}} : named("C", a.C)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
