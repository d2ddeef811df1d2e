#include <ssmkit/cauchy.hpp>

#include <complex>
#include <string>
#include <vector>

#include <ssmkit/reference/cauchy.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "cauchy_problem.hpp"
#include "complaint.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 2e-6 : 4e-15;

template <class T>
void compare(const cauchy_setup& s)
{
    INFO(s.text());
    const cauchy_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.v.bytes();
    cauchy(p.args());
    reference::cauchy(expected.args());
    CHECK(relative_error(p.out, expected.out) <= budget<T>);
    CHECK(p.v.bytes() == before);
    CHECK(p.out.gaps_untouched());
}

}  // namespace

TEST_CASE("cauchy: sums by hand")
{
    const std::complex<double> v[] = {{1, 2}}, z[] = {{0, 1}, {0, 3}}, w[] = {{-1, 1}};
    std::complex<double> out[2];
    cauchy_args<double> a{.v = {v, 1, 1, 1}, .z = {z, 2}, .w = {w, 1, 1}, .out = {out, 1, 1, 2}};
    cauchy(a);
    CHECK(std::abs(out[0] - std::complex<double>(1, 2)) < 1e-15);        // z - w = 1
    CHECK(std::abs(out[1] - std::complex<double>(1, 0)) < 1e-15);        // (1 + 2i) / (1 + 2i)
    a.conjugate_pairs = true;
    cauchy(a);
    CHECK(std::abs(out[0] - std::complex<double>(0.4, 1.2)) < 1e-15);    // + (1 - 2i) / (1 + 2i) = (-3 - 4i) / 5
}

TEMPLATE_TEST_CASE("cauchy: agrees with the reference for every size and layout", "", float, double)
{
    for (const cauchy_setup& s : all_cauchy_setups()) compare<TestType>(s);
}

TEMPLATE_TEST_CASE("cauchy: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 15, 16, 17, 65}) compare<TestType>({.length = n, .edge = edge});
    }
}

TEMPLATE_TEST_CASE("cauchy: a NaN reaches exactly what depends on it", "", float, double)
{
    using E = std::complex<TestType>;
    for (const bool imaginary : {false, true}) {
        for (int what = 0; what < 3; ++what) {
            cauchy_problem<TestType> p({.imaginary = imaginary});
            if (what == 0) p.v(1, 2, 3) = quiet_nan<E>();
            if (what == 1) p.w(0, 4) = quiet_nan<E>();
            if (what == 2) p.z(20) = E(p.z(20).real(), quiet_nan<TestType>());
            const auto expected = p.wide();
            cauchy(p.args());
            reference::cauchy(expected.args());
            CHECK(same_nans(p.out, expected.out));
        }
    }
}

TEMPLATE_TEST_CASE("cauchy: nodes and poles that are close and far", "", float, double)
{
    // Distances of 1e-3 |z| beside poles at 1000 |z|: the float sums keep the accuracy that their inputs have.
    using E = std::complex<TestType>;
    cauchy_problem<TestType> p({.terms = 4, .dim = 1, .state = 3, .length = 100});
    p.w(0, 0) = E(TestType(-1e-3), TestType(1)), p.w(0, 1) = E(TestType(-2), TestType(1000)),
           p.w(0, 2) = E(TestType(-1e-2), TestType(1e-2));
    p.z.fill([](index l) { return E(0, TestType(1) + TestType(1e-5) * static_cast<TestType>(l)); });
    const auto expected = p.wide();
    cauchy(p.args());
    reference::cauchy(expected.args());
    CHECK(relative_error(p.out, expected.out) <= (std::is_same_v<TestType, float> ? 1e-6 : 1e-13));
}

TEMPLATE_TEST_CASE("cauchy: threads, workspaces and what they held change no bit", "", float, double)
{
    threads pool(3);
    for (const bool imaginary : {false, true}) {
        const cauchy_setup s{.terms = 6, .dim = 4, .length = 2300, .imaginary = imaginary};
        const cauchy_problem<TestType> one(s);
        cauchy_problem<TestType> other(s);
        cauchy(one.args());
        std::vector<std::byte> memory(cauchy_workspace_size(other.args(), 4) + 1);
        for (int repeat = 0; repeat < 3; ++repeat) {
            other.make_outputs();
            std::fill(memory.begin(), memory.end(), std::byte(repeat == 0 ? 0xff : 0x7f));
            const workspace lent = workspace(memory).subspan(1);
            repeat < 2 ? cauchy(other.args(), lent, pool) : cauchy(other.args(), lent, last_task_first{});
            CHECK(same_bits(one.out, other.out));
        }
        CHECK(allocations_during([&] { cauchy(other.args(), workspace(memory)); }) == 0);
    }
}

TEST_CASE("cauchy: names the argument that does not fit")
{
    const cauchy_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.args();
        spoil(a);
        CHECK(complaint_of([&] { cauchy(a); }).find(std::string("cauchy: ") + text) == 0);
    };
    named("w has shape", [](auto& a) { a.w = a.w.slice(1, 0, 2); });
    named("out has shape", [](auto& a) { a.out = a.out.slice(2, 0, 2); });
    named("out overlaps v", [&](auto& a) { a.v = {a.out.data(), a.v.extents()}; });
    named("out is written but", [](auto& a) { a.out = {a.out.data(), a.out.extents(), {0, a.out.stride(1), 1}}; });
    std::vector<std::byte> small(cauchy_workspace_size(p.args()) - 1);
    CHECK(complaint_of([&] { cauchy(p.args(), workspace(small)); }).find("cauchy: workspace has") == 0);
}

}  // namespace ssmkit::testing
