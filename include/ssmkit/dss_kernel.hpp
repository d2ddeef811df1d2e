#pragma once

#include <utility>

#include <ssmkit/args/dss_kernel.hpp>
#include <ssmkit/detail/diagonal_kernel.hpp>

namespace ssmkit {
namespace detail {

/// One of the two columns of (dim, 2), for every pole.
template <class E>
view<E, 2> dss_step(const view<E, 2>& delta, index which, index state)
{
    return {delta.data() ? delta.pointer(0, which) : nullptr, {delta.extent(0), state}, {delta.stride(0), 0}};
}

template <class T>
diagonal_kernel<T> dss_diagonal_kernel(const dss_kernel_args<T>& a, index length)
{
    const pole_gain kind = a.scaling == dss_scaling::softmax       ? pole_gain::softmax
                           : a.scaling == dss_scaling::exponential ? pole_gain::regularised
                                                                   : pole_gain::one;
    const index state = a.A.extent(0);
    return {.delta_re = dss_step(a.delta, 0, state),
            .delta_im = dss_step(a.delta, 1, state),
            .A = {a.A.data(), {1, state}, {0, a.A.stride(0)}},
            .B = {},
            .C = a.W,
            .rule = {kind, a.epsilon, static_cast<double>(length)},
            .initial_state = {},
            .K = a.K,
            .K_state = {}};
}

}  // namespace detail

/// Bytes of scratch memory with which dss_kernel(a) runs on any resource of at most this concurrency: for each task that runs at
/// once, about 230 numbers of T and 26 doubles for every pole.
template <class Arch = xsimd::default_arch, class T>
std::size_t dss_kernel_workspace_size(const dss_kernel_args<T>& a, std::size_t concurrency = 1)
{
    return concurrency * detail::diagonal_kernel_bytes<Arch>(detail::dss_diagonal_kernel(a, a.K.extent(2)));
}

/// The convolution kernel of DSS: shapes, equations and options at dss_kernel_args. Throws shape_error before anything is written.
/// Work splits over dim; the result does not depend on the split, bit for bit. float results lie within 1e-6 of the largest sum
/// of |W g| of an exact computation, at any length.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void dss_kernel(const dss_kernel_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_diagonal_kernel<Arch>("dss_kernel", detail::dss_diagonal_kernel(a, a.K.extent(2)), memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void dss_kernel(const dss_kernel_args<T>& a, Exec&& exec)
{
    dss_kernel<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
