#include <ssmkit/s5.hpp>

#include <chrono>
#include <cmath>
#include <complex>
#include <limits>
#include <string>

#include <ssmkit/reference/s5.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s5_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double state_budget = std::is_same_v<T, double> ? 1e-13 : 4e-6;

/// What the header promises, and the roundings to T: two where a second scan adds to what the first has stored.
template <class T>
constexpr double budget = state_budget<T> + (sizeof(T) == 2 ? 2 * rounding<T> : 0);

/// Runs kernel and 64-bit reference on the same numbers and compares.
template <class T>
void compare(const s5_setup& s)
{
    INFO(s.text());
    const s5_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    s5(p.args());
    reference::s5(expected.args());
    CHECK(relative_error(p.y, expected.y) <= budget<T>);
    CHECK(relative_error(p.final_state, expected.final_state) <= state_budget<T>);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

/// All combinations of options, or every eleventh where tests are sampled.
constexpr unsigned step = SSMKIT_SAMPLED_TESTS ? 11 : 1;

constexpr layout both[] = {layout::row_major, layout::time_contiguous};

}  // namespace

TEST_CASE("s5: a sequence by hand")
{
    using complex = std::complex<double>;
    const complex A[] = {{0, 1}}, B[] = {{1, 1}}, C[] = {{1, -1}}, start[] = {{2, 0}};
    const double D[] = {10}, u[] = {1, 0, 2};
    double y[3];
    complex last[1];
    s5_args<double> a{.A = {A, 1}, .B = {B, 1, 1}, .C = {C, 1, 1}, .D = {D, 1}, .u = {u, 1, 3, 1}, .initial_state = {start, 1, 1},
                      .conjugate_pairs = false, .y = {y, 1, 3, 1}, .final_state = {last, 1, 1}};
    const auto gives = [&](std::array<double, 3> expected, complex state) {
        s5(a);
        CHECK(std::equal(expected.begin(), expected.end(), y));
        CHECK(last[0] == state);
        reference::s5(a);
        CHECK(std::equal(expected.begin(), expected.end(), y));
        CHECK(last[0] == state);
    };
    gives({14, -2, 20}, {1, -1});  // h = 1 + 3i, -3 + i, 1 - i
}

TEMPLATE_TEST_CASE("s5: agrees with the reference, whatever is switched on, in any layout", "", float, double, bfloat16)
{
    for (unsigned options = 0; options < 1u << s5_setup::options; options += step) {
        const layout inputs = all_layouts[options % 6], outputs = all_layouts[options / 6 % 6];
        compare<TestType>(s5_setup{.inputs = inputs, .outputs = outputs}.with_options(options));
    }
}

TEMPLATE_TEST_CASE("s5: every method, of tokens at equal and at any distance", "", float, double)
{
    for (const discretization method : all_methods) {
        for (const bool events : {false, true}) {
            for (const bool bidirectional : {false, true}) {
                compare<TestType>(
                    {.state = 19, .events = events, .initial_state = true, .bidirectional = bidirectional, .method = method});
            }
        }
    }
}

