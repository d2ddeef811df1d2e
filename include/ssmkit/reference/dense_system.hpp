#pragma once

// Dense systems of the reference operations, in double, real or complex. Matrices are row-major.

#include <cmath>
#include <complex>
#include <cstddef>
#include <utility>
#include <vector>

#include <ssmkit/element.hpp>
#include <ssmkit/view.hpp>

namespace ssmkit::reference::parts {

inline std::size_t at(index i)
{
    return static_cast<std::size_t>(i);
}

/// Solves M X = Y in place, M (n, n) row-major, Y (n, columns): elimination with row pivots.
template <class E>
void solve(std::vector<E> M, index n, std::vector<E>& Y, index columns)
{
    for (index k = 0; k < n; ++k) {
        index pivot = k;
        for (index i = k + 1; i < n; ++i) {
            if (std::abs(M[at(i * n + k)]) > std::abs(M[at(pivot * n + k)])) pivot = i;
        }
        for (index j = 0; j < n; ++j) std::swap(M[at(k * n + j)], M[at(pivot * n + j)]);
        for (index j = 0; j < columns; ++j) std::swap(Y[at(k * columns + j)], Y[at(pivot * columns + j)]);
        for (index i = 0; i < n; ++i) {
            if (i == k) continue;
            const E factor = M[at(i * n + k)] / M[at(k * n + k)];
            for (index j = k; j < n; ++j) M[at(i * n + j)] -= factor * M[at(k * n + j)];
            for (index j = 0; j < columns; ++j) Y[at(i * columns + j)] -= factor * Y[at(k * columns + j)];
        }
    }
    for (index k = 0; k < n; ++k) {
        for (index j = 0; j < columns; ++j) Y[at(k * columns + j)] /= M[at(k * n + k)];
    }
}

/// Σ a_i b_i, nothing conjugated.
template <class E>
E sum_of_products(const std::vector<E>& a, const std::vector<E>& b)
{
    E sum(0);
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// A x and x A.
template <class E>
std::vector<E> matrix_times(const std::vector<E>& A, const std::vector<E>& x)
{
    std::vector<E> y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        for (std::size_t j = 0; j < x.size(); ++j) y[i] += A[i * x.size() + j] * x[j];
    }
    return y;
}

template <class E>
std::vector<E> times_matrix(const std::vector<E>& x, const std::vector<E>& A)
{
    std::vector<E> y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        for (std::size_t j = 0; j < x.size(); ++j) y[j] += x[i] * A[i * x.size() + j];
    }
    return y;
}

/// The elements of a view in double, row-major.
template <class E, class T, std::size_t Rank>
std::vector<E> widened(const view<const T, Rank>& v)
{
    std::vector<E> all;
    for (index i = 0; i < v.extent(0); ++i) {
        if constexpr (Rank == 1) {
            all.push_back(E(v[i]));
        } else {
            const std::vector<E> row = widened<E>(v[i]);
            all.insert(all.end(), row.begin(), row.end());
        }
    }
    return all;
}

template <class T, class E>
T narrowed(const E& x)
{
    if constexpr (ssmkit::detail::is_complex<T>) {
        using part = typename T::value_type;
        return {static_cast<part>(x.real()), static_cast<part>(x.imag())};
    } else {
        return static_cast<T>(x);
    }
}

template <class E>
E conjugated(const E& x)
{
    if constexpr (ssmkit::detail::is_complex<E>) {
        return std::conj(x);
    } else {
        return x;
    }
}

/// A system by the generalised bilinear rule, as the equation between two of its states:
///
///     M x_l = N x_{l-1} + ΔB u_l,   M = I - αΔA,  N = I + (1-α)ΔA
///
/// Nothing is discretised: every step solves it.
template <class E>
struct bilinear_steps {
    double delta, alpha;
    std::vector<E> A, B, M, N;

