#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/s4_setup.hpp>
#include <ssmkit/reference/s4_kernel.hpp>

namespace ssmkit::reference {

namespace parts {

/// Ā of a channel over the full spectrum: the bilinear rule on the dense matrix.
inline std::vector<s4_number> s4_dense_step(const s4_full& s)
{
    std::vector<s4_number> M(s.A.size()), N(s.A.size());
    for (index i = 0; i < s.full; ++i) {
        for (index k = 0; k < s.full; ++k) {
            const s4_number half = s.delta[at(i)] * s.A[at(i * s.full + k)] / 2.0;
            M[at(i * s.full + k)] = (i == k ? 1.0 : 0.0) - half;
            N[at(i * s.full + k)] = (i == k ? 1.0 : 0.0) + half;
        }
    }
    solve(M, s.full, N, s.full);
    return N;
}

}  // namespace parts

/// S4's output map between its forms (args/s4_setup.hpp): rows times Ā, `length` times, and recovered by a dense solve over the
/// full spectrum. The oracle of the tests; double inside.
template <class T>
void s4_setup(const s4_setup_args<T>& a)
{
    check(a);
    using namespace parts;
    const index state = a.C.extent(2), channels = a.C.extent(0), full = 2 * state;
    const std::vector<std::complex<T>> no_input(at(a.A.extent(0) * state));
    for (index h = 0; h < a.C.extent(1); ++h) {
        const s4_full s = s4_expanded(
            s4_kernel_args<T>{.delta = a.delta, .A = a.A, .B = {no_input, a.A.extent(0), state}, .P = a.P, .C = a.C}, h);
        const std::vector<s4_number> step = s4_dense_step(s);
        const auto advanced = [&](std::vector<s4_number> row) {
            for (index l = 0; l < a.length; ++l) row = times_matrix(row, step);
            return row;
        };
        std::vector<s4_number> M(at(full * full));  // (I - Ā^length)ᵀ, of which recovering solves M xᵀ = C̃ᵀ
        for (index k = 0; k < full && a.map == s4_map::recover; ++k) {
            std::vector<s4_number> unit(at(full));
            unit[at(k)] = 1;
            const std::vector<s4_number> row = advanced(unit);
            for (index i = 0; i < full; ++i) M[at(i * full + k)] = unit[at(i)] - row[at(i)];
        }
        for (index c = 0; c < channels; ++c) {
            std::vector<s4_number> row(s.C.begin() + c * full, s.C.begin() + (c + 1) * full);
            if (a.map == s4_map::recover) {
                solve(M, full, row, 1);
            } else {
                const std::vector<s4_number> later = advanced(row);
                for (std::size_t i = 0; i < row.size(); ++i) row[i] += a.map == s4_map::prepare ? -later[i] : later[i];
            }
            for (index n = 0; n < state; ++n) a.out(c, h, n) = narrowed<std::complex<T>>(row[at(n)]);
        }
    }
}

}  // namespace ssmkit::reference
