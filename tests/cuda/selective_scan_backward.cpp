#include <cstring>
#include <string>
#include <vector>

#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../selective_scan_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class Storage>
worst_gradient against_reference(const scan_backward_problem<Storage>& p)
{
    run_on_device(p.args());
    const auto expected = p.wide();
    reference::selective_scan_backward(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: agrees with the reference, whatever is switched on", "", f32, bf16, f16,
                   complex_f32, complex_bf16)
{
    for (unsigned bits = 0; bits < 1u << (scan_setup::options - 1); ++bits) {
        scan_setup s = scan_setup{.batch = 2, .length = 37, .dim = 6, .state = 3}.with_options(bits);
        constexpr index groups[] = {1, 2, 3, 6};
        s.groups_of_B = groups[bits % 4];
        s.groups_of_C = groups[bits / 4 % 4];
        s.dim *= bits / 2 % 3 == 0 ? 1 : bits / 2 % 3 == 1 ? 3 : 8;
        s.snapshots = bits % 3;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        const scan_backward_problem<TestType> p(s, bits % 5 != 0);
        const worst_gradient worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
    }
}

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: every width, length and state size", "", f32, bf16, complex_f32)
{
    const auto agrees = [](const scan_setup& s) {
        const worst_gradient worst = against_reference(scan_backward_problem<TestType>(s));
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
    };
    for (const index dim : {0, 1, 31, 32, 33, 100}) {
        for (const index length : {0, 1, 31, 32, 33, 64, 300}) {
            for (const layout form : {layout::row_major, layout::time_contiguous}) {
                scan_setup s{.batch = 2, .length = length, .dim = dim, .state = 13};
                s.D = s.z = s.delta_softplus = s.initial_state = true;
                s.inputs = s.outputs = form;
                agrees(s);
            }
        }
    }
    for (const index state : {0, 1, 2, 15, 16, 17, 64}) {
        for (const bool reset : {false, true}) {
            scan_setup s{.batch = 2, .length = 70, .dim = 35, .state = state};
            s.D = s.z = s.delta_softplus = s.initial_state = true;
            s.reset = reset;
            agrees(s);
        }
    }
}

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: the same bits from run to run", "", f32, bf16)
{
    scan_setup s{.batch = 2, .length = 200, .dim = 70, .state = 16};
    s.D = s.z = s.delta_softplus = s.delta_bias = s.initial_state = true;
    const scan_backward_problem<TestType> first(s), second(s);
    run_on_device(first.args());
    run_on_device(second.args());
    const auto same = [](const char* name, const auto& a, const auto& b) {
        INFO(name);
        for_each_index(a.view(), [&](auto... i) {
            const auto x = a(i...), y = b(i...);
            REQUIRE(std::memcmp(&x, &y, sizeof x) == 0);
        });
    };
    same("du", first.du, second.du);
    same("ddelta", first.ddelta, second.ddelta);
    same("dA", first.dA, second.dA);
    same("dB", first.dB, second.dB);
    same("dC", first.dC, second.dC);
    same("dD", first.dD, second.dD);
    same("dz", first.dz, second.dz);
    same("ddelta_bias", first.ddelta_bias, second.ddelta_bias);
    same("dinitial_state", first.dinitial_state, second.dinitial_state);
}

}  // namespace
}  // namespace ssmkit::testing