    bilinear_steps(const std::vector<E>& matrix, const std::vector<E>& input, double step, double weight)
        : delta(step), alpha(weight), A(matrix), B(input), M(matrix.size()), N(matrix.size())
    {
        for (std::size_t i = 0; i < B.size(); ++i) {
            for (std::size_t j = 0; j < B.size(); ++j) {
                const std::size_t k = i * B.size() + j;
                M[k] = (i == j ? 1.0 : 0.0) - alpha * delta * A[k];
                N[k] = (i == j ? 1.0 : 0.0) + (1 - alpha) * delta * A[k];
            }
        }
    }

    /// x_{-1}, x_0, ...
    std::vector<std::vector<E>> states(const std::vector<E>& before, const std::vector<double>& u) const
    {
        std::vector<std::vector<E>> x{before};
        for (const double input : u) {
            std::vector<E> next = matrix_times(N, x.back());
            for (std::size_t n = 0; n < next.size(); ++n) next[n] += delta * B[n] * input;
            solve(M, static_cast<index>(next.size()), next, 1);
            x.push_back(next);
        }
        return x;
    }

    /// c M^-1 (N M^-1)^i, i = 0 ... count - 1: what c·x has, i steps later, of something added to the right-hand side.
    std::vector<std::vector<E>> responses(std::vector<E> c, std::size_t count) const
    {
        std::vector<E> transposed(M.size());
        for (std::size_t i = 0; i < c.size(); ++i) {
            for (std::size_t j = 0; j < c.size(); ++j) transposed[j * c.size() + i] = M[i * c.size() + j];
        }
        std::vector<std::vector<E>> rows;
        while (rows.size() < count) {
            solve(transposed, static_cast<index>(c.size()), c, 1);
            rows.push_back(c);
            c = times_matrix(c, N);
        }
        return rows;
    }
};

/// Gradients of a loss with the slopes g_l by Re c·x_l, one step after the other at which a parameter acts: it adds Δ dA m_s,
/// m_s = αx_s + (1-α)x_{s-1}, to the right-hand side of step s, or Δ dB u_s, or (A m_s + B u_s) dΔ.
template <class E>
struct bilinear_gradients {
    double delta = 0;
    std::vector<E> A, B, before, c;
    std::vector<double> u;

    bilinear_gradients(const bilinear_steps<E>& s, const std::vector<E>& x_before, const std::vector<double>& inputs,
                       const std::vector<E>& map, const std::vector<double>& g)
        : A(s.A.size()), B(s.B.size()), before(s.B.size()), c(s.B.size()), u(inputs.size())
    {
        const auto x = s.states(x_before, inputs);
        const auto rows = s.responses(map, g.size());
        const std::size_t n = B.size();
        for (std::size_t l = 0; l < g.size(); ++l) {
            for (std::size_t i = 0; i < n; ++i) c[i] += g[l] * conjugated(x[l + 1][i]);
            const std::vector<E> first = times_matrix(rows[l], s.N);
            for (std::size_t i = 0; i < n; ++i) before[i] += g[l] * conjugated(first[i]);
            for (std::size_t at_step = 0; at_step <= l; ++at_step) {
                const std::vector<E>& row = rows[l - at_step];
                std::vector<E> m(n);
                for (std::size_t i = 0; i < n; ++i) m[i] = s.alpha * x[at_step + 1][i] + (1 - s.alpha) * x[at_step][i];
                const std::vector<E> Am = matrix_times(s.A, m);
                for (std::size_t i = 0; i < n; ++i) {
                    for (std::size_t j = 0; j < n; ++j) A[i * n + j] += g[l] * s.delta * conjugated(row[i] * m[j]);
                    B[i] += g[l] * s.delta * inputs[at_step] * conjugated(row[i]);
                    u[at_step] += g[l] * s.delta * std::real(row[i] * s.B[i]);
                    delta += g[l] * std::real(row[i] * (Am[i] + s.B[i] * inputs[at_step]));
                }
            }
        }
    }
};

}  // namespace ssmkit::reference::parts
