#pragma once

#include <cmath>

#include <ssmkit/args/causal_conv1d.hpp>

namespace ssmkit::reference {

namespace parts {

/// The input of the convolution along time: the initial state, then x.
template <class T>
struct causal_conv1d_input {
    view<const T, 3> x, initial_states;
    view<const std::int32_t, 2> seq_idx;  // x and seq_idx as visited

    explicit causal_conv1d_input(const causal_conv1d_args<T>& a)
        : x(ssmkit::detail::as_visited(a.x, a.reverse)), initial_states(a.initial_states),
          seq_idx(ssmkit::detail::as_visited(a.seq_idx, a.reverse))
    {
    }

    /// The sequence that position t belongs to; the initial state is of the first token's.
    std::int32_t sequence(index b, index t) const { return seq_idx.data() ? seq_idx(b, t < 0 ? 0 : t) : 0; }

    /// The input at position t, which is negative in the initial state.
    T operator()(index b, index t, index c) const
    {
        if (t >= 0) return x(b, t, c);
        return initial_states.data() ? initial_states(b, c, initial_states.extent(2) + t) : T(0);
    }
};

/// The state after n tokens, of which the last is no padding, at place j; with n = 0, the initial state.
template <class T>
T causal_conv1d_state(const causal_conv1d_input<T>& input, index b, index c, index n, index j, index width)
{
    const index t = n + j - (width - 1);
    return n == 0 || input.sequence(b, t) == input.sequence(b, n - 1) ? input(b, t, c) : T(0);
}

/// bias + Σ_j weight_j X[t + j]
template <class T>
compute_t<T> causal_conv1d_sum(const causal_conv1d_args<T>& a, const causal_conv1d_input<T>& input, index b, index t, index c)
{
    using real = compute_t<T>;
    const index width = a.weight.extent(1);
    real sum = a.bias.data() ? a.bias[c] : real(0);
    for (index j = 0; j < width; ++j) {
        const index from = t + j - (width - 1);
        if (input.sequence(b, from) == input.sequence(b, t)) sum += a.weight(c, j) * static_cast<real>(input(b, from, c));
    }
    return sum;
}

template <class Real>
Real causal_conv1d_silu(Real x)
{
    const Real e = std::exp(-std::abs(x));
    return x * (x < Real(0) ? e : Real(1)) / (Real(1) + e);
}

}  // namespace parts

/// The causal convolution as its equations say it (args/causal_conv1d.hpp): the oracle of the tests.
template <class T>
void causal_conv1d(const causal_conv1d_args<T>& a)
{
    check(a);
    using real = compute_t<T>;
    const index length = a.x.extent(1), dim = a.x.extent(2), width = a.weight.extent(1);
    const parts::causal_conv1d_input<T> input(a);
    const view<T, 3> y = ssmkit::detail::as_visited(a.y, a.reverse);
    for (index b = 0; b < a.x.extent(0); ++b) {
        for (index t = 0; t < length; ++t) {
            for (index c = 0; c < dim; ++c) {
                const real p = parts::causal_conv1d_sum(a, input, b, t, c);
                const real value = a.silu ? parts::causal_conv1d_silu(p) : p;
                y(b, t, c) = static_cast<T>(input.sequence(b, t) < 0 ? real(0) : value);
            }
        }
        if (a.final_states.data() == nullptr) continue;
        const index n = a.seq_idx.data() ? ssmkit::detail::unpadded_length(input.seq_idx[b], length) : length;
        for (index c = 0; c < dim; ++c) {
            for (index j = 0; j < width - 1; ++j) {
                a.final_states(b, c, j) = parts::causal_conv1d_state(input, b, c, n, j, width);
            }
        }
    }
}

}  // namespace ssmkit::reference
