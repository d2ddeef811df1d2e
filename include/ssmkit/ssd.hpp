#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/ssd_task.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which ssd(a) runs on any resource of at most this concurrency. In values of compute_t<T>: for
/// each task that runs at once the states of its heads (all of a group for one thread), 2 * 256 * state and some of 32 headdim.
template <class Arch = xsimd::default_arch, class T>
std::size_t ssd_workspace_size(const ssd_args<T>& a, std::size_t concurrency = 1)
{
    std::size_t most = 0;
    for (std::size_t c = 1; c <= concurrency; ++c) {
        most = std::max(most, c * detail::ssd_task_bytes<Arch>(a, detail::ssd_partition(a, c)));
    }
    return most;
}

/// Mamba-2's scan: shapes, equations and options at ssd_args. Throws shape_error before anything is written. Work splits over
/// sequences and heads; the result does not depend on the split, bit for bit, nor on `chunk`, since pieces have a length of
/// their own (unless states at the edges of chunks are asked for). float results lie within 1e-5 of the largest output of a
/// double computation, on every instruction set.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void ssd(const ssd_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const ssd_partition partition(a, concurrency(exec));
    const std::size_t bytes = ssd_task_bytes<Arch>(a, partition);
    const scratch own("ssd", memory, bytes * concurrency(exec));
    const auto parts = static_cast<std::size_t>(partition.count);
    run_tasks(exec, static_cast<std::size_t>(ssd_sequence_count(a)) * parts, [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(slot * bytes, bytes));
        const ssd_scratch<Arch, T> m(part, a, partition);
        ssd_task<Arch, T>(a, partition, m, static_cast<index>(task / parts), static_cast<index>(task % parts)).run();
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void ssd(const ssd_args<T>& a, Exec&& exec)
{
    ssd<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
