#pragma once

#include <utility>

#include <ssmkit/detail/ssd_task.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which ssd(a) runs on any resource of at most this concurrency. In values of compute_t<T>: for
/// each task that runs at once the states of its heads (all of a group for one thread), 2 * 256 * state and some of 32 headdim.
template <class Arch = xsimd::default_arch, class T>
std::size_t ssd_workspace_size(const ssd_args<T>& a, std::size_t concurrency = 1)
{
    return detail::ssd_bytes<Arch>(a, detail::ssd_rule<T>{}, concurrency);
}

/// Mamba-2's scan: shapes, equations and options at ssd_args. Throws shape_error before anything is written. Work splits over
/// sequences and heads; the result does not depend on the split, bit for bit, nor on `chunk`, since pieces have a length of
/// their own (unless states at the edges of chunks are asked for). float results lie within 1e-5 of the largest output of a
/// double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void ssd(const ssd_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_ssd<Arch>("ssd", a, detail::ssd_rule<T>{}, memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void ssd(const ssd_args<T>& a, Exec&& exec)
{
    ssd<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
