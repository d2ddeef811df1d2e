#pragma once

#include <ssmkit/args/toeplitz.hpp>

namespace ssmkit::reference {

template <class T>
void toeplitz(const toeplitz_args<T>& a)
{
    check(a);
    for (index r = 0; r < a.u.extent(0); ++r) {
        for (index t = 0; t < a.u.extent(1); ++t) {
            T sum = 0;
            for (index s = 0; s <= t; ++s) sum += a.u(r, s) * a.v(r, t - s);
            a.y(r, t) = sum;
        }
    }
}

template <class T>
void toeplitz_backward(const toeplitz_backward_args<T>& a)
{
    check(a);
    const index length = a.u.extent(1);
    for (index r = 0; r < a.u.extent(0); ++r) {
        for (index s = 0; s < length; ++s) {
            T du = 0, dv = 0;
            for (index t = s; t < length; ++t) {
                du += a.dy(r, t) * a.v(r, t - s);
                dv += a.dy(r, t) * a.u(r, t - s);
            }
            if (a.du.data()) a.du(r, s) = du;
            if (a.dv.data()) a.dv(r, s) = dv;
        }
    }
}

template <class T>
void toeplitz_inverse(const toeplitz_inverse_args<T>& a)
{
    check(a);
    for (index r = 0; r < a.g.extent(0); ++r) {
        for (index t = 0; t < a.g.extent(1); ++t) {
            T sum = t == 0 ? T(-1) : T(0);
            for (index m = 1; m <= t; ++m) sum += a.g(r, m) * a.h(r, t - m);
            a.h(r, t) = -sum / a.g(r, 0);
        }
    }
}

}  // namespace ssmkit::reference
