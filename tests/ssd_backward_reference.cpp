#include <ssmkit/reference/ssd_backward.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

TEST_CASE("ssd_backward reference: the slope of the loss in every input, whatever is switched on")
{
    constexpr unsigned D = 1, tied_D = 2, z = 4, delta_bias = 8, delta_softplus = 16, limits = 32, prescaled = 64,
                       initial_state = 128, reverse = 256;
    constexpr unsigned seq_idx = 1u << ssd_setup::options, cu_seqlens = 2u << ssd_setup::options;
    for (const unsigned bits :
         {0u, D | z | delta_bias | delta_softplus | initial_state, tied_D | z | limits | initial_state | reverse,
          prescaled | D | delta_softplus | delta_bias, prescaled | limits | z | seq_idx, seq_idx | tied_D | z | initial_state,
          seq_idx | D | delta_softplus | initial_state | reverse, cu_seqlens | z | delta_bias | initial_state | D,
          cu_seqlens | tied_D | delta_softplus | limits | prescaled | initial_state | reverse,
          limits | delta_softplus | delta_bias}) {
        ssd_setup s = ssd_setup{.batch = 2, .length = 7, .nheads = 4, .headdim = 2, .ngroups = 2, .state = 3}.with_options(bits);
        s.seed = 33 + bits;
        const ssd_backward_problem<double> p(s);
        reference::ssd_backward(p.args());

        // The loss: every output times the gradient that is claimed for it.
        const auto loss = [&] {
            reference::ssd(p.forward.args());
            double sum = 0;
            for_each_index(p.dy.view(), [&](auto... i) { sum += p.dy(i...) * p.forward.y(i...); });
            for_each_index(p.dfinal_state.view(), [&](auto... i) { sum += p.dfinal_state(i...) * p.forward.final_state(i...); });
            return sum;
        };
        // Central differences: an error of step^2 times the third derivative and of 1e-16 / step. No raw step lies so close
        // to a limit that the slope changes within the difference: its bits come from the seed.
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
        const ssd_problem<double>& f = p.forward;
        compare("u", f.u, p.du);
        compare("delta", f.delta, p.ddelta);
        compare("A", f.A, p.dA);
        compare("B", f.B, p.dB);
        compare("C", f.C, p.dC);
        compare("D", f.D, p.dD);
        compare("tied D", f.tied_D, p.dtied_D);
        compare("z", f.z, p.dz);
        compare("delta_bias", f.delta_bias, p.ddelta_bias);
        compare("initial_state", f.initial_state, p.dinitial_state);
        CHECK(compared >= 5);
    }
}

TEST_CASE("ssd_backward reference: gradients of what is not given are those of zeros")
{
    ssd_setup s{};
    const ssd_backward_problem<double> absent(s);
    s.D = s.delta_bias = s.initial_state = true;
    ssd_backward_problem<double> zeros(s);
    const auto share = [&](auto member) {
        const auto& from = member(absent.forward);
        member(zeros.forward).fill([&](auto... i) { return from(i...); });
    };
    share([](auto& p) -> auto& { return p.u; });
    share([](auto& p) -> auto& { return p.delta; });
    share([](auto& p) -> auto& { return p.A; });
    share([](auto& p) -> auto& { return p.B; });
    share([](auto& p) -> auto& { return p.C; });
    zeros.dy.fill([&](auto... i) { return absent.dy(i...); });
    zeros.dfinal_state.fill([&](auto... i) { return absent.dfinal_state(i...); });
    zeros.forward.D.fill([](auto...) { return 0.0; });
    zeros.forward.delta_bias.fill([](auto...) { return 0.0; });
    zeros.forward.initial_state.fill([](auto...) { return 0.0; });
    reference::ssd_backward(absent.args());
    reference::ssd_backward(zeros.args());
    const worst_error worst = worst_of_budget(absent, zeros);
    CAPTURE(worst.name);
    CHECK(worst.error <= 1);
    CHECK(std::abs(absent.dD(1, 1)) > 1e-3);
    CHECK(std::abs(absent.dinitial_state(1, 1, 1, 1)) > 1e-5);
}

