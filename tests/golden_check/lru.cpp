#include <complex>
#include <vector>

#include <ssmkit/args/lru.hpp>
#include <ssmkit/args/lru_backward.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::new_axis, golden::problem, golden::view;

/// The files hold one sequence, (length, dim), and complex parameters as two tensors.
template <class R>
struct parts {
    std::vector<std::complex<R>> values;
    index rows, columns;

    parts(problem& p, const char* re, const char* im)
    {
        const auto real = p.input<R>(re, 0, 1), imaginary = p.input<R>(im, 0, 1);
        rows = real.extent(0);
        columns = real.extent(1);
        for (index i = 0; i < rows; ++i) {
            for (index k = 0; k < columns; ++k) values.emplace_back(real(i, k), imaginary(i, k));
        }
    }

    template <class E>
    view<E, 2> as()
    {
        return {values.data(), rows, columns};
    }

    void store(problem& p, const char* re, const char* im)
    {
        const auto real = p.output<R>(re, 0, 1), imaginary = p.output<R>(im, 0, 1);
        for (index i = 0; i < rows; ++i) {
            for (index k = 0; k < columns; ++k) {
                const auto z = values[static_cast<std::size_t>(i * columns + k)];
                if (!real.empty()) real(i, k) = z.real();
                if (!imaginary.empty()) imaginary(i, k) = z.imag();
            }
        }
    }
};

const golden::handler lru(
    "lru",
    []<class T>(golden::element<T>, problem& p) {
        using real = typename ssmkit::lru_args<T>::real;
        using complex = typename ssmkit::lru_args<T>::complex;
        parts<real> B(p, "B_re", "B_im"), C(p, "C_re", "C_im");
        const ssmkit::lru_args<T> forward{
            .nu_log = p.input<real>("nu_log", 0),
            .theta_log = p.input<real>("theta_log", 0),
            .gamma_log = p.input<real>("gamma_log", 0),
            .B = B.template as<const complex>(),
            .C = C.template as<const complex>(),
            .D = p.input<real>("D", 0),
            .u = p.input<T>("x", new_axis, 0, 1),
            .y = p.output<T>("y", new_axis, 0, 1),
        };
        p.run(forward);
        if (!p.has("dout")) return;
        parts<real> dB = B, dC = C;
        const ssmkit::lru_backward_args<T> backward{
            .forward = forward,
            .dy = p.input<T>("dout", new_axis, 0, 1),
            .dnu_log = p.output<real>("d_nu_log", 0),
            .dtheta_log = p.output<real>("d_theta_log", 0),
            .dgamma_log = p.output<real>("d_gamma_log", 0),
            .dB = dB.template as<complex>(),
            .dC = dC.template as<complex>(),
            .dD = p.output<real>("d_D", 0),
            .du = p.output<T>("d_x", new_axis, 0, 1),
        };
        p.run(backward);
        dB.store(p, "d_B_re", "d_B_im");
        dC.store(p, "d_C_re", "d_C_im");
    },
    {1e-10, 1e-5});  // in single precision what the specification grants gradients

}  // namespace
