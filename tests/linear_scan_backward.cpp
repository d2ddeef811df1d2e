#include <ssmkit/linear_scan_backward.hpp>

#include <cmath>
#include <complex>
#include <string>

#include <ssmkit/linear_scan.hpp>
#include <ssmkit/reference/linear_scan.hpp>
#include <ssmkit/reference/linear_scan_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "linear_scan_problem.hpp"

namespace ssmkit::testing {
namespace {

using complex_float = std::complex<float>;
using complex_double = std::complex<double>;

constexpr layout both[] = {layout::row_major, layout::time_contiguous};

template <class T>
constexpr double budget = std::is_same_v<wide_t<T>, T> ? 1e-13 : 4e-6;

/// One rounding to T of what is stored as such.
template <class T>
constexpr double rounded = sizeof(T) == 2 ? rounding<T> : 0;

/// Runs kernel and 64-bit reference on the same numbers, the states of the kernel's forward pass among them.
template <class T>
void compare(const linear_setup& s)
{
    INFO(s.text());
    const linear_problem<T> p(s);
    auto expected = p.wide();
    const auto before = p.input_bytes();
    linear_scan(p.args());
    linear_scan_backward(p.backward_args());
    expected.h.fill([&](auto... i) { return convert<wide_t<T>>(p.h(i...)); });
    reference::linear_scan_backward(expected.backward_args());
    // A sum over no tokens has no element that could be written.
    if (s.batch * s.length > 0) CHECK(relative_error(p.da, expected.da) <= budget<T>);
    CHECK(relative_error(p.db, expected.db) <= budget<T> + rounded<T>);
    CHECK(relative_error(p.dinitial_state, expected.dinitial_state) <= budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("linear_scan_backward: a sequence by hand")
{
    const complex_double a[] = {{0, 1}, {2, -1}}, start[] = {{1, 1}}, dh[] = {{1, 0}, {0, 1}}, dfinal[] = {{1, 0}};
    complex_double h[] = {{1, 2}, {7, 7}}, da[2], db[2], dstart[1];
    const linear_scan_backward_args<complex_double> scan{
        .forward = {.a = {a, 1, 2, 1}, .initial_state = {start, 1, 1}, .h = {h, 1, 2, 1}}, .dh = {dh, 1, 2, 1},
        .dfinal_state = {dfinal, 1, 1}, .da = {da, 1, 2, 1}, .db = {db, 1, 2, 1}, .dinitial_state = {dstart, 1, 1}};
    const auto verify = [&] {
        CHECK(db[1] == complex_double(1, 1));
        CHECK(da[1] == complex_double(3, -1));    // (1 + i) conj(1 + 2i)
        CHECK(db[0] == complex_double(2, 3));     // 1 + (2 + i)(1 + i)
        CHECK(da[0] == complex_double(5, 1));     // (2 + 3i)(1 - i)
        CHECK(dstart[0] == complex_double(3, -2));  // -i (2 + 3i)
    };
    linear_scan_backward(scan);
    verify();
    reference::linear_scan_backward(scan);
    verify();
}

TEMPLATE_TEST_CASE("linear_scan_backward: the reference's gradients are those of finite differences", "", double, complex_double)
{
    // F = Σ Re(conj(dh) h) + Σ Re(conj(dfinal_state) final_state), central differences in both parts of a number.
    using T = TestType;
    for (unsigned options = 0; options < 16; ++options) {
        const linear_problem<T> p(linear_setup{.length = 9, .state = 3}.with_options(options));
        INFO(p.s.text());
        reference::linear_scan(p.args());
        reference::linear_scan_backward(p.backward_args());
        const auto product = [](const T& x, const T& y) {
            if constexpr (detail::is_complex<T>) {
                return x.real() * y.real() + x.imag() * y.imag();
            } else {
                return x * y;
            }
        };
        const auto loss = [&] {
            reference::linear_scan(p.args());
            double sum = 0;
            for_each_index(p.h.view(), [&](auto... i) { sum += product(p.dh(i...), p.h(i...)); });
            for_each_index(p.final_state.view(), [&](auto... i) { sum += product(p.dfinal_state(i...), p.final_state(i...)); });
            return sum;
        };
        const auto slope = [&](T& x, const T& direction) {
            const T here = x;
            x = here + 1e-5 * direction;
            const double above = loss();
            x = here - 1e-5 * direction;
            const double below = loss();
            x = here;
            return (above - below) / 2e-5;
        };
        const auto verify = [&](const auto& input, const auto& gradient) {
            if (!input.given()) return;
            for_each_index(input.view(), [&](auto... i) {
                T expected(slope(input(i...), T(1)));
                if constexpr (detail::is_complex<T>) expected += T(0, slope(input(i...), T(0, 1)));
                REQUIRE(std::abs(expected - gradient(i...)) <= 1e-7);
            });
        };
        verify(p.a, p.da);
        verify(p.b, p.db);
        verify(p.initial_state, p.dinitial_state);
    }
}

TEMPLATE_TEST_CASE("linear_scan_backward: agrees with the reference, whatever is switched on, in any layout", "", float, double,
                   bfloat16, float16, complex_float, complex_double)
{
    for (unsigned options = 0; options < 1u << linear_setup::options; ++options) {
        for (const layout inputs : all_layouts) {
            for (const layout outputs : all_layouts) {
                compare<TestType>(linear_setup{.length = 37, .state = 19, .inputs = inputs, .outputs = outputs}.with_options(options));
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan_backward: every length and every number of channels", "", float, double, bfloat16, complex_float,
                   complex_double)
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
    }
}

TEMPLATE_TEST_CASE("linear_scan_backward: more channels than a page holds, more tokens than a block", "", float, bfloat16,
                   complex_float)
{
    for (const layout form : both) {
        for (const bool constant : {false, true}) {
            compare<TestType>({.length = 9, .state = 2060, .constant = constant, .initial_state = true, .packed = true,
                               .inputs = form, .outputs = form});
            compare<TestType>({.length = 700, .state = 5, .constant = constant, .initial_state = true, .packed = true,
                               .reverse = true, .inputs = form, .outputs = form});
        }
    }
    compare<TestType>({.batch = 3, .length = 4000, .state = 5, .constant = true});
}

TEMPLATE_TEST_CASE("linear_scan_backward: da is summed over the axes that share it", "", float, bfloat16, complex_double)
{
    for (unsigned shared = 0; shared < 4; ++shared) {
        for (const layout form : all_layouts) {
            const linear_problem<TestType> p({.batch = 3, .length = 85, .state = 21, .initial_state = true, .packed = true,
                                              .inputs = form, .outputs = form});
            auto expected = p.wide();
            const auto over = [&]<class E>(const view<E, 3>& v) {
                auto strides = v.strides();
                for (std::size_t i = 0; i < 2; ++i) {
                    if (shared >> i & 1u) strides[i] = 0;
                }
                return view<E, 3>(v.data(), v.extents(), strides);
            };
            linear_scan(p.args());
            expected.h.fill([&](auto... i) { return convert<wide_t<TestType>>(p.h(i...)); });
            auto a = p.backward_args();
            a.da = over(a.da);
            auto wide = expected.backward_args();
            wide.da = over(wide.da);
            linear_scan_backward(a);
            reference::linear_scan_backward(wide);
            INFO("shared axes " << shared << " layout " << static_cast<int>(form));
            CHECK(relative_error(a.da, wide.da) <= budget<TestType>);
            CHECK(p.gaps_untouched());
        }
    }
}

TEST_CASE("linear_scan_backward: a sum over many tokens stays accurate")
{
    // Equal terms, whose rounding errors add up: one after the other, or in spans that a float adds up, they lose 2e-5 and more.
    linear_problem<float> p({.batch = 1, .length = 200000, .state = 3, .constant = true});
    p.a.fill([](auto...) { return 0.3f; });
    p.b.fill([](auto...) { return 1.0f; });
    p.dh.fill([](auto...) { return 0.7f; });
    auto expected = p.wide();
    linear_scan(p.args());
    expected.h.fill([&](auto... i) { return double(p.h(i...)); });
    linear_scan_backward(p.backward_args());
    reference::linear_scan_backward(expected.backward_args());
    CHECK(relative_error(p.da, expected.da) <= budget<float>);
}

TEMPLATE_TEST_CASE("linear_scan_backward: a NaN reaches exactly the gradients that depend on it", "", float, bfloat16, complex_float)
{
    random numbers(3);
    for (unsigned options = 0; options < 16; ++options) {
        for (const layout form : both) {
            for (int repeat = 0; repeat < 4; ++repeat) {
                linear_problem<TestType> p(
                    linear_setup{.length = 38, .state = 18, .inputs = form, .outputs = form}.with_options(options));
                INFO(p.s.text());
                const index b = numbers.below(2), t = numbers.below(38), c = numbers.below(18);
                using state_type = linear_scan_state_t<TestType>;
                auto clean = p.wide();
                linear_scan(p.args());
                reference::linear_scan(clean.args());
                switch (numbers.below(4)) {
                case 0: (p.s.constant ? p.a(0, 0, c) : p.a(b, t, c)) = quiet_nan<state_type>(); break;
                case 1: p.h(b, t, c) = quiet_nan<TestType>(); break;
                case 2: p.dfinal_state(b, c) = quiet_nan<state_type>(); break;
                default: p.dh(b, t, c) = quiet_nan<TestType>();
                }
                auto expected = p.wide();
                for_each_index(p.h.view(), [&](auto... i) {
                    expected.h(i...) = is_nan(p.h(i...)) ? quiet_nan<wide_t<TestType>>() : clean.h(i...);
                });
                linear_scan_backward(p.backward_args());
                reference::linear_scan_backward(expected.backward_args());
                CHECK(same_nans(p.da, expected.da));
                CHECK(same_nans(p.db, expected.db));
                CHECK(same_nans(p.dinitial_state, expected.dinitial_state));
            }
        }
    }
}

TEST_CASE("linear_scan_backward: gradients that are not asked for change nothing")
{
    for (const bool constant : {false, true}) {
        const linear_setup s{.length = 40, .constant = constant, .initial_state = true, .packed = true};
        const linear_problem<complex_float> all(s);
        linear_scan(all.args());
        linear_scan_backward(all.backward_args());
        for (unsigned wanted = 0; wanted < 8; ++wanted) {
            const linear_problem<complex_float> p(s);
            linear_scan(p.args());
            auto a = p.backward_args();
            if (!(wanted & 1u)) a.da = {}, a.forward.h = {};
            if (!(wanted & 2u)) a.db = {};
            if (!(wanted & 4u)) a.dinitial_state = {};
            linear_scan_backward(a);
            if (wanted & 1u) CHECK(same_bits(p.da, all.da));
            if (wanted & 2u) CHECK(same_bits(p.db, all.db));
            if (wanted & 4u) CHECK(same_bits(p.dinitial_state, all.dinitial_state));
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan_backward: threads change no bit", "", float, bfloat16, complex_float)
{
    threads pool(3);
    for (const layout form : both) {
        for (const bool constant : {false, true}) {
            const linear_setup s{.length = 130, .state = 1100, .constant = constant, .initial_state = true, .packed = true,
                                 .inputs = form, .outputs = form};
            const linear_problem<TestType> one(s);
            linear_scan(one.args());
            linear_scan_backward(one.backward_args());
            const auto agrees = [&](auto& exec) {
                const linear_problem<TestType> p(s);
                linear_scan(p.args());
                linear_scan_backward(p.backward_args(), exec);
                return same_bits(one.da, p.da) && same_bits(one.db, p.db) && same_bits(one.dinitial_state, p.dinitial_state);
            };
            last_task_first other;
            CHECK(agrees(pool));
            CHECK(agrees(other));
        }
    }
}

TEST_CASE("linear_scan_backward: allocates nothing")
{
    for (const layout form : both) {
        const linear_problem<complex_double> p({.initial_state = true, .packed = true, .inputs = form, .outputs = form});
        linear_scan(p.args());
        CHECK(allocations_during([&] { linear_scan_backward(p.backward_args()); }) == 0);
    }
}

TEMPLATE_TEST_CASE("linear_scan_backward: touches nothing outside its arguments", "", float, bfloat16, complex_float, complex_double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : both) {
            for (const index n : {1, 3, 8, 9, 16, 17, 33, 64, 65}) {
                for (const bool constant : {false, true}) {
                    linear_setup s{.constant = constant, .initial_state = true, .packed = true, .inputs = form, .outputs = form,
                                   .edge = edge};
                    s.state = n;
                    compare<TestType>(s);
                    s.state = 5;
                    s.length = n;
                    compare<TestType>(s);
                }
            }
        }
    }
}

TEST_CASE("linear_scan_backward: names the argument that does not fit")
{
    const linear_problem<float> p({.initial_state = true, .packed = true});
    linear_scan(p.args());
    const auto complaint = [](const linear_scan_backward_args<float>& a) -> std::string {
        try {
            linear_scan_backward(a);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        const std::string said = complaint(a);
        INFO(said);
        CHECK(said.find(std::string("linear_scan_backward: ") + text) == 0);
    };
    CHECK(complaint(p.backward_args()).empty());
    named("a has shape", [](auto& a) { a.forward.a = a.forward.a.slice(0, 0, 1); });
    named("h has shape", [](auto& a) { a.forward.h = {}; });
    named("initial_state has shape", [](auto& a) { a.forward.initial_state = a.forward.initial_state.slice(0, 0, 1); });
    named("reset has shape", [](auto& a) { a.forward.reset = a.forward.reset.slice(0, 0, 1); });
    named("dfinal_state has shape", [](auto& a) { a.dfinal_state = a.dfinal_state.slice(1, 0, 1); });
    named("da has shape", [](auto& a) { a.da = a.da.slice(1, 0, 1); });
    named("db has shape", [](auto& a) { a.db = a.db.slice(1, 0, 1); });
    named("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(1, 0, 1); });
    named("da is written but", [](auto& a) { a.da = {a.da.data(), a.da.extents(), {126, 6, 0}}; });
    named("db is written but", [](auto& a) { a.db = {a.db.data(), a.db.extents(), {0, 6, 1}}; });
    named("da overlaps h", [](auto& a) { a.da = a.forward.h; });
    named("db overlaps dh", [](auto& a) { a.db = {const_cast<float*>(a.dh.data()) + 1, a.dh.extents(), a.dh.strides()}; });
    named("db overlaps da", [](auto& a) { a.db = a.da; });
}

}  // namespace ssmkit::testing
