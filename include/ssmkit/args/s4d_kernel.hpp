#pragma once

#include <complex>
#include <limits>

#include <ssmkit/args/vandermonde.hpp>

namespace ssmkit {

/// How S4D makes a discrete system of Δ and A; z = Δ A.
enum class s4d_discretization {
    zoh,       ///< λ = e^z,                         β = (e^z - 1) / A = Δ φ(z)
    bilinear,  ///< λ = (1 + z/2) / (1 - z/2),       β = Δ / (1 - z/2)
    dss        ///< λ = e^z, gain and powers as dss_scaling::softmax has them, with ε = 1e-7; f = 1, no initial state
};

/// The convolution kernel of S4D, a diagonal state space model, from its natural parameters.
///
///     K_l = f Re Σ_n C_n B_n β_n λ_n^l              Gu et al., "On the Parameterization and Initialization of Diagonal State
///     K_state_l = f Re Σ_n C_n λ_n^{l+1} s_n         Space Models", arXiv:2206.11893, section 3; f = 2 for pairs, otherwise 1
///
/// K_state is what an initial state s adds to the output. Step sizes and rates are double whatever T is, and poles are computed
/// in double: an error of Δ Im A is multiplied by l. Models store them transformed, as Δ = T_Δ(inv_dt) and
/// A = -T_re(A_real) - i T_im(A_imag) with transforms of parameters.hpp; do that in double as well, and multiply ddelta and dA by
/// to_positive_derivative. Real systems have imaginary parts of zero. Where Δ is tied over the state, delta has stride 0 there
/// (see tied_over_state).
template <class T>
struct s4d_kernel_args {
    view<const double, 2> delta{};                     ///< (dim, state)             step size Δ > 0, before `rate`
    view<const std::complex<double>, 2> A{};           ///< (copies, state)          rate; Re A < 0 for a stable model; channel
                                                       ///<                          h has copy h mod copies; copies divides dim
    view<const std::complex<T>, 2> B{};                ///< (copies, state)          input map
    view<const std::complex<T>, 3> C{};                ///< (channels, dim, state)   output maps
    s4d_discretization method = s4d_discretization::zoh;
    double rate = 1;                                   ///<                          multiplies delta: another sampling rate
    double bandlimit = std::numeric_limits<double>::infinity();  ///<                entries of C where delta |Im A| / 2π is at
                                                       ///<                          least half of it count as 0
    bool conjugate_pairs = true;                       ///<                          state counts pairs, one of each is given
    view<const std::complex<T>, 3> initial_state{};    ///< (batch, dim, state)      s; given if K_state is
    view<T, 3> K{};                                    ///< (channels, dim, length)  output
    view<T, 4> K_state{};                              ///< (batch, channels, dim, length)  output; optional
};

/// A step size a channel, (dim), as (dim, state): for delta and for ddelta, which is then the sum over the state.
template <class T>
view<T, 2> tied_over_state(const view<T, 1>& delta, index state)
{
    return {delta.data(), {delta.extent(0), state}, {delta.stride(0), 0}};
}

namespace detail {

/// What s4d_kernel and its gradients ask of the parameters; `channels` and `dim` are those of C.
template <class T>
void check_s4d_parameters(const char* op, const s4d_kernel_args<T>& a)
{
    static_assert(kernel_element<T>);
    const axis copies{"copies", a.A.extent(0)}, dim{"dim", a.C.extent(1)}, state{"state", a.C.extent(2)};
    require_shape(op, "C", a.C, {{"channels"}, {"dim"}, {"state"}});
    require_shape(op, "delta", a.delta, {dim, state});
    require_shape(op, "A", a.A, {{"copies"}, state});
    require_shape(op, "B", a.B, {copies, state});
    require(dim.extent == 0 || (copies.extent > 0 && dim.extent % copies.extent == 0), op, "A",
            "has copies that do not divide dim");
    require_shape_if_given(op, "initial_state", a.initial_state, {{"batch"}, dim, state});
    require(a.method != s4d_discretization::dss || !a.initial_state.data(), op, "initial_state", "has no meaning with dss");
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input. Values are trusted.
template <class T>
void check(const s4d_kernel_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "s4d_kernel";
    check_s4d_parameters(op, a);
    const axis channels{"channels", a.C.extent(0)}, dim{"dim", a.C.extent(1)};
    require_shape(op, "K", a.K, {channels, dim, {"length"}});
    require_shape_if_given(op, "K_state", a.K_state,
                           {{"batch", a.initial_state.extent(0)}, channels, dim, {"length", a.K.extent(2)}});
    require(!a.K_state.data() || a.initial_state.data(), op, "initial_state", "is not given, but K_state is");
    require_distinct_elements(op, "K", a.K);
    require_distinct_elements(op, "K_state", a.K_state);
    const named_footprint outputs[] = {named("K", a.K), named("K_state", a.K_state)};
    const named_footprint inputs[] = {named("delta", a.delta), named("A", a.A), named("B", a.B), named("C", a.C),
                                      named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
