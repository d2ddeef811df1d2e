#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/convs5.hpp>

namespace ssmkit::reference {

namespace parts {

/// Calls f(r, c, i2, j2) for the elements (r, c) of a kernel and the pixels within the image that they meet from (i, j).
template <class F>
void for_each_tap(index rows, index columns, index height, index width, index i, index j, F&& f)
{
    for (index r = 0; r < rows; ++r) {
        for (index c = 0; c < columns; ++c) {
            const index i2 = i + r - (rows - 1) / 2, j2 = j + c - (columns - 1) / 2;
            if (i2 >= 0 && i2 < height && j2 >= 0 && j2 < width) f(r, c, i2, j2);
        }
    }
}

/// The states before the first and after every image of a sequence: (length + 1, height, width, state).
template <class T>
std::vector<std::complex<compute_t<T>>> convs5_states(const convs5_args<T>& a, index b)
{
    using real = compute_t<T>;
    using complex = std::complex<real>;
    const index length = a.u.extent(1), height = a.u.extent(2), width = a.u.extent(3), dim = a.u.extent(4), state = a.A.extent(0);
    std::vector<complex> memory(static_cast<std::size_t>((length + 1) * height * width * state));
    const view<complex, 4> h(memory.data(), length + 1, height, width, state);
    for (index t = 0; t <= length; ++t) {
        for (index i = 0; i < height; ++i) {
            for (index j = 0; j < width; ++j) {
                for (index n = 0; n < state; ++n) {
                    if (t == 0) {
                        h(0, i, j, n) = a.initial_state.data() ? a.initial_state(b, i, j, n) : complex(0);
                        continue;
                    }
                    complex sum = a.A[n] * h(t - 1, i, j, n);
                    for_each_tap(a.B.extent(0), a.B.extent(1), height, width, i, j, [&](index r, index c, index i2, index j2) {
                        for (index d = 0; d < dim; ++d) sum += a.B(r, c, d, n) * static_cast<real>(a.u(b, t - 1, i2, j2, d));
                    });
                    h(t, i, j, n) = sum;
                }
            }
        }
    }
    return memory;
}

}  // namespace parts

/// ConvS5 as its equations say it (args/convs5.hpp), all states kept: the oracle of the tests.
template <class T>
void convs5(const convs5_args<T>& a)
{
    check(a);
    using real = typename convs5_args<T>::real;
    using complex = typename convs5_args<T>::complex;
    const index length = a.u.extent(1), height = a.u.extent(2), width = a.u.extent(3), state = a.A.extent(0), out = a.C.extent(3);
    const real f = a.conjugate_pairs ? real(2) : real(1);
    for (index b = 0; b < a.u.extent(0); ++b) {
        const auto memory = parts::convs5_states(a, b);
        const view<const complex, 4> h(memory.data(), length + 1, height, width, state);
        for (index i = 0; i < height; ++i) {
            for (index j = 0; j < width; ++j) {
                for (index t = 0; t < length; ++t) {
                    for (index o = 0; o < out; ++o) {
                        real y = 0;
                        parts::for_each_tap(a.C.extent(0), a.C.extent(1), height, width, i, j,
                                             [&](index r, index c, index i2, index j2) {
                                                 for (index n = 0; n < state; ++n)
                                                     y += f * (a.C(r, c, n, o) * h(t + 1, i2, j2, n)).real();
                                             });
                        a.y(b, t, i, j, o) = static_cast<T>(y);
                    }
                }
                for (index n = 0; n < state && a.final_state.data(); ++n) a.final_state(b, i, j, n) = h(length, i, j, n);
            }
        }
    }
}

}  // namespace ssmkit::reference
