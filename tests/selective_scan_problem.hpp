#pragma once

// Random problems for the selective scan and its gradients.

#include <complex>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/reference/selective_scan_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

/// What a problem consists of.
struct scan_setup {
    index batch = 2, length = 37, dim = 6, state = 5;
    index groups_of_B = 1, groups_of_C = 1;
    bool constant_B = false, constant_C = false;  ///< in place of groups: (dim, state)
    bool D = false, z = false, delta_bias = false, delta_softplus = false;
    bool initial_state = false, reset = false, reverse = false, order = false;
    bool y_ungated = false;
    index snapshots = 0;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(length) + ", " + std::to_string(dim) + ", " +
                        std::to_string(state) + ") groups " + std::to_string(groups_of_B) + " " +
                        std::to_string(groups_of_C) + " layouts " + std::to_string(static_cast<int>(inputs)) + " " +
                        std::to_string(static_cast<int>(outputs));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(constant_B, "constant B");
        add(constant_C, "constant C");
        add(D, "D");
        add(z, "z");
        add(delta_bias, "delta_bias");
        add(delta_softplus, "delta_softplus");
        add(initial_state, "initial_state");
        add(reset, "reset");
        add(reverse, "reverse");
        add(order, "order");
        add(y_ungated, "y_ungated");
        return s + " snapshots " + std::to_string(snapshots);
    }

    /// The options that the bits of a number switch on.
    scan_setup with_options(unsigned bits) const
    {
        scan_setup s = *this;
        bool* const flags[] = {&s.D,     &s.z,       &s.delta_bias, &s.delta_softplus, &s.initial_state, &s.reset,
                               &s.order, &s.reverse, &s.constant_B, &s.constant_C,     &s.y_ungated};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 11;
};

/// How the tensors of a problem are stored: T inputs, A and state in Param.
template <class Element, class Parameter = compute_t<Element>>
struct storage {
    using T = Element;
    using Param = Parameter;
};

using f32 = storage<float>;
using f64 = storage<double>;
using bf16 = storage<bfloat16>;
using f16 = storage<float16>;
using complex_f32 = storage<float, std::complex<float>>;
using complex_f64 = storage<double, std::complex<double>>;
using complex_bf16 = storage<bfloat16, std::complex<float>>;

/// The largest relative_error that an output stored as T may have, T = compute_t<T> being that of a state: at most a few
/// tens of roundings a sum on these problems, exp included, and the rounding of the output itself.
template <class T>
inline constexpr double scan_budget = std::is_same_v<compute_t<T>, double> ? 1e-12
                                      : std::is_same_v<T, float>           ? 4e-6
                                                                           : 4e-6 + rounding<T>;
template <class T>
inline constexpr double scan_budget<std::complex<T>> = scan_budget<T>;

template <class Storage>
struct scan_problem {
    using T = typename Storage::T;
    using Param = typename Storage::Param;
    using element = selective_element_t<T, Param>;
    using real = compute_t<T>;

    scan_setup setup;
    tensor<T, 3> u, delta, z;
    tensor<Param, 2> A;
    tensor<element, 4> B, C;                    // varying
    tensor<element, 2> constant_B, constant_C;  // or not
    tensor<real, 1> D, delta_bias;
    tensor<Param, 3> initial_state;
    tensor<std::uint8_t, 2> reset;
    tensor<index, 1> order;
    tensor<index, 2> snapshot_after;
    tensor<T, 3> y, y_ungated;
    tensor<Param, 3> final_state;
    tensor<Param, 4> snapshots;

    scan_problem() = default;

