#pragma once

// Stored parameters of S4 (the specification's sections 3.2 and 7) as the library takes them.

#include <array>
#include <cmath>
#include <complex>
#include <string>
#include <vector>

#include <ssmkit/parameters.hpp>
#include <ssmkit/view.hpp>

#include "golden.hpp"

namespace golden {

/// Step sizes and poles in double, natural: Δ = e^inv_dt, Λ = -e^A_real - i A_imag.
struct dplr_parameters {
    std::vector<double> delta;
    std::vector<std::complex<double>> A;
    index dim, steps, copies, state;  // steps: 1 if Δ is tied over the state

    explicit dplr_parameters(problem& p)
    {
        const auto inv_dt = p.input<double>("inv_dt", 0, 1), re = p.input<double>("A_real", 0, 1),
                   im = p.input<double>("A_imag", 0, 1);
        dim = inv_dt.extent(0), steps = inv_dt.extent(1), copies = re.extent(0), state = re.extent(1);
        if (p.flag<bool>("dt_tie", steps == 1) != (steps == 1) && state != 1)
            throw std::runtime_error("inv_dt does not fit dt_tie");
        if (p.flag<index>("n_ssm", copies) != copies) throw std::runtime_error("A_real does not fit n_ssm");
        for (index h = 0; h < dim; ++h) {
            for (index n = 0; n < steps; ++n) delta.push_back(std::exp(inv_dt(h, n)));
        }
        for (index s = 0; s < copies; ++s) {
            for (index n = 0; n < state; ++n) A.emplace_back(-std::exp(re(s, n)), -im(s, n));
        }
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
                d_inv_dt(h, n) = static_cast<E>(delta[static_cast<std::size_t>(h * steps + n)] * ddelta(h, n));
        }
        for (index s = 0; s < copies; ++s) {
            for (index n = 0; n < state; ++n) {
                if (d_re.data()) d_re(s, n) = static_cast<E>(A[static_cast<std::size_t>(s * state + n)].real() * dA(s, n).real());
                if (d_im.data()) d_im(s, n) = static_cast<E>(-dA(s, n).imag());
            }
        }
    }
};

/// Memory with a view.
template <class E, std::size_t Rank>
struct owned {
    std::vector<E> data;
    view<E, Rank> all;

    explicit owned(const std::array<index, Rank>& extents)
    {
        index n = 1;
        for (const index e : extents) n *= e;
        data.resize(static_cast<std::size_t>(n));
        all = {data.data(), extents};
    }
};

/// Element for element; nothing if there is nowhere to.
template <class E, std::size_t Rank>
void copy(const view<const E, Rank>& from, const view<E, Rank>& to)
{
    if (to.data() == nullptr) return;
    for (index i = 0; i < from.extent(0); ++i) {
        if constexpr (Rank == 1) {
            to[i] = from[i];
        } else {
            copy<E, Rank - 1>(from[i], to[i]);
        }
    }
}

/// The first index of a tensor dropped: (1, a, b) to (a, b).
template <class E>
view<E, 2> only(const view<E, 3>& v)
{
    if (v.data() != nullptr && v.extent(0) != 1) throw std::runtime_error("a first axis is not 1");
    return v.data() ? v[0] : view<E, 2>{};
}

template <class E>
view<E, 1> only_row(const view<E, 2>& v)
{
    if (v.data() != nullptr && v.extent(0) != 1) throw std::runtime_error("a first axis is not 1");
    return v.data() ? v[0] : view<E, 1>{};
}

}  // namespace golden
