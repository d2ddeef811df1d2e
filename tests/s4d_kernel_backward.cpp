#include <ssmkit/s4d_kernel_backward.hpp>

#include <ssmkit/reference/s4d_kernel_backward.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "s4d_problem.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
void compare(const diagonal_setup& s, const s4d_options& o = {}, double allowance = 1)
{
    INFO(s.text() << " method " << static_cast<int>(o.method) << " growing " << o.growing << " state " << o.initial_state);
    const s4d_problem<T> p(s, o);
    const auto expected = p.wide();
    const auto before = p.input_bytes();
    s4d_kernel_backward(p.backward_args());
    reference::s4d_kernel_backward(expected.backward_args());
    const double budget = allowance * gradient_budget<T>;
    if (s.state > 0) CHECK(relative_error(p.ddelta, expected.ddelta) <= budget);  // a sum over no poles has no element
    CHECK(relative_error(p.dA, expected.dA) <= budget);
    CHECK(relative_error(p.dB, expected.dB) <= budget);
    CHECK(relative_error(p.dC, expected.dC) <= budget);
    CHECK(relative_error(p.dstate, expected.dstate) <= budget);
    CHECK(p.input_bytes() == before);
    CHECK(p.gaps_untouched());
}

template <class T>
bool same_gradients(const s4d_problem<T>& a, const s4d_problem<T>& b)
{
    return same_bits(a.ddelta, b.ddelta) && same_bits(a.dA, b.dA) && same_bits(a.dB, b.dB) && same_bits(a.dC, b.dC) &&
           same_bits(a.dstate, b.dstate);
}

}  // namespace

TEST_CASE("s4d_kernel_backward: the reference's gradients are those of finite differences")
{
    for (const s4d_options& o : all_s4d_options()) {
        const s4d_problem<double> p({.channels = 2, .dim = 2, .state = 2, .length = 12, .copies = 1}, o);
        INFO("method " << static_cast<int>(o.method) << " growing " << o.growing << " state " << o.initial_state);
        reference::s4d_kernel_backward(p.backward_args());
        const auto loss = [&] {
            reference::s4d_kernel(p.args());
            double sum = 0;
            for_each_index(p.K.view(), [&](auto... i) { sum += p.K(i...) * p.dK(i...); });
            for_each_index(p.K_state.view(), [&](auto... i) { sum += p.K_state(i...) * p.dK_state(i...); });
            return sum;
        };
        const auto verify = [&](const auto& input, const auto& gradient) {
            if (!input.given()) return;
            for_each_index(input.view(), [&](auto... i) {
                using E = std::remove_cvref_t<decltype(input(i...))>;
                const E here = input(i...);
                E slope{};
                for (const complex_double direction : {complex_double(1), complex_double(0, 1)}) {
                    if (!detail::is_complex<E> && direction.real() == 0) continue;
                    E step{};
                    if constexpr (detail::is_complex<E>) step = 1e-5 * direction;
                    else step = 1e-5;
                    input(i...) = here + step;
                    const double above = loss();
                    input(i...) = here - step;
                    slope += step * ((above - loss()) / 2e-10);
                }
                input(i...) = here;
                REQUIRE(std::abs(slope - gradient(i...)) <= 1e-6 * (1 + std::abs(slope)));
            });
        };
        verify(p.delta, p.ddelta);
        verify(p.A, p.dA);
        verify(p.B, p.dB);
        verify(p.C, p.dC);
        verify(p.state, p.dstate);
    }
}

TEMPLATE_TEST_CASE("s4d_kernel_backward: agrees with the reference, whatever is switched on", "", float, double)
{
    for (const s4d_options& o : all_s4d_options()) compare<TestType>({.dim = 4, .state = 9, .length = 70, .copies = 2}, o, 4);
}

