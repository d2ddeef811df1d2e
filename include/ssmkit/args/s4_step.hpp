#pragma once

#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// What stepping an S4 model needs, from its natural parameters: the bilinear discretisation in linear form,
///
///     Ā = diag(pole) - Σ_r U_r V_r^T over the full spectrum,   B̄ = gain          arXiv:2111.00396, appendix C.2
///
/// of A = diag(Λ, Λ̄) - Σ_r P_r P_r* with step Δ rate. Half of each conjugate pair is given and computed.
template <class T>
struct s4_step_setup_args {
    view<const double, 2> delta{};            ///< (dim, state)            step size Δ > 0; stride 0 along the state if tied
    view<const std::complex<double>, 2> A{};  ///< (copies, state)         Λ; channel h has copy h mod copies
    view<const std::complex<T>, 2> B{};       ///< (copies, state)         input map
    view<const std::complex<T>, 3> P{};       ///< (rank, copies, state)   low-rank part; rank may be 0
    double rate = 1;                          ///<                         multiplies delta
    view<std::complex<T>, 2> pole{};          ///< (dim, state)            outputs, here and below
    view<std::complex<T>, 2> gain{};          ///< (dim, state)
    view<std::complex<T>, 3> U{}, V{};        ///< (rank, dim, state)
};

/// Steps of S4 in linear form: O(rank state) a token, for audio threads and for carrying a state over chunks.
///
///     h ← pole h - Σ_r U_r <V_r, h> + gain u,   y_c = <C_c, h>          <a, h> = 2 Re Σ_n a_n h_n
///
/// C is the true map, not the prepared one (s4_setup recovers it). Any number of tokens; a sequence may be cut anywhere.
template <class T>
struct s4_step_args {
    view<const std::complex<T>, 2> pole{}, gain{};  ///< (dim, state)                    of s4_step_setup
    view<const std::complex<T>, 3> U{}, V{};        ///< (rank, dim, state)              rank at most 64
    view<const std::complex<T>, 3> C{};             ///< (channels, dim, state)          output maps; optional with y
    view<const T, 3> u{};                           ///< (batch, dim, length)            input
    view<std::complex<T>, 3> h{};                   ///< (batch, dim, state)             the state: read, then overwritten
    view<T, 4> y{};                                 ///< (batch, channels, dim, length)  output; optional
};

namespace detail {

inline constexpr index s4_step_rank = 64;

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const s4_step_setup_args<T>& a)
{
    using namespace detail;
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    constexpr const char* op = "s4_step_setup";
    const axis dim{"dim", a.delta.extent(0)}, state{"state", a.delta.extent(1)}, copies{"copies", a.A.extent(0)},
        rank{"rank", a.P.extent(0)};
    require_shape(op, "delta", a.delta, {{"dim"}, {"state"}});
    require_shape(op, "A", a.A, {{"copies"}, state});
    require_shape(op, "B", a.B, {copies, state});
    if (rank.extent != 0) require_shape(op, "P", a.P, {{"rank"}, copies, state});
    require(dim.extent == 0 || (copies.extent > 0 && dim.extent % copies.extent == 0), op, "A",
            "has copies that do not divide dim");
    require_shape(op, "pole", a.pole, {dim, state});
    require_shape(op, "gain", a.gain, {dim, state});
    if (rank.extent != 0) require_shape(op, "U", a.U, {rank, dim, state});
    if (rank.extent != 0) require_shape(op, "V", a.V, {rank, dim, state});
    require_distinct_elements(op, "pole", a.pole);
    require_distinct_elements(op, "gain", a.gain);
    require_distinct_elements(op, "U", a.U);
    require_distinct_elements(op, "V", a.V);
    const named_footprint outputs[] = {named("pole", a.pole), named("gain", a.gain), named("U", a.U), named("V", a.V)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("B", a.B), named("P", a.P)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const s4_step_args<T>& a)
{
    using namespace detail;
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    constexpr const char* op = "s4_step";
    const axis batch{"batch", a.h.extent(0)}, dim{"dim", a.h.extent(1)}, state{"state", a.h.extent(2)}, rank{"rank", a.U.extent(0)};
    require_shape(op, "h", a.h, {{"batch"}, {"dim"}, {"state"}});
    require_shape(op, "pole", a.pole, {dim, state});
    require_shape(op, "gain", a.gain, {dim, state});
    require(rank.extent <= s4_step_rank, op, "U", "has a rank above 64");
    require(a.V.extent(0) == rank.extent, op, "V", "has another rank than U");
    if (rank.extent != 0) require_shape(op, "U", a.U, {{"rank"}, dim, state});
    if (rank.extent != 0) require_shape(op, "V", a.V, {{"rank"}, dim, state});
    require_shape(op, "u", a.u, {batch, dim, {"length"}});
    if (a.y.data()) require_shape(op, "C", a.C, {{"channels"}, dim, state});
    require_shape_if_given(op, "y", a.y, {batch, {"channels", a.C.extent(0)}, dim, {"length", a.u.extent(2)}});
    require_distinct_elements(op, "h", a.h);
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("h", a.h), named("y", a.y)};
    const named_footprint inputs[] = {named("pole", a.pole), named("gain", a.gain), named("U", a.U),
                                      named("V", a.V),       named("C", a.C),       named("u", a.u)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
