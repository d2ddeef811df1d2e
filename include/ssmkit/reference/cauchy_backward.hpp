#pragma once

#include <ssmkit/args/cauchy_backward.hpp>

namespace ssmkit::reference {

/// The gradients of Cauchy sums as their equations say it (args/cauchy_backward.hpp): the oracle of the tests.
template <class T>
void cauchy_backward(const cauchy_backward_args<T>& a)
{
    check(a);
    using E = std::complex<T>;
    const cauchy_args<T>& f = a.forward;
    if (a.dz.data()) {
        for (index l = 0; l < a.dz.extent(0); ++l) a.dz[l] = 0;
    }
    for (index h = 0; h < f.w.extent(0); ++h) {
        for (index n = 0; n < f.w.extent(1); ++n) {
            E dw = 0;
            for (index i = 0; i < f.v.extent(0); ++i) {
                E dv = 0;
                for (const bool second : {false, true}) {
                    if (second && !f.conjugate_pairs) continue;
                    const E v = second ? std::conj(f.v(i, h, n)) : f.v(i, h, n), w = second ? std::conj(f.w(h, n)) : f.w(h, n);
                    E of_v = 0, of_w = 0;
                    for (index l = 0; l < f.z.extent(0); ++l) {
                        const E q = std::conj(E(1) / (f.z[l] - w)), g = a.dout(i, h, l);
                        const E each = g * q * q * std::conj(v);
                        of_v += g * q;
                        of_w += each;
                        if (a.dz.data()) a.dz[l] -= each;
                    }
                    dv += second ? std::conj(of_v) : of_v;
                    dw += second ? std::conj(of_w) : of_w;
                }
                if (a.dv.data()) a.dv(i, h, n) = dv;
            }
            if (a.dw.data()) a.dw(h, n) = dw;
        }
    }
}

}  // namespace ssmkit::reference
