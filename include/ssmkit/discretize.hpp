#pragma once

// From continuous to discrete time, x' = A x + B u to x_k = Ā x_{k-1} + B̄ u_k, for a diagonal A: one eigenvalue at a time or
// a whole state. Dense A: discretize_dense.hpp, which needs Eigen; this header needs nothing.

#include <cmath>
#include <complex>
#include <type_traits>

#include <ssmkit/check.hpp>
#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit {

namespace detail {

template <class E>
struct real_part_of {
    using type = E;
};
template <class T>
struct real_part_of<std::complex<T>> {
    using type = T;
};

/// a conj(b); for real numbers the product.
template <class E>
E times_conj(E a, E b)
{
    if constexpr (is_complex<E>) {
        return a * std::conj(b);
    } else {
        return a * b;
    }
}

}  // namespace detail

/// The real type of a real or complex element: that of step sizes.
template <class E>
using real_t = typename detail::real_part_of<E>::type;

/// e^z - 1 without the cancellation near z = 0: std::expm1, continued to complex numbers,
///     e^(a+ib) - 1 = expm1(a) cos b - 2 sin²(b/2) + i e^a sin b.
/// The error is a few roundings of |e^z - 1|. A NaN gives NaN.
template <class T>
T expm1(T z)
    requires std::is_floating_point_v<T>
{
    return std::expm1(z);
}

template <class T>
std::complex<T> expm1(std::complex<T> z)
{
    const T a = z.real(), b = z.imag(), half = std::sin(b / 2);
    return {std::expm1(a) * std::cos(b) - 2 * half * half, std::exp(a) * std::sin(b)};
}

/// φ(z) = (e^z - 1) / z with φ(0) = 1, for real and complex z: the φ_1 of exponential integrators. Within a few roundings for
/// every z, where the plain quotient loses log10(1/|z|) digits. A NaN gives NaN.
template <class E>
E exprel(E z)
{
    using T = real_t<E>;
    if (!(std::abs(z) < T(0.5))) return expm1(z) / z;
    // Σ z^k / (k+1)!, nested; the first term left out is below half a rounding at |z| = 1/2.
    constexpr int terms = sizeof(T) > sizeof(float) ? 16 : 8;
    E sum(1);
    for (int k = terms; k > 1; --k) sum = E(1) + sum * z / T(k);
    return sum;
}

/// φ'(z) = (e^z (z - 1) + 1) / z² with φ'(0) = 1/2, as accurate.
template <class E>
E exprel_derivative(E z)
{
    using T = real_t<E>;
    if (!(std::abs(z) < T(0.5))) return (std::exp(z) - exprel(z)) / z;
    // Σ (k+1) z^k / (k+2)!: each term is the one before times z (k+1) / (k (k+2)).
    constexpr int terms = sizeof(T) > sizeof(float) ? 16 : 8;
    E sum(1);
    for (int k = terms - 1; k > 0; --k) sum = E(1) + sum * z * (T(k + 1) / (T(k) * T(k + 2)));
    return sum / T(2);
}

/// How a system is discretised; z = Δ A. Zero-order hold takes the input as constant over a step (S5, arXiv:2208.04933; S4D,
/// arXiv:2206.11893), bilinear is Tustin's trapezoidal rule (S4, arXiv:2111.00396, eq. 3), the Euler forms take the input at
/// one end of the step. The last two are for events that arrive at irregular times (Event-SSM, arXiv:2404.18508): dirac has
/// an impulse at each, async lets the state decay by the time since the previous event but gains by Δ alone.
enum class discretization {
    zoh,             ///< pole e^z                     gain (e^z - 1) / A = Δ φ(z)
    bilinear,        ///< pole (1 + z/2) / (1 - z/2)   gain Δ / (1 - z/2)
    forward_euler,   ///< pole 1 + z                   gain Δ
    backward_euler,  ///< pole 1 / (1 - z)             gain Δ / (1 - z)
    dirac,           ///< pole e^z                     gain 1
    async,           ///< pole e^(interval z)          gain Δ φ(z)
};

/// One discretised eigenvalue: x ← pole x + gain B u.
template <class E>
struct discrete {
    E pole, gain;
};

/// The generalised bilinear transform of one eigenvalue, weight alpha on the end of the step and 1 - alpha on its beginning:
///     pole (1 + (1 - α) Δ A) / (1 - α Δ A),   gain Δ / (1 - α Δ A).
/// alpha = 0 is forward Euler, 1/2 bilinear, 1 backward Euler; α >= 1/2 keeps every Re A <= 0 within the unit circle.
/// Infinite at Δ A = 1/α, which no Re A <= 0 reaches; values are not checked.
template <class E>
discrete<E> generalized_bilinear(E A, std::type_identity_t<real_t<E>> delta, std::type_identity_t<real_t<E>> alpha)
{
    const E z = delta * A, e = E(1) / (E(1) - alpha * z);
    return {(E(1) + (1 - alpha) * z) * e, delta * e};
}

