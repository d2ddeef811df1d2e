#pragma once

#include <cmath>
#include <vector>

#include <ssmkit/args/companion_kernel.hpp>
#include <ssmkit/reference/krylov.hpp>

namespace ssmkit::reference {

namespace parts {

/// Vector i of all kernels' as it is used, divided by its norm unless nothing is, and the way back of its gradient.
struct companion_vector {
    std::vector<double> raw, used;
    int order;  // 0: not divided
    double norm = 1;

    template <class T>
    companion_vector(const view<const T, 2>& all, index i, int norm_order)
        : raw(widened<double>(all[i])), used(raw), order(norm_order)
    {
        double mean = 0;
        for (index k = 0; k < all.extent(0); ++k) mean += norm_of(widened<double>(all[k])) / static_cast<double>(all.extent(0));
        if (mean <= 1e-4) order = 0;
        if (order == 0) return;
        norm = norm_of(raw);
        for (double& x : used) x /= norm;
    }

    double norm_of(const std::vector<double>& v) const
    {
        double sum = 0;
        for (const double x : v) sum += order == 1 ? std::abs(x) : x * x;
        return order == 2 ? std::sqrt(sum) : sum;
    }

    /// Σ_m g_m ∂(v_m / |v|) / ∂v_n
    std::vector<double> backward(const std::vector<double>& g) const
    {
        if (order == 0) return g;
        std::vector<double> result(g.size());
        for (std::size_t n = 0; n < g.size(); ++n) {
            const double sign = raw[n] > 0 ? 1 : raw[n] < 0 ? -1 : 0, dnorm = order == 1 ? sign : raw[n] / norm;
            for (std::size_t m = 0; m < g.size(); ++m)
                result[n] += g[m] * ((m == n ? 1 / norm : 0) - raw[m] * dnorm / (norm * norm));
        }
        return result;
    }
};

/// The companion matrix, written out: ones below the diagonal, and `a` added to the last column.
inline std::vector<double> companion_matrix(const std::vector<double>& a)
{
    const std::size_t n = a.size();
    std::vector<double> A(n * n);
    for (std::size_t i = 0; i + 1 < n; ++i) A[(i + 1) * n + i] = 1;
    for (std::size_t i = 0; i < n; ++i) A[i * n + n - 1] += a[i];
    return A;
}

/// The gradient of `a` from that of its matrix.
inline std::vector<double> last_column(const std::vector<double>& A, std::size_t n)
{
    std::vector<double> column;
    for (std::size_t i = 0; i < n; ++i) column.push_back(A[i * n + n - 1]);
    return column;
}

}  // namespace parts

/// The kernels of companion models (args/companion_kernel.hpp), as Krylov sequences of the matrix written out: the oracle of the
/// tests; double inside.
template <class T>
void companion_kernel(const companion_kernel_args<T>& a)
{
    check(a);
    for (index i = 0; i < a.K.extent(0); ++i) {
        const std::vector<double> A = parts::companion_matrix(parts::companion_vector(a.a, i, a.norm_order).used),
                                  k = parts::krylov_kernel(A, parts::widened<double>(a.b[i]), parts::widened<double>(a.c[i]),
                                                           parts::at(a.K.extent(1)));
        for (index l = 0; l < a.K.extent(1); ++l) a.K(i, l) = static_cast<T>(k[parts::at(l)]);
    }
}

/// The gradients of companion_kernel (args/companion_kernel.hpp): the oracle of the tests.
template <class T>
void companion_kernel_backward(const companion_kernel_backward_args<T>& a)
{
    check(a);
    const companion_kernel_args<T>& f = a.forward;
    for (index i = 0; i < f.a.extent(0); ++i) {
        const parts::companion_vector v(f.a, i, f.norm_order);
        const parts::krylov_gradients g(parts::companion_matrix(v.used), parts::widened<double>(f.b[i]),
                                        parts::widened<double>(f.c[i]), parts::widened<double>(a.dK[i]));
        const std::vector<double> da = v.backward(parts::last_column(g.A, v.raw.size()));
        for (index n = 0; n < f.a.extent(1); ++n) {
            if (a.da.data()) a.da(i, n) = static_cast<T>(da[parts::at(n)]);
            if (a.db.data()) a.db(i, n) = static_cast<T>(g.b[parts::at(n)]);
            if (a.dc.data()) a.dc(i, n) = static_cast<T>(g.c[parts::at(n)]);
        }
    }
}

}  // namespace ssmkit::reference
