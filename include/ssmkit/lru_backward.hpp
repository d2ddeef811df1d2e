#pragma once

#include <utility>

#include <ssmkit/args/lru_backward.hpp>
#include <ssmkit/lru.hpp>
#include <ssmkit/s5_backward.hpp>

namespace ssmkit {

/// Bytes of scratch memory with which lru_backward(a) runs on any resource of at most this concurrency: 2 state (dim + 1) complex
/// numbers and what s5_backward needs.
template <class Arch = xsimd::default_arch, class T>
std::size_t lru_backward_workspace_size(const lru_backward_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    const detail::lru_system<T> bar(a.forward, count), dbar(a.forward, count);
    const auto backward = detail::s5_backward_of<T>(a, detail::s5_of<T>(a.forward, bar.A, bar.B), dbar.A, dbar.B);
    detail::s5_adjoint<Arch, T>(backward, concurrency, count);
    return count.size();
}

/// The gradients of the linear recurrent unit (lru_backward_args); those of S5 and the chain rule behind them.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void lru_backward(const lru_backward_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const scratch own("lru_backward", memory, lru_backward_workspace_size<Arch>(a, concurrency(exec)));
    arena parts(own.memory());
    const lru_system<T> bar(a.forward, parts), dbar(a.forward, parts);
    lru_discretize(a.forward, bar.A, bar.B);
    run_s5_backward<Arch>(s5_backward_of<T>(a, s5_of<T>(a.forward, bar.A, bar.B), dbar.A, dbar.B), parts, exec);
    lru_chain<T>(a, dbar.A, dbar.B);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void lru_backward(const lru_backward_args<T>& a, Exec&& exec)
{
    lru_backward<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