TEMPLATE_TEST_CASE("s5: every number of tokens, channels, states and outputs", "", float, double, float16)
{
    for (const index n : s5_sizes) {
        for (const bool events : {false, true}) {
            const s5_setup s{.length = 9, .events = events, .initial_state = true, .packed = true, .reverse = n % 3 == 0};
            for (index s5_setup::*axis : {&s5_setup::batch, &s5_setup::length, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
                s5_setup with = s;
                with.*axis = n;
                compare<TestType>(with);
            }
        }
    }
}

TEMPLATE_TEST_CASE("s5: steps and intervals from nothing to long", "", float, double)
{
    // exp(z) - 1 over z where z is small, and decays that leave nothing.
    for (const double scale : {0.0, 1e-12, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e6}) {
        for (const bool events : {false, true}) {
            s5_problem<TestType> p({.state = 9, .events = events});
            for (index i = 0; i < 9; ++i) p.delta(i) *= static_cast<TestType>(events ? 1 : scale);
            for (index t = 0; t < p.s.length && events; ++t) p.interval(0, t) *= static_cast<TestType>(scale);
            const auto expected = p.wide();
            s5(p.args());
            reference::s5(expected.args());
            INFO("scale " << scale << (events ? " of intervals" : " of delta"));
            CHECK(relative_error(p.y, expected.y) <= 2 * budget<TestType>);
        }
    }
}

TEST_CASE("s5: a memory of ten thousand tokens")
{
    const index length = 20000, state = 16;
    s5_problem<float> p({.batch = 1, .length = length, .dim = 2, .state = state, .out = 2});
    p.A.fill([](index n) { return std::complex<float>(-1e-3f, static_cast<float>(n)); });
    p.delta.fill([](index) { return 0.1f; });
    const auto expected = p.wide();
    s5(p.args());
    reference::s5(expected.args());
    CHECK(relative_error(p.y, expected.y) <= 4e-4);  // one rounding of the pole, 4e-8, for each of 10^4 tokens
}

TEMPLATE_TEST_CASE("s5: cutting the sequence and carrying the state changes no bit", "", float, double)
{
    for (const bool reverse : {false, true}) {
        for (const bool events : {false, true}) {
            for (const bool liquid : {false, true}) {
                const s5_problem<TestType> p({.length = 133, .state = 19, .events = events, .initial_state = true, .packed = true,
                                              .reverse = reverse, .liquid = liquid});
                s5(p.args());
                for (const index cut : {0, 1, 5, 63, 64, 65, 128, 132, 133}) {
                    tensor<TestType, 3> y(p.y.view().extents());
                    tensor<std::complex<TestType>, 2> state(p.final_state.view().extents());
                    const auto part = [&](index first, index count) {
                        auto a = p.args();
                        a.u = a.u.slice(1, first, count);
                        a.reset = a.reset.slice(1, first, count);
                        if (events) a.interval = a.interval.slice(1, first, count);
                        a.y = y.view().slice(1, first, count);
                        a.final_state = state;
                        return a;
                    };
                    auto earlier = part(0, cut), later = part(cut, 133 - cut);
                    if (reverse) std::swap(earlier, later);
                    later.initial_state = state;
                    s5(earlier);
                    s5(later);
                    INFO(p.s.text() << " cut at " << cut);
                    CHECK(same_bits(y, p.y));
                    CHECK(same_bits(state, p.final_state));
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("s5: packed sequences do not see each other, in either direction", "", float, double)
{
    const index lengths[] = {1, 15, 16, 17, 1, 2, 31, 64, 65, 63, 70};
    index total = 0;
    for (const index n : lengths) total += n;
    for (const int direction : {0, 1, 2}) {
        const bool reverse = direction == 1, bidirectional = direction == 2;
        s5_problem<TestType> p({.length = total, .packed = true, .reverse = reverse, .bidirectional = bidirectional});
        p.reset.fill([](index, index) { return std::uint8_t(0); });
        index start = 0;
        for (const index n : lengths) {
            for (index b = 0; b < 2; ++b) p.reset(b, reverse ? start + n - 1 : start) = 1;
            start += n;
        }
        s5(p.args());
        start = 0;
        for (const index n : lengths) {
            tensor<TestType, 3> y({2, n, p.s.out});
            auto alone = p.args();
            alone.u = alone.u.slice(1, start, n);
            alone.reset = {};
            alone.y = y;
            alone.final_state = {};
            s5(alone);
            INFO("length " << n << " direction " << direction);
            CHECK(same_bits(y.view(), p.y.view().slice(1, start, n)));
            start += n;
        }
    }
}

TEMPLATE_TEST_CASE("s5: both ways is one way and the other", "", float, double)
{
    const s5_problem<TestType> p({.state = 9, .bidirectional = true});
    s5(p.args());
    tensor<TestType, 3> forth(p.y.view().extents()), back(p.y.view().extents());
    auto one = p.args();
    one.bidirectional = false;
    one.final_state = {};
    one.C = p.C.view().slice(1, 0, 9);
    one.y = forth;
    s5(one);
    one.C = p.C.view().slice(1, 9, 9);
    one.reverse = true;
    one.y = back;
    s5(one);
    forth.fill([&](auto... i) { return forth(i...) + back(i...); });
    CHECK(relative_error(p.y, forth) <= budget<TestType>);
}

TEMPLATE_TEST_CASE("s5: a NaN reaches exactly the outputs that depend on it", "", float, double)
{
    random numbers(3);
    for (unsigned options = 0; options < 1u << s5_setup::options; options += step) {
        s5_problem<TestType> p(s5_setup{.state = 19}.with_options(options));
        INFO(p.s.text());
        const index b = numbers.below(2), t = numbers.below(p.s.length), n = numbers.below(19), c = numbers.below(p.s.dim);
        switch (numbers.below(6)) {
        case 0: p.u(b, t, c) = quiet_nan<TestType>(); break;
        case 1: p.B(n, c) = quiet_nan<std::complex<TestType>>(); break;
        case 2: p.C(numbers.below(p.s.out), n) = quiet_nan<std::complex<TestType>>(); break;
        case 3: p.A(n) = quiet_nan<std::complex<TestType>>(); break;
        case 4:
            if (p.s.D) p.D(c) = quiet_nan<TestType>();
            if (p.s.events) p.interval(b, t) = quiet_nan<TestType>();
            break;
        default:
            if (p.s.initial_state) p.initial_state(b, n) = quiet_nan<std::complex<TestType>>();
        }
        const auto expected = p.wide();
        s5(p.args());
        reference::s5(expected.args());
        CHECK(same_nans(p.y, expected.y));
        CHECK(same_nans(p.final_state, expected.final_state));
    }
}

TEMPLATE_TEST_CASE("s5: y may take the place of u, and the final state that of the initial one", "", float, bfloat16)
{
    for (const layout form : all_layouts) {
        const s5_problem<TestType> p(
            {.length = 133, .out = 5, .D = true, .initial_state = true, .reverse = true, .inputs = form, .outputs = form});
        s5(p.args());
        auto u = p.u.template as<TestType>(form);
        auto state = p.initial_state.template as<typename s5_args<TestType>::complex>(form);
        auto a = p.args();
        a.u = a.y = u;
        a.initial_state = a.final_state = state;
        s5(a);
        CHECK(same_bits(u, p.y));
        CHECK(same_bits(state, p.final_state));
    }
}

TEMPLATE_TEST_CASE("s5: threads and what the workspace held before change no bit", "", float, bfloat16)
{
    threads pool(3);
    for (const index batch : {1, 3}) {
        for (const bool bidirectional : {false, true}) {
            const s5_setup s{.batch = batch,
                             .length = 900,
                             .state = 40,
                             .events = bidirectional,
                             .initial_state = true,
                             .packed = true,
                             .bidirectional = bidirectional};
            s5_problem<TestType> p(s);
            s5(p.args());
            const auto y = p.y.template as<TestType>();
            const auto state = p.final_state.template as<typename s5_args<TestType>::complex>();
            const auto agrees = [&] { return same_bits(p.y.view(), y.view()) && same_bits(p.final_state.view(), state.view()); };
            p.make_outputs();
            s5(p.args(), pool);
            CHECK(agrees());
            p.make_outputs();
            s5(p.args(), last_task_first{});
            CHECK(agrees());
            for (const int poison : {0, 0x7f, 0xff}) {
                std::vector<std::byte> memory(s5_workspace_size(p.args()), static_cast<std::byte>(poison));
                p.make_outputs();
                s5(p.args(), memory);
                CHECK(agrees());
            }
        }
    }
}

TEST_CASE("s5: allocates nothing when lent a workspace, and refuses one that is too small")
{
    const s5_problem<float> p({.events = true, .initial_state = true, .packed = true});
    std::vector<std::byte> memory(s5_workspace_size(p.args()));
    CHECK(allocations_during([&] { s5(p.args(), memory); }) == 0);
    memory.pop_back();
    CHECK_THROWS_AS(s5(p.args(), memory), shape_error);
}

TEMPLATE_TEST_CASE("s5: touches nothing outside its arguments", "", float, bfloat16, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : both) {
            for (const index n : {1, 3, 8, 9, 16, 17, 33, 65}) {
                for (index s5_setup::*axis : {&s5_setup::length, &s5_setup::dim, &s5_setup::state, &s5_setup::out}) {
                    s5_setup s{.length = 10,
                               .events = true,
                               .initial_state = true,
                               .packed = true,
                               .inputs = form,
                               .outputs = form,
                               .edge = edge};
                    s.*axis = n;
                    compare<TestType>(s);
                }
            }
        }
    }
}

TEST_CASE("s5: a state that dies away stays fast, and the caller's mode stays")
{
    const auto seconds = [&](bool silent) {
        s5_problem<float> p({.batch = 1, .length = 8000, .dim = 1, .state = 64, .out = 1});
        p.u.fill([&](index, index t, index) { return silent ? (t == 0 ? 1e-36f : 0.0f) : 1.0f; });
        double best = 1e30;
        for (int i = 0; i < 7; ++i) {
            const auto start = std::chrono::steady_clock::now();
            s5(p.args());
            best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        }
        return best;
    };
    CHECK(seconds(true) <= 2 * seconds(false));
    volatile float tiny = std::numeric_limits<float>::min();
    CHECK(tiny / 2 > 0);
}

TEST_CASE("s5: offsets beyond 2^31 and 2^32 elements")
{
    const s5_problem<float> p({.length = 5, .state = 3, .initial_state = true});
    s5(p.args());
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (std::size_t axis = 0; axis < 3; ++axis) {
            sparse_memory memory;
            try {
                auto far = p.args();
                far.u = memory.spread(far.u, axis, stride);
                far.y = memory.spread(far.y, axis, stride);
                s5(far);
                CHECK(same_bits(far.y, p.y.view()));
            } catch (const sparse_memory::refused&) {
                WARN("no address space for stride " << stride);
            }
        }
    }
}

TEST_CASE("s5: names the argument that does not fit")
{
    const s5_problem<float> p({.out = 5, .events = true, .D = true, .initial_state = true, .packed = true});
    const auto complaint = [](const s5_args<float>& a) -> std::string {
        try {
            s5(a);
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
        CHECK(said.find(std::string("s5: ") + text) == 0);
    };
    CHECK(complaint(p.args()).empty());
    named("delta has shape", [](auto& a) { a.delta = a.delta.slice(0, 0, 1); });
    named("interval has shape", [](auto& a) { a.interval = a.interval.slice(1, 0, 1); });
    named("interval is given without delta", [](auto& a) { a.delta = {}; });
    named("clip_eigs is set without delta", [](auto& a) { a.delta = {}, a.interval = {}, a.clip_eigs = true; });
    named("B has shape", [](auto& a) { a.B = a.B.slice(1, 0, 1); });
    named("C has shape", [](auto& a) { a.C = a.C.slice(1, 0, 1); });
    named("C has shape", [](auto& a) { a.bidirectional = true; });
    named("D has shape", [](auto& a) { a.D = a.D.slice(0, 0, 1); });
    named("D is given although", [](auto& a) { a.C = a.C.slice(0, 0, 1); });
    named("initial_state has shape", [](auto& a) { a.initial_state = a.initial_state.slice(1, 0, 2); });
    named("reset has shape", [](auto& a) { a.reset = a.reset.slice(1, 0, 1); });
    named("y has shape", [](auto& a) { a.y = a.y.slice(1, 0, 1); });
    named("y is written but", [](auto& a) { a.y = {a.y.data(), a.y.extents(), {0, a.y.stride(1), a.y.stride(2)}}; });
    named("y overlaps u", [](auto& a) { a.y = view<float, 3>(const_cast<float*>(a.u.data()), a.u.extents()).reversed(1); });
    named("final_state has shape", [](auto& a) { a.final_state = a.final_state.slice(0, 0, 1); });
    named("reverse is set beside bidirectional", [](auto& a) {
        a.C = {a.C.data(), {5, 12}, {0, 1}};
        a.initial_state = {};
        a.bidirectional = a.reverse = true;
    });
    for_each_index(p.y.view(), [&](auto... i) { p.y(i...) = 7; });
    auto wrong = p.args();
    wrong.final_state = wrong.final_state.slice(1, 0, 2);
    CHECK(!complaint(wrong).empty());
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(p.y(i...) == 7); });  // nothing is written
}

}  // namespace ssmkit::testing
