#pragma once

#include <cmath>
#include <complex>
#include <cstdint>

#include <ssmkit/args/s5.hpp>

namespace ssmkit {

/// The linear recurrent unit: S5's recurrence with eigenvalues that cannot leave the unit circle and an input normalised for
/// each.
///
///     λ = exp(-exp(nu_log) + i exp(theta_log))         Orvieto et al., "Resurrecting Recurrent Neural Networks for Long
///     h_t = λ h_{t-1} + exp(gamma_log) B u_t           Sequences", arXiv:2303.06349, section 3
///     y_t = Re(C h_t) + D u_t
///
/// T is how u and y are stored; parameters and the state are compute_t<T>. Initial and final state, resets, direction, strides
/// and what may take whose place are as at s5_args.
template <class T>
struct lru_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    view<const real, 1> nu_log{};            ///< (state)
    view<const real, 1> theta_log{};         ///< (state)
    view<const real, 1> gamma_log{};         ///< (state)
    view<const complex, 2> B{};              ///< (state, dim)
    view<const complex, 2> C{};              ///< (out, state)
    view<const real, 1> D{};                 ///< (dim)                 optional: no skip; given, out is dim
    view<const T, 3> u{};                    ///< (batch, length, dim)
    view<const complex, 2> initial_state{};  ///< (batch, state)        optional: zero
    view<const std::uint8_t, 2> reset{};     ///< (batch, length)       optional; non-zero: a sequence begins at this token
    bool reverse = false;                    ///<                       visit the tokens from last to first
    view<T, 3> y{};                          ///< (batch, length, out)  output
    view<complex, 2> final_state{};          ///< (batch, state)        optional
};

namespace detail {

/// The same as S5 with discrete parameters, B̄ = exp(gamma_log) B and Ā = λ in memory for them.
template <class T>
s5_args<T> s5_of(const lru_args<T>& a, const view<const std::complex<compute_t<T>>, 1>& A_bar,
                 const view<const std::complex<compute_t<T>>, 2>& B_bar)
{
    return {.A = A_bar, .B = B_bar, .C = a.C, .D = a.D, .u = a.u, .initial_state = a.initial_state, .reset = a.reset,
            .conjugate_pairs = false, .reverse = a.reverse, .y = a.y, .final_state = a.final_state};
}

template <class T>
void check_lru(const char* op, const lru_args<T>& a)
{
    const axis state{"state", a.nu_log.extent(0)};
    require_shape(op, "nu_log", a.nu_log, {{"state"}});
    require_shape(op, "theta_log", a.theta_log, {state});
    require_shape(op, "gamma_log", a.gamma_log, {state});
    require_shape(op, "B", a.B, {state, {"dim"}});
    // λ stands for A where the shapes of the others are looked at; it has no memory of its own yet.
    check_s5(op, s5_of(a, view<const std::complex<compute_t<T>>, 1>(nullptr, a.nu_log.extent(0)), a.B));
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps another output or an input other than
/// the one it may replace. Values are trusted.
template <class T>
void check(const lru_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "lru";
    check_lru(op, a);
    const axis batch{"batch", a.u.extent(0)}, length{"length", a.u.extent(1)}, out{"out", a.C.extent(0)},
        state{"state", a.B.extent(0)};
    require_shape(op, "y", a.y, {batch, length, out});
    require_shape_if_given(op, "final_state", a.final_state, {batch, state});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "final_state", a.final_state);
    const bool replaces_state = same_elements(a.final_state, a.initial_state);
    const named_footprint outputs[] = {named("y", a.y), named("final_state", a.final_state)};
    const named_footprint inputs[] = {
        named("nu_log", a.nu_log),
        named("theta_log", a.theta_log),
        named("gamma_log", a.gamma_log),
        named("B", a.B),
        named("C", a.C),
        named("D", a.D),
        same_elements(a.y, a.u) ? named_footprint{"u", {}} : named("u", a.u),
        replaces_state ? named_footprint{"initial_state", {}} : named("initial_state", a.initial_state),
        named("reset", a.reset)};
    require_disjoint(op, outputs, inputs);
}

namespace detail {

/// λ, in double: it is raised to the power of every token that is remembered.
template <class R>
std::complex<double> lru_eigenvalue(R nu_log, R theta_log)
{
    return std::polar(std::exp(-std::exp(static_cast<double>(nu_log))), std::exp(static_cast<double>(theta_log)));
}

/// Fills Ā and B̄.
template <class T>
void lru_discretize(const lru_args<T>& a, const view<std::complex<compute_t<T>>, 1>& A_bar,
                    const view<std::complex<compute_t<T>>, 2>& B_bar)
{
    using real = compute_t<T>;
    for (index n = 0; n < a.nu_log.extent(0); ++n) {
        A_bar[n] = static_cast<std::complex<real>>(lru_eigenvalue(a.nu_log[n], a.theta_log[n]));
        const real scale = std::exp(a.gamma_log[n]);
        for (index c = 0; c < a.B.extent(1); ++c) B_bar(n, c) = scale * a.B(n, c);
    }
}

}  // namespace detail
}  // namespace ssmkit
