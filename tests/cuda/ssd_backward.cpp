#include <limits>

#include <ssmkit/reference/ssd_backward.hpp>

#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

/// Gradients in units of the CPU's budget; bfloat16's products round their operands, as golden_check's bound allows for.
template <class T>
worst_error compared(const ssd_backward_problem<T>& p)
{
    const auto expected = p.wide();
    reference::ssd_backward(expected.args());
    if constexpr (!std::is_same_v<T, bfloat16>) {
        return worst_of_budget(p, expected);
    } else {
        constexpr double rounded = 2e-2, cancelled = 6e-2;  // a few heads' sums over all tokens, of both signs, may all come out small
        worst_error worst;
        worst.add("du", relative_error(p.du, expected.du) / rounded);
        worst.add("ddelta", relative_error(p.ddelta, expected.ddelta) / rounded);
        worst.add("dz", relative_error(p.dz, expected.dz) / rounded);
        worst.add("dA", relative_error(p.dA, expected.dA) / cancelled);
        worst.add("dB", relative_error(p.dB, expected.dB) / rounded);
        worst.add("dC", relative_error(p.dC, expected.dC) / rounded);
        worst.add("dD", relative_error(p.dD, expected.dD) / rounded);
        worst.add("tied dD", relative_error(p.dtied_D, expected.dtied_D) / rounded);
        worst.add("ddelta_bias", relative_error(p.ddelta_bias, expected.ddelta_bias) / cancelled);
        worst.add("dinitial_state", relative_error(p.dinitial_state, expected.dinitial_state) / rounded);
        return worst;
    }
}

template <class T>
worst_error against_reference(const ssd_backward_problem<T>& p)
{
    run_on_device(p.args());
    return compared(p);
}

TEMPLATE_TEST_CASE("cuda::ssd_backward: agrees with the reference, whatever is switched on", "", float, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; ++bits) {
        ssd_setup s = ssd_setup{.batch = 2, .length = 37, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 5}.with_options(bits);
        constexpr index groups[] = {1, 2, 4};
        s.ngroups = groups[bits % 3];
        if (bits % 7 == 0) s.length = 150, s.headdim = 24, s.state = 16;  // more than a chunk, in vectors
        if (bits % 32 == 5) s.nheads += 32;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        const ssd_backward_problem<TestType> p(s, bits % 5 != 0);
        const auto inputs = p.input_bytes();
        const worst_error worst = against_reference(p);
        CAPTURE(s.text(), worst.name, worst.error);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEMPLATE_TEST_CASE("cuda::ssd_backward: every length, headdim and state size", "", float, bfloat16, float16)
{
    const auto agrees = [](ssd_setup s) {
        s.D = s.z = s.delta_softplus = s.initial_state = true;
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            s.inputs = s.outputs = form;
            const worst_error worst = against_reference(ssd_backward_problem<TestType>(s, s.length % 2 == 0));
            CAPTURE(s.text(), worst.name, worst.error);
            REQUIRE(worst.error <= 1);
            s.z = !s.z;
        }
    };
    for (const index length : {0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 257, 1000}) {
        for (const packing packed : {packing::none, packing::seq_idx, packing::cu_seqlens}) {
            agrees({.batch = packed == packing::cu_seqlens ? 1 : 2, .length = length, .nheads = 2, .headdim = 16, .ngroups = 1,
                    .state = 24, .packed = packed});
        }
    }
    for (const index headdim : {0, 1, 7, 8, 16, 31, 64, 65, 72, 128, 256}) {
        agrees({.batch = 1, .length = 70, .nheads = 2, .headdim = headdim, .ngroups = 2, .state = 24});
    }
    for (const index state : {0, 1, 2, 8, 31, 63, 64, 65, 127, 128, 129, 200, 256, 257, 600}) {
        agrees({.batch = 1, .length = 133, .nheads = 2, .headdim = 24, .ngroups = 1, .state = state});
    }
    agrees({.batch = 1, .length = 200, .nheads = 3, .headdim = 80, .ngroups = 1, .state = 150, .packed = packing::seq_idx});
    agrees({.batch = 7, .length = 70, .nheads = 40, .headdim = 64, .ngroups = 1, .state = 128});  // one segment, some heads a block
}

TEST_CASE("cuda::ssd_backward: an empty batch, or one without heads, has gradients of zero")
{
    for (ssd_setup s : {ssd_setup{.batch = 0}, ssd_setup{.nheads = 0, .ngroups = 1}}) {
        s.initial_state = true;
        CHECK(against_reference(ssd_backward_problem<float>(s)).error <= 1);
    }
}

