#pragma once

#include <utility>

#include <ssmkit/args/ema_kernel_backward.hpp>
#include <ssmkit/ema_kernel.hpp>

namespace ssmkit {
namespace detail {

template <class T, class Arch>
struct ema_backward_scratch {
    ema_channel<T, Arch> channel;
    vandermonde_moments<T, Arch> moments;

    ema_backward_scratch(arena& memory, const ema_kernel_backward_args<T>& a)
        : channel(memory, a.forward.delta.extent(1)), moments(memory, a.forward.delta.extent(1), a.dK.extent(1), true)
    {
    }
};

}  // namespace detail

/// Bytes of scratch memory with which ema_kernel_backward(a) runs on any resource of at most this concurrency: for each task that
/// runs at once, about 230 numbers of T and 22 doubles for every component of a channel.
template <class Arch = xsimd::default_arch, class T>
std::size_t ema_kernel_backward_workspace_size(const ema_kernel_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena sizes;
    const detail::ema_backward_scratch<T, Arch> one(sizes, a);
    return concurrency * sizes.size();
}

/// The gradients of ema_kernel: equations at ema_kernel_backward_args. Throws shape_error before anything is written. Work splits
/// over dim; the result does not depend on the split, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void ema_kernel_backward(const ema_kernel_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const ema_kernel_args<T>& f = a.forward;
    const index state = f.delta.extent(1), length = a.dK.extent(1);
    const double over = 1 / std::sqrt(static_cast<double>(state));
    const std::size_t each = ema_kernel_backward_workspace_size<Arch>(a);
    const scratch own("ema_kernel_backward", memory, concurrency(exec) * each);
    run_tasks(exec, static_cast<std::size_t>(f.delta.extent(0)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        arena part(own.memory().subspan(slot * each, each));
        ema_backward_scratch<T, Arch> m(part, a);
        const ema_channel<T, Arch>& c = m.channel;
        m.channel.load(f, h);
        m.moments.prepare(c.poles);
        // By the sums of dK_1, dK_2, ..., as in diagonal_kernel.hpp: no division by q.
        const bool later = length > 1;  // without any, q is not looked at
        if (later) m.moments.of(a.dK[h].slice(0, 1, length - 1));
        const double first = length > 0 ? static_cast<double>(a.dK(h, 0)) : 0;
        for (index n = 0; n < state; ++n) {
            const double sum = later ? m.moments.sum().re[n] : 0, S1 = later ? sum + m.moments.weighted().re[n] : 0;
            const double S0 = later ? first + c.poles.value.re[n] * sum : first;
            const double p = c.p[n], damping = c.damping[n], dq = c.w.re[n] * S1, dp = c.beta[n] * c.gamma[n] * S0 - damping * dq;
            if (a.ddelta.data()) a.ddelta(h, n) = static_cast<T>(dp * p * c.p_less[n]);
            if (a.dalpha.data()) a.dalpha(h, n) = static_cast<T>(-p * dq * damping * c.damping_less[n]);
            if (a.dbeta.data()) a.dbeta(h, n) = static_cast<T>(p * c.gamma[n] * S0);
            if (a.dgamma.data()) a.dgamma(h, n) = static_cast<T>(p * c.beta[n] * S0 * over);
        }
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void ema_kernel_backward(const ema_kernel_backward_args<T>& a, Exec&& exec)
{
    ema_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
