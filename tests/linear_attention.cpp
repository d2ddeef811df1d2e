#include <ssmkit/linear_attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <ssmkit/reference/linear_attention.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "linear_attention_problem.hpp"
#include "sparse_memory.hpp"

// The kernels against the reference, which tests/linear_attention_reference.cpp holds against queries that travel back.

namespace ssmkit::testing {
namespace {

template <class T>
inline constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

/// Runs the operation and, in double, its reference on the same numbers.
template <class T>
worst_error against_reference(const linear_attention_problem<T>& p)
{
    linear_attention(p.args());
    const auto expected = p.wide();
    reference::linear_attention(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("linear_attention: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned bits = 0; bits < linear_attention_setup::variants; ++bits) {
        for (const layout form : all_layouts) {
            linear_attention_setup s = linear_attention_setup{.nheads = 8}.with_options(bits);
            constexpr index groups[] = {1, 2, 4, 8};
            s.ngroups = groups[bits / 3 % 4];
            s.value += bits / 7 % 2 * lanes<TestType>;
            s.key += bits / 11 % 2 * lanes<TestType>;
            s.inputs = form;
            s.outputs = all_layouts[bits % 6];
            s.seed = bits;
            if (SSMKIT_SAMPLED_TESTS && form != all_layouts[bits / 6 % 6]) continue;
            const linear_attention_problem<TestType> p(s);
            const auto inputs = p.input_bytes();
            const worst_error worst = against_reference(p);
            CAPTURE(s.text(), worst.name);
            REQUIRE(worst.error <= 1);
            REQUIRE(p.gaps_untouched());
            REQUIRE(p.input_bytes() == inputs);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: every length", "", float, double, bfloat16)
{
    std::vector<index> lengths(71);
    std::iota(lengths.begin(), lengths.end(), index{0});
    lengths.insert(lengths.end(), {127, 128, 129, 255, 256, 257, 300, 513});
    for (const index length : lengths) {
        for (const linear_attention_member& m : linear_attention_family) {
            linear_attention_setup s = m.of({.length = length, .nheads = 2, .key = 9, .value = lanes<TestType> + 1});
            s.initial_state = length % 2 == 0;
            s.reverse = length % 3 == 0;
            s.cu_seqlens = length % 4 == 1;
            if (s.cu_seqlens) s.batch = 1;
            const worst_error worst = against_reference(linear_attention_problem<TestType>(s));
            CAPTURE(s.text(), worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: every key and value size", "", float, double, bfloat16)
{
    const auto check_sizes = [](index key, index value, const linear_attention_member& m) {
        linear_attention_setup s = m.of({.batch = 1, .length = 41, .nheads = 2, .ngroups = 1, .key = key, .value = value});
        s.initial_state = true;
        const worst_error worst = against_reference(linear_attention_problem<TestType>(s));
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
    const index edges[] = {1, n - 1, n, n + 1, 2 * n, 3 * n + 2, 4 * n, 5 * n, 7 * n + 1, 128, 129};
    for (const index key : edges) {
        for (const index value : edges) {
            if (key == 0 || value == 0) continue;
            for (const linear_attention_member& m : linear_attention_family) check_sizes(key, value, m);
        }
    }
    for (const linear_attention_member& m : linear_attention_family) {
        check_sizes(257, 3, m);
        check_sizes(3, 257, m);
        check_sizes(260, 530, m);
    }
}

TEMPLATE_TEST_CASE("linear_attention: where an extent is 0, what remains is right", "", float, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool initial_state : {false, true}) {
            for (linear_attention_setup s : {linear_attention_setup{.batch = 0}, {.length = 0}, {.nheads = 0, .ngroups = 1},
                                             {.nheads = 0, .ngroups = 0}, {.key = 0}, {.value = 0}, {.length = 0, .key = 0}}) {
                s = m.of(s);
                s.initial_state = initial_state;
                const worst_error worst = against_reference(linear_attention_problem<TestType>(s));
                CAPTURE(s.text(), worst.name);
                CHECK(worst.error <= 1);
                if (s.batch == 0) continue;
                s.batch = 1;  // sequences of no tokens, or of a few
                s.cu_seqlens = true;
                CHECK(against_reference(linear_attention_problem<TestType>(s)).error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: neighbouring heads share a group", "", float, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        for (const index groups : {1, 2, 3, 4, 6, 8, 12, 24}) {
            linear_attention_setup s = m.of({.length = 20, .nheads = 24, .ngroups = groups, .key = 4, .value = 5});
            const worst_error worst = against_reference(linear_attention_problem<TestType>(s));
            CAPTURE(s.text(), worst.name);
            CHECK(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: after a decay of any strength, mild ones are as exact as before", "", float, double)
{
    // Tokens forget everything in the middle of mild ones, all of it or a key's share: differences of a running sum of gates
    // would be those of two numbers of a million there.
    for (const double strong : {1.0, 1e2, 1e4, 1e6, 1e12, 1e30}) {
        for (const linear_attention_member& m : linear_attention_family) {
            linear_attention_setup s = m.of({.batch = 1, .length = 100, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
            s.initial_state = true;
            linear_attention_problem<TestType> p(s);
            const auto gate = [&](index t) { return static_cast<TestType>(t % 31 == 9 || t == 41 ? -strong : -0.01); };
            if (s.g) p.g.fill([&](index, index t, index) { return gate(t); });
            if (s.gk) p.gk.fill([&](index, index t, index, index i) { return i == 2 || t == 71 ? gate(t) : TestType(-0.01); });
            if (s.fixed_g) p.fixed_g.fill([&](index head) { return static_cast<TestType>(head ? -strong : -1 / strong); });
            const worst_error worst = against_reference(p);
            CAPTURE(s.text(), strong, worst.name);
            CHECK(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: a gate of minus infinity forgets everything, and nothing is NaN", "",
                   float, double, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.batch = 1, .length = 70, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
        s.initial_state = true;
        linear_attention_problem<TestType> p(s);
        const auto nothing = convert<TestType>(-std::numeric_limits<double>::infinity());
        for (const index t : {0, 9, 10, 40, 69}) {
            if (s.g) p.g(0, t, 1) = nothing;
            if (s.gk) p.gk(0, t, 0, 2) = nothing;
        }
        if (s.fixed_g) p.fixed_g(1) = nothing;
        const worst_error worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        CHECK(worst.error <= 1);
        for_each_index(p.y.view(), [&](auto... i) { REQUIRE(!is_nan(p.y(i...))); });
    }
}

TEMPLATE_TEST_CASE("linear_attention: gates of 0 keep the state, positive ones let it grow", "", float, double)
{
    for (const linear_attention_member& m : linear_attention_family) {
        for (const double gate : {0.0, 0.05, 0.4}) {
            linear_attention_setup s = m.of({.length = 70, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
            s.initial_state = true;
            linear_attention_problem<TestType> p(s);
            const auto same = [&](auto...) { return static_cast<TestType>(gate); };
            if (s.g) p.g.fill(same);
            if (s.gk) p.gk.fill(same);
            if (s.fixed_g) p.fixed_g.fill(same);
            const worst_error worst = against_reference(p);
            CAPTURE(s.text(), gate, worst.name);
            // A growing state is a long product of rounded decays, each off by a rounding of its exponent too.
            CHECK(worst.error <= (gate > 0 ? 4 : 1));
        }
    }
}

TEST_CASE("linear_attention: a growing state overflows no sooner than the recurrence does")
{
    // e^8.3 a token: over 32 tokens more than float holds, of states that are zero but for the last two tokens' input.
    for (const linear_attention_member& m : linear_attention_family) {
        if (!m.g && !m.fixed_g && !m.gk) continue;
        linear_attention_setup s = m.of({.batch = 1, .length = 32, .nheads = 1, .ngroups = 1, .key = 4, .value = 3});
        linear_attention_problem<float> p(s);
        const auto grow = [](auto...) { return 8.3f; };
        if (s.g) p.g.fill(grow);
        if (s.gk) p.gk.fill([&](auto...) { return s.g ? 0.0f : 8.3f; });
        if (s.fixed_g) p.fixed_g.fill(grow);
        p.v.fill([](index, index t, index, index) { return t >= 30 ? 1.0f : 0.0f; });
        const worst_error worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        CHECK(worst.error <= 1);
    }
}

TEMPLATE_TEST_CASE("linear_attention: numbers of any size", "", float, double, bfloat16)
{
    for (const double size : {1e-30, 1e-12, 1e12, 1e30}) {
        for (const linear_attention_member& m : linear_attention_family) {
            linear_attention_setup s = m.of({.length = 40, .nheads = 2, .ngroups = 1, .key = 5, .value = 7});
            linear_attention_problem<TestType> p(s);
            const auto scaled = [&](auto& of, double by) {
                for_each_index(of.view(), [&](auto... i) { of(i...) = convert<TestType>(convert<double>(of(i...)) * by); });
            };
            scaled(p.v, size);  // all of it is linear in the values,
            CAPTURE(s.text(), size);
            CHECK(against_reference(p).error <= 1);
            if (m.beta) continue;
            scaled(p.k, 1 / size);  // and without the delta rule in the keys
            CHECK(against_reference(p).error <= 1);
            scaled(p.q, size);
            CHECK(against_reference(p).error <= 1);
        }
    }
}

TEST_CASE("linear_attention: any scale, and that of the key by itself")
{
    for (const float scale : {-1.0f, 1e-20f, 1.0f, 1e20f}) {
        for (const linear_attention_member& m : linear_attention_family) {
            const linear_attention_problem<float> p(m.of({})), q(m.of({})), r(m.of({}));
            const auto with = [&](const linear_attention_problem<float>& of, float factor) {
                auto a = of.args();
                a.scale = factor;
                linear_attention(a);
            };
            const linear_attention_problem<double> wide = p.wide();
            auto expected = wide.args();
            expected.scale = static_cast<double>(scale);
            reference::linear_attention(expected);
            with(p, scale);
            CAPTURE(m.name, scale);
            CHECK(worst_of_budget(p, wide).error <= 1);
            with(q, 0);
            with(r, 1 / std::sqrt(5.0f));
            CHECK(q.output_bytes() == r.output_bytes());
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: a NaN reaches what the recurrence says, and nothing else", "", float, double, bfloat16)
{
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool packed : {false, true}) {
            linear_attention_setup s = m.of({.batch = packed ? 1 : 2, .length = 70, .nheads = 4, .key = 6, .value = 9});
            s.initial_state = true;
            s.cu_seqlens = packed;
            s.seed = 5;
            const index b = s.batch - 1;
            for (const index t : {0, 3, 15, 16, 30, 31, 32, 33, 63, 64, 69}) {
                const auto probe = [&](const char* name, auto&& poison) {
                    linear_attention_problem<TestType> p(s);
                    poison(p);
                    const auto expected = p.wide();
                    reference::linear_attention(expected.args());
                    linear_attention(p.args());
                    CAPTURE(name, t, s.text());
                    REQUIRE(same_nans(p.y, expected.y));
                    REQUIRE(same_nans(p.final_state, expected.final_state));
                };
                probe("q", [&](auto& p) { p.q(b, t, 1, 2) = nan; });
                probe("k", [&](auto& p) { p.k(b, t, 1, 5) = nan; });
                probe("v", [&](auto& p) { p.v(b, t, 2, 4) = nan; });
                if (s.g) probe("g", [&](auto& p) { p.g(b, t, 2) = nan; });
                if (s.gk) probe("gk", [&](auto& p) { p.gk(b, t, 0, 3) = nan; });
                if (s.beta) probe("beta", [&](auto& p) { p.beta(b, t, 1) = nan; });
                if (t > 0) continue;
                const auto state_nan = std::numeric_limits<compute_t<TestType>>::quiet_NaN();
                probe("initial_state", [&](auto& p) { p.initial_state(p.states()[0] - 1, 2, 3, 8) = state_nan; });
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: packed sequences begin and end anywhere, and keep to themselves", "", float, bfloat16)
{
    const std::vector<index> starts = {0,  1,  7,  8,  8,  9,  15, 16, 17, 17, 31,  32,  33,
                                       63, 64, 65, 65, 97, 98, 127, 128, 129, 160, 192, 250, 257};
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool reverse : {false, true}) {
            linear_attention_setup s = m.of({.batch = 1, .length = 257, .nheads = 2, .key = 6, .value = 5});
            s.reverse = reverse;
            const auto packed = [&] {
                linear_attention_problem<TestType> p(s);
                p.pack(starts);
                random numbers(8);
                p.initial_state = {p.states()};
                p.initial_state.fill(numbers, {-1, 1});
                p.make_outputs();
                return p;
            };
            const auto clean = packed();
            const worst_error worst = against_reference(clean);
            CAPTURE(s.text(), worst.name);
            CHECK(worst.error <= 1);
            for (const double with : {std::nan(""), 1e30}) {
                for (const index victim : {0, 6, 11, 18, 24}) {  // none of the empty ones
                    const auto p = packed();
                    const index first = starts[static_cast<std::size_t>(victim)];
                    const index end = starts[static_cast<std::size_t>(victim + 1)];
                    const auto spoil = [&](const auto& x) {
                        for_each_index(x.view().slice(1, first, end - first),
                                       [&](index b, index t, auto... i) { x(b, first + t, i...) = convert<TestType>(with); });
                    };
                    spoil(p.q);
                    spoil(p.k);
                    spoil(p.v);
                    linear_attention(p.args());
                    for (index i = 0; i + 1 < static_cast<index>(starts.size()); ++i) {
                        if (i == victim) continue;
                        const index from = starts[static_cast<std::size_t>(i)];
                        const index count = starts[static_cast<std::size_t>(i + 1)] - from;
                        CAPTURE(with, victim, i);
                        REQUIRE(same_bits(p.y.view().slice(1, from, count), clean.y.view().slice(1, from, count)));
                        REQUIRE(same_bits(p.final_state.view()[i], clean.final_state.view()[i]));
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: cutting the sequence and carrying the state changes nothing", "", float, double, bfloat16)
{
    using real = compute_t<TestType>;
    for (const linear_attention_member& m : linear_attention_family) {
        for (const bool reverse : {false, true}) {
            linear_attention_setup s = m.of({.length = 100});
            s.initial_state = true;
            s.reverse = reverse;
            const linear_attention_problem<TestType> whole(s);
            const auto expected = whole.wide();
            reference::linear_attention(expected.args());
            for (const index cut : {0, 1, 7, 16, 31, 32, 33, 64, 65, 99, 100}) {
                const linear_attention_problem<TestType> parts(s);
                const tensor<real, 4> carried(parts.states());
                auto first = time_slice(parts.args(), reverse ? s.length - cut : 0, cut);
                auto second = time_slice(parts.args(), reverse ? 0 : cut, s.length - cut);
                first.final_state = carried;
                second.initial_state = carried;
                linear_attention(first);
                linear_attention(second);
                const worst_error worst = worst_of_budget(parts, expected);
                CAPTURE(s.text(), cut, worst.name);
                REQUIRE(worst.error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: outputs that are not asked for change nothing", "", float, bfloat16)
{
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.length = 70});
        s.initial_state = true;
        const linear_attention_problem<TestType> all(s), few(s);
        linear_attention(all.args());
        auto a = few.args();
        a.final_state = {};
        linear_attention(a);
        CAPTURE(m.name);
        CHECK(same_bits(all.y, few.y));
        CHECK(is_nan(few.final_state(0, 0, 0, 0)));
    }
}

TEMPLATE_TEST_CASE("linear_attention: a slowly decaying state does not drift over a long sequence", "", float, bfloat16)
{
    // Steady input: 16 bits of state would be off by 0.7 % to 89 % after 8192 tokens.
    for (const double decay : {1e-2, 1e-3, 1e-4}) {
        for (const bool keys : {false, true}) {
            const index length = 8192;
            linear_attention_setup s{.batch = 1, .length = length, .nheads = 1, .ngroups = 1, .key = 3, .value = 2};
            s.g = !keys;
            s.gk = keys;
            linear_attention_problem<TestType> p(s);
            const auto one = [](auto...) { return convert<TestType>(1.0); };
            p.k.fill(one);
            p.v.fill(one);
            if (keys) p.gk.fill([&](auto...) { return convert<TestType>(-decay); });
            if (!keys) p.g.fill([&](auto...) { return convert<TestType>(-decay); });
            linear_attention(p.args());
            const double rate = convert<double>(convert<TestType>(-decay));
            const double expected = std::expm1(rate * static_cast<double>(length)) / std::expm1(rate);
            CAPTURE(decay, keys);
            // Every decay is off by a rounding or two, and the state remembers 1 / decay of them, or all.
            const double remembered = std::min(1 / decay, static_cast<double>(length));
            CHECK(std::abs(static_cast<double>(p.final_state(0, 0, 2, 1)) / expected - 1) <= 2.5 * 0x1p-23 * remembered);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: neither threads nor the workspace change a bit", "", float, double, bfloat16)
{
    struct shape {
        index batch, length, nheads, ngroups;
    };
    for (const linear_attention_member& m : linear_attention_family) {
        for (const shape& of : {shape{1, 300, 6, 1}, shape{3, 40, 4, 2}, shape{2, 7, 1, 1}, shape{1, 129, 1, 1}}) {
            linear_attention_setup s =
                m.of({.batch = of.batch, .length = of.length, .nheads = of.nheads, .ngroups = of.ngroups, .key = 7, .value = 11});
            s.initial_state = of.batch != 1;  // both ways: what is not given is zero, not what the workspace held
            s.cu_seqlens = of.length == 129;
            const linear_attention_problem<TestType> p(s);
            CAPTURE(s.text());
            linear_attention(p.args());
            const auto expected = p.output_bytes();
            for (const std::size_t count : {1, 2, 3}) {
                threads pool(count);
                const linear_attention_problem<TestType> q(s);
                linear_attention(q.args(), pool);
                CHECK(q.output_bytes() == expected);
            }
            const std::size_t need = linear_attention_workspace_size(p.args(), 4);
            for (const int poison : {0x00, 0xff, 0x7f, 0x5a}) {
                std::vector<std::byte> memory(need + 3, static_cast<std::byte>(poison));
                const linear_attention_problem<TestType> q(s);
                linear_attention(q.args(), workspace(memory).subspan(3), last_task_first{});
                CHECK(q.output_bytes() == expected);
            }
            if (need == 0) continue;
            std::vector<std::byte> small(need - 1);
            const linear_attention_problem<TestType> q(s);
            CHECK(complaint_of([&] { linear_attention(q.args(), workspace(small), last_task_first{}); }).find("workspace has") !=
                  std::string::npos);
            CHECK(is_nan(q.y(0, 0, 0, 0)));
        }
    }
}

TEST_CASE("linear_attention: allocates nothing when it is lent a workspace")
{
    REQUIRE(allocations_during([] { const std::vector<int> block(100); }) > 0);
    threads pool(2);
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.length = 100, .key = 20, .value = 33});
        s.initial_state = true;
        const linear_attention_problem<float> p(s);
        const linear_attention_problem<bfloat16> q(s);
        std::vector<std::byte> memory(
            std::max({linear_attention_workspace_size(p.args(), 2), linear_attention_workspace_size(q.args(), 2), std::size_t{1}}));
        CAPTURE(m.name);
        CHECK(allocations_during([&] {
                  linear_attention(p.args(), memory);
                  linear_attention(p.args(), memory, pool);
                  linear_attention(q.args(), memory);
                  linear_attention(q.args(), memory, pool);
              }) == 0);
    }
}

TEMPLATE_TEST_CASE("linear_attention: touches nothing outside its arguments and its workspace", "", float, bfloat16)
{
    constexpr index n = lanes<TestType>;
    int which = 0;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous, layout::column_major}) {
            for (const index value : {index{1}, n - 1, n, n + 1, 2 * n + 3}) {
                for (const index key : {index{1}, index{3}, n, n + 1, index{33}}) {
                    for (const index length : {1, 15, 16, 17, 31, 32, 33, 65, 129}) {
                        if (value == 0) continue;
                        if (SSMKIT_SAMPLED_TESTS && ++which % 3 != 0) continue;
                        for (const linear_attention_member& m : linear_attention_family) {
                            linear_attention_setup s =
                                m.of({.batch = 1, .length = length, .nheads = 2, .ngroups = 1, .key = key, .value = value});
                            s.initial_state = true;
                            s.cu_seqlens = length == 65;
                            s.inputs = s.outputs = form;
                            s.edge = edge;
                            const linear_attention_problem<TestType> p(s);
                            const std::size_t need = linear_attention_workspace_size(p.args());
                            const raw_memory lent(need, edge);
                            CAPTURE(s.text());
                            linear_attention(p.args(), workspace(lent.data(), need));
                            s.edge = guard::none;
                            const linear_attention_problem<TestType> q(s);
                            linear_attention(q.args());
                            REQUIRE(p.output_bytes() == q.output_bytes());
                        }
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention: offsets beyond 2^31 and 2^32 elements", "", float, bfloat16)
{
    enum { batch, time, head, group, key, value };
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (const int far : {batch, time, head, group, key, value}) {
            for (const linear_attention_member& m : linear_attention_family) {
                linear_attention_setup s = m.of({.batch = 2, .length = 3, .nheads = 2, .ngroups = 2, .key = 3, .value = 2});
                s.initial_state = true;
                const linear_attention_problem<TestType> p(s);
                const auto expected = p.wide();
                sparse_memory memory;
                auto a = p.args();
                try {
                    const auto spread = [&](auto& v, std::initializer_list<int> axes) {
                        const auto axis = std::find(axes.begin(), axes.end(), far);
                        if (v.data() && axis != axes.end()) {
                            v = memory.spread(v, static_cast<std::size_t>(axis - axes.begin()), stride);
                        }
                    };
                    for (auto* v : {&a.q, &a.k, &a.gk}) spread(*v, {batch, time, group, key});
                    spread(a.v, {batch, time, head, value});
                    spread(a.y, {batch, time, head, value});
                    if (!s.fixed_g) spread(a.g, {batch, time, head});
                    spread(a.beta, {batch, time, head});
                    spread(a.initial_state, {batch, head, key, value});
                    spread(a.final_state, {batch, head, key, value});
                } catch (const sparse_memory::refused&) {
                    WARN("the system lends no address space for this test");
                    return;
                }
                CAPTURE(stride, far, m.name);
                linear_attention(a);
                reference::linear_attention(expected.args());
                CHECK(relative_error(a.y, expected.y.view()) <= linear_attention_budget<TestType>);
                CHECK(relative_error(a.final_state, expected.final_state.view()) <= linear_attention_budget<float>);
            }
        }
    }
}

TEST_CASE("linear_attention: leaves the caller's floating-point mode as it was")
{
    const auto subnormals_live = [] {
        volatile float smallest = std::numeric_limits<float>::min();
        smallest = smallest / 2;
        return smallest > 0;
    };
    REQUIRE(subnormals_live());
    for (const linear_attention_member& m : linear_attention_family) {
        const linear_attention_problem<float> p(m.of({}));
        linear_attention(p.args());
        CHECK(subnormals_live());
    }
}

TEST_CASE("linear_attention: names the argument that does not fit, before anything is written")
{
    linear_attention_setup s{.g = true, .gk = true, .beta = true, .initial_state = true};
    const linear_attention_problem<float> p(s);
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return complaint_of([&] { linear_attention(a); });
    };
    CHECK(complaint([](auto& a) { a.q = a.q.slice(1, 0, 36); }) ==
          "linear_attention: q has shape (2, 36, 2, 5), expected (batch = 2, length = 37, ngroups = 2, key = 5)");
    CHECK(complaint([](auto& a) { a.final_state = a.final_state.transposed(2, 3); }).find("linear_attention: final_state has") == 0);
    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.v.data()), 2, 37, 4, 3}; }) ==
          "linear_attention: y overlaps v in memory");
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });
}

constexpr auto call_retention = [](const auto& a, auto&&... resources) { retention(a, resources...); };
constexpr auto call_simple_gla = [](const auto& a, auto&&... resources) { simple_gla(a, resources...); };
constexpr auto call_gla = [](const auto& a, auto&&... resources) { gla(a, resources...); };
constexpr auto call_gated_delta_rule = [](const auto& a, auto&&... resources) { gated_delta_rule(a, resources...); };

TEMPLATE_TEST_CASE("linear_attention: each named member is the family with its arguments", "", float, bfloat16)
{
    const auto same = [](const linear_attention_member& m, auto&& front) {
        linear_attention_setup s = m.of({.length = 70});
        s.initial_state = true;
        const linear_attention_problem<TestType> all(s);
        linear_attention(all.args());
        std::vector<std::byte> memory(std::max<std::size_t>(linear_attention_workspace_size(all.args(), 2), 1));
        threads pool(2);
        const auto run = [&](auto&&... resources) {
            const linear_attention_problem<TestType> p(s);
            front(p.args(), resources...);
            CAPTURE(m.name);
            CHECK(p.output_bytes() == all.output_bytes());
        };
        run();
        run(pool);
        run(workspace(memory));
        run(workspace(memory), pool);
    };
    same(linear_attention_family[1], call_retention);
    same(linear_attention_family[2], call_simple_gla);
    same(linear_attention_family[3], call_gla);
    same(linear_attention_family[6], call_gated_delta_rule);
}

TEST_CASE("linear_attention: each named member refuses what is not its own")
{
    linear_attention_setup s{.g = true, .gk = true, .beta = true};
    const linear_attention_problem<float> p(s);
    const float rates[] = {-0.1f, -0.2f, -0.3f, -0.4f};
    const auto complains = [&](auto&& front, const char* begin, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string text = complaint_of([&] { front(a); });
        CAPTURE(text, begin);
        CHECK(text.rfind(begin, 0) == 0);
        for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });
    };
    const auto fix = [&](auto& a) { a.g = fixed_decay(view<const float, 1>{rates, 4}, 2, 37); };
    complains(call_retention, "retention: g ", [](auto& a) { a.gk = {}, a.beta = {}, a.g = {}; });
    complains(call_retention, "retention: g ", [](auto& a) { a.gk = {}, a.beta = {}; });  // it varies over tokens
    complains(call_retention, "retention: gk ", [&](auto& a) { fix(a), a.beta = {}; });
    complains(call_retention, "retention: beta ", [&](auto& a) { fix(a), a.gk = {}; });

    complains(call_simple_gla, "simple_gla: g ", [](auto& a) { a.gk = {}, a.beta = {}, a.g = {}; });
    complains(call_simple_gla, "simple_gla: gk ", [](auto& a) { a.beta = {}; });
    complains(call_simple_gla, "simple_gla: beta ", [](auto& a) { a.gk = {}; });

    complains(call_gla, "gla: gk ", [](auto& a) { a.g = {}, a.beta = {}, a.gk = {}; });
    complains(call_gla, "gla: g ", [](auto& a) { a.beta = {}; });
    complains(call_gla, "gla: beta ", [](auto& a) { a.g = {}; });

    complains(call_gated_delta_rule, "gated_delta_rule: beta ", [](auto& a) { a.gk = {}, a.beta = {}; });
    complains(call_gated_delta_rule, "gated_delta_rule: gk ", [](auto&) {});

    // One token does not vary.
    linear_attention_setup single{.length = 1, .g = true};
    const linear_attention_problem<float> one(single);
    CHECK(complaint_of([&] { retention(one.args()); }) == "nothing thrown");
    // Whatever the front, shapes are checked.
    const linear_attention_problem<float> q(linear_attention_setup{.g = true});
    auto a = q.args();
    a.k = a.k.slice(1, 0, 3);
    CHECK(complaint_of([&] { simple_gla(a); }).find("k has shape (2, 3, 2, 5)") != std::string::npos);
}

}  // namespace
}  // namespace ssmkit::testing
