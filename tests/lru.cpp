#include <ssmkit/lru.hpp>

#include <complex>
#include <string>

#include <ssmkit/reference/lru.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "lru_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double state_budget = std::is_same_v<T, double> ? 1e-13 : 4e-6;
template <class T>
constexpr double budget = state_budget<T> + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
void compare(const s5_setup& s)
{
    INFO(s.text());
    const lru_problem<T> x(s);
    const auto expected = x.wide();
    lru(x.args());
    reference::lru(expected.args());
    CHECK(relative_error(x.p.y, expected.p.y) <= budget<T>);
    CHECK(relative_error(x.p.final_state, expected.p.final_state) <= state_budget<T>);
    CHECK(x.p.gaps_untouched());
}

}  // namespace

TEST_CASE("lru: a sequence by hand")
{
    // |λ| = 1/2, a quarter of a turn; the input times 3.
    const double nu_log[] = {std::log(std::log(2.0))}, theta_log[] = {std::log(std::acos(0.0))}, gamma_log[] = {std::log(3.0)};
    const std::complex<double> B[] = {{0, 1}}, C[] = {{2, 1}};
    const double u[] = {1, 0, 0}, D[] = {10};
    double y[3];
    const lru_args<double> a{.nu_log = {nu_log, 1},
                             .theta_log = {theta_log, 1},
                             .gamma_log = {gamma_log, 1},
                             .B = {B, 1, 1},
                             .C = {C, 1, 1},
                             .D = {D, 1},
                             .u = {u, 1, 3, 1},
                             .y = {y, 1, 3, 1}};
    for (const bool plain : {true, false}) {
        plain ? reference::lru(a) : lru(a);
        CHECK(std::abs(y[0] - 7) < 1e-14);  // h = 3i, -1.5, -0.75i
        CHECK(std::abs(y[1] + 3) < 1e-14);
        CHECK(std::abs(y[2] - 0.75) < 1e-14);
    }
}

TEMPLATE_TEST_CASE("lru: agrees with the reference, whatever is switched on, in any layout and size", "", float, double, bfloat16)
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

TEST_CASE("lru: threads and the workspace change no bit, nothing is allocated")
{
    threads pool(3);
    const s5_setup s{.length = 300, .state = 35, .initial_state = true, .packed = true};
    const lru_problem<float> one(s), several(s), lent(s);
    lru(one.args());
    lru(several.args(), pool);
    CHECK(same_bits(one.p.y, several.p.y));
    std::vector<std::byte> memory(lru_workspace_size(lent.args()), std::byte{0xff});
    CHECK(allocations_during([&] { lru(lent.args(), memory); }) == 0);
    CHECK(same_bits(one.p.y, lent.p.y));
    memory.pop_back();
    CHECK_THROWS_AS(lru(lent.args(), memory), shape_error);
}

TEST_CASE("lru: names the argument that does not fit")
{
    const lru_problem<float> x({.out = 5, .D = true, .initial_state = true, .packed = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = x.args();
        spoil(a);
        std::string said;
        try {
            lru(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("lru: ") + text) == 0);
    };
    named("theta_log has shape", [](auto& a) { a.theta_log = a.theta_log.slice(0, 0, 1); });
    named("gamma_log has shape", [](auto& a) { a.gamma_log = {}; });
    named("B has shape", [](auto& a) { a.B = a.B.slice(0, 0, 1); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(1, 0, 1); });
    named("D is given although", [](auto& a) { a.C = a.C.slice(0, 0, 1); });
    named("initial_state has shape", [](auto& a) { a.initial_state = a.initial_state.slice(1, 0, 2); });
    named("reset has shape", [](auto& a) { a.reset = a.reset.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("y overlaps B", [](auto& a) { a.B = {reinterpret_cast<std::complex<float>*>(a.y.data()), 6, 5}; });
}

}  // namespace ssmkit::testing
