#pragma once

#include <algorithm>
#include <utility>

#include <ssmkit/detail/s5_adjoint.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which s5_backward(a) runs on any resource of at most this concurrency. In values of
/// compute_t<T>: 2 state every 64 tokens of every sequence, (state + 2 dim + out) times 6 state or less for matrices, and panels
/// of 64 (dim + out + 6 state) or, with threads, four times that for each.
template <class Arch = xsimd::default_arch, class T>
std::size_t s5_backward_workspace_size(const s5_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    detail::s5_adjoint<Arch, T>(a, concurrency, count);
    return count.size();
}

/// The gradients of S5: equations at s5_backward_args. Throws shape_error before anything is written. Work splits over time,
/// states and columns; the result does not depend on the split, bit for bit. float gradients lie within 1e-5 of the largest one
/// of a double computation where s5's results do.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s5_backward(const s5_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const scratch own("s5_backward", memory, s5_backward_workspace_size<Arch>(a, concurrency(exec)));
    arena parts(own.memory());
    run_s5_backward<Arch>(a, parts, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void s5_backward(const s5_backward_args<T>& a, Exec&& exec)
{
    s5_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
