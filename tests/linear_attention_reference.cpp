#include <ssmkit/reference/linear_attention.hpp>
#include <ssmkit/reference/linear_attention_backward.hpp>
#include <ssmkit/reference/linear_attention_update.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <ssmkit/reference/ssd.hpp>
#include <ssmkit/reference/ssd_backward.hpp>

#include "catch.hpp"
#include "linear_attention_problem.hpp"
#include "ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The same operation with no state carried: every query goes back in time, through the transposed transitions
/// diag(decay) (I - β k k^T), and meets each token's β k, and at the beginning the initial state, as it comes by. The final
/// state is what unit vectors behind the last token meet.
void backward_travel(const linear_attention_args<double>& a)
{
    const index nheads = a.v.extent(2), key = a.k.extent(3), value = a.v.extent(3);
    const double scale = a.scale != 0 ? a.scale : std::pow(static_cast<double>(key), -0.5);
    for (index sequence = 0; sequence < linear_attention_sequence_count(a); ++sequence) {
        const bool cut = a.cu_seqlens.data() != nullptr;
        const index b = cut ? 0 : sequence;
        std::vector<index> at;  // the positions of the tokens
        for (index t = 0; t < a.v.extent(1); ++t) {
            if (!cut || (t >= a.cu_seqlens[sequence] && t < a.cu_seqlens[sequence + 1])) at.push_back(t);
        }
        if (a.reverse) std::reverse(at.begin(), at.end());
        for (index head = 0; head < nheads; ++head) {
            const index group = head * a.k.extent(2) / nheads;
            const auto met = [&](std::vector<double> w, std::size_t tokens) {  // by w, behind the first `tokens` of them
                std::vector<double> sum(static_cast<std::size_t>(value));
                for (std::size_t n = tokens; n-- > 0;) {
                    const index t = at[n];
                    const double beta = a.beta.data() ? a.beta(b, t, head) : 1;
                    double wk = 0;
                    for (std::size_t i = 0; i < w.size(); ++i) wk += w[i] * a.k(b, t, group, i);
                    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += beta * wk * a.v(b, t, head, j);
                    for (std::size_t i = 0; i < w.size(); ++i) {
                        if (a.beta.data()) w[i] -= beta * wk * a.k(b, t, group, i);
                        if (a.g.data()) w[i] *= std::exp(a.g(b, t, head));
                        if (a.gk.data()) w[i] *= std::exp(a.gk(b, t, group, i));
                    }
                }
                for (std::size_t i = 0; i < w.size() && a.initial_state.data(); ++i) {
                    for (std::size_t j = 0; j < sum.size(); ++j) sum[j] += w[i] * a.initial_state(sequence, head, i, j);
                }
                return sum;
            };
            for (std::size_t n = 0; n < at.size(); ++n) {
                std::vector<double> w;
                for (index i = 0; i < key; ++i) w.push_back(scale * a.q(b, at[n], group, i));
                const std::vector<double> y = met(w, n + 1);
                for (index j = 0; j < value; ++j) a.y(b, at[n], head, j) = y[static_cast<std::size_t>(j)];
            }
            for (index i = 0; i < key; ++i) {
                std::vector<double> unit(static_cast<std::size_t>(key));
                unit[static_cast<std::size_t>(i)] = 1;
                const std::vector<double> row = met(unit, at.size());
                for (index j = 0; j < value; ++j) a.final_state(sequence, head, i, j) = row[static_cast<std::size_t>(j)];
            }
        }
    }
}

const linear_attention_setup everything{
    .g = true, .gk = true, .beta = true, .scale = true, .initial_state = true};

TEST_CASE("linear_attention reference: two tokens by hand")
{
    // Halved, (2, 4) is (1, 2). The delta rule recalls 1 where 3 is wanted, and learns half of the difference.
    const double initial[] = {2, 4}, q[] = {1, 2, 1, 1}, k[] = {1, 0, 2, 2}, v[] = {3, 1};
    const double g[] = {std::log(0.5), 0}, gk[] = {0, 0, 0, std::log(0.25)}, beta[] = {0.5, 0.25};
    double y[2], state[2];
    linear_attention_args<double> a{.q = {q, 1, 2, 1, 2},
                                    .k = {k, 1, 2, 1, 2},
                                    .v = {v, 1, 2, 1, 1},
                                    .g = {g, 1, 2, 1},
                                    .gk = {gk, 1, 2, 1, 2},
                                    .beta = {beta, 1, 2, 1},
                                    .scale = 1,
                                    .initial_state = {initial, 1, 1, 2, 1},
                                    .y = {y, 1, 2, 1, 1},
                                    .final_state = {state, 1, 1, 2, 1}};
    const auto check_results = [&](double y0, double y1, double row0, double row1) {
        reference::linear_attention(a);
        CHECK(std::abs(y[0] - y0) <= 1e-14);
        CHECK(std::abs(y[1] - y1) <= 1e-14);
        CHECK(std::abs(state[0] - row0) <= 1e-14);
        CHECK(std::abs(state[1] - row1) <= 1e-14);
    };
    check_results(2 + 2 * 2, 0 - 1.5, 0, -1.5);  // (2, 2) recalls 2 * 2 + 2 * 0.5 = 5 where 1 is wanted
    a.beta = {};
    check_results(4 + 2 * 2, 6 + 2.5, 6, 2.5);
    a.gk = {};
    check_results(4 + 2 * 2, 6 + 4, 6, 4);
    a.g = {};
    check_results(5 + 2 * 4, 7 + 6, 7, 6);
    a.initial_state = {};
    check_results(3, 5 + 2, 5, 2);
    a.scale = 0;
    check_results(3 / std::sqrt(2.0), 7 / std::sqrt(2.0), 5, 2);
    a.reverse = true;
    check_results((2 + 3 + 2 * 2) / std::sqrt(2.0), (2 + 2) / std::sqrt(2.0), 5, 2);
}

