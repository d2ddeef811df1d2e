#include <ssmkit/reference/linear_scan.hpp>

#include <complex>
#include <span>
#include <vector>

#include "../catch.hpp"
#include "../linear_scan_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

using complex_float = std::complex<float>;

/// What the header promises, and one rounding to T.
template <class T>
constexpr double budget = 2e-6 + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
void compare(const linear_setup& s)
{
    INFO(s.text());
    const linear_problem<T> p(s), again(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    run_on_device(p.args());
    run_on_device(again.args());
    reference::linear_scan(expected.args());
    CHECK(relative_error(p.h, expected.h) <= budget<T>);
    CHECK(relative_error(p.final_state, expected.final_state) <= 2e-6);
    CHECK(same_bits(p.h, again.h));
    CHECK(same_bits(p.final_state, again.final_state));
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

constexpr layout both[] = {layout::row_major, layout::time_contiguous};

}  // namespace

TEMPLATE_TEST_CASE("cuda::linear_scan: agrees with the reference, whatever is switched on, in any layout", "", float,
                   bfloat16, float16, complex_float)
{
    for (unsigned options = 0; options < 1u << linear_setup::options; ++options) {
        for (const layout inputs : all_layouts) {
            const layout outputs = all_layouts[(options + static_cast<unsigned>(inputs)) % 6];
            compare<TestType>(linear_setup{.length = 37, .state = 19, .inputs = inputs, .outputs = outputs}.with_options(options));
            compare<TestType>(linear_setup{.length = 533, .state = 19, .inputs = inputs, .outputs = outputs}.with_options(options));
        }
    }
}

TEMPLATE_TEST_CASE("cuda::linear_scan: every length and every number of channels", "", float, bfloat16, complex_float)
{
    for (const layout form : both) {
        for (const index n : linear_sizes) {
            for (const bool packed : {false, true}) {
                linear_setup s{.constant = n % 2 == 1, .initial_state = true, .packed = packed, .reverse = n % 3 == 0,
                               .inputs = form, .outputs = form};
                s.state = n;
                compare<TestType>(s);
                s.state = 3;
                s.length = n;
                compare<TestType>(s);
            }
        }
        for (const index length : {127, 128, 129, 255, 256, 257, 511, 512, 513, 769}) {
            compare<TestType>({.length = length, .state = 17, .initial_state = true, .packed = true, .inputs = form,
                               .outputs = form});
            compare<TestType>({.length = length, .state = 16, .constant = true, .inputs = form, .outputs = form});
        }
        compare<TestType>({.batch = 3, .length = 300, .state = 2060, .initial_state = true, .inputs = form, .outputs = form});
    }
    compare<TestType>({.batch = 0});
}

TEMPLATE_TEST_CASE("cuda::linear_scan: time in segments", "", float, bfloat16, float16, complex_float)
{
    for (unsigned options = 0; options < 1u << linear_setup::options; ++options) {
        const layout form = all_layouts[options % 6];
        compare<TestType>(linear_setup{.batch = 1, .length = 2100, .state = 5, .inputs = form,
                                       .outputs = form}.with_options(options));
        compare<TestType>(linear_setup{.batch = 3, .length = 4097, .state = 33, .inputs = form,
                                       .outputs = form}.with_options(options));
    }
    for (const layout form : both) {
        compare<TestType>({.batch = 1, .length = 200001, .state = 3, .initial_state = true, .inputs = form, .outputs = form});
        compare<TestType>({.batch = 1, .length = 70001, .state = 16, .constant = true, .reverse = true, .inputs = form,
                           .outputs = form});
    }
}

TEMPLATE_TEST_CASE("cuda::linear_scan: a factor with any strides", "", float, complex_float)
{
    for (unsigned constant = 0; constant < 8; ++constant) {
        for (const layout form : both) {
            const linear_problem<TestType> p(
                {.batch = 3, .length = 300, .state = 21, .initial_state = true, .packed = true, .inputs = form, .outputs = form});
            const auto expected = p.wide();
            const auto shared = [&]<class E>(view<const E, 3> v) {
                auto strides = v.strides();
                for (std::size_t i = 0; i < 3; ++i) {
                    if (constant >> i & 1u) strides[i] = 0;
                }
                return view<const E, 3>(v.data(), v.extents(), strides);
            };
            auto a = p.args();
            a.a = shared(a.a);
            auto wide = expected.args();
            wide.a = shared(wide.a);
            run_on_device(a);
            reference::linear_scan(wide);
            INFO("shared axes " << constant);
            CHECK(relative_error(p.h, expected.h) <= budget<TestType>);
        }
    }
}

TEMPLATE_TEST_CASE("cuda::linear_scan: a NaN reaches exactly the states that depend on it", "", float, bfloat16, complex_float)
{
    random numbers(3);
    for (unsigned options = 0; options < 16; ++options) {
        for (const layout form : both) {
            for (const index length : {38, 600, 2500}) {
                linear_problem<TestType> p(
                    linear_setup{.length = length, .state = 18, .inputs = form, .outputs = form}.with_options(options));
                INFO(p.s.text());
                const index b = numbers.below(2), t = numbers.below(length), c = numbers.below(18);
                switch (numbers.below(4)) {
                case 0: (p.s.constant ? p.a(0, 0, c) : p.a(b, t, c)) = quiet_nan<linear_scan_state_t<TestType>>(); break;
                case 1:
                    if (p.initial_state.given()) p.initial_state(b, c) = quiet_nan<linear_scan_state_t<TestType>>();
                    break;
                case 2:
                    if (p.reset.given() && !p.s.constant) {
                        p.a(b, t, c) = quiet_nan<linear_scan_state_t<TestType>>();  // never looked at
                        p.reset(b, t) = 1;
                    }
                    break;
                default: p.b(b, t, c) = quiet_nan<TestType>();
                }
                const auto expected = p.wide();
                run_on_device(p.args());
                reference::linear_scan(expected.args());
                CHECK(same_nans(p.h, expected.h));
                CHECK(same_nans(p.final_state, expected.final_state));
            }
        }
    }
}

TEST_CASE("cuda::linear_scan: a workspace that is too small is refused, and one that is needed only where time is cut")
{
    const linear_problem<float> p({.batch = 1, .length = 5000, .state = 3});
    const auto a = p.args();
    const device_operation& op = device_operations().at(typeid(a));
    const std::size_t bytes = op.workspace_size(&a);
    REQUIRE(bytes > 0);
    std::vector<std::byte> memory(bytes - 1);
    CHECK_THROWS_AS(op.run(&a, memory, nullptr), shape_error);
    const linear_problem<float> brief({.batch = 1, .length = 500, .state = 3});
    const auto b = brief.args();
    CHECK(op.workspace_size(&b) == 0);
    auto wrong = a;
    wrong.final_state = wrong.final_state.slice(1, 0, 2);
    CHECK_THROWS_AS(op.run(&wrong, memory, nullptr), shape_error);
}

}  // namespace ssmkit::testing
