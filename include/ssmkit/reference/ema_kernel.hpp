#pragma once

#include <cmath>

#include <ssmkit/args/ema_kernel_backward.hpp>
#include <ssmkit/parameters.hpp>

namespace ssmkit::reference {

namespace parts {

/// One component of the moving average: K_l has w q^l.
struct ema_component {
    double p, damping, log_q, w;

    template <class T>
    ema_component(const ema_kernel_args<T>& a, index h, index n)
        : p(to_positive(positive_transform::sigmoid, static_cast<double>(a.delta(h, n)))),
          damping(to_positive(positive_transform::sigmoid, static_cast<double>(a.alpha(h, n)))),
          log_q(std::log1p(-p * damping)),
          w(p * static_cast<double>(a.beta(h, n)) * static_cast<double>(a.gamma(h, n)) /
            std::sqrt(static_cast<double>(a.delta.extent(1))))
    {
    }

    double power(index l) const { return l == 0 ? 1 : std::exp(static_cast<double>(l) * log_q); }
};

}  // namespace parts

/// The kernel of the moving average as its equation says it (args/ema_kernel.hpp): the oracle of the tests. Adds up in double.
template <class T>
void ema_kernel(const ema_kernel_args<T>& a)
{
    check(a);
    for (index h = 0; h < a.K.extent(0); ++h) {
        for (index l = 0; l < a.K.extent(1); ++l) {
            double sum = 0;
            for (index n = 0; n < a.delta.extent(1); ++n) {
                const parts::ema_component c(a, h, n);
                sum += c.w * c.power(l);
            }
            a.K(h, l) = static_cast<T>(sum);
        }
    }
}

/// Its gradients (args/ema_kernel_backward.hpp): the oracle of the tests.
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
