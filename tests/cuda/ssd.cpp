#include <limits>

#include <ssmkit/reference/ssd.hpp>

#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

/// Results in units of the CPU's budget; bfloat16's products round their operands, as golden_check's bound allows for.
template <class T>
worst_error against_reference(const ssd_problem<T>& p, ssd_form form = ssd_form::automatic)
{
    ssd_args<T> a = p.args();
    a.form = form;
    run_on_device(a);
    const auto expected = p.wide();
    reference::ssd(expected.args());
    constexpr bool rounds = std::is_same_v<T, bfloat16>;
    const double rounded = rounds ? 1.5e-2 : ssd_budget<T>, exact = ssd_budget<float>;
    worst_error worst;
    worst.add("y", relative_error(p.y, expected.y) / rounded);
    worst.add("y_ungated", relative_error(p.y_ungated, expected.y_ungated) / rounded);
    worst.add("final_state", relative_error(p.final_state, expected.final_state) / (rounds ? 1.5e-2 : exact));
    worst.add("delta_out", relative_error(p.delta_out, expected.delta_out) / exact);
    worst.add("log_decay", relative_error(p.log_decay, expected.log_decay) / exact);
    worst.add("chunk_states", relative_error(p.chunk_states, expected.chunk_states) / exact);
    worst.add("prev_states", relative_error(p.prev_states, expected.prev_states) / exact);
    return worst;
}

TEMPLATE_TEST_CASE("cuda::ssd: agrees with the reference, whatever is switched on", "", float, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; ++bits) {
        ssd_setup s = ssd_setup{.batch = 2, .length = 37, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 5}.with_options(bits);
        constexpr index groups[] = {1, 2, 4}, chunks[] = {1, 8, 37, 100};
        s.ngroups = groups[bits % 3];
        s.chunk = chunks[bits / 3 % 4];
        s.extras = bits % 5 != 0;
        if (bits % 7 == 0) s.length = 150, s.headdim = 24, s.state = 16;  // more than a chunk, in vectors
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        for (const ssd_form form : {ssd_form::automatic, ssd_form::recurrent}) {
            const ssd_problem<TestType> p(s);
            const auto inputs = p.input_bytes();
            const worst_error worst = against_reference(p, form);
            CAPTURE(s.text(), static_cast<int>(form), worst.name, worst.error);
            REQUIRE(worst.error <= 1);
            REQUIRE(p.gaps_untouched());
            REQUIRE(p.input_bytes() == inputs);
        }
    }
}

TEMPLATE_TEST_CASE("cuda::ssd: every length, headdim and state size", "", float, bfloat16, float16)
{
    const auto agrees = [](ssd_setup s) {
        s.D = s.z = s.delta_softplus = s.initial_state = true;
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            s.inputs = s.outputs = form;
            const worst_error worst = against_reference(ssd_problem<TestType>(s));
            CAPTURE(s.text(), worst.name, worst.error);
            REQUIRE(worst.error <= 1);
        }
    };
    for (const index length : {0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 257, 1000}) {
        for (const packing packed : {packing::none, packing::seq_idx, packing::cu_seqlens}) {
            agrees({.batch = packed == packing::cu_seqlens ? 1 : 2, .length = length, .nheads = 2, .headdim = 16, .ngroups = 1,
                    .state = 24, .packed = packed, .extras = false});
        }
    }
    for (const index headdim : {0, 1, 7, 8, 16, 31, 64, 65, 72, 128, 256}) {
        agrees({.batch = 1, .length = 70, .nheads = 2, .headdim = headdim, .ngroups = 2, .state = 24, .extras = false});
    }
    for (const index state : {0, 1, 2, 8, 31, 64, 127, 128, 129, 200, 256, 257, 600, 1024}) {
        agrees({.batch = 1, .length = 133, .nheads = 2, .headdim = 24, .ngroups = 1, .state = state, .extras = false});
    }
    agrees({.batch = 40, .length = 70, .nheads = 8, .headdim = 64, .ngroups = 1, .state = 128, .extras = false});  // one segment
}

TEST_CASE("cuda::ssd: after a decay of any strength, mild ones are as exact as before")
{
    ssd_setup s{.batch = 1, .length = 64, .nheads = 1, .headdim = 5, .ngroups = 1, .state = 4};
    s.initial_state = true;
    for (const double strong : {1e2, 1e6, 1e12, 1e30}) {
        ssd_problem<float> p(s);
        p.A.fill([](index) { return -1.0f; });
        p.delta.fill([&](index, index t, index) { return static_cast<float>(t == 9 || t == 40 ? strong : 0.01); });
        p.u.fill([&](index, index t, index, index) { return static_cast<float>(t == 9 || t == 40 ? 1 / strong : 1); });
        const auto expected = p.wide();
        reference::ssd(expected.args());
        run_on_device(p.args());
        CAPTURE(strong);
        CHECK(relative_error(p.y, expected.y) <= ssd_budget<float>);
        CHECK(relative_error(p.final_state, expected.final_state) <= ssd_budget<float>);
    }
}

TEMPLATE_TEST_CASE("cuda::ssd: a NaN reaches what the recurrence says, and nothing else", "", float, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 140, .nheads = 4, .headdim = 24, .ngroups = 2, .state = 16};
    s.D = s.z = s.delta_softplus = s.initial_state = true;
    s.extras = false;
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const packing packed : {packing::none, packing::seq_idx}) {
        s.packed = packed;
        for (const index t : {0, 3, 31, 62, 63, 64, 65, 139}) {
            const auto probe = [&](const char* name, auto&& poison) {
                ssd_problem<TestType> p(s);
                poison(p);
                const worst_error worst = against_reference(p);  // infinite where only one of two is NaN
                CAPTURE(name, t, s.text(), worst.name);
                REQUIRE(worst.error <= 1);
            };
            probe("u", [&](auto& p) { p.u(1, t, 2, 4) = nan; });
            probe("z", [&](auto& p) { p.z(1, t, 2, 4) = nan; });
            probe("delta", [&](auto& p) { p.delta(1, t, 2) = nan; });
            probe("B", [&](auto& p) { p.B(1, t, 1, 2) = nan; });
            probe("C", [&](auto& p) { p.C(1, t, 1, 2) = nan; });
            probe("initial_state", [&](auto& p) { p.initial_state(1, 2, 4, 3) = std::numeric_limits<float>::quiet_NaN(); });
        }
    }
}

TEMPLATE_TEST_CASE("cuda::ssd: the same bits from run to run", "", float, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 700, .nheads = 4, .headdim = 64, .ngroups = 2, .state = 128};
    s.D = s.z = s.delta_softplus = s.initial_state = true;
    const ssd_problem<TestType> p(s), q(s);
    run_on_device(p.args());
    run_on_device(q.args());
    CHECK(p.output_bytes() == q.output_bytes());
}

TEST_CASE("cuda::ssd: a workspace that is too small is refused")
{
    const ssd_setup s{.batch = 1, .length = 700, .nheads = 4, .headdim = 64, .ngroups = 2, .state = 128};
    const ssd_problem<float> p(s);
    const auto a = p.args();
    const device_operation& op = device_operations().at(typeid(a));
    REQUIRE(op.workspace_size(&a) > 0);
    CHECK_THROWS_AS(op.run(&a, {}, nullptr), shape_error);
}

}  // namespace
}  // namespace ssmkit::testing
