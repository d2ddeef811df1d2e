#pragma once

#include <vector>

#include <ssmkit/args/s4_backward.hpp>
#include <ssmkit/reference/fft_conv_backward.hpp>
#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/reference/s4_kernel_backward.hpp>

namespace ssmkit::reference {

/// The gradients of S4's layer (args/s4_backward.hpp), through the references of the kernel and of both backward passes: the oracle
/// of the tests.
template <class T>
void s4_backward(const s4_backward_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const s4_args<T>& f = a.forward;
    auto kernel = ssmkit::detail::s4_layer_kernel(f);
    const index channels = f.C.extent(0), dim = f.u.extent(2), length = f.u.extent(1);
    std::vector<real> K(parts::at(channels * dim * length)), dK(K.size());
    const view<real, 3> gradient(dK.data(), channels, dim, length);
    kernel.K = {K.data(), channels, dim, length};
    reference::s4_kernel(kernel);
    const auto rows = [&]<class E>(const view<E, 3>& v) { return (f.reverse ? v.reversed(1) : v).transposed(1, 2); };
    reference::fft_conv_backward(fft_conv_backward_args<T>{.forward = {.u = rows(f.u), .k = kernel.K, .D = f.D},
                                                           .dy = ssmkit::detail::split_channels(rows(a.dy), channels, dim),
                                                           .du = a.du.data() ? rows(a.du) : a.du,
                                                           .dk = gradient,
                                                           .dD = a.dD});
    kernel.K = {};
    reference::s4_kernel_backward(s4_kernel_backward_args<real>{
        .forward = kernel, .dK = gradient, .ddelta = a.ddelta, .dA = a.dA, .dB = a.dB, .dP = a.dP, .dC = a.dC});
}

}  // namespace ssmkit::reference
