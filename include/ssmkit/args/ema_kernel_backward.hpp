#pragma once

#include <ssmkit/args/ema_kernel.hpp>

namespace ssmkit {

/// The gradients of ema_kernel, γ' = γ / √state:
///
///     S0 = Σ_l dK_l q^l,  S1 = Σ_l l dK_l q^{l-1},   g(q) = p β γ' S1,  g(p) = β γ' S0 - σ(α) g(q)
///     dδ = g(p) p (1 - p),  dα = -p g(q) σ(α) (1 - σ(α)),  dβ = p γ' S0,  dγ = p β S0 / √state
///
/// A gradient whose view is left empty is neither computed nor written.
template <class T>
struct ema_kernel_backward_args {
    ema_kernel_args<T> forward{};         ///<                its inputs; K may be empty
    view<const T, 2> dK{};                ///< (dim, length)  gradient of K
    view<T, 2> ddelta{}, dalpha{};        ///< (dim, state)   outputs, here and below: each optional
    view<T, 2> dbeta{}, dgamma{};         ///< (dim, state)
};

/// Throws shape_error, naming the argument, unless the shapes fit and no output overlaps an input or another output.
template <class T>
void check(const ema_kernel_backward_args<T>& a)
{
    using namespace detail;
    constexpr const char* op = "ema_kernel_backward";
    const ema_kernel_args<T>& f = a.forward;
    check_ema_parameters(op, f);
    const axis dim{"dim", f.delta.extent(0)}, state{"state", f.delta.extent(1)};
    require_shape(op, "dK", a.dK, {dim, {"length"}});
    const auto optional = [&](const char* name, const view<T, 2>& v) {
        require_shape_if_given(op, name, v, {dim, state});
        require_distinct_elements(op, name, v);
    };
    optional("ddelta", a.ddelta);
    optional("dalpha", a.dalpha);
    optional("dbeta", a.dbeta);
    optional("dgamma", a.dgamma);
    const named_footprint outputs[] = {named("ddelta", a.ddelta), named("dalpha", a.dalpha), named("dbeta", a.dbeta),
                                       named("dgamma", a.dgamma)};
    const named_footprint inputs[] = {named("delta", f.delta), named("alpha", f.alpha), named("beta", f.beta),
                                      named("gamma", f.gamma), named("dK", a.dK)};
    require_disjoint(op, outputs, inputs);
}

}  // namespace ssmkit