TEMPLATE_TEST_CASE("ssd_backward reference: narrower types differ from double by their rounding", "", float, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; bits += 7) {
        ssd_setup s = ssd_setup{}.with_options(bits);
        s.seed = bits;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        const ssd_backward_problem<TestType> p(s, bits % 5 != 0);
        const auto inputs = p.input_bytes();
        const auto expected = p.wide();
        reference::ssd_backward(p.args());
        reference::ssd_backward(expected.args());
        const worst_error worst = worst_of_budget(p, expected);
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEST_CASE("ssd_backward reference: sums dB, dC and dD over every axis along which their views have stride 0")
{
    ssd_setup s{.batch = 3, .length = 13, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 3, .D = true, .z = true};
    const ssd_backward_problem<double> p(s), full(s);
    reference::ssd_backward(full.args());
    for (unsigned axes = 0; axes < 8; ++axes) {
        CAPTURE(axes);
        const auto kept = [&](unsigned axis, index i) { return axes & (1u << axis) ? 0 : i; };
        const auto extent = [&](unsigned axis, index n) { return axes & (1u << axis) ? 1 : n; };
        auto a = p.args();
        const auto check_sum = [&](auto& gradient, const auto& summands) {
            const std::array extents{extent(0, s.batch), extent(1, s.length), extent(2, s.ngroups), s.state};
            tensor<double, 4> sum(extents), expected(extents);
            expected.fill([](auto...) { return 0.0; });
            for_each_index(summands.view(), [&](index b, index t, index g, index n) {
                expected(kept(0, b), kept(1, t), kept(2, g), n) += summands(b, t, g, n);
            });
            auto strides = sum.view().strides();
            for (unsigned axis = 0; axis < 3; ++axis) strides[axis] = axes & (1u << axis) ? 0 : strides[axis];
            gradient = {sum.view().data(), {s.batch, s.length, s.ngroups, s.state}, strides};
            reference::ssd_backward(a);
            CHECK(relative_error(sum, expected) <= 1e-13);
            gradient = {};
        };
        check_sum(a.dB, full.dB);
        check_sum(a.dC, full.dC);

        const std::array extents{extent(0, s.nheads), extent(1, s.headdim)};
        tensor<double, 2> sum(extents), expected(extents);
        expected.fill([](auto...) { return 0.0; });
        for_each_index(full.dD.view(), [&](index head, index channel) {
            expected(kept(0, head), kept(1, channel)) += full.dD(head, channel);
        });
        auto strides = sum.view().strides();
        for (unsigned axis = 0; axis < 2; ++axis) strides[axis] = axes & (1u << axis) ? 0 : strides[axis];
        a.dD = {sum.view().data(), {s.nheads, s.headdim}, strides};
        reference::ssd_backward(a);
        CHECK(relative_error(sum, expected) <= 1e-13);
    }
}

TEST_CASE("ssd_backward reference: gradients asked for one at a time are those asked for together")
{
    ssd_setup s{.D = true, .z = true, .delta_bias = true, .delta_softplus = true, .initial_state = true};
    s.packed = packing::seq_idx;
    const ssd_backward_problem<float> together(s);
    reference::ssd_backward(together.args());
    const auto alone = [&](auto member_of_args, auto member) {
        const ssd_backward_problem<float> p(s);
        auto a = p.args();
        const auto wanted = member_of_args(a);
        a.du = a.dz = {};
        a.ddelta = {};
        a.dA = a.ddelta_bias = {};
        a.dB = a.dC = a.dinitial_state = {};
        a.dD = {};
        member_of_args(a) = wanted;
        reference::ssd_backward(a);
        return same_bits(member(p), member(together));
    };
    CHECK(alone([](auto& a) -> auto& { return a.du; }, [](auto& p) -> auto& { return p.du; }));
    CHECK(alone([](auto& a) -> auto& { return a.ddelta; }, [](auto& p) -> auto& { return p.ddelta; }));
    CHECK(alone([](auto& a) -> auto& { return a.dz; }, [](auto& p) -> auto& { return p.dz; }));
    CHECK(alone([](auto& a) -> auto& { return a.dA; }, [](auto& p) -> auto& { return p.dA; }));
    CHECK(alone([](auto& a) -> auto& { return a.dB; }, [](auto& p) -> auto& { return p.dB; }));
    CHECK(alone([](auto& a) -> auto& { return a.dC; }, [](auto& p) -> auto& { return p.dC; }));
    CHECK(alone([](auto& a) -> auto& { return a.dD; }, [](auto& p) -> auto& { return p.dD; }));
    CHECK(alone([](auto& a) -> auto& { return a.ddelta_bias; }, [](auto& p) -> auto& { return p.ddelta_bias; }));
    CHECK(alone([](auto& a) -> auto& { return a.dinitial_state; }, [](auto& p) -> auto& { return p.dinitial_state; }));
}

TEST_CASE("ssd_backward reference: gradients flow through a cut by way of the carried state")
{
    for (const bool reverse : {false, true}) {
        ssd_setup s{.batch = 2, .length = 33, .D = true, .z = true, .delta_bias = true, .initial_state = true};
        s.reverse = reverse;
        const ssd_backward_problem<double> whole(s);
        reference::ssd_backward(whole.args());
        for (const index cut : {0, 1, 7, 8, 9, 32, 33}) {
            CAPTURE(cut, reverse);
            const ssd_backward_problem<double> parts(s);
            const tensor<double, 4> carried(parts.forward.states()), dcarried(parts.forward.states());
            auto first = time_slice(parts.args(), reverse ? s.length - cut : 0, cut);
            auto second = time_slice(parts.args(), reverse ? 0 : cut, s.length - cut);
            auto run = first.forward;
            run.final_state = carried;
            reference::ssd(run);
            second.forward.initial_state = carried;
            second.dinitial_state = dcarried;
            first.dfinal_state = dcarried;
            const tensor<double, 1> dA(parts.dA.view().extents()), ddelta_bias(parts.dA.view().extents());
            const tensor<double, 2> dD(parts.dD.view().extents());
            second.dA = dA;
            second.dD = dD;
            second.ddelta_bias = ddelta_bias;
            reference::ssd_backward(second);
            reference::ssd_backward(first);
            for_each_index(dA.view(), [&](auto... i) {
                parts.dA(i...) += dA(i...);
                parts.ddelta_bias(i...) += ddelta_bias(i...);
            });
            for_each_index(dD.view(), [&](auto... i) { parts.dD(i...) += dD(i...); });
            const worst_error worst = worst_of_budget(parts, whole);
            CAPTURE(worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

const std::vector<index> starts = {0, 1, 7, 8, 8, 9, 15, 16, 17, 17, 24, 31, 32, 33, 40};

/// Packs a problem into these sequences; with cu_seqlens, one state and one gradient for each.
template <class T>
void pack(ssd_backward_problem<T>& p, packing packed)
{
    using real = compute_t<T>;
    ssd_problem<T>& f = p.forward;
    const ssd_setup& s = f.setup;
    f.setup.packed = packed;
    if (packed == packing::seq_idx) {
        f.seq_idx = tensor<std::int32_t, 2>(std::array{s.batch, s.length});
        f.seq_idx.fill([](index, index t) {
            return static_cast<std::int32_t>(std::upper_bound(starts.begin(), starts.end(), t) - starts.begin());
        });
    } else {
        f.cu_seqlens = tensor<index, 1>(std::array{static_cast<index>(starts.size())});
        f.cu_seqlens.fill([](index i) { return starts[static_cast<std::size_t>(i)]; });
    }
    random numbers(8);
    f.initial_state = tensor<real, 4>(f.states());
    f.initial_state.fill(numbers, {-1, 1});
    p.dfinal_state = tensor<real, 4>(f.states());
    p.dfinal_state.fill(numbers, {-1, 1});
    p.dinitial_state = tensor<real, 4>(f.states());
}

TEMPLATE_TEST_CASE("ssd_backward reference: the gradients of packed sequences are those of each alone", "", double, bfloat16)
{
    using real = compute_t<TestType>;
    for (const bool reverse : {false, true}) {
        for (const packing packed : {packing::seq_idx, packing::cu_seqlens}) {
            const bool cut = packed == packing::cu_seqlens;
            const ssd_setup s{.batch = cut ? 1 : 2, .length = 40, .tied_D = true, .z = true, .reverse = reverse};
            ssd_backward_problem<TestType> p(s);
            const ssd_backward_problem<TestType> alone(s);
            pack(p, packed);
            reference::ssd_backward(p.args());
            tensor<real, 1> dA(p.dA.view().extents()), dD(p.dA.view().extents());
            dA.fill([](auto...) { return real(0); });
            dD.fill([](auto...) { return real(0); });
            for (index i = 0; i + 1 < static_cast<index>(starts.size()); ++i) {
                const index first = starts[static_cast<std::size_t>(i)], end = starts[static_cast<std::size_t>(i + 1)];
                CAPTURE(s.text(), i, first, end);
                auto a = time_slice(alone.args(), first, end - first);
                // With seq_idx only the sequence visited last meets the final gradient, and none of number 0 is there.
                a.dfinal_state = {};
                if (cut) {
                    a.forward.initial_state = view<const real, 4>(p.forward.initial_state).slice(0, i, 1);
                    a.dfinal_state = view<const real, 4>(p.dfinal_state).slice(0, i, 1);
                } else if (reverse ? first == 0 : end == s.length) {
                    a.dfinal_state = p.dfinal_state;
                }
                reference::ssd_backward(a);
                CHECK(same_bits(p.du.view().slice(1, first, end - first), a.du));
                CHECK(same_bits(p.ddelta.view().slice(1, first, end - first), a.ddelta));
                CHECK(same_bits(p.dz.view().slice(1, first, end - first), a.dz));
                CHECK(same_bits(p.dB.view().slice(1, first, end - first), a.dB));
                CHECK(same_bits(p.dC.view().slice(1, first, end - first), a.dC));
                if (cut) CHECK(same_bits(p.dinitial_state.view().slice(0, i, 1), a.dinitial_state));
                for_each_index(dA.view(), [&](index head) {
                    dA(head) += a.dA[head];
                    dD(head) += alone.dtied_D(head);
                });
            }
            CHECK(relative_error(p.dA, dA) <= ssd_backward_budget<real>);
            CHECK(relative_error(p.dtied_D, dD) <= ssd_backward_budget<real>);
            if (!cut) for_each_index(p.dinitial_state.view(), [&](auto... i) { CHECK(p.dinitial_state(i...) == 0); });
        }
    }
}

TEMPLATE_TEST_CASE("ssd_backward reference: no gradient of a packed sequence depends on another, be that NaN or infinite", "", double,
                   bfloat16)
{
    using real = compute_t<TestType>;
    for (const packing packed : {packing::seq_idx, packing::cu_seqlens}) {
        for (const double with : {std::nan(""), infinity, 1e30}) {
            for (const index victim : {0, 6, 11, 13}) {  // none of the empty ones
                const ssd_setup s{.batch = 1, .length = 40, .D = true, .z = true, .delta_softplus = true};
                ssd_backward_problem<TestType> p(s), clean(s);
                pack(p, packed);
                pack(clean, packed);
                const index from = starts[static_cast<std::size_t>(victim)], to = starts[static_cast<std::size_t>(victim + 1)];
                const auto spoil = [&](const auto& x) {
                    using E = typename std::decay_t<decltype(x.view())>::value_type;
                    for_each_index(x.view().slice(1, from, to - from), [&](index b, index t, auto... i) {
                        x(b, from + t, i...) = convert<E>(with);
                    });
                };
                spoil(p.forward.u);
                spoil(p.forward.delta);
                spoil(p.forward.B);
                spoil(p.forward.C);
                spoil(p.forward.z);
                spoil(p.dy);
                if (packed == packing::cu_seqlens) {
                    for (auto* states : {&p.forward.initial_state, &p.dfinal_state}) {
                        for_each_index(states->view()[victim],
                                       [&](auto... i) { (*states)(victim, i...) = convert<real>(with); });
                    }
                }
                reference::ssd_backward(p.args());
                reference::ssd_backward(clean.args());
                for (index i = 0; i + 1 < static_cast<index>(starts.size()); ++i) {
                    const index first = starts[static_cast<std::size_t>(i)], end = starts[static_cast<std::size_t>(i + 1)];
                    CAPTURE(s.text(), with, victim, i);
                    const auto same = [&](const auto& a, const auto& b) {
                        return same_bits(a.view().slice(1, first, end - first), b.view().slice(1, first, end - first));
                    };
                    if (i == victim) {
                        CHECK(!same(p.du, clean.du));
                        continue;
                    }
                    CHECK(same(p.du, clean.du));
                    CHECK(same(p.ddelta, clean.ddelta));
                    CHECK(same(p.dz, clean.dz));
                    CHECK(same(p.dB, clean.dB));
                    CHECK(same(p.dC, clean.dC));
                    if (packed == packing::cu_seqlens) {
                        CHECK(same_bits(p.dinitial_state.view()[i], clean.dinitial_state.view()[i]));
                    }
                }
                if (packed == packing::seq_idx) CHECK(same_bits(p.dinitial_state, clean.dinitial_state));
            }
        }
    }
}

TEMPLATE_TEST_CASE("ssd_backward reference: padding has no gradient and adds to none", "", double, bfloat16)
{
    for (const double with : {0.0, 1e30, infinity, std::nan("")}) {
        ssd_setup s{.batch = 3, .length = 40, .tied_D = true, .z = true, .delta_bias = true, .initial_state = true};
        ssd_backward_problem<TestType> p(s), clean(s);
        // At the left (row 0), at the right (row 1), everywhere (row 2).
        const auto is_padding = [](index b, index t) { return b == 0 ? t < 9 : b == 1 ? t >= 17 : true; };
        for (auto* problem : {&p, &clean}) {
            problem->forward.seq_idx = tensor<std::int32_t, 2>(std::array{s.batch, s.length});
            problem->forward.seq_idx.fill([&](index b, index t) { return is_padding(b, t) ? -1 : 0; });
        }
        const auto spoil = [&](const auto& x) {
            using E = typename std::decay_t<decltype(x.view())>::value_type;
            for_each_index(x.view(), [&](index b, index t, auto... i) {
                if (is_padding(b, t)) x(b, t, i...) = convert<E>(with);
            });
        };
        spoil(p.forward.u);
        spoil(p.forward.delta);
        spoil(p.forward.B);
        spoil(p.forward.C);
        spoil(p.forward.z);
        spoil(p.dy);
        reference::ssd_backward(p.args());
        reference::ssd_backward(clean.args());
        CAPTURE(with);
        CHECK(p.output_bytes() == clean.output_bytes());
        const auto zero_there = [&](const auto& x) {
            for_each_index(x.view(), [&](index b, index t, auto... i) {
                if (is_padding(b, t)) REQUIRE(convert<double>(x(b, t, i...)) == 0);
            });
        };
        zero_there(p.du);
        zero_there(p.ddelta);
        zero_there(p.dz);
        zero_there(p.dB);
        zero_there(p.dC);
        CHECK(same_bits(p.dinitial_state.view()[2], p.dfinal_state.view()[2]));  // nothing but padding: passed through
    }
}

TEST_CASE("ssd_backward reference: a step outside the limits has no gradient, one on a limit has it")
{
    ssd_setup s{.batch = 1, .length = 5, .nheads = 1, .headdim = 2, .ngroups = 1, .limits = true, .initial_state = true};
    for (const bool softplus : {false, true}) {
        ssd_backward_problem<double> p(s);
        const double raw[] = {-2, 0.125, 0.5, 0.75, 3};  // the limits are 0.125 and 0.75
        p.forward.delta.fill([&](index, index t, index) { return raw[t]; });
        auto a = p.args();
        if (softplus) {
            a.forward.delta_softplus = true;
            a.forward.delta_min = reference::parts::softplus(p.forward.delta(0, 1, 0));
            a.forward.delta_max = reference::parts::softplus(p.forward.delta(0, 3, 0));
        }
        reference::ssd_backward(a);
        double sum = 0;
        for (index t = 0; t < 5; ++t) {
            CAPTURE(t, softplus);
            CHECK((p.ddelta(0, t, 0) != 0) == (t > 0 && t < 4));
            sum += p.ddelta(0, t, 0);
        }
        CHECK(std::abs(p.ddelta_bias(0) - sum) <= 1e-13 * std::abs(sum));

        a.forward.delta_min = 0;  // the default: only the negative step is out
        a.forward.delta_max = infinity;
        reference::ssd_backward(a);
        CHECK((p.ddelta(0, 0, 0) != 0) == softplus);
        for (index t = 1; t < 5; ++t) CHECK(p.ddelta(0, t, 0) != 0);
    }

    // Where the clamp hides the step, not even an infinite gradient reaches it; a NaN that passes the clamp does.
    ssd_backward_problem<double> p(s);
    p.forward.delta.fill([](index, index t, index) { return t == 2 ? -1.0 : 0.5; });
    p.dy.fill([](auto...) { return infinity; });
    reference::ssd_backward(p.args());
    CHECK(p.ddelta(0, 2, 0) == 0);
    p.forward.delta(0, 2, 0) = std::nan("");
    reference::ssd_backward(p.args());
    CHECK(is_nan(p.ddelta(0, 2, 0)));
}

TEST_CASE("ssd_backward reference: a NaN reaches exactly the gradients that depend on it")
{
    // A gradient depends on an input if it changes with it: decay is slow here, and no step is clamped.
    for (const packing packed : {packing::none, packing::seq_idx, packing::cu_seqlens}) {
        ssd_setup s{.batch = packed == packing::cu_seqlens ? 1 : 2, .length = 19, .nheads = 4, .headdim = 2, .state = 3};
        s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
        s.packed = packed;
        s.seed = 12;
        const auto slow = [&] {
            ssd_backward_problem<double> p(s);
            random numbers(77);
            p.forward.A.fill(numbers, {-0.2, -0.01});
            return p;
        };
        const auto base = slow();
        reference::ssd_backward(base.args());
        int reached = 0;
        const auto probe = [&](const char* name, auto member, auto... at) {
            const ssd_backward_problem<double> p = slow(), changed = slow();
            member(changed)(at...) += 0.37;
            member(p)(at...) = std::nan("");
            reference::ssd_backward(changed.args());
            reference::ssd_backward(p.args());
            const auto matches = [&](const auto& out, const auto& before, const auto& after) {
                bool same = true;
                for_each_index(out.view(), [&](auto... i) {
                    same &= is_nan(out(i...)) == (before(i...) != after(i...));
                    reached += is_nan(out(i...));
                });
                return same;
            };
            CAPTURE(name, s.text());
            CHECK(matches(p.du, base.du, changed.du));
            CHECK(matches(p.ddelta, base.ddelta, changed.ddelta));
            CHECK(matches(p.dz, base.dz, changed.dz));
            // Where a sequence begins the state is zero, and zero times NaN is NaN, though nothing depends on it.
            if (packed == packing::none) CHECK(matches(p.dA, base.dA, changed.dA));
            CHECK(matches(p.dB, base.dB, changed.dB));
            CHECK(matches(p.dC, base.dC, changed.dC));
            CHECK(matches(p.dD, base.dD, changed.dD));
            CHECK(matches(p.ddelta_bias, base.ddelta_bias, changed.ddelta_bias));
            CHECK(matches(p.dinitial_state, base.dinitial_state, changed.dinitial_state));
        };
        const index b = s.batch - 1;
        for (const index t : {0, 7, 18}) {
            probe("dy", [](auto& p) -> auto& { return p.dy; }, b, t, 3, 1);
            probe("u", [](auto& p) -> auto& { return p.forward.u; }, b, t, 3, 1);
            probe("delta", [](auto& p) -> auto& { return p.forward.delta; }, b, t, 1);
            probe("z", [](auto& p) -> auto& { return p.forward.z; }, b, t, 2, 0);
            probe("B", [](auto& p) -> auto& { return p.forward.B; }, b, t, 1, 2);
            probe("C", [](auto& p) -> auto& { return p.forward.C; }, b, t, 0, 1);
        }
        probe("dfinal_state", [](auto& p) -> auto& { return p.dfinal_state; }, b, 2, 1, 1);
        probe("D", [](auto& p) -> auto& { return p.forward.D; }, 3, 1);
        probe("initial_state", [](auto& p) -> auto& { return p.forward.initial_state; }, b, 2, 1, 1);
        CHECK(reached > 100);
    }
}

TEST_CASE("ssd_backward reference: strong decay gives numbers, and the right ones")
{
    // Chunk kernels that mask after the exponential give NaN once a chunk decays by e^700.
    const double rates[] = {-0.0, -1e-6, -1e-2, -1, -1e2, -1e3, -1e4, -1e6};
    ssd_setup s{.batch = 1, .length = 64, .nheads = 8, .headdim = 2, .ngroups = 2, .state = 3, .z = true, .initial_state = true};
    s.chunk = 64;
    ssd_backward_problem<float> p(s);
    p.forward.A.fill([&](index head) { return static_cast<float>(rates[head]); });
    p.forward.delta.fill([](index, index t, index) { return static_cast<float>(20 + t % 3); });
    const auto expected = p.wide();
    reference::ssd_backward(p.args());
    reference::ssd_backward(expected.args());
    const worst_error worst = worst_of_budget(p, expected);
    CAPTURE(worst.name);
    CHECK(worst.error <= 1);
    for_each_index(p.du.view(), [&](auto... i) { REQUIRE(std::isfinite(p.du(i...))); });
    for_each_index(p.ddelta.view(), [&](auto... i) { REQUIRE(std::isfinite(p.ddelta(i...))); });
    CHECK(p.dA(7) == 0);  // nothing is remembered, so nothing depends on how fast it is forgotten
    CHECK(p.dinitial_state(0, 7, 1, 1) == 0);
}

TEST_CASE("ssd_backward reference: empty extents")
{
    const auto zeros = [](const auto& x) {
        for_each_index(x.view(), [&](auto... i) { REQUIRE(x(i...) == 0); });
    };
    for (const index batch : {0, 2}) {  // without tokens the state's gradient passes through
        const ssd_backward_problem<float> p({.batch = batch, .length = 0, .D = true, .initial_state = true});
        reference::ssd_backward(p.args());
        zeros(p.dA);
        zeros(p.dD);
        zeros(p.ddelta_bias);
        CHECK(same_bits(p.dinitial_state, p.dfinal_state));
    }
    const ssd_backward_problem<float> headless({.nheads = 0, .ngroups = 2});
    reference::ssd_backward(headless.args());
    zeros(headless.dB);
    zeros(headless.dC);
    const ssd_backward_problem<float> no_channels({.headdim = 0, .z = true});
    reference::ssd_backward(no_channels.args());
    zeros(no_channels.dA);
    zeros(no_channels.dB);
    zeros(no_channels.ddelta);

    ssd_backward_problem<float> stateless({.state = 0, .D = true, .delta_softplus = true});
    stateless.forward.delta(0, 3, 1) = std::nanf("");
    reference::ssd_backward(stateless.args());
    zeros(stateless.ddelta);
    zeros(stateless.ddelta_bias);
    zeros(stateless.dA);
    for_each_index(stateless.du.view(), [&](index b, index t, index head, index channel) {
        REQUIRE(stateless.du(b, t, head, channel) == stateless.forward.D(head, channel) * stateless.dy(b, t, head, channel));
    });
}

TEST_CASE("ssd_backward reference: names the argument that does not fit")
{
    ssd_setup s{.batch = 2, .length = 37, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 5};
    s.D = s.z = s.delta_bias = s.initial_state = true;
    s.packed = packing::seq_idx;
    const ssd_backward_problem<float> p(s);
    const auto complaint = [&](auto&& spoil) -> std::string {
        auto a = p.args();
        spoil(a);
        try {
            reference::ssd_backward(a);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "nothing thrown";
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    const std::string op = "ssd_backward: ";

    CHECK(complaint([](auto& a) { a.dy = a.dy.slice(1, 0, 36); }) ==
          op + "dy has shape (2, 36, 4, 3), expected (batch = 2, length = 37, nheads = 4, headdim = 3)");
    CHECK(begins(complaint([](auto& a) { a.dy = {}; }), op + "dy has shape (0, 0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.forward.delta = a.forward.delta.slice(1, 0, 3); }), op + "delta has shape"));
    CHECK(begins(complaint([](auto& a) { a.forward.C = a.forward.C.slice(3, 0, 3); }), op + "C has shape (2, 37, 2, 3)"));
    CHECK(complaint([](auto& a) { a.forward.chunk = 0; }) == op + "chunk is below 1");
    CHECK(complaint([](auto& a) { a.forward.delta_max = -1; }) == op + "delta_min is not at most delta_max");
    CHECK(complaint([](auto& a) { a.dfinal_state = a.dfinal_state.slice(0, 0, 1); }) ==
          op + "dfinal_state has shape (1, 4, 3, 5), expected (sequences = 2, nheads = 4, headdim = 3, state = 5)");
    CHECK(begins(complaint([](auto& a) { a.du = a.du.slice(1, 0, 1); }), op + "du has shape (2, 1, 4, 3)"));
    CHECK(begins(complaint([](auto& a) { a.ddelta = a.ddelta.slice(1, 0, 1); }), op + "ddelta has shape (2, 1, 4)"));
    CHECK(begins(complaint([](auto& a) { a.dz = a.dz.slice(1, 0, 1); }), op + "dz has shape (2, 1, 4, 3)"));
    CHECK(complaint([](auto& a) { a.forward.z = {}; }) == op + "dz is asked for without a z");
    CHECK(begins(complaint([](auto& a) { a.dA = a.dA.slice(0, 0, 1); }), op + "dA has shape (1)"));
    CHECK(begins(complaint([](auto& a) { a.dB = {a.dB.data(), {2, 37, 4, 5}, {0, 0, 5, 1}}; }),
                 op + "dB has shape (2, 37, 4, 5), expected (batch = 2, length = 37, ngroups = 2, state = 5)"));
    CHECK(begins(complaint([](auto& a) { a.dC = a.dC.slice(3, 0, 1); }), op + "dC has shape (2, 37, 2, 1)"));
    CHECK(complaint([](auto& a) { a.dB = {a.dB.data(), {2, 37, 2, 5}, {0, 0, 0, 0}}; }) == op + "dB has stride 0 along state");
    CHECK(complaint([](auto& a) { a.dC = {a.dC.data(), {2, 37, 2, 5}, {0, 0, 0, 0}}; }) == op + "dC has stride 0 along state");
    CHECK(begins(complaint([](auto& a) { a.dD = a.dD.slice(1, 0, 1); }), op + "dD has shape (4, 1)"));
    CHECK(begins(complaint([](auto& a) { a.ddelta_bias = a.ddelta_bias.slice(0, 0, 1); }), op + "ddelta_bias has shape (1)"));
    CHECK(begins(complaint([](auto& a) { a.dinitial_state = a.dinitial_state.slice(0, 0, 1); }), op + "dinitial_state has"));
    CHECK(complaint([](auto& a) { a.ddelta = {a.ddelta.data(), {2, 37, 4}, {0, 4, 1}}; }) ==
          op + "ddelta is written but has stride 0 along an axis");
    CHECK(complaint([](auto& a) { a.du = {const_cast<float*>(a.dy.data()), 2, 37, 4, 3}; }) == op + "du overlaps dy in memory");
    CHECK(complaint([](auto& a) { a.dC = a.dB; }) == op + "dC overlaps dB in memory");
    CHECK(complaint([](auto& a) { a.dinitial_state = {const_cast<float*>(a.dfinal_state.data()), 2, 4, 3, 5}; }) ==
          op + "dinitial_state overlaps dfinal_state in memory");
    const std::vector<index> ends = {0, 37};
    CHECK(complaint([&](auto& a) { a.forward.cu_seqlens = {ends.data(), 2}; }) ==
          op + "cu_seqlens is given for a batch that is not 1");
    for_each_index(p.du.view(), [&](auto... i) { REQUIRE(is_nan(p.du(i...))); });  // thrown before anything was written
    for_each_index(p.dA.view(), [&](auto... i) { REQUIRE(is_nan(p.dA(i...))); });
    CHECK(complaint([](auto&) {}) == "nothing thrown");
}

}  // namespace
}  // namespace ssmkit::testing
