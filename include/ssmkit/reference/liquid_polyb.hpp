#pragma once

#include <cmath>
#include <complex>
#include <utility>
#include <vector>

#include <ssmkit/args/liquid_polyb.hpp>
#include <ssmkit/reference/dense_system.hpp>

namespace ssmkit::reference {

namespace parts {

/// A product of inputs: u at each position, so many times.
using polyb_factors = std::vector<std::pair<index, double>>;

/// What q_p multiplies, for every token; no factors: 0.
inline std::vector<polyb_factors> polyb_sequence(index length, int p, bool all_combinations)
{
    std::vector<polyb_factors> sequence(at(length));
    if (!all_combinations) {  // delayed and squared p - 1 times: token t - i appears binom(p - 1, i) times
        for (index t = p - 1; t < length; ++t) {
            double times = 1;
            for (int i = 0; i < p; ++i) {
                sequence[at(t)].emplace_back(t - i, times);
                times = times * (p - 1 - i) / (i + 1);
            }
        }
        return sequence;
    }
    // Subsets of the last m positions in lexicographic order, m the smallest with enough of them.
    std::vector<std::vector<index>> subsets;
    for (index m = 2; m < length && static_cast<index>(subsets.size()) < length; ++m) {
        subsets = {{}};
        for (int size = 0; size < p; ++size) {
            std::vector<std::vector<index>> longer;
            for (const std::vector<index>& s : subsets) {
                for (index t = s.empty() ? length - m : s.back() + 1; t <= length - (p - size); ++t) {
                    longer.push_back(s);
                    longer.back().push_back(t);
                }
            }
            subsets = longer;
        }
    }
    for (index j = 0; j < length; ++j) {
        for (const index t : subsets[subsets.size() - at(length - j)]) sequence[at(j)].emplace_back(t, 1);
    }
    return sequence;
}

inline double polyb_product(const polyb_factors& factors, const std::vector<double>& u)
{
    double product = factors.empty() ? 0 : 1;
    for (const auto& [t, times] : factors) product *= std::pow(u[at(t)], times);
    return product;
}

/// β of one channel over the full spectrum, degree by degree, and how it changes with that of degree 1: β_p = β_{p-1} Σ β_{p-1}.
struct polyb_map {
    std::vector<std::complex<double>> beta, change;

