#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
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

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: whole tiles of whole blocks, in words or not", "", f32, bf16, complex_f32)
{
    for (const index dim : {32, 256}) {
        for (const index state : {2, 16, 34}) {
            for (const layout form : {layout::row_major, layout::time_contiguous, layout::unaligned}) {
                scan_setup s{.batch = 2, .length = 136, .dim = dim, .state = state};
                s.groups_of_C = dim == 32 ? 1 : 2;
                s.D = s.z = s.delta_softplus = s.delta_bias = s.initial_state = true;
                s.reverse = state == 16;
                s.inputs = s.outputs = form;
                const worst_gradient worst = against_reference(scan_backward_problem<TestType>(s));
                CAPTURE(s.text(), worst.name);
                REQUIRE(worst.error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: long segments, where there are many of them", "", f32, bf16, complex_f32)
{
    scan_setup whole{.batch = 64, .length = 136, .dim = 256, .state = 2, .groups_of_B = 8, .groups_of_C = 8};
    scan_setup odd{.batch = 9, .length = 199, .dim = 64, .state = 3, .groups_of_B = 64, .groups_of_C = 64};
    for (scan_setup& s : {std::ref(whole), std::ref(odd)}) {
        s.D = s.z = s.delta_softplus = s.initial_state = true;
        const worst_gradient worst = against_reference(scan_backward_problem<TestType>(s));
        CAPTURE(s.text(), worst.name);
        CHECK(worst.error <= 1);
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

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: an infinite step forgets the state", "", f32, complex_f32)
{
    using T = typename TestType::T;
    for (const index state : {1, 2, 3}) {
        scan_backward_problem<TestType> p(scan_setup{.batch = 1, .length = 2, .dim = 1, .state = state});
        p.forward.delta.fill([](index, index t, index) { return t == 0 ? T(0.5) : std::numeric_limits<T>::infinity(); });
        run_on_device(p.args());
        CAPTURE(state);
        CHECK(std::isfinite(p.du(0, 0, 0)));
        CHECK(std::isfinite(p.ddelta(0, 0, 0)));
    }
}

TEMPLATE_TEST_CASE("cuda::selective_scan_backward: a NaN of the last token's input does not reach dA", "", f32, complex_f32)
{
    for (const index dim : {3, 32}) {
        for (const index length : {1, 7, 8, 65}) {
            scan_setup s{.batch = 1, .length = length, .dim = dim, .state = 2};
            const scan_backward_problem<TestType> p(s, false);
            p.forward.u(0, length - 1, 1) = quiet_nan<float>();
            run_on_device(p.args());
            CAPTURE(dim, length);
            for_each_index(p.dA.view(), [&](auto... i) { CHECK(!is_nan(p.dA(i...))); });
            for_each_index(p.ddelta.view(), [&](index b, index t, index c) {
                CHECK(is_nan(p.ddelta(b, t, c)) == (t == length - 1 && c == 1));
            });
        }
    }
}

TEST_CASE("cuda::selective_scan_backward: without a state, a NaN reaches nothing but the skip and the gate")
{
    scan_setup s{.batch = 1, .length = 3, .dim = 2, .state = 0};
    s.z = s.delta_softplus = true;
    for (const bool skip : {false, true}) {
        s.D = skip;
        const scan_backward_problem<f32> p(s);
        p.forward.u(0, 0, 1) = p.forward.delta(0, 0, 0) = quiet_nan<float>();
        run_on_device(p.args());
        for_each_index(p.ddelta.view(), [&](auto... i) { CHECK(p.ddelta(i...) == 0); });
        for_each_index(p.du.view(), [&](auto... i) { CHECK(std::isfinite(p.du(i...))); });
        for_each_index(p.dz.view(), [&](index b, index t, index c) { CHECK(is_nan(p.dz(b, t, c)) == (skip && t == 0 && c == 1)); });
    }
}

TEST_CASE("cuda::selective_scan_backward: poles that turn fast and decay slowly")
{
    scan_setup s{.batch = 1, .length = 300, .dim = 40, .state = 4};
    scan_backward_problem<complex_f32> p(s);
    random numbers(5);
    p.forward.A.fill(numbers, {-0.02, -0.01, -40, 40});
    p.forward.delta.fill(numbers, {0.02, 0.2});
    const worst_gradient worst = against_reference(p);
    CAPTURE(worst.name);
    CHECK(worst.error <= 1);
}

}  // namespace
}  // namespace ssmkit::testing
