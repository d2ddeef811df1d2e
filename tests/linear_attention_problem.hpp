#pragma once

// Random problems for linear_attention, its relatives, their gradients and their step.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include <ssmkit/args/linear_attention_backward.hpp>
#include <ssmkit/args/linear_attention_update.hpp>

#include "random_problem.hpp"

namespace ssmkit::testing {

/// What a problem consists of.
struct linear_attention_setup {
    index batch = 2, length = 37, nheads = 4, ngroups = 2, key = 5, value = 3;
    bool g = false, fixed_g = false;  ///< a decay of every token, or one a head
    bool gk = false, beta = false, scale = false, initial_state = false, reverse = false, cu_seqlens = false;
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(length) + ", " + std::to_string(nheads) +
                        ") groups " + std::to_string(ngroups) + " key " + std::to_string(key) + " value " +
                        std::to_string(value) + " layouts " + std::to_string(static_cast<int>(inputs)) + " " +
                        std::to_string(static_cast<int>(outputs)) + " seed " + std::to_string(seed);
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(g, "g");
        add(fixed_g, "fixed g");
        add(gk, "gk");
        add(beta, "beta");
        add(scale, "scale");
        add(initial_state, "initial_state");
        add(reverse, "reverse");
        add(cu_seqlens, "cu_seqlens");
        return s;
    }

    /// The options that the bits of a number switch on.
    linear_attention_setup with_options(unsigned bits) const
    {
        linear_attention_setup s = *this;
        bool* const flags[] = {&s.gk, &s.beta, &s.scale, &s.initial_state, &s.reverse, &s.cu_seqlens};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        s.g = bits % 3 == 1;
        s.fixed_g = bits % 3 == 2;
        if (s.cu_seqlens) s.batch = 1;
        return s;
    }
    static constexpr unsigned options = 6;
    static constexpr unsigned variants = 3u << options;

    /// Where keys lie so that the delta rule, which takes a state times I - β k k^T, does not blow it up.
    range keys() const
    {
        const double size = beta && key > 3 ? std::sqrt(3.0 / static_cast<double>(key)) : 1;
        return {-size, size};
    }
    static constexpr range gates{-0.9, 0.05};
};

/// Which gates each member of the family has.
struct linear_attention_member {
    const char* name;
    bool g, fixed_g, gk, beta;

    linear_attention_setup of(linear_attention_setup s) const
    {
        s.g = g;
        s.fixed_g = fixed_g;
        s.gk = gk;
        s.beta = beta;
        return s;
    }
};

inline constexpr linear_attention_member linear_attention_family[] = {
    {"linear attention", false, false, false, false},
    {"retention", false, true, false, false},
    {"simple gla", true, false, false, false},
    {"gla", false, false, true, false},
    {"both decays", true, false, true, false},
    {"delta net", false, false, false, true},
    {"gated delta rule", true, false, false, true},
    {"kimi delta attention", false, false, true, true}};

template <class Element>
struct linear_attention_problem {
    using T = Element;
    using real = compute_t<T>;

    linear_attention_setup setup;
    tensor<T, 4> q, k, v, gk;
    tensor<T, 3> g, beta;
    tensor<T, 1> fixed_g;
    tensor<real, 4> initial_state;
    tensor<index, 1> cu_seqlens;
    tensor<T, 4> y;
    tensor<real, 4> final_state;

    linear_attention_problem() = default;

