#pragma once

#include <cmath>

#include <ssmkit/args/ema_kernel.hpp>
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

}  // namespace ssmkit::reference
