#include <ssmkit/reference/ssd.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/reference/selective_state_update.hpp>

#include "catch.hpp"
#include "ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// The whole operation as the product with a matrix of all pairs of tokens (the paper's eq. 3), states as sums over tokens:
/// nothing is carried from one token to the next, and every sum of steps is taken anew.
void dual_form(const ssd_args<double>& a)
{
    const index nheads = a.u.extent(2), headdim = a.u.extent(3), state = a.B.extent(3);
    for (index sequence = 0; sequence < ssd_sequence_count(a); ++sequence) {
        const bool cut = a.cu_seqlens.data() != nullptr;
        const index b = cut ? 0 : sequence;
        std::vector<index> at;  // the positions of the tokens
        for (index t = 0; t < a.u.extent(1); ++t) {
            if (!cut || (t >= a.cu_seqlens[sequence] && t < a.cu_seqlens[sequence + 1])) at.push_back(t);
        }
        if (a.reverse) std::reverse(at.begin(), at.end());
        const std::size_t length = at.size(), chunk = static_cast<std::size_t>(a.chunk);

        // Tokens of one run depend on one another; run 0 is the one that the initial state belongs to. run.back() is for
        // what comes after the last token.
        std::vector<bool> padding(length);
        std::vector<std::size_t> run(length + 1);
        std::int32_t id = 0;
        for (std::size_t i = 0; i < length; ++i) {
            const std::int32_t own = a.seq_idx.data() ? a.seq_idx(b, at[i]) : 0;
            padding[i] = own < 0;
            if (i > 0) run[i] = run[i - 1];
            if (own >= 0 && own != id) ++run[i];
            if (own >= 0) id = own;
        }
        if (length > 0) run[length] = run[length - 1];

        for (index head = 0; head < nheads; ++head) {
            const index group = head * a.B.extent(2) / nheads;
            std::vector<double> step(length);
            for (std::size_t i = 0; i < length; ++i) {
                if (padding[i]) continue;
                double r = a.delta(b, at[i], head) + (a.delta_bias.data() ? a.delta_bias[head] : 0.0);
                if (a.delta_softplus) r = std::max(r, 0.0) + std::log1p(std::exp(-std::abs(r)));
                step[i] = std::clamp(r, a.delta_min, a.delta_max);
            }
            const auto decay = [&](std::size_t from, std::size_t to) {  // over the steps from ... to - 1
                double sum = 0;
                for (std::size_t i = from; i < to; ++i) sum += step[i];
                return std::exp(a.A[head] * sum);
            };
            const auto input = [&](std::size_t j, index channel) {
                return (a.prescaled ? 1.0 : step[j]) * a.u(b, at[j], head, channel);
            };
            // The state after `end` tokens, of what tokens from `begin` on put in, and of the initial state if that is 0.
            const auto state_after = [&](std::size_t begin, std::size_t end, index channel, index n, bool with_initial) {
                const std::size_t owner = end > 0 ? run[end - 1] : 0;
                double sum = 0;
                for (std::size_t j = begin; j < end; ++j) {
                    if (padding[j] || run[j] != owner) continue;
                    sum += decay(j + 1, end) * input(j, channel) * a.B(b, at[j], group, n);
                }
                if (with_initial && owner == 0 && a.initial_state.data()) {
                    sum += decay(0, end) * a.initial_state(sequence, head, channel, n);
                }
                return sum;
            };

            for (std::size_t i = 0; i < length; ++i) {
                std::size_t since = i / chunk * chunk;
                for (std::size_t j = since; j < i; ++j) since = run[j] != run[i] ? j + 1 : since;
                if (a.delta_out.data()) a.delta_out(b, at[i], head) = step[i];
                if (a.log_decay.data()) a.log_decay(b, at[i], head) = std::log(decay(since, i + 1));
                for (index channel = 0; channel < headdim; ++channel) {
                    double p = 0;
                    for (std::size_t j = 0; !padding[i] && j <= i; ++j) {
                        if (padding[j] || run[j] != run[i]) continue;
                        double CB = 0;
                        for (index n = 0; n < state; ++n) CB += a.C(b, at[i], group, n) * a.B(b, at[j], group, n);
                        p += CB * decay(j + 1, i + 1) * input(j, channel);
                    }
                    if (!padding[i] && run[i] == 0 && a.initial_state.data()) {
                        for (index n = 0; n < state; ++n) {
                            p += a.C(b, at[i], group, n) * decay(0, i + 1) * a.initial_state(sequence, head, channel, n);
                        }
                    }
                    if (!padding[i] && a.D.data()) p += a.D(head, channel) * a.u(b, at[i], head, channel);
                    const double z = a.z.data() ? a.z(b, at[i], head, channel) : 0;
                    if (a.y_ungated.data()) a.y_ungated(b, at[i], head, channel) = p;
                    a.y(b, at[i], head, channel) = a.z.data() && !padding[i] ? p * z / (1 + std::exp(-z)) : p;
                }
            }
            for (index channel = 0; channel < headdim; ++channel) {
                for (index n = 0; n < state; ++n) {
                    a.final_state(sequence, head, channel, n) = state_after(0, length, channel, n, true);
                    for (std::size_t c = 0; c * chunk < length; ++c) {
                        const std::size_t first = c * chunk, last = std::min(first + chunk, length);
                        const auto k = static_cast<index>(c);
                        if (a.prev_states.data()) a.prev_states(b, k, head, channel, n) = state_after(0, first, channel, n, true);
                        if (a.chunk_states.data()) {
                            a.chunk_states(b, k, head, channel, n) = state_after(first, last, channel, n, false);
                        }
                    }
                }
            }
        }
    }
}

template <class F>
std::string message_of(F&& f)
{
    try {
        f();
    } catch (const shape_error& e) {
        return e.what();
    }
    return "nothing thrown";
}

