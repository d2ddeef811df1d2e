// The composition of examples/common/mamba_split_conv1d_scan.hpp and mamba2_block.hpp, where the golden cases do not go.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "../examples/common/mamba2_block.hpp"

#include "catch.hpp"
#include "operations/operations.hpp"
#include "random_problem.hpp"

namespace ssmkit::testing {
namespace {

using mamba::matrix, mamba::row;

constexpr index batch = 2, length = 9, dim = 12, state = 3, width = 4, out = 5;

struct setup {
    const char* name;
    index nheads = 3, ngroups = 1, mlp = 0;
    bool biases = true, norm = true, norm_before_gate = false, D_per_channel = false, initial_state = false, packed = false;
    double delta_min = 0, delta_max = std::numeric_limits<double>::infinity();
};

constexpr setup setups[] = {
    {.name = "as in a model"},
    {.name = "groups", .nheads = 6, .ngroups = 3},
    {.name = "norm before gate", .nheads = 4, .ngroups = 2, .norm_before_gate = true},
    {.name = "gate in the scan", .norm = false},
    {.name = "mlp", .mlp = 4, .D_per_channel = true},
    {.name = "mlp, no norm", .mlp = 2, .biases = false, .norm = false},
    {.name = "no optional weight", .nheads = 2, .biases = false},
    {.name = "initial state", .nheads = 12, .ngroups = 4, .initial_state = true},
    {.name = "packed", .nheads = 1, .norm = false, .packed = true},
    {.name = "packed, initial state, mlp", .nheads = 2, .ngroups = 2, .mlp = 3, .initial_state = true, .packed = true},
    {.name = "limits", .nheads = 4, .delta_min = 0.5, .delta_max = 0.9},
};

template <class R>
struct split_problem {
    mamba::split_weights<R> weights;
    mamba::split_sequences<R> sequences;
    matrix<R> zxbcdt, dout, dfinal_state;

