#pragma once

#include <ssmkit/args/s4d_step.hpp>
#include <ssmkit/detail/diagonal_step.hpp>

namespace ssmkit {

/// The diagonal recurrence on a block of tokens: shapes and equations at s4d_step_args. Throws shape_error before anything is
/// written; allocates nothing and takes no lock. Work splits over batch and blocks of 32 channels; the result does not depend on
/// the split, nor on how the tokens are cut into calls, bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void s4d_step(const s4d_step_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index length = a.u.extent(1), channels = a.C.extent(0);
    for_each_channel(exec, a.u.extent(0), a.u.extent(2), [&](index b, index h) {
        const diagonal_step_channel<std::complex<T>> m{
            .h = a.h[b][h],
            .pole = a.pole[h],
            .input = a.input[h],
            .C = a.C.transposed(0, 1)[h],
            .u = a.u[b].transposed(0, 1)[h],
            .y = {a.y.pointer(b, 0, 0, h), {length, channels}, {a.y.stride(1), a.y.stride(2)}},
            .factor = a.conjugate_pairs ? T(2) : T(1)};
        diagonal_steps<Arch>(m);
        for (index c = 0; a.D.data() && c < channels; ++c) {
            for (index t = 0; t < length; ++t) m.y(t, c) += a.D(c, h) * m.u[t];
        }
    });
}

}  // namespace ssmkit
