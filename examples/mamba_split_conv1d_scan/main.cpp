// The heart of a Mamba-2 block as a user would compose it from ssmkit's operations and Eigen's products, forward and
// backward: see ../common/mamba_split_conv1d_scan.hpp. Here its gradients are held against difference quotients.

#include <cstdio>

#include "../common/gradient_check.hpp"
#include "../common/mamba_split_conv1d_scan.hpp"

namespace {

using mamba::index, mamba::matrix;

constexpr index batch = 2, length = 40, nheads = 4, headdim = 6, ngroups = 2, state = 8, mlp = 3, width = 4, out = 12;
constexpr index dim = nheads * headdim, channels = dim + 2 * ngroups * state;

}  // namespace

int main()
{
    mamba::numbers next;
    mamba::split_weights<double> weights{
        .conv1d_weight = next(channels, width),
        .conv1d_bias = next(1, channels),
        .A = -next(1, nheads).array().exp(),
        .D = next(1, nheads),
        .delta_bias = next(1, nheads),
        .norm_weight = next(1, dim),
        .out_proj_weight = next(out, mlp + dim),
        .out_proj_bias = next(1, out),
        .headdim = headdim,
        .ngroups = ngroups,
    };
    matrix<double> zxbcdt = next(batch * length, weights.inputs());
    mamba::split_sequences<double> sequences{.batch = batch, .initial_state = next(batch * dim, state)};
    const matrix<double> target = next(batch * length, out);

    ssmkit::threads pool(2);
    const mamba::kernels run{pool};
    mamba::split_activations<double> kept;
    const auto difference = [&] { return (mamba_split_conv1d_scan(weights, zxbcdt, sequences, run, kept) - target).eval(); };
    const auto loss = [&] { return difference().squaredNorm() / 2; };

    const double before = loss();
    const auto d = mamba_split_conv1d_scan_backward(weights, zxbcdt, sequences, difference(), run, kept);

    mamba::gradient_check check(loss);
    check("zxbcdt", zxbcdt, d.zxbcdt);
    check("conv1d_weight", weights.conv1d_weight, d.weights.conv1d_weight);
    check("conv1d_bias", weights.conv1d_bias, d.weights.conv1d_bias);
    check("A", weights.A, d.weights.A);
    check("D", weights.D, d.weights.D);
    check("delta_bias", weights.delta_bias, d.weights.delta_bias);
    check("norm_weight", weights.norm_weight, d.weights.norm_weight);
    check("out_proj_weight", weights.out_proj_weight, d.weights.out_proj_weight);
    check("out_proj_bias", weights.out_proj_bias, d.weights.out_proj_bias);
    check("initial_state", sequences.initial_state, d.initial_state);

    // One step of gradient descent.
    constexpr double rate = 1e-3;
    zxbcdt -= rate * d.zxbcdt;
    std::printf("loss %.4f, after a step against the gradient of zxbcdt %.4f\n", before, loss());
    std::printf("largest deviation from 1: %.1e\n", check.worst());
    return check.worst() < 1e-6 && loss() < before ? 0 : 1;
}
