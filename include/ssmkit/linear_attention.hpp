#pragma once

#include <limits>
#include <utility>

#include <ssmkit/args/linear_attention.hpp>
#include <ssmkit/detail/ssd_task.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Linear attention in the words of ssd: C = q, B = k, Δ u = v, Δ A = g, the state transposed.
template <class T>
ssd_args<T> linear_attention_as_ssd(const linear_attention_args<T>& a)
{
    using R = compute_t<T>;
    static const R one = 1;
    static const T zero{};
    constexpr R infinity = std::numeric_limits<R>::infinity();
    const index nheads = a.v.extent(2);
    const bool by_token = a.gk.data() || a.beta.data();
    return {.u = a.v,
            .delta = a.g.data() ? a.g : view<const T, 3>{&zero, {a.v.extent(0), a.v.extent(1), nheads}, {0, 0, 0}},
            .A = {&one, {nheads}, {0}},
            .B = a.k,
            .C = a.q,
            .delta_min = -infinity,
            .delta_max = infinity,
            .prescaled = true,
            .initial_state = a.initial_state.transposed(2, 3),
            .cu_seqlens = a.cu_seqlens,
            .reverse = a.reverse,
            .form = by_token ? ssd_form::recurrent : ssd_form::automatic,
            .y = a.y,
            .final_state = a.final_state.transposed(2, 3)};
}

template <class T>
ssd_rule<T> linear_attention_rule(const linear_attention_args<T>& a)
{
    return {.log_decay = a.gk, .beta = a.beta, .scale = linear_attention_scale<T>(a.scale, a.k.extent(3))};
}

/// For a function that stands for one member of the family.
template <class T>
void require_member(const char* op, const linear_attention_args<T>& a, bool g, bool gk, bool beta)
{
    const auto given = [&](const auto& argument, bool wanted, const char* name) {
        if (wanted) require(argument.data() != nullptr, op, name, "is missing");
        if (!wanted) require(argument.data() == nullptr, op, name, "is given, which this operation does not take");
    };
    given(a.g, g, "g");
    given(a.gk, gk, "gk");
    given(a.beta, beta, "beta");
}

}  // namespace detail

/// Bytes of scratch memory with which linear_attention(a), or what stands for one of its members, runs on any resource of at
/// most this concurrency: what ssd takes, and 256 key more with gk.
template <class Arch = xsimd::default_arch, class T>
std::size_t linear_attention_workspace_size(const linear_attention_args<T>& a, std::size_t concurrency = 1)
{
    return detail::ssd_bytes<Arch>(detail::linear_attention_as_ssd(a), detail::linear_attention_rule(a), concurrency);
}

/// Any member of the family: shapes, equations and options at linear_attention_args. Throws shape_error before anything is
/// written. One decay a head runs as ssd's matrix products; with gk or beta the state goes token by token, in registers or in
/// the first-level cache. Work splits over sequences and heads; the result does not depend on the split, bit for bit. float
/// results lie within 1e-5 of the largest output of a double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void linear_attention(const linear_attention_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_ssd<Arch>("linear_attention", detail::linear_attention_as_ssd(a), detail::linear_attention_rule(a), memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void linear_attention(const linear_attention_args<T>& a, Exec&& exec)
{
    linear_attention<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

/// RetNet's retention: a decay a head, the same for every token (fixed_decay). Throws shape_error if g is missing or has a
/// stride along length, or if gk or beta is given.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void retention(const linear_attention_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    detail::require_member("retention", a, true, false, false);
    detail::require(a.g.extent(1) <= 1 || a.g.stride(1) == 0, "retention", "g", "has a stride along length: it varies");
    linear_attention<Arch>(a, memory, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void retention(const linear_attention_args<T>& a, Exec&& exec)
{
    retention<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

/// Gated linear attention with a decay a head and token. Throws shape_error if g is missing, or if gk or beta is given.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void simple_gla(const linear_attention_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    detail::require_member("simple_gla", a, true, false, false);
    linear_attention<Arch>(a, memory, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void simple_gla(const linear_attention_args<T>& a, Exec&& exec)
{
    simple_gla<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

/// Gated linear attention with a decay a key and token. Throws shape_error if gk is missing, or if g or beta is given.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void gla(const linear_attention_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    detail::require_member("gla", a, false, true, false);
    linear_attention<Arch>(a, memory, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void gla(const linear_attention_args<T>& a, Exec&& exec)
{
    gla<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

/// The gated delta rule. Throws shape_error if g or beta is missing, or if gk is given.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void gated_delta_rule(const linear_attention_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    detail::require_member("gated_delta_rule", a, true, false, true);
    linear_attention<Arch>(a, memory, std::forward<Exec>(exec));
}

template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void gated_delta_rule(const linear_attention_args<T>& a, Exec&& exec)
{
    gated_delta_rule<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
