#pragma once

// Random problems for ssd and its gradients.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <ssmkit/args/ssd_backward.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

/// How sequences are packed into a row.
enum class packing { none, seq_idx, cu_seqlens };

/// What a problem consists of.
struct ssd_setup {
    index batch = 2, length = 37, nheads = 4, headdim = 3, ngroups = 2, state = 5;
    bool D = false, tied_D = false;  ///< a skip for every channel, or one for every head
    bool z = false, delta_bias = false, delta_softplus = false, limits = false, prescaled = false;
    bool initial_state = false, reverse = false;
    packing packed = packing::none;
    index chunk = 8;
    bool extras = true;  ///< every output that may be left out, if it can be had
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(length) + ", " + std::to_string(nheads) + ", " +
                        std::to_string(headdim) + ") groups " + std::to_string(ngroups) + " state " + std::to_string(state) +
                        " chunk " + std::to_string(chunk) + " layouts " + std::to_string(static_cast<int>(inputs)) + " " +
                        std::to_string(static_cast<int>(outputs)) + " seed " + std::to_string(seed);
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(D, "D");
        add(tied_D, "tied D");
        add(z, "z");
        add(delta_bias, "delta_bias");
        add(delta_softplus, "delta_softplus");
        add(limits, "limits");
        add(prescaled, "prescaled");
        add(initial_state, "initial_state");
        add(reverse, "reverse");
        add(packed == packing::seq_idx, "seq_idx");
        add(packed == packing::cu_seqlens, "cu_seqlens");
        return s;
    }

    /// The options that the bits of a number switch on.
    ssd_setup with_options(unsigned bits) const
    {
        ssd_setup s = *this;
        bool* const flags[] = {&s.D,      &s.tied_D,    &s.z,             &s.delta_bias, &s.delta_softplus,
                               &s.limits, &s.prescaled, &s.initial_state, &s.reverse};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        s.D = s.D && !s.tied_D;
        s.packed = static_cast<packing>(bits % 3);
        if (s.packed == packing::cu_seqlens) s.batch = 1;
        return s;
    }
    static constexpr unsigned options = 9;
    static constexpr unsigned variants = 3u << options;
};

template <class Element>
struct ssd_problem {
    using T = Element;
    using real = compute_t<T>;

    ssd_setup setup;
    tensor<T, 4> u, z;
    tensor<T, 3> delta;
    tensor<real, 1> A, tied_D, delta_bias;
    tensor<real, 2> D;
    tensor<T, 4> B, C;
    tensor<real, 4> initial_state;
    tensor<std::int32_t, 2> seq_idx;
    tensor<index, 1> cu_seqlens;
    tensor<T, 4> y, y_ungated;
    tensor<real, 4> final_state;
    tensor<real, 3> delta_out, log_decay;
    tensor<real, 5> chunk_states, prev_states;

    ssd_problem() = default;