    explicit scan_problem(const scan_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const auto make = [&](auto& member, const auto& extents, const range& r) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, r);
        };
        const std::array<index, 3> tokens{s.batch, s.length, s.dim};
        make(u, tokens, {-1, 1});
        make(delta, tokens, s.delta_softplus ? range{-3, 1} : range{0.02, 1});
        make(A, std::array{s.dim, s.state}, {-3, -0.2, -4, 4});
        if (s.constant_B) {
            make(constant_B, std::array{s.dim, s.state}, {-1, 1});
        } else {
            make(B, std::array{s.batch, s.length, s.groups_of_B, s.state}, {-1, 1});
        }
        if (s.constant_C) {
            make(constant_C, std::array{s.dim, s.state}, {-1, 1});
        } else {
            make(C, std::array{s.batch, s.length, s.groups_of_C, s.state}, {-1, 1});
        }
        if (s.D) make(D, std::array{s.dim}, {-1, 1});
        if (s.z) make(z, tokens, {-4, 4});
        if (s.delta_bias) make(delta_bias, std::array{s.dim}, s.delta_softplus ? range{-1, 1} : range{0, 0.2});
        if (s.initial_state) make(initial_state, std::array{s.batch, s.dim, s.state}, {-1, 1});
        if (s.reset) {
            reset = {std::array{s.batch, s.length}, s.inputs, s.edge};
            reset.fill([&](auto...) { return static_cast<std::uint8_t>(numbers.below(6) == 0 ? 1 + numbers.below(255) : 0); });
        }
        if (s.order) {
            order = {std::array{s.length}, s.inputs, s.edge};
            order.fill([](index t) { return t; });
            for (index t = s.length; t > 1; --t) std::swap(order(t - 1), order(numbers.below(t)));
        }
        if (s.snapshots) {
            snapshot_after = {std::array{s.batch, s.snapshots}, s.inputs, s.edge};
            for (index b = 0; b < s.batch; ++b) {
                std::vector<index> after(static_cast<std::size_t>(s.snapshots));
                for (index& tokens_before : after) tokens_before = numbers.below(s.length + 1);
                after.front() = 0;
                if (s.snapshots > 1) after.back() = s.length;
                std::sort(after.begin(), after.end());
                for (index i = 0; i < s.snapshots; ++i) snapshot_after(b, i) = after[static_cast<std::size_t>(i)];
            }
        }
        make_outputs();
    }

    /// Fresh outputs, full of NaN.
    void make_outputs()
    {
        const scan_setup& s = setup;
        const std::array<index, 3> tokens{s.batch, s.length, s.dim}, states{s.batch, s.dim, s.state};
        y = {tokens, s.outputs, s.edge};
        if (s.y_ungated) y_ungated = {tokens, s.outputs, s.edge};
        final_state = {states, s.outputs, s.edge};
        if (s.snapshots) snapshots = {std::array{s.batch, s.snapshots, s.dim, s.state}, s.outputs, s.edge};
    }

    /// The same problem with its numbers in another storage, in row-major memory.
    template <class Other>
    scan_problem<Other> as() const
    {
        using U = typename Other::T;
        using P = typename Other::Param;
        scan_problem<Other> p;
        p.setup = setup;
        p.setup.inputs = p.setup.outputs = layout::row_major;
        p.setup.edge = guard::none;
        p.u = u.template as<U>();
        p.delta = delta.template as<U>();
        p.z = z.template as<U>();
        p.A = A.template as<P>();
        p.B = B.template as<typename scan_problem<Other>::element>();
        p.C = C.template as<typename scan_problem<Other>::element>();
        p.constant_B = constant_B.template as<typename scan_problem<Other>::element>();
        p.constant_C = constant_C.template as<typename scan_problem<Other>::element>();
        p.D = D.template as<compute_t<U>>();
        p.delta_bias = delta_bias.template as<compute_t<U>>();
        p.initial_state = initial_state.template as<P>();
        p.reset = reset.template as<std::uint8_t>();
        p.order = order.template as<index>();
        p.snapshot_after = snapshot_after.template as<index>();
        p.make_outputs();
        return p;
    }

    scan_problem<storage<double, wide_t<Param>>> wide() const { return as<storage<double, wide_t<Param>>>(); }

    selective_scan_args<T, Param> args() const
    {
        return {.u = u,
                .delta = delta,
                .A = A,
                .B = B.given() ? view<const element, 4>(B)
                               : constant_over_time(view<const element, 2>(constant_B), setup.batch, setup.length),
                .C = C.given() ? view<const element, 4>(C)
                               : constant_over_time(view<const element, 2>(constant_C), setup.batch, setup.length),
                .D = D,
                .z = z,
                .delta_bias = delta_bias,
                .delta_softplus = setup.delta_softplus,
                .initial_state = initial_state,
                .reset = reset,
                .reverse = setup.reverse,
                .order = order,
                .y = y,
                .y_ungated = y_ungated,
                .final_state = final_state,
                .snapshot_after = snapshot_after,
                .snapshots = snapshots};
    }

    /// The bytes of everything that is read, and of everything that is written.
    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {u.bytes(),          delta.bytes(), A.bytes(),          B.bytes(),     C.bytes(),     constant_B.bytes(),
                constant_C.bytes(), D.bytes(),     z.bytes(),          order.bytes(), reset.bytes(), delta_bias.bytes(),
                initial_state.bytes(), snapshot_after.bytes()};
    }
    std::vector<std::vector<std::byte>> output_bytes() const
    {
        return {y.bytes(), y_ungated.bytes(), final_state.bytes(), snapshots.bytes()};
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && y_ungated.gaps_untouched() && final_state.gaps_untouched() &&
               snapshots.gaps_untouched();
    }
};

