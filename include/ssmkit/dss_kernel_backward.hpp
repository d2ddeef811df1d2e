#pragma once

#include <utility>

#include <ssmkit/args/dss_kernel_backward.hpp>
#include <ssmkit/dss_kernel.hpp>

namespace ssmkit {
namespace detail {

template <class T>
diagonal_kernel_gradients<T> dss_gradients(const dss_kernel_backward_args<T>& a)
{
    const index state = a.forward.A.extent(0);
    const bool one_step = a.ddelta.stride(1) == 0;
    return {.dK = a.dK,
            .dK_state = {},
            .ddelta_re = dss_step(a.ddelta, 0, state),
            .ddelta_im = one_step ? view<double, 2>() : dss_step(a.ddelta, 1, state),
            .dA = {a.dA.data(), {1, state}, {0, a.dA.stride(0)}},
            .dB = {},
            .dC = a.dW,
            .dinitial_state = {}};
}

}  // namespace detail

/// Bytes of scratch memory with which dss_kernel_backward(a) runs on any resource of at most this concurrency: for each task that
/// runs at once, about 230 numbers of T and 42 doubles for every pole; and 4 doubles for every channel and pole.
template <class Arch = xsimd::default_arch, class T>
std::size_t dss_kernel_backward_workspace_size(const dss_kernel_backward_args<T>& a, std::size_t concurrency = 1)
{
    const auto bytes = detail::diagonal_backward_bytes::of<Arch>(detail::dss_diagonal_kernel(a.forward, a.dK.extent(2)),
                                                                 detail::dss_gradients(a));
    return bytes.shared + concurrency * bytes.each;
}

/// The gradients of dss_kernel: shapes at dss_kernel_backward_args. Throws shape_error before anything is written. Nothing of the
/// forward pass is needed. Work splits over dim; the result does not depend on the split, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void dss_kernel_backward(const dss_kernel_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_diagonal_kernel_backward<Arch>("dss_kernel_backward", detail::dss_diagonal_kernel(a.forward, a.dK.extent(2)),
                                               detail::dss_gradients(a), memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void dss_kernel_backward(const dss_kernel_backward_args<T>& a, Exec&& exec)
{
    dss_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
