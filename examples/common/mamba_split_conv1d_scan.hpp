#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "matrix.hpp"
#include "operations.hpp"

namespace mamba {

/// Everything between the two outer projections of a Mamba-2 block, and the second of them: Dao & Gu, "Transformers are
/// SSMs", arXiv:2405.21060, figure 6, under the name that the authors' code has for it.
///
///     mlp, z, x, B, C, delta = zxbcdt                    (tokens, 2 mlp + 2 dim + 2 ngroups state + nheads); mlp is usually 0
///     x, B, C  = silu(conv1d(x, B, C))
///     y        = ssd(x, delta, A, B, C, D)               with softplus, then limits, on the steps
///     y        = gated_norm(y, z)                        over each of ngroups groups of channels
///     out      = (silu(mlp_1) mlp_2, y) out_proj^T + bias
///
/// Without norm_weight there is no norm and the gate is in the scan. Head i takes channels i headdim ... of x and group
/// i / (nheads / ngroups) of B and C.
template <class R>
struct split_weights {
    matrix<R> conv1d_weight;    ///< (dim + 2 ngroups state, width)
    row<R> conv1d_bias{};       ///< (dim + 2 ngroups state)  optional: empty
    row<R> A;                   ///< (nheads)
    row<R> D{};                 ///< (nheads), or (dim) with a value for each channel; optional
    row<R> delta_bias{};        ///< (nheads)                 optional
    row<R> norm_weight{};       ///< (dim)                    optional
    matrix<R> out_proj_weight;  ///< (out, mlp + dim)
    row<R> out_proj_bias{};     ///< (out)                    optional
    index headdim = 64, ngroups = 1;
    R delta_min = 0, delta_max = std::numeric_limits<R>::infinity();
    R norm_eps = R(1e-5);
    bool norm_before_gate = false;

