#pragma once

#include <vector>

#include <ssmkit/args/krylov.hpp>
#include <ssmkit/reference/dense_system.hpp>

namespace ssmkit::reference {

namespace parts {

/// x, A x, A² x, ...
inline std::vector<std::vector<double>> krylov_columns(const std::vector<double>& A, std::vector<double> x, std::size_t count)
{
    std::vector<std::vector<double>> all;
    for (; all.size() < count; x = matrix_times(A, x)) all.push_back(x);
    return all;
}

/// c, c A, c A², ...
inline std::vector<std::vector<double>> krylov_rows(const std::vector<double>& A, std::vector<double> c, std::size_t count)
{
    std::vector<std::vector<double>> all;
    for (; all.size() < count; c = times_matrix(c, A)) all.push_back(c);
    return all;
}

/// c·A^l b, l < count
inline std::vector<double> krylov_kernel(const std::vector<double>& A, const std::vector<double>& b,
                                         const std::vector<double>& c, std::size_t count)
{
    std::vector<double> k;
    for (const std::vector<double>& x : krylov_columns(A, b, count)) k.push_back(sum_of_products(c, x));
    return k;
}

/// The gradients of c·A^l b by the product rule, one factor A after the other: dA = Σ_l dk_l Σ_{s<l} (c A^{l-1-s})ᵀ (A^s b)ᵀ.
struct krylov_gradients {
    std::vector<double> A, b, c;

    krylov_gradients(const std::vector<double>& matrix, const std::vector<double>& vector, const std::vector<double>& map,
                     const std::vector<double>& dk)
        : A(matrix.size()), b(vector.size()), c(vector.size())
    {
        const auto columns = krylov_columns(matrix, vector, dk.size()), rows = krylov_rows(matrix, map, dk.size());
        const std::size_t n = b.size();
        for (std::size_t l = 0; l < dk.size(); ++l) {
            for (std::size_t i = 0; i < n; ++i) {
                b[i] += dk[l] * rows[l][i];
                c[i] += dk[l] * columns[l][i];
                for (std::size_t j = 0; j < n; ++j) {
                    for (std::size_t s = 0; s < l; ++s) A[i * n + j] += dk[l] * rows[l - 1 - s][i] * columns[s][j];
                }
            }
        }
    }
};

}  // namespace parts

/// Krylov sequences (args/krylov.hpp) by the powers of A, each of them in full: the oracle of the tests; double inside.
template <class T>
void krylov(const krylov_args<T>& a)
{
    check(a);
    const index state = a.A.extent(1);
    for (index h = 0; h < a.A.extent(0); ++h) {
        const std::vector<double> A = parts::widened<double>(a.A[h]), b = parts::widened<double>(a.b[h]);
        std::vector<double> power(A.size()), scan(b.size());  // A^l
        for (std::size_t n = 0; n < b.size(); ++n) power[n * b.size() + n] = 1;
        for (index l = 0; l < a.length; ++l) {
            const std::vector<double> x = parts::matrix_times(power, b);
            if (a.k.data()) a.k(h, l) = static_cast<T>(parts::sum_of_products(parts::widened<double>(a.c[h]), x));
            std::vector<double> v;
            for (index n = 0; n < state; ++n) {
                if (a.AbL.data()) a.AbL(h, n, l) = static_cast<T>(x[parts::at(n)]);
                v.push_back(a.scan.data() ? static_cast<double>(a.v(h, n, l)) : 0);
            }
            const std::vector<double> of_token = parts::matrix_times(power, v), before = power;
            for (std::size_t n = 0; n < b.size(); ++n) scan[n] += of_token[n];
            for (index i = 0; i < state; ++i) {
                for (index j = 0; j < state; ++j) {
                    double sum = 0;
                    for (index k = 0; k < state; ++k) sum += A[parts::at(i * state + k)] * before[parts::at(k * state + j)];
                    power[parts::at(i * state + j)] = sum;
                }
            }
        }
        for (index n = 0; n < state; ++n) {
            if (a.scan.data()) a.scan(h, n) = static_cast<T>(scan[parts::at(n)]);
            for (index k = 0; k < state && a.AL.data(); ++k) a.AL(h, n, k) = static_cast<T>(power[parts::at(n * state + k)]);
        }
    }
}

/// The gradients of k (args/krylov.hpp): the oracle of the tests.
template <class T>
void krylov_backward(const krylov_backward_args<T>& a)
{
    check(a);
    const krylov_args<T>& f = a.forward;
    const index state = f.A.extent(1);
    for (index h = 0; h < f.A.extent(0); ++h) {
        const parts::krylov_gradients g(parts::widened<double>(f.A[h]), parts::widened<double>(f.b[h]),
                                        parts::widened<double>(f.c[h]), parts::widened<double>(a.dk[h]));
        for (index n = 0; n < state; ++n) {
            if (a.db.data()) a.db(h, n) = static_cast<T>(g.b[parts::at(n)]);
            if (a.dc.data()) a.dc(h, n) = static_cast<T>(g.c[parts::at(n)]);
            for (index k = 0; k < state && a.dA.data(); ++k) a.dA(h, n, k) = static_cast<T>(g.A[parts::at(n * state + k)]);
        }
    }
}

}  // namespace ssmkit::reference