namespace detail {

/// The alpha of the methods that are generalised bilinear transforms; < 0 for the others.
constexpr double alpha_of(discretization method)
{
    switch (method) {
        case discretization::bilinear: return 0.5;
        case discretization::forward_euler: return 0;
        case discretization::backward_euler: return 1;
        default: return -1;
    }
}

}  // namespace detail

/// One eigenvalue A (1 / time), real or complex, over a step delta (time). `interval` is the time that the state decays for in
/// units of delta, 1 unless events are irregular; the gain of async does not feel it, everything else sees the step
/// delta * interval. A = 0 and delta = 0 are exact. Values are trusted, a NaN passes through.
template <class E>
discrete<E> discretize(E A, std::type_identity_t<real_t<E>> delta, discretization method,
                       std::type_identity_t<real_t<E>> interval = 1)
{
    using T = real_t<E>;
    const T step = delta * interval;
    switch (method) {
        case discretization::zoh: return {std::exp(step * A), step * exprel(E(step * A))};
        case discretization::dirac: return {std::exp(step * A), E(1)};
        case discretization::async: return {std::exp(step * A), delta * exprel(E(delta * A))};
        default: return generalized_bilinear(A, step, static_cast<T>(detail::alpha_of(method)));
    }
}

/// Gradients of a loss with respect to what discretize() read. That of a complex A is ∂/∂Re A + i ∂/∂Im A.
template <class E>
struct discretize_gradient {
    E A;
    real_t<E> delta, interval;
};

/// The chain rule through discretize(), with `upstream` the gradients of the pole and of the gain. Gu, Goel & Ré's and Smith et
/// al.'s code leaves this to automatic differentiation, which is NaN at A = 0; φ' is not.
template <class E>
discretize_gradient<E> discretize_backward(E A, std::type_identity_t<real_t<E>> delta, discretization method,
                                           std::type_identity_t<real_t<E>> interval,
                                           const std::type_identity_t<discrete<E>>& upstream)
{
    using T = real_t<E>;
    using detail::times_conj;
    // With s a step: the derivatives of pole and gain by A and by their steps, conjugated where they meet the upstream.
    E pole_A, pole_s, gain_A, gain_s;
    const T step = delta * interval, gain_step = method == discretization::async ? delta : step;
    if (const double alpha = detail::alpha_of(method); alpha >= 0) {
        const E e = E(1) / (E(1) - static_cast<T>(alpha) * step * A), e2 = e * e;
        pole_A = step * e2;
        pole_s = A * e2;
        gain_A = static_cast<T>(alpha) * step * step * e2;
        gain_s = e2;
    } else {
        const E pole = std::exp(step * A);
        pole_A = step * pole;
        pole_s = A * pole;
        gain_A = method == discretization::dirac ? E(0) : gain_step * gain_step * exprel_derivative(E(gain_step * A));
        gain_s = method == discretization::dirac ? E(0) : std::exp(gain_step * A);
    }
    const auto real = [](E x) { return std::real(x); };
    const T d_pole_step = real(times_conj(upstream.pole, pole_s)), d_gain_step = real(times_conj(upstream.gain, gain_s));
    const T d_step = d_pole_step + (method == discretization::async ? T(0) : d_gain_step);
    return {times_conj(upstream.pole, pole_A) + times_conj(upstream.gain, gain_A),
            interval * d_step + (method == discretization::async ? d_gain_step : T(0)), delta * d_step};
}

/// The discrete system of a diagonal state space, E = float, double or std::complex of them:
///
///     Ā = pole(A, Δ),   B̄ = gain(A, Δ) B     row by row
template <class E>
struct discretize_args {
    using real = real_t<E>;

    view<const E, 1> A{};              ///< (state)       rates, 1 / time; for conjugate pairs one of each: state counts pairs
    view<const E, 2> B{};              ///< (state, dim)  input map; optional
    view<const real, 1> delta{};       ///< (state)       step sizes, time; stride 0 where all share one
    view<const real, 1> interval{};    ///< (1)           time since the last event in units of delta; optional, 1 without it
    discretization method = discretization::zoh;
    view<E, 1> A_bar{};                ///< (state)       output
    view<E, 2> B_bar{};                ///< (state, dim)  output; given if B is
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input. Values are trusted.
template <class E>
void check(const discretize_args<E>& a)
{
    using namespace detail;
    constexpr const char* op = "discretize";
    const axis state{"state", a.A.extent(0)}, dim{"dim", a.B.extent(1)};
    require_shape(op, "A", a.A, {{"state"}});
    require_shape_if_given(op, "B", a.B, {state, {"dim"}});
    require_shape(op, "delta", a.delta, {state});
    require_shape_if_given(op, "interval", a.interval, {{"1", 1}});
    require_shape(op, "A_bar", a.A_bar, {state});
    require_shape(op, "B_bar", a.B_bar, {{"state", a.B.extent(0)}, dim});
    require_distinct_elements(op, "A_bar", a.A_bar);
    require_distinct_elements(op, "B_bar", a.B_bar);
    const named_footprint outputs[] = {named("A_bar", a.A_bar), named("B_bar", a.B_bar)};
    const named_footprint inputs[] = {named("A", a.A), named("B", a.B), named("delta", a.delta), named("interval", a.interval)};
    require_disjoint(op, outputs, inputs);
}

/// Fills A_bar and B_bar. Throws as check() does; allocates nothing.
template <class E>
void discretize(const discretize_args<E>& a)
{
    check(a);
    const real_t<E> interval = a.interval.empty() ? real_t<E>(1) : a.interval[0];
    for (index n = 0; n < a.A.extent(0); ++n) {
        const discrete<E> d = discretize(a.A[n], a.delta[n], a.method, interval);
        a.A_bar[n] = d.pole;
        for (index c = 0; c < a.B.extent(1); ++c) a.B_bar(n, c) = d.gain * a.B(n, c);
    }
}

/// The gradients of discretize(). Complex ones are ∂/∂Re + i ∂/∂Im; those that are not asked for are left empty.
template <class E>
struct discretize_backward_args {
    using real = real_t<E>;