    index nheads() const { return A.size(); }
    index dim() const { return nheads() * headdim; }
    index channels() const { return conv1d_weight.rows(); }
    index state() const { return (channels() - dim()) / (2 * ngroups); }
    index mlp() const { return out_proj_weight.cols() - dim(); }
    index inputs() const { return 2 * mlp() + dim() + channels() + nheads(); }
};

/// What the tokens belong to.
template <class R>
struct split_sequences {
    index batch = 1;            ///<                     rows of equal length >= 1
    matrix<R> initial_state{};  ///< (batch dim, state)  of the scan; optional: zero
    Eigen::Matrix<std::int32_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>
        seq_idx{};              ///< (batch, length)     sequence of each token in a packed row (args/ssd.hpp); optional
};

/// What the forward pass leaves for the backward pass.
template <class R>
struct split_activations {
    matrix<R> xBC;          ///< (tokens, dim + 2 ngroups state)  convolved
    matrix<R> y;            ///< (tokens, dim)                    scanned; empty without a norm
    matrix<R> joined;       ///< (tokens, mlp + dim)              what out_proj takes
    matrix<R> final_state;  ///< (batch dim, state)
};

namespace detail {

/// The channels as `count` heads or groups: (batch, length, count, channels / count).
template <class T>
view<T, 4> split(const view<T, 3>& v, index count)
{
    const index each = v.extent(2) / count;
    return {v.data(), {v.extent(0), v.extent(1), count, each}, {v.stride(0), v.stride(1), each * v.stride(2), v.stride(2)}};
}

/// States, (batch nheads headdim, state), as (batch, nheads, headdim, state).
template <class R, class Matrix>
auto states(const split_weights<R>& weights, Matrix& m, index batch)
{
    using element = std::remove_pointer_t<decltype(m.data())>;
    if (m.size() == 0) return view<element, 4>{};
    return view<element, 4>{m.data(), batch, weights.nheads(), weights.headdim, weights.state()};
}

/// A parameter with a value for each head or for each channel, as (nheads, headdim).
template <class R>
view<const R, 2> per_channel(const split_weights<R>& weights, const row<R>& parameter)
{
    if (parameter.size() == 0) return {};
    if (parameter.size() == weights.nheads()) return ssmkit::tied_over_head(as_view(parameter), weights.headdim);
    return {parameter.data(), weights.nheads(), weights.headdim};
}

/// Columns of zxbcdt, or of its gradient.
template <class R, class Matrix>
auto gate_of(const split_weights<R>& weights, Matrix& zxbcdt)
{
    return zxbcdt.middleCols(2 * weights.mlp(), weights.dim());
}
template <class R, class Matrix>
auto conv_inputs_of(const split_weights<R>& weights, Matrix& zxbcdt)
{
    return zxbcdt.middleCols(2 * weights.mlp() + weights.dim(), weights.channels());
}
template <class R, class Matrix>
auto delta_of(const split_weights<R>& weights, Matrix& zxbcdt)
{
    return zxbcdt.rightCols(weights.nheads());
}

/// Columns of what is convolved, or of its gradient.
template <class R, class Matrix>
auto x_of(const split_weights<R>& weights, Matrix& xBC)
{
    return xBC.leftCols(weights.dim());
}
template <class R, class Matrix>
auto B_of(const split_weights<R>& weights, Matrix& xBC)
{
    return xBC.middleCols(weights.dim(), weights.ngroups * weights.state());
}
template <class R, class Matrix>
auto C_of(const split_weights<R>& weights, Matrix& xBC)
{
    return xBC.rightCols(weights.ngroups * weights.state());
}

template <class R>
view<const std::int32_t, 2> seq_idx_of(const split_sequences<R>& sequences)
{
    if (sequences.seq_idx.size() == 0) return {};
    return as_view(sequences.seq_idx);
}

template <class R>
ssmkit::causal_conv1d_args<R> conv_args(const split_weights<R>& weights, const matrix<R>& zxbcdt,
                                        const split_sequences<R>& sequences)
{
    return {.x = as_view(conv_inputs_of(weights, zxbcdt), sequences.batch),
            .weight = as_view(weights.conv1d_weight),
            .bias = given(weights.conv1d_bias),
            .silu = true,
            .seq_idx = seq_idx_of(sequences)};
}

template <class R>
ssmkit::ssd_args<R> ssd_args(const split_weights<R>& weights, const matrix<R>& zxbcdt, const split_sequences<R>& sequences,
                             const split_activations<R>& kept)
{
    const index batch = sequences.batch, nheads = weights.nheads();
    return {.u = split(as_view(x_of(weights, kept.xBC), batch), nheads),
            .delta = as_view(delta_of(weights, zxbcdt), batch),
            .A = as_view(weights.A),
            .B = split(as_view(B_of(weights, kept.xBC), batch), weights.ngroups),
            .C = split(as_view(C_of(weights, kept.xBC), batch), weights.ngroups),
            .D = per_channel(weights, weights.D),
            .z = weights.norm_weight.size() ? view<const R, 4>{} : split(as_view(gate_of(weights, zxbcdt), batch), nheads),
            .delta_bias = given(weights.delta_bias),
            .delta_softplus = true,
            .delta_min = weights.delta_min,
            .delta_max = weights.delta_max,
            .initial_state = states(weights, sequences.initial_state, batch),
            .seq_idx = seq_idx_of(sequences)};
}

template <class R>
ssmkit::gated_norm_args<R> norm_args(const split_weights<R>& weights, const matrix<R>& zxbcdt, const matrix<R>& y)
{
    return {.x = as_view(y, 1),  // a token is normalised by itself, whatever sequence it is of
            .z = as_view(gate_of(weights, zxbcdt), 1),
            .weight = as_view(weights.norm_weight),
            .eps = weights.norm_eps,
            .group_size = weights.dim() / weights.ngroups,
            .norm_before_gate = weights.norm_before_gate};
}

/// Where the scan puts y: where it is normalised from, or at once where the output projection takes it from.
template <class R>
view<R, 3> scanned(const split_weights<R>& weights, split_activations<R>& kept, index tokens, index batch)
{
    kept.joined.resize(tokens, weights.mlp() + weights.dim());
    if (weights.norm_weight.size() == 0) return as_view(kept.joined.rightCols(weights.dim()), batch);
    kept.y.resize(tokens, weights.dim());
    return as_view(kept.y, batch);
}

/// From what was scanned to the output.
template <class R, class Run>
matrix<R> project_out(const split_weights<R>& weights, const matrix<R>& zxbcdt, const Run& run, split_activations<R>& kept)
{
    const index mlp = weights.mlp();
    const auto first = zxbcdt.leftCols(mlp).array();
    kept.joined.leftCols(mlp) = first / (R(1) + (-first).exp()) * zxbcdt.middleCols(mlp, mlp).array();
    if (weights.norm_weight.size()) {
        auto norm = norm_args(weights, zxbcdt, kept.y);
        norm.y = as_view(kept.joined.rightCols(weights.dim()), 1);
        run(norm);
    }
    matrix<R> out = kept.joined * weights.out_proj_weight.transpose();
    if (weights.out_proj_bias.size()) out.rowwise() += weights.out_proj_bias;
    return out;
}

}  // namespace detail

/// (tokens, out) from (tokens, 2 mlp + 2 dim + 2 ngroups state + nheads). `run` is kernels or references.
template <class R, class Run>
matrix<R> mamba_split_conv1d_scan(const split_weights<R>& weights, const matrix<R>& zxbcdt,
                                  const split_sequences<R>& sequences, const Run& run, split_activations<R>& kept)
{
    const index tokens = zxbcdt.rows(), batch = sequences.batch;
    kept.xBC.resize(tokens, weights.channels());
    auto conv = detail::conv_args(weights, zxbcdt, sequences);
    conv.y = as_view(kept.xBC, batch);
    run(conv);

    kept.final_state.resize(batch * weights.dim(), weights.state());
    auto scan = detail::ssd_args(weights, zxbcdt, sequences, kept);
    scan.y = detail::split(detail::scanned(weights, kept, tokens, batch), weights.nheads());
    scan.final_state = detail::states(weights, kept.final_state, batch);
    run(scan);
    return detail::project_out(weights, zxbcdt, run, kept);
}

template <class R>
struct split_gradients {
    matrix<R> zxbcdt;
    split_weights<R> weights;
    matrix<R> initial_state;  ///< (batch dim, state)
};

/// The gradients for that of `out`, and for that of the final state if it is given, (batch dim, state): the chain backwards,
/// operation by operation.
template <class R, class Run>
split_gradients<R> mamba_split_conv1d_scan_backward(const split_weights<R>& weights, const matrix<R>& zxbcdt,
                                                    const split_sequences<R>& sequences, const matrix<R>& dout,
                                                    const Run& run, const split_activations<R>& kept,
                                                    const matrix<R>& dfinal_state = {})
{
    const index tokens = zxbcdt.rows(), batch = sequences.batch, mlp = weights.mlp(), nheads = weights.nheads();
    split_gradients<R> d{.zxbcdt = matrix<R>(tokens, zxbcdt.cols()),
                         .weights = weights,  // for the shapes
                         .initial_state = matrix<R>(batch * weights.dim(), weights.state())};

    d.weights.out_proj_weight = dout.transpose() * kept.joined;
    if (weights.out_proj_bias.size()) d.weights.out_proj_bias = dout.colwise().sum();
    const matrix<R> djoined = dout * weights.out_proj_weight;

    const auto first = zxbcdt.leftCols(mlp).array();
    const auto sigmoid = (R(1) / (R(1) + (-first).exp())).eval();
    const auto dmlp = djoined.leftCols(mlp).array();
    d.zxbcdt.leftCols(mlp) = dmlp * zxbcdt.middleCols(mlp, mlp).array() * sigmoid * (R(1) + first * (R(1) - sigmoid));
    d.zxbcdt.middleCols(mlp, mlp) = dmlp * first * sigmoid;

    matrix<R> dy = djoined.rightCols(weights.dim());
    const bool norm = weights.norm_weight.size() != 0;
    if (norm) {
        matrix<R> dx(tokens, weights.dim());
        run(ssmkit::gated_norm_backward_args<R>{
            .forward = detail::norm_args(weights, zxbcdt, kept.y),
            .dy = as_view(std::as_const(dy), 1),
            .dx = as_view(dx, 1),
            .dz = as_view(detail::gate_of(weights, d.zxbcdt), 1),
            .dweight = as_view(d.weights.norm_weight),
        });
        dy.swap(dx);
    }

    matrix<R> dxBC(tokens, weights.channels());
    const auto dD = [&]() -> view<R, 2> {
        if (weights.D.size() == 0) return {};
        if (weights.D.size() == nheads) return ssmkit::summed_over_head(as_view(d.weights.D), weights.headdim);
        return {d.weights.D.data(), nheads, weights.headdim};
    };
    run(ssmkit::ssd_backward_args<R>{
        .forward = detail::ssd_args(weights, zxbcdt, sequences, kept),
        .dy = detail::split(view<const R, 3>(as_view(dy, batch)), nheads),
        .dfinal_state = detail::states(weights, dfinal_state, batch),
        .du = detail::split(as_view(detail::x_of(weights, dxBC), batch), nheads),
        .ddelta = as_view(detail::delta_of(weights, d.zxbcdt), batch),
        .dz = norm ? view<R, 4>{} : detail::split(as_view(detail::gate_of(weights, d.zxbcdt), batch), nheads),
        .dA = as_view(d.weights.A),
        .dB = detail::split(as_view(detail::B_of(weights, dxBC), batch), weights.ngroups),
        .dC = detail::split(as_view(detail::C_of(weights, dxBC), batch), weights.ngroups),
        .dD = dD(),
        .ddelta_bias = weights.delta_bias.size() ? as_view(d.weights.delta_bias) : view<R, 1>{},
        .dinitial_state = detail::states(weights, d.initial_state, batch),
    });

    run(ssmkit::causal_conv1d_backward_args<R>{
        .forward = detail::conv_args(weights, zxbcdt, sequences),
        .dy = as_view(dxBC, batch),
        .dx = as_view(detail::conv_inputs_of(weights, d.zxbcdt), batch),
        .dweight = as_view(d.weights.conv1d_weight),
        .dbias = weights.conv1d_bias.size() ? as_view(d.weights.conv1d_bias) : view<R, 1>{},
    });
    return d;
}

}  // namespace mamba
