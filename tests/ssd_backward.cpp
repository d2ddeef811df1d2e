#include <ssmkit/ssd_backward.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include <ssmkit/reference/ssd_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "ssd_problem.hpp"

// The kernel against the reference, which tests/ssd_backward_reference.cpp holds against slopes of the loss.

namespace ssmkit::testing {
namespace {

template <class T>
inline constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

template <class T>
worst_error against_reference(const ssd_backward_problem<T>& p)
{
    ssd_backward(p.args());
    const auto expected = p.wide();
    reference::ssd_backward(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("ssd_backward: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; ++bits) {
        ssd_setup s = ssd_setup{.batch = 2, .length = 37, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 5}.with_options(bits);
        constexpr index groups[] = {1, 2, 4};
        s.ngroups = groups[bits % 3];
        if (bits % 32 == 5) s.nheads += 32;  // more heads than go side by side
        s.headdim += bits / 7 % 2 * lanes<TestType>;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        const ssd_backward_problem<TestType> p(s, bits % 5 != 0);
        const auto inputs = p.input_bytes();
        const worst_error worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEMPLATE_TEST_CASE("ssd_backward: every headdim and state size", "", float, double, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const index headdim : {index{0}, index{1}, n - 1, n, n + 1, 2 * n, 3 * n + 2, 4 * n, 5 * n}) {
        for (const index state : {0, 1, 3, 4, 5, 16, 17, 64}) {
            ssd_setup s{.batch = 1, .length = 41, .nheads = 2, .headdim = headdim, .ngroups = 1, .state = state};
            s.D = s.z = s.initial_state = true;
            const worst_error worst = against_reference(ssd_backward_problem<TestType>(s));
            CAPTURE(s.text(), worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("ssd_backward: every length", "", float, double, bfloat16)
{
    std::vector<index> lengths(71);
    std::iota(lengths.begin(), lengths.end(), index{0});
    lengths.insert(lengths.end(), {255, 256, 257, 300});
    for (const index length : lengths) {
        ssd_setup s{.batch = 2, .length = length, .nheads = 2, .headdim = lanes<TestType> + 1, .ngroups = 2, .state = 6};
        s.z = s.delta_softplus = s.initial_state = true;
        s.reverse = length % 3 == 0;
        s.packed = length % 4 == 1 ? packing::seq_idx : packing::none;
        const worst_error worst = against_reference(ssd_backward_problem<TestType>(s, length % 2 == 0));
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
    }
}

TEST_CASE("ssd_backward: an empty batch, or one without heads, has gradients of zero")
{
    for (ssd_setup s : {ssd_setup{.batch = 0}, ssd_setup{.nheads = 0, .ngroups = 1}}) {
        s.initial_state = true;
        CHECK(against_reference(ssd_backward_problem<float>(s)).error <= 1);
    }
}

TEMPLATE_TEST_CASE("ssd_backward: sums along every axis of stride 0", "", float, bfloat16)
{
    using real = compute_t<TestType>;
    ssd_setup s{.batch = 3, .length = 37, .nheads = 6, .headdim = 5, .ngroups = 3, .state = 4};
    s.D = true;
    for (unsigned axes = 0; axes < 8; ++axes) {
        const ssd_backward_problem<TestType> p(s), q(s);
        const auto summed = [&](tensor<real, 4>& of) {
            auto strides = of.view().strides();
            for (std::size_t axis = 0; axis < 3; ++axis) {
                if (axes >> axis & 1) strides[axis] = 0;
            }
            return view<real, 4>(of.view().data(), of.view().extents(), strides);
        };
        const auto with_sums = [&](const ssd_backward_problem<TestType>& of) {
            ssd_backward_args<TestType> a = of.args();
            a.dB = summed(const_cast<tensor<real, 4>&>(of.dB));
            a.dC = summed(const_cast<tensor<real, 4>&>(of.dC));
            return a;
        };
        const auto kernel = with_sums(p), expected = with_sums(q);
        ssd_backward(kernel);
        reference::ssd_backward(expected);
        CAPTURE(axes);
        CHECK(relative_error(p.dB, q.dB) <= 2e-5);
        CHECK(relative_error(p.dC, q.dC) <= 2e-5);
    }
}

TEMPLATE_TEST_CASE("ssd_backward: gradients asked for one at a time are those asked for together", "", float, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 70, .nheads = 6, .headdim = lanes<TestType> + 3, .ngroups = 2, .state = 5};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
    s.packed = packing::seq_idx;
    const ssd_backward_problem<TestType> all(s);
    ssd_backward(all.args());
    const auto expected = all.output_bytes();
    for (std::size_t one = 0; one < expected.size(); ++one) {
        const ssd_backward_problem<TestType> p(s);
        ssd_backward_args<TestType> a = p.args(), only{.forward = a.forward, .dy = a.dy, .dfinal_state = a.dfinal_state};
        if (one == 0) only.du = a.du;
        if (one == 1) only.ddelta = a.ddelta;
        if (one == 2) only.dz = a.dz;
        if (one == 3) only.dA = a.dA;
        if (one == 4) only.dB = a.dB;
        if (one == 5) only.dC = a.dC;
        if (one == 6) only.dD = a.dD;
        if (one == 8) only.ddelta_bias = a.ddelta_bias;
        if (one == 9) only.dinitial_state = a.dinitial_state;
        std::vector<std::byte> memory(ssd_backward_workspace_size(only), std::byte{0x5a});  // a zero is nobody's luck
        ssd_backward(only, workspace(memory));
        CAPTURE(one);
        CHECK(p.output_bytes()[one] == expected[one]);
    }
}

TEMPLATE_TEST_CASE("ssd_backward: after a decay of any strength, mild ones are as exact as before", "", float, double)
{
    ssd_setup s{.batch = 1, .length = 64, .nheads = 1, .headdim = 5, .ngroups = 1, .state = 4};
    s.initial_state = true;
    for (const double strong : {1e2, 1e6}) {
        ssd_backward_problem<TestType> p(s);
        p.forward.A.fill([](index) { return TestType(-1); });
        p.forward.delta.fill([&](index, index t, index) { return static_cast<TestType>(t == 9 || t == 40 ? strong : 0.01); });
        p.forward.u.fill([&](index, index t, index, index) { return static_cast<TestType>(t == 9 || t == 40 ? 1 / strong : 1); });
        ssd_backward(p.args());
        const auto expected = p.wide();
        reference::ssd_backward(expected.args());
        CAPTURE(strong);
        const auto ordinary = [&](const auto& out, const auto& of) {  // du of the strong tokens is that much larger
            double worst = 0, size = 0;
            for (index t = 0; t < s.length; ++t) {
                if (t == 9 || t == 40) continue;
                for (index c = 0; c < s.headdim; ++c) {
                    worst = std::max(worst, std::abs(static_cast<double>(out(0, t, 0, c)) - of(0, t, 0, c)));
                    size = std::max(size, std::abs(of(0, t, 0, c)));
                }
            }
            return worst / size;
        };
        CHECK(ordinary(p.du, expected.du) <= ssd_backward_budget<TestType>);
        CHECK(relative_error(p.dC, expected.dC) <= ssd_backward_budget<TestType>);
        CHECK(relative_error(p.dinitial_state, expected.dinitial_state) <= ssd_backward_budget<TestType>);
    }
}

TEMPLATE_TEST_CASE("ssd_backward: a NaN reaches what the equations say, and nothing else", "", float, double, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 70, .nheads = 4, .headdim = 9, .ngroups = 2, .state = 6};
    s.D = s.z = s.delta_softplus = s.initial_state = true;
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const packing packed : {packing::none, packing::seq_idx}) {
        s.packed = packed;
        for (const index t : {0, 3, 31, 32, 33, 69}) {
            const auto probe = [&](const char* name, auto&& poison) {
                const ssd_backward_problem<TestType> p(s);
                poison(p);
                const auto expected = p.wide();
                reference::ssd_backward(expected.args());
                ssd_backward(p.args());
                const auto matches = [&](const auto& out, const auto& of) {
                    bool same = true;
                    for_each_index(out.view(), [&](auto... i) { same &= is_nan(out(i...)) == is_nan(of(i...)); });
                    return same;
                };
                CAPTURE(name, t, s.text());
                CHECK(matches(p.du, expected.du));
                CHECK(matches(p.dz, expected.dz));
                CHECK(matches(p.ddelta, expected.ddelta));
                CHECK(matches(p.dB, expected.dB));
                CHECK(matches(p.dC, expected.dC));
                CHECK(matches(p.dD, expected.dD));
                CHECK(matches(p.dA, expected.dA));
                CHECK(matches(p.dinitial_state, expected.dinitial_state));
            };
            probe("u", [&](auto& p) { p.forward.u(1, t, 2, 4) = nan; });
            probe("z", [&](auto& p) { p.forward.z(1, t, 2, 4) = nan; });
            probe("delta", [&](auto& p) { p.forward.delta(1, t, 2) = nan; });
            probe("B", [&](auto& p) { p.forward.B(1, t, 1, 2) = nan; });
            probe("C", [&](auto& p) { p.forward.C(1, t, 1, 2) = nan; });
            probe("dy", [&](auto& p) { p.dy(1, t, 2, 4) = nan; });
        }
    }
}

TEMPLATE_TEST_CASE("ssd_backward: neither threads nor the workspace change a bit", "", float, double, bfloat16)
{
    struct shape {
        index batch, length, nheads, ngroups;
    };
    for (const shape& of : {shape{1, 300, 6, 1}, shape{3, 40, 4, 2}, shape{2, 7, 1, 1}}) {
        ssd_setup s{.batch = of.batch, .length = of.length, .nheads = of.nheads, .headdim = 11, .ngroups = of.ngroups, .state = 7};
        s.z = s.delta_softplus = true;
        s.D = s.initial_state = of.batch != 1;  // both ways: what is not given is zero, not what the workspace held
        s.packed = of.batch == 3 ? packing::seq_idx : packing::none;
        const ssd_backward_problem<TestType> p(s, of.batch != 1);
        CAPTURE(s.text());
        ssd_backward(p.args());
        const auto expected = p.output_bytes();
        for (const std::size_t count : {1, 2, 3}) {
            threads pool(count);
            const ssd_backward_problem<TestType> q(s, of.batch != 1);
            ssd_backward(q.args(), pool);
            CHECK(q.output_bytes() == expected);
        }
        const std::size_t need = ssd_backward_workspace_size(p.args(), 4);
        for (const int poison : {0x00, 0xff, 0x7f, 0x5a}) {
            std::vector<std::byte> memory(need + 3, static_cast<std::byte>(poison));
            const ssd_backward_problem<TestType> q(s, of.batch != 1);
            ssd_backward(q.args(), workspace(memory).subspan(3), last_task_first{});
            CHECK(q.output_bytes() == expected);
        }
    }
}

TEST_CASE("ssd_backward: allocates nothing when it is lent a workspace")
{
    ssd_setup s{.batch = 2, .length = 100, .nheads = 4, .headdim = 20, .ngroups = 2, .state = 7};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
    s.packed = packing::seq_idx;
    const ssd_backward_problem<float> p(s);
    threads pool(2);
    std::vector<std::byte> memory(ssd_backward_workspace_size(p.args(), 2));
    CHECK(allocations_during([&] {
              ssd_backward(p.args(), memory);
              ssd_backward(p.args(), memory, pool);
          }) == 0);
}

TEMPLATE_TEST_CASE("ssd_backward: touches nothing outside its arguments and its workspace", "", float, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index headdim : {index{1}, n - 1, n, n + 1}) {
                for (const index state : {1, 3, 17}) {
                    for (const index length : {1, 31, 32, 33, 65}) {
                        ssd_setup s{.batch = 1, .length = length, .nheads = 2, .headdim = headdim, .ngroups = 1, .state = state};
                        s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
                        s.packed = length == 65 ? packing::seq_idx : packing::none;
                        s.inputs = s.outputs = form;
                        s.edge = edge;
                        const ssd_backward_problem<TestType> p(s);
                        const std::size_t need = ssd_backward_workspace_size(p.args());
                        const raw_memory lent(need, edge);
                        CAPTURE(s.text());
                        ssd_backward(p.args(), workspace(lent.data(), need));
                        s.edge = guard::none;
                        const ssd_backward_problem<TestType> q(s);
                        ssd_backward(q.args());
                        REQUIRE(p.output_bytes() == q.output_bytes());
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace ssmkit::testing