    discretize_args<E> forward{};      ///< inputs; the outputs are not needed and may be empty
    view<const E, 1> dA_bar{};         ///< (state)       upstream; optional: zero
    view<const E, 2> dB_bar{};         ///< (state, dim)  upstream; optional: zero
    view<E, 1> dA{};                   ///< (state)
    view<E, 2> dB{};                   ///< (state, dim)
    view<real, 1> ddelta{};            ///< (state)
    view<real, 1> dinterval{};         ///< (1)           summed over the state
};

/// Throws shape_error, naming the argument, unless the shapes fit and no gradient overlaps an input.
template <class E>
void check(const discretize_backward_args<E>& a)
{
    using namespace detail;
    constexpr const char* op = "discretize_backward";
    const discretize_args<E>& f = a.forward;
    const axis state{"state", f.A.extent(0)}, rows{"state", f.B.extent(0)}, dim{"dim", f.B.extent(1)};
    require_shape(op, "A", f.A, {{"state"}});
    require_shape_if_given(op, "B", f.B, {state, {"dim"}});
    require_shape(op, "delta", f.delta, {state});
    require_shape_if_given(op, "interval", f.interval, {{"1", 1}});
    require_shape_if_given(op, "dA_bar", a.dA_bar, {state});
    require_shape_if_given(op, "dB_bar", a.dB_bar, {rows, dim});
    require_shape_if_given(op, "dA", a.dA, {state});
    require_shape_if_given(op, "dB", a.dB, {rows, dim});
    require_shape_if_given(op, "ddelta", a.ddelta, {state});
    require_shape_if_given(op, "dinterval", a.dinterval, {{"1", 1}});
    require_distinct_elements(op, "dA", a.dA);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "ddelta", a.ddelta);
    const named_footprint outputs[] = {named("dA", a.dA), named("dB", a.dB), named("ddelta", a.ddelta),
                                       named("dinterval", a.dinterval)};
    const named_footprint inputs[] = {named("A", f.A), named("B", f.B), named("delta", f.delta),
                                      named("interval", f.interval), named("dA_bar", a.dA_bar), named("dB_bar", a.dB_bar)};
    require_disjoint(op, outputs, inputs);
}

/// Fills the gradients that are given, in double whatever E is: the steps' gradients are sums that may cancel. Throws as check()
/// does; allocates nothing.
template <class E>
void discretize_backward(const discretize_backward_args<E>& a)
{
    check(a);
    using wide = std::conditional_t<detail::is_complex<E>, std::complex<double>, double>;
    const discretize_args<E>& f = a.forward;
    const double interval = f.interval.empty() ? 1.0 : static_cast<double>(f.interval[0]);
    double dinterval = 0;
    for (index n = 0; n < f.A.extent(0); ++n) {
        const wide A(f.A[n]);
        const auto delta = static_cast<double>(f.delta[n]);
        const wide gain = discretize(A, delta, f.method, interval).gain;
        discrete<wide> upstream{a.dA_bar.empty() ? wide(0) : wide(a.dA_bar[n]), wide(0)};
        for (index c = 0; c < f.B.extent(1); ++c) {
            const wide g = a.dB_bar.empty() ? wide(0) : wide(a.dB_bar(n, c));
            upstream.gain += detail::times_conj(g, wide(f.B(n, c)));
            if (!a.dB.empty()) a.dB(n, c) = static_cast<E>(detail::times_conj(g, gain));
        }
        const discretize_gradient<wide> d = discretize_backward(A, delta, f.method, interval, upstream);
        if (!a.dA.empty()) a.dA[n] = static_cast<E>(d.A);
        if (!a.ddelta.empty()) a.ddelta[n] = static_cast<real_t<E>>(d.delta);
        dinterval += d.interval;
    }
    if (!a.dinterval.empty()) a.dinterval[0] = static_cast<real_t<E>>(dinterval);
}

}  // namespace ssmkit
