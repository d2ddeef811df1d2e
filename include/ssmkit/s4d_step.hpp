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
    run_diagonal_steps<Arch>(
        diagonal_step_problem<std::complex<T>>{
            .h = a.h, .pole = a.pole, .input = a.input, .C = a.C, .u = a.u, .y = a.y, .factor = a.conjugate_pairs ? T(2) : T(1)},
        exec);
    for (index b = 0; a.D.data() && b < a.u.extent(0); ++b) {
        for (index t = 0; t < a.u.extent(1); ++t) {
            for (index c = 0; c < a.C.extent(0); ++c) {
                for (index h = 0; h < a.u.extent(2); ++h) a.y(b, t, c, h) += a.D(c, h) * a.u(b, t, h);
            }
        }
    }
}

}  // namespace ssmkit
