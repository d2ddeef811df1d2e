#include <ssmkit/cauchy_backward.hpp>

#include <complex>
#include <string>
#include <vector>

#include <ssmkit/reference/cauchy.hpp>
#include <ssmkit/reference/cauchy_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "cauchy_problem.hpp"
#include "finite_differences.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr double budget = std::is_same_v<T, float> ? 1e-5 : 2e-14;

template <class T>
void compare(const cauchy_setup& s)
{
    INFO(s.text());
    const cauchy_problem<T> p(s);
    const auto expected = p.wide();
    const auto before = p.v.bytes();
    cauchy_backward(p.backward_args());
    reference::cauchy_backward(expected.backward_args());
    CHECK(relative_error(p.dv, expected.dv) <= budget<T>);
    CHECK(relative_error(p.dw, expected.dw) <= budget<T>);
    CHECK(relative_error(p.dz, expected.dz) <= budget<T>);
    CHECK(p.v.bytes() == before);
    CHECK((p.dv.gaps_untouched() && p.dz.gaps_untouched() && p.dw.gaps_untouched()));
}

template <class T>
bool same_gradients(const cauchy_problem<T>& a, const cauchy_problem<T>& b)
{
    return same_bits(a.dv, b.dv) && same_bits(a.dw, b.dw) && same_bits(a.dz, b.dz);
}

}  // namespace

TEMPLATE_TEST_CASE("cauchy_backward: agrees with the reference for every size and layout", "", float, double)
{
    for (const cauchy_setup& s : all_cauchy_setups()) compare<TestType>(s);
}

TEMPLATE_TEST_CASE("cauchy_backward: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 15, 16, 17, 65}) compare<TestType>({.length = n, .edge = edge});
    }
}

TEST_CASE("cauchy_backward: the reference's gradients are those of finite differences")
{
    for (const bool pairs : {false, true}) {
        for (const bool imaginary : {false, true}) {
            const cauchy_problem<double> p({.dim = 2, .state = 3, .length = 5, .conjugate_pairs = pairs, .imaginary = imaginary});
            reference::cauchy_backward(p.backward_args());
            const auto loss = [&] {
                reference::cauchy(p.args());
                double sum = 0;
                for_each_index(p.out.view(), [&](auto... i) { sum += (std::conj(p.out(i...)) * p.dout(i...)).real(); });
                return sum;
            };
            CHECK(gradient_error(p.v, p.dv, loss) < 1e-6);
            CHECK(gradient_error(p.w, p.dw, loss) < 1e-6);
            CHECK(gradient_error(p.z, p.dz, loss) < 1e-6);
        }
    }
}

TEMPLATE_TEST_CASE("cauchy_backward: a NaN reaches exactly what depends on it", "", float, double)
{
    using E = std::complex<TestType>;
    for (const bool imaginary : {false, true}) {
        for (int what = 0; what < 4; ++what) {
            const cauchy_problem<TestType> p({.imaginary = imaginary});
            if (what == 0) p.v(1, 2, 3) = quiet_nan<E>();
            if (what == 1) p.w(0, 4) = quiet_nan<E>();
            if (what == 2) p.z(20) = E(p.z(20).real(), quiet_nan<TestType>());
            if (what == 3) p.dout(1, 0, 20) = quiet_nan<E>();
            INFO(what);
            const auto expected = p.wide();
            cauchy_backward(p.backward_args());
            reference::cauchy_backward(expected.backward_args());
            CHECK(same_nans(p.dv, expected.dv));
            CHECK(same_nans(p.dw, expected.dw));
            CHECK(same_nans(p.dz, expected.dz));
        }
    }
}

TEMPLATE_TEST_CASE("cauchy_backward: threads, workspaces and what they held change no bit", "", float, double)
{
    threads pool(3);
    for (const bool imaginary : {false, true}) {
        const cauchy_setup s{.terms = 6, .dim = 4, .length = 2300, .imaginary = imaginary};
        const cauchy_problem<TestType> one(s);
        cauchy_problem<TestType> other(s);
        cauchy_backward(one.backward_args());
        std::vector<std::byte> memory(cauchy_backward_workspace_size(other.backward_args(), 4) + 1);
        for (int repeat = 0; repeat < 3; ++repeat) {
            other.make_outputs();
            std::fill(memory.begin(), memory.end(), std::byte(repeat == 0 ? 0xff : 0x7f));
            const workspace lent = workspace(memory).subspan(1);
            repeat < 2 ? cauchy_backward(other.backward_args(), lent, pool)
                       : cauchy_backward(other.backward_args(), lent, last_task_first{});
            CHECK(same_gradients(one, other));
        }
        CHECK(allocations_during([&] { cauchy_backward(other.backward_args(), workspace(memory)); }) == 0);
    }
}

TEST_CASE("cauchy_backward: gradients that are not asked for change nothing")
{
    const cauchy_problem<float> all({});
    cauchy_backward(all.backward_args());
    for (unsigned wanted = 0; wanted < 8; ++wanted) {
        const cauchy_problem<float> p({});
        auto a = p.backward_args();
        if (!(wanted & 1u)) a.dv = {};
        if (!(wanted & 2u)) a.dw = {};
        if (!(wanted & 4u)) a.dz = {};
        cauchy_backward(a);
        if (wanted & 1u) CHECK(same_bits(p.dv, all.dv));
        if (wanted & 2u) CHECK(same_bits(p.dw, all.dw));
        if (wanted & 4u) CHECK(same_bits(p.dz, all.dz));
    }
}

TEST_CASE("cauchy_backward: names the argument that does not fit")
{
    const cauchy_problem<float> p({});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        CHECK(complaint_of([&] { cauchy_backward(a); }).find(std::string("cauchy_backward: ") + text) == 0);
    };
    named("w has shape", [](auto& a) { a.forward.w = a.forward.w.slice(1, 0, 2); });
    named("dout has shape", [](auto& a) { a.dout = a.dout.slice(2, 0, 2); });
    named("dv has shape", [](auto& a) { a.dv = a.dv.slice(0, 0, 1); });
    named("dz has shape", [](auto& a) { a.dz = a.dz.slice(0, 0, 1); });
    named("dw overlaps dv", [](auto& a) { a.dw = {a.dv.data(), a.dw.extents()}; });
    named("dv overlaps v", [&](auto& a) { a.dv = p.v; });
    named("dz is written but", [](auto& a) { a.dz = {a.dz.data(), a.dz.extents(), {0}}; });
    std::vector<std::byte> small(cauchy_backward_workspace_size(p.backward_args()) - 1);
    CHECK(complaint_of([&] { cauchy_backward(p.backward_args(), workspace(small)); }).find("cauchy_backward: workspace has") == 0);
}

}  // namespace ssmkit::testing
