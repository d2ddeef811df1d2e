// The heart of a Mamba block as a user would compose it from ssmkit's operations and Eigen's products, forward and backward:
// see ../common/mamba_inner.hpp. Here its gradients are held against difference quotients.

#include <cstdio>

#include "../common/gradient_check.hpp"
#include "../common/mamba_inner.hpp"

namespace {

using mamba::index, mamba::matrix;

constexpr index batch = 2, length = 20, dim = 24, state = 8, rank = 3, width = 4, out = 12;

}  // namespace

int main()
{
    mamba::numbers next;
    mamba::inner_weights<double> weights{
        .conv1d_weight = next(dim, width),
        .conv1d_bias = next(1, dim),
        .x_proj_weight = next(rank + 2 * state, dim),
        .delta_proj_weight = next(dim, rank),
        .out_proj_weight = next(out, dim),
        .out_proj_bias = next(1, out),
        .A = -next(dim, state).array().exp(),
        .B = {},
        .C = {},
        .B_proj_bias = next(1, state),
        .C_proj_bias = next(1, state),
        .D = next(1, dim),
        .delta_bias = next(1, dim),
    };
    matrix<double> xz = next(batch * length, 2 * dim);
    const matrix<double> target = next(batch * length, out);

    ssmkit::threads pool(2);
    const mamba::kernels run{pool};
    mamba::inner_activations<double> kept;
    const auto loss = [&] { return (mamba_inner(weights, xz, batch, run, kept) - target).squaredNorm() / 2; };

    const double before = loss();
    const matrix<double> dout = mamba_inner(weights, xz, batch, run, kept) - target;
    const auto d = mamba_inner_backward(weights, xz, batch, dout, run, kept);

    mamba::gradient_check check(loss);
    check("xz", xz, d.xz);
    check("conv1d_weight", weights.conv1d_weight, d.weights.conv1d_weight);
    check("conv1d_bias", weights.conv1d_bias, d.weights.conv1d_bias);
    check("x_proj_weight", weights.x_proj_weight, d.weights.x_proj_weight);
    check("delta_proj_weight", weights.delta_proj_weight, d.weights.delta_proj_weight);
    check("out_proj_weight", weights.out_proj_weight, d.weights.out_proj_weight);
    check("out_proj_bias", weights.out_proj_bias, d.weights.out_proj_bias);
    check("A", weights.A, d.weights.A);
    check("B_proj_bias", weights.B_proj_bias, d.weights.B_proj_bias);
    check("C_proj_bias", weights.C_proj_bias, d.weights.C_proj_bias);
    check("D", weights.D, d.weights.D);
    check("delta_bias", weights.delta_bias, d.weights.delta_bias);

    // One step of gradient descent.
    constexpr double rate = 1e-3;
    xz -= rate * d.xz;
    std::printf("loss %.4f, after a step against the gradient of xz %.4f\n", before, loss());
    std::printf("largest deviation from 1: %.1e\n", check.worst());
    return check.worst() < 1e-6 && loss() < before ? 0 : 1;
}
