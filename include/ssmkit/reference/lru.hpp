#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/lru.hpp>
#include <ssmkit/reference/s5.hpp>

namespace ssmkit::reference {

/// The linear recurrent unit (args/lru.hpp) by S5's plain loops.
template <class T>
void lru(const lru_args<T>& a)
{
    check(a);
    using complex = typename lru_args<T>::complex;
    const index state = a.B.extent(0), dim = a.B.extent(1);
    std::vector<complex> A(static_cast<std::size_t>(state)), B(static_cast<std::size_t>(state * dim));
    detail::lru_discretize<T>(a, {A, state}, {B, state, dim});
    reference::s5(detail::s5_of<T>(a, {A, state}, {B, state, dim}));
}

}  // namespace ssmkit::reference
