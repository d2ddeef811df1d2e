#pragma once

#include <cmath>

#include <ssmkit/args/ema_kernel_backward.hpp>
#include <ssmkit/reference/ema_kernel.hpp>

namespace ssmkit::reference {

/// The gradients of ema_kernel as their equations say it (args/ema_kernel_backward.hpp): the oracle of the tests.
template <class T>
void ema_kernel_backward(const ema_kernel_backward_args<T>& a)
{
    check(a);
    const ema_kernel_args<T>& f = a.forward;
    const double over = 1 / std::sqrt(static_cast<double>(f.delta.extent(1)));
    for (index h = 0; h < f.delta.extent(0); ++h) {
        for (index n = 0; n < f.delta.extent(1); ++n) {
            const parts::ema_component c(f, h, n);
            double S0 = 0, S1 = 0;
            for (index l = 0; l < a.dK.extent(1); ++l) {
                S0 += static_cast<double>(a.dK(h, l)) * c.power(l);
                if (l > 0) S1 += static_cast<double>(l) * static_cast<double>(a.dK(h, l)) * c.power(l - 1);
            }
            const double beta = static_cast<double>(f.beta(h, n)), gamma = over * static_cast<double>(f.gamma(h, n));
            const double dq = c.p * beta * gamma * S1, dp = beta * gamma * S0 - c.damping * dq;
            const double others = static_cast<double>(f.delta(h, n)), damped = static_cast<double>(f.alpha(h, n));
            if (a.ddelta.data()) a.ddelta(h, n) = static_cast<T>(dp * to_positive_derivative(positive_transform::sigmoid, others));
            if (a.dalpha.data())
                a.dalpha(h, n) = static_cast<T>(-c.p * dq * to_positive_derivative(positive_transform::sigmoid, damped));
            if (a.dbeta.data()) a.dbeta(h, n) = static_cast<T>(c.p * gamma * S0);
            if (a.dgamma.data()) a.dgamma(h, n) = static_cast<T>(c.p * beta * S0 * over);
        }
    }
}

}  // namespace ssmkit::reference
