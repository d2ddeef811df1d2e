#include <cmath>
#include <vector>

#include <ssmkit/args/s7_scan.hpp>
#include <ssmkit/args/s7_scan_backward.hpp>
#include <ssmkit/eigen.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::problem, golden::view;

template <class T>
void run(const ssmkit::s7_scan_args<T>& a, problem& p)
{
    p.run(a);
}

template <class T>
void run_backward(const ssmkit::s7_scan_backward_args<T>& a, problem& p)
{
    p.run(a);
}

/// The files have the tokens last.
const golden::handler s7_scan(
    "s7_scan",
    []<class T>(golden::element<T>, problem& p) {
        const ssmkit::s7_scan_args<T> forward{
            .u = p.input<T>("u", 0, 2, 1),
            .A = p.input<T>("A", 0, 2, 1),
            .B = p.input<T>("B", 0, 3, 2, 1),
            .C = p.input<T>("C", 0, 3, 1, 2),
            .bias = p.input<T>("bias", 0, 2, 1),
            .y = p.output<T>("y", 0, 2, 1),
            .final_state = p.output<ssmkit::compute_t<T>>("last_state", 0, 1),
        };
        run(forward, p);
        if (!p.has("dout")) return;
        run_backward(ssmkit::s7_scan_backward_args<T>{
                         .forward = forward,
                         .dy = p.input<T>("dout", 0, 2, 1),
                         .du = p.output<T>("d_u", 0, 2, 1),
                         .dA = p.output<T>("d_A", 0, 2, 1),
                         .dB = p.output<T>("d_B", 0, 3, 2, 1),
                         .dC = p.output<T>("d_C", 0, 3, 1, 2),
                         .dbias = p.output<T>("d_bias", 0, 2, 1),
                     },
                     p);
    },
    {1e-10, 1e-5});  // in single precision what the specification grants gradients

/// A layer around the scan: projections that make its maps, a skip and a gate.
///
///     x = W_in hidden,  (A, B, C, D, bias) = W_x x,  y = scan(x) + D x,  out = σ(W_g gelu(y)) y + hidden
template <class R>
struct layer {
    using matrix = Eigen::Matrix<R, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    index batch, length, dim, state;
    matrix hidden, W_in, W_x, W_g, base;
    matrix x, z, y, g, gate;

    layer(problem& p, index states) : state(states)
    {
        const auto h = p.input<R>("hidden_states", 0, 1, 2);
        batch = h.extent(0), length = h.extent(1), dim = h.extent(2);
        hidden.resize(batch * length, dim);
        for (index b = 0; b < batch; ++b) hidden.middleRows(b * length, length) = ssmkit::as_eigen(h[b]);
        W_in = ssmkit::as_eigen(p.input<R>("in_proj", 0, 1));
        W_x = ssmkit::as_eigen(p.input<R>("x_proj", 0, 1));
        W_g = ssmkit::as_eigen(p.input<R>("gate_proj", 0, 1));
        base = ssmkit::as_eigen(p.input<R>("base_params", golden::new_axis, 0));
        x = hidden * W_in.transpose();
        z = x * W_x.transpose();
        z.leftCols(state).rowwise() += base.row(0);
        y.resize(batch * length, dim);
    }

    /// A token's part of z, or of its gradient, from column `first` on.
    template <class E>
    view<E, 3> part(E* numbers, index first, index count) const
    {
        const index width = z.cols();
        return {numbers + first, {batch, length, count}, {length * width, width, 1}};
    }
    template <class E>
    view<E, 4> map(E* numbers, index first) const
    {
        const index width = z.cols();
        return {numbers + first, {batch, length, dim, state}, {length * width, width, state, 1}};
    }
    template <class E>
    view<E, 3> tokens(E* numbers) const
    {
        return {numbers, batch, length, dim};
    }

    index at_C() const { return state + dim * state; }
    index at_D() const { return state + 2 * dim * state; }

    ssmkit::s7_scan_args<R> args()
    {
        const R* const maps = z.data();
        return {.u = tokens<const R>(x.data()),
                .A = part<const R>(maps, 0, state),
                .B = map<const R>(maps, state),
                .C = map<const R>(maps, at_C()),
                .bias = part<const R>(maps, at_D() + dim, state),
                .y = tokens<R>(y.data())};
    }

    void store(const matrix& from, const view<R, 3>& to) const
    {
        for (index b = 0; b < to.extent(0); ++b) ssmkit::as_eigen(to[b]) = from.middleRows(b * length, length);
    }
};

template <class R>
R normal_distribution(R y)
{
    return (1 + std::erf(y / std::sqrt(R(2)))) / 2;
}

const golden::handler s7_layer(
    "s7_layer",
    []<class T>(golden::element<T>, problem& p) {
        using R = ssmkit::compute_t<T>;
        using matrix = typename layer<R>::matrix;
        layer<R> l(p, p.flag<index>("d_state", p.shape("base_params").at(0)));
        run(l.args(), p);
        const matrix skip = l.z.middleCols(l.at_D(), l.dim);
        l.y.array() += skip.array() * l.x.array();
        const matrix phi = l.y.unaryExpr([](R v) { return normal_distribution(v); });
        l.g = l.y.cwiseProduct(phi);
        l.gate = (l.g * l.W_g.transpose()).unaryExpr([](R v) { return 1 / (1 + std::exp(-v)); });
        l.store(l.gate.cwiseProduct(l.y) + l.hidden, p.output<R>("out", 0, 1, 2));
        if (!p.has("dout")) return;

        matrix dout(l.batch * l.length, l.dim);
        const auto upstream = p.input<R>("dout", 0, 1, 2);
        for (index b = 0; b < l.batch; ++b) dout.middleRows(b * l.length, l.length) = ssmkit::as_eigen(upstream[b]);
        const matrix dp = (dout.array() * l.y.array() * l.gate.array() * (1 - l.gate.array())).matrix();
        const matrix density = l.y.unaryExpr([](R v) { return std::exp(-v * v / 2) / std::sqrt(R(6.283185307179586)); });
        matrix dy = dout.cwiseProduct(l.gate) + (dp * l.W_g).cwiseProduct(phi + l.y.cwiseProduct(density));
        matrix dx(l.x.rows(), l.dim), dz = matrix::Zero(l.z.rows(), l.z.cols());
        run_backward(ssmkit::s7_scan_backward_args<R>{
                         .forward = l.args(),
                         .dy = l.template tokens<const R>(dy.data()),
                         .du = l.template tokens<R>(dx.data()),
                         .dA = l.part(dz.data(), 0, l.state),
                         .dB = l.map(dz.data(), l.state),
                         .dC = l.map(dz.data(), l.at_C()),
                         .dbias = l.part(dz.data(), l.at_D() + l.dim, l.state),
                     },
                     p);
        dz.middleCols(l.at_D(), l.dim) = dy.cwiseProduct(l.x);
        dx += dy.cwiseProduct(skip) + dz * l.W_x;
        l.store(dout + dx * l.W_in, p.output<R>("d_hidden_states", 0, 1, 2));
        ssmkit::as_eigen(p.output<R>("d_in_proj", 0, 1)) = dx.transpose() * l.hidden;
        ssmkit::as_eigen(p.output<R>("d_x_proj", 0, 1)) = dz.transpose() * l.x;
        ssmkit::as_eigen(p.output<R>("d_gate_proj", 0, 1)) = dp.transpose() * l.g;
        ssmkit::as_eigen(p.output<R>("d_base_params", golden::new_axis, 0)) = dz.leftCols(l.state).colwise().sum();
    },
    {1e-10, 1e-5});

}  // namespace
