#pragma once

// Problems of DSS's kernel and its gradients with random content.

#include <complex>
#include <cstddef>
#include <string>
#include <vector>

#include <ssmkit/args/dss_kernel_backward.hpp>

#include "diagonal_problem.hpp"

namespace ssmkit::testing {

struct dss_options {
    dss_scaling scaling = dss_scaling::softmax;
    bool one_step = false, growing = false;
    double epsilon = 1e-7;

    std::string text() const
    {
        return " scaling " + std::to_string(static_cast<int>(scaling)) + " growing " + std::to_string(growing) + " one step " +
               std::to_string(one_step) + " epsilon " + std::to_string(epsilon);
    }
};

template <class T>
struct dss_problem {
    using E = std::complex<T>;

    diagonal_setup s;
    dss_options o;
    tensor<double, 2> delta, ddelta;  // (dim, 1) if there is one step
    tensor<complex_double, 1> A, dA;
    tensor<E, 3> W, dW;
    tensor<T, 3> K, dK;

    explicit dss_problem(const diagonal_setup& setup, const dss_options& options = {}) : s(setup), o(options)
    {
        random numbers(s.seed);
        delta = s.input<double, 2>(numbers, {s.dim, o.one_step ? 1 : 2}, {0.02, 0.2});
        A = s.input<complex_double, 1>(numbers, {s.state}, {-1, o.growing ? 1.0 : -0.1, -6, 6});
        W = s.input<E, 3>(numbers, {s.channels, s.dim, s.state}, {0.2, 1, -1, 1});
        dK = s.input<T, 3>(numbers, {s.channels, s.dim, s.length}, {-1, 1});
        make_outputs();
    }

    dss_problem(const diagonal_setup& setup, const dss_options& options, std::nullptr_t) : s(setup), o(options) {}

    void make_outputs()
    {
        K = s.output<T, 3>({s.channels, s.dim, s.length});
        ddelta = s.output<double, 2>(delta.view().extents());
        dA = s.output<complex_double, 1>({s.state});
        dW = s.output<E, 3>({s.channels, s.dim, s.state});
    }

    dss_problem<double> wide() const
    {
        diagonal_setup plain = s;
        plain.inputs = plain.outputs = layout::row_major;
        plain.edge = guard::none;
        dss_problem<double> p(plain, o, nullptr);
        p.delta = delta.template as<double>();
        p.A = A.template as<complex_double>();
        p.W = W.template as<complex_double>();
        p.dK = dK.template as<double>();
        p.make_outputs();
        return p;
    }

    template <class D>
    view<D, 2> pairs(const view<D, 2>& v) const
    {
        return o.one_step ? view<D, 2>(v.data(), {s.dim, 2}, {v.stride(0), 0}) : v;
    }

    dss_kernel_args<T> args() const
    {
        return {.delta = pairs(view<const double, 2>(delta)), .A = A, .W = W, .scaling = o.scaling, .epsilon = o.epsilon, .K = K};
    }
    dss_kernel_backward_args<T> backward_args() const
    {
        dss_kernel_backward_args<T> a{.forward = args(), .dK = dK, .ddelta = pairs(ddelta.view()), .dA = dA, .dW = dW};
        a.forward.K = {};
        return a;
    }
    bool gaps_untouched() const
    {
        return K.gaps_untouched() && ddelta.gaps_untouched() && dA.gaps_untouched() && dW.gaps_untouched();
    }
};

inline std::vector<dss_options> all_dss_options()
{
    std::vector<dss_options> all;
    for (const auto scaling : {dss_scaling::softmax, dss_scaling::exponential, dss_scaling::none}) {
        for (unsigned bits = 0; bits < 8; ++bits) {
            // A large ε: some of the poles are smaller.
            all.push_back({scaling, (bits & 1u) != 0, (bits & 2u) != 0, bits & 4u ? 9.0 : 1e-7});
        }
    }
    return all;
}

}  // namespace ssmkit::testing
