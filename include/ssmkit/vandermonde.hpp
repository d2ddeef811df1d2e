#pragma once

#include <complex>
#include <utility>

#include <ssmkit/args/vandermonde.hpp>
#include <ssmkit/detail/vandermonde_rows.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// log λ of a channel, and λ. Zero where λ is: the logarithm is bounded at e^-1000, which any power leaves at zero.
template <class Arch>
void load_poles(const view<const std::complex<double>, 1>& log_pole, const pole_row& to, index pitch)
{
    load_planar(log_pole, to.log, pitch);
    for (index n = 0; n < log_pole.extent(0); ++n) to.log.re[n] = to.log.re[n] < -1000 ? -1000 : to.log.re[n];
    exponentiate_poles<Arch>(to, pitch);
}

/// Scratch memory of a task.
template <class T, class Arch>
struct vandermonde_scratch {
    index pitch;
    pole_row poles;
    planar<double> w;
    vandermonde_sums<T, Arch> sums;

    vandermonde_scratch(arena& memory, const vandermonde_args<T>& a)
        : pitch(pole_pitch<Arch>(a.log_pole.extent(1))), poles(memory, pitch), w(take_planar(memory, pitch)),
          sums(memory, a.log_pole.extent(1), a.K.extent(2), false)
    {
    }
};

}  // namespace detail

/// Bytes of scratch memory with which vandermonde(a) runs on any resource of at most this concurrency: for each task that runs
/// at once, about 230 numbers of T and 12 doubles for every pole of a channel.
template <class Arch = xsimd::default_arch, class T>
std::size_t vandermonde_workspace_size(const vandermonde_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena sizes;
    const detail::vandermonde_scratch<T, Arch> one(sizes, a);
    return concurrency * sizes.size();
}

/// Sums of powers: shapes and equation at vandermonde_args. Throws shape_error before anything is written. Work splits over dim;
/// the result does not depend on the split, bit for bit. float results lie within 1e-6 of the largest sum of |w| of an exact
/// computation with the same poles, at any length.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void vandermonde(const vandermonde_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    if (a.K.empty()) return;
    const std::size_t each = vandermonde_workspace_size<Arch>(a), slots = concurrency(exec);
    const scratch own("vandermonde", memory, slots * each);
    const bool streaming = streams_around_caches<Arch>(a.K);
    run_tasks(exec, static_cast<std::size_t>(a.K.extent(1)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        arena part(own.memory().subspan(slot * each, each));
        vandermonde_scratch<T, Arch> m(part, a);
        load_poles<Arch>(a.log_pole[h], m.poles, m.pitch);
        m.sums.prepare(m.poles);
        for (index c = 0; c < a.K.extent(0); ++c) {
            load_planar(a.w[c][h], m.w, m.pitch, a.conjugate_pairs ? 2 : 1);
            m.sums.write(m.w, a.K[c][h], streaming);
        }
        if (streaming) streaming_fence();
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void vandermonde(const vandermonde_args<T>& a, Exec&& exec)
{
    vandermonde<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