TEMPLATE_TEST_CASE("s4d_kernel_backward: agrees with the reference at every length and number of poles", "", float, double)
{
    for (const index length : kernel_lengths) {
        compare<TestType>({.length = length}, {.initial_state = true});
        compare<TestType>({.dim = 1, .length = length, .copies = 1}, {.method = s4d_discretization::dss, .growing = true}, 4);
    }
    for (const index state : kernel_states) {
        compare<TestType>({.state = state, .length = 150}, {.method = s4d_discretization::bilinear, .tied = state % 2 == 0});
    }
    compare<TestType>({.dim = 0, .copies = 1});
    compare<TestType>({.batch = 0}, {.initial_state = true});
}

TEMPLATE_TEST_CASE("s4d_kernel_backward: agrees with the reference in any layout", "", float, double)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            compare<TestType>({.state = 19, .length = 90, .inputs = inputs, .outputs = outputs},
                              {.tied = true, .initial_state = true});
        }
    }
}

TEMPLATE_TEST_CASE("s4d_kernel_backward: touches nothing outside its arguments", "", float, double)
{
    for (const guard edge : {guard::below, guard::above}) {
        for (const index n : {1, 8, 17, 33}) {
            compare<TestType>({.state = n, .length = 65, .edge = edge}, {.initial_state = true});
            compare<TestType>({.state = 3, .length = n, .edge = edge}, {.tied = true});
        }
    }
}

TEST_CASE("s4d_kernel_backward: poles of zero have gradients")
{
    // z = -2: the bilinear pole is 0 and its logarithm has no derivative, the kernel has.
    const double delta = 1;
    const complex_double A(-2), B(1), C(1);
    const double dK[] = {1, 1, 1};
    double ddelta;
    complex_double dA;
    const s4d_kernel_backward_args<double> a{.forward = {.delta = {&delta, 1, 1},
                                                         .A = {&A, 1, 1},
                                                         .B = {&B, 1, 1},
                                                         .C = {&C, 1, 1, 1},
                                                         .method = s4d_discretization::bilinear,
                                                         .conjugate_pairs = false},
                                             .dK = {dK, 1, 1, 3},
                                             .ddelta = {&ddelta, 1, 1},
                                             .dA = {&dA, 1, 1}};
    s4d_kernel_backward(a);
    CHECK(std::abs(dA - complex_double(0.25)) < 1e-12);   // K = β (1, λ, ...): dβ/dA = Δ²/2 e² = 1/8, β dλ/dA = 1/2 · e² = 1/8
    CHECK(std::abs(ddelta - (0.25 - 0.25)) < 1e-12);      // e² and β A e²
}

TEMPLATE_TEST_CASE("s4d_kernel_backward: a NaN reaches exactly what depends on it", "", float, double)
{
    for (const auto method : {s4d_discretization::zoh, s4d_discretization::bilinear}) {
        for (index what = 0; what < 6; ++what) {
            const s4d_problem<TestType> p({.dim = 4, .state = 19, .length = 90, .copies = 2},
                                          {.method = method, .initial_state = true});
            if (what == 0) p.delta(1, 7) = quiet_nan<double>();
            if (what == 1) p.A(1, 18) = quiet_nan<complex_double>();
            if (what == 2) p.B(0, 3) = quiet_nan<std::complex<TestType>>();
            if (what == 3) p.C(1, 2, 16) = quiet_nan<std::complex<TestType>>();
            if (what == 4) p.state(1, 0, 5) = quiet_nan<std::complex<TestType>>();
            if (what == 5) p.dK(1, 2, 64) = quiet_nan<TestType>();
            INFO(what);
            const auto expected = p.wide();
            s4d_kernel_backward(p.backward_args());
            reference::s4d_kernel_backward(expected.backward_args());
            CHECK(same_nans(p.ddelta, expected.ddelta));
            CHECK(same_nans(p.dA, expected.dA));
            CHECK(same_nans(p.dB, expected.dB));
            CHECK(same_nans(p.dC, expected.dC));
            CHECK(same_nans(p.dstate, expected.dstate));
        }
    }
}

