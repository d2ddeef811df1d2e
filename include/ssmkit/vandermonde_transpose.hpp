#pragma once

#include <utility>

#include <ssmkit/args/vandermonde_transpose.hpp>
#include <ssmkit/vandermonde.hpp>

namespace ssmkit {
namespace detail {

/// Scratch memory of a task that sums over rows of this length.
template <class T, class Arch>
struct vandermonde_moments_scratch {
    index pitch;
    pole_row poles;
    vandermonde_moments<T, Arch> moments;

    vandermonde_moments_scratch(arena& memory, index state, index length)
        : pitch(pole_pitch<Arch>(state)), poles(memory, pitch), moments(memory, state, length, false)
    {
    }
};

}  // namespace detail

/// Bytes of scratch memory with which vandermonde_transpose(a) runs on any resource of at most this concurrency: for each task
/// that runs at once, about 230 numbers of T and 14 doubles for every pole of a channel.
template <class Arch = xsimd::default_arch, class T>
std::size_t vandermonde_transpose_workspace_size(const vandermonde_transpose_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena sizes;
    const detail::vandermonde_moments_scratch<T, Arch> one(sizes, a.log_pole.extent(1), a.u.extent(2));
    return concurrency * sizes.size();
}

/// Sums over sequences for every pole: shapes and equations at vandermonde_transpose_args. Throws shape_error before anything is
/// written. Work splits over dim; the result does not depend on the split, bit for bit. float results lie within 1e-6 of the
/// largest Σ |u| (Σ l |u|) of an exact computation with the same poles.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void vandermonde_transpose(const vandermonde_transpose_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t each = vandermonde_transpose_workspace_size<Arch>(a), slots = concurrency(exec);
    const scratch own("vandermonde_transpose", memory, slots * each);
    run_tasks(exec, static_cast<std::size_t>(a.log_pole.extent(0)), [&](std::size_t task, std::size_t slot) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        arena part(own.memory().subspan(slot * each, each));
        vandermonde_moments_scratch<T, Arch> m(part, a.log_pole.extent(1), a.u.extent(2));
        load_poles<Arch>(a.log_pole[h], m.poles, m.pitch);
        m.moments.prepare(m.poles);
        for (index c = 0; c < a.u.extent(0); ++c) {
            m.moments.of(a.u[c][h]);
            if (a.sum.data()) store_planar(m.moments.sum(), a.sum[c][h]);
            if (a.weighted.data()) store_planar(m.moments.weighted(), a.weighted[c][h]);
        }
    });
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void vandermonde_transpose(const vandermonde_transpose_args<T>& a, Exec&& exec)
{
    vandermonde_transpose<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
