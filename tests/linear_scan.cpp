#include <ssmkit/linear_scan.hpp>

#include <chrono>
#include <cmath>
#include <complex>
#include <limits>
#include <string>

#include <ssmkit/reference/linear_scan.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "linear_scan_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

using complex_float = std::complex<float>;
using complex_double = std::complex<double>;

/// What the header promises, and one rounding to T.
template <class T>
constexpr double budget = (std::is_same_v<wide_t<T>, T> ? 4e-15 : 2e-6) + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
constexpr double state_budget = std::is_same_v<wide_t<T>, T> ? 4e-15 : 2e-6;

/// Runs kernel and 64-bit reference on the same numbers and compares.
template <class T>
void compare(const linear_setup& s)
{
    INFO(s.text());
    const linear_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    linear_scan(p.args());
    reference::linear_scan(expected.args());
    CHECK(relative_error(p.h, expected.h) <= budget<T>);
    CHECK(relative_error(p.final_state, expected.final_state) <= state_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

constexpr layout both[] = {layout::row_major, layout::time_contiguous};

}  // namespace

TEST_CASE("linear_scan: a sequence by hand")
{
    const float a[] = {9, 2, -1, 0.5f, 3}, b[] = {1, 2, 3, 4, 5}, start[] = {10};
    const std::uint8_t reset[] = {0, 0, 0, 1, 0};
    float h[5], last[1];
    linear_scan_args<float> scan{.a = {a, 1, 5, 1}, .b = {b, 1, 5, 1}, .initial_state = {start, 1, 1}, .h = {h, 1, 5, 1},
                                 .final_state = {last, 1, 1}};
    const auto gives = [&](std::array<float, 5> expected, float state) {
        linear_scan(scan);
        CHECK(std::equal(expected.begin(), expected.end(), h));
        CHECK(last[0] == state);
        reference::linear_scan(scan);
        CHECK(std::equal(expected.begin(), expected.end(), h));
        CHECK(last[0] == state);
    };
    gives({91, 184, -181, -86.5f, -254.5f}, -254.5f);
    scan.reset = {reset, 1, 5};
    gives({91, 184, -181, 4, 17}, 17);
    scan.reverse = true;
    gives({1, 0, -1, 4, 35}, 1);
    scan.initial_state = {};
    scan.reset = {};
    gives({-44, -5, -3.5f, 6.5f, 5}, -44);
}

TEST_CASE("linear_scan: complex numbers by hand")
{
    const complex_double a[] = {{0, 1}, {2, -1}}, b[] = {{1, 2}, {3, 4}};
    complex_double h[2];
    const linear_scan_args<complex_double> scan{.a = {a, 1, 2, 1}, .b = {b, 1, 2, 1}, .h = {h, 1, 2, 1}};
    linear_scan(scan);
    CHECK(h[0] == complex_double(1, 2));
    CHECK(h[1] == complex_double(7, 7));  // (2 - i)(1 + 2i) = 4 + 3i
}

TEMPLATE_TEST_CASE("linear_scan: agrees with the reference, whatever is switched on, in any layout", "", float, double, bfloat16,
                   float16, complex_float, complex_double)
{
    for (unsigned options = 0; options < 1u << linear_setup::options; ++options) {
        for (const layout inputs : all_layouts) {
            for (const layout outputs : all_layouts) {
                compare<TestType>(
                    linear_setup{.length = 37, .state = 19, .inputs = inputs, .outputs = outputs}.with_options(options));
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: every length and every number of channels", "", float, double, bfloat16, complex_float,
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
    compare<TestType>({.batch = 0});
}

TEMPLATE_TEST_CASE("linear_scan: more channels than a page holds, more tokens than a tile", "", float, bfloat16, complex_float)
{
    for (const layout inputs : both) {
        for (const layout outputs : both) {
            compare<TestType>(
                {.length = 9, .state = 2060, .initial_state = true, .packed = true, .inputs = inputs, .outputs = outputs});
            compare<TestType>({.length = 700, .state = 5, .initial_state = true, .packed = true, .reverse = true, .inputs = inputs,
                               .outputs = outputs});
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: outputs too large for the caches", "", float, double, complex_float)
{
    const index length = (index{4} << 20) / (513 * static_cast<index>(sizeof(TestType))) + 20;
    for (const layout form : {layout::row_major, layout::time_contiguous, layout::unaligned}) {
        for (const index state : {513, 528}) {  // rows of which all or none start at a register's boundary
            for (const bool other : {false, true}) {
                compare<TestType>({.batch = 1, .length = length, .state = state, .constant = other, .packed = other,
                                   .reverse = other, .inputs = form, .outputs = form});
                if (state == 528) {
                    compare<TestType>(
                        {.batch = 1, .length = length, .state = state, .in_place = true, .inputs = form, .outputs = form});
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: a factor with any strides", "", float, complex_double)
{
    // Constant along any of the axes, each with and without its fellows.
    for (unsigned constant = 0; constant < 8; ++constant) {
        for (const layout form : both) {
            linear_problem<TestType> p(
                {.batch = 3, .length = 20, .state = 21, .initial_state = true, .packed = true, .inputs = form, .outputs = form});
            auto expected = p.wide();
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
            linear_scan(a);
            reference::linear_scan(wide);
            INFO("shared axes " << constant);
            CHECK(relative_error(p.h, expected.h) <= budget<TestType>);
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: in place gives the same bits", "", float, bfloat16, complex_float)
{
    for (unsigned options = 0; options < 16; ++options) {
        for (const layout form : all_layouts) {
            linear_setup s = linear_setup{.length = 53, .state = 35, .inputs = form, .outputs = form}.with_options(options);
            const linear_problem<TestType> two(s);
            s.in_place = true;
            const linear_problem<TestType> one(s);
            linear_scan(two.args());
            linear_scan(one.args());
            CHECK(same_bits(one.h, two.h));
            CHECK(same_bits(one.final_state, two.final_state));
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: cutting the sequence and carrying the state changes no bit", "", float, double, bfloat16,
                   complex_float)
{
    for (const layout form : both) {
        for (unsigned options = 0; options < 16; ++options) {
            const linear_problem<TestType> p(
                linear_setup{.length = 40, .state = 19, .inputs = form, .outputs = form}.with_options(options));
            linear_scan(p.args());
            for (index cut = 0; cut <= p.s.length; ++cut) {
                INFO(p.s.text() << " cut at " << cut);
                tensor<TestType, 3> h(p.h.view().extents(), form);
                tensor<linear_scan_state_t<TestType>, 2> state(p.final_state.view().extents());
                const auto part = [&](index first, index count) {
                    auto a = p.args();
                    a.a = a.a.slice(1, first, count);
                    a.b = a.b.slice(1, first, count);
                    if (p.s.packed) a.reset = a.reset.slice(1, first, count);
                    a.h = h.view().slice(1, first, count);
                    a.final_state = state;
                    return a;
                };
                auto earlier = part(0, cut), later = part(cut, p.s.length - cut);
                if (p.s.reverse) std::swap(earlier, later);
                later.initial_state = state;
                linear_scan(earlier);
                linear_scan(later);
                CHECK(same_bits(h, p.h));
                CHECK(same_bits(state, p.final_state));
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: packed sequences do not see each other", "", float, bfloat16, complex_double)
{
    using T = TestType;
    const index lengths[] = {1, 15, 16, 17, 1, 2, 3, 31, 33, 64, 65};
    for (const layout form : both) {
        for (const bool reverse : {false, true}) {
            index total = 0;
            for (const index n : lengths) total += n;
            linear_problem<T> p(
                {.length = total, .state = 18, .packed = true, .reverse = reverse, .inputs = form, .outputs = form});
            p.reset.fill([](index, index) { return std::uint8_t(0); });
            index start = 0;
            for (const index n : lengths) {
                const index first = reverse ? start + n - 1 : start;
                for (index b = 0; b < p.s.batch; ++b) {
                    p.reset(b, first) = 1;
                    for (index c = 0; c < p.s.state; ++c)
                        p.a(b, first, c) = quiet_nan<linear_scan_state_t<T>>();  // never looked at
                }
                start += n;
            }
            linear_scan(p.args());
            start = 0;
            for (const index n : lengths) {
                INFO("length " << n);
                tensor<T, 3> h({p.s.batch, n, p.s.state}, form);
                auto alone = p.args();
                alone.a = alone.a.slice(1, start, n);
                alone.b = alone.b.slice(1, start, n);
                alone.reset = alone.reset.slice(1, start, n);
                alone.h = h;
                linear_scan(alone);
                CHECK(same_bits(h.view(), p.h.view().slice(1, start, n)));
                CHECK(same_nans(h, tensor<T, 3>(h.view().extents()).fill([](auto...) { return T(0); })));
                start += n;
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: reverse is flip, scan, flip", "", float, bfloat16, complex_float)
{
    for (const layout form : both) {
        const linear_problem<TestType> p({.length = 45, .state = 17, .initial_state = true, .packed = true, .reverse = true,
                                          .inputs = form, .outputs = form});
        linear_scan(p.args());
        tensor<linear_scan_state_t<TestType>, 3> a(p.a.view().extents());
        tensor<TestType, 3> b(p.b.view().extents()), h(p.h.view().extents());
        tensor<linear_scan_state_t<TestType>, 2> state(p.final_state.view().extents());
        tensor<std::uint8_t, 2> reset(p.reset.view().extents());
        a.fill([&](index i, index t, index c) { return p.a(i, p.s.length - 1 - t, c); });
        b.fill([&](index i, index t, index c) { return p.b(i, p.s.length - 1 - t, c); });
        reset.fill([&](index i, index t) { return p.reset(i, p.s.length - 1 - t); });
        auto flipped = p.args();
        flipped.reverse = false;
        flipped.a = a;
        flipped.b = b;
        flipped.reset = reset;
        flipped.h = h;
        flipped.final_state = state;
        linear_scan(flipped);
        CHECK(same_bits(h.view().reversed(1), p.h.view()));
        CHECK(same_bits(state, p.final_state));
    }
}

TEMPLATE_TEST_CASE("linear_scan: a NaN reaches exactly the states that depend on it", "", float, double, bfloat16, complex_float,
                   complex_double)
{
    random numbers(3);
    for (unsigned options = 0; options < 16; ++options) {
        for (const layout form : both) {
            for (int repeat = 0; repeat < 4; ++repeat) {
                linear_problem<TestType> p(
                    linear_setup{.length = 38, .state = 18, .inputs = form, .outputs = form}.with_options(options));
                INFO(p.s.text());
                const index b = numbers.below(2), t = numbers.below(38), c = numbers.below(18);
                switch (numbers.below(3)) {
                case 0:
                    (p.s.constant ? p.a(0, 0, c) : p.a(b, t, c)) = quiet_nan<linear_scan_state_t<TestType>>();
                    break;
                case 1:
                    if (p.initial_state.given()) p.initial_state(b, c) = quiet_nan<linear_scan_state_t<TestType>>();
                    break;
                default: p.b(b, t, c) = quiet_nan<TestType>();
                }
                const auto expected = p.wide();
                linear_scan(p.args());
                reference::linear_scan(expected.args());
                CHECK(same_nans(p.h, expected.h));
                CHECK(same_nans(p.final_state, expected.final_state));
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_scan: threads change no bit", "", float, bfloat16, complex_float)
{
    threads pool(3);
    for (const layout form : both) {
        for (const index batch : {1, 3}) {
            const linear_setup s{.batch = batch,
                                 .length = 130,
                                 .state = 1100,
                                 .initial_state = true,
                                 .packed = true,
                                 .inputs = form,
                                 .outputs = form};
            const linear_problem<TestType> one(s);
            linear_scan(one.args());
            linear_problem<TestType> several(s);
            linear_scan(several.args(), pool);
            CHECK(same_bits(one.h, several.h));
            several.make_outputs();
            linear_scan(several.args(), last_task_first{});
            CHECK(same_bits(one.h, several.h));
            CHECK(same_bits(one.final_state, several.final_state));
        }
    }
}

TEST_CASE("linear_scan: allocates nothing")
{
    const linear_problem<float> p({.initial_state = true, .packed = true});
    CHECK(allocations_during([&] { linear_scan(p.args()); }) == 0);
    const linear_problem<complex_double> turned({.inputs = layout::time_contiguous, .outputs = layout::strided});
    CHECK(allocations_during([&] { linear_scan(turned.args()); }) == 0);
}

TEMPLATE_TEST_CASE("linear_scan: touches nothing outside its arguments", "", float, bfloat16, complex_float, complex_double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : both) {
            for (const index n : {1, 3, 8, 9, 16, 17, 33, 63, 64, 65}) {
                for (const int kind : {0, 1, 2, 3}) {
                    linear_setup s{.constant = kind % 2 == 1,
                                   .initial_state = true,
                                   .packed = kind < 2,
                                   .inputs = form,
                                   .outputs = form,
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

TEMPLATE_TEST_CASE("linear_scan: a state that dies away stays fast, and the caller's mode stays", "", float, complex_float)
{
    // 0.5^t reaches the subnormal numbers after 126 tokens and would stay among them for 23; with 1 - 2^-7, for two thousand.
    const index length = 16000, state = 64;
    const auto seconds = [&](bool silent) {
        linear_problem<TestType> p({.batch = 1, .length = length, .state = state, .constant = true});
        p.a.fill([](auto...) { return TestType(1 - 0x1p-7f); });
        p.b.fill([&](index, index t, index) { return TestType(silent ? (t == 0 ? 1e-36f : 0.0f) : 1.0f); });
        double best = 1e30;
        for (int i = 0; i < 7; ++i) {
            const auto start = std::chrono::steady_clock::now();
            linear_scan(p.args());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        CHECK((!silent || std::abs(p.h(0, length - 1, 0)) == 0));
        return best;
    };
    CHECK(seconds(true) <= 2 * seconds(false));
    volatile float tiny = std::numeric_limits<float>::min();
    CHECK(tiny / 2 > 0);
}

TEMPLATE_TEST_CASE("linear_scan: offsets beyond 2^31 and 2^32 elements", "", float, bfloat16, complex_float)
{
    const linear_problem<TestType> p({.length = 5, .state = 3, .initial_state = true});
    linear_scan(p.args());
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            sparse_memory memory;
            try {
                auto far = p.args();
                far.a = memory.spread(far.a, axis, stride);
                far.b = memory.spread(far.b, axis, stride);
                far.h = memory.spread(far.h, axis, stride);
                linear_scan(far);
                CHECK(same_bits(far.h, p.h.view()));
            } catch (const sparse_memory::refused&) {
                WARN("no address space for stride " << stride);
            }
        }
    }
}

TEST_CASE("linear_scan: names the argument that does not fit")
{
    const linear_problem<float> p({.initial_state = true, .packed = true});
    const auto complaint = [](const linear_scan_args<float>& a) -> std::string {
        try {
            linear_scan(a);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "";
    };
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        const std::string said = complaint(a);
        INFO(said);
        CHECK(said.find(std::string("linear_scan: ") + text) == 0);
    };
    CHECK(complaint(p.args()).empty());
    named("a has shape", [](auto& a) { a.a = a.a.slice(0, 0, 1); });
    named("a has shape", [](auto& a) { a.a = {}; });
    named("initial_state has shape", [](auto& a) { a.initial_state = a.initial_state.slice(1, 0, 2); });
    named("reset has shape", [](auto& a) { a.reset = a.reset.slice(1, 0, 1); });
    named("h has shape", [](auto& a) { a.h = a.h.slice(1, 0, 1); });
    named("h is written but", [](auto& a) { a.h = {a.h.data(), a.h.extents(), {0, a.h.stride(1), a.h.stride(2)}}; });
    named("final_state has shape", [](auto& a) { a.final_state = a.final_state.slice(0, 0, 1); });
    named("h overlaps a", [](auto& a) { a.h = {const_cast<float*>(a.a.data()), a.a.extents(), a.a.strides()}; });
    named("final_state overlaps h", [](auto& a) { a.final_state = {a.h.data(), 2, 6}; });
    named("final_state overlaps b", [](auto& a) { a.final_state = {const_cast<float*>(a.b.data()), 2, 6}; });
    named("h overlaps initial_state", [&](auto& a) {  // as a whole view, final_state may be it; h may not
        a.final_state = {};
        a.initial_state = {a.h.data(), 2, 6};
    });

    std::vector<float> memory(2 * 21 * 6 + 1);
    const auto at = [&](std::size_t offset) { return view<float, 3>(memory.data() + offset, 2, 21, 6); };
    named("h overlaps b", [&](auto& a) { a.b = at(0), a.h = at(1); });
    named("h overlaps b", [&](auto& a) { a.b = at(0), a.h = at(0).reversed(1); });
    named("h overlaps b", [&](auto& a) { a.b = at(0), a.h = {memory.data(), {2, 21, 6}, {126, 1, 21}}; });
    auto exact = p.args();
    exact.b = exact.h = at(0);
    exact.initial_state = exact.final_state;
    CHECK(complaint(exact).empty());
    for_each_index(p.h.view(), [&](auto... i) { p.h(i...) = 7; });
    auto wrong = p.args();
    wrong.final_state = wrong.final_state.slice(1, 0, 2);
    CHECK(!complaint(wrong).empty());
    for_each_index(p.h.view(), [&](auto... i) { REQUIRE(p.h(i...) == 7); });  // nothing is written
}

TEMPLATE_TEST_CASE("linear_scan: a slowly decaying state does not drift where inputs have 16 bits", "", bfloat16, float16)
{
    // A state of 16 bits would be off by 0.7 % to 89 %.
    for (const double decay : {1e-2, 1e-3, 1e-4}) {
        const index length = 8192;
        linear_problem<TestType> p({.batch = 1, .length = length, .state = 3, .constant = true});
        const auto a = static_cast<float>(1 - decay);
        p.a.fill([&](auto...) { return a; });
        p.b.fill([](auto...) { return TestType(0x1p-6f); });  // sums to 2^-6 / decay at most, which float16 can tell
        linear_scan(p.args());
        const double exact = a;
        const double expected = 0x1p-6 * (1 - std::pow(exact, static_cast<double>(length))) / (1 - exact);
        CAPTURE(decay);
        CHECK(std::abs(p.final_state(0, 2) - expected) <= 0x1p-23 * std::min(1 / decay, static_cast<double>(length)) * expected);
    }
}

}  // namespace ssmkit::testing