TEST_CASE("linear_attention reference: the recurrence equals queries that travel back, whatever is switched on")
{
    for (unsigned bits = 0; bits < linear_attention_setup::variants; ++bits) {
        linear_attention_setup s = linear_attention_setup{.length = 11, .key = 3, .value = 2}.with_options(bits);
        constexpr index groups[] = {1, 2, 4};
        s.ngroups = groups[bits / 3 % 3];
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        CAPTURE(s.text());
        const linear_attention_problem<double> p(s), expected = p.wide();
        const auto inputs = p.input_bytes();
        reference::linear_attention(p.args());
        backward_travel(expected.args());
        const worst_error worst = worst_of_budget(p, expected);
        CAPTURE(worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEMPLATE_TEST_CASE("linear_attention reference: narrower types differ from double by their rounding", "", float, bfloat16,
                   float16)
{
    for (unsigned bits = 0; bits < linear_attention_setup::variants; ++bits) {
        linear_attention_setup s = linear_attention_setup{}.with_options(bits);
        s.seed = bits;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        const linear_attention_backward_problem<TestType> p(s, bits % 5 != 0);
        const auto inputs = p.input_bytes();
        const auto expected = p.wide();
        reference::linear_attention(p.forward.args());
        reference::linear_attention(expected.forward.args());
        reference::linear_attention_backward(p.args());
        reference::linear_attention_backward(expected.args());
        const worst_error worst = worst_of_budget(p.forward, expected.forward), gradients = worst_of_budget(p, expected);
        CAPTURE(s.text(), worst.name, gradients.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(gradients.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEST_CASE("linear_attention reference: neighbouring heads share a group")
{
    for (const index groups : {1, 2, 4, 8}) {
        linear_attention_setup s{.batch = 1, .length = 1, .nheads = 8, .ngroups = groups, .key = 1, .value = 2};
        s.gk = s.initial_state = true;
        linear_attention_problem<double> p(s);
        p.v.fill([](auto...) { return 1.0; });
        p.initial_state.fill([](auto...) { return 1.0; });
        p.q.fill([](index, index, index g, index) { return static_cast<double>(100 * (g + 1)); });
        p.k.fill([](index, index, index g, index) { return static_cast<double>(g + 1); });
        p.gk.fill([](index, index, index g, index) { return std::log(static_cast<double>(g + 1)); });
        reference::linear_attention(p.args());
        for (index head = 0; head < 8; ++head) {
            const auto g = static_cast<double>(head / (8 / groups) + 1);
            CHECK(std::abs(p.y(0, 0, head, 1) - 100 * g * (g + g)) <= 1e-10);
        }
    }
}

TEST_CASE("linear_attention reference: a decay for every key, all the same, is one for the head")
{
    linear_attention_setup s{.g = true, .beta = true, .initial_state = true};
    s.ngroups = s.nheads;
    const linear_attention_backward_problem<double> head(s), keys(s);
    tensor<double, 4> gk(head.forward.keys());
    gk.fill([&](index b, index t, index h, index) { return head.forward.g(b, t, h); });
    auto a = keys.args();
    a.forward.g = {};
    a.forward.gk = gk;
    reference::linear_attention(head.forward.args());
    reference::linear_attention(a.forward);
    CHECK(same_bits(head.forward.y, keys.forward.y));
    CHECK(same_bits(head.forward.final_state, keys.forward.final_state));
    reference::linear_attention_backward(head.args());
    reference::linear_attention_backward(a);
    CHECK(head.output_bytes() == keys.output_bytes());
    for_each_index(head.dg.view(), [&](index b, index t, index h) {
        double sum = 0;
        for (index i = 0; i < s.key; ++i) sum += head.dgk(b, t, h, i);
        REQUIRE(std::abs(sum - head.dg(b, t, h)) <= 1e-13);
    });
}

TEST_CASE("linear_attention reference: a fixed decay is the same one for every token")
{
    linear_attention_setup s{.fixed_g = true, .beta = true};
    const linear_attention_problem<double> fixed(s), spelt_out(s);
    tensor<double, 3> g(fixed.tokens());
    g.fill([&](index, index, index head) { return fixed.fixed_g(head); });
    auto a = spelt_out.args();
    a.g = g;
    reference::linear_attention(fixed.args());
    reference::linear_attention(a);
    CHECK(fixed.output_bytes() == spelt_out.output_bytes());
}

TEST_CASE("linear_attention reference: the delta rule adds where nothing is to correct, and overwrites a key that comes again")
{
    linear_attention_setup s{.length = 6, .nheads = 2, .ngroups = 1, .key = 6, .value = 3, .g = true, .beta = true};
    linear_attention_problem<double> p(s), added(s);
    for (auto* problem : {&p, &added}) {  // orthonormal keys, and steps of 1
        problem->k.fill([](index, index t, index, index i) { return i == 5 - t ? 1.0 : 0.0; });
        problem->beta.fill([](auto...) { return 1.0; });
    }
    reference::linear_attention(p.args());
    auto a = added.args();
    a.beta = {};
    reference::linear_attention(a);
    CHECK(relative_error(p.y, added.y) <= 1e-15);
    CHECK(relative_error(p.final_state, added.final_state) <= 1e-15);

    // One key all along, and asked for: the last value, whatever came before and however it decayed.
    p.k.fill([](index, index, index, index i) { return i == 2 ? 1.0 : 0.0; });
    p.q.fill([](index, index, index, index i) { return i == 2 ? 1.0 : 0.0; });
    a = p.args();
    a.scale = 1;
    reference::linear_attention(a);
    CHECK(relative_error(p.y, p.v) <= 1e-15);

    // A step of 0 learns nothing; the state only decays.
    p.beta.fill([](auto...) { return 0.0; });
    reference::linear_attention(p.args());
    for_each_index(p.final_state.view(), [&](auto... i) { REQUIRE(p.final_state(i...) == 0); });
}

TEST_CASE("linear_attention reference: ssd is one of the family, transposed")
{
    for (const bool reverse : {false, true}) {
        for (const packing packed : {packing::none, packing::cu_seqlens}) {
            ssd_setup s{.batch = packed == packing::none ? 2 : 1, .initial_state = true, .reverse = reverse, .packed = packed};
            s.extras = false;
            const ssd_backward_problem<double> p(s);
            ssd_backward_args<double> of = p.args();
            reference::ssd(of.forward);

            // First the model with steps and rates.
            const ssd_problem<double>& f = p.forward;
            tensor<double, 3> g(f.delta.view().extents());
            tensor<double, 4> v(f.u.view().extents()), y(f.u.view().extents());
            const auto step = [&](index b, index t, index head) { return std::max(f.delta(b, t, head), 0.0); };
            g.fill([&](index b, index t, index head) { return step(b, t, head) * f.A(head); });
            v.fill([&](index b, index t, index head, index c) { return step(b, t, head) * f.u(b, t, head, c); });
            const auto states = f.final_state.view().extents();
            tensor<double, 4> final_state(states);
            const linear_attention_args<double> a{.q = f.C,
                                                  .k = f.B,
                                                  .v = v,
                                                  .g = g,
                                                  .scale = 1,
                                                  .initial_state = of.forward.initial_state.transposed(2, 3),
                                                  .cu_seqlens = f.cu_seqlens,
                                                  .reverse = reverse,
                                                  .y = y,
                                                  .final_state = final_state.view().transposed(2, 3)};
            reference::linear_attention(a);
            CAPTURE(s.text());
            CHECK(relative_error(y, f.y) <= 1e-13);
            CHECK(relative_error(final_state, f.final_state) <= 1e-13);

            // Then its form in logarithms of decays, whose gradients are the same ones by the same names.
            const std::vector<double> ones(static_cast<std::size_t>(s.nheads), 1.0);
            of.forward.u = v;
            of.forward.delta = g;
            of.forward.A = {ones, s.nheads};
            of.forward.delta_min = -infinity;
            of.forward.prescaled = true;
            reference::ssd_backward(of);
            tensor<double, 4> dq(p.dC.view().extents()), dk(p.dB.view().extents()), dv(p.du.view().extents()), dinitial(states);
            tensor<double, 3> dg(p.ddelta.view().extents());
            reference::linear_attention_backward(
                linear_attention_backward_args<double>{.forward = a,
                                                       .dy = p.dy,
                                                       .dfinal_state = of.dfinal_state.transposed(2, 3),
                                                       .dq = dq,
                                                       .dk = dk,
                                                       .dv = dv,
                                                       .dg = dg,
                                                       .dinitial_state = dinitial.view().transposed(2, 3)});
            CHECK(relative_error(dq, p.dC) <= 1e-13);
            CHECK(relative_error(dk, p.dB) <= 1e-13);
            CHECK(relative_error(dv, p.du) <= 1e-13);
            CHECK(relative_error(dg, p.ddelta) <= 1e-13);
            CHECK(relative_error(dinitial, p.dinitial_state) <= 1e-13);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention reference: cutting the sequence and carrying the state changes nothing", "", double,
                   bfloat16)
{
    using real = compute_t<TestType>;
    for (const bool reverse : {false, true}) {
        for (const bool beta : {false, true}) {
            linear_attention_setup s = everything;
            s.reverse = reverse;
            s.beta = beta;
            const linear_attention_backward_problem<TestType> whole(s);
            reference::linear_attention(whole.forward.args());
            reference::linear_attention_backward(whole.args());
            for (index cut = 0; cut <= s.length; ++cut) {
                CAPTURE(s.text(), cut);
                const linear_attention_backward_problem<TestType> parts(s);
                const tensor<real, 4> carried(parts.forward.states()), dcarried(parts.forward.states());
                auto first = time_slice(parts.args(), reverse ? s.length - cut : 0, cut);
                auto second = time_slice(parts.args(), reverse ? 0 : cut, s.length - cut);
                first.forward.final_state = carried;
                second.forward.initial_state = carried;
                reference::linear_attention(first.forward);
                reference::linear_attention(second.forward);
                CHECK(parts.forward.output_bytes() == whole.forward.output_bytes());
                second.dinitial_state = dcarried;
                first.dfinal_state = dcarried;
                reference::linear_attention_backward(second);
                reference::linear_attention_backward(first);
                CHECK(parts.output_bytes() == whole.output_bytes());
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention reference: step by step is the sequence", "", double, bfloat16)
{
    using real = compute_t<TestType>;
    for (unsigned bits = 0; bits < 16; ++bits) {
        linear_attention_setup s = linear_attention_setup{.initial_state = true};
        s.g = bits & 1u;
        s.gk = bits & 2u;
        s.beta = bits & 4u;
        s.scale = bits & 8u;
        const linear_attention_problem<TestType> whole(s), steps(s);
        reference::linear_attention(whole.args());
        const tensor<real, 4> S = steps.initial_state.template as<real>();
        const auto a = steps.args();
        for (index t = 0; t < s.length; ++t) {
            const auto token = [&](const auto& v) {
                using V = decltype(v.transposed(0, 1)[t]);
                return v.data() ? v.transposed(0, 1)[t] : V{};
            };
            reference::linear_attention_update(linear_attention_update_args<TestType>{.S = S,
                                                                                      .q = token(a.q),
                                                                                      .k = token(a.k),
                                                                                      .v = token(a.v),
                                                                                      .g = token(a.g),
                                                                                      .gk = token(a.gk),
                                                                                      .beta = token(a.beta),
                                                                                      .scale = a.scale,
                                                                                      .y = token(a.y)});
        }
        CAPTURE(s.text());
        // Two pieces of code for one sum: the compiler may fuse a product with it here and not there.
        constexpr double budget = sizeof(TestType) == 2 ? linear_attention_budget<TestType> : 1e-13;
        CHECK(relative_error(steps.y, whole.y) <= budget);
        CHECK(relative_error(S, whole.final_state) <= std::min(budget, 1e-5));
    }
}

TEST_CASE("linear_attention reference: a step takes the entries that its rows name, and padding takes none")
{
    for (unsigned bits = 0; bits < 1u << linear_attention_step_setup::options; ++bits) {
        for (const layout form : all_layouts) {
            linear_attention_step_setup s = linear_attention_step_setup{.batch = 4}.with_options(bits);
            s.inputs = s.outputs = form;
            const linear_attention_step_problem<float> p(s);
            const auto inputs = p.input_bytes();
            const tensor<float, 4> before = p.S.as<float>();
            reference::linear_attention_update(p.args());
            CAPTURE(s.text());
            CHECK(p.input_bytes() == inputs);
            CHECK(p.y.gaps_untouched());
            CHECK(p.S.gaps_untouched());
            std::vector<bool> used(static_cast<std::size_t>(s.entries()));
            for (index b = 0; b < s.batch; ++b) {
                const index entry = s.indices ? p.state_batch_indices(b) : b;
                if (entry < 0) {
                    for_each_index(p.y.view()[b], [&](auto... i) { REQUIRE(p.y(b, i...) == 0); });
                    continue;
                }
                used[static_cast<std::size_t>(entry)] = true;
                // The row alone, on a state of its own.
                const tensor<float, 4> S({1, s.nheads, s.key, s.value});
                const tensor<float, 3> y({1, s.nheads, s.value});
                for_each_index(S.view(), [&](index, auto... i) { S(0, i...) = before(entry, i...); });
                auto a = p.args();
                const auto row = [&](auto& v) {
                    if (v.data()) v = v.slice(0, b, 1);
                };
                row(a.q), row(a.k), row(a.v), row(a.g), row(a.gk), row(a.beta);
                a.S = S;
                a.y = y;
                a.state_batch_indices = {};
                reference::linear_attention_update(a);
                CHECK(same_bits(p.y.view()[b], y.view()[0]));
                CHECK(same_bits(p.S.view()[entry], S.view()[0]));
            }
            for (index entry = 0; entry < s.entries(); ++entry) {
                if (!used[static_cast<std::size_t>(entry)]) CHECK(same_bits(p.S.view()[entry], before.view()[entry]));
            }
        }
    }
}

TEST_CASE("linear_attention reference: read from its end is the flipped sequence")
{
    for (const bool packed : {false, true}) {
        linear_attention_setup s = everything;
        s.batch = packed ? 1 : 2;
        const linear_attention_backward_problem<double> forwards(s), flipped(s);
        const std::vector<index> starts = {0, 4, 4, 5, 20, 37};
        std::vector<index> starts_of_flipped;
        for (const index start : starts) starts_of_flipped.insert(starts_of_flipped.begin(), s.length - start);
        auto a = forwards.args(), b = flipped.args();
        a.forward.reverse = true;
        const auto flip = [&](auto& v) { v = v.reversed(1); };
        auto& f = b.forward;
        flip(f.q), flip(f.k), flip(f.v), flip(f.g), flip(f.gk), flip(f.beta), flip(f.y);
        flip(b.dy), flip(b.dq), flip(b.dk), flip(b.dv), flip(b.dg), flip(b.dgk), flip(b.dbeta);
        std::vector<tensor<double, 4>> states;  // of five sequences, and of those in the opposite order
        if (packed) {
            a.forward.cu_seqlens = {starts, 6};
            f.cu_seqlens = {starts_of_flipped, 6};
            random numbers(3);
            const auto five = [&](auto& ours, auto& theirs) {
                states.emplace_back(std::array<index, 4>{5, s.nheads, s.key, s.value}).fill(numbers, {-1, 1});
                ours = states.back().view();
                if constexpr (std::is_const_v<typename std::decay_t<decltype(ours)>::element_type>) {
                    theirs = ours.reversed(0);
                } else {
                    states.emplace_back(std::array<index, 4>{5, s.nheads, s.key, s.value});
                    theirs = states.back().view().reversed(0);
                }
            };
            five(a.forward.initial_state, f.initial_state);
            five(a.forward.final_state, f.final_state);
            five(a.dfinal_state, b.dfinal_state);
            five(a.dinitial_state, b.dinitial_state);
        }
        reference::linear_attention(a.forward);
        reference::linear_attention(f);
        reference::linear_attention_backward(a);
        reference::linear_attention_backward(b);
        CAPTURE(packed);
        CHECK(same_bits(forwards.forward.y, flipped.forward.y));
        CHECK(same_bits(a.forward.final_state, packed ? f.final_state.reversed(0) : f.final_state));
        CHECK(same_bits(forwards.dq, flipped.dq));
        CHECK(same_bits(forwards.dk, flipped.dk));
        CHECK(same_bits(forwards.dv, flipped.dv));
        CHECK(same_bits(forwards.dg, flipped.dg));
        CHECK(same_bits(forwards.dgk, flipped.dgk));
        CHECK(same_bits(forwards.dbeta, flipped.dbeta));
        CHECK(same_bits(a.dinitial_state, packed ? b.dinitial_state.reversed(0) : b.dinitial_state));
    }
}

TEMPLATE_TEST_CASE("linear_attention reference: packed sequences are each a call of its own", "", double, bfloat16)
{
    const std::vector<index> starts = {0, 1, 7, 8, 8, 9, 15, 16, 17, 17, 24, 31, 32, 33, 40};
    for (const bool reverse : {false, true}) {
        for (const bool beta : {false, true}) {
            linear_attention_setup s = everything;
            s.batch = 1;
            s.length = 40;
            s.beta = beta;
            s.reverse = reverse;
            linear_attention_backward_problem<TestType> p(s), alone(s);
            random numbers(8);
            for (auto* problem : {&p, &alone}) {
                problem->forward.pack(starts);
                problem->forward.initial_state = {problem->forward.states()};
                problem->dfinal_state = {problem->forward.states()};
                problem->dinitial_state = {problem->forward.states()};
                problem->forward.make_outputs();
            }
            p.forward.initial_state.fill(numbers, {-1, 1});
            p.dfinal_state.fill(numbers, {-1, 1});
            reference::linear_attention(p.forward.args());
            reference::linear_attention_backward(p.args());
            for (index i = 0; i + 1 < static_cast<index>(starts.size()); ++i) {
                const index first = starts[static_cast<std::size_t>(i)], end = starts[static_cast<std::size_t>(i + 1)];
                auto a = time_slice(alone.args(), first, end - first);
                a.forward.cu_seqlens = {};
                a.forward.initial_state = p.forward.initial_state.view().slice(0, i, 1);
                a.forward.final_state = a.forward.final_state.slice(0, i, 1);
                a.dfinal_state = p.dfinal_state.view().slice(0, i, 1);
                a.dinitial_state = a.dinitial_state.slice(0, i, 1);
                reference::linear_attention(a.forward);
                reference::linear_attention_backward(a);
            }
            CAPTURE(s.text());
            CHECK(p.forward.output_bytes() == alone.forward.output_bytes());
            CHECK(p.output_bytes() == alone.output_bytes());
        }
    }
}

TEST_CASE("linear_attention_backward reference: the slope of the loss in every input, whatever is switched on")
{
    for (unsigned bits = 0; bits < linear_attention_setup::variants; bits += SSMKIT_SAMPLED_TESTS ? 5 : 1) {
        linear_attention_setup s =
            linear_attention_setup{.length = 5, .nheads = 4, .ngroups = 2, .key = 3, .value = 2}.with_options(bits);
        s.seed = bits;
        const linear_attention_backward_problem<double> p(s);
        reference::linear_attention_backward(p.args());

        // The loss: every output times the gradient that is claimed for it.
        const auto loss = [&] {
            reference::linear_attention(p.forward.args());
            double sum = 0;
            for_each_index(p.dy.view(), [&](auto... i) { sum += p.dy(i...) * p.forward.y(i...); });
            for_each_index(p.dfinal_state.view(), [&](auto... i) { sum += p.dfinal_state(i...) * p.forward.final_state(i...); });
            return sum;
        };
        // Central differences: an error of step^2 times the third derivative and of 1e-16 / step.
        constexpr double step = 1e-5, budget = 1e-8;
        int compared = 0;
        const auto compare = [&](const char* name, const auto& input, const auto& gradient) {
            if (!input.given()) return;
            double worst = 0, largest = 0;
            for_each_index(input.view(), [&](auto... i) {
                const double before = input(i...);
                input(i...) = before + step;
                const double above = loss();
                input(i...) = before - step;
                const double below = loss();
                input(i...) = before;
                worst = std::max(worst, std::abs((above - below) / (2 * step) - gradient(i...)));
                largest = std::max(largest, std::abs(gradient(i...)));
            });
            CAPTURE(s.text(), name, worst, largest);
            CHECK(worst <= budget * std::max(largest, 1.0));
            CHECK(largest > 1e-2);
            ++compared;
        };
        const linear_attention_problem<double>& f = p.forward;
        compare("q", f.q, p.dq);
        compare("k", f.k, p.dk);
        compare("v", f.v, p.dv);
        compare("g", f.g, p.dg);
        compare("fixed g", f.fixed_g, [&](index head) {
            double sum = 0;
            for (index b = 0; b < s.batch; ++b) {
                for (index t = 0; t < s.length; ++t) sum += p.dg(b, t, head);
            }
            return sum;
        });
        compare("gk", f.gk, p.dgk);
        compare("beta", f.beta, p.dbeta);
        compare("initial_state", f.initial_state, p.dinitial_state);
        CHECK(compared >= 3);
    }
}

TEST_CASE("linear_attention_backward reference: gradients of what is not given are those of zeros")
{
    for (const bool beta : {false, true}) {
        linear_attention_setup s{.beta = beta};
        const linear_attention_backward_problem<double> absent(s), zeros(s);
        tensor<double, 3> g(zeros.forward.tokens());
        tensor<double, 4> gk(zeros.forward.keys()), initial_state(zeros.forward.states());
        const auto zero = [](auto...) { return 0.0; };
        auto a = zeros.args();
        a.forward.g = g.fill(zero);
        a.forward.gk = gk.fill(zero);
        a.forward.initial_state = initial_state.fill(zero);
        reference::linear_attention_backward(absent.args());
        reference::linear_attention_backward(a);
        CHECK(absent.output_bytes() == zeros.output_bytes());
        CHECK(std::abs(absent.dg(1, 5, 1)) > 1e-3);
        CHECK(std::abs(absent.dgk(1, 5, 1, 1)) > 1e-3);
        CHECK(std::abs(absent.dinitial_state(1, 1, 1, 1)) > 1e-5);
    }
}

TEST_CASE("linear_attention_backward reference: gradients asked for one at a time are those asked for together")
{
    const linear_attention_backward_problem<float> together(everything);
    reference::linear_attention_backward(together.args());
    const auto expected = together.output_bytes();
    for (std::size_t one = 0; one < expected.size(); ++one) {
        const linear_attention_backward_problem<float> p(everything), untouched(everything);
        const linear_attention_backward_args<float> a = p.args();
        linear_attention_backward_args<float> only{.forward = a.forward, .dy = a.dy, .dfinal_state = a.dfinal_state};
        if (one == 0) only.dq = a.dq;
        if (one == 1) only.dk = a.dk;
        if (one == 2) only.dv = a.dv;
        if (one == 3) only.dg = a.dg;
        if (one == 4) only.dgk = a.dgk;
        if (one == 5) only.dbeta = a.dbeta;
        if (one == 6) only.dinitial_state = a.dinitial_state;
        reference::linear_attention_backward(only);
        for (std::size_t i = 0; i < expected.size(); ++i) {
            CAPTURE(one, i);
            CHECK(p.output_bytes()[i] == (i == one ? expected : untouched.output_bytes())[i]);
        }
    }
}

TEST_CASE("linear_attention reference: a NaN reaches exactly what depends on it")
{
    // Something depends on an input if it changes with it: decay is mild, and every state begins with numbers.
    for (const bool packed : {false, true}) {
        for (const bool beta : {false, true}) {
            linear_attention_setup s = everything;
            s.batch = packed ? 1 : 2;
            s.length = 19;
            s.cu_seqlens = packed;
            s.beta = beta;
            s.seed = 12;
            const linear_attention_backward_problem<double> base(s);
            reference::linear_attention(base.forward.args());
            reference::linear_attention_backward(base.args());
            int reached = 0;
            const auto probe = [&](const char* name, auto member, auto... at) {
                const linear_attention_backward_problem<double> p(s), changed(s);
                member(changed)(at...) += 0.37;
                member(p)(at...) = std::nan("");
                for (const auto* problem : {&p, &changed}) {
                    reference::linear_attention(problem->forward.args());
                    reference::linear_attention_backward(problem->args());
                }
                const auto matches = [&](const auto& out, const auto& before, const auto& after) {
                    bool same = true;
                    for_each_index(out.view(), [&](auto... i) {
                        same &= is_nan(out(i...)) == (before(i...) != after(i...));
                        reached += is_nan(out(i...));
                    });
                    return same;
                };
                CAPTURE(name, s.text());
                CHECK(matches(p.forward.y, base.forward.y, changed.forward.y));
                CHECK(matches(p.forward.final_state, base.forward.final_state, changed.forward.final_state));
                CHECK(matches(p.dq, base.dq, changed.dq));
                CHECK(matches(p.dk, base.dk, changed.dk));
                CHECK(matches(p.dv, base.dv, changed.dv));
                CHECK(matches(p.dg, base.dg, changed.dg));
                CHECK(matches(p.dgk, base.dgk, changed.dgk));
                if (beta) CHECK(matches(p.dbeta, base.dbeta, changed.dbeta));
                CHECK(matches(p.dinitial_state, base.dinitial_state, changed.dinitial_state));
            };
            const index b = s.batch - 1;
            for (const index t : {0, 7, 18}) {
                probe("q", [](auto& p) -> auto& { return p.forward.q; }, b, t, 1, 2);
                probe("k", [](auto& p) -> auto& { return p.forward.k; }, b, t, 0, 4);
                probe("v", [](auto& p) -> auto& { return p.forward.v; }, b, t, 3, 1);
                probe("g", [](auto& p) -> auto& { return p.forward.g; }, b, t, 1);
                probe("gk", [](auto& p) -> auto& { return p.forward.gk; }, b, t, 1, 3);
                if (beta) probe("beta", [](auto& p) -> auto& { return p.forward.beta; }, b, t, 2);
                probe("dy", [](auto& p) -> auto& { return p.dy; }, b, t, 3, 1);
            }
            const index last = base.forward.states()[0] - 1;
            probe("initial_state", [](auto& p) -> auto& { return p.forward.initial_state; }, last, 2, 1, 1);
            probe("dfinal_state", [](auto& p) -> auto& { return p.dfinal_state; }, last, 2, 1, 1);
            CHECK(reached > 100);
        }
    }
}

TEST_CASE("linear_attention reference: decays of any strength, none, and growth")
{
    const double gates[] = {0, -0.0, -1e-6, -1e-2, -1, -1e2, -1e6, -infinity};
    for (const bool beta : {false, true}) {
        linear_attention_setup s{.batch = 1, .length = 60, .nheads = 8, .ngroups = 2, .g = true, .beta = beta};
        s.initial_state = true;
        linear_attention_backward_problem<float> p(s);
        p.forward.g.fill([&](index, index t, index head) { return t % 20 == 0 ? static_cast<float>(gates[head]) : -0.01f; });
        const auto expected = p.wide();
        reference::linear_attention(p.forward.args());
        reference::linear_attention(expected.forward.args());
        reference::linear_attention_backward(p.args());
        reference::linear_attention_backward(expected.args());
        const worst_error worst = worst_of_budget(p.forward, expected.forward), gradients = worst_of_budget(p, expected);
        CAPTURE(worst.name, gradients.name);
        CHECK(worst.error <= 1);
        CHECK(gradients.error <= 1);
        for (index i = 0; i < s.key; ++i) CHECK(p.dinitial_state(0, 7, i, 1) == 0);
        // What forgets everything begins anew: no state before it matters, nor how much of it is forgotten.
        const linear_attention_problem<float> anew(s);
        for_each_index(anew.g.view(), [&](auto... i) { anew.g(i...) = p.forward.g(i...); });
        auto a = time_slice(anew.args(), 40, 20);
        a.initial_state = {};
        reference::linear_attention(a);
        CHECK(same_bits(p.forward.y.view().slice(1, 40, 20).slice(2, 7, 1), a.y.slice(2, 7, 1)));
        CHECK(p.dg(0, 40, 7) == 0);
    }

    linear_attention_setup s{.length = 20, .g = true, .gk = true, .initial_state = true};
    linear_attention_problem<double> growing(s);
    random numbers(3);
    growing.g.fill([&](auto...) { return numbers.uniform(0.2, 0.6); });
    const auto expected = growing.wide();
    reference::linear_attention(growing.args());
    backward_travel(expected.args());
    CHECK(worst_of_budget(growing, expected).error <= 1);
    double largest = 0;
    for_each_index(growing.final_state.view(),
                   [&](auto... i) { largest = std::max(largest, std::abs(growing.final_state(i...))); });
    CHECK(largest > 10);
}

TEST_CASE("linear_attention reference: empty extents")
{
    const auto zeros = [](const auto& x) {
        for_each_index(x.view(), [&](auto... i) { REQUIRE(x(i...) == 0); });
    };
    const auto run = [](const linear_attention_setup& s) {
        linear_attention_backward_problem<float> p(s);
        reference::linear_attention(p.forward.args());
        reference::linear_attention_backward(p.args());
        return p;
    };
    linear_attention_setup some = everything;
    some.length = 6;
    for (const bool packed : {false, true}) {  // without tokens the state and its gradient pass through
        linear_attention_setup s = some;
        s.batch = packed ? 1 : 2;
        s.length = 0;
        s.cu_seqlens = packed;
        const auto p = run(s);
        CHECK(same_bits(p.forward.final_state, p.forward.initial_state));
        CHECK(same_bits(p.dinitial_state, p.dfinal_state));
        s.initial_state = false;
        zeros(run(s).forward.final_state);
    }
    linear_attention_setup s = some;
    s.batch = 0;
    run(s);
    s = some;
    s.key = 0;
    const auto keyless = run(s);
    zeros(keyless.forward.y);
    zeros(keyless.dv);
    zeros(keyless.dg);
    zeros(keyless.dbeta);
    s = some;
    s.value = 0;
    const auto valueless = run(s);
    zeros(valueless.dq);
    zeros(valueless.dk);
    zeros(valueless.dg);
    zeros(valueless.dgk);
    zeros(valueless.dbeta);
    for (const index groups : {0, 2}) {
        s = some;
        s.nheads = 0;
        s.ngroups = groups;
        const auto headless = run(s);
        zeros(headless.dq);
        zeros(headless.dk);
        zeros(headless.dgk);
    }

    const std::vector<index> no_sequence = {0};
    linear_attention_setup lonely{.batch = 1, .length = 0};
    const linear_attention_problem<float> none(lonely);
    auto a = none.args();
    a.cu_seqlens = {no_sequence, 1};
    a.final_state = {none.final_state.view().data(), {0, 4, 5, 3}};
    reference::linear_attention(a);
    CHECK(is_nan(none.final_state(0, 0, 0, 0)));  // nothing written

    for (linear_attention_step_setup step : {linear_attention_step_setup{.batch = 0}, {.nheads = 0}, {.key = 0}, {.value = 0}}) {
        step.g = step.gk = step.beta = true;
        const linear_attention_step_problem<float> p(step);
        reference::linear_attention_update(p.args());
        if (step.key == 0) zeros(p.y);
    }
}

TEST_CASE("linear_attention reference: names the argument that does not fit")
{
    const linear_attention_problem<float> p(everything);  // (2, 37, 4), groups 2, key 5, value 3
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return complaint_of([&] { reference::linear_attention(a); });
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    const std::string op = "linear_attention: ";

    CHECK(complaint([](auto& a) { a.q = a.q.slice(1, 0, 36); }) ==
          op + "q has shape (2, 36, 2, 5), expected (batch = 2, length = 37, ngroups = 2, key = 5)");
    CHECK(begins(complaint([](auto& a) { a.q = {}; }), op + "q has shape (0, 0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.q = a.q.slice(2, 0, 1); }), op + "q has shape (2, 37, 1, 5)"));
    CHECK(begins(complaint([](auto& a) { a.q = a.q.slice(3, 0, 4); }), op + "q has shape (2, 37, 2, 4)"));
    CHECK(complaint([](auto& a) { a.k = a.k.slice(0, 0, 1); }) ==
          op + "k has shape (1, 37, 2, 5), expected (batch = 2, length = 37, ngroups, key)");
    CHECK(begins(complaint([](auto& a) { a.k = {}; }), op + "k has shape (0, 0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.v = {}; }), op + "k has shape (2, 37, 2, 5), expected (batch = 0"));
    CHECK(begins(complaint([](auto& a) { a.v = {a.v.data(), {2, 37, -4, 3}}; }), op + "v has shape (2, 37, -4, 3)"));
    CHECK(complaint([](auto& a) { a.q = a.k = {a.k.data(), {2, 37, 3, 5}, {0, 0, 0, 1}}; }) ==
          op + "k has 3 groups, expected a divisor of 4 channels");
    CHECK(begins(complaint([](auto& a) { a.q = a.k = {a.k.data(), {2, 37, 0, 5}, {0, 0, 0, 1}}; }), op + "k has 0 groups"));
    CHECK(complaint([](auto& a) { a.g = a.g.slice(2, 0, 3); }) ==
          op + "g has shape (2, 37, 3), expected (batch = 2, length = 37, nheads = 4)");
    CHECK(begins(complaint([](auto& a) { a.gk = a.gk.slice(3, 0, 4); }), op + "gk has shape (2, 37, 2, 4)"));
    CHECK(begins(complaint([](auto& a) { a.gk = {a.gk.data(), {2, 37, 4, 5}, {0, 0, 0, 1}}; }),
                 op + "gk has shape (2, 37, 4, 5), expected (batch = 2, length = 37, ngroups = 2, key = 5)"));
    CHECK(begins(complaint([](auto& a) { a.beta = a.beta.slice(1, 0, 1); }), op + "beta has shape (2, 1, 4)"));
    CHECK(complaint([](auto& a) { a.initial_state = a.initial_state.slice(0, 0, 1); }) ==
          op + "initial_state has shape (1, 4, 5, 3), expected (sequences = 2, nheads = 4, key = 5, value = 3)");
    CHECK(begins(complaint([](auto& a) { a.initial_state = a.initial_state.transposed(2, 3); }),
                 op + "initial_state has shape (2, 4, 3, 5)"));
    CHECK(begins(complaint([](auto& a) { a.y = {}; }), op + "y has shape (0, 0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.y = a.y.slice(3, 0, 2); }), op + "y has shape (2, 37, 4, 2)"));
    CHECK(begins(complaint([](auto& a) { a.final_state = a.final_state.slice(1, 0, 2); }), op + "final_state has shape (2, 2, "));

    CHECK(complaint([](auto& a) { a.y = {a.y.data(), {2, 37, 4, 3}, {444, 12, 3, 0}}; }) ==
          op + "y is written but has stride 0 along an axis");
    CHECK(complaint([](auto& a) { a.final_state = {a.final_state.data(), {2, 4, 5, 3}, {0, 15, 3, 1}}; }) ==
          op + "final_state is written but has stride 0 along an axis");
    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.v.data()), 2, 37, 4, 3}; }) == op + "y overlaps v in memory");
    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.q.data()), 2, 37, 4, 3}; }) == op + "y overlaps q in memory");
    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.k.data()), 2, 37, 4, 3}; }) == op + "y overlaps k in memory");
    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.gk.data()), 2, 37, 4, 3}; }) == op + "y overlaps gk in memory");
    CHECK(complaint([](auto& a) { a.final_state = {const_cast<float*>(a.g.data()), 2, 4, 5, 3}; }) ==
          op + "final_state overlaps g in memory");
    CHECK(complaint([](auto& a) { a.final_state = {const_cast<float*>(a.beta.data()), 2, 4, 5, 3}; }) ==
          op + "final_state overlaps beta in memory");
    CHECK(complaint([](auto& a) { a.final_state = {const_cast<float*>(a.initial_state.data()), 2, 4, 5, 3}; }) ==
          op + "final_state overlaps initial_state in memory");
    CHECK(complaint([](auto& a) { a.final_state = {a.y.data(), 2, 4, 5, 3}; }) == op + "final_state overlaps y in memory");
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });  // thrown before anything was written
    CHECK(complaint([](auto& a) { a.final_state = {}; }) == "nothing thrown");
}

