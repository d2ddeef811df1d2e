#pragma once

#include <complex>
#include <utility>

#include <ssmkit/args/lru.hpp>
#include <ssmkit/s5.hpp>

namespace ssmkit {
namespace detail {

/// Ā and B̄, or their gradients, in a workspace.
template <class T>
struct lru_system {
    using complex = std::complex<compute_t<T>>;
    view<complex, 1> A;
    view<complex, 2> B;

    lru_system(const lru_args<T>& a, arena& memory)
        : A(memory.take<complex>(static_cast<std::size_t>(a.B.extent(0))), a.B.extent(0)),
          B(memory.take<complex>(static_cast<std::size_t>(a.B.size())), a.B.extent(0), a.B.extent(1))
    {
    }
};

}  // namespace detail

/// Bytes of scratch memory with which lru(a) runs on any resource of at most this concurrency: state (dim + 1) complex numbers
/// and what s5 needs.
template <class Arch = xsimd::default_arch, class T>
std::size_t lru_workspace_size(const lru_args<T>& a, std::size_t concurrency = 1)
{
    detail::arena count;
    const detail::lru_system<T> bar(a, count);
    detail::s5_forward<Arch, T>(detail::s5_of<T>(a, bar.A, bar.B), concurrency, count);
    return count.size();
}

/// The linear recurrent unit: shapes, equations and options at lru_args; S5 with discrete parameters, whose promises hold.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void lru(const lru_args<T>& a, workspace memory = {}, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const scratch own("lru", memory, lru_workspace_size<Arch>(a, concurrency(exec)));
    arena parts(own.memory());
    const lru_system<T> bar(a, parts);
    lru_discretize(a, bar.A, bar.B);
    run_s5<Arch>(s5_of<T>(a, bar.A, bar.B), parts, exec);
}

/// The same with scratch memory of its own.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec>
void lru(const lru_args<T>& a, Exec&& exec)
{
    lru<Arch>(a, workspace{}, std::forward<Exec>(exec));
}

}  // namespace ssmkit
