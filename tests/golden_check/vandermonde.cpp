#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/vandermonde.hpp>
#include <ssmkit/args/vandermonde_backward.hpp>
#include <ssmkit/args/vandermonde_transpose.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;
using complex = std::complex<double>;

template <class R>
void sum(const ssmkit::vandermonde_args<R>& a, problem& p)
{
    p.run(a);
}

template <class R>
void sum_backward(const ssmkit::vandermonde_backward_args<R>& a, problem& p)
{
    p.run(a);
}

/// The numbers of v times `factor`, as (channels, dim, state).
template <class E>
std::vector<E> numbers(const view<const E, 3>& v, E factor)
{
    std::vector<E> values;
    for (index c = 0; c < v.extent(0); ++c) {
        for (index h = 0; h < v.extent(1); ++h) {
            for (index n = 0; n < v.extent(2); ++n) values.push_back(factor * v(c, h, n));
        }
    }
    return values;
}

/// The real and the imaginary parts of complex numbers as (1, dim, length), strides twice as long.
template <class E, class R>
view<R, 3> parts(const view<E, 2>& v, index which)
{
    R* const first = reinterpret_cast<R*>(const_cast<std::remove_const_t<E>*>(v.data())) + which;
    return {first, {1, v.extent(0), v.extent(1)}, {0, 2 * v.stride(0), 2 * v.stride(1)}};
}

/// Complex sums, K_l = Σ v e^{lz}, are two real ones: Im K has weights -i v. With conj, the conjugate pairs' sum is real.
template <class R>
void complex_sums(problem& p, const view<const complex, 2>& log_pole, bool conj, view<complex, 2> dlog_pole)
{
    using E = std::complex<R>;
    const auto v = p.input<E>("v", new_axis, 0, 1);
    const auto K = p.output<E>("K", 0, 1);
    const index dim = v.extent(1), state = v.extent(2);
    std::vector<E> w[2] = {numbers(v, E(1)), numbers(v, conj ? E(0) : E(0, -1))};
    const auto dK = p.input<E>("dout", 0, 1);
    std::vector<E> dw(w[0].size()), dv(w[0].size());
    std::vector<complex> dz(w[0].size());
    for (index part = 0; part < 2; ++part) {
        const ssmkit::vandermonde_args<R> forward{.log_pole = log_pole,
                                                  .w = {w[part], 1, dim, state},
                                                  .conjugate_pairs = conj,
                                                  .K = parts<E, R>(K, part)};
        sum(forward, p);
        if (!dK.data() || (conj && part == 1)) continue;
        sum_backward(ssmkit::vandermonde_backward_args<R>{.forward = forward,
                                                          .dK = parts<const E, const R>(dK, part),
                                                          .dlog_pole = {dz, dim, state},
                                                          .dw = {dw, 1, dim, state}},
                     p);
        for (std::size_t i = 0; i < dw.size(); ++i) dv[i] += part == 0 ? dw[i] : dw[i] * E(0, 1);  // w = -i v
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < state; ++n) dlog_pole(h, n) += dz[static_cast<std::size_t>(h * state + n)];
        }
    }
    const auto d_v = p.output<E>("d_v", 0, 1);
    for (index h = 0; h < d_v.extent(0); ++h) {
        for (index n = 0; n < state; ++n) d_v(h, n) = dv[static_cast<std::size_t>(h * state + n)];
    }
}

const golden::handler log_vandermonde(
    "log_vandermonde",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        p.descriptive("L");
        const bool conj = p.flag<bool>("conj", p.shape("K").size() == 2);  // without it the sums are complex
        const auto x = p.input<complex>("x", 0, 1);
        const auto dx = p.output<complex>("d_x", 0, 1);
        if (!conj) {
            for (index h = 0; h < dx.extent(0); ++h) {
                for (index n = 0; n < dx.extent(1); ++n) dx(h, n) = 0;
            }
            return complex_sums<R>(p, x, false, dx);
        }
        const ssmkit::vandermonde_args<R> forward{
            .log_pole = x, .w = p.input<E>("v", new_axis, 0, 1), .conjugate_pairs = true, .K = p.output<R>("K", new_axis, 0, 1)};
        sum(forward, p);
        if (!p.has("dout")) return;
        sum_backward(ssmkit::vandermonde_backward_args<R>{.forward = forward,
                                                          .dK = p.input<R>("dout", new_axis, 0, 1),
                                                          .dlog_pole = dx,
                                                          .dw = p.output<E>("d_v", new_axis, 0, 1)},
                     p);
    });

/// Poles themselves: x = e^z, so that g(x) = g(z) / conj(x).
const golden::handler vandermonde(
    "vandermonde",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        p.descriptive("L");
        const auto x = p.input<complex>("x", 0, 1);
        const index dim = x.extent(0), state = x.extent(1);
        std::vector<complex> z, dz(static_cast<std::size_t>(dim * state));
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < state; ++n) z.push_back(std::log(x(h, n)));
        }
        complex_sums<R>(p, {z, dim, state}, p.flag<bool>("conj", false), {dz, dim, state});
        const auto dx = p.output<complex>("d_x", 0, 1);
        for (index h = 0; h < dx.extent(0); ++h) {
            for (index n = 0; n < state; ++n) dx(h, n) = dz[static_cast<std::size_t>(h * state + n)] / std::conj(x(h, n));
        }
    });

/// out = v Σ u_l e^{lx}: a product with the transpose; the gradient of u is a sum over poles.
const golden::handler log_vandermonde_transpose(
    "log_vandermonde_transpose",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using E = std::complex<R>;
        p.descriptive("L");
        const auto x = p.input<complex>("x", 0, 1);
        const auto v = p.input<E>("v", 0, 1);
        const auto u = p.input<R>("u", 0, 1, 2);
        const auto out = p.output<E>("out", 0, 1, 2);
        const index batch = u.extent(0), dim = u.extent(1), state = v.extent(1);
        const auto count = static_cast<std::size_t>(batch * dim * state);
        std::vector<E> sums(count), weighted(count), w(count);
        const view<E, 3> S(sums, batch, dim, state), W(weighted, batch, dim, state), weights(w, batch, dim, state);
        const ssmkit::vandermonde_transpose_args<R> a{.log_pole = x, .u = u, .sum = S, .weighted = W};
        p.run(a);
        for (index b = 0; b < batch; ++b) {
            for (index h = 0; h < dim; ++h) {
                for (index n = 0; n < state; ++n) out(b, h, n) = v(h, n) * S(b, h, n);
            }
        }
        if (!p.has("dout")) return;
        const auto g = p.input<E>("dout", 0, 1, 2);
        const auto dv = p.output<E>("d_v", 0, 1);
        const auto dx = p.output<complex>("d_x", 0, 1);
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < state; ++n) {
                dv(h, n) = 0;
                dx(h, n) = 0;
                for (index b = 0; b < batch; ++b) {
                    dv(h, n) += g(b, h, n) * std::conj(S(b, h, n));
                    dx(h, n) += complex(g(b, h, n) * std::conj(v(h, n) * W(b, h, n)));
                    weights(b, h, n) = std::conj(g(b, h, n)) * v(h, n);  // Re(g conj(v e^{lx})) = Re(conj(g) v e^{lx})
                }
            }
        }
        sum(ssmkit::vandermonde_args<R>{.log_pole = x, .w = weights, .K = p.output<R>("d_u", 0, 1, 2)}, p);
    });

}  // namespace
