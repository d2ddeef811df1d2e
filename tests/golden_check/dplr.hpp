#pragma once

// Stored parameters of S4 (the specification's sections 3.2 and 7) as the library takes them.

#include <complex>
#include <string>
#include <vector>

#include <ssmkit/parameters.hpp>
#include <ssmkit/view.hpp>

#include "diagonal_parameters.hpp"
#include "golden.hpp"
#include "memory.hpp"
#include "methods.hpp"

namespace golden {

/// Step sizes and poles in double, natural: Δ = T(inv_dt), Λ = -T(A_real) - i T(A_imag), by default with exp, exp and none.
struct dplr_parameters {
    view<const double, 2> inv_dt, A_real, A_imag;  // as stored
    ssmkit::positive_transform delta_transform, real_transform, imag_transform;
    std::vector<double> delta;
    std::vector<std::complex<double>> A;
    index dim, steps, copies, state;  // steps: 1 if Δ is tied over the state

    explicit dplr_parameters(problem& p)
        : inv_dt(p.input<double>("inv_dt", 0, 1)),
          A_real(p.input<double>("A_real", 0, 1)),
          A_imag(p.input<double>("A_imag", 0, 1)),
          delta_transform(transform_named(p.flag<std::string>("dt_transform", "exp"))),
          real_transform(transform_named(p.flag<std::string>("real_transform", "exp"))),
          imag_transform(transform_named(p.flag<std::string>("imag_transform", "none"))),
          delta(transformed(inv_dt, delta_transform, 1)),
          dim(inv_dt.extent(0)),
          steps(inv_dt.extent(1)),
          copies(A_real.extent(0)),
          state(A_real.extent(1))
    {
        if (p.flag<bool>("dt_tie", steps == 1) != (steps == 1) && state != 1)
            throw std::runtime_error("inv_dt does not fit dt_tie");
        if (p.flag<index>("n_ssm", copies) != copies) throw std::runtime_error("A_real does not fit n_ssm");
        const std::vector<double> re = transformed(A_real, real_transform, -1), im = transformed(A_imag, imag_transform, -1);
        for (std::size_t i = 0; i < re.size(); ++i) A.emplace_back(re[i], im[i]);
    }

    view<const double, 2> delta_view() const { return {delta.data(), {dim, state}, {steps, steps == 1 ? 0 : 1}}; }
    view<const std::complex<double>, 2> A_view() const { return {A.data(), copies, state}; }

    /// The gradients of the stored numbers from those of Δ and Λ.
    template <class E>
    void hand_in(problem& p, const view<const double, 2>& ddelta, const view<const std::complex<double>, 2>& dA) const
    {
        const auto d_inv_dt = p.output<E>("d_inv_dt", 0, 1), d_re = p.output<E>("d_A_real", 0, 1),
                   d_im = p.output<E>("d_A_imag", 0, 1);
        for (index h = 0; h < dim && d_inv_dt.data(); ++h) {
            for (index n = 0; n < steps; ++n)
                d_inv_dt(h, n) = static_cast<E>(ssmkit::to_positive_derivative(delta_transform, inv_dt(h, n)) * ddelta(h, n));
        }
        for (index s = 0; s < copies; ++s) {
            for (index n = 0; n < state; ++n) {
                const double re = ssmkit::to_positive_derivative(real_transform, A_real(s, n)),
                             im = ssmkit::to_positive_derivative(imag_transform, A_imag(s, n));
                if (d_re.data()) d_re(s, n) = static_cast<E>(-re * dA(s, n).real());
                if (d_im.data()) d_im(s, n) = static_cast<E>(-im * dA(s, n).imag());
            }
        }
    }
};

}  // namespace golden