    explicit ssd_problem(const ssd_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const auto make = [&](auto& member, const auto& extents, const range& r) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, r);
        };
        const std::array<index, 4> tokens{s.batch, s.length, s.nheads, s.headdim};
        const std::array<index, 4> maps{s.batch, s.length, s.ngroups, s.state};
        make(u, tokens, {-1, 1});
        make(delta, std::array{s.batch, s.length, s.nheads}, s.delta_softplus ? range{-3, 1} : range{-0.2, 1});
        make(A, std::array{s.nheads}, {-2, -0.1});
        make(B, maps, {-1, 1});
        make(C, maps, {-1, 1});
        if (s.D) make(D, std::array{s.nheads, s.headdim}, {-1, 1});
        if (s.tied_D) make(tied_D, std::array{s.nheads}, {-1, 1});
        if (s.z) make(z, tokens, {-4, 4});
        if (s.delta_bias) make(delta_bias, std::array{s.nheads}, s.delta_softplus ? range{-1, 1} : range{-0.1, 0.2});
        if (s.packed == packing::seq_idx) {
            seq_idx = {std::array{s.batch, s.length}, s.inputs, s.edge};
            for (index b = 0; b < s.batch; ++b) {
                // Ascending from 0, to which the initial state belongs, or from 1, with gaps and padding.
                auto id = static_cast<std::int32_t>(numbers.below(3) == 0);
                for (index i = 0; i < s.length; ++i) {
                    if (numbers.below(6) == 0) id += 1 + static_cast<std::int32_t>(numbers.below(3));
                    const bool padding = numbers.below(8) == 0;
                    seq_idx(b, s.reverse ? s.length - 1 - i : i) =
                        padding ? -1 - static_cast<std::int32_t>(numbers.below(5)) : id;
                }
            }
        }
        if (s.packed == packing::cu_seqlens) {  // five sequences, one of them empty, one of them of one token
            const index a = numbers.below(s.length + 1), c = numbers.below(s.length + 1);
            std::vector<index> starts = {0, a, std::min(a + 1, s.length), c, c, s.length};
            std::sort(starts.begin(), starts.end());
            cu_seqlens = {std::array{static_cast<index>(starts.size())}, s.inputs, s.edge};
            cu_seqlens.fill([&](index i) { return starts[static_cast<std::size_t>(i)]; });
        }
        if (s.initial_state) make(initial_state, states(), {-1, 1});
        make_outputs();
    }

    std::array<index, 4> states() const
    {
        const index sequences = cu_seqlens.given() ? cu_seqlens.extent(0) - 1 : setup.batch;
        return {sequences, setup.nheads, setup.headdim, setup.state};
    }

    /// Fresh outputs, full of NaN.
    void make_outputs()
    {
        const ssd_setup& s = setup;
        const std::array<index, 4> tokens{s.batch, s.length, s.nheads, s.headdim};
        const std::array<index, 3> steps{s.batch, s.length, s.nheads};
        const std::array<index, 5> chunks{s.batch, ssd_chunk_count(s.length, s.chunk), s.nheads, s.headdim, s.state};
        y = {tokens, s.outputs, s.edge};
        final_state = {states(), s.outputs, s.edge};
        if (!s.extras) return;
        y_ungated = {tokens, s.outputs, s.edge};
        delta_out = {steps, s.outputs, s.edge};
        if (s.packed == packing::cu_seqlens) return;
        log_decay = {steps, s.outputs, s.edge};
        chunk_states = {chunks, s.outputs, s.edge};
        prev_states = {chunks, s.outputs, s.edge};
    }

    /// The same problem with its numbers in another type, in row-major memory.
    template <class U>
    ssd_problem<U> as() const
    {
        using R = compute_t<U>;
        ssd_problem<U> p;
        p.setup = setup;
        p.setup.inputs = p.setup.outputs = layout::row_major;
        p.setup.edge = guard::none;
        p.u = u.template as<U>();
        p.delta = delta.template as<U>();
        p.A = A.template as<R>();
        p.B = B.template as<U>();
        p.C = C.template as<U>();
        p.D = D.template as<R>();
        p.tied_D = tied_D.template as<R>();
        p.z = z.template as<U>();
        p.delta_bias = delta_bias.template as<R>();
        p.initial_state = initial_state.template as<R>();
        p.seq_idx = seq_idx.template as<std::int32_t>();
        p.cu_seqlens = cu_seqlens.template as<index>();
        p.make_outputs();
        return p;
    }

    ssd_problem<double> wide() const { return as<double>(); }

    ssd_args<T> args() const
    {
        ssd_args<T> a{.u = u,
                      .delta = delta,
                      .A = A,
                      .B = B,
                      .C = C,
                      .D = tied_D.given() ? tied_over_head(tied_D.view(), setup.headdim) : view<const real, 2>(D),
                      .z = z,
                      .delta_bias = delta_bias,
                      .delta_softplus = setup.delta_softplus,
                      .prescaled = setup.prescaled,
                      .initial_state = initial_state,
                      .seq_idx = seq_idx,
                      .cu_seqlens = cu_seqlens,
                      .reverse = setup.reverse,
                      .chunk = setup.chunk,
                      .y = y,
                      .y_ungated = y_ungated,
                      .final_state = final_state,
                      .delta_out = delta_out,
                      .log_decay = log_decay,
                      .chunk_states = chunk_states,
                      .prev_states = prev_states};
        if (setup.limits) {  // numbers that every type holds
            a.delta_min = real(0.125);
            a.delta_max = real(0.75);
        }
        return a;
    }

    /// The bytes of everything that is read, and of everything that is written.
    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {u.bytes(),  delta.bytes(),      A.bytes(),       B.bytes(),          C.bytes(),       D.bytes(), tied_D.bytes(),
                z.bytes(), delta_bias.bytes(), seq_idx.bytes(), cu_seqlens.bytes(), initial_state.bytes()};
    }
    std::vector<std::vector<std::byte>> output_bytes() const
    {
        return {y.bytes(),         y_ungated.bytes(),    final_state.bytes(), delta_out.bytes(),
                log_decay.bytes(), chunk_states.bytes(), prev_states.bytes()};
    }

    bool gaps_untouched() const
    {
        return y.gaps_untouched() && y_ungated.gaps_untouched() && final_state.gaps_untouched() &&
               delta_out.gaps_untouched() && log_decay.gaps_untouched() && chunk_states.gaps_untouched() &&
               prev_states.gaps_untouched();
    }
};