    explicit linear_attention_problem(const linear_attention_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const auto make = [&](auto& member, const auto& extents, const range& r) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, r);
        };
        make(q, keys(), {-1, 1});
        make(k, keys(), s.keys());
        make(v, values(), {-1, 1});
        if (s.g) make(g, tokens(), s.gates);
        if (s.fixed_g) make(fixed_g, std::array{s.nheads}, s.gates);
        if (s.gk) make(gk, keys(), s.gates);
        if (s.beta) make(beta, tokens(), {0, 1});
        if (s.cu_seqlens) {  // five sequences, one of them empty, one of them of one token
            const index a = numbers.below(s.length + 1), c = numbers.below(s.length + 1);
            std::vector<index> starts = {0, a, std::min(a + 1, s.length), c, c, s.length};
            std::sort(starts.begin(), starts.end());
            pack(starts);
        }
        if (s.initial_state) make(initial_state, states(), {-1, 1});
        make_outputs();
    }

    /// Sequences that begin here, and end where the next one begins.
    void pack(const std::vector<index>& starts)
    {
        cu_seqlens = {std::array{static_cast<index>(starts.size())}, setup.inputs, setup.edge};
        cu_seqlens.fill([&](index i) { return starts[static_cast<std::size_t>(i)]; });
    }

    std::array<index, 3> tokens() const { return {setup.batch, setup.length, setup.nheads}; }
    std::array<index, 4> keys() const { return {setup.batch, setup.length, setup.ngroups, setup.key}; }
    std::array<index, 4> values() const { return {setup.batch, setup.length, setup.nheads, setup.value}; }
    std::array<index, 4> states() const
    {
        const index sequences = cu_seqlens.given() ? cu_seqlens.extent(0) - 1 : setup.batch;
        return {sequences, setup.nheads, setup.key, setup.value};
    }

    /// Fresh outputs, full of NaN.
    void make_outputs()
    {
        y = {values(), setup.outputs, setup.edge};
        final_state = {states(), setup.outputs, setup.edge};
    }

    /// The same problem with its numbers in another type, in row-major memory.
    template <class U>
    linear_attention_problem<U> as() const
    {
        linear_attention_problem<U> p;
        p.setup = setup;
        p.setup.inputs = p.setup.outputs = layout::row_major;
        p.setup.edge = guard::none;
        p.q = q.template as<U>();
        p.k = k.template as<U>();
        p.v = v.template as<U>();
        p.g = g.template as<U>();
        p.fixed_g = fixed_g.template as<U>();
        p.gk = gk.template as<U>();
        p.beta = beta.template as<U>();
        p.initial_state = initial_state.template as<compute_t<U>>();
        p.cu_seqlens = cu_seqlens.template as<index>();
        p.make_outputs();
        return p;
    }

    linear_attention_problem<double> wide() const { return as<double>(); }

    linear_attention_args<T> args() const
    {
        return {.q = q,
                .k = k,
                .v = v,
                .g = fixed_g.given() ? fixed_decay(fixed_g.view(), setup.batch, setup.length) : view<const T, 3>(g),
                .gk = gk,
                .beta = beta,
                .scale = setup.scale ? real(0.75) : real(0),
                .initial_state = initial_state,
                .cu_seqlens = cu_seqlens,
                .reverse = setup.reverse,
                .y = y,
                .final_state = final_state};
    }

    /// The bytes of everything that is read, and of everything that is written.
    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {q.bytes(),  k.bytes(),    v.bytes(),          g.bytes(),       fixed_g.bytes(),
                gk.bytes(), beta.bytes(), cu_seqlens.bytes(), initial_state.bytes()};
    }
    std::vector<std::vector<std::byte>> output_bytes() const { return {y.bytes(), final_state.bytes()}; }

    bool gaps_untouched() const { return y.gaps_untouched() && final_state.gaps_untouched(); }
};

/// The same operation on `count` tokens from `first` on.
template <class T>
linear_attention_args<T> time_slice(linear_attention_args<T> a, index first, index count)
{
    const auto cut = [&](auto& v) {
        if (v.data()) v = v.slice(1, first, count);
    };
    cut(a.q);
    cut(a.k);
    cut(a.v);
    cut(a.g);
    cut(a.gk);
    cut(a.beta);
    cut(a.y);
    return a;
}

/// The gradients of that.
template <class T>
linear_attention_backward_args<T> time_slice(linear_attention_backward_args<T> a, index first, index count)
{
    const auto cut = [&](auto& v) {
        if (v.data()) v = v.slice(1, first, count);
    };
    a.forward = time_slice(a.forward, first, count);
    cut(a.dy);
    cut(a.dq);
    cut(a.dk);
    cut(a.dv);
    cut(a.dg);
    cut(a.dgk);
    cut(a.dbeta);
    return a;
}

/// The largest relative_error that an output stored as T may have, T = compute_t<T> being that of a state. The delta rule
/// takes what it recalls from what is to be learned, and a chunk of it is the solution of a triangular system: more roundings
/// than the sums of ssd have.
template <class T>
inline constexpr double linear_attention_budget = std::is_same_v<compute_t<T>, double> ? 1e-12
                                                  : std::is_same_v<T, float>           ? 1e-5
                                                                                       : 1e-5 + rounding<T>;

/// Gradients are sums of more terms than outputs are, of both signs.
template <class T>
inline constexpr double linear_attention_backward_budget =
    2 * linear_attention_budget<compute_t<T>> + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T, class U>