    explicit split_problem(const setup& s)
    {
        random numbers(7);
        const auto fill = [&](auto& m, index rows, index columns) {
            m.resize(rows, columns);
            for (index i = 0; i < rows; ++i) {
                for (index k = 0; k < columns; ++k) m(i, k) = static_cast<R>(numbers.uniform(-1, 1));
            }
        };
        const index channels = dim + 2 * s.ngroups * state;
        weights.headdim = dim / s.nheads;
        weights.ngroups = s.ngroups;
        weights.delta_min = static_cast<R>(s.delta_min);
        weights.delta_max = static_cast<R>(s.delta_max);
        weights.norm_eps = R(0.01);
        weights.norm_before_gate = s.norm_before_gate;
        fill(weights.conv1d_weight, channels, width);
        fill(weights.out_proj_weight, out, s.mlp + dim);
        fill(weights.A, 1, s.nheads);
        weights.A.array() -= R(1.2);
        if (s.norm) fill(weights.norm_weight, 1, dim);
        if (s.biases) {
            fill(weights.conv1d_bias, 1, channels);
            fill(weights.D, 1, s.D_per_channel ? dim : s.nheads);
            fill(weights.delta_bias, 1, s.nheads);
            fill(weights.out_proj_bias, 1, out);
        }
        fill(zxbcdt, batch * length, weights.inputs());
        fill(dout, batch * length, out);
        fill(dfinal_state, batch * dim, state);
        sequences.batch = batch;
        if (s.initial_state) fill(sequences.initial_state, batch * dim, state);
        if (s.packed) {
            sequences.seq_idx.resize(batch, length);
            sequences.seq_idx << 0, 0, 0, 0, 1, 2, 2, 2, 2,  //
                0, 0, 3, 3, 3, 3, 3, 3, 3;
        }
    }
};

/// The definition, a token and a channel at a time.
matrix<double> expected(const split_problem<double>& p)
{
    const mamba::split_weights<double>& w = p.weights;
    const index nheads = w.nheads(), headdim = w.headdim, channels = w.channels(), mlp = w.mlp(), groups = w.ngroups;
    const auto silu = [](double x) { return x / (1 + std::exp(-x)); };
    const auto sequence = [&](index b, index t) { return p.sequences.seq_idx.size() ? p.sequences.seq_idx(b, t) : 0; };
    const auto z = [&](index i, index channel) { return p.zxbcdt(i, 2 * mlp + channel); };
    matrix<double> all(batch * length, out);
    for (index b = 0; b < batch; ++b) {
        matrix<double> H = matrix<double>::Zero(dim, state);
        if (p.sequences.initial_state.size()) H = p.sequences.initial_state.middleRows(b * dim, dim);
        for (index t = 0; t < length; ++t) {
            const index i = b * length + t;
            std::vector<double> xBC, y, joined;
            for (index c = 0; c < channels; ++c) {
                double sum = w.conv1d_bias.size() ? w.conv1d_bias(c) : 0;
                for (index j = 0; j < width; ++j) {
                    const index from = t - (width - 1) + j;
                    if (from < 0 || sequence(b, from) != sequence(b, t)) continue;
                    sum += w.conv1d_weight(c, j) * p.zxbcdt(b * length + from, 2 * mlp + dim + c);
                }
                xBC.push_back(silu(sum));
            }
            if (t > 0 && sequence(b, t) != sequence(b, t - 1)) H.setZero();
            for (index c = 0; c < dim; ++c) {
                const index head = c / headdim, first = dim + head / (nheads / groups) * state;
                double r = p.zxbcdt(i, p.zxbcdt.cols() - nheads + head);
                if (w.delta_bias.size()) r += w.delta_bias(head);
                const double delta = std::clamp(std::log1p(std::exp(r)), w.delta_min, w.delta_max);
                const double x = xBC[static_cast<std::size_t>(c)];
                double sum = w.D.size() == 0 ? 0 : x * (w.D.size() == dim ? w.D(c) : w.D(head));
                for (index n = 0; n < state; ++n) {
                    H(c, n) = std::exp(delta * w.A(head)) * H(c, n) + delta * x * xBC[static_cast<std::size_t>(first + n)];
                    sum += H(c, n) * xBC[static_cast<std::size_t>(first + groups * state + n)];
                }
                y.push_back(w.norm_weight.size() && w.norm_before_gate ? sum : sum * silu(z(i, c)));
            }
            for (index c = 0; c < mlp; ++c) joined.push_back(silu(p.zxbcdt(i, c)) * p.zxbcdt(i, mlp + c));
            for (index c = 0; c < dim; ++c) {
                double value = y[static_cast<std::size_t>(c)];
                if (w.norm_weight.size()) {
                    const index size = dim / groups, begin = c / size * size;
                    double squares = 0;
                    for (index k = begin; k < begin + size; ++k) squares += std::pow(y[static_cast<std::size_t>(k)], 2);
                    value *= w.norm_weight(c) / std::sqrt(squares / static_cast<double>(size) + w.norm_eps);
                    if (w.norm_before_gate) value *= silu(z(i, c));
                }
                joined.push_back(value);
            }
            all.row(i) = Eigen::Map<const row<double>>(joined.data(), mlp + dim) * w.out_proj_weight.transpose();
            if (w.out_proj_bias.size()) all.row(i) += w.out_proj_bias;
        }
    }
    return all;
}

}  // namespace

TEST_CASE("mamba_split_conv1d_scan: kernels and references compute the definition, with every option")
{
    threads pool(2);
    for (const setup& s : setups) {
        CAPTURE(s.name);
        const split_problem<double> p(s);
        const split_problem<float> narrow(s);
        const matrix<double> y = expected(p);
        mamba::split_activations<double> kept;
        mamba::split_activations<float> kept_narrow;
        const auto check = [&](const auto& run) {
            CHECK((mamba_split_conv1d_scan(p.weights, p.zxbcdt, p.sequences, run, kept) - y).norm() < 1e-12 * y.norm());
        };
        check(operations{.reference = false, .pool = pool});
        check(operations{.reference = true, .pool = pool});
        const matrix<float> single =
            mamba_split_conv1d_scan(narrow.weights, narrow.zxbcdt, narrow.sequences, operations{.reference = false, .pool = pool}, kept_narrow);
        CHECK((single.cast<double>() - y).norm() < 1e-5 * y.norm());
        CHECK((kept_narrow.final_state.cast<double>() - kept.final_state).norm() < 1e-5 * kept.final_state.norm());
    }
}

TEST_CASE("mamba_split_conv1d_scan: gradients are difference quotients, for kernels and references alike")
{
    threads pool(2);
    const auto check_all = [](const auto& run) {
        for (const setup& s : setups) {
            CAPTURE(s.name);
            split_problem<double> p(s);
            mamba::split_activations<double> kept;
            const auto loss = [&] {
                mamba::split_activations<double> scratch;
                const matrix<double> y = mamba_split_conv1d_scan(p.weights, p.zxbcdt, p.sequences, run, scratch);
                return y.cwiseProduct(p.dout).sum() + scratch.final_state.cwiseProduct(p.dfinal_state).sum();
            };
            mamba_split_conv1d_scan(p.weights, p.zxbcdt, p.sequences, run, kept);
            auto d = mamba_split_conv1d_scan_backward(p.weights, p.zxbcdt, p.sequences, p.dout, run, kept, p.dfinal_state);
            const auto check = [&](const char* name, auto& argument, const auto& gradient) {
                CAPTURE(name);
                REQUIRE(argument.rows() == gradient.rows());
                REQUIRE(argument.cols() == gradient.cols());
                constexpr double step = 1e-5;
                double worst = 0;
                for (index i = 0; i < argument.rows(); ++i) {
                    for (index k = 0; k < argument.cols(); ++k) {
                        double& x = argument(i, k);
                        const double at = x;
                        x = at + step;
                        const double above = loss();
                        x = at - step;
                        const double below = loss();
                        x = at;
                        worst = std::max(worst, std::abs((above - below) / (2 * step) - gradient(i, k)));
                    }
                }
                CHECK(worst < 1e-7);
            };
            check("zxbcdt", p.zxbcdt, d.zxbcdt);
            check("conv1d_weight", p.weights.conv1d_weight, d.weights.conv1d_weight);
            check("conv1d_bias", p.weights.conv1d_bias, d.weights.conv1d_bias);
            check("A", p.weights.A, d.weights.A);
            check("D", p.weights.D, d.weights.D);
            check("delta_bias", p.weights.delta_bias, d.weights.delta_bias);
            check("norm_weight", p.weights.norm_weight, d.weights.norm_weight);
            check("out_proj_weight", p.weights.out_proj_weight, d.weights.out_proj_weight);
            check("out_proj_bias", p.weights.out_proj_bias, d.weights.out_proj_bias);
            if (s.initial_state) check("initial_state", p.sequences.initial_state, d.initial_state);
        }
    };
    check_all(operations{.reference = false, .pool = pool});
    check_all(operations{.reference = true, .pool = pool});
}

TEST_CASE("mamba2_block: any cut between prefill and steps gives the same outputs and states")
{
    constexpr index hidden = 5;
    threads pool(1);
    const operations run{.reference = false, .pool = pool};
    for (const setup& s : setups) {
        if (s.initial_state || s.packed) continue;  // a block starts from nothing
        CAPTURE(s.name);
        split_problem<double> p(s);
        mamba::mamba2_block_weights<double> weights{.in_proj_weight = matrix<double>::Random(p.weights.inputs(), hidden),
                                                    .inner = p.weights};
        if (s.biases) weights.in_proj_bias = row<double>::Random(p.weights.inputs());
        weights.set_A_log(row<double>::Random(s.nheads));
        const matrix<double> tokens = matrix<double>::Random(batch * length, hidden);
        mamba::mamba2_block_activations<double> kept;
        const matrix<double> whole = mamba_block(weights, tokens, batch, run, kept);
        const auto end = state_after(weights, kept, batch);
        const auto rows_of = [&](const matrix<double>& m, index first, index count) {
            matrix<double> part(batch * count, m.cols());
            for (index b = 0; b < batch; ++b) part.middleRows(b * count, count) = m.middleRows(b * length + first, count);
            return part;
        };
        for (index prefill = 1; prefill <= length; ++prefill) {  // shorter than the convolution, too
            CAPTURE(prefill);
            mamba::mamba2_block_activations<double> first;
            mamba_block(weights, rows_of(tokens, 0, prefill), batch, run, first);
            auto now = state_after(weights, first, batch);
            for (index t = prefill; t < length; ++t) {
                const matrix<double> y = mamba_block_step(weights, rows_of(tokens, t, 1), now, run);
                CHECK((y - rows_of(whole, t, 1)).norm() < 1e-12);
            }
            CHECK((now.conv - end.conv).norm() < 1e-12);
            CHECK((now.scan - end.scan).norm() < 1e-12);
        }
    }
}

TEST_CASE("mamba2_block: the gradients of its own weights and input are difference quotients")
{
    constexpr index hidden = 5;
    threads pool(2);
    const operations run{.reference = false, .pool = pool};
    split_problem<double> p(setups[1]);
    mamba::mamba2_block_weights<double> weights{.in_proj_weight = matrix<double>::Random(p.weights.inputs(), hidden),
                                                .in_proj_bias = row<double>::Random(p.weights.inputs()),
                                                .inner = p.weights};
    weights.set_A_log(row<double>::Random(setups[1].nheads));
    matrix<double> tokens = matrix<double>::Random(batch * length, hidden);
    const auto loss = [&] {
        mamba::mamba2_block_activations<double> scratch;
        return mamba_block(weights, tokens, batch, run, scratch).cwiseProduct(p.dout).sum();
    };
    mamba::mamba2_block_activations<double> kept;
    mamba_block(weights, tokens, batch, run, kept);
    const auto d = mamba_block_backward(weights, tokens, batch, p.dout, run, kept);
    const auto check = [&](auto& argument, const auto& gradient, const auto& refresh) {
        REQUIRE(argument.size() == gradient.size());
        double worst = 0;
        for (index i = 0; i < argument.size(); ++i) {
            constexpr double step = 1e-5;
            double& x = argument.data()[i];
            const double at = x;
            x = at + step, refresh();
            const double above = loss();
            x = at - step, refresh();
            const double below = loss();
            x = at, refresh();
            worst = std::max(worst, std::abs((above - below) / (2 * step) - gradient.data()[i]));
        }
        CHECK(worst < 1e-7);
    };
    check(tokens, d.hidden, [] {});
    check(weights.in_proj_weight, d.weights.in_proj_weight, [] {});
    check(weights.in_proj_bias, d.weights.in_proj_bias, [] {});
    row<double> A_log = weights.A_log;
    check(A_log, d.weights.A_log, [&] { weights.set_A_log(A_log); });
}

}  // namespace ssmkit::testing