/// The same operation on `count` tokens from `first` on, without the outputs that speak of chunks.
template <class T>
ssd_args<T> time_slice(ssd_args<T> a, index first, index count)
{
    const auto cut = [&](auto& v) {
        if (v.data()) v = v.slice(1, first, count);
    };
    cut(a.u);
    cut(a.delta);
    cut(a.B);
    cut(a.C);
    cut(a.z);
    cut(a.seq_idx);
    cut(a.y);
    cut(a.y_ungated);
    cut(a.delta_out);
    a.log_decay = {};
    a.chunk_states = {};
    a.prev_states = {};
    return a;
}

/// The gradients of that.
template <class T>
ssd_backward_args<T> time_slice(ssd_backward_args<T> a, index first, index count)
{
    a.forward = time_slice(a.forward, first, count);
    a.dy = a.dy.slice(1, first, count);
    a.du = a.du.slice(1, first, count);
    a.ddelta = a.ddelta.slice(1, first, count);
    if (a.dz.data()) a.dz = a.dz.slice(1, first, count);
    a.dB = a.dB.slice(1, first, count);
    a.dC = a.dC.slice(1, first, count);
    return a;
}

/// The largest relative_error that an output stored as T may have, T = compute_t<T> being that of a state: at most a few
/// tens of roundings a sum on these problems, exp included, and the rounding of the output itself.
template <class T>
inline constexpr double ssd_budget = std::is_same_v<compute_t<T>, double> ? 1e-12
                                     : std::is_same_v<T, float>           ? 4e-6
                                                                          : 4e-6 + rounding<T>;

template <class T, class U>
worst_error worst_of_budget(const ssd_problem<T>& p, const ssd_problem<U>& expected)
{
    constexpr double rounded = ssd_budget<T>, exact = ssd_budget<compute_t<T>>;
    worst_error worst;
    worst.add("y", relative_error(p.y, expected.y) / rounded);
    worst.add("y_ungated", relative_error(p.y_ungated, expected.y_ungated) / rounded);
    worst.add("final_state", relative_error(p.final_state, expected.final_state) / exact);
    worst.add("delta_out", relative_error(p.delta_out, expected.delta_out) / exact);
    worst.add("log_decay", relative_error(p.log_decay, expected.log_decay) / exact);
    worst.add("chunk_states", relative_error(p.chunk_states, expected.chunk_states) / exact);
    worst.add("prev_states", relative_error(p.prev_states, expected.prev_states) / exact);
    return worst;
}

/// A problem with gradients: what comes in for each output, and room for what goes out for each input.
template <class Element>
struct ssd_backward_problem {
    using T = Element;
    using real = compute_t<T>;

    ssd_problem<T> forward;
    tensor<T, 4> dy;
    tensor<real, 4> dfinal_state;
    tensor<T, 4> du, dz;
    tensor<T, 3> ddelta;
    tensor<real, 1> dA, dtied_D, ddelta_bias;
    tensor<real, 2> dD;
    tensor<real, 4> dB, dC, dinitial_state;

    ssd_backward_problem() = default;

