#pragma once

#include <complex>
#include <vector>

#include <ssmkit/args/s5_backward.hpp>

namespace ssmkit::reference {

/// The gradients of S5 as their equations say it (args/s5_backward.hpp), all states kept: the oracle of the tests.
template <class T>
void s5_backward(const s5_backward_args<T>& a)
{
    check(a);
    using real = typename s5_args<T>::real;
    using complex = std::complex<double>;
    const s5_args<T>& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(0), out = f.C.extent(0);
    const index columns = f.C.extent(1);
    const double factor = f.conjugate_pairs ? 2 : 1;
    const auto zeros = [](index n) { return std::vector<double>(static_cast<std::size_t>(n)); };
    const auto complex_zeros = [](index n) { return std::vector<complex>(static_cast<std::size_t>(n)); };
    std::vector<complex> dA = complex_zeros(state), dB = complex_zeros(state * dim);
    std::vector<complex> dC = complex_zeros(out * columns), input = complex_zeros(length), h = complex_zeros(length + 1);
    std::vector<double> ddelta = zeros(state), dD = zeros(dim), du = zeros(length * dim), dinterval = zeros(length);
    const auto at = [](auto& v, index i) -> auto& { return v[static_cast<std::size_t>(i)]; };
    const auto chain = [&](index n, double interval, const discrete<complex>& upstream) {
        if (!f.delta.data()) {
            at(dA, n) += upstream.pole;
            return 0.0;
        }
        const auto d = discretize_backward(detail::s5_rate(f, n), static_cast<double>(f.delta[n]), f.method, interval, upstream);
        const bool clipped = f.clip_eigs && static_cast<double>(f.A[n].real()) > -1e-4;
        at(dA, n) += clipped ? complex(0, d.A.imag()) : d.A;
        at(ddelta, n) += d.delta;
        return d.interval;
    };
    for (index b = 0; b < batch; ++b) {
        for (double& x : du) x = 0;
        for (double& x : dinterval) x = 0;
        for (index t = 0; t < length; ++t) {
            for (index o = 0; o < dim && f.D.data(); ++o) {
                const double upstream = static_cast<double>(static_cast<real>(a.dy(b, t, o)));
                at(du, t * dim + o) += static_cast<double>(f.D[o]) * upstream;
                at(dD, o) += upstream * static_cast<double>(static_cast<real>(f.u(b, t, o)));
            }
        }
        for (index scan = 0; scan < detail::s5_scans(f); ++scan) {
            const bool backwards = f.reverse || scan == 1;
            const auto visited = [&](index step) { return backwards ? length - 1 - step : step; };
            const auto interval = [&](index t) { return f.interval.data() ? static_cast<double>(f.interval(b, t)) : 1.0; };
            for (index n = 0; n < state; ++n) {
                const index column = scan * state + n;
                at(h, 0) = f.initial_state.data() ? complex(f.initial_state(b, column)) : complex(0);
                for (index step = 0; step < length; ++step) {
                    const index t = visited(step);
                    const auto system = detail::s5_system(f, n, interval(t));
                    complex& sum = at(input, step) = 0;
                    for (index c = 0; c < dim; ++c)
                        sum += complex(f.B(n, c)) * static_cast<double>(static_cast<real>(f.u(b, t, c)));
                    const complex gained = system.gain * sum;
                    const complex pole = f.liquid ? system.pole + gained : system.pole;
                    at(h, step + 1) = detail::s5_begins(f, b, t, backwards) ? gained : pole * at(h, step) + gained;
                }
                complex later = a.dfinal_state.data() ? complex(a.dfinal_state(b, column)) : complex(0);
                for (index step = length - 1; step >= 0; --step) {
                    const index t = visited(step);
                    const auto system = detail::s5_system(f, n, interval(t));
                    const bool begins = detail::s5_begins(f, b, t, backwards);
                    complex s = later;
                    for (index o = 0; o < out; ++o) {
                        const double upstream = factor * static_cast<double>(static_cast<real>(a.dy(b, t, o)));
                        s += upstream * std::conj(complex(f.C(o, column)));
                        at(dC, o * columns + column) += upstream * std::conj(at(h, step + 1));
                    }
                    const complex to_pole = begins ? complex(0) : s * std::conj(at(h, step));
                    const complex to_gained = f.liquid ? s + to_pole : s, to_input = std::conj(system.gain) * to_gained;
                    const complex pole = f.liquid ? system.pole + system.gain * at(input, step) : system.pole;
                    later = begins ? complex(0) : std::conj(pole) * s;
                    at(dinterval, t) += chain(n, interval(t), {to_pole, to_gained * std::conj(at(input, step))});
                    for (index c = 0; c < dim; ++c) {
                        at(dB, n * dim + c) += to_input * static_cast<double>(static_cast<real>(f.u(b, t, c)));
                        at(du, t * dim + c) += (std::conj(complex(f.B(n, c))) * to_input).real();
                    }
                }
                if (a.dinitial_state.data()) a.dinitial_state(b, column) = static_cast<std::complex<real>>(later);
            }
        }
        for (index t = 0; t < length; ++t) {
            for (index c = 0; c < dim && a.du.data(); ++c) a.du(b, t, c) = static_cast<T>(static_cast<real>(at(du, t * dim + c)));
            if (a.dinterval.data()) a.dinterval(b, t) = static_cast<real>(at(dinterval, t));
        }
    }
    for (index n = 0; n < state; ++n) {
        if (a.dA.data()) a.dA[n] = static_cast<std::complex<real>>(at(dA, n));
        if (a.ddelta.data()) a.ddelta[n] = static_cast<real>(at(ddelta, n));
        for (index c = 0; c < dim && a.dB.data(); ++c) a.dB(n, c) = static_cast<std::complex<real>>(at(dB, n * dim + c));
    }
    for (index o = 0; o < out && a.dC.data(); ++o) {
        for (index n = 0; n < columns; ++n) a.dC(o, n) = static_cast<std::complex<real>>(at(dC, o * columns + n));
    }
    for (index c = 0; c < dim && a.dD.data(); ++c) a.dD[c] = static_cast<real>(at(dD, c));
}

}  // namespace ssmkit::reference
