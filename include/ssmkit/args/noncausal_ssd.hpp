#pragma once

#include <limits>

#include <ssmkit/args/ssd.hpp>

namespace ssmkit {

/// The non-causal state space dual of vision models: every token sees all of them, each with the weight that it enters the
/// state with, and nothing decays.
///
///     w_t = min(max(r_t, delta_min), delta_max),  r_t = softplus(delta_t + delta_bias)  or  delta_t + delta_bias
///     H   = initial_state + Σ_t w_t u_t ⊗ B_t         a matrix (headdim, state) for every head
///     y_t = (H C_t + D u_t) silu(z_t)
///
/// Shi et al., "VSSD: Vision Mamba with Non-Causal State Space Duality", arXiv:2407.18559, whose m is w; what ssd weighs its
/// inputs with is w = Δ. Members and shapes are those of ssd_args; there is no order of visiting. H adds up: that of some
/// tokens is the initial_state of others, wherever a sequence is cut, before any of them is asked for its outputs.
template <class T>
struct noncausal_ssd_args {
    using compute = compute_t<T>;

    view<const T, 4> u{};                    ///< (batch, length, nheads, headdim)     input
    view<const T, 3> delta{};                ///< (batch, length, nheads)              weight before bias and softplus
    view<const T, 4> B{}, C{};               ///< (batch, length, ngroups, state)      input and output map
    view<const compute, 2> D{};              ///< (nheads, headdim)                    skip; optional
    view<const T, 4> z{};                    ///< (batch, length, nheads, headdim)     gate; optional
    view<const compute, 1> delta_bias{};     ///< (nheads)                             optional
    bool delta_softplus = false;             ///<                                      apply softplus to delta + delta_bias
    compute delta_min = 0;                   ///<                                      limits of the weight after that:
                                             ///<                                      delta_min <= delta_max
    compute delta_max = std::numeric_limits<compute>::infinity();
    view<const compute, 4> initial_state{};  ///< (sequences, nheads, headdim, state)  optional: zero
    view<const index, 1> cu_seqlens{};       ///< (sequences + 1)                      first token of each sequence, then length;
                                             ///<                                      optional, for batch = 1
    view<T, 4> y{};                          ///< (batch, length, nheads, headdim)     output
    view<compute, 4> final_state{};          ///< (sequences, nheads, headdim, state)  H; optional
};

namespace detail {

/// The same as arguments of ssd, with rates of zero.
template <class T>
ssd_args<T> noncausal_ssd_as_ssd(const noncausal_ssd_args<T>& a)
{
    static const compute_t<T> zero = 0;
    return {.u = a.u,
            .delta = a.delta,
            .A = {&zero, {a.u.extent(2)}, {0}},
            .B = a.B,
            .C = a.C,
            .D = a.D,
            .z = a.z,
            .delta_bias = a.delta_bias,
            .delta_softplus = a.delta_softplus,
            .delta_min = a.delta_min,
            .delta_max = a.delta_max,
            .initial_state = a.initial_state,
            .cu_seqlens = a.cu_seqlens,
            .form = ssd_form::chunked,
            .y = a.y,
            .final_state = a.final_state};
}

}  // namespace detail

/// Throws shape_error, naming the argument, unless the shapes fit, the limits are in order and no output overlaps an input or
/// another output. Values are trusted, except for cu_seqlens.
template <class T>
void check(const noncausal_ssd_args<T>& a)
{
    detail::check_ssd("noncausal_ssd", detail::noncausal_ssd_as_ssd(a));
}

}  // namespace ssmkit
