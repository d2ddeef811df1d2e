#pragma once

#include <utility>

#include <ssmkit/detail/linear_attention_backward_task.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which linear_attention_backward(a) runs on any resource of at most this concurrency. In values
/// of compute_t<T>: up to 4 key a token and group for each of dq, dk and dgk that is asked for, and for each task that runs at
/// once, 4 key a token of the longest sequence and 1100 key besides (AVX-512, float).
template <class Arch = xsimd::default_arch, class T>
std::size_t linear_attention_backward_workspace_size(const linear_attention_backward_args<T>& a, std::size_t concurrency = 1)
{
    const detail::linear_attention_backward_plan<Arch, T> plan(a, {});
    return plan.shared + concurrency * plan.each;
}

/// The gradients of linear_attention and its members: shapes, equations and options at linear_attention_backward_args. Throws
/// shape_error before anything is written. Work splits over sequences, groups and up to four parts of a group's heads; sums
/// across them have a fixed order, so that results do not depend on the number of threads, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void linear_attention_backward(const linear_attention_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const linear_attention_backward_plan<Arch, T> sizes(a, {});
    const scratch own("linear_attention_backward", memory, sizes.shared + slots * sizes.each);
    const linear_attention_backward_plan<Arch, T> plan(a, own.memory());
    run_tasks(exec, static_cast<std::size_t>(plan.tasks()), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(plan.shared + slot * plan.each, plan.each));
        const linear_attention_backward_scratch<Arch, T> m(part, a, plan);
        linear_attention_backward_task<Arch, T>(a, plan, m, static_cast<index>(task)).run();
    });
    const flush_denormals guard;
    linear_attention_add_parts<T>(a.dq, plan, plan.dq);
    linear_attention_add_parts<T>(a.dk, plan, plan.dk);
    linear_attention_add_parts<T>(a.dgk, plan, plan.dgk);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void linear_attention_backward(const linear_attention_backward_args<T>& a, Exec&& exec)
{
    linear_attention_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
