#pragma once

// S4 layers with random content, for the tests of the layer and of its gradients.

#include <complex>
#include <cstdint>
#include <limits>
#include <string>

#include <ssmkit/args/s4_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

struct s4_layer_shape {
    index batch = 2, length = 70, dim = 6, state = 5, rank = 1, copies = 3, channels = 2, prepared = 0;
    bool D = true, initial_state = true, reverse = false, tied = true, true_C = false;
    double rate = 1, bandlimit = std::numeric_limits<double>::infinity();
    layout form = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s;
        for (const index i : {batch, length, dim, state, rank, copies, channels, prepared}) s += std::to_string(i) + " ";
        s += "rate " + std::to_string(rate) + " layout " + std::to_string(static_cast<int>(form));
        return s + " seed " + std::to_string(seed);
    }

    s4_layer_shape with_options(unsigned bits) const
    {
        s4_layer_shape s = *this;
        s.seed = bits + 1;
        for (bool* flag : {&s.D, &s.initial_state, &s.reverse, &s.tied, &s.true_C}) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 5;
};

template <class T>
struct s4_layer_problem {
    using real = compute_t<T>;
    using complex = std::complex<real>;

    s4_layer_shape s;
    tensor<T, 3> u, y, dy, du;
    tensor<double, 2> delta, ddelta;
    tensor<std::complex<double>, 2> A, dA;
    tensor<complex, 2> B, dB;
    tensor<real, 2> D, dD;
    tensor<complex, 3> P, C, true_C, initial_state, final_state, dP, dC;

    explicit s4_layer_problem(const s4_layer_shape& shape) : s(shape)
    {
        random numbers(s.seed);
        const auto filled = [&]<class E, std::size_t Rank>(tensor<E, Rank>& t, const std::array<index, Rank>& extents, range r) {
            t = tensor<E, Rank>(extents, s.form, s.edge);
            t.fill(numbers, r);
        };
        filled(u, {s.batch, s.length, s.dim}, {-1, 1});
        filled(dy, {s.batch, s.length, s.channels * s.dim}, {-1, 1});
        filled(delta, {s.dim, s.tied ? 1 : s.state}, {0.05, 0.3});
        filled(A, {s.copies, s.state}, {-2, -0.3, -10, 10});
        filled(B, {s.copies, s.state}, {-1, 1});
        if (s.rank > 0) filled(P, {s.rank, s.copies, s.state}, {-0.7, 0.7});
        filled(s.true_C ? true_C : C, {s.channels, s.dim, s.state}, {-1, 1});
        if (s.D) filled(D, {s.channels, s.dim}, {-1, 1});
        if (s.initial_state) filled(initial_state, {s.batch, s.dim, s.state}, {-1, 1});
        make_outputs();
    }
    s4_layer_problem(const s4_layer_shape& shape, std::nullptr_t) : s(shape) {}

    void make_outputs()
    {
        y = {{s.batch, s.length, s.channels * s.dim}, s.form, s.edge};
        du = {{s.batch, s.length, s.dim}, s.form, s.edge};
        final_state = {{s.batch, s.dim, s.state}, s.form, s.edge};
        ddelta = {{s.dim, s.tied ? 1 : s.state}, s.form, s.edge};
        dA = {{s.copies, s.state}, s.form, s.edge};
        dB = {{s.copies, s.state}, s.form, s.edge};
        if (s.rank > 0) dP = {{s.rank, s.copies, s.state}, s.form, s.edge};
        dC = {{s.channels, s.dim, s.state}, s.form, s.edge};
        if (s.D) dD = {{s.channels, s.dim}, s.form, s.edge};
    }

    /// The same numbers in 64 bits.
    s4_layer_problem<double> wide() const
    {
        s4_layer_problem<double> w(s, nullptr);
        w.s.form = layout::row_major;
        w.s.edge = guard::none;
        w.u = u.template as<double>(), w.dy = dy.template as<double>(), w.delta = delta.template as<double>();
        w.D = D.template as<double>(), w.A = A.template as<std::complex<double>>();
        for (const auto& [from, to] : {std::pair{&P, &w.P}, {&C, &w.C}, {&true_C, &w.true_C}, {&initial_state, &w.initial_state}}) {
            *to = from->template as<std::complex<double>>();
        }
        w.B = B.template as<std::complex<double>>();
        w.make_outputs();
        return w;
    }

    template <class F>
    view<F, 2> steps(const tensor<double, 2>& t) const
    {
        const view<double, 2> v = t.view();
        return {v.data(), {s.dim, s.state}, {v.stride(0), s.tied ? 0 : v.stride(1)}};
    }

    s4_args<T> args() const
    {
        return {.u = u, .delta = steps<const double>(delta), .A = A, .B = B, .P = P, .C = C, .true_C = true_C, .D = D,
                .prepared_length = s.prepared, .rate = s.rate, .bandlimit = s.bandlimit, .initial_state = initial_state,
                .reverse = s.reverse, .y = y, .final_state = final_state};
    }

    /// Of the convolution: without states.
    s4_backward_args<T> backward() const
    {
        s4_args<T> forward = args();
        forward.initial_state = {}, forward.final_state = {}, forward.y = {};
        return {.forward = forward,
                .dy = dy,
                .du = du,
                .ddelta = steps<double>(ddelta),
                .dA = dA,
                .dB = dB,
                .dP = dP,
                .dC = dC,
                .dD = dD};
    }
};

}  // namespace ssmkit::testing