worst_error worst_of_budget(const linear_attention_problem<T>& p, const linear_attention_problem<U>& expected)
{
    worst_error worst;
    worst.add("y", relative_error(p.y, expected.y) / linear_attention_budget<T>);
    worst.add("final_state", relative_error(p.final_state, expected.final_state) / linear_attention_budget<compute_t<T>>);
    return worst;
}

/// A problem with gradients: what comes in for each output, and room for what goes out for each input.
template <class Element>
struct linear_attention_backward_problem {
    using T = Element;
    using real = compute_t<T>;

    linear_attention_problem<T> forward;
    tensor<T, 4> dy;
    tensor<real, 4> dfinal_state;
    tensor<real, 4> dq, dk, dgk, dinitial_state;
    tensor<T, 4> dv;
    tensor<real, 3> dg, dbeta;

    linear_attention_backward_problem() = default;

    explicit linear_attention_backward_problem(const linear_attention_setup& s, bool final_gradient = true) : forward(s)
    {
        random numbers(s.seed + 1000);
        const auto make = [&](auto& member, const auto& extents) {
            member = {extents, s.inputs, s.edge};
            member.fill(numbers, {-1, 1});
        };
        make(dy, forward.values());
        if (final_gradient) make(dfinal_state, forward.states());
        make_outputs();
    }

    void make_outputs()
    {
        const linear_attention_setup& s = forward.setup;
        dq = {forward.keys(), s.outputs, s.edge};
        dk = {forward.keys(), s.outputs, s.edge};
        dv = {forward.values(), s.outputs, s.edge};
        dg = {forward.tokens(), s.outputs, s.edge};
        dgk = {forward.keys(), s.outputs, s.edge};
        if (s.beta) dbeta = {forward.tokens(), s.outputs, s.edge};
        dinitial_state = {forward.states(), s.outputs, s.edge};
    }

    template <class U>
    linear_attention_backward_problem<U> as() const
    {
        linear_attention_backward_problem<U> p;
        p.forward = forward.template as<U>();
        p.dy = dy.template as<U>();
        p.dfinal_state = dfinal_state.template as<compute_t<U>>();
        p.make_outputs();
        return p;
    }

    linear_attention_backward_problem<double> wide() const { return as<double>(); }

    linear_attention_backward_args<T> args() const
    {
        return {.forward = forward.args(),
                .dy = dy,
                .dfinal_state = dfinal_state,
                .dq = dq,
                .dk = dk,
                .dv = dv,
                .dg = dg,
                .dgk = dgk,
                .dbeta = dbeta,
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
        return {dq.bytes(), dk.bytes(), dv.bytes(), dg.bytes(), dgk.bytes(), dbeta.bytes(), dinitial_state.bytes()};
    }

    bool gaps_untouched() const
    {
        return dq.gaps_untouched() && dk.gaps_untouched() && dv.gaps_untouched() && dg.gaps_untouched() &&
               dgk.gaps_untouched() && dbeta.gaps_untouched() && dinitial_state.gaps_untouched();
    }
};

template <class T, class U>
worst_error worst_of_budget(const linear_attention_backward_problem<T>& p,
                                 const linear_attention_backward_problem<U>& expected)
{
    constexpr double rounded = linear_attention_backward_budget<T>, exact = linear_attention_backward_budget<compute_t<T>>;
    worst_error worst;
    worst.add("dq", relative_error(p.dq, expected.dq) / exact);
    worst.add("dk", relative_error(p.dk, expected.dk) / exact);
    worst.add("dv", relative_error(p.dv, expected.dv) / rounded);
    worst.add("dg", relative_error(p.dg, expected.dg) / exact);
    worst.add("dgk", relative_error(p.dgk, expected.dgk) / exact);
    worst.add("dbeta", relative_error(p.dbeta, expected.dbeta) / exact);
    worst.add("dinitial_state", relative_error(p.dinitial_state, expected.dinitial_state) / exact);
    return worst;
}

/// What a step consists of.
struct linear_attention_step_setup {
    index batch = 2, nheads = 4, ngroups = 2, key = 5, value = 3;
    bool g = false, gk = false, beta = false, scale = false;
    bool indices = false;  ///< rows use the entries of a larger S, some rows none
    layout inputs = layout::row_major, outputs = layout::row_major;
    guard edge = guard::none;
    std::uint64_t seed = 1;

    index entries() const { return indices ? batch + 3 : batch; }

