#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <vector>

#include <ssmkit/args/liquid_polyb.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// Gains of one channel: β, s, Re C β and what follows.
template <class T>
struct polyb_gains {
    using number = std::complex<double>;
    std::vector<number> beta, slope;  // slope: 1 / (1 - Δw/2)
    double sum = 0;
    double plain[2] = {0, 0};  // 2 Re Σ C β of each direction

    polyb_gains(const liquid_polyb_args<T>& a, index h)
    {
        for (index n = 0; n < a.B.extent(1); ++n) {
            slope.push_back(1.0 / (1.0 - 0.5 * a.delta[h] * a.w(h, n)));
            beta.push_back(a.delta[h] * number(a.B(h, n)) * slope.back());
            sum += 2 * beta.back().real();
            for (index c = 0; c < a.C.extent(0); ++c) plain[c] += 2 * (number(a.C(c, h, n)) * beta.back()).real();
        }
    }

    static double exponent(int p) { return std::ldexp(1.0, p - 1) - 1; }
    double gain(int p, index c) const { return std::pow(sum, exponent(p)) * plain[c]; }
};

/// Calls f(j, subset) for the subsets of p inputs that the products are made of, j = 0 ... length - 1.
template <class F>
void for_each_combination(index length, int p, F&& f)
{
    const index m = combination_span(length, p), first = length - m;
    // The last `length` in lexicographic order: begin at the last one and go back.
    std::vector<index> subset;
    for (int i = 0; i < p; ++i) subset.push_back(length - p + i);
    for (index j = length - 1; j >= 0; --j) {
        f(j, static_cast<const std::vector<index>&>(subset));
        // The predecessor: lower the last element that can be, and put those behind it as far back as they go.
        int i = p - 1;
        while (i >= 0 && subset[static_cast<std::size_t>(i)] == (i > 0 ? subset[static_cast<std::size_t>(i - 1)] + 1 : first)) --i;
        if (i < 0) return;
        --subset[static_cast<std::size_t>(i)];
        for (int later = i + 1; later < p; ++later) subset[static_cast<std::size_t>(later)] = length - p + later;
    }
}

/// The sequences q_2 ... q_degree of one row of u, one after the other.
inline std::vector<std::vector<double>> polyb_products(const std::vector<double>& u, int degree, bool all)
{
    const auto length = static_cast<index>(u.size());
    std::vector<std::vector<double>> q;
    for (int p = 2; p <= degree && length > 0; ++p) {
        std::vector<double> next(u.size());
        if (all) {
            for_each_combination(length, p, [&](index j, const std::vector<index>& subset) {
                double product = 1;
                for (const index t : subset) product *= u[static_cast<std::size_t>(t)];
                next[static_cast<std::size_t>(j)] = product;
            });
        } else {
            const std::vector<double>& before = q.empty() ? u : q.back();
            for (std::size_t t = 1; t < u.size(); ++t) next[t] = before[t] * before[t - 1];
        }
        q.push_back(std::move(next));
    }
    return q;
}

template <class T>
std::vector<double> polyb_row(const view<const T, 1>& v)
{
    std::vector<double> row;
    for (index t = 0; t < v.extent(0); ++t) row.push_back(static_cast<double>(v[t]));
    return row;
}

}  // namespace detail

/// Liquid-S4's convolution: shapes and equations at liquid_polyb_args. Throws shape_error before anything is written. length²
/// operations for the linear part, p length for a degree. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void liquid_polyb(const liquid_polyb_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index length = a.u.extent(2), directions = a.k.extent(0);
    run_tasks(exec, static_cast<std::size_t>(a.u.extent(1)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        const polyb_gains<T> g(a, h);
        for (index b = 0; b < a.u.extent(0); ++b) {
            const std::vector<double> u = polyb_row(a.u[b][h]);
            std::vector<double> y(u.size());
            for (index m = 0; m < length; ++m) {
                const auto k = static_cast<double>(a.k(0, h, m));
                for (index t = m; t < length; ++t) y[static_cast<std::size_t>(t)] += k * u[static_cast<std::size_t>(t - m)];
                if (directions < 2) continue;
                const auto back = static_cast<double>(a.k(1, h, m));
                for (index t = 0; t + m + 1 < length; ++t)
                    y[static_cast<std::size_t>(t)] += back * u[static_cast<std::size_t>(t + m + 1)];
            }
            const auto q = polyb_products(u, a.degree, a.all_combinations);
            for (std::size_t t = 0; t < u.size(); ++t) {
                if (a.D.data()) y[t] += static_cast<double>(a.D[h]) * u[t];
                for (std::size_t i = 0; i < q.size(); ++i) {
                    y[t] += g.gain(static_cast<int>(i) + 2, 0) * q[i][u.size() - 1 - t];
                    if (directions > 1) y[t] += g.gain(static_cast<int>(i) + 2, 1) * q[i][t];
                }
            }
            for (index t = 0; t < length; ++t) a.y(b, h, t) = static_cast<T>(y[static_cast<std::size_t>(t)]);
        }
    });
}