    void raise()
    {
        std::complex<double> sum = 0, sum_change = 0;
        for (std::size_t n = 0; n < beta.size(); ++n) sum += beta[n], sum_change += change[n];
        for (std::size_t n = 0; n < beta.size(); ++n) {
            change[n] = change[n] * sum + beta[n] * sum_change;
            beta[n] *= sum;
        }
    }
};

/// Degree 1, changing along `direction` at pole n.
template <class T>
polyb_map polyb_first(const liquid_polyb_args<T>& a, index h, index n = -1, std::complex<double> direction = 0)
{
    polyb_map map;
    for (index k = 0; k < a.B.extent(1); ++k) {
        const std::complex<double> beta = a.delta[h] * std::complex<double>(a.B(h, k)) / (1.0 - a.delta[h] * a.w(h, k) / 2.0);
        const std::complex<double> change = k == n ? direction : 0;
        map.beta.insert(map.beta.end(), {beta, std::conj(beta)});
        map.change.insert(map.change.end(), {change, std::conj(change)});
    }
    return map;
}

/// Σ full(C)_n x_n, real.
template <class T>
double polyb_gain(const liquid_polyb_args<T>& a, index c, index h, const std::vector<std::complex<double>>& x)
{
    std::complex<double> sum = 0;
    for (index n = 0; n < a.B.extent(1); ++n) {
        const std::complex<double> C(a.C(c, h, n));
        sum += C * x[at(2 * n)] + std::conj(C) * x[at(2 * n + 1)];
    }
    return sum.real();
}

}  // namespace parts

/// Liquid-S4's convolution as its equations say it (args/liquid_polyb.hpp), sums over products of inputs: the oracle of the tests;
/// double inside.
template <class T>
void liquid_polyb(const liquid_polyb_args<T>& a)
{
    check(a);
    const index length = a.u.extent(2), directions = a.k.extent(0);
    for (index h = 0; h < a.u.extent(1); ++h) {
        for (index b = 0; b < a.u.extent(0); ++b) {
            const std::vector<double> u = parts::widened<double>(a.u[b][h]);
            std::vector<double> y(u.size());
            for (index t = 0; t < length; ++t) {
                if (a.D.data()) y[parts::at(t)] += static_cast<double>(a.D[h]) * u[parts::at(t)];
                for (index s = 0; s <= t; ++s) y[parts::at(t)] += static_cast<double>(a.k(0, h, t - s)) * u[parts::at(s)];
                for (index s = t + 1; s < length && directions == 2; ++s)
                    y[parts::at(t)] += static_cast<double>(a.k(1, h, s - t - 1)) * u[parts::at(s)];
            }
            parts::polyb_map map = parts::polyb_first(a, h);
            for (int p = 2; p <= a.degree && length > 0; ++p) {
                map.raise();
                const auto q = parts::polyb_sequence(length, p, a.all_combinations);
                for (index c = 0; c < directions; ++c) {
                    const double gain = parts::polyb_gain(a, c, h, map.beta);
                    for (index t = 0; t < length; ++t)
                        y[parts::at(t)] += gain * parts::polyb_product(q[parts::at(c == 0 ? length - 1 - t : t)], u);
                }
            }
            for (index t = 0; t < length; ++t) a.y(b, h, t) = static_cast<T>(y[parts::at(t)]);
        }
    }
}

/// The gradients of liquid_polyb (args/liquid_polyb.hpp), every parameter's by itself: the oracle of the tests.
template <class T>
void liquid_polyb_backward(const liquid_polyb_backward_args<T>& a)
{
    check(a);
    using number = std::complex<double>;
    const liquid_polyb_args<T>& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(2), directions = f.k.extent(0), state = f.B.extent(1);
    for (index h = 0; h < f.u.extent(1); ++h) {
        // dgain: of degree p and direction c at 2p + c.
        std::vector<double> dk(parts::at(directions * length)), dgain(parts::at(2 * f.degree + 2));
        double dD = 0;
        for (index b = 0; b < batch; ++b) {
            const std::vector<double> u = parts::widened<double>(f.u[b][h]), dy = parts::widened<double>(a.dy[b][h]);
            std::vector<double> du(u.size());
            for (index t = 0; t < length; ++t) {
                const double g = dy[parts::at(t)];
                dD += g * u[parts::at(t)];
                if (f.D.data()) du[parts::at(t)] += g * static_cast<double>(f.D[h]);
                for (index s = 0; s < length; ++s) {
                    const index c = s <= t ? 0 : 1, m = s <= t ? t - s : s - t - 1;
                    if (c == directions) continue;
                    dk[parts::at(c * length + m)] += g * u[parts::at(s)];
                    du[parts::at(s)] += g * static_cast<double>(f.k(c, h, m));
                }
            }
            parts::polyb_map map = parts::polyb_first(f, h);
            for (int p = 2; p <= f.degree && length > 0; ++p) {
                map.raise();
                const auto q = parts::polyb_sequence(length, p, f.all_combinations);
                for (index c = 0; c < directions; ++c) {
                    const double gain = parts::polyb_gain(f, c, h, map.beta);
                    for (index t = 0; t < length; ++t) {
                        const parts::polyb_factors& factors = q[parts::at(c == 0 ? length - 1 - t : t)];
                        dgain[parts::at(2 * p + c)] += dy[parts::at(t)] * parts::polyb_product(factors, u);
                        for (const auto& [wanted, times] : factors) {
                            double slope = gain * dy[parts::at(t)] * times * std::pow(u[parts::at(wanted)], times - 1);
                            for (const auto& [other, power] : factors) {
                                if (other != wanted) slope *= std::pow(u[parts::at(other)], power);
                            }
                            du[parts::at(wanted)] += slope;
                        }
                    }
                }
            }
            for (index t = 0; t < length && a.du.data(); ++t) a.du(b, h, t) = static_cast<T>(du[parts::at(t)]);
        }
        double ddelta = 0;
        for (index n = 0; n < state; ++n) {
            number dC[2], dbeta = 0;
            for (const number direction : {number(1), number(0, 1)}) {
                parts::polyb_map map = parts::polyb_first(f, h, n, direction);
                for (int p = 2; p <= f.degree; ++p) {
                    map.raise();
                    for (index c = 0; c < directions; ++c) {
                        const double g = dgain[parts::at(2 * p + c)];
                        dbeta += direction * g * parts::polyb_gain(f, c, h, map.change);
                        dC[c] += direction * g * 2.0 * (direction * map.beta[parts::at(2 * n)]).real();
                    }
                }
            }
            // β = ΔB / (1 - Δw/2)
            const number B(f.B(h, n)), below = 1.0 - f.delta[h] * f.w(h, n) / 2.0;
            ddelta += (dbeta * std::conj(B / below + f.delta[h] * B * f.w(h, n) / 2.0 / (below * below))).real();
            if (a.dB.data()) a.dB(h, n) = parts::narrowed<std::complex<T>>(dbeta * std::conj(f.delta[h] / below));
            if (a.dw.data()) a.dw(h, n) = dbeta * std::conj(f.delta[h] * f.delta[h] * B / 2.0 / (below * below));
            for (index c = 0; c < directions && a.dC.data(); ++c) a.dC(c, h, n) = parts::narrowed<std::complex<T>>(dC[c]);
        }
        if (a.ddelta.data()) a.ddelta[h] = ddelta;
        if (a.dD.data()) a.dD[h] = static_cast<T>(dD);
        for (index c = 0; c < directions && a.dk.data(); ++c) {
            for (index m = 0; m < length; ++m) a.dk(c, h, m) = static_cast<T>(dk[parts::at(c * length + m)]);
        }
    }
}

}  // namespace ssmkit::reference
