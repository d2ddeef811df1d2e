#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/lru_backward.hpp>
#include <ssmkit/reference/s5_backward.hpp>

namespace ssmkit::reference {

/// The gradients of the linear recurrent unit (args/lru_backward.hpp) by S5's plain loops.
template <class T>
void lru_backward(const lru_backward_args<T>& a)
{
    check(a);
    using complex = typename lru_args<T>::complex;
    const index state = a.forward.B.extent(0), dim = a.forward.B.extent(1);
    std::vector<complex> A(static_cast<std::size_t>(state)), B(static_cast<std::size_t>(state * dim)), dA = A, dB = B;
    detail::lru_discretize<T>(a.forward, {A, state}, {B, state, dim});
    reference::s5_backward(
        detail::s5_backward_of<T>(a, detail::s5_of<T>(a.forward, {A, state}, {B, state, dim}), {dA, state}, {dB, state, dim}));
    detail::lru_chain<T>(a, {dA, state}, {dB, state, dim});
}

}  // namespace ssmkit::reference
