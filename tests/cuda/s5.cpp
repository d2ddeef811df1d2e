#include <ssmkit/reference/s5.hpp>

#include <vector>

#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../s5_problem.hpp"

namespace ssmkit::testing {
namespace {

constexpr double state_budget = 4e-6;

/// What the header promises, and the rounding to T.
template <class T>
constexpr double budget = state_budget + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
void compare(const s5_setup& s)
{
    INFO(s.text());
    const s5_problem<T> p(s), again(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    run_on_device(p.args());
    run_on_device(again.args());
    reference::s5(expected.args());
    CHECK(relative_error(p.y, expected.y) <= budget<T>);
    CHECK(relative_error(p.final_state, expected.final_state) <= state_budget);
    CHECK(same_bits(p.y, again.y));
    CHECK(same_bits(p.final_state, again.final_state));
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("cuda::s5: agrees with the reference, whatever is switched on, in any layout", "", float, bfloat16, float16)
{
    for (unsigned options = 0; options < 1u << s5_setup::options; options += sizeof(TestType) == 4 ? 1 : 5) {
        const layout inputs = all_layouts[options % 6], outputs = all_layouts[options / 6 % 6];
        compare<TestType>(s5_setup{.inputs = inputs, .outputs = outputs}.with_options(options));
    }
}

TEST_CASE("cuda::s5: every method, of tokens at equal and at any distance")
{
    for (const discretization method : all_methods) {
        for (const bool events : {false, true}) {
            for (const bool bidirectional : {false, true}) {
                compare<float>(
                    {.state = 19, .events = events, .initial_state = true, .bidirectional = bidirectional, .method = method});
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::s5: every number of tokens, channels, states and outputs", "", float, bfloat16)
{
    for (const index n : s5_sizes) {
        const s5_setup s{.length = 9, .events = n % 2 == 1, .initial_state = true, .packed = true, .reverse = n % 3 == 0,
                         .inputs = all_layouts[n % 6], .outputs = all_layouts[n / 6 % 6]};
        for (index s5_setup::*axis : {&s5_setup::batch, &s5_setup::length, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
            s5_setup with = s;
            with.*axis = n;
            compare<TestType>(with);
        }
    }
}

TEST_CASE("cuda::s5: time in segments, in both directions")
{
    for (const bool bidirectional : {false, true}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            compare<float>({.batch = 1, .length = 2500, .dim = 37, .state = 21, .out = 70, .initial_state = true, .packed = true,
                            .bidirectional = bidirectional, .inputs = form, .outputs = form});
        }
    }
}

TEST_CASE("cuda::s5: steps and intervals from nothing to long")
{
    for (const double scale : {0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e6}) {
        for (const bool events : {false, true}) {
            s5_problem<float> p({.state = 9, .events = events});
            for (index i = 0; i < 9; ++i) p.delta(i) *= static_cast<float>(events ? 1 : scale);
            for (index t = 0; t < p.s.length && events; ++t) p.interval(0, t) *= static_cast<float>(scale);
            const auto expected = p.wide();
            run_on_device(p.args());
            reference::s5(expected.args());
            INFO("scale " << scale << (events ? " of intervals" : " of delta"));
            CHECK(relative_error(p.y, expected.y) <= 2 * budget<float>);
        }
    }
}

TEST_CASE("cuda::s5: a NaN reaches exactly the outputs that depend on it")
{
    random numbers(3);
    for (unsigned options = 0; options < 1u << s5_setup::options; options += 3) {
        s5_problem<float> p(s5_setup{.state = 19}.with_options(options));
        INFO(p.s.text());
        const index b = numbers.below(2), t = numbers.below(p.s.length), n = numbers.below(19), c = numbers.below(p.s.dim);
        switch (numbers.below(6)) {
        case 0: p.u(b, t, c) = quiet_nan<float>(); break;
        case 1: p.B(n, c) = quiet_nan<std::complex<float>>(); break;
        case 2: p.C(numbers.below(p.s.out), n) = quiet_nan<std::complex<float>>(); break;
        case 3: p.A(n) = quiet_nan<std::complex<float>>(); break;
        case 4:
            if (p.s.D) p.D(c) = quiet_nan<float>();
            if (p.s.events) p.interval(b, t) = quiet_nan<float>();
            break;
        default:
            if (p.s.initial_state) p.initial_state(b, n) = quiet_nan<std::complex<float>>();
        }
        const auto expected = p.wide();
        run_on_device(p.args());
        reference::s5(expected.args());
        CHECK(same_nans(p.y, expected.y));
        CHECK(same_nans(p.final_state, expected.final_state));
    }
}

TEMPLATE_TEST_CASE("cuda::s5: y may take the place of u, and the final state that of the initial one", "", float, bfloat16)
{
    for (const layout form : all_layouts) {
        const s5_problem<TestType> p(
            {.length = 133, .out = 5, .D = true, .initial_state = true, .reverse = true, .inputs = form, .outputs = form});
        run_on_device(p.args());
        auto u = p.u.template as<TestType>(form);
        auto state = p.initial_state.template as<typename s5_args<TestType>::complex>(form);
        auto a = p.args();
        a.u = a.y = u;
        a.initial_state = a.final_state = state;
        run_on_device(a);
        CHECK(same_bits(u, p.y));
        CHECK(same_bits(state, p.final_state));
    }
}

TEST_CASE("cuda::s5: a workspace that is too small is refused")
{
    const s5_problem<float> p({.events = true});
    const auto a = p.args();
    const device_operation& op = device_operations().at(typeid(a));
    std::vector<std::byte> memory(op.workspace_size(&a) - 1);
    CHECK_THROWS_AS(op.run(&a, memory, nullptr), shape_error);
}

}  // namespace ssmkit::testing
