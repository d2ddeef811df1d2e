#include <ssmkit/lru_backward.hpp>

#include <complex>
#include <string>

#include <ssmkit/reference/lru.hpp>
#include <ssmkit/reference/lru_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "lru_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const s5_setup& s)
{
    INFO(s.text());
    const lru_problem<T> x(s);
    const auto expected = x.wide();
    lru_backward(x.backward_args());
    reference::lru_backward(expected.backward_args());
    x.for_each_gradient(expected, [&](const char* name, const auto& got, const auto& want) {
        INFO(name);
        CHECK(relative_error(got, want) <= (std::is_same_v<T, double> ? 1e-12 : 1e-5) + (sizeof(T) == 2 ? rounding<T> : 0));
    });
    CHECK(x.p.gaps_untouched());
}

}  // namespace

TEST_CASE("lru_backward: the reference's gradients are those of its forward pass")
{
    const lru_problem<double> x({.length = 6, .dim = 2, .state = 3, .out = 2, .initial_state = true});
    reference::lru_backward(x.backward_args());
    const auto loss = [&] {
        reference::lru(x.args());
        double sum = 0;
        for_each_index(x.p.y.view(), [&](auto... i) { sum += x.p.y(i...) * x.p.dy(i...); });
        for_each_index(x.p.final_state.view(),
                       [&](auto... i) { sum += (x.p.final_state(i...) * std::conj(x.p.dfinal_state(i...))).real(); });
        return sum;
    };
    const auto agrees = [&](const auto& parameter, const auto& gradient) {
        for (index n = 0; n < 3; ++n) {
            const double middle = parameter(n), h = 1e-3;
            const auto moved = [&](double by) {
                parameter(n) = middle + by;
                const double value = loss();
                parameter(n) = middle;
                return value;
            };
            const double slope = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
            CHECK(std::abs(slope - gradient(n)) <= 1e-8 * (1 + std::abs(slope)));
        }
    };
    agrees(x.nu_log, x.dnu_log);
    agrees(x.theta_log, x.dtheta_log);
    agrees(x.gamma_log, x.dgamma_log);
}

TEMPLATE_TEST_CASE("lru_backward: agrees with the reference, whatever is switched on, in any layout and size", "", float, double,
                   bfloat16)
{
    for (unsigned options = 0; options < 64; ++options) {
        const layout inputs = all_layouts[options % 6], outputs = all_layouts[options / 6 % 6];
        compare<TestType>(lru_problem<TestType>::adapted(s5_setup{.inputs = inputs, .outputs = outputs}.with_options(options)));
    }
    for (const index n : s5_sizes) {
        for (index s5_setup::*axis : {&s5_setup::batch, &s5_setup::length, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
            s5_setup s{.length = 9, .initial_state = true};
            s.*axis = n;
            compare<TestType>(s);
        }
    }
}

TEST_CASE("lru_backward: threads and the workspace change no bit, nothing is allocated")
{
    threads pool(3);
    const s5_setup s{.length = 300, .state = 35, .initial_state = true, .packed = true};
    const lru_problem<float> one(s), several(s), lent(s);
    lru_backward(one.backward_args());
    lru_backward(several.backward_args(), pool);
    std::vector<std::byte> memory(lru_backward_workspace_size(lent.backward_args()), std::byte{0xff});
    CHECK(allocations_during([&] { lru_backward(lent.backward_args(), memory); }) == 0);
    const auto same = [](const char* name, const auto& got, const auto& want) {
        INFO(name);
        if (got.given()) CHECK(same_bits(got, want));
    };
    several.for_each_gradient(one, same);
    lent.for_each_gradient(one, same);
    memory.pop_back();
    CHECK_THROWS_AS(lru_backward(lent.backward_args(), memory), shape_error);
}

TEST_CASE("lru_backward: names the argument that does not fit")
{
    const lru_problem<float> x({.out = 5, .initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = x.backward_args();
        spoil(a);
        std::string said;
        try {
            lru_backward(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("lru_backward: ") + text) == 0);
    };
    named("gamma_log has shape", [](auto& a) { a.forward.gamma_log = {}; });
    named("dy has shape", [](auto& a) { a.dy = a.dy.slice(1, 0, 1); });
    named("dnu_log has shape", [](auto& a) { a.dnu_log = a.dnu_log.slice(0, 0, 1); });
    named("dtheta_log has shape", [](auto& a) { a.dtheta_log = a.dtheta_log.slice(0, 0, 1); });
    named("dgamma_log has shape", [](auto& a) { a.dgamma_log = a.dgamma_log.slice(0, 0, 1); });
    named("dB has shape", [](auto& a) { a.dB = a.dB.slice(1, 0, 1); });
    named("du has shape", [](auto& a) { a.du = a.du.slice(1, 0, 1); });
    named("dD is asked for although", [](auto& a) { a.dD = {a.dnu_log.data(), 5}; });
    named("dgamma_log overlaps dnu_log", [](auto& a) { a.dgamma_log = a.dnu_log; });
}

}  // namespace ssmkit::testing
