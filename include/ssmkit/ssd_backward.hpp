#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/ssd_backward_task.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Adds up the parts' rows in the order of tokens and parts.
template <class Arch, class T>
void ssd_reduce_map(const view<compute_t<T>, 4>& gradient, const ssd_backward_plan<Arch, T>& plan, const compute_t<T>* rows)
{
    using R = compute_t<T>;
    if (gradient.data() == nullptr) return;
    // An axis that is summed over has one element, even where there is nothing to sum.
    const auto distinct = [&](std::size_t axis) { return gradient.stride(axis) == 0 ? index{1} : gradient.extent(axis); };
    for (index b = 0; b < distinct(0); ++b) {
        for (index t = 0; t < distinct(1); ++t) {
            for (index g = 0; g < distinct(2); ++g) {
                for (index k = 0; k < gradient.extent(3); ++k) gradient(b, t, g, k) = R(0);
            }
        }
    }
    const index length = gradient.extent(1);
    for (index b = 0; b < gradient.extent(0); ++b) {
        for (index t = 0; t < length; ++t) {
            for (index g = 0; g < gradient.extent(2); ++g) {
                for (index part = 0; part < plan.parts; ++part) {
                    const R* const row = rows + plan.offset(b, t, g, part, length);
                    R* const out = gradient.pointer(b, t, g);
                    for (index k = 0; k < gradient.extent(3); ++k) out[k * gradient.stride(3)] += row[k];
                }
            }
        }
    }
}

/// Adds up over the sequences what each head has of the parameters' gradients.
template <class Arch, class T>
void ssd_reduce_parameters(const ssd_backward_args<T>& a, const ssd_backward_plan<Arch, T>& plan)
{
    using R = compute_t<T>;
    const index nheads = a.forward.u.extent(2), headdim = a.forward.u.extent(3);
    if (a.dD.data()) {
        const index channels = a.dD.stride(1) == 0 ? 1 : headdim, heads = a.dD.stride(0) == 0 ? 1 : nheads;
        for (index head = 0; head < heads; ++head) {
            for (index c = 0; c < channels; ++c) a.dD(head, c) = R(0);
        }
    }
    for (index head = 0; head < nheads; ++head) {
        R dA = 0, ddelta_bias = 0;
        for (index s = 0; s < plan.sequences; ++s) {
            dA += plan.dA[s * nheads + head];
            ddelta_bias += plan.ddelta_bias[s * nheads + head];
            const R* const dD = plan.dD + (s * nheads + head) * plan.headdim;
            for (index c = 0; a.dD.data() && c < headdim; ++c) a.dD(head, c) += dD[c];
        }
        if (a.dA.data()) a.dA[head] = dA;
        if (a.ddelta_bias.data()) a.ddelta_bias[head] = ddelta_bias;
    }
}

}  // namespace detail

/// Bytes of scratch memory with which ssd_backward(a) runs on any resource of at most this concurrency. In values of
/// compute_t<T>: up to 4 state a token and group for each of dB and dC that is asked for, and for each task that runs at once,
/// a token of the longest sequence, headdim state / 32 + 3 for each of up to 8 heads and 4 state + 64 besides.
template <class Arch = xsimd::default_arch, class T>
std::size_t ssd_backward_workspace_size(const ssd_backward_args<T>& a, std::size_t concurrency = 1)
{
    const detail::ssd_backward_plan<Arch, T> plan(a, {});
    return plan.shared + concurrency * plan.each;
}

/// The gradients of ssd: shapes, equations and options at ssd_backward_args. Throws shape_error before anything is written.
/// States before every 32 tokens are computed first and kept. Work splits over sequences, groups and up to four parts of a
/// group's heads; sums across them have a fixed order, so that results do not depend on the number of threads, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void ssd_backward(const ssd_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const ssd_backward_plan<Arch, T> sizes(a, {});
    const scratch own("ssd_backward", memory, sizes.shared + slots * sizes.each);
    const ssd_backward_plan<Arch, T> plan(a, own.memory());
    run_tasks(exec, static_cast<std::size_t>(plan.tasks()), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        arena part(own.memory().subspan(plan.shared + slot * plan.each, plan.each));
        const ssd_backward_scratch<Arch, T> m(part, a, plan);
        ssd_backward_task<Arch, T>(a, plan, m, static_cast<index>(task)).run();
    });
    const flush_denormals guard;
    ssd_reduce_map(a.dB, plan, plan.dB);
    ssd_reduce_map(a.dC, plan, plan.dC);
    ssd_reduce_parameters(a, plan);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void ssd_backward(const ssd_backward_args<T>& a, Exec&& exec)
{
    ssd_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
