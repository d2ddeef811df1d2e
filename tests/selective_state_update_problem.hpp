#pragma once

// Problems of selective_state_update with random content, for its tests on all backends.

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/reference/selective_state_update.hpp>

#include "selective_scan_problem.hpp"

namespace ssmkit::testing {

/// What a step consists of.
struct step_setup {
    index batch = 2, nheads = 1, headdim = 6, state = 5, ngroups = 1;
    bool D = false, z = false, delta_bias = false, delta_softplus = false;
    bool tied = false;     ///< delta, delta_bias, A and D have one value a head
    bool indices = false;  ///< rows use the entries of a larger h, some rows none
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    index entries() const { return indices ? batch + 3 : batch; }

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(nheads) + ", " + std::to_string(headdim) + ", " +
                        std::to_string(state) + ") groups " + std::to_string(ngroups) + " layouts " +
                        std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(D, "D");
        add(z, "z");
        add(delta_bias, "delta_bias");
        add(delta_softplus, "delta_softplus");
        add(tied, "tied");
        add(indices, "indices");
        return s;
    }

    step_setup with_options(unsigned bits) const
    {
        step_setup s = *this;
        bool* const flags[] = {&s.D, &s.z, &s.delta_bias, &s.delta_softplus, &s.tied, &s.indices};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 6;
};

template <class T>
struct step_problem {
    using real = compute_t<T>;

    step_setup setup;
    tensor<real, 4> h;
    tensor<T, 3> u, delta, B, C, z;
    tensor<real, 3> A;
    tensor<real, 2> D, delta_bias;
    tensor<T, 2> tied_delta;
    tensor<real, 1> tied_A, tied_D, tied_delta_bias;
    tensor<std::int32_t, 1> state_batch_indices;
    tensor<T, 3> y;

    step_problem() = default;

    explicit step_problem(const step_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const auto make = [&](auto& member, const auto& extents, const range& r, layout form) {
            member = {extents, form, s.edge};
            member.fill(numbers, r);
        };
        const range steps = s.delta_softplus ? range{-3, 1} : range{0.02, 1};
        const std::array<index, 3> channels{s.batch, s.nheads, s.headdim};
        make(h, std::array{s.entries(), s.nheads, s.headdim, s.state}, {-1, 1}, s.outputs);
        make(u, channels, {-1, 1}, s.inputs);
        make(B, std::array{s.batch, s.ngroups, s.state}, {-1, 1}, s.inputs);
        make(C, std::array{s.batch, s.ngroups, s.state}, {-1, 1}, s.inputs);
        if (s.z) make(z, channels, {-4, 4}, s.inputs);
        if (s.tied) {
            make(tied_delta, std::array{s.batch, s.nheads}, steps, s.inputs);
            make(tied_A, std::array{s.nheads}, {-3, -0.2}, s.inputs);
            if (s.D) make(tied_D, std::array{s.nheads}, {-1, 1}, s.inputs);
            if (s.delta_bias) make(tied_delta_bias, std::array{s.nheads}, {0, 0.5}, s.inputs);
        } else {
            make(delta, channels, steps, s.inputs);
            make(A, std::array{s.nheads, s.headdim, s.state}, {-3, -0.2}, s.inputs);
            if (s.D) make(D, std::array{s.nheads, s.headdim}, {-1, 1}, s.inputs);
            if (s.delta_bias) make(delta_bias, std::array{s.nheads, s.headdim}, {0, 0.5}, s.inputs);
        }
        if (s.indices) {  // from the last entry down, every third row without one
            state_batch_indices = {std::array{s.batch}, s.inputs, s.edge};
            state_batch_indices.fill([&](index b) {
                return static_cast<std::int32_t>(b % 3 == 1 ? -1 - b : s.entries() - 1 - b);
            });
        }
        y = {channels, s.outputs, s.edge};
    }

    template <class U>
    step_problem<U> as(guard edge = guard::none) const
    {
        constexpr layout row_major = layout::row_major;
        using other_real = compute_t<U>;
        step_problem<U> p;
        p.setup = setup;
        p.h = h.template as<other_real>(row_major, edge);
        p.u = u.template as<U>(row_major, edge);
        p.delta = delta.template as<U>(row_major, edge);
        p.B = B.template as<U>(row_major, edge);
        p.C = C.template as<U>(row_major, edge);
        p.z = z.template as<U>(row_major, edge);
        p.A = A.template as<other_real>(row_major, edge);
        p.D = D.template as<other_real>(row_major, edge);
        p.delta_bias = delta_bias.template as<other_real>(row_major, edge);
        p.tied_delta = tied_delta.template as<U>(row_major, edge);
        p.tied_A = tied_A.template as<other_real>(row_major, edge);
        p.tied_D = tied_D.template as<other_real>(row_major, edge);
        p.tied_delta_bias = tied_delta_bias.template as<other_real>(row_major, edge);
        p.state_batch_indices = state_batch_indices.template as<std::int32_t>(row_major, edge);
        p.y = {y.view().extents(), row_major, edge};
        return p;
    }

    selective_state_update_args<T> args() const
    {
        const index headdim = setup.headdim;
        selective_state_update_args<T> a{.h = h,
                                         .u = u,
                                         .delta = delta,
                                         .A = A,
                                         .B = B,
                                         .C = C,
                                         .D = D,
                                         .z = z,
                                         .delta_bias = delta_bias,
                                         .delta_softplus = setup.delta_softplus,
                                         .state_batch_indices = state_batch_indices,
                                         .y = y};
        if (setup.tied) {
            a.delta = tied_over_head(tied_delta.view(), headdim);
            a.A = tied_over_head(tied_A.view(), headdim, setup.state);
            if (setup.D) a.D = tied_over_head(tied_D.view(), headdim);
            if (setup.delta_bias) a.delta_bias = tied_over_head(tied_delta_bias.view(), headdim);
        }
        return a;
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {u.bytes(), delta.bytes(),      B.bytes(),          C.bytes(),      z.bytes(),      A.bytes(),
                D.bytes(), delta_bias.bytes(), tied_delta.bytes(), tied_A.bytes(), tied_D.bytes(), tied_delta_bias.bytes(),
                state_batch_indices.bytes()};
    }
};

/// The worst error of what `run` makes of the arguments, in units of the budget, against the reference in double.
template <class T, class Run>
double step_error(const step_problem<T>& p, Run&& run)
{
    const step_problem<double> expected = p.template as<double>();
    run(p.args());
    reference::selective_state_update(expected.args());
    return std::max(relative_error(p.y, expected.y) / scan_budget<T>,
                    relative_error(p.h, expected.h) / scan_budget<compute_t<T>>);
}

}  // namespace ssmkit::testing
