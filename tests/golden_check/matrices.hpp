#pragma once

#include <stdexcept>
#include <string>

#include <common/matrix.hpp>

#include "golden.hpp"

namespace golden {

/// The tensor as a matrix; empty if the file has none of this name. Of three axes, the middle one must have extent 1.
template <class E, class... Axes>
mamba::matrix<E> matrix_of(problem& p, const std::string& name, Axes... axes)
{
    const auto v = p.input<E>(name, axes...);
    if constexpr (sizeof...(Axes) == 2) {
        return ssmkit::as_eigen(v);
    } else {
        static_assert(sizeof...(Axes) == 3);
        if (v.data() == nullptr) return {};
        if (v.extent(1) != 1) throw std::runtime_error(name + " has more than one channel a filter");
        return ssmkit::as_eigen(view<const E, 2>{v.data(), {v.extent(0), v.extent(2)}, {v.stride(0), v.stride(2)}});
    }
}

template <class E>
mamba::row<E> row_of(problem& p, const std::string& name)
{
    return ssmkit::as_eigen(p.input<E>(name, 0)).transpose();
}

/// Rows of (batch, length, dim) one below the other.
template <class E>
mamba::matrix<E> tokens_of(const view<const E, 3>& v)
{
    mamba::matrix<E> m(v.extent(0) * v.extent(1), v.extent(2));
    for (index b = 0; b < v.extent(0); ++b) m.middleRows(b * v.extent(1), v.extent(1)) = ssmkit::as_eigen(v[b]);
    return m;
}

/// Hands a result in; nothing if the file does not hold it.
template <class E>
void hand_in(const view<E, 3>& v, const mamba::matrix<E>& m)
{
    if (v.data() == nullptr) return;
    if (m.rows() != v.extent(0) * v.extent(1) || m.cols() != v.extent(2)) {
        throw std::runtime_error("a result has another shape");
    }
    for (index b = 0; b < v.extent(0); ++b) ssmkit::as_eigen(v[b]) = m.middleRows(b * v.extent(1), v.extent(1));
}

template <class E>
void hand_in(const view<E, 2>& v, const mamba::matrix<E>& m)
{
    if (v.data() == nullptr) return;
    if (m.rows() != v.extent(0) || m.cols() != v.extent(1)) throw std::runtime_error("a result has another shape");
    ssmkit::as_eigen(v) = m;
}

template <class E>
void hand_in(const view<E, 1>& v, const mamba::row<E>& m)
{
    if (v.data() == nullptr) return;
    if (m.size() != v.extent(0)) throw std::runtime_error("a result has another shape");
    ssmkit::as_eigen(v) = m.transpose();
}

/// States, (batch, nheads, headdim, state), one below the other; empty if the file has none of this name.
template <class E>
mamba::matrix<E> states_of(problem& p, const std::string& name)
{
    const auto v = p.input<E>(name, 0, 1, 2, 3);
    mamba::matrix<E> m(v.size() ? v.extent(0) * v.extent(1) * v.extent(2) : 0, v.extent(3));
    for (index b = 0, at = 0; b < v.extent(0); ++b) {
        for (index head = 0; head < v.extent(1); ++head, at += v.extent(2)) {
            m.middleRows(at, v.extent(2)) = ssmkit::as_eigen(v[b][head]);
        }
    }
    return m;
}

/// Hands states in, of heads or, (batch, dim, state) in the file, of channels.
template <class E>
void hand_in_states(problem& p, const std::string& name, const mamba::matrix<E>& m)
{
    if (!p.has(name)) return;
    if (p.shape(name).size() == 3) return hand_in(p.output<E>(name, 0, 1, 2), m);
    const auto v = p.output<E>(name, 0, 1, 2, 3);
    if (m.rows() != v.extent(0) * v.extent(1) * v.extent(2) || m.cols() != v.extent(3)) {
        throw std::runtime_error("a result has another shape");
    }
    for (index b = 0, at = 0; b < v.extent(0); ++b) {
        for (index head = 0; head < v.extent(1); ++head, at += v.extent(2)) {
            ssmkit::as_eigen(v[b][head]) = m.middleRows(at, v.extent(2));
        }
    }
}

/// The convolution's taps, (dim, 1, width) in the file.
template <class E>
view<E, 2> without_middle(const view<E, 3>& v)
{
    return {v.data(), {v.extent(0), v.extent(2)}, {v.stride(0), v.stride(2)}};
}

}  // namespace golden
