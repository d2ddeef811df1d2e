#pragma once

#include <utility>

#include <ssmkit/args/noncausal_ssd.hpp>
#include <ssmkit/detail/ssd_task.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which noncausal_ssd(a) runs on any resource of at most this concurrency: what ssd takes.
template <class Arch = xsimd::default_arch, class T>
std::size_t noncausal_ssd_workspace_size(const noncausal_ssd_args<T>& a, std::size_t concurrency = 1)
{
    return detail::ssd_bytes<Arch>(detail::noncausal_ssd_as_ssd(a), detail::ssd_rule<T>{.causal = false}, concurrency);
}

/// ssd without an order of tokens: shapes and equations at noncausal_ssd_args. Throws shape_error before anything is written.
/// Two matrix products a head, 2 headdim state multiply-adds a token. Work splits over sequences and heads; the result does
/// not depend on the split, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void noncausal_ssd(const noncausal_ssd_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_ssd<Arch>("noncausal_ssd", detail::noncausal_ssd_as_ssd(a), detail::ssd_rule<T>{.causal = false}, memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void noncausal_ssd(const noncausal_ssd_args<T>& a, Exec&& exec)
{
    noncausal_ssd<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
