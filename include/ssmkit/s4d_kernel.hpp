#pragma once

#include <utility>

#include <ssmkit/args/s4d_kernel.hpp>
#include <ssmkit/detail/diagonal_kernel.hpp>

namespace ssmkit {
namespace detail {

template <class T>
diagonal_kernel<T> s4d_diagonal_kernel(const s4d_kernel_args<T>& a, index length)
{
    const bool dss = a.method == s4d_discretization::dss;
    const pole_gain kind = dss                                        ? pole_gain::softmax
                           : a.method == s4d_discretization::bilinear ? pole_gain::bilinear
                                                                      : pole_gain::zoh;
    return {.delta_re = a.delta,
            .delta_im = a.delta,
            .A = a.A,
            .B = a.B,
            .C = a.C,
            .rule = {kind, 1e-7, static_cast<double>(length)},
            .rate = a.rate,
            .bandlimit = a.bandlimit,
            .factor = a.conjugate_pairs && !dss ? 2.0 : 1.0,
            .initial_state = a.initial_state,
            .K = a.K,
            .K_state = a.K_state};
}

}  // namespace detail

/// Bytes of scratch memory with which s4d_kernel(a) runs on any resource of at most this concurrency: for each task that runs at
/// once, about 230 numbers of T and 26 doubles for every pole of a channel.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4d_kernel_workspace_size(const s4d_kernel_args<T>& a, std::size_t concurrency = 1)
{
    return concurrency * detail::diagonal_kernel_bytes<Arch>(detail::s4d_diagonal_kernel(a, a.K.extent(2)));
}

/// The convolution kernel of S4D: shapes, equations and options at s4d_kernel_args. Throws shape_error before anything is written.
/// Work splits over dim; the result does not depend on the split, bit for bit. float results lie within 1e-6 of the largest
/// sum of |C B β| of an exact computation, at any length; double ones within 1e-12 for phases of up to 1e4 radians.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d_kernel(const s4d_kernel_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_diagonal_kernel<Arch>("s4d_kernel", detail::s4d_diagonal_kernel(a, a.K.extent(2)), memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4d_kernel(const s4d_kernel_args<T>& a, Exec&& exec)
{
    s4d_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
