#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/convs5_backward.hpp>
#include <ssmkit/reference/convs5.hpp>

namespace ssmkit::reference {

/// The gradients of ConvS5 as their equations say it (args/convs5_backward.hpp): the oracle of the tests.
template <class T>
void convs5_backward(const convs5_backward_args<T>& a)
{
    check(a);
    using real = typename convs5_args<T>::real;
    using complex = typename convs5_args<T>::complex;
    const convs5_args<T>& f = a.forward;
    const index length = f.u.extent(1), height = f.u.extent(2), width = f.u.extent(3), dim = f.u.extent(4), state = f.A.extent(0),
                out = f.C.extent(3);
    const real factor = f.conjugate_pairs ? real(2) : real(1);
    const auto zeros = [](index n) { return std::vector<complex>(static_cast<std::size_t>(n)); };
    auto dA_memory = zeros(state), dB_memory = zeros(f.B.size()), dC_memory = zeros(f.C.size()),
         later_memory = zeros(height * width * state);
    const view<complex, 4> dB(dB_memory.data(), f.B.extents()), dC(dC_memory.data(), f.C.extents());
    const view<complex, 3> later(later_memory.data(), height, width, state);
    std::vector<real> du_memory(static_cast<std::size_t>(length * height * width * dim));
    const view<real, 4> du(du_memory.data(), length, height, width, dim);
    for (index b = 0; b < f.u.extent(0); ++b) {
        const auto memory = parts::convs5_states(f, b);
        const view<const complex, 4> h(memory.data(), length + 1, height, width, state);
        for (real& x : du_memory) x = 0;
        const auto each_state = [&](auto&& work) {
            for (index i = 0; i < height; ++i) {
                for (index j = 0; j < width; ++j) {
                    for (index n = 0; n < state; ++n) work(i, j, n);
                }
            }
        };
        each_state(
            [&](index i, index j, index n) { later(i, j, n) = a.dfinal_state.data() ? a.dfinal_state(b, i, j, n) : complex(0); });
        for (index t = length - 1; t >= 0; --t) {
            for (index i = 0; i < height; ++i) {
                for (index j = 0; j < width; ++j) {
                    parts::for_each_tap(
                        f.C.extent(0), f.C.extent(1), height, width, i, j, [&](index r, index c, index i2, index j2) {
                            for (index o = 0; o < out; ++o) {
                                const real upstream = factor * static_cast<real>(a.dy(b, t, i, j, o));
                                for (index n = 0; n < state; ++n) {
                                    later(i2, j2, n) +=
                                        upstream * std::conj(f.C(r, c, n, o));  // s, once all outputs have been there
                                    dC(r, c, n, o) += upstream * std::conj(h(t + 1, i2, j2, n));
                                }
                            }
                        });
                }
            }
            each_state([&](index i, index j, index n) {
                const complex s = later(i, j, n);
                dA_memory[static_cast<std::size_t>(n)] += s * std::conj(h(t, i, j, n));
                parts::for_each_tap(f.B.extent(0), f.B.extent(1), height, width, i, j, [&](index r, index c, index i2, index j2) {
                    for (index d = 0; d < dim; ++d) {
                        dB(r, c, d, n) += s * static_cast<real>(f.u(b, t, i2, j2, d));
                        du(t, i2, j2, d) += (std::conj(f.B(r, c, d, n)) * s).real();
                    }
                });
                later(i, j, n) = std::conj(f.A[n]) * s;
            });
        }
        each_state([&](index i, index j, index n) {
            if (a.dinitial_state.data()) a.dinitial_state(b, i, j, n) = later(i, j, n);
        });
        for (index t = 0; t < length && a.du.data(); ++t) {
            for (index i = 0; i < height; ++i) {
                for (index j = 0; j < width; ++j) {
                    for (index d = 0; d < dim; ++d) a.du(b, t, i, j, d) = static_cast<T>(du(t, i, j, d));
                }
            }
        }
    }
    for (index n = 0; n < state && a.dA.data(); ++n) a.dA[n] = dA_memory[static_cast<std::size_t>(n)];
    const auto store = [](const view<complex, 4>& from, const view<complex, 4>& to) {
        for (index r = 0; r < to.extent(0); ++r) {
            for (index c = 0; c < to.extent(1); ++c) {
                for (index x = 0; x < to.extent(2); ++x) {
                    for (index y = 0; y < to.extent(3); ++y) to(r, c, x, y) = from(r, c, x, y);
                }
            }
        }
    };
    store(dB, a.dB);
    store(dC, a.dC);
}

}  // namespace ssmkit::reference