/// The gradients of liquid_polyb: see liquid_polyb_backward_args. Throws shape_error before anything is written. Keeps degree *
/// length doubles for each task that runs at once. Work splits over dim.
template <class T, execution_resource Exec = in_place>
void liquid_polyb_backward(const liquid_polyb_backward_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    using number = std::complex<double>;
    const liquid_polyb_args<T>& f = a.forward;
    const index length = f.u.extent(2), directions = f.k.extent(0);
    run_tasks(exec, static_cast<std::size_t>(f.u.extent(1)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const auto h = static_cast<index>(task);
        const polyb_gains<T> g(f, h);
        const auto at = [](index i) { return static_cast<std::size_t>(i); };
        std::vector<double> dk(at(directions * length));
        double dD = 0, dsum = 0, dplain[2] = {0, 0};
        for (index b = 0; b < f.u.extent(0); ++b) {
            const std::vector<double> u = polyb_row(f.u[b][h]), dy = polyb_row(a.dy[b][h]);
            std::vector<double> du(u.size());
            for (index m = 0; m < length; ++m) {
                const auto k = static_cast<double>(f.k(0, h, m));
                double sum = 0, back_sum = 0;
                for (index t = m; t < length; ++t) {
                    du[at(t - m)] += k * dy[at(t)];
                    sum += dy[at(t)] * u[at(t - m)];
                }
                dk[at(m)] += sum;
                if (directions < 2) continue;
                const auto back = static_cast<double>(f.k(1, h, m));
                for (index t = 0; t + m + 1 < length; ++t) {
                    du[at(t + m + 1)] += back * dy[at(t)];
                    back_sum += dy[at(t)] * u[at(t + m + 1)];
                }
                dk[at(length + m)] += back_sum;
            }
            for (std::size_t t = 0; t < u.size(); ++t) {
                dD += dy[t] * u[t];
                if (f.D.data()) du[t] += static_cast<double>(f.D[h]) * dy[t];
            }
            const auto q = polyb_products(u, f.degree, f.all_combinations);
            std::vector<std::vector<double>> dq(q.size(), std::vector<double>(u.size()));
            for (std::size_t i = 0; i < q.size(); ++i) {
                const int p = static_cast<int>(i) + 2;
                const double power = std::pow(g.sum, g.exponent(p)), slope = g.exponent(p) * std::pow(g.sum, g.exponent(p) - 1);
                for (index c = 0; c < directions; ++c) {
                    double dgain = 0;
                    for (std::size_t t = 0; t < u.size(); ++t) {
                        const std::size_t j = c == 0 ? u.size() - 1 - t : t;
                        dgain += dy[t] * q[i][j];
                        dq[i][j] += g.gain(p, c) * dy[t];
                    }
                    dplain[c] += power * dgain;
                    dsum += slope * g.plain[c] * dgain;
                }
            }
            for (std::size_t i = q.size(); i-- > 0;) {
                if (f.all_combinations) {
                    for_each_combination(length, static_cast<int>(i) + 2, [&](index j, const std::vector<index>& subset) {
                        for (const index wanted : subset) {
                            double others = dq[i][at(j)];
                            for (const index t : subset) others *= t == wanted ? 1 : u[at(t)];
                            du[at(wanted)] += others;
                        }
                    });
                } else {
                    const std::vector<double>& before = i == 0 ? u : q[i - 1];
                    std::vector<double>& dbefore = i == 0 ? du : dq[i - 1];
                    for (std::size_t t = 1; t < u.size(); ++t) {
                        dbefore[t] += dq[i][t] * before[t - 1];
                        dbefore[t - 1] += dq[i][t] * before[t];
                    }
                }
            }
            for (index t = 0; t < length && a.du.data(); ++t) a.du(b, h, t) = static_cast<T>(du[at(t)]);
        }
        double ddelta = 0;
        const auto narrow = [](number x) { return std::complex<T>(static_cast<T>(x.real()), static_cast<T>(x.imag())); };
        for (index n = 0; n < f.B.extent(1); ++n) {
            const number slope = g.slope[at(n)], B(f.B(h, n));
            number dbeta = 2 * dsum;
            for (index c = 0; c < directions; ++c) {
                dbeta += 2 * dplain[c] * std::conj(number(f.C(c, h, n)));
                if (a.dC.data()) a.dC(c, h, n) = narrow(2 * dplain[c] * std::conj(g.beta[at(n)]));
            }
            ddelta += (dbeta * std::conj(slope * slope * B)).real();
            if (a.dB.data()) a.dB(h, n) = narrow(dbeta * std::conj(f.delta[h] * slope));
            if (a.dw.data()) a.dw(h, n) = dbeta * std::conj(0.5 * f.delta[h] * f.delta[h] * slope * slope * B);
        }
        if (a.ddelta.data()) a.ddelta[h] = ddelta;
        if (a.dD.data()) a.dD[h] = static_cast<T>(dD);
        for (index c = 0; c < directions && a.dk.data(); ++c) {
            for (index m = 0; m < length; ++m) a.dk(c, h, m) = static_cast<T>(dk[at(c * length + m)]);
        }
    });
}

}  // namespace ssmkit
