#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/args/s4_backward.hpp>
#include <ssmkit/execution.hpp>
#include <ssmkit/fft_conv_backward.hpp>
#include <ssmkit/s4_kernel.hpp>
#include <ssmkit/s4_kernel_backward.hpp>
#include <ssmkit/workspace.hpp>

namespace ssmkit {

namespace detail {

/// The two passes, and the kernel and its gradient in scratch memory.
template <class Arch, class T>
struct s4_gradients {
    using R = compute_t<T>;
    s4_kernel_args<R> kernel;
    fft_conv_backward_args<T> convolution;
    s4_kernel_backward_args<R> parameters;
    bool kernel_matters, wanted;  // is the kernel read, is its gradient asked for

    s4_gradients(const s4_backward_args<T>& a, arena& memory) : kernel(s4_layer_kernel(a.forward))
    {
        const s4_args<T>& f = a.forward;
        const index channels = kernel.C.extent(0), dim = f.u.extent(2), length = f.u.extent(1);
        const auto take = [&] {
            return view<R, 3>(memory.take<R>(static_cast<std::size_t>(channels * dim * length)), channels, dim, length);
        };
        const auto given = [](const auto&... v) { return ((v.data() != nullptr) || ...); };
        kernel_matters = given(a.du);
        wanted = given(a.ddelta, a.dA, a.dB, a.dP, a.dC);
        kernel.K = take();
        const view<R, 3> dK = wanted ? take() : view<R, 3>{};
        const auto rows = [&]<class E>(const view<E, 3>& v) {
            return v.data() ? (f.reverse ? v.reversed(1) : v).transposed(1, 2) : view<E, 3>{};
        };
        convolution.forward = {.u = rows(f.u), .k = kernel.K, .D = f.D};
        convolution.dy = split_channels(rows(a.dy), channels, dim);
        convolution.du = rows(a.du);
        convolution.dk = dK;
        convolution.dD = a.dD;
        parameters = {.forward = kernel, .dK = dK, .ddelta = a.ddelta, .dA = a.dA, .dB = a.dB, .dP = a.dP, .dC = a.dC};
        parameters.forward.K = {};
    }

    /// Bytes besides kernel and gradient.
    std::size_t scratch_size(std::size_t concurrency) const
    {
        return std::max({kernel_matters ? s4_kernel_workspace_size<Arch>(kernel, concurrency) : 0,
                         fft_conv_backward_workspace_size<Arch>(convolution, concurrency),
                         wanted ? s4_kernel_backward_workspace_size<Arch>(parameters, concurrency) : 0});
    }
};

}  // namespace detail

/// Bytes of scratch memory with which s4_backward(a) runs on any resource of at most this concurrency: the kernels and their
/// gradients, 2 channels · dim · length values of compute_t<T>, and what s4_kernel, fft_conv_backward and s4_kernel_backward ask
/// for.
template <class Arch = xsimd::default_arch, class T>
std::size_t s4_backward_workspace_size(const s4_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena measure;
    const detail::s4_gradients<Arch, T> g(a, measure);
    return measure.size() + g.scratch_size(concurrency);
}

/// The gradients of S4's layer as a convolution: shapes and equations at s4_backward_args. Throws shape_error before anything is
/// written. The kernel is made anew, nothing is kept from the forward pass. A NaN in u or dy reaches du of its row and the
/// gradients of its channel's parameters. The accuracy is that of s4_kernel_backward; results do not depend on the number of
/// threads, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4_backward(const s4_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const std::size_t slots = concurrency(exec);
    const scratch own("s4_backward", memory, s4_backward_workspace_size<Arch>(a, slots));
    arena part(own.memory());
    const s4_gradients<Arch, T> g(a, part);
    const workspace rest = own.memory().subspan(own.memory().size() - g.scratch_size(slots));
    if (g.kernel_matters) {
        s4_kernel<Arch>(g.kernel, rest, exec);
    } else {
        std::fill_n(g.kernel.K.data(), g.kernel.K.extent(0) * g.kernel.K.extent(1) * g.kernel.K.extent(2), compute_t<T>(0));
    }
    fft_conv_backward<Arch>(g.convolution, rest, exec);
    if (g.wanted) s4_kernel_backward<Arch>(g.parameters, rest, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s4_backward(const s4_backward_args<T>& a, Exec&& exec)
{
    s4_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