/// The same scan of `count` tokens from `first` on, without snapshots.
template <class T, class Param>
selective_scan_args<T, Param> time_slice(selective_scan_args<T, Param> a, index first, index count)
{
    const auto cut = [&](auto& v) {
        if (v.data()) v = v.slice(1, first, count);
    };
    cut(a.u);
    cut(a.delta);
    cut(a.B);
    cut(a.C);
    cut(a.z);
    cut(a.reset);
    cut(a.y);
    cut(a.y_ungated);
    a.snapshot_after = {};
    a.snapshots = {};
    return a;
}

/// The worst error of any output against another run of the same problem, in units of the budget: at most 1 is wanted.
template <class Storage, class Other>
double worst_of_budget(const scan_problem<Storage>& p, const scan_problem<Other>& expected)
{
    using T = typename Storage::T;
    using Param = typename Storage::Param;
    return std::max({relative_error(p.y, expected.y) / scan_budget<T>,
                     relative_error(p.y_ungated, expected.y_ungated) / scan_budget<T>,
                     relative_error(p.final_state, expected.final_state) / scan_budget<Param>,
                     relative_error(p.snapshots, expected.snapshots) / scan_budget<Param>});
}

/// A problem with gradients: what comes in for each output, and room for what goes out for each input.
template <class Storage>
struct scan_backward_problem {
    using forward_problem = scan_problem<Storage>;
    using T = typename Storage::T;
    using Param = typename Storage::Param;
    using real = compute_t<T>;

    forward_problem forward;
    tensor<T, 3> dy;
    tensor<Param, 3> dfinal_state;
    tensor<Param, 4> dsnapshots;
    tensor<T, 3> du, ddelta, dz;
    tensor<Param, 2> dA, dconstant_B, dconstant_C;
    tensor<Param, 4> dB, dC;
    tensor<real, 1> dD, ddelta_bias;
    tensor<Param, 3> dinitial_state;

    scan_backward_problem() = default;

