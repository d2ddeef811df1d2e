#pragma once

#include <ssmkit/args/s4_kernel_backward.hpp>
#include <ssmkit/detail/s4_adjoint.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which s4_kernel_backward(a) runs on any resource of at most this concurrency: what s4_kernel takes;
/// 16 (rank + 2) + 8 for every channel of dim and state, whose gradients are summed over the channels of a copy; and for each task
/// that runs at once what 256 nodes need.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4_kernel_backward_workspace_size(const s4_kernel_backward_args<T>& a, std::size_t concurrency = 1)
{
    const detail::s4_backward_plan<Arch, T> plan(a, {});
    return plan.shared + concurrency * plan.each;
}

/// The gradients of S4's kernel: equations at s4_kernel_backward_args. Throws shape_error before anything is written. Cauchy
/// sums are computed anew, 256 nodes at a time, so that nothing is kept from the forward pass. Work splits over dim; the result
/// does not depend on the split, bit for bit. Float gradients with 16 and 64 states, lengths 1024 to 16384 and steps 1e-3 to
/// 1e-1 lie within 1e-5 of the largest of a double computation for HiPPO-LegS, LegT, LagT and the Fourier measure.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4_kernel_backward(const s4_kernel_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("s4_kernel_backward", memory, s4_kernel_backward_workspace_size<Arch>(a, slots));
    const s4_backward_plan<Arch, T> plan(a, own.memory());
    run_tasks(exec, static_cast<std::size_t>(plan.rows.groups(plan.sizes)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        s4_backward_group<Arch>(a, plan, static_cast<index>(task), own.memory().subspan(plan.shared + slot * plan.each, plan.each));
    });
    s4_sum_gradients(a, plan);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4_kernel_backward(const s4_kernel_backward_args<T>& a, Exec&& exec)
{
    s4_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
