#include <ssmkit/s4_setup.hpp>

#include <complex>
#include <cstdint>
#include <limits>
#include <string>

#include <ssmkit/reference/s4_setup.hpp>

#include "catch.hpp"
#include "complaint.hpp"
#include "s4_problem.hpp"

namespace ssmkit::testing {
namespace {

constexpr s4_map all_maps[] = {s4_map::prepare, s4_map::extend, s4_map::recover};

template <class T>
s4_setup_args<T> setup_args(const s4_problem<T>& p, s4_map map, const tensor<std::complex<T>, 3>& out)
{
    const auto a = p.args();
    return {.delta = a.delta, .A = a.A, .P = a.P, .C = a.C, .length = p.s.length, .map = map, .out = out};
}

template <class T>
tensor<std::complex<T>, 3> map_like(const s4_problem<T>& p)
{
    return {p.C.view().extents(), p.s.outputs, p.s.edge};
}

/// Recovering loses 1 / min |1 - λ^length|: little for the problems of these tests if they are of some tokens.
template <class T>
void compare(const s4_shape& s)
{
    INFO(s.text());
    const s4_problem<T> p(s);
    for (const s4_map map : all_maps) {
        if (map == s4_map::recover && s.length == 0) continue;  // nothing is left to recover from
        INFO("map " << static_cast<int>(map));
        const auto expected = p.wide();
        const tensor<std::complex<T>, 3> out = map_like(p);
        const tensor<std::complex<double>, 3> wanted = map_like(expected);
        s4_setup(setup_args(p, map, out));
        reference::s4_setup(setup_args(expected, map, wanted));
        CHECK(relative_error(out, wanted) <= (std::is_same_v<T, float> ? 2e-7 : map == s4_map::recover ? 1e-12 : 1e-13));
        CHECK(out.gaps_untouched());
    }
}

}  // namespace

TEST_CASE("s4_setup: one pair by hand")
{
    // P = 0 and z = -2/3: Ā = 1/2.
    const double delta = 0.5;
    const std::complex<double> A(-4.0 / 3), C(2, 1);
    std::complex<double> out;
    s4_setup_args<double> a{.delta = {&delta, 1, 1}, .A = {&A, 1, 1}, .C = {&C, 1, 1, 1}, .length = 2, .out = {&out, 1, 1, 1}};
    const auto gives = [&](s4_map map, std::complex<double> wanted) {
        a.map = map;
        for (const bool plain : {false, true}) {
            plain ? reference::s4_setup(a) : s4_setup(a);
            CHECK(std::abs(out - wanted) < 1e-14);
        }
    };
    gives(s4_map::prepare, {1.5, 0.75});
    gives(s4_map::extend, {2.5, 1.25});
    gives(s4_map::recover, {8.0 / 3, 4.0 / 3});
}

TEMPLATE_TEST_CASE("s4_setup: agrees with the reference for every length, rank, state and layout", "", float, double)
{
    for (const index length : {0, 1, 2, 3, 7, 16, 31, 100}) compare<TestType>({.channels = 2, .length = length});
    for (const index rank : {0, 2, 3, 5}) {
        for (const bool tied : {false, true}) compare<TestType>({.channels = 2, .rank = rank, .length = 30, .tied = tied});
    }
    for (const index state : {0, 1, 2, 7, 17}) compare<TestType>({.state = state});
    for (const index channels : {0, 1, 3}) compare<TestType>({.channels = channels, .dim = 4, .copies = 2});
    compare<TestType>({.dim = 0, .copies = 1});
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) compare<TestType>({.channels = 2, .rank = 2, .inputs = inputs, .outputs = outputs});
    }
    for (const guard edge : {guard::below, guard::above}) compare<TestType>({.channels = 2, .state = 5, .edge = edge});
}

