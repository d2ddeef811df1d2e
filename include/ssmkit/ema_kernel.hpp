#pragma once

#include <cmath>
#include <utility>

#include <ssmkit/args/ema_kernel.hpp>
#include <ssmkit/detail/vandermonde_rows.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// One channel of the moving average: parameters, then p, σ(α) and poles; rows of doubles with zeros behind the last.
template <class T, class Arch>
struct ema_channel {
    index pitch;
    double *delta, *alpha, *beta, *gamma;  // gamma by √state
    double *p, *p_less, *damping, *damping_less;  // σ and 1 - σ of delta and alpha
    pole_row poles;
    planar<double> w;

    ema_channel(arena& memory, index state)
        : pitch(pole_pitch<Arch>(state)),
          delta(row(memory)),
          alpha(row(memory)),
          beta(row(memory)),
          gamma(row(memory)),
          p(row(memory)),
          p_less(row(memory)),
          damping(row(memory)),
          damping_less(row(memory)),
          poles(memory, pitch),
          w(take_planar(memory, pitch))
    {
    }

    [[gnu::noinline, gnu::flatten]] void load(const ema_kernel_args<T>& a, index h)
    {
        using v = vec<double, Arch>;
        const index state = a.delta.extent(1);
        const double over = 1 / std::sqrt(static_cast<double>(state));
        for (index n = 0; n < pitch; ++n) {
            const bool there = n < state;
            delta[n] = there ? static_cast<double>(a.delta(h, n)) : 0;
            alpha[n] = there ? static_cast<double>(a.alpha(h, n)) : 0;
            beta[n] = there ? static_cast<double>(a.beta(h, n)) : 0;
            gamma[n] = there ? over * static_cast<double>(a.gamma(h, n)) : 0;
        }
        for (index i = 0; i < pitch; i += lanes<double, Arch>) {
            const logistic<double, Arch> step(detail::load<double, Arch>(delta + i)), damp(detail::load<double, Arch>(alpha + i));
            const v zero(0.0), lost = step.above * damp.above;
            store(step.above, p + i);
            store(step.below, p_less + i);
            store(damp.above, damping + i);
            store(damp.below, damping_less + i);
            store_complex(complex_vec<double, Arch>{xsimd::log1p(-lost), zero}, poles.log + i);
            store_complex(complex_vec<double, Arch>{v(1.0) - lost, zero}, poles.value + i);
            const v weight = step.above * detail::load<double, Arch>(beta + i) * detail::load<double, Arch>(gamma + i);
            store_complex(complex_vec<double, Arch>{weight, zero}, w + i);
        }
    }

private:
    double* row(arena& memory) const { return memory.take<double>(static_cast<std::size_t>(pitch)); }
};

template <class T, class Arch>
struct ema_scratch {
    ema_channel<T, Arch> channel;
    vandermonde_sums<T, Arch> sums;

    ema_scratch(arena& memory, const ema_kernel_args<T>& a)
        : channel(memory, a.delta.extent(1)), sums(memory, a.delta.extent(1), a.K.extent(1), true)
    {
    }
};

}  // namespace detail

/// Bytes of scratch memory with which ema_kernel(a) runs on any resource of at most this concurrency: for each task that runs at
/// once, about 170 numbers of T and 20 doubles for every component of a channel.
template <class Arch = xsimd::default_arch, class T>
std::size_t ema_kernel_workspace_size(const ema_kernel_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena sizes;
    const detail::ema_scratch<T, Arch> one(sizes, a);
    return concurrency * sizes.size();
}

/// The kernel of Mega's moving average: shapes and equation at ema_kernel_args. Throws shape_error before anything is written.
/// Work splits over dim; the result does not depend on the split, bit for bit. float results lie within 1e-6 of the largest value
/// of an exact computation, at any length.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void ema_kernel(const ema_kernel_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    if (a.K.empty()) return;
    const std::size_t each = ema_kernel_workspace_size<Arch>(a);
    const scratch own("ema_kernel", memory, concurrency(exec) * each);
    const bool streaming = streams_around_caches<Arch>(a.K);
    run_tasks(exec, static_cast<std::size_t>(a.K.extent(0)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        arena part(own.memory().subspan(slot * each, each));
        ema_scratch<T, Arch> m(part, a);
        m.channel.load(a, h);
        m.sums.prepare(m.channel.poles);
        m.sums.write(m.channel.w, a.K[h], streaming);
        if (streaming) streaming_fence();
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void ema_kernel(const ema_kernel_args<T>& a, Exec&& exec)
{
    ema_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
