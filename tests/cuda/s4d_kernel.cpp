#include <ssmkit/reference/s4d_kernel.hpp>

#include <cstring>

#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../s4d_problem.hpp"

namespace ssmkit::testing {
namespace {

void compare(const diagonal_setup& s, const s4d_options& o = {})
{
    INFO(s.text() << " method " << static_cast<int>(o.method) << " growing " << o.growing << " state " << o.initial_state);
    const s4d_problem<float> p(s, o), again(s, o);
    const auto expected = p.wide();
    run_on_device(p.args());
    run_on_device(again.args());
    reference::s4d_kernel(expected.args());
    CHECK(relative_error(p.K, expected.K) <= kernel_budget<float>);
    CHECK(relative_error(p.K_state, expected.K_state) <= kernel_budget<float>);
    CHECK(same_bits(p.K, again.K));
    CHECK(same_bits(p.K_state, again.K_state));
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("cuda::s4d_kernel: agrees with the reference, whatever is switched on, at every length, size and layout")
{
    for (const s4d_options& o : all_s4d_options()) compare({.dim = 4, .state = 9, .length = 70, .copies = 2}, o);
    for (const index length : kernel_lengths) {
        compare({.length = length}, {.initial_state = true});
        compare({.dim = 1, .length = length, .copies = 1}, {.method = s4d_discretization::dss, .growing = true});
    }
    for (const index length : {4095, 4096, 4097, 9000}) {
        compare({.length = length}, {.initial_state = true});
        compare({.dim = 1, .length = length, .copies = 1}, {.method = s4d_discretization::dss, .growing = true});
    }
    for (const index state : kernel_states) compare({.state = state, .length = 150}, {.method = s4d_discretization::bilinear});
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare({.state = 19, .length = 90, .inputs = inputs, .outputs = outputs}, {.tied = true, .initial_state = true});
        }
    }
    compare({.channels = 0});
    compare({.dim = 0, .copies = 1});
    compare({.batch = 0}, {.initial_state = true});
}

TEST_CASE("cuda::s4d_kernel: phases hold for 131072 taps")
{
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
        const s4d_problem<float> p({.dim = 1, .state = 32, .length = 131072, .copies = 1}, {.method = method});
        for_each_index(p.A.view(), [&](auto... i) { p.A(i...) = {-0.05, p.A(i...).imag() * 16}; });
        for_each_index(p.delta.view(), [&](auto... i) { p.delta(i...) = 1e-3; });
        const auto expected = p.wide();
        run_on_device(p.args());
        reference::s4d_kernel(expected.args());
        CHECK(relative_error(p.K, expected.K) <= 1e-6);
    }
}

TEST_CASE("cuda::s4d_kernel: a NaN reaches exactly what depends on it")
{
    for (index what = 0; what < 5; ++what) {
        const s4d_problem<float> p({.dim = 4, .state = 19, .length = 90, .copies = 2}, {.initial_state = true});
        if (what == 0) p.delta(1, 7) = quiet_nan<double>();
        if (what == 1) p.A(1, 18) = quiet_nan<complex_double>();
        if (what == 2) p.B(0, 3) = quiet_nan<std::complex<float>>();
        if (what == 3) p.C(1, 2, 16) = quiet_nan<std::complex<float>>();
        if (what == 4) p.state(1, 0, 5) = quiet_nan<std::complex<float>>();
        INFO(what);
        const auto expected = p.wide();
        run_on_device(p.args());
        reference::s4d_kernel(expected.args());
        CHECK(same_nans(p.K, expected.K));
        CHECK(same_nans(p.K_state, expected.K_state));
    }
}

}  // namespace ssmkit::testing