TEST_CASE("s4_setup: prepares, extends and recovers, in place too")
{
    for (const index rank : {0, 1, 3}) {
        for (const index length : {1, 2, 7, 16, 100}) {
            INFO("rank " << rank << ", length " << length);
            const s4_problem<double> p({.channels = 2, .state = 3, .rank = rank, .length = length});
            const auto prepared = map_like(p), doubled = map_like(p), directly = map_like(p);
            auto a = setup_args(p, s4_map::prepare, prepared);
            s4_setup(a);
            a.C = prepared, a.map = s4_map::extend, a.out = doubled;
            s4_setup(a);
            a.C = p.C, a.map = s4_map::prepare, a.length = 2 * length, a.out = directly;
            s4_setup(a);
            CHECK(relative_error(doubled, directly) <= 1e-12);
            a.C = prepared, a.map = s4_map::recover, a.length = length, a.out = prepared;
            s4_setup(a);
            CHECK(relative_error(prepared, p.C) <= 1e-11);
        }
    }
}

TEMPLATE_TEST_CASE("s4_setup: a NaN stays with its channel, and threads change no bit", "", float, double)
{
    threads pool(3);
    for (const s4_map map : all_maps) {
        s4_problem<TestType> p({.channels = 2, .dim = 7, .copies = 7});
        const auto one = map_like(p), several = map_like(p);
        s4_setup(setup_args(p, map, one));
        s4_setup(setup_args(p, map, several), pool);
        CHECK(same_bits(one, several));
        s4_setup(setup_args(p, map, several), last_task_first{});
        CHECK(same_bits(one, several));
        p.A(4, 2) = quiet_nan<std::complex<double>>();
        s4_setup(setup_args(p, map, one));
        for_each_index(one.view(), [&](index c, index h, index n) { CHECK(is_nan(one(c, h, n)) == (h == 4)); });
    }
}

TEST_CASE("s4_length_growth: prepares once, then doubles; halves round to even")
{
    s4_length_growth g;
    auto todo = g.need(6);
    CHECK((todo.prepare == 6 && todo.doublings == 0 && g.prepared == 6));
    todo = g.need(25);
    CHECK((todo.prepare == 0 && todo.from == 6 && todo.doublings == 3 && g.prepared == 48));
    CHECK(g.need(9).doublings == 0);
    s4_length_growth half;
    CHECK(half.need(5, 0.5).prepare == 2);
    s4_length_growth more;
    CHECK(more.need(7, 0.5).prepare == 4);
    s4_length_growth known{.maximum = 100};
    CHECK(known.need(6).prepare == 100);
    CHECK(known.need(101).doublings == 1);
    s4_length_growth none;
    CHECK((none.need(0).prepare == 0 && none.prepared == 0));
    CHECK(none.need(3).prepare == 3);
}

TEST_CASE("s4_setup: names the argument that does not fit")
{
    const s4_problem<float> p({.channels = 2, .copies = 1});
    const auto out = map_like(p);
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = setup_args(p, s4_map::prepare, out);
        spoil(a);
        const std::string said = complaint_of([&] { s4_setup(a); });
        INFO(said);
        CHECK(said.find(std::string("s4_setup: ") + text) == 0);
    };
    named("delta has shape", [](auto& a) { a.delta = a.delta.slice(0, 0, 2); });
    named("A has shape", [](auto& a) { a.A = a.A.slice(1, 0, 2); });
    named("A has copies that do not divide dim", [](auto& a) { a.A = {a.A.data(), 0, 4}, a.P = a.P.slice(1, 0, 0); });
    named("P has shape", [](auto& a) { a.P = a.P.slice(2, 0, 2); });
    named("out has shape", [](auto& a) { a.out = a.out.slice(0, 0, 0); });
    named("length is negative", [](auto& a) { a.length = -1; });
    named("out is written but", [](auto& a) { a.out = {a.out.data(), a.out.extents(), {0, 4, 1}}; });
    named("out overlaps C", [](auto& a) { a.C = {a.out.data(), a.C.extents(), {a.C.stride(0), a.C.stride(1), 0}}; });
    named("out overlaps P", [](auto& a) { a.P = {a.out.data(), a.P.extents()}; });
}

}  // namespace ssmkit::testing
