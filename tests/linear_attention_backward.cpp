#include <ssmkit/linear_attention_backward.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <ssmkit/reference/linear_attention_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "linear_attention_problem.hpp"
#include "sparse_memory.hpp"

// The kernel against the reference, which tests/linear_attention_reference.cpp holds against slopes of the loss.

namespace ssmkit::testing {
namespace {

template <class T>
inline constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

template <class T>
worst_error against_reference(const linear_attention_backward_problem<T>& p)
{
    linear_attention_backward(p.args());
    const auto expected = p.wide();
    reference::linear_attention_backward(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("linear_attention_backward: agrees with the reference, whatever is switched on", "", float, double, bfloat16,
                   float16)
{
    for (unsigned bits = 0; bits < linear_attention_setup::variants; ++bits) {
        for (const layout form : all_layouts) {
            if (SSMKIT_SAMPLED_TESTS && form != all_layouts[bits / 6 % 6]) continue;
            linear_attention_setup s = linear_attention_setup{.nheads = 8}.with_options(bits);
            constexpr index groups[] = {1, 2, 4, 8};
            s.ngroups = groups[bits / 3 % 4];
            if (bits % 32 == 5) s.nheads += 32;  // more heads than go side by side
            s.value += bits / 7 % 2 * lanes<TestType>;
            s.key += bits / 11 % 2 * lanes<TestType>;
            s.inputs = form;
            s.outputs = all_layouts[bits % 6];
            s.seed = bits;
            const linear_attention_backward_problem<TestType> p(s, bits % 5 != 0);
            const auto inputs = p.input_bytes();
            const worst_error worst = against_reference(p);
            CAPTURE(s.text(), worst.name);
            REQUIRE(worst.error <= 1);
            REQUIRE(p.gaps_untouched());
            REQUIRE(p.input_bytes() == inputs);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: every length", "", float, double, bfloat16)
{
    std::vector<index> lengths(71);
    std::iota(lengths.begin(), lengths.end(), index{0});
    lengths.insert(lengths.end(), {127, 128, 129, 255, 256, 257, 300});
    for (const index length : lengths) {
        for (const linear_attention_member& m : linear_attention_family) {
            linear_attention_setup s = m.of({.length = length, .nheads = 2, .key = 9, .value = lanes<TestType> + 1});
            s.initial_state = length % 2 == 0;
            s.reverse = length % 3 == 0;
            s.cu_seqlens = length % 4 == 1;
            if (s.cu_seqlens) s.batch = 1;
            const worst_error worst = against_reference(linear_attention_backward_problem<TestType>(s, length % 5 != 0));
            CAPTURE(s.text(), worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: every key and value size", "", float, double, bfloat16)
{
    const auto check_sizes = [](index key, index value, const linear_attention_member& m) {
        linear_attention_setup s = m.of({.batch = 1, .length = 41, .nheads = 2, .ngroups = 1, .key = key, .value = value});
        s.initial_state = true;
        const worst_error worst = against_reference(linear_attention_backward_problem<TestType>(s));
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
    };
    for (index key = 1; key <= 70; ++key) {
        for (index value = 1; value <= 70; ++value) {
            if (SSMKIT_SAMPLED_TESTS && (key * 29 + value) % 31 != 0) continue;
            check_sizes(key, value, linear_attention_family[(key + 3 * value) % 8]);
        }
    }
    constexpr index n = lanes<TestType>;
    const index edges[] = {1, n - 1, n, n + 1, 2 * n, 3 * n + 2, 4 * n, 5 * n, 128};
    for (const index key : edges) {
        for (const index value : edges) {
            if (key == 0 || value == 0) continue;
            for (const linear_attention_member& m : linear_attention_family) {
                if (SSMKIT_SAMPLED_TESTS && (key + value + m.beta + 2 * m.gk) % 3 != 0) continue;
                check_sizes(key, value, m);
            }
        }
    }
    for (const linear_attention_member& m : linear_attention_family) {
        check_sizes(257, 3, m);
        check_sizes(3, 257, m);
        check_sizes(130, 270, m);
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: where an extent is 0, what remains is right", "", float, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool final_gradient : {false, true}) {
            for (linear_attention_setup s : {linear_attention_setup{.batch = 0}, {.length = 0}, {.nheads = 0, .ngroups = 1},
                                             {.nheads = 0, .ngroups = 0}, {.key = 0}, {.value = 0}, {.length = 0, .key = 0}}) {
                s = m.of(s);
                s.initial_state = final_gradient;
                const worst_error worst = against_reference(linear_attention_backward_problem<TestType>(s, final_gradient));
                CAPTURE(s.text(), worst.name);
                CHECK(worst.error <= 1);
                if (s.batch == 0) continue;
                s.batch = 1;  // sequences of no tokens, or of a few
                s.cu_seqlens = true;
                CHECK(against_reference(linear_attention_backward_problem<TestType>(s, final_gradient)).error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: sums over the heads that share a group", "", float, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        for (const index groups : {1, 2, 3, 4, 6, 8, 12, 24}) {
            linear_attention_setup s = m.of({.length = 20, .nheads = 24, .ngroups = groups, .key = 4, .value = 5});
            const worst_error worst = against_reference(linear_attention_backward_problem<TestType>(s));
            CAPTURE(s.text(), worst.name);
            CHECK(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: gradients asked for one at a time are those asked for together", "",
                   float, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.length = 70, .nheads = 6, .key = 5, .value = lanes<TestType> + 3});
        s.initial_state = true;
        const linear_attention_backward_problem<TestType> all(s);
        linear_attention_backward(all.args());
        const auto expected = all.output_bytes();
        for (std::size_t one = 0; one <= expected.size(); ++one) {
            const linear_attention_backward_problem<TestType> p(s), untouched(s);
            const linear_attention_backward_args<TestType> a = p.args();
            linear_attention_backward_args<TestType> only{.forward = a.forward, .dy = a.dy, .dfinal_state = a.dfinal_state};
            if (one == 0) only.dq = a.dq;
            if (one == 1) only.dk = a.dk;
            if (one == 2) only.dv = a.dv;
            if (one == 3) only.dg = a.dg;
            if (one == 4) only.dgk = a.dgk;
            if (one == 5) only.dbeta = a.dbeta;
            if (one == 6) only.dinitial_state = a.dinitial_state;
            std::vector<std::byte> memory(linear_attention_backward_workspace_size(only), std::byte{0x5a});  // no lucky zeros
            linear_attention_backward(only, workspace(memory));
            for (std::size_t i = 0; i < expected.size(); ++i) {
                CAPTURE(m.name, one, i);
                CHECK(p.output_bytes()[i] == (i == one ? expected : untouched.output_bytes())[i]);
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: after a decay of any strength, mild ones are as exact as before", "",
                   float, double)
{
    for (const double strong : {1.0, 1e2, 1e4, 1e6, 1e12, 1e30}) {
        for (const linear_attention_member& m : linear_attention_family) {
            linear_attention_setup s = m.of({.batch = 1, .length = 100, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
            s.initial_state = true;
            linear_attention_backward_problem<TestType> p(s);
            auto& f = p.forward;
            const auto gate = [&](index t) { return static_cast<TestType>(t % 31 == 9 || t == 41 ? -strong : -0.01); };
            if (s.g) f.g.fill([&](index, index t, index) { return gate(t); });
            if (s.gk) f.gk.fill([&](index, index t, index, index i) { return i == 2 || t == 71 ? gate(t) : TestType(-0.01); });
            if (s.fixed_g) f.fixed_g.fill([&](index head) { return static_cast<TestType>(head ? -strong : -1 / strong); });
            const worst_error worst = against_reference(p);
            CAPTURE(s.text(), strong, worst.name);
            CHECK(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: a gate of minus infinity forgets everything, and nothing is NaN", "",
                   float, double)
{
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.batch = 1, .length = 70, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
        s.initial_state = true;
        linear_attention_backward_problem<TestType> p(s);
        const auto nothing = -std::numeric_limits<TestType>::infinity();
        for (const index t : {0, 9, 10, 40, 69}) {
            if (s.g) p.forward.g(0, t, 1) = nothing;
            if (s.gk) p.forward.gk(0, t, 0, 2) = nothing;
        }
        if (s.fixed_g) p.forward.fixed_g(1) = nothing;
        const worst_error worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        CHECK(worst.error <= 1);
        for_each_index(p.dgk.view(), [&](auto... i) { REQUIRE(!is_nan(p.dgk(i...))); });
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: gates of 0 and above", "", float, double)
{
    for (const linear_attention_member& m : linear_attention_family) {
        for (const double gate : {0.0, 0.05, 0.4}) {
            linear_attention_setup s = m.of({.length = 70, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
            s.initial_state = true;
            linear_attention_backward_problem<TestType> p(s);
            const auto same = [&](auto...) { return static_cast<TestType>(gate); };
            if (s.g) p.forward.g.fill(same);
            if (s.gk) p.forward.gk.fill(same);
            if (s.fixed_g) p.forward.fixed_g.fill(same);
            const worst_error worst = against_reference(p);
            CAPTURE(s.text(), gate, worst.name);
            // A growing state is a long product of rounded decays, each off by a rounding of its exponent too.
            CHECK(worst.error <= (gate > 0 ? 4 : 1));
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: numbers of any size", "", float, double)
{
    for (const double size : {1e-25, 1e-12, 1e12, 1e25}) {
        for (const linear_attention_member& m : linear_attention_family) {
            linear_attention_setup s = m.of({.length = 40, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
            const auto scaled = [&](auto& of, double by) {
                for_each_index(of.view(), [&](auto... i) { of(i...) = convert<TestType>(convert<double>(of(i...)) * by); });
            };
            CAPTURE(s.text(), size);
            linear_attention_backward_problem<TestType> p(s);  // gradients are linear in those that come in
            scaled(p.dy, size);
            scaled(p.dfinal_state, size);
            CHECK(against_reference(p).error <= 1);
            scaled(p.forward.v, 1 / size);
            CHECK(against_reference(p).error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: a NaN reaches what the equations say, and nothing else", "",
                   float, double, bfloat16)
{
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool packed : {false, true}) {
            linear_attention_setup s = m.of({.batch = packed ? 1 : 2, .length = 70, .nheads = 4, .key = 6, .value = 9});
            s.initial_state = true;
            s.cu_seqlens = packed;
            s.seed = 5;
            const index b = s.batch - 1;
            for (const index t : {0, 3, 15, 16, 31, 32, 33, 63, 64, 69}) {
                const auto probe = [&](const char* name, auto&& poison) {
                    linear_attention_backward_problem<TestType> p(s);
                    poison(p);
                    const auto expected = p.wide();
                    reference::linear_attention_backward(expected.args());
                    linear_attention_backward(p.args());
                    CAPTURE(name, t, s.text());
                    CHECK(same_nans(p.dq, expected.dq));
                    CHECK(same_nans(p.dk, expected.dk));
                    CHECK(same_nans(p.dv, expected.dv));
                    CHECK(same_nans(p.dg, expected.dg));
                    CHECK(same_nans(p.dgk, expected.dgk));
                    CHECK(same_nans(p.dbeta, expected.dbeta));
                    CHECK(same_nans(p.dinitial_state, expected.dinitial_state));
                };
                probe("q", [&](auto& p) { p.forward.q(b, t, 1, 2) = nan; });
                probe("k", [&](auto& p) { p.forward.k(b, t, 1, 5) = nan; });
                probe("v", [&](auto& p) { p.forward.v(b, t, 2, 4) = nan; });
                probe("dy", [&](auto& p) { p.dy(b, t, 2, 4) = nan; });
                if (s.g) probe("g", [&](auto& p) { p.forward.g(b, t, 2) = nan; });
                if (s.gk) probe("gk", [&](auto& p) { p.forward.gk(b, t, 0, 3) = nan; });
                if (s.beta) probe("beta", [&](auto& p) { p.forward.beta(b, t, 1) = nan; });
                if (t > 0) continue;
                const auto state_nan = std::numeric_limits<compute_t<TestType>>::quiet_NaN();
                const index last = linear_attention_backward_problem<TestType>(s).forward.states()[0] - 1;
                probe("initial_state", [&](auto& p) { p.forward.initial_state(last, 2, 3, 8) = state_nan; });
                probe("dfinal_state", [&](auto& p) { p.dfinal_state(last, 2, 3, 8) = state_nan; });
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: packed sequences begin and end anywhere, and keep to themselves", "",
                   float, bfloat16)
{
    const std::vector<index> starts = {0,  1,  7,  8,  8,  9,  15, 16,  17,  17, 31, 32,
                                       33, 63, 64, 65, 65, 97, 98, 127, 128, 129, 150};
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool reverse : {false, true}) {
            linear_attention_setup s = m.of({.batch = 1, .length = 150, .nheads = 2, .key = 6, .value = 5});
            s.reverse = reverse;
            const auto packed = [&] {
                linear_attention_backward_problem<TestType> p(s);
                p.forward.pack(starts);
                random numbers(8);
                for (auto* states : {&p.forward.initial_state, &p.dfinal_state}) {
                    *states = {p.forward.states()};
                    states->fill(numbers, {-1, 1});
                }
                p.forward.make_outputs();
                p.make_outputs();
                return p;
            };
            const auto clean = packed();
            const worst_error worst = against_reference(clean);
            CAPTURE(s.text(), worst.name);
            CHECK(worst.error <= 1);
            for (const double with : {std::nan(""), 1e30}) {
                for (const index victim : {0, 6, 11, 16, 21}) {
                    const auto p = packed();
                    const index first = starts[static_cast<std::size_t>(victim)];
                    const index end = starts[static_cast<std::size_t>(victim + 1)];
                    const auto spoil = [&](const auto& x) {
                        for_each_index(x.view().slice(1, first, end - first),
                                       [&](index b, index t, auto... i) { x(b, first + t, i...) = convert<TestType>(with); });
                    };
                    spoil(p.forward.q);
                    spoil(p.forward.k);
                    spoil(p.forward.v);
                    spoil(p.dy);
                    linear_attention_backward(p.args());
                    for (index i = 0; i + 1 < static_cast<index>(starts.size()); ++i) {
                        if (i == victim) continue;
                        const index from = starts[static_cast<std::size_t>(i)];
                        const index count = starts[static_cast<std::size_t>(i + 1)] - from;
                        CAPTURE(with, victim, i);
                        const auto same = [&](const auto& a, const auto& b) {
                            return same_bits(a.view().slice(1, from, count), b.view().slice(1, from, count));
                        };
                        REQUIRE(same(p.dq, clean.dq));
                        REQUIRE(same(p.dk, clean.dk));
                        REQUIRE(same(p.dv, clean.dv));
                        REQUIRE(same(p.dg, clean.dg));
                        REQUIRE(same(p.dgk, clean.dgk));
                        if (s.beta) REQUIRE(same(p.dbeta, clean.dbeta));
                        REQUIRE(same_bits(p.dinitial_state.view()[i], clean.dinitial_state.view()[i]));
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: neither threads nor the workspace change a bit", "", float, double, bfloat16)
{
    struct shape {
        index batch, length, nheads, ngroups;
    };
    for (const linear_attention_member& m : linear_attention_family) {
        for (const shape& of : {shape{1, 300, 6, 1}, shape{3, 40, 4, 2}, shape{2, 7, 1, 1}, shape{1, 129, 1, 1}}) {
            linear_attention_setup s =
                m.of({.batch = of.batch, .length = of.length, .nheads = of.nheads, .ngroups = of.ngroups, .key = 7, .value = 11});
            const bool states = of.batch != 1;  // both ways: what is not given is zero, not what the workspace held
            s.initial_state = states;
            s.cu_seqlens = of.length == 129;
            const linear_attention_backward_problem<TestType> p(s, states);
            CAPTURE(s.text());
            linear_attention_backward(p.args());
            const auto expected = p.output_bytes();
            for (const std::size_t count : {1, 2, 3}) {
                threads pool(count);
                const linear_attention_backward_problem<TestType> q(s, states);
                linear_attention_backward(q.args(), pool);
                CHECK(q.output_bytes() == expected);
            }
            const std::size_t need = linear_attention_backward_workspace_size(p.args(), 4);
            for (const int poison : {0x00, 0xff, 0x7f, 0x5a}) {
                std::vector<std::byte> memory(need + 3, static_cast<std::byte>(poison));
                const linear_attention_backward_problem<TestType> q(s, states);
                linear_attention_backward(q.args(), workspace(memory).subspan(3), last_task_first{});
                CHECK(q.output_bytes() == expected);
            }
            if (need == 0) continue;
            std::vector<std::byte> small(need - 1);
            const linear_attention_backward_problem<TestType> q(s, states);
            const auto run = [&] { linear_attention_backward(q.args(), workspace(small), last_task_first{}); };
            CHECK(complaint_of(run).find("workspace has") != std::string::npos);
            CHECK(is_nan(q.dq(0, 0, 0, 0)));
        }
    }
}

TEST_CASE("linear_attention_backward: allocates nothing when it is lent a workspace")
{
    REQUIRE(allocations_during([] { const std::vector<int> block(100); }) > 0);
    threads pool(2);
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.length = 100, .key = 20, .value = 33});
        s.initial_state = true;
        const linear_attention_backward_problem<float> p(s);
        std::vector<std::byte> memory(std::max<std::size_t>(linear_attention_backward_workspace_size(p.args(), 2), 1));
        CAPTURE(m.name);
        CHECK(allocations_during([&] {
                  linear_attention_backward(p.args(), memory);
                  linear_attention_backward(p.args(), memory, pool);
              }) == 0);
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: touches nothing outside its arguments and its workspace", "", float, bfloat16)
{
    constexpr index n = lanes<TestType>;
    int which = 0;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous, layout::column_major}) {
            for (const index value : {index{1}, n - 1, n, n + 1, 2 * n + 3}) {
                for (const index key : {index{1}, index{3}, n, n + 1, index{33}}) {
                    for (const index length : {1, 15, 16, 17, 31, 32, 33, 65}) {
                        if (value == 0) continue;
                        if (SSMKIT_SAMPLED_TESTS && ++which % 3 != 0) continue;
                        for (const linear_attention_member& m : linear_attention_family) {
                            linear_attention_setup s =
                                m.of({.batch = 1, .length = length, .nheads = 2, .ngroups = 1, .key = key, .value = value});
                            s.initial_state = true;
                            s.cu_seqlens = length == 65;
                            s.inputs = s.outputs = form;
                            s.edge = edge;
                            const linear_attention_backward_problem<TestType> p(s);
                            const std::size_t need = linear_attention_backward_workspace_size(p.args());
                            const raw_memory lent(need, edge);
                            CAPTURE(s.text());
                            linear_attention_backward(p.args(), workspace(lent.data(), need));
                            s.edge = guard::none;
                            const linear_attention_backward_problem<TestType> q(s);
                            linear_attention_backward(q.args());
                            REQUIRE(p.output_bytes() == q.output_bytes());
                        }
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_backward: offsets beyond 2^31 and 2^32 elements", "", float, bfloat16)
{
    enum { batch, time, head, group, key, value };
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (const int far : {batch, time, head, group, key, value}) {
            for (const linear_attention_member& m : linear_attention_family) {
                linear_attention_setup s = m.of({.batch = 2, .length = 3, .nheads = 2, .ngroups = 2, .key = 3, .value = 2});
                s.initial_state = true;
                const linear_attention_backward_problem<TestType> p(s);
                const auto expected = p.wide();
                sparse_memory memory;
                auto a = p.args();
                auto& f = a.forward;
                try {
                    const auto spread = [&](auto& v, std::initializer_list<int> axes) {
                        const auto axis = std::find(axes.begin(), axes.end(), far);
                        if (v.data() && axis != axes.end()) {
                            v = memory.spread(v, static_cast<std::size_t>(axis - axes.begin()), stride);
                        }
                    };
                    for (auto* v : {&f.q, &f.k, &f.gk}) spread(*v, {batch, time, group, key});
                    for (auto* v : {&a.dq, &a.dk, &a.dgk}) spread(*v, {batch, time, group, key});
                    for (auto* v : {&f.v, &a.dy}) spread(*v, {batch, time, head, value});
                    spread(a.dv, {batch, time, head, value});
                    if (!s.fixed_g) spread(f.g, {batch, time, head});
                    spread(f.beta, {batch, time, head});
                    for (auto* v : {&a.dg, &a.dbeta}) spread(*v, {batch, time, head});
                    for (auto* v : {&f.initial_state, &a.dfinal_state}) spread(*v, {batch, head, key, value});
                    spread(a.dinitial_state, {batch, head, key, value});
                } catch (const sparse_memory::refused&) {
                    WARN("the system lends no address space for this test");
                    return;
                }
                CAPTURE(stride, far, m.name);
                linear_attention_backward(a);
                reference::linear_attention_backward(expected.args());
                constexpr double exact = linear_attention_backward_budget<float>;
                CHECK(relative_error(a.dq, expected.dq.view()) <= exact);
                CHECK(relative_error(a.dk, expected.dk.view()) <= exact);
                CHECK(relative_error(a.dv, expected.dv.view()) <= linear_attention_backward_budget<TestType>);
                CHECK(relative_error(a.dg, expected.dg.view()) <= exact);
                CHECK(relative_error(a.dgk, expected.dgk.view()) <= exact);
                if (s.beta) CHECK(relative_error(a.dbeta, expected.dbeta.view()) <= exact);
                CHECK(relative_error(a.dinitial_state, expected.dinitial_state.view()) <= exact);
            }
        }
    }
}

TEST_CASE("linear_attention_backward: leaves the caller's floating-point mode as it was")
{
    const auto subnormals_live = [] {
        volatile float smallest = std::numeric_limits<float>::min();
        smallest = smallest / 2;
        return smallest > 0;
    };
    for (const linear_attention_member& m : linear_attention_family) {
        const linear_attention_backward_problem<float> p(m.of({}));
        linear_attention_backward(p.args());
        CHECK(subnormals_live());
    }
}

TEST_CASE("linear_attention_backward: names the argument that does not fit, before anything is written")
{
    linear_attention_setup s{.g = true, .gk = true, .beta = true, .initial_state = true};
    const linear_attention_backward_problem<float> p(s);
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return complaint_of([&] { linear_attention_backward(a); });
    };
    CHECK(complaint([](auto& a) { a.dy = a.dy.slice(1, 0, 36); }) ==
          "linear_attention_backward: dy has shape (2, 36, 4, 3), expected (batch = 2, length = 37, nheads = 4, value = 3)");
    CHECK(complaint([](auto& a) { a.forward.beta = {}; }) ==
          "linear_attention_backward: dbeta is asked for without a beta");
    CHECK(complaint([](auto& a) { a.dk = a.dq; }) == "linear_attention_backward: dk overlaps dq in memory");
    for_each_index(p.dq.view(), [&](auto... i) { REQUIRE(is_nan(p.dq(i...))); });
    for_each_index(p.dv.view(), [&](auto... i) { REQUIRE(is_nan(p.dv(i...))); });
}

}  // namespace
}  // namespace ssmkit::testing
