#include <ssmkit/convs5.hpp>

#include <string>

#include <ssmkit/reference/convs5.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "convs5_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double state_budget = std::is_same_v<T, double> ? 1e-14 : 4e-6;
template <class T>
constexpr double budget = state_budget<T> + (sizeof(T) == 2 ? rounding<T> : 0);

template <class T>
void compare(const convs5_setup& s)
{
    INFO(s.text());
    const convs5_problem<T> p(s);
    const auto expected = p.wide();
    convs5(p.args());
    reference::convs5(expected.args());
    CHECK(relative_error(p.y, expected.y) <= budget<T>);
    CHECK(relative_error(p.final_state, expected.final_state) <= state_budget<T>);
    CHECK(p.gaps_untouched());
}

}  // namespace

TEST_CASE("convs5: an impulse by hand")
{
    // One image of 3 x 3 with a 1 in its middle: h is B turned by half a turn, and C moves it down and to the right.
    using complex = std::complex<double>;
    std::vector<complex> B(9), C(9);
    for (int i = 0; i < 9; ++i) B[static_cast<std::size_t>(i)] = i + 1, C[static_cast<std::size_t>(i)] = i == 0 ? 1 : 0;
    const complex A[] = {0.5};
    std::vector<double> u(9), y(9);
    u[4] = 1;
    const convs5_args<double> a{.A = {A, 1},
                                .B = {B, 3, 3, 1, 1},
                                .C = {C, 3, 3, 1, 1},
                                .u = {u, 1, 1, 3, 3, 1},
                                .conjugate_pairs = false,
                                .y = {y, 1, 1, 3, 3, 1}};
    for (const bool plain : {true, false}) {
        plain ? reference::convs5(a) : convs5(a);
        // h = 9 8 7 / 6 5 4 / 3 2 1, and y(i, j) = h(i - 1, j - 1).
        CHECK(y == std::vector<double>{0, 0, 0, 0, 9, 8, 0, 6, 5});
    }
}

TEMPLATE_TEST_CASE("convs5: agrees with the reference, any layout and size", "", float, double, bfloat16)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>(
                {.in_rows = 2, .out_rows = 3, .out_columns = 2, .initial_state = true, .inputs = inputs, .outputs = outputs});
        }
    }
    for (const convs5_setup& s : convs5_setups()) compare<TestType>(s);
}

TEST_CASE("convs5: more pixels than a band holds")
{
    compare<float>(
        {.batch = 1, .length = 17, .height = 23, .width = 21, .dim = 5, .state = 3, .out = 3, .out_rows = 3, .out_columns = 3});
}

TEST_CASE("convs5: cutting the sequence and carrying the state changes nothing but roundings")
{
    const convs5_problem<double> p({.length = 37, .initial_state = true});
    convs5(p.args());
    for (const index cut : {0, 1, 16, 20, 37}) {
        tensor<double, 5> y(p.y.view().extents());
        tensor<std::complex<double>, 4> state(p.final_state.view().extents());
        const auto part = [&](index first, index count) {
            auto a = p.args();
            a.u = a.u.slice(1, first, count);
            a.y = y.view().slice(1, first, count);
            a.final_state = state;
            return a;
        };
        convs5(part(0, cut));
        auto later = part(cut, 37 - cut);
        later.initial_state = state;
        convs5(later);
        CHECK(relative_error(y, p.y) <= 1e-15);
        CHECK(relative_error(state, p.final_state) <= 1e-15);
    }
}

TEST_CASE("convs5: a NaN reaches exactly the outputs that depend on it")
{
    convs5_problem<float> p({.length = 20, .height = 5, .width = 5, .out_rows = 2, .out_columns = 3, .initial_state = true});
    p.u(1, 3, 2, 1, 0) = quiet_nan<float>();
    p.initial_state(0, 4, 4, 1) = quiet_nan<std::complex<float>>();
    const auto expected = p.wide();
    convs5(p.args());
    reference::convs5(expected.args());
    CHECK(same_nans(p.y, expected.y));
    CHECK(same_nans(p.final_state, expected.final_state));
}

TEST_CASE("convs5: threads and what the workspace held before change no bit, nothing is allocated")
{
    threads pool(3);
    const convs5_setup s{.batch = 5, .out_rows = 3, .initial_state = true};
    const convs5_problem<float> one(s), several(s), other(s), lent(s);
    convs5(one.args());
    convs5(several.args(), pool);
    convs5(other.args(), last_task_first{});
    std::vector<std::byte> memory(convs5_workspace_size(lent.args()), std::byte{0xff});
    CHECK(allocations_during([&] { convs5(lent.args(), memory); }) == 0);
    for (const auto* p : {&several, &other, &lent}) {
        CHECK(same_bits(one.y, p->y));
        CHECK(same_bits(one.final_state, p->final_state));
    }
    memory.pop_back();
    CHECK_THROWS_AS(convs5(lent.args(), memory), shape_error);
}

TEST_CASE("convs5: touches nothing outside its arguments")
{
    for (const guard edge : {guard::below, guard::above}) {
        for (convs5_setup s : convs5_setups()) {
            s.edge = edge;
            compare<float>(s);
        }
    }
}

TEST_CASE("convs5: names the argument that does not fit")
{
    const convs5_problem<float> p({.initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        std::string said;
        try {
            convs5(a);
        } catch (const shape_error& e) {
            said = e.what();
        }
        INFO(said);
        CHECK(said.find(std::string("convs5: ") + text) == 0);
    };
    named("B has shape", [](auto& a) { a.B = a.B.slice(2, 0, 1); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(2, 0, 1); });
    named("initial_state has shape", [](auto& a) { a.initial_state = a.initial_state.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(4, 0, 1); });
    named("final_state has shape", [](auto& a) { a.final_state = a.final_state.slice(2, 0, 1); });
    named("y overlaps u", [](auto& a) { a.u = view<const float, 5>(a.y); });
}

TEST_CASE("convs5: offsets beyond 2^31 and 2^32 elements")
{
    const convs5_problem<float> p({.length = 3, .height = 2, .width = 3});
    convs5(p.args());
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (std::size_t axis = 0; axis < 5; ++axis) {
            sparse_memory memory;
            try {
                auto far = p.args();
                far.u = memory.spread(far.u, axis, stride);
                far.y = memory.spread(far.y, axis, stride);
                convs5(far);
                CHECK(same_bits(far.y, p.y.view()));
            } catch (const sparse_memory::refused&) {
                WARN("no address space for stride " << stride);
            }
        }
    }
}

}  // namespace ssmkit::testing
