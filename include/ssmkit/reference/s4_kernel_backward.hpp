#pragma once

#include <ssmkit/args/s4_kernel_backward.hpp>
#include <ssmkit/reference/s4_kernel.hpp>

namespace ssmkit::reference {

/// The gradients of S4's kernel (args/s4_kernel_backward.hpp) by dense matrices: with x = M^-1 b for every input column b and
/// y = M^-T C̃, the gradient of M is -Σ u x*, of which A's and Δ's follow element by element. The oracle of the tests.
template <class T>
void s4_kernel_backward(const s4_kernel_backward_args<T>& a)
{
    check(a);
    using namespace parts;
    const s4_kernel_args<T>& f = a.forward;
    const index dim = f.C.extent(1), channels = f.C.extent(0), state = f.C.extent(2), length = a.dK.extent(2), rank = f.P.extent(0);
    const index n = ssmkit::detail::s4_transform_length(f, length), batch = a.dK_state.data() ? f.initial_state.extent(0) : 0;
    const auto narrow = [](s4_number x) { return std::complex<T>(static_cast<T>(x.real()), static_cast<T>(x.imag())); };
    const auto clear = [](const auto& v) {
        using E = typename std::remove_cvref_t<decltype(v)>::value_type;
        if constexpr (std::remove_cvref_t<decltype(v)>::rank == 2) {
            for (index i = 0; i < v.extent(0); ++i) {
                for (index k = 0; k < v.extent(1); ++k) v(i, k) = E(0);
            }
        } else {
            for (index r = 0; r < v.extent(0); ++r) {
                for (index i = 0; i < v.extent(1); ++i) {
                    for (index k = 0; k < v.extent(2); ++k) v(r, i, k) = E(0);
                }
            }
        }
    };
    clear(a.ddelta), clear(a.dA), clear(a.dinitial_state);
    std::vector<s4_number> dB(at(f.A.extent(0) * state)), dP(at(rank * f.A.extent(0) * state));
    for (index h = 0; h < dim; ++h) {
        const s4_full s = s4_expanded(f, h);
        const index full = s.full, columns = 1 + batch, copy = h % f.A.extent(0);
        std::vector<s4_number> inputs(at(full * columns)), dinputs(at(full * columns)), dC(at(channels * full)),
            dW(at(full * full));
        for (index k = 0; k < full; ++k) inputs[at(k * columns)] = s.delta[at(k)] * s.B[at(k)];
        for (index b = 0; b < batch; ++b) {
            const auto column = s4_state_column(f, s, b, h);
            for (index k = 0; k < full; ++k) inputs[at(k * columns + 1 + b)] = column[at(k)];
        }
        for (index j = 0; j <= n / 2 && length > 0; ++j) {
            const s4_number omega = s4_node(j, n);
            const auto M = s4_matrix(s, omega);
            std::vector<s4_number> x = inputs, y(at(full * channels)), transposed(M.size());
            for (index k = 0; k < full; ++k) {
                for (index m = 0; m < full; ++m) transposed[at(m * full + k)] = M[at(k * full + m)];
                for (index c = 0; c < channels; ++c) y[at(k * channels + c)] = s.C[at(c * full + k)];
            }
            solve(M, full, x, columns);
            solve(transposed, full, y, channels);
            const double weight = (j == 0 || 2 * j == n ? 2.0 : 4.0) / static_cast<double>(n);
            std::vector<s4_number> u(at(full * columns));
            for (index c = 0; c < channels; ++c) {
                for (index i = 0; i < columns; ++i) {
                    s4_number g = 0;
                    for (index l = 0; l < length; ++l) {
                        const T upstream = i == 0 ? a.dK(c, h, l) : a.dK_state(i - 1, c, h, l);
                        g += weight * static_cast<double>(upstream) * s4_node(j * l % n, n);
                    }
                    for (index k = 0; k < full; ++k) {
                        dC[at(c * full + k)] += g * std::conj(x[at(k * columns + i)]);
                        u[at(k * columns + i)] += g * std::conj(y[at(k * channels + c)]);
                    }
                }
            }
            for (index i = 0; i < columns; ++i) {
                for (index k = 0; k < full; ++k) {
                    dinputs[at(k * columns + i)] += u[at(k * columns + i)];
                    for (index m = 0; m < full; ++m) {
                        dW[at(k * full + m)] += std::conj(1.0 + omega) * u[at(k * columns + i)] * std::conj(x[at(m * columns + i)]);
                    }
                }
            }
        }
        for (index b = 0; b < batch; ++b) {  // b = s + ΔA s / 2
            std::vector<s4_number> ds(at(full));
            for (index k = 0; k < full; ++k) {
                const s4_number g = dinputs[at(k * columns + 1 + b)];
                ds[at(k)] += g;
                for (index m = 0; m < full; ++m) {
                    const auto value = f.initial_state(b, h, m % state);
                    const s4_number given(static_cast<double>(value.real()), static_cast<double>(value.imag()));
                    dW[at(k * full + m)] += 0.5 * g * (m < state ? std::conj(given) : given);
                    ds[at(m)] += 0.5 * s.delta[at(k)] * std::conj(s.A[at(k * full + m)]) * g;
                }
            }
            for (index k = 0; k < state && a.dinitial_state.data(); ++k) {
                a.dinitial_state(b, h, k) = narrow(ds[at(k)] + std::conj(ds[at(k + state)]));
            }
        }
        const auto fold = [&](auto&& g, index k) { return g(k) + std::conj(g(k + state)); };
        const auto of_delta = [&](index k) {
            s4_number sum = dinputs[at(k * columns)] * std::conj(s.B[at(k)]);
            for (index m = 0; m < full; ++m) sum += dW[at(k * full + m)] * std::conj(s.A[at(k * full + m)]);
            return sum;
        };
        for (index k = 0; k < state; ++k) {
            if (a.ddelta.data()) a.ddelta(h, k) += f.rate * fold(of_delta, k).real();
            if (a.dA.data()) a.dA(copy, k) += fold([&](index m) { return s.delta[at(m)] * dW[at(m * full + m)]; }, k);
            dB[at(copy * state + k)] += fold([&](index m) { return s.delta[at(m)] * dinputs[at(m * columns)]; }, k);
            for (index r = 0; r < rank; ++r) {
                dP[at((r * f.A.extent(0) + copy) * state + k)] -= fold([&](index m) {
                    s4_number sum = 0;
                    for (index i = 0; i < full; ++i) {
                        sum += (s.delta[at(m)] * dW[at(m * full + i)] + s.delta[at(i)] * std::conj(dW[at(i * full + m)])) *
                               s.P[at(r * full + i)];
                    }
                    return sum;
                }, k);
            }
            const bool beyond = f.delta(h, k) * std::abs(f.A(copy, k).imag()) / (2 * std::numbers::pi) >= f.bandlimit / 2;
            for (index c = 0; c < channels && a.dC.data(); ++c) {
                a.dC(c, h, k) = narrow(beyond ? 0 : fold([&](index m) { return dC[at(c * full + m)]; }, k));
            }
        }
    }
    for (index i = 0; i < f.A.extent(0); ++i) {
        for (index k = 0; k < state; ++k) {
            if (a.dB.data()) a.dB(i, k) = narrow(dB[at(i * state + k)]);
            for (index r = 0; r < rank && a.dP.data(); ++r) a.dP(r, i, k) = narrow(dP[at((r * f.A.extent(0) + i) * state + k)]);
        }
    }
}

}  // namespace ssmkit::reference
