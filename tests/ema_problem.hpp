#pragma once

// Problems of the moving average's kernel and its gradients with random content.

#include <ssmkit/args/ema_kernel_backward.hpp>

#include "diagonal_problem.hpp"

namespace ssmkit::testing {

template <class T>
struct ema_problem {
    diagonal_setup s;
    tensor<T, 2> parameters[4], gradients[4], K, dK;  // of delta, alpha, beta, gamma

    explicit ema_problem(const diagonal_setup& setup, double logits = 3) : s(setup)
    {
        random numbers(s.seed);
        for (index i = 0; i < 4; ++i) {
            parameters[i] = s.input<T, 2>(numbers, {s.dim, s.state}, i < 2 ? range{-logits, logits} : range{0.5, 1.5});
            gradients[i] = s.output<T, 2>({s.dim, s.state});
        }
        dK = s.input<T, 2>(numbers, {s.dim, s.length}, {-1, 1});
        K = s.output<T, 2>({s.dim, s.length});
    }

    ema_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        ema_problem<double> p(plain);
        for (index i = 0; i < 4; ++i) p.parameters[i] = parameters[i].template as<double>();
        p.dK = dK.template as<double>();
        return p;
    }

    ema_kernel_args<T> args() const
    {
        return {.delta = parameters[0], .alpha = parameters[1], .beta = parameters[2], .gamma = parameters[3], .K = K};
    }
    ema_kernel_backward_args<T> backward_args() const
    {
        ema_kernel_backward_args<T> a{.forward = args(),
                                      .dK = dK,
                                      .ddelta = gradients[0],
                                      .dalpha = gradients[1],
                                      .dbeta = gradients[2],
                                      .dgamma = gradients[3]};
        a.forward.K = {};
        return a;
    }
};

}  // namespace ssmkit::testing
