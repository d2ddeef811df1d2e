#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/s4d_task.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which s4d(a) runs on any resource of at most this concurrency: for each task that runs at once,
/// the tables of an input's system, some 200 state + 1000 values of compute_t<T> and 64 state + 1000 for each further output map; those
/// of a register of inputs where tokens are not neighbours in memory.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4d_workspace_size(const s4d_args<T>& a, std::size_t concurrency = 1)
{
    return concurrency * detail::s4d_scratch<Arch, T>::size(a, detail::s4d_partition<Arch, T>(a, concurrency).group);
}

/// The layer of S4D: shapes, equations and options at s4d_args. Throws shape_error before anything is written.
///
/// No convolution: chunks of 32 tokens go through the state, as products of small matrices (Dao & Gu, arXiv:2405.21060, section 6,
/// for a system that does not change with time). That takes 4 multiply-adds a token and state and 24 a token, whatever the
/// length, where an FFT takes 10 log2(length) and more, and it leaves the final state. Work splits over channels, and over
/// sequences where channels are few; results do not depend on the number of threads, bit for bit. float results lie within 2e-6
/// of the largest one of a double computation, also after 131072 tokens.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d(const s4d_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const s4d_partition<Arch, T> p(a, slots);
    const std::size_t each = s4d_scratch<Arch, T>::size(a, p.group);
    const scratch own("s4d", memory, slots * each);
    run_tasks(exec, p.tasks(), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * each, each));
        const s4d_scratch<Arch, T> m(part, a, p.group);
        const index h0 = static_cast<index>(task) / p.parts * p.group, b0 = static_cast<index>(task) % p.parts * p.sequences;
        s4d_task<Arch, T>(a, m, h0, std::min(p.group, a.u.extent(2) - h0)).run(b0, std::min(b0 + p.sequences, a.u.extent(0)));
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4d(const s4d_args<T>& a, Exec&& exec)
{
    s4d<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
