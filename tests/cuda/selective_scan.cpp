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

TEMPLATE_TEST_CASE("cuda::selective_scan: rows in words, along channels and along time", "", f32, bf16, f16)
{
    const auto agrees = [](scan_setup s) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const bool more : {false, true}) {
                for (const bool reverse : {false, true}) {
                    s.inputs = s.outputs = form;
                    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.y_ungated = more;
                    s.reverse = reverse;
                    CAPTURE(s.text());
                    REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
                }
            }
        }
    };
    for (const index dim : {2, 12, 26, 96}) {
        for (const index length : {1, 4, 34, 512, 1100}) {
            agrees({.batch = 2, .length = length, .dim = dim, .state = 16, .groups_of_B = dim % 12 == 0 ? dim / 12 : 1});
        }
    }
    for (const index dim : {1302, 4096, 4102}) {  // more and many channels
        for (const index length : {4, 37}) {
            agrees({.batch = 2, .length = length, .dim = dim, .state = 16, .groups_of_C = dim == 4096 ? 2 : 1});
        }
    }
}

TEMPLATE_TEST_CASE("cuda::selective_scan: a NaN reaches exactly the outputs that depend on it", "", f32, bf16)
{
    for (const index dim : {26, 5000}) {
        for (const index state : {13, 16}) {
            scan_setup s{.batch = 2, .length = dim == 26 ? 700 : 45, .dim = dim, .state = state};
            s.D = s.z = s.delta_softplus = true;
            const auto probe = [&](const char* name, auto&& element) {
                scan_problem<TestType> p(s);
                auto& x = element(p);
                x = quiet_nan<std::decay_t<decltype(x)>>();
                CAPTURE(name, s.text());
                CHECK(against_reference(p) <= 1);  // infinite where only one of two is NaN
            };
            const index last = s.length - 1;
            probe("u", [&](auto& p) -> auto& { return p.u(1, last / 2, dim - 1); });
            probe("z", [&](auto& p) -> auto& { return p.z(0, last, 1); });
            probe("delta", [&](auto& p) -> auto& { return p.delta(1, last - 3, 2); });
            probe("A", [&](auto& p) -> auto& { return p.A(dim - 1, state - 1); });
            probe("B", [&](auto& p) -> auto& { return p.B(1, last / 3, 0, state - 1); });
            probe("C", [&](auto& p) -> auto& { return p.C(0, last / 2, 0, 0); });
        }
    }
}

}  // namespace
}  // namespace ssmkit::testing