TEST_CASE("linear_attention reference: cu_seqlens must cut one row from its beginning to its end")
{
    linear_attention_setup s = everything;
    s.batch = 1;
    s.length = 10;
    s.cu_seqlens = true;
    const linear_attention_problem<float> p(s);
    const auto complaint = [&](const std::vector<index>& ends, auto&& spoil) {
        auto a = p.args();
        a.cu_seqlens = {ends.data(), static_cast<index>(ends.size())};
        spoil(a);
        return complaint_of([&] { reference::linear_attention(a); });
    };
    const auto nothing = [](auto&) {};
    const std::vector<index> good = {0, 3, 3, 4, 9, 10};
    CHECK(complaint(good, nothing) == "nothing thrown");
    for (const auto& ends : {std::vector<index>{0, 3, 3, 4, 9, 9}, {0, 3, 3, 4, 9, 11}, {0, 3, 2, 4, 9, 10}, {1, 3, 3, 4, 9, 10},
                             {-1, 3, 3, 4, 9, 10}, {0, 3, 3, 4, 11, 10}, {5}, {0}}) {
        CHECK(complaint(ends, nothing) == "linear_attention: cu_seqlens is not ascending from 0 to length");
    }
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    CHECK(begins(complaint({0, 4, 10}, nothing),
                 "linear_attention: initial_state has shape (5, 4, 5, 3), expected (sequences = 2, "));
    CHECK(begins(complaint({0, 4, 10}, [](auto& a) { a.initial_state = {}; }), "linear_attention: final_state has shape (5, "));

    const linear_attention_problem<float> two({.batch = 2, .length = 10});
    auto a = two.args();
    a.cu_seqlens = {good.data(), 6};
    CHECK(complaint_of([&] { reference::linear_attention(a); }) ==
          "linear_attention: cu_seqlens is given for a batch that is not 1");
}

