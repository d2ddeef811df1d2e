#pragma once

// Problems of S4D's kernel and its gradients with random content.

#include <ssmkit/args/s4d_kernel_backward.hpp>

#include "diagonal_problem.hpp"

namespace ssmkit::testing {

struct s4d_options {
    s4d_discretization method = s4d_discretization::zoh;
    bool tied = false, initial_state = false, pairs = true, growing = false;
    double rate = 1, bandlimit = std::numeric_limits<double>::infinity();
};

template <class T>
struct s4d_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    s4d_options o;
    tensor<double, 2> delta, ddelta;  // (dim, 1) if tied
    tensor<complex_double, 2> A, dA;
    tensor<E, 2> B, dB;
    tensor<E, 3> C, dC, state, dstate;
    tensor<T, 3> K, dK;
    tensor<T, 4> K_state, dK_state;

    explicit s4d_problem(const diagonal_setup& setup, const s4d_options& options = {}) : s(setup), o(options)
    {
        random numbers(s.seed);
        delta = s.input<double, 2>(numbers, {s.dim, o.tied ? 1 : s.state}, {0.01, 0.2});
        A = s.input<complex_double, 2>(numbers, {s.copies, s.state}, {-1, o.growing ? 1.0 : -0.1, -6, 6});
        B = s.input<E, 2>(numbers, {s.copies, s.state}, {0.5, 1, -0.5, 0.5});
        C = s.input<E, 3>(numbers, {s.channels, s.dim, s.state}, {0.2, 1, -1, 1});
        dK = s.input<T, 3>(numbers, {s.channels, s.dim, s.length}, {-1, 1});
        if (o.initial_state) {
            state = s.input<E, 3>(numbers, {s.batch, s.dim, s.state}, {0.2, 1, -1, 1});
            dK_state = s.input<T, 4>(numbers, {s.batch, s.channels, s.dim, s.length}, {-1, 1});
        }
        make_outputs();
    }

    s4d_problem(const diagonal_setup& setup, const s4d_options& options, std::nullptr_t) : s(setup), o(options) {}

    void make_outputs()
    {
        K = s.output<T, 3>({s.channels, s.dim, s.length});
        ddelta = s.output<double, 2>(delta.view().extents());
        dA = s.output<complex_double, 2>({s.copies, s.state});
        dB = s.output<E, 2>({s.copies, s.state});
        dC = s.output<E, 3>({s.channels, s.dim, s.state});
        if (!o.initial_state) return;
        K_state = s.output<T, 4>({s.batch, s.channels, s.dim, s.length});
        dstate = s.output<E, 3>({s.batch, s.dim, s.state});
    }

    s4d_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        s4d_problem<double> p(plain, o, nullptr);
        p.delta = delta.template as<double>();
        p.A = A.template as<complex_double>();
        p.B = B.template as<complex_double>();
        p.C = C.template as<complex_double>();
        p.dK = dK.template as<double>();
        p.state = state.template as<complex_double>();
        p.dK_state = dK_state.template as<double>();
        p.make_outputs();
        return p;
    }

    template <class D>
    view<D, 2> steps(const view<D, 2>& v) const
    {
        return o.tied ? view<D, 2>(v.data(), {s.dim, s.state}, {v.stride(0), 0}) : v;
    }

    s4d_kernel_args<T> args() const
    {
        return {.delta = steps(view<const double, 2>(delta)), .A = A, .B = B, .C = C, .method = o.method, .rate = o.rate,
                .bandlimit = o.bandlimit, .conjugate_pairs = o.pairs, .initial_state = state, .K = K, .K_state = K_state};
    }

    s4d_kernel_backward_args<T> backward_args() const
    {
        s4d_kernel_backward_args<T> a{.forward = args(), .dK = dK, .dK_state = dK_state, .ddelta = steps(ddelta.view()), .dA = dA,
                                      .dB = dB, .dC = dC, .dinitial_state = dstate};
        a.forward.K = {};
        a.forward.K_state = {};
        return a;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {delta.bytes(), A.bytes(), B.bytes(), C.bytes(), dK.bytes(), state.bytes(), dK_state.bytes()};
    }
    bool gaps_untouched() const
    {
        return K.gaps_untouched() && K_state.gaps_untouched() && ddelta.gaps_untouched() && dA.gaps_untouched() &&
               dB.gaps_untouched() && dC.gaps_untouched() && dstate.gaps_untouched();
    }
};

/// Every method with every option that has a meaning for it.
inline std::vector<s4d_options> all_s4d_options()
{
    std::vector<s4d_options> all;
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear, s4d_discretization::dss}) {
        for (unsigned bits = 0; bits < 32; ++bits) {
            s4d_options o{.method = method, .tied = (bits & 1u) != 0, .initial_state = (bits & 2u) != 0, .pairs = (bits & 4u) != 0,
                          .growing = (bits & 8u) != 0};
            if (bits & 16u) {
                o.rate = 0.75;
                o.bandlimit = 0.16;  // some of the poles are beyond it
            }
            if (!(method == s4d_discretization::dss && o.initial_state)) all.push_back(o);
        }
    }
    return all;
}

}  // namespace ssmkit::testing
