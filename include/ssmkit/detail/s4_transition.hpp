#pragma once

// The bilinear discretisation of a diagonal plus low-rank system in linear form, in double: with <a, x> = 2 Re Σ a_n x_n over one
// of each conjugate pair and Q = conj(P),
//     D = 1 / (2/Δ - Λ),   E = 2/Δ + Λ,   R = (I + <Q D, P>)^-1 (Q D)
//     (2/Δ - A)^-1 w = D (w - Σ P_r <R_r, w>)                                            Woodbury
//     Ā = -I + (4/Δ) (2/Δ - A)^-1 = diag(D E) - Σ U_r V_r^T,   U = D P,   V = (4/Δ) R
//     B̄ = 2 (2/Δ - A)^-1 B

#include <complex>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include <ssmkit/view.hpp>

namespace ssmkit::detail {

struct s4_transition {
    using number = std::complex<double>;
    index state, rank;
    std::span<number> D, E, R, pole, gain, U, V;  // (state), R, U and V (rank, state)

    /// Numbers of scratch memory.
    static std::size_t size(index state, index rank) { return static_cast<std::size_t>(5 * state + rank * (3 * state + rank)); }

    /// B may be empty: no gain then. Memory of size() numbers, or none.
    template <class Real, class Poles, class Inputs, class Rows>
    s4_transition(const Real& delta, double rate, const Poles& A, const Inputs& B, const Rows& P, index h,
                  std::span<number> memory = {})
        : state(A.extent(1)), rank(P.extent(0))
    {
        const index copy = h % A.extent(0);
        const auto wide = [](const auto& x) { return number(static_cast<double>(x.real()), static_cast<double>(x.imag())); };
        const auto at = [](index i) { return static_cast<std::size_t>(i); };
        if (memory.empty()) {
            own_.resize(size(state, rank));
            memory = own_;
        }
        const auto take = [&](index count) {
            const std::span<number> part = memory.first(at(count));
            memory = memory.subspan(at(count));
            return part;
        };
        D = take(state), E = take(state), pole = take(state);
        R = take(rank * state), U = take(rank * state), V = take(rank * state);
        const auto gains = take(state), step = take(state), M = take(rank * rank);
        for (index n = 0; n < state; ++n) {
            step[at(n)] = delta(h, n) * rate;
            const double twice = 2 / step[at(n)].real();
            D[at(n)] = 1.0 / (twice - A(copy, n));
            E[at(n)] = twice + A(copy, n);
            pole[at(n)] = D[at(n)] * E[at(n)];
            for (index r = 0; r < rank; ++r) {
                U[at(r * state + n)] = D[at(n)] * wide(P(r, copy, n));
                R[at(r * state + n)] = D[at(n)] * std::conj(wide(P(r, copy, n)));
            }
        }
        // The real system of `rank` equations, by elimination with pivots; R's rows are its right-hand sides.
        const auto m = [&](index r, index t) -> double& { return reinterpret_cast<double*>(M.data())[r * rank + t]; };
        for (index r = 0; r < rank; ++r) {
            for (index t = 0; t < rank; ++t) {
                double sum = r == t ? 1 : 0;
                for (index n = 0; n < state; ++n) sum += 2 * (std::conj(wide(P(r, copy, n))) * U[at(t * state + n)]).real();
                m(r, t) = sum;
            }
        }
        const auto rows = [&](index a, index b, auto&& f) {
            for (index t = 0; t < rank; ++t) f(m(a, t), m(b, t));
            for (index n = 0; n < state; ++n) f(R[at(a * state + n)], R[at(b * state + n)]);
        };
        for (index k = 0; k < rank; ++k) {
            index pivot = k;
            for (index r = k + 1; r < rank; ++r) {
                if (std::abs(m(r, k)) > std::abs(m(pivot, k))) pivot = r;
            }
            if (pivot != k) rows(k, pivot, [](auto& x, auto& y) { std::swap(x, y); });
            const double over = 1 / m(k, k);
            rows(k, k, [&](auto& x, auto&) { x *= over; });
            for (index r = 0; r < rank; ++r) {
                const double factor = m(r, k);
                if (r != k) rows(r, k, [&](auto& x, auto& y) { x -= factor * y; });
            }
        }
        for (index r = 0; r < rank; ++r) {
            for (index n = 0; n < state; ++n) V[at(r * state + n)] = 4 / step[at(n)].real() * R[at(r * state + n)];
        }
        if (B.data() == nullptr) return;
        gain = gains;
        for (index n = 0; n < state; ++n) gain[at(n)] = 2.0 * D[at(n)] * wide(B(copy, n));
        for (index r = 0; r < rank; ++r) {
            double product = 0;
            for (index n = 0; n < state; ++n) product += 4 * (R[at(r * state + n)] * wide(B(copy, n))).real();
            for (index n = 0; n < state; ++n) gain[at(n)] -= product * U[at(r * state + n)];
        }
    }

    s4_transition(const s4_transition&) = delete;
    s4_transition& operator=(const s4_transition&) = delete;

private:
    std::vector<number> own_;
};

}  // namespace ssmkit::detail
