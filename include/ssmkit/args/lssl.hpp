#pragma once

// The linear state space layer: one real dense system, discretised with a step of its own for every channel. double inside.

#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

///     x_l = Ā_h x_{l-1} + B̄_h u_l,   y_lm = Σ_n C_hmn x_ln + D_hm u_l           Gu et al., arXiv:2110.13985, section 3
///     k_hl = Ā_h^l B̄_h
///
/// with the generalised bilinear transform of weight alpha over the step delta_h. The state is that after the last token; LSSL's
/// own code carries Ā x instead.
template <class T>
struct lssl_args {
    view<const T, 2> A{};              ///< (state, state)
    view<const T, 1> B{};              ///< (state)
    view<const double, 1> delta{};     ///< (dim)                           step sizes
    double alpha = 0.5;                ///<                                 0 forward Euler, 1/2 bilinear, 1 backward Euler
    view<const T, 3> u{};              ///< (length, batch, dim)            input
    view<const T, 3> C{};              ///< (dim, channels, state)
    view<const T, 2> D{};              ///< (dim, channels)                 optional
    view<const T, 3> initial_state{};  ///< (batch, dim, state)             optional: zero
    view<T, 4> y{};                    ///< (length, batch, dim, channels)  output; optional
    view<T, 3> k{};                    ///< (dim, state, length)            output; optional
    view<T, 3> final_state{};          ///< (batch, dim, state)             output; optional
};

/// The gradients of y and final_state: s_l = Σ_m dy_lm C_m + Āᵀ s_{l+1}; du_l = B̄·s_l + Σ_m dy_lm D_m; of Ā Σ s_l x_{l-1}ᵀ, of B̄
/// Σ s_l u_l, and from these to delta, A and B (both summed over dim). A gradient whose view is left empty is not written.
template <class T>
struct lssl_backward_args {
    lssl_args<T> forward{};             ///<                                 its outputs may be empty
    view<const T, 4> dy{};              ///< (length, batch, dim, channels)
    view<const T, 3> dfinal_state{};    ///< (batch, dim, state)             optional: zero
    view<T, 2> dA{};                    ///< (state, state)                  outputs, here and below: each optional
    view<T, 1> dB{};                    ///< (state)
    view<double, 1> ddelta{};           ///< (dim)
    view<T, 3> du{};                    ///< (length, batch, dim)
    view<T, 3> dC{};                    ///< (dim, channels, state)
    view<T, 2> dD{};                    ///< (dim, channels)
    view<T, 3> dinitial_state{};        ///< (batch, dim, state)
};

namespace detail {

template <class T>
void check_lssl_inputs(const char* op, const lssl_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis dim{"dim", a.delta.extent(0)}, state{"state", a.B.extent(0)}, batch{"batch", a.u.extent(1)};
    require_shape(op, "A", a.A, {state, state});
    require_shape(op, "u", a.u, {{"length"}, {"batch"}, dim});
    require_shape(op, "C", a.C, {dim, {"channels"}, state});
    require_shape_if_given(op, "D", a.D, {dim, {"channels", a.C.extent(1)}});
    require_shape_if_given(op, "initial_state", a.initial_state, {batch, dim, state});
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const lssl_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "lssl";
    check_lssl_inputs(op, a);
    const axis length{"length", a.u.extent(0)}, batch{"batch", a.u.extent(1)}, dim{"dim", a.u.extent(2)},
        state{"state", a.B.extent(0)};
    require_shape_if_given(op, "y", a.y, {length, batch, dim, {"channels", a.C.extent(1)}});
    require_shape_if_given(op, "k", a.k, {dim, state, length});
    require_shape_if_given(op, "final_state", a.final_state, {batch, dim, state});
    require_distinct_elements(op, "y", a.y);
    require_distinct_elements(op, "k", a.k);
    require_distinct_elements(op, "final_state", a.final_state);
    const named_footprint outputs[] = {named("y", a.y), named("k", a.k), named("final_state", a.final_state)};
    const named_footprint inputs[] = {named("A", a.A), named("B", a.B), named("delta", a.delta), named("u", a.u), named("C", a.C),
                                      named("D", a.D), named("initial_state", a.initial_state)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const lssl_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "lssl_backward";
    const lssl_args<T>& f = a.forward;
    check_lssl_inputs(op, f);
    const axis length{"length", f.u.extent(0)}, batch{"batch", f.u.extent(1)}, dim{"dim", f.u.extent(2)},
        state{"state", f.B.extent(0)};
    const axis channels{"channels", f.C.extent(1)};
    require_shape(op, "dy", a.dy, {length, batch, dim, channels});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, dim, state});
    require_shape_if_given(op, "dA", a.dA, {state, state});
    require_shape_if_given(op, "dB", a.dB, {state});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim});
    require_shape_if_given(op, "du", a.du, {length, batch, dim});
    require_shape_if_given(op, "dC", a.dC, {dim, channels, state});
    require_shape_if_given(op, "dD", a.dD, {dim, channels});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, dim, state});
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("dA", a.dA),
                                       named("dB", a.dB),
                                       named("ddelta", a.ddelta),
                                       named("du", a.du),
                                       named("dC", a.dC),
                                       named("dD", a.dD),
                                       named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("A", f.A), named("B", f.B), named("delta", f.delta), named("u", f.u), named("C", f.C),
                                      named("D", f.D), named("initial_state", f.initial_state), named("dy", a.dy),
                                      named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
