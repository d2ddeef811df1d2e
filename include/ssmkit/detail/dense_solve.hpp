#pragma once

// Small dense systems in double, real or complex, for set-up and for the operations that are small throughout. Row-major.

#include <cmath>
#include <complex>
#include <cstddef>
#include <utility>
#include <vector>

#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit::detail {

template <class E>
E conjugated(const E& x)
{
    if constexpr (is_complex<E>) {
        return std::conj(x);
    } else {
        return x;
    }
}

/// Solves M X = Y in place, M (n, n), Y (n, columns): elimination with row pivots.
template <class E>
void solve_columns(std::vector<E> M, index n, std::vector<E>& Y, index columns)
{
    const auto m = [&](index i, index k) -> E& { return M[static_cast<std::size_t>(i * n + k)]; };
    const auto y = [&](index i, index k) -> E& { return Y[static_cast<std::size_t>(i * columns + k)]; };
    for (index k = 0; k < n; ++k) {
        index pivot = k;
        for (index i = k + 1; i < n; ++i) {
            if (std::abs(m(i, k)) > std::abs(m(pivot, k))) pivot = i;
        }
        for (index j = 0; j < n && pivot != k; ++j) std::swap(m(k, j), m(pivot, j));
        for (index j = 0; j < columns && pivot != k; ++j) std::swap(y(k, j), y(pivot, j));
        for (index i = 0; i < n; ++i) {
            if (i == k) continue;
            const E factor = m(i, k) / m(k, k);
            for (index j = k; j < n; ++j) m(i, j) -= factor * m(k, j);
            for (index j = 0; j < columns; ++j) y(i, j) -= factor * y(k, j);
        }
    }
    for (index k = 0; k < n; ++k) {
        for (index j = 0; j < columns; ++j) y(k, j) /= m(k, k);
    }
}

/// A square matrix.
template <class E>
struct small_matrix {
    index n;
    std::vector<E> data;

    explicit small_matrix(index size) : n(size), data(static_cast<std::size_t>(size * size)) {}

    E& operator()(index i, index k) { return data[static_cast<std::size_t>(i * n + k)]; }
    const E& operator()(index i, index k) const { return data[static_cast<std::size_t>(i * n + k)]; }

    /// out = A x
    void times(const E* x, E* out) const
    {
        for (index i = 0; i < n; ++i) {
            E sum(0);
            for (index k = 0; k < n; ++k) sum += (*this)(i, k) * x[k];
            out[i] = sum;
        }
    }

    /// out += A* x
    void add_adjoint_times(const E* x, E* out) const
    {
        for (index i = 0; i < n; ++i) {
            for (index k = 0; k < n; ++k) out[k] += conjugated((*this)(i, k)) * x[i];
        }
    }

    /// A += x y*
    void add_outer(const E* x, const E* y)
    {
        for (index i = 0; i < n; ++i) {
            for (index k = 0; k < n; ++k) (*this)(i, k) += x[i] * conjugated(y[k]);
        }
    }

    small_matrix operator*(const small_matrix& other) const
    {
        small_matrix result(n);
        for (index i = 0; i < n; ++i) {
            for (index k = 0; k < n; ++k) {
                for (index j = 0; j < n; ++j) result(i, j) += (*this)(i, k) * other(k, j);
            }
        }
        return result;
    }
};

/// The generalised bilinear transform of a dense system with one input, and the way back of its gradients: M = I - αΔA,
/// N = I + (1-α)ΔA, Ā = M^-1 N, B̄ = M^-1 ΔB.
template <class E>
struct bilinear_system {
    double delta, alpha;
    small_matrix<E> A, M, A_bar;
    std::vector<E> B, B_bar;

    bilinear_system(const small_matrix<E>& matrix, std::vector<E> input, double step, double weight)
        : delta(step), alpha(weight), A(matrix), M(A.n), A_bar(A.n), B(std::move(input)), B_bar(B)
    {
        for (index i = 0; i < A.n; ++i) {
            for (index k = 0; k < A.n; ++k) {
                const double one = i == k;
                M(i, k) = one - alpha * delta * A(i, k);
                A_bar(i, k) = one + (1 - alpha) * delta * A(i, k);
            }
        }
        solve_columns(M.data, A.n, A_bar.data, A.n);
        for (E& x : B_bar) x *= delta;
        solve_columns(M.data, A.n, B_bar, 1);
    }

    struct gradients {
        small_matrix<E> A;
        std::vector<E> B;
        double delta;
    };

    gradients backward(const small_matrix<E>& dA_bar, const std::vector<E>& dB_bar) const
    {
        small_matrix<E> adjoint(A.n), dN = dA_bar, dM(A.n);
        for (index i = 0; i < A.n; ++i) {
            for (index k = 0; k < A.n; ++k) adjoint(i, k) = conjugated(M(k, i));
        }
        solve_columns(adjoint.data, A.n, dN.data, A.n);
        gradients g{small_matrix<E>(A.n), dB_bar, 0};
        solve_columns(adjoint.data, A.n, g.B, 1);
        for (index i = 0; i < A.n; ++i) {  // dM = -(dN Ā* + dB B̄*)
            for (index j = 0; j < A.n; ++j) {
                for (index k = 0; k < A.n; ++k) dM(i, j) -= dN(i, k) * conjugated(A_bar(j, k));
            }
        }
        for (index i = 0; i < A.n; ++i) {
            for (index k = 0; k < A.n; ++k) {
                dM(i, k) -= g.B[static_cast<std::size_t>(i)] * conjugated(B_bar[static_cast<std::size_t>(k)]);
                const E of_step = (1 - alpha) * dN(i, k) - alpha * dM(i, k);
                g.A(i, k) = delta * of_step;
                g.delta += std::real(of_step * conjugated(A(i, k)));
            }
            g.delta += std::real(g.B[static_cast<std::size_t>(i)] * conjugated(B[static_cast<std::size_t>(i)]));
        }
        for (E& x : g.B) x *= delta;
        return g;
    }
};

/// A matrix or a vector of a view in double.
template <class E, class T>
small_matrix<E> widened_matrix(const view<const T, 2>& v)
{
    small_matrix<E> m(v.extent(0));
    for (index i = 0; i < m.n; ++i) {
        for (index k = 0; k < m.n; ++k) m(i, k) = E(v(i, k));
    }
    return m;
}

template <class E, class T>
std::vector<E> widened_vector(const view<const T, 1>& v)
{
    std::vector<E> x;
    for (index i = 0; i < v.extent(0); ++i) x.push_back(E(v[i]));
    return x;
}

}  // namespace ssmkit::detail