TEST_CASE("ssd reference: the recurrence equals its dual form, whatever is switched on")
{
    for (unsigned bits = 0; bits < ssd_setup::variants; ++bits) {
        ssd_setup s = ssd_setup{.batch = 2, .length = 11, .nheads = 4, .headdim = 2, .state = 3, .chunk = 4}.with_options(bits);
        constexpr index groups[] = {1, 2, 4};
        s.ngroups = groups[bits % 3];
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.extras = bits % 7 != 0;
        s.seed = bits;
        CAPTURE(s.text());
        const ssd_problem<double> p(s), expected = p.wide();
        const auto inputs = p.input_bytes();
        reference::ssd(p.args());
        dual_form(expected.args());
        const worst_error worst = worst_of_budget(p, expected);
        CAPTURE(worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEST_CASE("ssd reference: every length, chunk and state size")
{
    for (const index length : {0, 1, 2, 7, 8, 9, 15, 16, 17, 33}) {
        for (const index chunk : {index{1}, index{2}, index{7}, index{8}, std::max<index>(length, 1), length + 1}) {
            for (const index state : {0, 1, 3}) {
                for (const packing packed : {packing::none, packing::seq_idx}) {
                    ssd_setup s{.batch = 2, .length = length, .nheads = 2, .headdim = 2, .state = state};
                    s.tied_D = s.z = s.initial_state = true;
                    s.packed = packed;
                    s.chunk = chunk;
                    s.seed = static_cast<std::uint64_t>(length + chunk);
                    const ssd_problem<double> p(s), expected(s);
                    reference::ssd(p.args());
                    dual_form(expected.args());
                    const worst_error worst = worst_of_budget(p, expected);
                    CAPTURE(s.text(), worst.name);
                    REQUIRE(worst.error <= 1);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("ssd reference: narrower types differ from double by their rounding", "", float, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; bits += 5) {
        ssd_setup s = ssd_setup{}.with_options(bits);
        s.seed = bits;
        const ssd_problem<TestType> p(s);
        const auto expected = p.wide();
        reference::ssd(p.args());
        reference::ssd(expected.args());
        const worst_error worst = worst_of_budget(p, expected);
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
    }
}

TEST_CASE("ssd reference: neighbouring heads share a group")
{
    for (const index groups : {1, 2, 4, 8}) {
        ssd_setup s{.batch = 1, .length = 1, .nheads = 8, .headdim = 2, .ngroups = groups, .state = 1};
        ssd_problem<float> p(s);
        const auto one = [](auto...) { return 1.0f; };
        p.u.fill(one);
        p.delta.fill(one);
        p.C.fill([](index, index, index g, index) { return static_cast<float>(100 * (g + 1)); });
        p.B.fill([](index, index, index g, index) { return static_cast<float>(g + 1); });
        reference::ssd(p.args());
        for (index head = 0; head < 8; ++head) {
            const auto g = static_cast<float>(head / (8 / groups) + 1);
            CHECK(p.y(0, 0, head, 1) == 100 * g * g);
        }
    }
}

TEST_CASE("ssd reference: is the selective scan whose rates and steps are tied over a head, and its steps one by one")
{
    const ssd_setup s{.batch = 2, .length = 19, .nheads = 4, .headdim = 3, .state = 5, .D = true, .z = true, .delta_bias = true,
                      .delta_softplus = true, .initial_state = true};
    const ssd_problem<double> p(s);
    const ssd_args<double> a = p.args();
    reference::ssd(a);

    const index dim = s.nheads * s.headdim;
    const auto spread = [&](index c) { return c / s.headdim; };
    tensor<double, 3> delta({s.batch, s.length, dim});
    tensor<double, 2> A({dim, s.state});
    tensor<double, 1> delta_bias({dim});
    delta.fill([&](index b, index t, index c) { return p.delta(b, t, spread(c)); });
    A.fill([&](index c, index) { return p.A(spread(c)); });
    delta_bias.fill([&](index c) { return p.delta_bias(spread(c)); });
    const tensor<double, 3> y({s.batch, s.length, dim}), final_state({s.batch, dim, s.state});
    reference::selective_scan(selective_scan_args<double>{.u = {p.u.view().data(), s.batch, s.length, dim},
                                                          .delta = delta,
                                                          .A = A,
                                                          .B = p.B,
                                                          .C = p.C,
                                                          .D = {p.D.view().data(), dim},
                                                          .z = {p.z.view().data(), s.batch, s.length, dim},
                                                          .delta_bias = delta_bias,
                                                          .delta_softplus = true,
                                                          .initial_state = {p.initial_state.view().data(), s.batch, dim, s.state},
                                                          .y = y,
                                                          .final_state = final_state});
    CHECK(relative_error(view<double, 3>(p.y.view().data(), s.batch, s.length, dim), y.view()) <= 1e-13);
    CHECK(relative_error(view<double, 3>(p.final_state.view().data(), s.batch, dim, s.state), final_state.view()) <= 1e-13);

    const tensor<double, 4> h = p.initial_state.as<double>(), steps(p.y.view().extents());
    for (index t = 0; t < s.length; ++t) {
        const auto token = [&](const auto& v) { return v.transposed(0, 1)[t]; };
        reference::selective_state_update(
            selective_state_update_args<double>{.h = h,
                                                .u = token(a.u),
                                                .delta = tied_over_head(token(a.delta), s.headdim),
                                                .A = tied_over_head(a.A, s.headdim, s.state),
                                                .B = token(a.B),
                                                .C = token(a.C),
                                                .D = a.D,
                                                .z = token(a.z),
                                                .delta_bias = tied_over_head(a.delta_bias, s.headdim),
                                                .delta_softplus = true,
                                                .y = token(steps.view())});
    }
    CHECK(relative_error(p.y, steps) <= 1e-13);
    CHECK(relative_error(p.final_state, h) <= 1e-13);
}

TEST_CASE("ssd reference: the chunk size does not change the answer, and the chunks' states are those at their edges")
{
    for (const packing packed : {packing::none, packing::seq_idx}) {
        for (const bool reverse : {false, true}) {
            ssd_setup s{.batch = 2, .length = 37, .initial_state = true, .reverse = reverse, .packed = packed, .seed = 4};
            s.chunk = 37;
            const ssd_problem<double> whole(s);
            reference::ssd(whole.args());
            for (const index chunk : {index{1}, index{2}, index{7}, index{36}, index{38}, std::numeric_limits<index>::max()}) {
                s.chunk = chunk;
                const ssd_problem<double> p(s);
                reference::ssd(p.args());
                CAPTURE(s.text());
                CHECK(same_bits(p.y, whole.y));
                CHECK(same_bits(p.final_state, whole.final_state));
                const index chunks = ssd_chunk_count(s.length, chunk);
                for (index c = 0; c < chunks; ++c) {
                    // A run of the tokens before the chunk alone.
                    const index count = c * chunk;
                    const ssd_problem<double> before(s);
                    reference::ssd(time_slice(before.args(), reverse ? s.length - count : 0, count));
                    CHECK(relative_error(p.prev_states.view().transposed(0, 1)[c], before.final_state.view()) <= 1e-13);

                    // The next chunk's state, or the final one, is what the chunk's summary makes of the state before it.
                    const index last = std::min(count + chunk, s.length) - 1;
                    const index t = reverse ? s.length - 1 - last : last;
                    double error = 0;
                    for_each_index(p.final_state.view(), [&](index b, auto head, auto... i) {
                        bool starts = false;  // does a sequence begin within the chunk?
                        std::int32_t id = 0;
                        for (index k = 0; packed == packing::seq_idx && k <= last; ++k) {
                            const std::int32_t own = p.seq_idx(b, reverse ? s.length - 1 - k : k);
                            if (own < 0) continue;
                            starts |= own != id && k >= count;
                            id = own;
                        }
                        const double kept = starts ? 0 : std::exp(p.log_decay(b, t, head));
                        const double joined = kept * p.prev_states(b, c, head, i...) + p.chunk_states(b, c, head, i...);
                        const double next = c + 1 < chunks ? p.prev_states(b, c + 1, head, i...) : p.final_state(b, head, i...);
                        error = std::max(error, std::abs(joined - next));
                    });
                    CHECK(error <= 1e-13);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("ssd reference: cutting the sequence and carrying the state changes nothing", "", double, bfloat16)
{
    using real = compute_t<TestType>;
    for (const bool reverse : {false, true}) {
        for (const packing packed : {packing::none, packing::seq_idx}) {
            ssd_setup s{.batch = 2, .length = 33, .z = true, .initial_state = true, .reverse = reverse, .packed = packed};
            s.extras = false;
            const ssd_problem<TestType> whole(s);
            reference::ssd(whole.args());
            for (const index cut : {0, 1, 2, 7, 8, 9, 31, 32, 33}) {
                CAPTURE(s.text(), cut);
                ssd_problem<TestType> parts(s);
                const tensor<real, 4> carried(parts.states());
                auto first = time_slice(parts.args(), reverse ? s.length - cut : 0, cut);
                auto second = time_slice(parts.args(), reverse ? 0 : cut, s.length - cut);
                first.final_state = carried;
                second.initial_state = carried;
                reference::ssd(first);
                if (packed == packing::seq_idx) {  // the sequence that is continued has number 0 in the second part
                    for (index b = 0; b < s.batch; ++b) {
                        const auto visited = [&](index i) -> std::int32_t& {
                            return parts.seq_idx(b, reverse ? s.length - 1 - i : i);
                        };
                        std::int32_t continued = 0;
                        for (index i = 0; i < cut; ++i) continued = visited(i) < 0 ? continued : visited(i);
                        for (index i = cut; i < s.length; ++i) visited(i) -= visited(i) < 0 ? 0 : continued;
                    }
                }
                reference::ssd(second);
                CHECK(same_bits(parts.y, whole.y));
                CHECK(same_bits(parts.final_state, whole.final_state));
            }
        }
    }
}

TEST_CASE("ssd reference: reverse is flip, scan, flip")
{
    for (const packing packed : {packing::none, packing::cu_seqlens}) {
        ssd_setup s{.batch = 1, .length = 23, .z = true, .initial_state = true, .packed = packed};
        ssd_problem<double> flipped(s);
        auto a = flipped.args();
        for (auto* v : {&a.u, &a.B, &a.C, &a.z}) *v = v->reversed(1);
        for (auto* v : {&a.y, &a.y_ungated}) *v = v->reversed(1);
        a.delta = a.delta.reversed(1);
        for (auto* v : {&a.delta_out, &a.log_decay}) {
            if (v->data()) *v = v->reversed(1);
        }
        s.reverse = true;
        const ssd_problem<double> reversed(s);
        if (packed == packing::cu_seqlens) {  // the last sequence comes first then
            flipped.cu_seqlens.fill([&](index i) { return s.length - reversed.cu_seqlens(5 - i); });
            a.initial_state = a.initial_state.reversed(0);
            a.final_state = a.final_state.reversed(0);
        }
        reference::ssd(a);
        reference::ssd(reversed.args());
        CAPTURE(s.text());
        CHECK(worst_of_budget(reversed, flipped).error <= 1);
        s.reverse = false;  // a palindrome would have passed so far
        const ssd_problem<double> forward(s);
        reference::ssd(forward.args());
        CHECK(worst_of_budget(forward, flipped).error > 1);
    }
}

/// Where sequences begin in tests of packing: next to the edges of chunks of 8 and of registers, one of a single token, two
/// without any.
const std::vector<index> starts = {0, 1, 7, 8, 8, 9, 15, 16, 17, 17, 24, 31, 32, 33, 40};

TEMPLATE_TEST_CASE("ssd reference: packed sequences are what each is alone", "", double, bfloat16)
{
    using real = compute_t<TestType>;
    for (const bool reverse : {false, true}) {
        for (const packing packed : {packing::seq_idx, packing::cu_seqlens}) {
            const bool cut = packed == packing::cu_seqlens;
            ssd_setup s{.batch = cut ? 1 : 2, .length = 40, .tied_D = true, .z = true, .initial_state = cut, .reverse = reverse};
            s.chunk = 8;
            ssd_problem<TestType> p(s);  // packed by hand
            const ssd_problem<TestType> alone(s);
            const auto sequences = static_cast<index>(starts.size()) - 1;
            p.setup.packed = packed;
            if (cut) {
                p.cu_seqlens = tensor<index, 1>(std::array{sequences + 1});
                p.cu_seqlens.fill([](index i) { return starts[static_cast<std::size_t>(i)]; });
                random numbers(8);
                p.initial_state = tensor<real, 4>(p.states());
                p.initial_state.fill(numbers, {-1, 1});
                p.log_decay = {};
                p.chunk_states = {};
                p.prev_states = {};
                p.final_state = tensor<real, 4>(p.states());
            } else {
                p.seq_idx = tensor<std::int32_t, 2>(std::array{s.batch, s.length});
                p.seq_idx.fill([](index, index t) {  // falling, with jumps: numbers need not ascend
                    const auto at = std::upper_bound(starts.begin(), starts.end(), t) - starts.begin();
                    return static_cast<std::int32_t>(1000 - at * at);
                });
            }
            reference::ssd(p.args());
            index last_nonempty = 0;
            for (index i = 0; i < sequences; ++i) {
                const index first = starts[static_cast<std::size_t>(i)], end = starts[static_cast<std::size_t>(i + 1)];
                CAPTURE(s.text(), i, first, end);
                auto a = time_slice(alone.args(), first, end - first);
                if (cut) a.initial_state = view<const real, 4>(p.initial_state).slice(0, i, 1);
                reference::ssd(a);
                CHECK(same_bits(p.y.view().slice(1, first, end - first), a.y));
                CHECK(same_bits(p.y_ungated.view().slice(1, first, end - first), a.y_ungated));
                if (cut) CHECK(same_bits(p.final_state.view().slice(0, i, 1), a.final_state));
                if (cut && first == end) CHECK(same_bits(p.final_state.view()[i], p.initial_state.view()[i]));
                if (first < end) last_nonempty = i;
                const index after = reverse ? s.length - first : end;  // tokens visited when the sequence ends
                if (!cut && first < end && after % s.chunk == 0 && after < s.length) {
                    CHECK(same_bits(p.prev_states.view().transposed(0, 1)[after / s.chunk], a.final_state));
                }
                if (!cut && first < end && after == s.length) CHECK(same_bits(p.final_state.view(), a.final_state));
            }
            CHECK(last_nonempty == sequences - 1);
        }
    }
}

TEST_CASE("ssd reference: the initial state belongs to sequence 0")
{
    ssd_setup s{.batch = 1, .length = 9, .initial_state = true};
    ssd_problem<double> p(s), none(s);
    none.initial_state = {};
    p.seq_idx = tensor<std::int32_t, 2>(std::array<index, 2>{1, 9});
    none.seq_idx = tensor<std::int32_t, 2>(std::array<index, 2>{1, 9});
    for (const std::int32_t first : {0, 1, 7}) {
        for (auto* problem : {&p, &none}) {
            problem->seq_idx.fill([&](index, index t) { return t < 2 ? -1 : t < 5 ? first : first + 1; });
            reference::ssd(problem->args());
        }
        CAPTURE(first);
        CHECK(same_bits(p.y.view().slice(1, 2, 3), none.y.view().slice(1, 2, 3)) == (first != 0));
        CHECK(same_bits(p.y.view().slice(1, 5, 4), none.y.view().slice(1, 5, 4)));
        CHECK(same_bits(p.final_state, none.final_state));
    }
}

/// Overwrites what belongs to tokens for which `which(b, t)` holds, in everything that has tokens.
template <class T, class Which>
void spoil(const ssd_problem<T>& p, double with, Which&& which)
{
    const auto overwrite = [&](const auto& x) {
        if (!x.given()) return;
        for_each_index(x.view(), [&](index b, index t, auto... i) {
            if (which(b, t)) x(b, t, i...) = convert<T>(with);
        });
    };
    overwrite(p.u);
    overwrite(p.delta);
    overwrite(p.B);
    overwrite(p.C);
    overwrite(p.z);
}

TEMPLATE_TEST_CASE("ssd reference: nothing of one packed sequence reaches another, be it NaN or infinite", "", double, bfloat16)
{
    for (const packing packed : {packing::seq_idx, packing::cu_seqlens}) {
        for (const double with : {std::nan(""), infinity, 1e30}) {
            for (const index victim : {0, 2, 4}) {
                ssd_setup s{.batch = 1, .length = 40, .D = true, .z = true, .initial_state = true, .packed = packed};
                ssd_problem<TestType> p(s), clean(s);
                const std::vector<index> edges = {0, 5, 8, 15, 33, 40};
                const auto sequence_of = [&](index t) {
                    return std::upper_bound(edges.begin(), edges.end(), t) - edges.begin() - 1;
                };
                for (auto* problem : {&p, &clean}) {
                    if (packed == packing::cu_seqlens) {
                        problem->cu_seqlens.fill([&](index i) { return edges[static_cast<std::size_t>(i)]; });
                    } else {
                        problem->seq_idx.fill([&](index, index t) { return static_cast<std::int32_t>(sequence_of(t)); });
                    }
                }
                spoil(p, with, [&](index, index t) { return sequence_of(t) == victim; });
                if (packed == packing::cu_seqlens) {
                    for_each_index(p.initial_state.view()[victim],
                                   [&](auto... i) { p.initial_state(victim, i...) = convert<compute_t<TestType>>(with); });
                }
                reference::ssd(p.args());
                reference::ssd(clean.args());
                CAPTURE(s.text(), with, victim);
                for (index i = 0; i < 5; ++i) {
                    const index first = edges[static_cast<std::size_t>(i)];
                    const index count = edges[static_cast<std::size_t>(i + 1)] - first;
                    const bool same = same_bits(p.y.view().slice(1, first, count), clean.y.view().slice(1, first, count));
                    CHECK(same == (i != victim));
                    if (packed == packing::cu_seqlens) {
                        CHECK(same_bits(p.final_state.view()[i], clean.final_state.view()[i]) == (i != victim));
                    } else {
                        CHECK(same_bits(p.log_decay.view().slice(1, first, count),
                                        clean.log_decay.view().slice(1, first, count)) == (i != victim));
                    }
                }
                if (packed == packing::seq_idx) {
                    CHECK(same_bits(p.final_state, clean.final_state) == (victim != 4));
                    for (index c = 0; c < 5; ++c) {  // the state before a chunk is that of the sequence of the token before it
                        const bool hit = c > 0 && sequence_of(8 * c - 1) == victim;
                        CHECK(same_bits(p.prev_states.view()[0][c], clean.prev_states.view()[0][c]) == !hit);
                        const bool end_hit = sequence_of(8 * c + 7) == victim;
                        CHECK(same_bits(p.chunk_states.view()[0][c], clean.chunk_states.view()[0][c]) == !end_hit);
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("ssd reference: padding reaches nothing and gives zeros", "", double, bfloat16)
{
    for (const index batch : {1, 4}) {
        for (const double with : {0.0, 1e30, infinity, std::nan("")}) {
            ssd_setup s{.batch = batch, .length = 40, .tied_D = true, .z = true, .initial_state = true};
            ssd_problem<TestType> p(s);
            const ssd_problem<TestType> clean(s);
            p.setup.packed = packing::seq_idx;
            p.seq_idx = tensor<std::int32_t, 2>(std::array{batch, s.length});
            // At the left (row 0), at the right (row 1), on both sides (row 2), everywhere (row 3).
            const auto first = [](index b) -> index { return b % 2 == 0 ? 3 + 6 * b : 0; };
            const auto end = [&](index b) -> index { return b == 3 ? 0 : b > 0 ? 29 : s.length; };
            const auto is_padding = [&](index b, index t) { return t < first(b) || t >= end(b); };
            p.seq_idx.fill([&](index b, index t) { return static_cast<std::int32_t>(is_padding(b, t) ? -1 - t : 0); });
            spoil(p, with, is_padding);
            reference::ssd(p.args());
            for (index b = 0; b < batch; ++b) {
                CAPTURE(batch, with, b);
                const index count = std::max<index>(end(b) - first(b), 0);
                const auto a = time_slice(clean.args(), first(b), count);
                reference::ssd(a);
                CHECK(same_bits(p.y.view()[b].slice(0, first(b), count), a.y[b]));
                CHECK(same_bits(p.final_state.view()[b], a.final_state[b]));
                for (index t = 0; t < s.length; ++t) {
                    if (!is_padding(b, t)) continue;
                    for_each_index(p.y.view()[b][t], [&](auto... i) {
                        REQUIRE(convert<double>(p.y(b, t, i...)) == 0);
                        REQUIRE(convert<double>(p.y_ungated(b, t, i...)) == 0);
                    });
                    for (index head = 0; head < s.nheads; ++head) REQUIRE(p.delta_out(b, t, head) == 0);
                }
            }
        }
    }
}

TEST_CASE("ssd reference: a NaN reaches exactly the outputs that depend on it")
{
    // An output depends on an input if it changes with it: decay is slow here, and no step is clamped.
    for (const packing packed : {packing::none, packing::seq_idx, packing::cu_seqlens}) {
        for (const bool reverse : {false, true}) {
            ssd_setup s{.batch = packed == packing::cu_seqlens ? 1 : 2, .length = 19, .nheads = 4, .headdim = 2, .state = 3};
            s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
            s.reverse = reverse;
            s.packed = packed;
            s.chunk = 5;
            s.seed = 12;
            const auto slow = [&] {
                ssd_problem<double> p(s);
                random numbers(77);
                p.A.fill(numbers, {-0.2, -0.01});
                return p;
            };
            const auto base = slow();
            reference::ssd(base.args());
            int reached = 0;
            const auto probe = [&](const char* name, auto member, auto... at) {
                const ssd_problem<double> p = slow(), changed = slow();
                member(changed)(at...) += 0.37;
                member(p)(at...) = std::nan("");
                reference::ssd(changed.args());
                reference::ssd(p.args());
                const auto matches = [&](const auto& out, const auto& before, const auto& after) {
                    bool same = true;
                    for_each_index(out.view(), [&](auto... i) {
                        same &= is_nan(out(i...)) == (before(i...) != after(i...));
                        reached += is_nan(out(i...));
                    });
                    return same;
                };
                CAPTURE(name, s.text());
                CHECK(matches(p.y, base.y, changed.y));
                CHECK(matches(p.y_ungated, base.y_ungated, changed.y_ungated));
                CHECK(matches(p.final_state, base.final_state, changed.final_state));
                CHECK(matches(p.delta_out, base.delta_out, changed.delta_out));
                CHECK(matches(p.log_decay, base.log_decay, changed.log_decay));
                CHECK(matches(p.prev_states, base.prev_states, changed.prev_states));
                // Where nothing precedes it in its chunk or sequence, a decay meets a state of zero, and zero times NaN is NaN.
                const std::string of = name;
                if (of != "A" && of != "delta" && of != "delta_bias") {
                    CHECK(matches(p.chunk_states, base.chunk_states, changed.chunk_states));
                }
            };
            const index b = s.batch - 1;
            for (const index t : {0, 7, 12, 18}) {
                probe("u", [](auto& p) -> auto& { return p.u; }, b, t, 3, 1);
                probe("delta", [](auto& p) -> auto& { return p.delta; }, b, t, 1);
                probe("z", [](auto& p) -> auto& { return p.z; }, b, t, 2, 0);
                probe("B", [](auto& p) -> auto& { return p.B; }, b, t, 1, 2);
                probe("C", [](auto& p) -> auto& { return p.C; }, b, t, 0, 1);
            }
            if (packed == packing::none) probe("A", [](auto& p) -> auto& { return p.A; }, 2);
            probe("D", [](auto& p) -> auto& { return p.D; }, 3, 1);
            probe("delta_bias", [](auto& p) -> auto& { return p.delta_bias; }, 0);
            probe("initial_state", [](auto& p) -> auto& { return p.initial_state; }, b, 2, 1, 1);
            CHECK(reached > 100);
        }
    }
}

TEST_CASE("ssd reference: bias, then softplus, then the limits")
{
    // With A = 0 and B = C = u = 1 the output of the first token is its step.
    const auto step_of = [](float raw, float bias, bool softplus, float low, float high) {
        const float one = 1, zero = 0;
        float y = -1;
        ssd_args<float> a{.u = {&one, 1, 1, 1, 1},
                          .delta = {&raw, 1, 1, 1},
                          .A = {&zero, 1},
                          .B = {&one, 1, 1, 1, 1},
                          .C = {&one, 1, 1, 1, 1},
                          .delta_bias = {&bias, 1},
                          .delta_softplus = softplus,
                          .y = {&y, 1, 1, 1, 1}};
        if (low != 0 || high != 0) {
            a.delta_min = low;
            a.delta_max = high;
        }
        reference::ssd(a);
        return y;
    };
    const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
    volatile float raw = -1;  // not folded by the compiler, whose functions round differently
    const float softplus_of_minus_one = std::log1p(std::exp(float(raw)));
    CHECK(step_of(0.5f, 0.25f, false, 0, 0) == 0.75f);
    CHECK(step_of(-0.5f, 0.25f, false, 0, 0) == 0);         // by default negative steps are none
    CHECK(step_of(1e30f, 0, false, 0, 0) == 1e30f);         // and large ones stay
    CHECK(step_of(-0.5f, 0.25f, false, -inf, inf) == -0.25f);
    CHECK(step_of(0.5f, 0.25f, false, 1, 2) == 1);
    CHECK(step_of(3, 0, false, 1, 2) == 2);
    CHECK(step_of(-1, 0, true, 0, 0) == softplus_of_minus_one);  // softplus before the limits: positive, kept
    CHECK(step_of(-1, 0, true, 0.5f, 1) == 0.5f);
    CHECK(step_of(-3, 2, true, 0.1f, 1) == softplus_of_minus_one);  // bias before softplus
    CHECK(step_of(20, 0, true, 0, 0) == 20);
    CHECK(step_of(21, 0, true, 0, 0) == 21);
    CHECK(step_of(1e7f, 0, true, 0, 0) == 1e7f);
    for (const float x : {-15.0f, -17.0f, -40.0f, -80.0f}) {
        CHECK(std::abs(step_of(x, 0, true, 0, 0) / std::exp(x) - 1) <= 1e-6f);  // about e^x, not 0
    }
    CHECK(step_of(-1e7f, 0, true, 0, 0) == 0);
    for (const bool softplus : {false, true}) {
        CHECK(std::isnan(step_of(nan, 0, softplus, 0, 0)));
        CHECK(std::isnan(step_of(nan, 0, softplus, 0.1f, 1)));
    }
}

TEST_CASE("ssd reference: a step of size zero keeps the state as it is")
{
    const ssd_setup s{.batch = 2, .length = 21, .initial_state = true};
    for (const double step : {0.0, -0.5}) {  // a negative one is clamped
        ssd_problem<float> p(s);
        p.delta.fill([&](auto...) { return static_cast<float>(step); });
        reference::ssd(p.args());
        CHECK(same_bits(p.final_state, p.initial_state));
    }
}

TEST_CASE("ssd reference: an input that is prescaled is the product of step and input")
{
    ssd_setup s{.delta_bias = true, .delta_softplus = true, .limits = true, .initial_state = true};
    const ssd_problem<double> p(s);
    reference::ssd(p.args());
    s.prescaled = true;
    ssd_problem<double> scaled(s);
    scaled.u.fill([&](index b, index t, index head, index channel) {
        return p.delta_out(b, t, head) * p.u(b, t, head, channel);
    });
    reference::ssd(scaled.args());
    CHECK(worst_of_budget(scaled, p).error <= 1);

    // The paper's minimal form: delta is the logarithm of the decay.
    ssd_problem<double> minimal(s);
    minimal.u.fill([&](auto... i) { return scaled.u(i...); });
    minimal.delta.fill([&](index b, index t, index head) { return p.delta_out(b, t, head) * p.A(head); });
    minimal.A.fill([](index) { return 1.0; });
    auto a = minimal.args();
    a.delta_bias = {};
    a.delta_softplus = false;
    a.delta_min = -infinity;
    a.delta_max = infinity;
    reference::ssd(a);
    CHECK(relative_error(minimal.y, p.y) <= 1e-13);
    CHECK(relative_error(minimal.final_state, p.final_state) <= 1e-13);
    CHECK(relative_error(minimal.log_decay, p.log_decay) <= 1e-13);
}

TEST_CASE("ssd reference: decay rates over twelve decades, and none")
{
    const double rates[] = {-0.0, -1e-6, -1e-4, -1e-2, -1, -1e2, -1e4, -1e6};
    for (const index chunk : {1, 64, 256}) {
        ssd_setup s{.batch = 1, .length = 300, .nheads = 8, .headdim = 2, .ngroups = 1, .state = 3, .initial_state = true};
        s.chunk = chunk;
        ssd_problem<float> p(s);
        p.A.fill([&](index head) { return static_cast<float>(rates[head]); });
        p.delta.fill([](auto...) { return 1.0f; });
        const auto expected = p.wide();
        reference::ssd(p.args());
        reference::ssd(expected.args());
        for (index head = 0; head < s.nheads; ++head) {
            CAPTURE(rates[head], chunk);
            constexpr double slow = 300 * 2.5 * 0x1p-23;  // 300 decays next to one have 300 roundings to go wrong by
            CHECK(relative_error(p.y.view().slice(2, head, 1), expected.y.view().slice(2, head, 1)) <= slow);
            CHECK(relative_error(p.final_state.view().slice(1, head, 1), expected.final_state.view().slice(1, head, 1)) <= slow);
        }
        // What decays at once remembers nothing: the state is the last input alone.
        const index t = s.length - 1;
        CHECK(p.final_state(0, 7, 1, 2) == p.u(0, t, 7, 1) * p.B(0, t, 0, 2));
    }
}

TEST_CASE("ssd reference: growing modes grow, unclamped")
{
    ssd_setup s{.batch = 1, .length = 20, .initial_state = true};
    ssd_problem<double> growing(s), backwards(s);
    random numbers(3);
    growing.A.fill(numbers, {0.5, 2});
    backwards.delta.fill(numbers, {-1, -0.1});
    for (auto* p : {&growing, &backwards}) {
        const auto expected = p->wide();
        auto a = p->args(), b = expected.args();
        a.delta_min = b.delta_min = -infinity;
        reference::ssd(a);
        dual_form(b);
        CHECK(worst_of_budget(*p, expected).error <= 1);
        CHECK(std::abs(p->final_state(0, 0, 0, 0)) > 10);
    }
}

TEMPLATE_TEST_CASE("ssd reference: a slowly decaying state does not drift over a long sequence", "", float, bfloat16)
{
    // Steady input: 16 bits of state would be off by 0.7 % to 89 % after 8192 tokens.
    for (const double decay : {1e-2, 1e-4, 1e-6}) {
        const index length = 50000;
        ssd_setup s{.batch = 1, .length = length, .nheads = 1, .headdim = 1, .ngroups = 1, .state = 1, .chunk = 256};
        ssd_problem<TestType> p(s);
        const auto one = [](auto...) { return convert<TestType>(1.0); };
        p.delta.fill(one);
        p.u.fill(one);
        p.B.fill(one);
        p.A.fill([&](auto...) { return static_cast<float>(-decay); });
        reference::ssd(p.args());
        const double rate = static_cast<double>(static_cast<float>(-decay));
        const double expected = std::expm1(rate * static_cast<double>(length)) / std::expm1(rate);
        CAPTURE(decay);
        // Every decay is off by a rounding or two, and the state remembers 1 / decay of them, or all.
        const double remembered = std::min(1 / decay, static_cast<double>(length));
        CHECK(std::abs(static_cast<double>(p.final_state(0, 0, 0, 0)) / expected - 1) <= 2.5 * 0x1p-23 * remembered);
        for (index t = 0; t < length; ++t) REQUIRE(std::isfinite(convert<double>(p.y(0, t, 0, 0))));
        CHECK(std::abs(static_cast<double>(p.log_decay(0, 511, 0)) / (256 * rate) - 1) <= 256 * 0x1p-24);
    }
}

TEST_CASE("ssd reference: empty extents")
{
    const auto run = [](const ssd_setup& s) {
        const ssd_problem<float> p(s);
        reference::ssd(p.args());
        return p.final_state.as<float>();
    };
    run({.batch = 0, .length = 5, .initial_state = true});
    run({.batch = 2, .length = 5, .nheads = 0, .ngroups = 0});
    run({.batch = 2, .length = 5, .nheads = 0, .ngroups = 2});
    run({.batch = 2, .length = 5, .headdim = 0, .z = true});

    for (const packing packed : {packing::none, packing::seq_idx, packing::cu_seqlens}) {  // without tokens the state stays
        ssd_setup s{.batch = 1, .length = 0, .initial_state = true, .packed = packed};
        const ssd_problem<float> p(s);
        reference::ssd(p.args());
        CHECK(same_bits(p.final_state, p.initial_state));
        s.initial_state = false;
        for_each_index(p.final_state.view(), [&, zeros = run(s)](auto... i) { CHECK(zeros(i...) == 0); });
    }

    const std::vector<index> no_sequence = {0};
    const ssd_problem<float> none({.batch = 1, .length = 0});
    auto a = none.args();
    a.cu_seqlens = {no_sequence, 1};
    a.final_state = {none.final_state.view().data(), {0, 4, 3, 5}};
    a.log_decay = {};
    a.chunk_states = a.prev_states = {};
    reference::ssd(a);
    CHECK(is_nan(none.final_state(0, 0, 0, 0)));  // nothing written

    ssd_problem<float> stateless({.state = 0, .D = true});  // the skip is what remains
    stateless.delta(0, 3, 1) = std::nanf("");
    reference::ssd(stateless.args());
    for_each_index(stateless.y.view(), [&](index b, index t, index head, index channel) {
        REQUIRE(stateless.y(b, t, head, channel) == stateless.D(head, channel) * stateless.u(b, t, head, channel));
    });
}

TEST_CASE("ssd reference: outputs that are not asked for change nothing")
{
    ssd_setup s{.D = true, .z = true, .initial_state = true};
    const ssd_problem<float> all(s), few(s);
    reference::ssd(all.args());
    auto a = few.args();
    a.y_ungated = {};
    a.final_state = {};
    a.delta_out = a.log_decay = {};
    a.chunk_states = a.prev_states = {};
    reference::ssd(a);
    CHECK(same_bits(all.y, few.y));
    CHECK(is_nan(few.final_state(0, 0, 0, 0)));
}

TEST_CASE("ssd reference: names the argument that does not fit")
{
    ssd_setup s{.batch = 2, .length = 37, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 5};
    s.D = s.z = s.delta_bias = s.initial_state = true;
    s.packed = packing::seq_idx;
    const ssd_problem<float> p(s);
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return message_of([&] { reference::ssd(a); });
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };

    CHECK(complaint([](auto& a) { a.delta = a.delta.slice(1, 0, 36); }) ==
          "ssd: delta has shape (2, 36, 4), expected (batch = 2, length = 37, nheads = 4)");
    CHECK(begins(complaint([](auto& a) { a.u = {}; }), "ssd: delta has shape (2, 37, 4), expected (batch = 0"));
    CHECK(begins(complaint([](auto& a) { a.A = a.A.slice(0, 0, 3); }), "ssd: A has shape (3), expected (nheads = 4)"));
    CHECK(begins(complaint([](auto& a) { a.B = a.B.slice(1, 0, 3); }), "ssd: B has shape (2, 3, 2, 5)"));
    CHECK(complaint([](auto& a) { a.C = a.C.slice(3, 0, 4); }) ==
          "ssd: C has shape (2, 37, 2, 4), expected (batch = 2, length = 37, ngroups = 2, state = 5)");
    CHECK(begins(complaint([](auto& a) { a.C = a.C.slice(2, 0, 1); }), "ssd: C has shape (2, 37, 1, 5)"));
    CHECK(complaint([](auto& a) { a.B = a.C = {a.B.data(), {2, 37, 3, 5}, {0, 0, 0, 1}}; }) ==
          "ssd: B has 3 groups, expected a divisor of 4 channels");
    CHECK(begins(complaint([](auto& a) { a.B = a.C = {a.B.data(), {2, 37, 0, 5}, {0, 0, 0, 1}}; }), "ssd: B has 0 groups"));
    CHECK(complaint([](auto& a) { a.D = a.D.slice(1, 0, 1); }) == "ssd: D has shape (4, 1), expected (nheads = 4, headdim = 3)");
    CHECK(begins(complaint([](auto& a) { a.z = a.z.slice(3, 0, 2); }), "ssd: z has shape (2, 37, 4, 2)"));
    CHECK(begins(complaint([](auto& a) { a.delta_bias = a.delta_bias.slice(0, 0, 1); }), "ssd: delta_bias has shape (1)"));
    CHECK(complaint([](auto& a) { a.delta_min = 2, a.delta_max = 1; }) == "ssd: delta_min is not at most delta_max");
    CHECK(begins(complaint([](auto& a) { a.delta_max = std::nanf(""); }), "ssd: delta_min is not"));
    CHECK(complaint([](auto& a) { a.chunk = 0; }) == "ssd: chunk is below 1");
    CHECK(complaint([](auto& a) { a.chunk = -8; }) == "ssd: chunk is below 1");
    CHECK(begins(complaint([](auto& a) { a.seq_idx = a.seq_idx.slice(1, 0, 1); }), "ssd: seq_idx has shape (2, 1)"));
    CHECK(complaint([](auto& a) { a.initial_state = a.initial_state.slice(0, 0, 1); }) ==
          "ssd: initial_state has shape (1, 4, 3, 5), expected (sequences = 2, nheads = 4, headdim = 3, state = 5)");
    CHECK(begins(complaint([](auto& a) { a.initial_state = a.initial_state.transposed(2, 3); }),
                 "ssd: initial_state has shape (2, 4, 5, 3)"));
    CHECK(begins(complaint([](auto& a) { a.y = {}; }), "ssd: y has shape (0, 0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.y_ungated = a.y_ungated.slice(2, 0, 1); }), "ssd: y_ungated has shape (2, 37, 1, 3)"));
    CHECK(begins(complaint([](auto& a) { a.final_state = a.final_state.slice(0, 0, 1); }), "ssd: final_state has shape (1, "));
    CHECK(begins(complaint([](auto& a) { a.delta_out = a.delta_out.slice(1, 0, 1); }), "ssd: delta_out has shape (2, 1, 4)"));
    CHECK(begins(complaint([](auto& a) { a.log_decay = a.log_decay.slice(1, 0, 1); }), "ssd: log_decay has shape (2, 1, 4)"));
    CHECK(begins(complaint([](auto& a) { a.chunk_states = a.chunk_states.slice(1, 0, 4); }),
                 "ssd: chunk_states has shape (2, 4, 4, 3, 5), expected (batch = 2, chunks = 5, "));
    CHECK(begins(complaint([](auto& a) { a.chunk = 7; }),
                 "ssd: chunk_states has shape (2, 5, 4, 3, 5), expected (batch = 2, chunks = 6"));
    CHECK(begins(complaint([](auto& a) { a.prev_states = a.prev_states.slice(0, 0, 1); }), "ssd: prev_states has shape (1, "));

    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.u.data()), 2, 37, 4, 3}; }) == "ssd: y overlaps u in memory");
    CHECK(complaint([](auto& a) { a.y_ungated = a.y; }) == "ssd: y_ungated overlaps y in memory");
    CHECK(complaint([](auto& a) { a.final_state = {const_cast<float*>(a.initial_state.data()), 2, 4, 3, 5}; }) ==
          "ssd: final_state overlaps initial_state in memory");
    CHECK(complaint([](auto& a) { a.prev_states = a.chunk_states; }) == "ssd: prev_states overlaps chunk_states in memory");
    CHECK(complaint([](auto& a) { a.y = {a.y.data(), {2, 37, 4, 3}, {444, 12, 3, 0}}; }) ==
          "ssd: y is written but has stride 0 along an axis");
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });  // thrown before anything was written
    CHECK(complaint([](auto& a) { a.delta_min = a.delta_max = 1; }) == "nothing thrown");
}

TEST_CASE("ssd reference: cu_seqlens must cut one row from its beginning to its end")
{
    ssd_setup s{.batch = 1, .length = 10, .initial_state = true, .packed = packing::cu_seqlens};
    const ssd_problem<float> p(s);
    const auto complaint = [&](const std::vector<index>& ends, auto&& spoil) {
        auto a = p.args();
        a.cu_seqlens = {ends.data(), static_cast<index>(ends.size())};
        spoil(a);
        return message_of([&] { reference::ssd(a); });
    };
    const auto nothing = [](auto&) {};
    const std::vector<index> good = {0, 3, 3, 4, 9, 10};
    CHECK(complaint(good, nothing) == "nothing thrown");
    for (const auto& ends : {std::vector<index>{0, 3, 3, 4, 9, 9}, {0, 3, 3, 4, 9, 11}, {0, 3, 2, 4, 9, 10}, {1, 3, 3, 4, 9, 10},
                             {-1, 3, 3, 4, 9, 10}, {0, 3, 3, 4, 11, 10}, {5}, {0}}) {
        CHECK(complaint(ends, nothing) == "ssd: cu_seqlens is not ascending from 0 to length");
    }
    const index one = 0;
    CHECK(complaint({}, [&](auto& a) { a.cu_seqlens = {&one, 0}; }) ==
          "ssd: cu_seqlens is empty, expected sequences + 1 elements");
    CHECK(complaint({0, 4, 10}, nothing).find("ssd: initial_state has shape (5, 4, 3, 5), expected (sequences = 2, ") == 0);
    CHECK(complaint({0, 4, 10}, [](auto& a) { a.initial_state = {}; }).find("ssd: final_state has shape (5, ") == 0);
    const std::vector<std::int32_t> ids(10);
    CHECK(complaint(good, [&](auto& a) { a.seq_idx = {ids, 1, 10}; }) == "ssd: cu_seqlens is given together with seq_idx");
    std::vector<float> sink(1000);
    CHECK(complaint(good, [&](auto& a) { a.log_decay = {sink, 1, 10, 4}; }) == "ssd: log_decay is asked for with cu_seqlens");
    CHECK(complaint(good, [&](auto& a) { a.chunk_states = {sink, 1, 2, 4, 3, 5}; }) ==
          "ssd: chunk_states is asked for with cu_seqlens");
    CHECK(complaint(good, [&](auto& a) { a.prev_states = {sink, 1, 2, 4, 3, 5}; }) ==
          "ssd: prev_states is asked for with cu_seqlens");

    const ssd_problem<float> two({.batch = 2, .length = 10});
    auto a = two.args();
    a.cu_seqlens = {good.data(), 6};
    CHECK(message_of([&] { reference::ssd(a); }) == "ssd: cu_seqlens is given for a batch that is not 1");
}

}  // namespace
}  // namespace ssmkit::testing