TEST_CASE("linear_attention_backward reference: names the argument that does not fit")
{
    const linear_attention_backward_problem<float> p(everything);
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return complaint_of([&] { reference::linear_attention_backward(a); });
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    const std::string op = "linear_attention_backward: ";

    CHECK(complaint([](auto& a) { a.dy = a.dy.slice(1, 0, 36); }) ==
          op + "dy has shape (2, 36, 4, 3), expected (batch = 2, length = 37, nheads = 4, value = 3)");
    CHECK(begins(complaint([](auto& a) { a.dy = {}; }), op + "dy has shape (0, 0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.forward.q = a.forward.q.slice(3, 0, 3); }), op + "q has shape (2, 37, 2, 3)"));
    CHECK(begins(complaint([](auto& a) { a.forward.g = a.forward.g.slice(1, 0, 3); }), op + "g has shape (2, 3, 4)"));
    CHECK(begins(complaint([](auto& a) { a.forward.initial_state = a.forward.initial_state.slice(0, 0, 1); }),
                 op + "initial_state has shape (1, "));
    CHECK(complaint([](auto& a) { a.dfinal_state = a.dfinal_state.slice(0, 0, 1); }) ==
          op + "dfinal_state has shape (1, 4, 5, 3), expected (sequences = 2, nheads = 4, key = 5, value = 3)");
    CHECK(begins(complaint([](auto& a) { a.dq = a.dq.slice(1, 0, 1); }), op + "dq has shape (2, 1, 2, 5)"));
    CHECK(begins(complaint([](auto& a) { a.dk = a.dk.slice(2, 0, 1); }), op + "dk has shape (2, 37, 1, 5)"));
    CHECK(begins(complaint([](auto& a) { a.dv = a.dv.slice(3, 0, 1); }), op + "dv has shape (2, 37, 4, 1)"));
    CHECK(begins(complaint([](auto& a) { a.dg = a.dg.slice(2, 0, 1); }), op + "dg has shape (2, 37, 1)"));
    CHECK(begins(complaint([](auto& a) { a.dgk = a.dgk.slice(3, 0, 1); }), op + "dgk has shape (2, 37, 2, 1)"));
    CHECK(begins(complaint([](auto& a) { a.dbeta = a.dbeta.slice(1, 0, 1); }), op + "dbeta has shape (2, 1, 4)"));
    CHECK(complaint([](auto& a) { a.forward.beta = {}; }) == op + "dbeta is asked for without a beta");
    CHECK(begins(complaint([](auto& a) { a.dinitial_state = a.dinitial_state.slice(0, 0, 1); }), op + "dinitial_state has"));

    const auto same_element = [&](const char* name, auto member) {
        return complaint([&](auto& a) {
                   auto& out = member(a);
                   auto strides = out.strides();
                   strides[1] = 0;
                   out = {out.data(), out.extents(), strides};
               }) == op + name + " is written but has stride 0 along an axis";
    };
    CHECK(same_element("dq", [](auto& a) -> auto& { return a.dq; }));
    CHECK(same_element("dk", [](auto& a) -> auto& { return a.dk; }));
    CHECK(same_element("dv", [](auto& a) -> auto& { return a.dv; }));
    CHECK(same_element("dg", [](auto& a) -> auto& { return a.dg; }));
    CHECK(same_element("dgk", [](auto& a) -> auto& { return a.dgk; }));
    CHECK(same_element("dbeta", [](auto& a) -> auto& { return a.dbeta; }));
    CHECK(same_element("dinitial_state", [](auto& a) -> auto& { return a.dinitial_state; }));

    const auto onto = [&](auto member, auto other) {  // an output where another argument lies
        return complaint([&](auto& a) {
            auto& out = member(a);
            out = {const_cast<float*>(other(a).data()), out.extents()};
        });
    };
    const auto dv = [](auto& a) -> auto& { return a.dv; };
    const auto dq = [](auto& a) -> auto& { return a.dq; };
    CHECK(onto(dv, [](auto& a) { return a.dy; }) == op + "dv overlaps dy in memory");
    CHECK(onto(dv, [](auto& a) { return a.forward.v; }) == op + "dv overlaps v in memory");
    CHECK(onto(dq, [](auto& a) { return a.forward.q; }) == op + "dq overlaps q in memory");
    CHECK(onto(dq, [](auto& a) { return a.forward.k; }) == op + "dq overlaps k in memory");
    CHECK(onto(dq, [](auto& a) { return a.forward.gk; }) == op + "dq overlaps gk in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dg; }, [](auto& a) { return a.forward.g; }) == op + "dg overlaps g in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dbeta; }, [](auto& a) { return a.forward.beta; }) ==
          op + "dbeta overlaps beta in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dinitial_state; }, [](auto& a) { return a.dfinal_state; }) ==
          op + "dinitial_state overlaps dfinal_state in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dinitial_state; }, [](auto& a) { return a.forward.initial_state; }) ==
          op + "dinitial_state overlaps initial_state in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dk; }, [](auto& a) { return a.dq; }) == op + "dk overlaps dq in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dgk; }, [](auto& a) { return a.dk; }) == op + "dgk overlaps dk in memory");
    CHECK(onto([](auto& a) -> auto& { return a.dbeta; }, [](auto& a) { return a.dg; }) == op + "dbeta overlaps dg in memory");
    const std::vector<index> ends = {0, 37};
    CHECK(complaint([&](auto& a) { a.forward.cu_seqlens = {ends.data(), 2}; }) ==
          op + "cu_seqlens is given for a batch that is not 1");
    for_each_index(p.dq.view(), [&](auto... i) { REQUIRE(is_nan(p.dq(i...))); });  // thrown before anything was written
    CHECK(complaint([](auto&) {}) == "nothing thrown");
}

