#pragma once

#include <ssmkit/args/cauchy.hpp>

namespace ssmkit::reference {

/// Cauchy sums as their equation says it (args/cauchy.hpp): the oracle of the tests.
template <class T>
void cauchy(const cauchy_args<T>& a)
{
    check(a);
    for (index i = 0; i < a.out.extent(0); ++i) {
        for (index h = 0; h < a.out.extent(1); ++h) {
            for (index l = 0; l < a.out.extent(2); ++l) {
                std::complex<T> sum = 0;
                for (index n = 0; n < a.w.extent(1); ++n) {
                    const std::complex<T> v = a.v(i, h, n), w = a.w(h, n), z = a.z[l];
                    sum += v / (z - w);
                    if (a.conjugate_pairs) sum += std::conj(v) / (z - std::conj(w));
                }
                a.out(i, h, l) = sum;
            }
        }
    }
}

}  // namespace ssmkit::reference
