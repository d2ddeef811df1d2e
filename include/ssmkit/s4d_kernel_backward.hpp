#pragma once

#include <utility>

#include <ssmkit/args/s4d_kernel_backward.hpp>
#include <ssmkit/s4d_kernel.hpp>

namespace ssmkit {
namespace detail {

template <class T>
diagonal_kernel_gradients<T> s4d_gradients(const s4d_kernel_backward_args<T>& a)
{
    return {.dK = a.dK, .dK_state = a.dK_state, .ddelta_re = a.ddelta, .ddelta_im = {}, .dA = a.dA, .dB = a.dB, .dC = a.dC,
            .dinitial_state = a.dinitial_state};
}

}  // namespace detail

/// Bytes of scratch memory with which s4d_kernel_backward(a) runs on any resource of at most this concurrency: for each task that
/// runs at once, about 230 numbers of T and 42 doubles for every pole of a channel; and 4 doubles for every channel and pole.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4d_kernel_backward_workspace_size(const s4d_kernel_backward_args<T>& a, std::size_t concurrency = 1)
{
    const auto bytes = detail::diagonal_backward_bytes::of<Arch>(detail::s4d_diagonal_kernel(a.forward, a.dK.extent(2)),
                                                                 detail::s4d_gradients(a));
    return bytes.shared + concurrency * bytes.each;
}

/// The gradients of s4d_kernel: equations at s4d_kernel_backward_args. Throws shape_error before anything is written. Nothing of
/// the forward pass is needed. Work splits over dim; the result does not depend on the split, bit for bit. float gradients lie
/// within 4e-6 of the largest one of an exact computation, as a rule; those that cancel within 1e-5.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d_kernel_backward(const s4d_kernel_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    check(a);
    detail::run_diagonal_kernel_backward<Arch>("s4d_kernel_backward", detail::s4d_diagonal_kernel(a.forward, a.dK.extent(2)),
                                               detail::s4d_gradients(a), memory, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4d_kernel_backward(const s4d_kernel_backward_args<T>& a, Exec&& exec)
{
    s4d_kernel_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
