#include <ssmkit/reference/s4d_kernel_backward.hpp>

#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../s4d_problem.hpp"

namespace ssmkit::testing {
namespace {

bool same_gradients(const s4d_problem<float>& a, const s4d_problem<float>& b)
{
    return same_bits(a.ddelta, b.ddelta) && same_bits(a.dA, b.dA) && same_bits(a.dB, b.dB) && same_bits(a.dC, b.dC) &&
           same_bits(a.dstate, b.dstate);
}

void compare(const diagonal_setup& s, const s4d_options& o = {}, double allowance = 1)
{
    INFO(s.text() << " method " << static_cast<int>(o.method) << " growing " << o.growing << " state " << o.initial_state);
    const s4d_problem<float> p(s, o), again(s, o);
    const auto expected = p.wide();
    run_on_device(p.backward_args());
    run_on_device(again.backward_args());
    reference::s4d_kernel_backward(expected.backward_args());
    const double budget = allowance * gradient_budget<float>;
    if (s.state > 0) CHECK(relative_error(p.ddelta, expected.ddelta) <= budget);  // a sum over no poles has no element
    CHECK(relative_error(p.dA, expected.dA) <= budget);
    CHECK(relative_error(p.dB, expected.dB) <= budget);
    CHECK(relative_error(p.dC, expected.dC) <= budget);
    CHECK(relative_error(p.dstate, expected.dstate) <= budget);
    CHECK(same_gradients(p, again));
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("cuda::s4d_kernel_backward: agrees with the reference, whatever is switched on, at every length, size and layout")
{
    for (const s4d_options& o : all_s4d_options()) compare({.dim = 4, .state = 9, .length = 70, .copies = 2}, o, 4);
    for (const index length : kernel_lengths) {
        compare({.length = length}, {.initial_state = true});
        compare({.dim = 1, .length = length, .copies = 1}, {.method = s4d_discretization::dss, .growing = true}, 4);
    }
    for (const index length : {4095, 4096, 4097, 4098, 9000}) {
        compare({.length = length}, {.initial_state = true});
        compare({.dim = 1, .length = length, .copies = 1}, {.method = s4d_discretization::dss, .growing = true}, 4);
    }
    for (const index state : kernel_states) {
        compare({.state = state, .length = 150}, {.method = s4d_discretization::bilinear, .tied = state % 2 == 0});
    }
    for (const index copies : {1, 5, 60}) compare({.dim = 60, .state = 35, .length = 130, .copies = copies}, {.tied = true});
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare({.state = 19, .length = 90, .inputs = inputs, .outputs = outputs}, {.tied = true, .initial_state = true});
        }
    }
    compare({.channels = 0});
    compare({.dim = 0, .copies = 1});
    compare({.batch = 0}, {.initial_state = true});
}

TEST_CASE("cuda::s4d_kernel_backward: poles of zero have gradients")
{
    // z = -2: the bilinear pole is 0 and its logarithm has no derivative, the kernel has.
    s4d_problem<float> p({.channels = 1, .dim = 1, .state = 1, .length = 3, .copies = 1},
                         {.method = s4d_discretization::bilinear, .pairs = false});
    p.delta(0, 0) = 1;
    p.A(0, 0) = -2;
    p.B(0, 0) = p.C(0, 0, 0) = 1;
    p.dK.fill([](auto...) { return 1.0f; });
    run_on_device(p.backward_args());
    CHECK(std::abs(p.dA(0, 0) - complex_double(0.25)) < 1e-7);
    CHECK(std::abs(p.ddelta(0, 0)) < 1e-7);
}

TEST_CASE("cuda::s4d_kernel_backward: a NaN reaches exactly what depends on it")
{
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
        for (index what = 0; what < 6; ++what) {
            const s4d_problem<float> p({.dim = 4, .state = 19, .length = 90, .copies = 2}, {.method = method, .initial_state = true});
            if (what == 0) p.delta(1, 7) = quiet_nan<double>();
            if (what == 1) p.A(1, 18) = quiet_nan<complex_double>();
            if (what == 2) p.B(0, 3) = quiet_nan<std::complex<float>>();
            if (what == 3) p.C(1, 2, 16) = quiet_nan<std::complex<float>>();
            if (what == 4) p.state(1, 0, 5) = quiet_nan<std::complex<float>>();
            if (what == 5) p.dK(1, 2, 64) = quiet_nan<float>();
            INFO(what);
            const auto expected = p.wide();
            run_on_device(p.backward_args());
            reference::s4d_kernel_backward(expected.backward_args());
            CHECK(same_nans(p.ddelta, expected.ddelta));
            CHECK(same_nans(p.dA, expected.dA));
            CHECK(same_nans(p.dB, expected.dB));
            CHECK(same_nans(p.dC, expected.dC));
            CHECK(same_nans(p.dstate, expected.dstate));
        }
    }
}

TEST_CASE("cuda::s4d_kernel_backward: gradients that are not asked for change nothing")
{
    const s4d_options o{.initial_state = true};
    const s4d_problem<float> all({}, o);
    run_on_device(all.backward_args());
    for (unsigned wanted = 0; wanted < 32; ++wanted) {
        const s4d_problem<float> p({}, o);
        auto a = p.backward_args();
        if (!(wanted & 1u)) a.ddelta = {};
        if (!(wanted & 2u)) a.dA = {};
        if (!(wanted & 4u)) a.dB = {};
        if (!(wanted & 8u)) a.dC = {};
        if (!(wanted & 16u)) a.dinitial_state = {};
        run_on_device(a);
        if (wanted & 1u) CHECK(same_bits(p.ddelta, all.ddelta));
        if (wanted & 2u) CHECK(same_bits(p.dA, all.dA));
        if (wanted & 4u) CHECK(same_bits(p.dB, all.dB));
        if (wanted & 8u) CHECK(same_bits(p.dC, all.dC));
        if (wanted & 16u) CHECK(same_bits(p.dstate, all.dstate));
    }
}

TEST_CASE("cuda::s4d_kernel_backward: names a workspace that is too small")
{
    const s4d_problem<float> p({.length = 5000});
    const auto a = p.backward_args();
    const device_operation& op = device_operations().at(typeid(a));
    std::vector<std::byte> few(op.workspace_size(&a) - 1);
    CHECK_THROWS_AS(op.run(&a, few, nullptr), shape_error);
}

}  // namespace ssmkit::testing
