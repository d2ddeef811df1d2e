#pragma once

// Liquid-S4's convolution with products of inputs ("PB" kernel). double inside.

#include <algorithm>
#include <cmath>
#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

/// A linear kernel, and for each degree p = 2 ... degree a gain times a sequence of products of p inputs:
///
///     y_t = Σ_m k_0m u_{t-m} + D u_t + Σ_p G_p0 q_p,{length-1-t}        Hasani et al., "Liquid Structural State-Space Models",
///     bidirectional: + Σ_m k_1m u_{t+m+1} + Σ_p G_p1 q_pt              arXiv:2209.12951, section 3.2, as its code has it
///
/// with β = ΔB / (1 - Δw/2), s = 2 Re Σ β_n and G_pc = s^(2^{p-1} - 1) 2 Re Σ_n C_cn β_n. All combinations: q_p takes the
/// subsets of p of the last m inputs in lexicographic order, m the smallest from 2 to length - 1 with binom(m, p) >= length, of
/// which the last `length` are kept. Otherwise q_p multiplies its predecessor by itself, delayed by one token; q_1 = u.
template <class T>
struct liquid_polyb_args {
    view<const T, 3> u{};                     ///< (batch, dim, length)       input
    view<const T, 3> k{};                     ///< (directions, dim, length)  linear kernel; directions: 2 if bidirectional, or 1
    view<const T, 1> D{};                     ///< (dim)                      optional
    view<const double, 1> delta{};            ///< (dim)                      step size
    view<const std::complex<double>, 2> w{};  ///< (dim, state)               poles, one of each conjugate pair, as B and C
    view<const std::complex<T>, 2> B{};       ///< (dim, state)
    view<const std::complex<T>, 3> C{};       ///< (directions, dim, state)
    int degree = 2;                           ///<                            at most 30
    bool all_combinations = true;             ///<
    bool bidirectional = false;               ///<
    view<T, 3> y{};                           ///< (batch, dim, length)       output
};

/// The gradients of liquid_polyb, through the products as well; complex ones are ∂/∂Re + i ∂/∂Im. A gradient whose view is left
/// empty is not written.
template <class T>
struct liquid_polyb_backward_args {
    liquid_polyb_args<T> forward{};           ///<                            y may be empty
    view<const T, 3> dy{};                    ///< (batch, dim, length)
    view<T, 3> du{};                          ///< (batch, dim, length)       outputs, here and below: each optional
    view<T, 3> dk{};                          ///< (directions, dim, length)
    view<T, 1> dD{};                          ///< (dim)
    view<double, 1> ddelta{};                 ///< (dim)
    view<std::complex<double>, 2> dw{};       ///< (dim, state)
    view<std::complex<T>, 2> dB{};            ///< (dim, state)
    view<std::complex<T>, 3> dC{};            ///< (directions, dim, state)
};

namespace detail {

/// min(binom(m, p), limit)
inline index bounded_binomial(index m, int p, index limit)
{
    double value = 1;
    for (int i = 0; i < p; ++i) {
        value = value * static_cast<double>(m - i) / static_cast<double>(i + 1);
        if (m - i <= 0) return 0;
        if (value >= 4e15) return limit;
    }
    return std::min(limit, static_cast<index>(std::llround(value)));
}

/// The m of all combinations; 0 if there is none.
inline index combination_span(index length, int p)
{
    for (index m = 2; m < length; ++m) {
        if (bounded_binomial(m, p, length) >= length) return m;
    }
    return 0;
}

template <class T>
void check_polyb_inputs(const char* op, const liquid_polyb_args<T>& a)
{
    static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>);
    const axis dim{"dim", a.u.extent(1)}, length{"length", a.u.extent(2)}, state{"state", a.B.extent(1)};
    const axis directions{"directions", a.bidirectional ? 2 : 1};
    require_shape(op, "u", a.u, {{"batch"}, {"dim"}, {"length"}});
    require_shape(op, "k", a.k, {directions, dim, length});
    require_shape_if_given(op, "D", a.D, {dim});
    require_shape(op, "delta", a.delta, {dim});
    require_shape(op, "w", a.w, {dim, state});
    require_shape(op, "B", a.B, {dim, {"state"}});
    require_shape(op, "C", a.C, {directions, dim, state});
    require(a.degree >= 1 && a.degree <= 30, op, "degree", "is not from 1 to 30");
    for (int p = 2; p <= a.degree && a.all_combinations && length.extent > 0; ++p) {
        require(combination_span(length.extent, p) > 0, op, "u", "is too short for all combinations of this degree");
    }
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const liquid_polyb_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "liquid_polyb";
    check_polyb_inputs(op, a);
    require_shape(op, "y", a.y, {{"batch", a.u.extent(0)}, {"dim", a.u.extent(1)}, {"length", a.u.extent(2)}});
    require_distinct_elements(op, "y", a.y);
    const named_footprint outputs[] = {named("y", a.y)};
    const named_footprint inputs[] = {named("u", a.u), named("k", a.k), named("D", a.D), named("delta", a.delta), named("w", a.w),
                                      named("B", a.B), named("C", a.C)};
    require_disjoint(op, outputs, inputs);
}

template <class T>
void check(const liquid_polyb_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "liquid_polyb_backward";
    const liquid_polyb_args<T>& f = a.forward;
    check_polyb_inputs(op, f);
    const axis batch{"batch", f.u.extent(0)}, dim{"dim", f.u.extent(1)}, length{"length", f.u.extent(2)},
        state{"state", f.B.extent(1)};
    const axis directions{"directions", f.k.extent(0)};
    require_shape(op, "dy", a.dy, {batch, dim, length});
    require_shape_if_given(op, "du", a.du, {batch, dim, length});
    require_shape_if_given(op, "dk", a.dk, {directions, dim, length});
    require_shape_if_given(op, "dD", a.dD, {dim});
    require_shape_if_given(op, "ddelta", a.ddelta, {dim});
    require_shape_if_given(op, "dw", a.dw, {dim, state});
    require_shape_if_given(op, "dB", a.dB, {dim, state});
    require_shape_if_given(op, "dC", a.dC, {directions, dim, state});
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dk", a.dk);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "ddelta", a.ddelta);
    require_distinct_elements(op, "dw", a.dw);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    const named_footprint outputs[] = {named("du", a.du), named("dk", a.dk), named("dD", a.dD), named("ddelta", a.ddelta),
                                       named("dw", a.dw), named("dB", a.dB), named("dC", a.dC)};
    const named_footprint inputs[] = {named("u", f.u), named("k", f.k), named("D", f.D), named("delta", f.delta), named("w", f.w),
                                      named("B", f.B), named("C", f.C), named("dy", a.dy)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
