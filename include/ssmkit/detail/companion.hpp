#pragma once

// Companion matrices of SpaceTime: A = shift down by one, with `a` added to the last column. Products in `state` operations.

#include <cmath>
#include <vector>

#include <ssmkit/view.hpp>

namespace ssmkit::detail {

/// x ← A x + b u
inline void companion_advance(const std::vector<double>& a, std::vector<double>& x, const std::vector<double>* b = nullptr,
                              double u = 0)
{
    if (x.empty()) return;
    const double last = x.back();
    for (std::size_t i = x.size() - 1; i > 0; --i) x[i] = x[i - 1] + a[i] * last;
    x[0] = a[0] * last;
    for (std::size_t i = 0; i < x.size() && b != nullptr; ++i) x[i] += (*b)[i] * u;
}

/// psi ← Aᵀ psi
inline void companion_retreat(const std::vector<double>& a, std::vector<double>& psi)
{
    if (psi.empty()) return;
    double last = 0;
    for (std::size_t i = 0; i < psi.size(); ++i) last += a[i] * psi[i];
    for (std::size_t i = 0; i + 1 < psi.size(); ++i) psi[i] = psi[i + 1];
    psi.back() = last;
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b)
{
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

/// Vectors of all kernels, divided by their norms of order 1 or 2 unless the order is 0 or the mean norm is at most 1e-4.
struct companion_rows {
    std::vector<std::vector<double>> rows;
    std::vector<double> norms;
    bool scaled = false;
    int order;

    template <class T>
    companion_rows(const view<const T, 2>& v, int p) : order(p)
    {
        double total = 0;
        for (index i = 0; i < v.extent(0); ++i) {
            std::vector<double>& row = rows.emplace_back();
            double norm = 0;
            for (index n = 0; n < v.extent(1); ++n) {
                row.push_back(static_cast<double>(v(i, n)));
                norm += p == 1 ? std::abs(row.back()) : row.back() * row.back();
            }
            norms.push_back(p == 1 ? norm : std::sqrt(norm));
            total += norms.back();
        }
        scaled = p != 0 && !(total <= 1e-4 * static_cast<double>(v.extent(0)));
        for (std::size_t i = 0; i < rows.size() && scaled; ++i) {
            for (double& x : rows[i]) x /= norms[i];
        }
    }

    /// The gradient of row i before division from that after, in place.
    void backward(std::size_t i, std::vector<double>& g) const
    {
        if (!scaled) return;
        const double along = dot(g, rows[i]);
        for (std::size_t n = 0; n < g.size(); ++n) {
            const double x = rows[i][n], direction = order == 1 ? static_cast<double>((x > 0) - (x < 0)) : x;
            g[n] = (g[n] - direction * along) / norms[i];
        }
    }
};

}  // namespace ssmkit::detail
