#pragma once

#include <complex>
#include <cstddef>
#include <vector>

#include <ssmkit/args/s4.hpp>
#include <ssmkit/reference/s4_kernel.hpp>

namespace ssmkit::reference {

namespace parts {

/// Ā, (full, full) row-major, and B̄ by dense matrices: (I - ΔA/2)^-1 times I + ΔA/2 and ΔB.
inline std::vector<s4_number> s4_dense_transition(const s4_full& s, std::vector<s4_number>& gain)
{
    std::vector<s4_number> below(s.A.size()), above(s.A.size());
    for (index n = 0; n < s.full; ++n) {
        for (index m = 0; m < s.full; ++m) {
            const s4_number half = s.delta[at(n)] * s.A[at(n * s.full + m)] / 2.0, one = n == m ? 1.0 : 0.0;
            below[at(n * s.full + m)] = one - half;
            above[at(n * s.full + m)] = one + half;
        }
        gain.push_back(s.delta[at(n)] * s.B[at(n)]);
    }
    solve(below, s.full, above, s.full);
    solve(below, s.full, gain, 1);
    return above;
}

/// Rows C with C (I - Ā^length) = C̃.
inline std::vector<s4_number> s4_recovered(const std::vector<s4_number>& A, index full, const std::vector<s4_number>& prepared,
                                           index rows, index length)
{
    std::vector<s4_number> power(A.size()), square = A;
    for (index n = 0; n < full; ++n) power[at(n * full + n)] = 1;
    const auto multiplied = [&](const std::vector<s4_number>& x, const std::vector<s4_number>& y) {
        std::vector<s4_number> product(x.size());
        for (index n = 0; n < full; ++n) {
            for (index k = 0; k < full; ++k) {
                for (index m = 0; m < full; ++m) product[at(n * full + m)] += x[at(n * full + k)] * y[at(k * full + m)];
            }
        }
        return product;
    };
    for (; length > 0; length /= 2) {
        if (length % 2 == 1) power = multiplied(power, square);
        square = multiplied(square, square);
    }
    std::vector<s4_number> transposed(A.size()), columns(prepared.size());
    for (index n = 0; n < full; ++n) {
        for (index m = 0; m < full; ++m) transposed[at(m * full + n)] = (n == m ? 1.0 : 0.0) - power[at(n * full + m)];
        for (index c = 0; c < rows; ++c) columns[at(n * rows + c)] = prepared[at(c * full + n)];
    }
    solve(transposed, full, columns, rows);
    std::vector<s4_number> recovered(prepared.size());
    for (index n = 0; n < full; ++n) {
        for (index c = 0; c < rows; ++c) recovered[at(c * full + n)] = columns[at(n * rows + c)];
    }
    return recovered;
}

}  // namespace parts

/// S4's layer as its equations say it (args/s4.hpp), by dense matrices over the full spectrum, in double precision throughout: the
/// oracle of the tests.
template <class T>
void s4(const s4_args<T>& a)
{
    check(a);
    using namespace parts;
    using real = compute_t<T>;
    const index batch = a.u.extent(0), length = a.u.extent(1), dim = a.u.extent(2), state = a.A.extent(1), full = 2 * state;
    auto parameters = ssmkit::detail::s4_layer_kernel(a);
    const index channels = parameters.C.extent(0), L = ssmkit::detail::s4_transform_length(parameters, length);
    if (a.true_C.data()) parameters.C = a.true_C;
    std::vector<s4_number> x(at(full)), next(at(full));
    for (index h = 0; h < dim; ++h) {
        const s4_full s = s4_expanded(parameters, h);
        std::vector<s4_number> gain;
        const std::vector<s4_number> A = s4_dense_transition(s, gain);
        const std::vector<s4_number> C = a.true_C.data() ? s.C : s4_recovered(A, full, s.C, channels, L);
        for (index b = 0; b < batch; ++b) {
            for (index n = 0; n < state; ++n) {
                x[at(n)] = a.initial_state.data() ? s4_number(a.initial_state(b, h, n)) : s4_number(0);
                x[at(state + n)] = std::conj(x[at(n)]);
            }
            for (index step = 0; step < length; ++step) {
                const index t = a.reverse ? length - 1 - step : step;
                const double u = static_cast<double>(a.u(b, t, h));
                for (index n = 0; n < full; ++n) {
                    next[at(n)] = gain[at(n)] * u;
                    for (index m = 0; m < full; ++m) next[at(n)] += A[at(n * full + m)] * x[at(m)];
                }
                x = next;
                for (index c = 0; c < channels; ++c) {
                    double sum = a.D.data() ? static_cast<double>(a.D(c, h)) * u : 0;
                    for (index n = 0; n < full; ++n) sum += (C[at(c * full + n)] * x[at(n)]).real();
                    a.y(b, t, c * dim + h) = static_cast<T>(static_cast<real>(sum));
                }
            }
            for (index n = 0; n < state && a.final_state.data(); ++n) {
                a.final_state(b, h, n) = {static_cast<real>(x[at(n)].real()), static_cast<real>(x[at(n)].imag())};
            }
        }
    }
}

}  // namespace ssmkit::reference