TEST_CASE("linear_attention_update reference: names the argument that does not fit")
{
    linear_attention_step_setup s{.batch = 4};
    s.g = s.gk = s.beta = s.indices = true;
    const linear_attention_step_problem<float> p(s);
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return complaint_of([&] { reference::linear_attention_update(a); });
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    const std::string op = "linear_attention_update: ";

    CHECK(complaint([](auto& a) { a.q = a.q.slice(0, 0, 3); }) ==
          op + "q has shape (3, 2, 5), expected (batch = 4, ngroups = 2, key = 5)");
    CHECK(begins(complaint([](auto& a) { a.k = a.k.slice(0, 0, 3); }), op + "k has shape (3, 2, 5)"));
    CHECK(begins(complaint([](auto& a) { a.v = {}; }), op + "k has shape (4, 2, 5), expected (batch = 0"));
    CHECK(complaint([](auto& a) { a.q = a.k = {a.k.data(), {4, 3, 5}, {0, 0, 1}}; }) ==
          op + "k has 3 groups, expected a divisor of 4 channels");
    CHECK(begins(complaint([](auto& a) { a.S = a.S.slice(2, 0, 4); }), op + "S has shape (7, 4, 4, 3), expected (entries, "));
    CHECK(complaint([](auto& a) { a.state_batch_indices = {}; }) ==
          op + "S has shape (7, 4, 5, 3), expected (batch = 4, nheads = 4, key = 5, value = 3)");
    CHECK(begins(complaint([](auto& a) { a.g = a.g.slice(1, 0, 3); }), op + "g has shape (4, 3)"));
    CHECK(begins(complaint([](auto& a) { a.gk = a.gk.slice(1, 0, 1); }), op + "gk has shape (4, 1, 5)"));
    CHECK(begins(complaint([](auto& a) { a.beta = a.beta.slice(0, 0, 1); }), op + "beta has shape (1, 4)"));
    CHECK(begins(complaint([](auto& a) { a.state_batch_indices = a.state_batch_indices.slice(0, 0, 3); }),
                 op + "state_batch_indices has shape (3)"));
    const std::int32_t beyond[] = {0, 7, 1, 2};
    CHECK(complaint([&](auto& a) { a.state_batch_indices = {beyond, 4}; }) ==
          op + "state_batch_indices names an entry that S does not have");
    CHECK(begins(complaint([](auto& a) { a.y = a.y.slice(2, 0, 2); }), op + "y has shape (4, 4, 2)"));
    CHECK(complaint([](auto& a) { a.S = {a.S.data(), a.S.extents(), {60, 15, 0, 1}}; }) ==
          op + "S is written but has stride 0 along an axis");
    CHECK(complaint([](auto& a) { a.y = {a.y.data(), {4, 4, 3}, {12, 0, 1}}; }) ==
          op + "y is written but has stride 0 along an axis");
    CHECK(complaint([](auto& a) { a.y = {a.S.data(), 4, 4, 3}; }) == op + "y overlaps S in memory");
    // Within y, which is the largest: on a smaller input's memory it would reach into whatever lies behind that.
    const auto within_y = [&](auto member) {
        return complaint([&](auto& a) { a.*member = {a.y.data(), (a.*member).extents()}; });
    };
    using args = linear_attention_update_args<float>;
    CHECK(within_y(&args::q) == op + "y overlaps q in memory");
    CHECK(within_y(&args::k) == op + "y overlaps k in memory");
    CHECK(within_y(&args::v) == op + "y overlaps v in memory");
    CHECK(within_y(&args::g) == op + "y overlaps g in memory");
    CHECK(within_y(&args::gk) == op + "y overlaps gk in memory");
    CHECK(within_y(&args::beta) == op + "y overlaps beta in memory");
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });  // thrown before anything was written
    CHECK(complaint([](auto&) {}) == "nothing thrown");
}

}  // namespace
}  // namespace ssmkit::testing
