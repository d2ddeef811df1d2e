#pragma once

#include <cmath>
#include <complex>

#include <ssmkit/args/lru.hpp>
#include <ssmkit/args/s5_backward.hpp>

namespace ssmkit {

/// The gradients of lru; complex ones are ∂/∂Re + i ∂/∂Im. A gradient whose view is left empty is neither computed nor
/// written; one that is given is overwritten, not added to.
template <class T>
struct lru_backward_args {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    lru_args<T> forward{};                  ///<                       its inputs; y and final_state may be left empty
    view<const T, 3> dy{};                  ///< (batch, length, out)  gradient of y
    view<const complex, 2> dfinal_state{};  ///< (batch, state)        of final_state; optional: zero
    view<real, 1> dnu_log{};                ///< (state)               outputs, here and below: each optional
    view<real, 1> dtheta_log{};             ///< (state)
    view<real, 1> dgamma_log{};             ///< (state)
    view<complex, 2> dB{};                  ///< (state, dim)
    view<complex, 2> dC{};                  ///< (out, state)
    view<real, 1> dD{};                     ///< (dim)
    view<T, 3> du{};                        ///< (batch, length, dim)
    view<complex, 2> dinitial_state{};      ///< (batch, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit, no gradient overlaps an input or another one, and what a
/// gradient belongs to is given.
template <class T>
void check(const lru_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "lru_backward";
    const lru_args<T>& f = a.forward;
    check_lru(op, f);
    const axis batch{"batch", f.u.extent(0)}, length{"length", f.u.extent(1)}, dim{"dim", f.u.extent(2)}, out{"out", f.C.extent(0)};
    const axis state{"state", f.B.extent(0)};
    require_shape(op, "dy", a.dy, {batch, length, out});
    require_shape_if_given(op, "dfinal_state", a.dfinal_state, {batch, state});
    require_shape_if_given(op, "dnu_log", a.dnu_log, {state});
    require_shape_if_given(op, "dtheta_log", a.dtheta_log, {state});
    require_shape_if_given(op, "dgamma_log", a.dgamma_log, {state});
    require_shape_if_given(op, "dB", a.dB, {state, dim});
    require_shape_if_given(op, "dC", a.dC, {out, state});
    require_shape_if_given(op, "dD", a.dD, {dim});
    require_shape_if_given(op, "du", a.du, {batch, length, dim});
    require_shape_if_given(op, "dinitial_state", a.dinitial_state, {batch, state});
    require(!a.dD.data() || f.D.data(), op, "dD", "is asked for although D is not given");
    require_distinct_elements(op, "dnu_log", a.dnu_log);
    require_distinct_elements(op, "dtheta_log", a.dtheta_log);
    require_distinct_elements(op, "dgamma_log", a.dgamma_log);
    require_distinct_elements(op, "dB", a.dB);
    require_distinct_elements(op, "dC", a.dC);
    require_distinct_elements(op, "dD", a.dD);
    require_distinct_elements(op, "du", a.du);
    require_distinct_elements(op, "dinitial_state", a.dinitial_state);
    const named_footprint outputs[] = {named("dnu_log", a.dnu_log),
                                       named("dtheta_log", a.dtheta_log),
                                       named("dgamma_log", a.dgamma_log),
                                       named("dB", a.dB),
                                       named("dC", a.dC),
                                       named("dD", a.dD),
                                       named("du", a.du),
                                       named("dinitial_state", a.dinitial_state)};
    const named_footprint inputs[] = {named("nu_log", f.nu_log), named("theta_log", f.theta_log), named("gamma_log", f.gamma_log),
                                      named("B", f.B), named("C", f.C), named("D", f.D), named("u", f.u),
                                      named("initial_state", f.initial_state), named("reset", f.reset), named("dy", a.dy),
                                      named("dfinal_state", a.dfinal_state)};
    require_disjoint(op, outputs, inputs);
}

namespace detail {

/// From the gradients of Ā and B̄ to those of what they are made of:
///     dnu_log = -Re(dλ conj(e^ν λ)),  dtheta_log = Re(dλ conj(i e^θ λ)),  dgamma_log = Re Σ dB̄ conj(B̄),  dB = e^γ dB̄
template <class T>
void lru_chain(const lru_backward_args<T>& a, const view<const std::complex<compute_t<T>>, 1>& dA_bar,
               const view<const std::complex<compute_t<T>>, 2>& dB_bar)
{
    using real = compute_t<T>;
    using wide = std::complex<double>;
    const lru_args<T>& f = a.forward;
    for (index n = 0; n < f.nu_log.extent(0); ++n) {
        const wide eigenvalue = lru_eigenvalue(f.nu_log[n], f.theta_log[n]);
        const wide upstream = wide(dA_bar[n]) * std::conj(eigenvalue);
        if (a.dnu_log.data()) a.dnu_log[n] = static_cast<real>(-std::exp(static_cast<double>(f.nu_log[n])) * upstream.real());
        if (a.dtheta_log.data())
            a.dtheta_log[n] = static_cast<real>(std::exp(static_cast<double>(f.theta_log[n])) * upstream.imag());
        const double scale = std::exp(static_cast<double>(f.gamma_log[n]));
        double dgamma = 0;
        for (index c = 0; c < f.B.extent(1); ++c) {
            const wide to_B = scale * wide(dB_bar(n, c));
            dgamma += (to_B * std::conj(wide(f.B(n, c)))).real();
            if (a.dB.data()) a.dB(n, c) = static_cast<std::complex<real>>(to_B);
        }
        if (a.dgamma_log.data()) a.dgamma_log[n] = static_cast<real>(dgamma);
    }
}

/// S5's backward call, its gradients of Ā and B̄ into memory for them.
template <class T>
s5_backward_args<T> s5_backward_of(const lru_backward_args<T>& a, const s5_args<T>& forward,
                                   const view<std::complex<compute_t<T>>, 1>& dA_bar,
                                   const view<std::complex<compute_t<T>>, 2>& dB_bar)
{
    return {.forward = forward,
            .dy = a.dy,
            .dfinal_state = a.dfinal_state,
            .dA = dA_bar,
            .dB = dB_bar,
            .dC = a.dC,
            .dD = a.dD,
            .du = a.du,
            .dinitial_state = a.dinitial_state};
}

}  // namespace detail
}  // namespace ssmkit
