#pragma once

#include <utility>

#include <ssmkit/args/vandermonde_backward.hpp>
#include <ssmkit/vandermonde_transpose.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which vandermonde_backward(a) runs on any resource of at most this concurrency: for each task
/// that runs at once, about 230 numbers of T and 14 doubles for every pole of a channel.
template <class Arch = xsimd::default_arch, class T>
std::size_t vandermonde_backward_workspace_size(const vandermonde_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena sizes;
    const detail::vandermonde_moments_scratch<T, Arch> one(sizes, a.forward.log_pole.extent(1), a.dK.extent(2));
    return concurrency * sizes.size();
}

/// The gradients of vandermonde: equations at vandermonde_backward_args. Throws shape_error before anything is written. Work
/// splits over dim; the result does not depend on the split, bit for bit. float gradients lie within 4e-6 of the largest one of an
/// exact computation.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void vandermonde_backward(const vandermonde_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const vandermonde_args<T>& f = a.forward;
    const index state = f.log_pole.extent(1);
    const double factor = f.conjugate_pairs ? 2 : 1;
    const std::size_t each = vandermonde_backward_workspace_size<Arch>(a), slots = concurrency(exec);
    const scratch own("vandermonde_backward", memory, slots * each);
    run_tasks(exec, static_cast<std::size_t>(f.log_pole.extent(0)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        arena part(own.memory().subspan(slot * each, each));
        vandermonde_moments_scratch<T, Arch> m(part, state, a.dK.extent(2));
        load_poles<Arch>(f.log_pole[h], m.poles, m.pitch);
        m.moments.prepare(m.poles);
        for (index n = 0; a.dlog_pole.data() && n < state; ++n) a.dlog_pole(h, n) = 0;
        for (index c = 0; c < a.dK.extent(0); ++c) {
            m.moments.of(a.dK[c][h]);
            const planar<const double> sum = m.moments.sum(), weighted = m.moments.weighted();
            for (index n = 0; a.dw.data() && n < state; ++n) {
                a.dw(c, h, n) = {static_cast<T>(factor * sum.re[n]), static_cast<T>(-factor * sum.im[n])};
            }
            for (index n = 0; a.dlog_pole.data() && n < state; ++n) {
                const std::complex<T>& w = f.w(c, h, n);
                const double re = factor * static_cast<double>(w.real()), im = factor * static_cast<double>(w.imag());
                a.dlog_pole(h, n) += std::complex<double>(re * weighted.re[n] - im * weighted.im[n],
                                                          -re * weighted.im[n] - im * weighted.re[n]);
            }
        }
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void vandermonde_backward(const vandermonde_backward_args<T>& a, Exec&& exec)
{
    vandermonde_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