    std::string text() const
    {
        std::string s = "(" + std::to_string(batch) + ", " + std::to_string(nheads) + ") groups " + std::to_string(ngroups) +
                        " key " + std::to_string(key) + " value " + std::to_string(value) + " layouts " +
                        std::to_string(static_cast<int>(inputs)) + " " + std::to_string(static_cast<int>(outputs));
        const auto add = [&](bool on, const char* name) {
            if (on) s += std::string(" ") + name;
        };
        add(g, "g");
        add(gk, "gk");
        add(beta, "beta");
        add(scale, "scale");
        add(indices, "indices");
        return s;
    }

    linear_attention_step_setup with_options(unsigned bits) const
    {
        linear_attention_step_setup s = *this;
        bool* const flags[] = {&s.g, &s.gk, &s.beta, &s.scale, &s.indices};
        for (bool* flag : flags) {
            *flag = bits & 1u;
            bits >>= 1;
        }
        return s;
    }
    static constexpr unsigned options = 5;
};

template <class Element>
struct linear_attention_step_problem {
    using T = Element;
    using real = compute_t<T>;

    linear_attention_step_setup setup;
    tensor<real, 4> S;
    tensor<T, 3> q, k, v, gk;
    tensor<T, 2> g, beta;
    tensor<std::int32_t, 1> state_batch_indices;
    tensor<T, 3> y;

    linear_attention_step_problem() = default;

    explicit linear_attention_step_problem(const linear_attention_step_setup& s) : setup(s)
    {
        random numbers(s.seed);
        const auto make = [&](auto& member, const auto& extents, const range& r, layout form) {
            member = {extents, form, s.edge};
            member.fill(numbers, r);
        };
        const std::array<index, 3> keys{s.batch, s.ngroups, s.key}, values{s.batch, s.nheads, s.value};
        const std::array<index, 2> heads{s.batch, s.nheads};
        make(S, std::array{s.entries(), s.nheads, s.key, s.value}, {-1, 1}, s.outputs);
        make(q, keys, {-1, 1}, s.inputs);
        make(k, keys, {-1, 1}, s.inputs);
        make(v, values, {-1, 1}, s.inputs);
        if (s.g) make(g, heads, linear_attention_setup::gates, s.inputs);
        if (s.gk) make(gk, keys, linear_attention_setup::gates, s.inputs);
        if (s.beta) make(beta, heads, {0, 1}, s.inputs);
        if (s.indices) {  // from the last entry down, every third row without one
            state_batch_indices = {std::array{s.batch}, s.inputs, s.edge};
            state_batch_indices.fill([&](index b) {
                return static_cast<std::int32_t>(b % 3 == 1 ? -1 - b : s.entries() - 1 - b);
            });
        }
        y = {values, s.outputs, s.edge};
    }

    template <class U>
    linear_attention_step_problem<U> as() const
    {
        linear_attention_step_problem<U> p;
        p.setup = setup;
        p.S = S.template as<compute_t<U>>();
        p.q = q.template as<U>();
        p.k = k.template as<U>();
        p.v = v.template as<U>();
        p.g = g.template as<U>();
        p.gk = gk.template as<U>();
        p.beta = beta.template as<U>();
        p.state_batch_indices = state_batch_indices.template as<std::int32_t>();
        p.y = {y.view().extents()};
        return p;
    }

    linear_attention_update_args<T> args() const
    {
        return {.S = S,
                .q = q,
                .k = k,
                .v = v,
                .g = g,
                .gk = gk,
                .beta = beta,
                .scale = setup.scale ? real(0.75) : real(0),
                .state_batch_indices = state_batch_indices,
                .y = y};
    }

    std::vector<std::vector<std::byte>> input_bytes() const
    {
        return {q.bytes(),  k.bytes(),    v.bytes(), g.bytes(),
                gk.bytes(), beta.bytes(), state_batch_indices.bytes()};
    }
};

template <class T, class U>
worst_error worst_of_budget(const linear_attention_step_problem<T>& p, const linear_attention_step_problem<U>& expected)
{
    worst_error worst;
    worst.add("y", relative_error(p.y, expected.y) / linear_attention_budget<T>);
    worst.add("S", relative_error(p.S, expected.S) / linear_attention_budget<compute_t<T>>);
    return worst;
}

/// What a call complains of.
template <class F>
std::string complaint_of(F&& f)
{
    try {
        f();
    } catch (const shape_error& e) {
        return e.what();
    }
    return "nothing thrown";
}

}  // namespace ssmkit::testing
