#pragma once

#include <numbers>
#include <vector>

#include <ssmkit/args/s4_kernel.hpp>
#include <ssmkit/reference/dense_system.hpp>

namespace ssmkit::reference {

namespace parts {

using s4_number = std::complex<double>;

/// A channel's system over the full spectrum of 2 state poles, in double.
struct s4_full {
    index full, rank;
    std::vector<s4_number> delta, A, B, P, C;  // A (full, full) = diag(Λ) - Σ P P*; P (rank, full); C (channels, full)
};

template <class T>
s4_full s4_expanded(const s4_kernel_args<T>& a, index h)
{
    const index state = a.A.extent(1), rank = a.P.extent(0), full = 2 * state, copy = h % a.A.extent(0);
    s4_full s{full, rank, {}, {}, {}, {}, {}};
    const auto both = [&](auto&& f, std::vector<s4_number>& out) {
        for (index n = 0; n < full; ++n) {
            const auto x = f(n % state);
            const s4_number value(static_cast<double>(std::real(x)), static_cast<double>(std::imag(x)));
            out.push_back(n < state ? value : std::conj(value));
        }
    };
    both([&](index n) { return a.delta(h, n) * a.rate; }, s.delta);
    both([&](index n) { return a.B(copy, n); }, s.B);
    for (index r = 0; r < rank; ++r) both([&](index n) { return a.P(r, copy, n); }, s.P);
    for (index c = 0; c < a.C.extent(0); ++c) {
        both([&](index n) {
            const bool beyond = a.delta(h, n) * std::abs(a.A(copy, n).imag()) / (2 * std::numbers::pi) >= a.bandlimit / 2;
            return beyond ? std::complex<T>(0) : a.C(c, h, n);
        }, s.C);
    }
    s.A.resize(at(full * full));
    for (index n = 0; n < full; ++n) {
        for (index m = 0; m < full; ++m) {
            for (index r = 0; r < rank; ++r) s.A[at(n * full + m)] -= s.P[at(r * full + n)] * std::conj(s.P[at(r * full + m)]);
        }
        s.A[at(n * full + n)] += n < state ? a.A(copy, n) : std::conj(a.A(copy, n - state));
    }
    return s;
}

/// M(ω) = 2 (1 - ω) I - (1 + ω) ΔA
inline std::vector<s4_number> s4_matrix(const s4_full& s, s4_number omega)
{
    std::vector<s4_number> M(s.A.size());
    for (index n = 0; n < s.full; ++n) {
        for (index m = 0; m < s.full; ++m) M[at(n * s.full + m)] = -(1.0 + omega) * s.delta[at(n)] * s.A[at(n * s.full + m)];
        M[at(n * s.full + n)] += 2.0 * (1.0 - omega);
    }
    return M;
}

/// e^{-2πi j / n}
inline s4_number s4_node(index j, index n)
{
    return std::polar(1.0, -2 * std::numbers::pi * static_cast<double>(j) / static_cast<double>(n));
}

/// The input column of initial state b: (I + ΔA/2) s, over the full spectrum.
template <class T>
std::vector<s4_number> s4_state_column(const s4_kernel_args<T>& a, const s4_full& s, index b, index h)
{
    std::vector<s4_number> state, column;
    for (index n = 0; n < s.full; ++n) {
        const auto x = a.initial_state(b, h, n % (s.full / 2));
        const s4_number value(static_cast<double>(x.real()), static_cast<double>(x.imag()));
        state.push_back(n < s.full / 2 ? value : std::conj(value));
    }
    for (index n = 0; n < s.full; ++n) {
        s4_number sum = 0;
        for (index m = 0; m < s.full; ++m) sum += s.A[at(n * s.full + m)] * state[at(m)];
        column.push_back(state[at(n)] + s.delta[at(n)] * sum / 2.0);
    }
    return column;
}

}  // namespace parts

/// S4's kernel (args/s4_kernel.hpp) by dense matrices: K̂(ω) = 2 C̃ M(ω)^-1 ΔB at every node and the inverse transform as its
/// sum says it. The oracle of the tests; double inside.
template <class T>
void s4_kernel(const s4_kernel_args<T>& a)
{
    check(a);
    using namespace parts;
    const index dim = a.C.extent(1), channels = a.C.extent(0), length = a.K.extent(2);
    const index n = ssmkit::detail::s4_transform_length(a, length), batch = a.K_state.data() ? a.initial_state.extent(0) : 0;
    for (index h = 0; h < dim; ++h) {
        const s4_full s = s4_expanded(a, h);
        const index columns = 1 + batch;
        std::vector<s4_number> inputs(at(s.full * columns));  // ΔB, then the states
        for (index k = 0; k < s.full; ++k) inputs[at(k * columns)] = s.delta[at(k)] * s.B[at(k)];
        for (index b = 0; b < batch; ++b) {
            const auto column = s4_state_column(a, s, b, h);
            for (index k = 0; k < s.full; ++k) inputs[at(k * columns + 1 + b)] = column[at(k)];
        }
        std::vector<double> sums(at(channels * columns * length));
        for (index j = 0; j <= n / 2 && length > 0; ++j) {
            std::vector<s4_number> x = inputs;
            solve(s4_matrix(s, s4_node(j, n)), s.full, x, columns);
            const double weight = (j == 0 || 2 * j == n ? 2.0 : 4.0) / static_cast<double>(n);
            for (index c = 0; c < channels; ++c) {
                for (index i = 0; i < columns; ++i) {
                    s4_number value = 0;
                    for (index k = 0; k < s.full; ++k) value += s.C[at(c * s.full + k)] * x[at(k * columns + i)];
                    for (index l = 0; l < length; ++l) {
                        sums[at((c * columns + i) * length + l)] += weight * (value * std::conj(s4_node(j * l % n, n))).real();
                    }
                }
            }
        }
        for (index c = 0; c < channels; ++c) {
            for (index l = 0; l < length; ++l) {
                a.K(c, h, l) = static_cast<T>(sums[at(c * columns * length + l)]);
                for (index b = 0; b < batch; ++b)
                    a.K_state(b, c, h, l) = static_cast<T>(sums[at((c * columns + 1 + b) * length + l)]);
            }
        }
    }
}

}  // namespace ssmkit::reference