    explicit scan_backward_problem(const scan_setup& s, bool final_gradient = true) : forward(s)
    {
        random numbers(s.seed + 1000);
        const auto make = [&](auto& member, const auto& extents) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, {-1, 1});
        };
        make(dy, std::array{s.batch, s.length, s.dim});
        if (final_gradient) make(dfinal_state, std::array{s.batch, s.dim, s.state});
        if (s.snapshots) make(dsnapshots, std::array{s.batch, s.snapshots, s.dim, s.state});
        make_outputs();
    }

    void make_outputs()
    {
        const scan_setup& s = forward.setup;
        const std::array<index, 3> tokens{s.batch, s.length, s.dim};
        du = {tokens, s.outputs, s.edge};
        ddelta = {tokens, s.outputs, s.edge};
        if (s.z) dz = {tokens, s.outputs, s.edge};
        dA = {std::array{s.dim, s.state}, s.outputs, s.edge};
        if (s.constant_B) {
            dconstant_B = {std::array{s.dim, s.state}, s.outputs, s.edge};
        } else {
            dB = {std::array{s.batch, s.length, s.groups_of_B, s.state}, s.outputs, s.edge};
        }
        if (s.constant_C) {
            dconstant_C = {std::array{s.dim, s.state}, s.outputs, s.edge};
        } else {
            dC = {std::array{s.batch, s.length, s.groups_of_C, s.state}, s.outputs, s.edge};
        }
        dD = {std::array{s.dim}, s.outputs, s.edge};
        ddelta_bias = {std::array{s.dim}, s.outputs, s.edge};
        dinitial_state = {std::array{s.batch, s.dim, s.state}, s.outputs, s.edge};
    }

    template <class Other>
    scan_backward_problem<Other> as() const
    {
        using U = typename Other::T;
        using P = typename Other::Param;
        scan_backward_problem<Other> p;
        p.forward = forward.template as<Other>();
        p.dy = dy.template as<U>();
        p.dfinal_state = dfinal_state.template as<P>();
        p.dsnapshots = dsnapshots.template as<P>();
        p.make_outputs();
        return p;
    }

    scan_backward_problem<storage<double, wide_t<Param>>> wide() const { return as<storage<double, wide_t<Param>>>(); }

    selective_scan_backward_args<T, Param> args() const
    {
        const scan_setup& s = forward.setup;
        return {.forward = forward.args(),
                .dy = dy,
                .dfinal_state = dfinal_state,
                .dsnapshots = dsnapshots,
                .du = du,
                .ddelta = ddelta,
                .dz = dz,
                .dA = dA,
                .dB = dB.given() ? dB.view() : summed_over_time(dconstant_B.view(), s.batch, s.length),
                .dC = dC.given() ? dC.view() : summed_over_time(dconstant_C.view(), s.batch, s.length),
                .dD = dD,
                .ddelta_bias = ddelta_bias,
                .dinitial_state = dinitial_state};
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        auto bytes = forward.input_bytes();
        bytes.push_back(dy.bytes());
        bytes.push_back(dfinal_state.bytes());
        bytes.push_back(dsnapshots.bytes());
        return bytes;
    }
    std::vector<std::vector<std::byte>> output_bytes() const
    {
        return {du.bytes(),          ddelta.bytes(),      dz.bytes(), dA.bytes(),          dB.bytes(),            dC.bytes(),
                dconstant_B.bytes(), dconstant_C.bytes(), dD.bytes(), ddelta_bias.bytes(), dinitial_state.bytes()};
    }

    bool gaps_untouched() const
    {
        return du.gaps_untouched() && ddelta.gaps_untouched() && dz.gaps_untouched() && dA.gaps_untouched() &&
               dB.gaps_untouched() && dC.gaps_untouched() && dconstant_B.gaps_untouched() &&
               dconstant_C.gaps_untouched() && dD.gaps_untouched() && ddelta_bias.gaps_untouched() &&
               dinitial_state.gaps_untouched();
    }
};

/// Gradients are sums of more terms than outputs are, of both signs.
template <class T>
inline constexpr double scan_backward_budget = 4 * scan_budget<compute_t<T>> + (sizeof(T) == 2 ? rounding<T> : 0);
template <class T>
inline constexpr double scan_backward_budget<std::complex<T>> = scan_backward_budget<T>;

/// The worst error of any gradient in units of its budget, and which one it is.
struct worst_gradient {
    double error = 0;
    const char* name = "none";

    void add(const char* which, double of_budget)
    {
        if (of_budget > error) *this = {of_budget, which};
    }
};

template <class Storage, class Other>
worst_gradient worst_of_budget(const scan_backward_problem<Storage>& p, const scan_backward_problem<Other>& expected)
{
    constexpr double rounded = scan_backward_budget<typename Storage::T>;
    constexpr double exact = scan_backward_budget<typename Storage::Param>;
    worst_gradient worst;
    worst.add("du", relative_error(p.du, expected.du) / rounded);
    worst.add("ddelta", relative_error(p.ddelta, expected.ddelta) / rounded);
    worst.add("dz", relative_error(p.dz, expected.dz) / rounded);
    worst.add("dA", relative_error(p.dA, expected.dA) / exact);
    worst.add("dB", relative_error(p.dB, expected.dB) / exact);
    worst.add("dC", relative_error(p.dC, expected.dC) / exact);
    worst.add("constant dB", relative_error(p.dconstant_B, expected.dconstant_B) / exact);
    worst.add("constant dC", relative_error(p.dconstant_C, expected.dconstant_C) / exact);
    worst.add("dD", relative_error(p.dD, expected.dD) / exact);
    worst.add("ddelta_bias", relative_error(p.ddelta_bias, expected.ddelta_bias) / exact);
    worst.add("dinitial_state", relative_error(p.dinitial_state, expected.dinitial_state) / exact);
    return worst;
}

}  // namespace ssmkit::testing