TEMPLATE_TEST_CASE("s4d_kernel_backward: neither threads nor the workspace's content change a bit", "", float, double)
{
    threads pool(3);
    const diagonal_setup s{.dim = 6, .state = 19, .length = 1200};
    const s4d_options o{.initial_state = true};
    const s4d_problem<TestType> one(s, o), several(s, o), reversed(s, o);
    s4d_kernel_backward(one.backward_args());
    s4d_kernel_backward(several.backward_args(), pool);
    s4d_kernel_backward(reversed.backward_args(), last_task_first{});
    CHECK(same_gradients(one, several));
    CHECK(same_gradients(one, reversed));
    for (const int pattern : {0xff, 0}) {
        const s4d_problem<TestType> p(s, o);
        const poisoned_workspace memory(s4d_kernel_backward_workspace_size(p.backward_args()), pattern);
        CHECK(allocations_during([&] { s4d_kernel_backward(p.backward_args(), memory); }) == 0);
        CHECK(same_gradients(one, p));
    }
}

TEST_CASE("s4d_kernel_backward: gradients that are not asked for change nothing")
{
    const diagonal_setup s{};
    const s4d_options o{.initial_state = true};
    const s4d_problem<float> all(s, o);
    s4d_kernel_backward(all.backward_args());
    for (unsigned wanted = 0; wanted < 32; ++wanted) {
        const s4d_problem<float> p(s, o);
        auto a = p.backward_args();
        if (!(wanted & 1u)) a.ddelta = {};
        if (!(wanted & 2u)) a.dA = {};
        if (!(wanted & 4u)) a.dB = {};
        if (!(wanted & 8u)) a.dC = {};
        if (!(wanted & 16u)) a.dinitial_state = {};
        s4d_kernel_backward(a);
        if (wanted & 1u) CHECK(same_bits(p.ddelta, all.ddelta));
        if (wanted & 2u) CHECK(same_bits(p.dA, all.dA));
        if (wanted & 4u) CHECK(same_bits(p.dB, all.dB));
        if (wanted & 8u) CHECK(same_bits(p.dC, all.dC));
        if (wanted & 16u) CHECK(same_bits(p.dstate, all.dstate));
    }
}

TEST_CASE("s4d_kernel_backward: names the argument that does not fit")
{
    const s4d_problem<float> p({.dim = 4, .copies = 2}, {.initial_state = true});
    const auto named = [&](const char* text, auto&& spoil) {
        auto a = p.backward_args();
        spoil(a);
        const std::string said = complaint_of([&] { s4d_kernel_backward(a); });
        INFO(said);
        CHECK(said.find(std::string("s4d_kernel_backward: ") + text) == 0);
    };
    CHECK(complaint_of([&] { s4d_kernel_backward(p.backward_args()); }).empty());
    named("delta has shape", [](auto& a) { a.forward.delta = a.forward.delta.slice(0, 0, 1); });
    named("dK has shape", [](auto& a) { a.dK = a.dK.slice(0, 0, 1); });
    named("dK_state has shape", [](auto& a) { a.dK_state = a.dK_state.slice(3, 0, 1); });
    named("dK_state has shape", [](auto& a) { a.forward.initial_state = {}; });
    named("ddelta has shape", [](auto& a) { a.ddelta = a.ddelta.slice(0, 0, 1); });
    named("ddelta is written but", [](auto& a) { a.ddelta = {a.ddelta.data(), a.ddelta.extents(), {0, 1}}; });
    named("dA has shape", [](auto& a) { a.dA = a.dA.slice(0, 0, 1); });
    named("dB has shape", [](auto& a) { a.dB = a.dB.slice(0, 0, 1); });
    named("dC has shape", [](auto& a) { a.dC = a.dC.slice(0, 0, 1); });
    named("dinitial_state has shape", [](auto& a) { a.dinitial_state = a.dinitial_state.slice(0, 0, 1); });
    named("dC overlaps C", [&](auto& a) { a.dC = p.C; });
    named("dB overlaps dA", [](auto& a) { a.dB = {reinterpret_cast<std::complex<float>*>(a.dA.data()), a.dB.extents()}; });
}

}  // namespace ssmkit::testing
