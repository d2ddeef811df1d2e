#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../selective_scan_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class Storage>
double against_reference(const scan_problem<Storage>& p)
{
    run_on_device(p.args());
    const auto expected = p.wide();
    reference::selective_scan(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("cuda::selective_scan: agrees with the reference, whatever is switched on", "", f32, bf16, f16, complex_f32,
                   complex_bf16)
{
    for (unsigned bits = 0; bits < 1u << scan_setup::options; ++bits) {
        scan_setup s = scan_setup{.batch = 2, .length = 11, .dim = 6, .state = 3}.with_options(bits);
        constexpr index groups[] = {1, 2, 3, 6};
        s.groups_of_B = groups[bits % 4];
        s.groups_of_C = groups[bits / 4 % 4];
        s.snapshots = bits % 3;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        CAPTURE(s.text());
        const scan_problem<TestType> p(s);
        REQUIRE(against_reference(p) <= 1);
        REQUIRE(p.gaps_untouched());
    }
}

TEMPLATE_TEST_CASE("cuda::selective_scan: every width, length and state size", "", f32, bf16, complex_f32)
{
    for (const index dim : {0, 1, 7, 16, 31, 32, 33, 64, 100, 5000}) {
        for (const index length : {0, 1, 4, 31, 32, 33, 64, 77}) {
            for (const layout form : {layout::row_major, layout::time_contiguous}) {
                scan_setup s{.batch = 2, .length = length, .dim = dim, .state = dim == 5000 ? 16 : 13};
                s.D = s.z = s.delta_softplus = s.initial_state = true;
                s.inputs = s.outputs = form;
                CAPTURE(s.text());
                REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
            }
        }
    }
    for (const index state : {0, 1, 2, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 512}) {
        for (const bool reset : {false, true}) {
            scan_setup s{.batch = 2, .length = 45, .dim = 35, .state = state};
            s.D = s.z = s.delta_softplus = s.initial_state = true;
            s.reset = reset;
            CAPTURE(s.text());
            REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
        }
    }
}

}  // namespace
}  // namespace ssmkit::testing