    explicit ssd_backward_problem(const ssd_setup& s, bool final_gradient = true) : forward(s)
    {
        random numbers(s.seed + 1000);
        const auto make = [&](auto& member, const auto& extents) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, {-1, 1});
        };
        make(dy, std::array{s.batch, s.length, s.nheads, s.headdim});
        if (final_gradient) make(dfinal_state, forward.states());
        make_outputs();
    }

    void make_outputs()
    {
        const ssd_setup& s = forward.setup;
        const std::array<index, 4> tokens{s.batch, s.length, s.nheads, s.headdim};
        const std::array<index, 4> maps{s.batch, s.length, s.ngroups, s.state};
        du = {tokens, s.outputs, s.edge};
        ddelta = {std::array{s.batch, s.length, s.nheads}, s.outputs, s.edge};
        if (s.z) dz = {tokens, s.outputs, s.edge};
        dA = {std::array{s.nheads}, s.outputs, s.edge};
        dB = {maps, s.outputs, s.edge};
        dC = {maps, s.outputs, s.edge};
        if (s.tied_D) {
            dtied_D = {std::array{s.nheads}, s.outputs, s.edge};
        } else {
            dD = {std::array{s.nheads, s.headdim}, s.outputs, s.edge};
        }
        ddelta_bias = {std::array{s.nheads}, s.outputs, s.edge};
        dinitial_state = {forward.states(), s.outputs, s.edge};
    }

    template <class U>
    ssd_backward_problem<U> as() const
    {
        ssd_backward_problem<U> p;
        p.forward = forward.template as<U>();
        p.dy = dy.template as<U>();
        p.dfinal_state = dfinal_state.template as<compute_t<U>>();
        p.make_outputs();
        return p;
    }

    ssd_backward_problem<double> wide() const { return as<double>(); }

    ssd_backward_args<T> args() const
    {
        return {.forward = forward.args(),
                .dy = dy,
                .dfinal_state = dfinal_state,
                .du = du,
                .ddelta = ddelta,
                .dz = dz,
                .dA = dA,
                .dB = dB,
                .dC = dC,
                .dD = dtied_D.given() ? summed_over_head(dtied_D.view(), forward.setup.headdim) : dD.view(),
                .ddelta_bias = ddelta_bias,
                .dinitial_state = dinitial_state};
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        auto bytes = forward.input_bytes();
        bytes.push_back(dy.bytes());
        bytes.push_back(dfinal_state.bytes());
        return bytes;
    }
    std::vector<std::vector<std::byte>> output_bytes() const
    {
        return {du.bytes(), ddelta.bytes(), dz.bytes(),      dA.bytes(),          dB.bytes(),
                dC.bytes(), dD.bytes(),     dtied_D.bytes(), ddelta_bias.bytes(), dinitial_state.bytes()};
    }

    bool gaps_untouched() const
    {
        return du.gaps_untouched() && ddelta.gaps_untouched() && dz.gaps_untouched() && dA.gaps_untouched() &&
               dB.gaps_untouched() && dC.gaps_untouched() && dD.gaps_untouched() && dtied_D.gaps_untouched() &&
               ddelta_bias.gaps_untouched() && dinitial_state.gaps_untouched();
    }
};

/// Gradients are sums of more terms than outputs are, of both signs.
template <class T>
inline constexpr double ssd_backward_budget = 4 * ssd_budget<compute_t<T>> + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T, class U>
worst_error worst_of_budget(const ssd_backward_problem<T>& p, const ssd_backward_problem<U>& expected)
{
    constexpr double rounded = ssd_backward_budget<T>, exact = ssd_backward_budget<compute_t<T>>;
    worst_error worst;
    worst.add("du", relative_error(p.du, expected.du) / rounded);
    worst.add("ddelta", relative_error(p.ddelta, expected.ddelta) / rounded);
    worst.add("dz", relative_error(p.dz, expected.dz) / rounded);
    worst.add("dA", relative_error(p.dA, expected.dA) / exact);
    worst.add("dB", relative_error(p.dB, expected.dB) / exact);
    worst.add("dC", relative_error(p.dC, expected.dC) / exact);
    worst.add("dD", relative_error(p.dD, expected.dD) / exact);
    worst.add("tied dD", relative_error(p.dtied_D, expected.dtied_D) / exact);
    worst.add("ddelta_bias", relative_error(p.ddelta_bias, expected.ddelta_bias) / exact);
    worst.add("dinitial_state", relative_error(p.dinitial_state, expected.dinitial_state) / exact);
    return worst;
}

}  // namespace ssmkit::testing
