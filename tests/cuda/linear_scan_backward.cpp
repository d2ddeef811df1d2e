#include <ssmkit/reference/linear_scan_backward.hpp>

#include <complex>
#include <vector>

#include <ssmkit/reference/linear_scan.hpp>

#include "../catch.hpp"
#include "../linear_scan_problem.hpp"
#include "../operations/operations.hpp"

namespace ssmkit::testing {
namespace {

using complex_float = std::complex<float>;

constexpr double budget = 4e-6;

/// One rounding to T of what is stored as such.
template <class T>
constexpr double rounded = sizeof(T) == 2 ? rounding<T> : 0;

constexpr layout both[] = {layout::row_major, layout::time_contiguous};

/// On the states of the reference's forward pass, rounded to T.
template <class T>
void compare(const linear_setup& s)
{
    INFO(s.text());
    const linear_problem<T> p(s), again(s);
    const auto expected = p.wide();
    reference::linear_scan(p.args());
    reference::linear_scan(again.args());
    const auto before = p.input_bytes();
    run_on_device(p.backward_args());
    run_on_device(again.backward_args());
    for_each_index(p.h.view(), [&](auto... i) { expected.h(i...) = convert<wide_t<T>>(p.h(i...)); });
    reference::linear_scan_backward(expected.backward_args());
    // A sum over no tokens has no element that could be written.
    if (s.batch * s.length > 0) CHECK(relative_error(p.da, expected.da) <= budget);
    CHECK(relative_error(p.db, expected.db) <= budget + rounded<T>);
    CHECK(relative_error(p.dinitial_state, expected.dinitial_state) <= budget);
    CHECK(same_bits(p.da, again.da));
    CHECK(same_bits(p.db, again.db));
    CHECK(same_bits(p.dinitial_state, again.dinitial_state));
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEMPLATE_TEST_CASE("cuda::linear_scan_backward: agrees with the reference, whatever is switched on, in any layout", "", float,
                   bfloat16, float16, complex_float)
{
    for (unsigned options = 0; options < 1u << linear_setup::options; ++options) {
        for (const layout inputs : all_layouts) {
            const layout outputs = all_layouts[(options + static_cast<unsigned>(inputs)) % 6];
            compare<TestType>(linear_setup{.length = 37, .state = 19, .inputs = inputs, .outputs = outputs}.with_options(options));
            compare<TestType>(linear_setup{.length = 275, .state = 19, .inputs = inputs, .outputs = outputs}.with_options(options));
        }
    }
}

TEMPLATE_TEST_CASE("cuda::linear_scan_backward: every length and every number of channels", "", float, bfloat16, complex_float)
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
        for (const index length : {63, 64, 65, 127, 128, 129, 255, 256, 257, 385}) {
            compare<TestType>({.length = length, .state = 17, .initial_state = true, .packed = true, .inputs = form,
                               .outputs = form});
            compare<TestType>({.length = length, .state = 16, .constant = true, .inputs = form, .outputs = form});
        }
        compare<TestType>({.batch = 3, .length = 150, .state = 2060, .initial_state = true, .inputs = form, .outputs = form});
    }
    compare<TestType>({.batch = 0});
}

TEMPLATE_TEST_CASE("cuda::linear_scan_backward: time in segments", "", float, bfloat16, float16, complex_float)
{
    for (unsigned options = 0; options < 1u << linear_setup::options; ++options) {
        const layout form = all_layouts[options % 6];
        compare<TestType>(linear_setup{.batch = 1, .length = 1100, .state = 5, .inputs = form,
                                       .outputs = form}.with_options(options));
        compare<TestType>(linear_setup{.batch = 3, .length = 2049, .state = 33, .inputs = form,
                                       .outputs = form}.with_options(options));
    }
    for (const layout form : both) {
        compare<TestType>({.batch = 1, .length = 100001, .state = 3, .initial_state = true, .inputs = form, .outputs = form});
        compare<TestType>({.batch = 1, .length = 30001, .state = 16, .constant = true, .reverse = true, .inputs = form,
                           .outputs = form});
    }
}

TEMPLATE_TEST_CASE("cuda::linear_scan_backward: da is summed over the axes that share it", "", float, bfloat16, complex_float)
{
    for (unsigned shared = 0; shared < 4; ++shared) {
        for (const layout form : all_layouts) {
            for (const index length : {85, 1300}) {
                const linear_problem<TestType> p({.batch = 3, .length = length, .state = 21, .initial_state = true, .packed = true,
                                                  .inputs = form, .outputs = form});
                const auto expected = p.wide();
                const auto over = [&]<class E>(const view<E, 3>& v) {
                    auto strides = v.strides();
                    for (std::size_t i = 0; i < 2; ++i) {
                        if (shared >> i & 1u) strides[i] = 0;
                    }
                    return view<E, 3>(v.data(), v.extents(), strides);
                };
                reference::linear_scan(p.args());
                for_each_index(p.h.view(), [&](auto... i) { expected.h(i...) = convert<wide_t<TestType>>(p.h(i...)); });
                auto a = p.backward_args();
                a.da = over(a.da);
                auto wide = expected.backward_args();
                wide.da = over(wide.da);
                run_on_device(a);
                reference::linear_scan_backward(wide);
                INFO("shared axes " << shared << " layout " << static_cast<int>(form) << " length " << length);
                CHECK(relative_error(a.da, wide.da) <= budget);
                CHECK(p.gaps_untouched());
            }
        }
    }
}

TEST_CASE("cuda::linear_scan_backward: a sum over many tokens stays accurate")
{
    linear_problem<float> p({.batch = 1, .length = 200000, .state = 3, .constant = true});
    p.a.fill([](auto...) { return 0.3f; });
    p.b.fill([](auto...) { return 1.0f; });
    p.dh.fill([](auto...) { return 0.7f; });
    const auto expected = p.wide();
    reference::linear_scan(p.args());
    for_each_index(p.h.view(), [&](auto... i) { expected.h(i...) = double(p.h(i...)); });
    run_on_device(p.backward_args());
    reference::linear_scan_backward(expected.backward_args());
    CHECK(relative_error(p.da, expected.da) <= budget);
}

TEMPLATE_TEST_CASE("cuda::linear_scan_backward: a NaN reaches exactly the gradients that depend on it", "", float, bfloat16,
                   complex_float)
{
    random numbers(3);
    for (unsigned options = 0; options < 16; ++options) {
        for (const layout form : both) {
            for (const index length : {38, 300, 1300}) {
                linear_problem<TestType> p(
                    linear_setup{.length = length, .state = 18, .inputs = form, .outputs = form}.with_options(options));
                INFO(p.s.text());
                const index b = numbers.below(2), t = numbers.below(length), c = numbers.below(18);
                using state_type = linear_scan_state_t<TestType>;
                const auto clean = p.wide();
                reference::linear_scan(p.args());
                reference::linear_scan(clean.args());
                switch (numbers.below(4)) {
                case 0: (p.s.constant ? p.a(0, 0, c) : p.a(b, t, c)) = quiet_nan<state_type>(); break;
                case 1: p.h(b, t, c) = quiet_nan<TestType>(); break;
                case 2: p.dfinal_state(b, c) = quiet_nan<state_type>(); break;
                default: p.dh(b, t, c) = quiet_nan<TestType>();
                }
                const auto expected = p.wide();
                for_each_index(p.h.view(), [&](auto... i) {
                    expected.h(i...) = is_nan(p.h(i...)) ? quiet_nan<wide_t<TestType>>() : clean.h(i...);
                });
                run_on_device(p.backward_args());
                reference::linear_scan_backward(expected.backward_args());
                CHECK(same_nans(p.da, expected.da));
                CHECK(same_nans(p.db, expected.db));
                CHECK(same_nans(p.dinitial_state, expected.dinitial_state));
            }
        }
    }
}

TEST_CASE("cuda::linear_scan_backward: gradients that are not asked for change nothing")
{
    for (const bool constant : {false, true}) {
        for (const index length : {40, 1100}) {
            const linear_setup s{.length = length, .constant = constant, .initial_state = true, .packed = true};
            const linear_problem<complex_float> all(s);
            reference::linear_scan(all.args());
            run_on_device(all.backward_args());
            for (unsigned wanted = 0; wanted < 8; ++wanted) {
                const linear_problem<complex_float> p(s);
                reference::linear_scan(p.args());
                auto a = p.backward_args();
                if (!(wanted & 1u)) a.da = {}, a.forward.h = {};
                if (!(wanted & 2u)) a.db = {};
                if (!(wanted & 4u)) a.dinitial_state = {};
                run_on_device(a);
                if (wanted & 1u) CHECK(same_bits(p.da, all.da));
                if (wanted & 2u) CHECK(same_bits(p.db, all.db));
                if (wanted & 4u) CHECK(same_bits(p.dinitial_state, all.dinitial_state));
            }
        }
    }
}

TEST_CASE("cuda::linear_scan_backward: a workspace that is too small is refused")
{
    const linear_problem<float> p({.batch = 1, .length = 500, .state = 3, .constant = true});
    const auto a = p.backward_args();
    const device_operation& op = device_operations().at(typeid(a));
    REQUIRE(op.workspace_size(&a) > 0);
    std::vector<std::byte> memory(op.workspace_size(&a) - 1);
    CHECK_THROWS_AS(op.run(&a, memory, nullptr), shape_error);
}

}  // namespace ssmkit::testing
