#include <ssmkit/s7_scan.hpp>

#include <string>

#include <ssmkit/reference/s7_scan.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s7_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double state_budget = std::is_same_v<T, double> ? 1e-14 : 4e-6;
template <class T>
constexpr double budget = state_budget<T> + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
void compare(const s7_setup& s)
{
    INFO(s.text());
    const s7_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    s7_scan(p.args());
    reference::s7_scan(expected.args());
    CHECK(relative_error(p.y, expected.y) <= budget<T>);
    CHECK(relative_error(p.final_state, expected.final_state) <= state_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("s7_scan: a sequence by hand")
{
    // ā = 1 - 1 / (A² + 1/2): -1 at A = 0, 1/3 at A = 1.
    const double u[] = {1, 2, 3, 4}, A[] = {1, 0}, B[] = {1, 2, 1, -1}, C[] = {1, 10, 2, 20}, bias[] = {0.5, 1}, start[] = {3};
    double y[4], last[1];
    const s7_scan_args<double> a{.u = {u, 1, 2, 2},
                                 .A = {A, 1, 2, 1},
                                 .B = {B, 1, 2, 2, 1},
                                 .C = {C, 1, 2, 2, 1},
                                 .bias = {bias, 1, 2, 1},
                                 .initial_state = {start, 1, 1},
                                 .y = {y, 1, 2, 2},
                                 .final_state = {last, 1, 1}};
    for (const bool plain : {true, false}) {
        plain ? reference::s7_scan(a) : s7_scan(a);
        CHECK(std::abs(last[0] + 6.5) < 1e-14);  // h = 1 + 5 + 1/2, then -6.5 - 1 + 1
        CHECK(std::abs(y[0] - 6.5) < 1e-14);
        CHECK(std::abs(y[1] - 65) < 1e-13);
        CHECK(std::abs(y[2] + 13) < 1e-14);
        CHECK(std::abs(y[3] + 130) < 1e-13);
    }
}

TEMPLATE_TEST_CASE("s7_scan: agrees with the reference, any layout and size", "", float, double, bfloat16, float16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            for (const bool more : {false, true}) {
                compare<TestType>({.state = 19, .bias = more, .initial_state = more, .inputs = inputs, .outputs = outputs});
            }
        }
    }
    for (const index n : s7_sizes) {
        for (index s7_setup::*axis : {&s7_setup::batch, &s7_setup::length, &s7_setup::dim, &s7_setup::state, &s7_setup::out}) {
            s7_setup s{.length = 9, .bias = true, .initial_state = true};
            s.*axis = n;
            compare<TestType>(s);
        }
    }
}

TEMPLATE_TEST_CASE("s7_scan: cutting the sequence and carrying the state changes no bit", "", float, bfloat16)
{
    const s7_problem<TestType> p({.state = 19, .bias = true, .initial_state = true});
    s7_scan(p.args());
    for (index cut = 0; cut <= p.s.length; cut += 7) {
        tensor<TestType, 3> y(p.y.view().extents());
        tensor<typename s7_scan_args<TestType>::real, 2> state(p.final_state.view().extents());
        const auto part = [&](index first, index count) {
            auto a = p.args();
            a.u = a.u.slice(1, first, count), a.A = a.A.slice(1, first, count), a.bias = a.bias.slice(1, first, count);
            a.B = a.B.slice(1, first, count), a.C = a.C.slice(1, first, count);
            a.y = y.view().slice(1, first, count);
            a.final_state = state;
            return a;
        };
        s7_scan(part(0, cut));
        auto later = part(cut, p.s.length - cut);
        later.initial_state = state;
        s7_scan(later);
        CHECK(same_bits(y, p.y));
        CHECK(same_bits(state, p.final_state));
    }
}