TEMPLATE_TEST_CASE("cuda::ssd_backward: sums along every axis of stride 0", "", float, bfloat16)
{
    using real = compute_t<TestType>;
    ssd_setup s{.batch = 3, .length = 37, .nheads = 6, .headdim = 5, .ngroups = 3, .state = 4};
    s.D = true;
    for (unsigned axes = 0; axes < 8; ++axes) {
        const ssd_backward_problem<TestType> p(s), q(s);
        const auto summed = [&](const tensor<real, 4>& of) {
            auto& to = const_cast<tensor<real, 4>&>(of);
            auto strides = to.view().strides();
            for (std::size_t axis = 0; axis < 3; ++axis) {
                if (axes >> axis & 1) strides[axis] = 0;
            }
            return view<real, 4>(to.view().data(), to.view().extents(), strides);
        };
        const auto with_sums = [&](const ssd_backward_problem<TestType>& of) {
            ssd_backward_args<TestType> a = of.args();
            a.dB = summed(of.dB);
            a.dC = summed(of.dC);
            return a;
        };
        const auto kernel = with_sums(p), expected = with_sums(q);
        run_on_device(kernel);
        reference::ssd_backward(expected);
        constexpr double bound = std::is_same_v<TestType, float> ? 2e-5 : 2e-2;
        CAPTURE(axes);
        CHECK(relative_error(p.dB, q.dB) <= bound);
        CHECK(relative_error(p.dC, q.dC) <= bound);
    }
}

TEMPLATE_TEST_CASE("cuda::ssd_backward: gradients asked for one at a time are those asked for together", "", float, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 70, .nheads = 6, .headdim = 11, .ngroups = 2, .state = 5};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
    s.packed = packing::seq_idx;
    const ssd_backward_problem<TestType> all(s);
    run_on_device(all.args());
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
        run_on_device(only);
        CAPTURE(one);
        CHECK(p.output_bytes()[one] == expected[one]);
    }
}

TEST_CASE("cuda::ssd_backward: after a decay of any strength, mild ones are as exact as before")
{
    ssd_setup s{.batch = 1, .length = 64, .nheads = 1, .headdim = 5, .ngroups = 1, .state = 4};
    s.initial_state = true;
    for (const double strong : {1e2, 1e6}) {
        ssd_backward_problem<float> p(s);
        p.forward.A.fill([](index) { return -1.0f; });
        p.forward.delta.fill([&](index, index t, index) { return static_cast<float>(t == 9 || t == 40 ? strong : 0.01); });
        p.forward.u.fill([&](index, index t, index, index) { return static_cast<float>(t == 9 || t == 40 ? 1 / strong : 1); });
        run_on_device(p.args());
        const auto expected = p.wide();
        reference::ssd_backward(expected.args());
        CAPTURE(strong);
        CHECK(relative_error(p.dC, expected.dC) <= ssd_backward_budget<float>);
        CHECK(relative_error(p.dinitial_state, expected.dinitial_state) <= ssd_backward_budget<float>);
    }
}

TEMPLATE_TEST_CASE("cuda::ssd_backward: a NaN reaches what the equations say, and nothing else", "", float, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 140, .nheads = 4, .headdim = 9, .ngroups = 2, .state = 6};
    s.D = s.z = s.delta_softplus = s.initial_state = true;
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const packing packed : {packing::none, packing::seq_idx}) {
        s.packed = packed;
        for (const index t : {0, 3, 31, 62, 63, 64, 65, 139}) {
            const auto probe = [&](const char* name, auto&& poison) {
                const ssd_backward_problem<TestType> p(s);
                poison(p);
                const worst_error worst = against_reference(p);  // infinite where only one of two is NaN
                CAPTURE(name, t, s.text(), worst.name, worst.error);
                CHECK(worst.error <= 1);
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

TEMPLATE_TEST_CASE("cuda::ssd_backward: the same bits from run to run", "", float, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 700, .nheads = 4, .headdim = 64, .ngroups = 2, .state = 128};
    s.D = s.z = s.delta_softplus = s.initial_state = true;
    const ssd_backward_problem<TestType> p(s), q(s);
    run_on_device(p.args());
    run_on_device(q.args());
    CHECK(p.output_bytes() == q.output_bytes());
}

TEST_CASE("cuda::ssd_backward: a workspace that is too small is refused")
{
    const ssd_setup s{.batch = 1, .length = 70, .nheads = 4, .headdim = 64, .ngroups = 2, .state = 128};
    const ssd_backward_problem<float> p(s);
    const auto a = p.args();
    const device_operation& op = device_operations().at(typeid(a));
    REQUIRE(op.workspace_size(&a) > 0);
    CHECK_THROWS_AS(op.run(&a, {}, nullptr), shape_error);
}

}  // namespace
}  // namespace ssmkit::testing