TEMPLATE_TEST_CASE("s7_scan: a NaN reaches exactly the outputs that depend on it", "", float, double)
{
    random numbers(3);
    for (int repeat = 0; repeat < 60; ++repeat) {
        s7_problem<TestType> p({.state = 19, .bias = true, .initial_state = true});
        const index b = numbers.below(2), t = numbers.below(p.s.length), n = numbers.below(19);
        const TestType nan = quiet_nan<TestType>();
        switch (repeat % 6) {
        case 0: p.u(b, t, 1) = nan; break;
        case 1: p.A(b, t, n) = nan; break;
        case 2: p.B(b, t, 2, n) = nan; break;
        case 3: p.C(b, t, 3, n) = nan; break;
        case 4: p.bias(b, t, n) = nan; break;
        default: p.initial_state(b, n) = nan;
        }
        const auto expected = p.wide();
        s7_scan(p.args());
        reference::s7_scan(expected.args());
        CHECK(same_nans(p.y, expected.y));
        CHECK(same_nans(p.final_state, expected.final_state));
    }
}

TEST_CASE("s7_scan: threads and what the workspace held before change no bit, nothing is allocated")
{
    threads pool(3);
    const s7_setup s{.length = 700, .state = 35, .initial_state = true};
    const s7_problem<float> one(s), several(s), other(s), lent(s);
    s7_scan(one.args());
    s7_scan(several.args(), pool);
    s7_scan(other.args(), last_task_first{});
    std::vector<std::byte> memory(s7_scan_workspace_size(lent.args()), std::byte{0xff});
    CHECK(allocations_during([&] { s7_scan(lent.args(), memory); }) == 0);
    for (const auto* p : {&several, &other, &lent}) {
        CHECK(same_bits(one.y, p->y));
        CHECK(same_bits(one.final_state, p->final_state));
    }
    memory.pop_back();
    CHECK_THROWS_AS(s7_scan(lent.args(), memory), shape_error);
}

TEMPLATE_TEST_CASE("s7_scan: touches nothing outside its arguments", "", float, bfloat16, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index n : {1, 3, 8, 9, 16, 17, 33}) {
                for (index s7_setup::*axis : {&s7_setup::length, &s7_setup::dim, &s7_setup::state, &s7_setup::out}) {
                    s7_setup s{.length = 10, .bias = true, .initial_state = true, .inputs = form, .outputs = form, .edge = edge};
                    s.*axis = n;
                    compare<TestType>(s);
                }
            }
        }
    }
}

TEST_CASE("s7_scan: offsets beyond 2^31 and 2^32 elements")
{
    const s7_problem<float> p({.batch = 2, .length = 3, .dim = 2, .state = 3, .out = 2});
    s7_scan(p.args());
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (std::size_t axis = 0; axis < 4; ++axis) {
            sparse_memory memory;
            try {
                auto far = p.args();
                far.B = memory.spread(far.B, axis, stride);
                far.C = memory.spread(far.C, axis, stride);
                tensor<float, 3> y(p.y.view().extents());
                far.y = y;
                s7_scan(far);
                CHECK(same_bits(y, p.y));
            } catch (const sparse_memory::refused&) {
                WARN("no address space for stride " << stride);
            }
        }
    }
}

TEST_CASE("s7_scan: names the argument that does not fit")
{
    const s7_problem<float> p({.bias = true, .initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        std::string said;
        try {
            s7_scan(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("s7_scan: ") + text) == 0);
    };
    named("A has shape", [](auto& a) { a.A = a.A.slice(1, 0, 1); });
    named("B has shape", [](auto& a) { a.B = a.B.slice(2, 0, 1); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(3, 0, 1); });
    named("bias has shape", [](auto& a) { a.bias = a.bias.slice(2, 0, 1); });
    named("initial_state has shape", [](auto& a) { a.initial_state = a.initial_state.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(2, 0, 1); });
    named("y is written but", [](auto& a) { a.y = {a.y.data(), a.y.extents(), {0, 4, 1}}; });
    named("final_state has shape", [](auto& a) { a.final_state = a.final_state.slice(1, 0, 1); });
    named("y overlaps u", [](auto& a) { a.u = {a.y.data(), 2, 70, 3}; });
}

}  // namespace ssmkit::testing
