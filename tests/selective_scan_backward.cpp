#include <ssmkit/selective_scan_backward.hpp>

#include <algorithm>
#include <complex>
#include <numeric>
#include <string>
#include <vector>

#include <ssmkit/selective_scan.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "selective_scan_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

/// Runs the operation and, in double, its reference on the same numbers; returns the worst error in units of the budget.
template <class Storage>
worst_gradient against_reference(const scan_backward_problem<Storage>& p)
{
    selective_scan_backward(p.args());
    const auto expected = p.wide();
    reference::selective_scan_backward(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("selective_scan_backward: the reference gives the slope of the loss in every input", "", f64, complex_f64)
{
    using Param = typename TestType::Param;
    constexpr unsigned D = 1, z = 2, delta_bias = 4, delta_softplus = 8, initial_state = 16, reset = 32, order = 64,
                       reverse = 128, constant_B = 256, constant_C = 512;
    for (const unsigned bits : {0u, D | z | delta_bias | delta_softplus | initial_state, initial_state | reset | order | z,
                                reverse | initial_state | delta_softplus, constant_B | reverse | order | reset,
                                constant_C | z | D, constant_B | constant_C | delta_softplus | delta_bias}) {
        scan_setup s = scan_setup{.batch = 2, .length = 5, .dim = 4, .state = 2}.with_options(bits);
        s.groups_of_B = 2;
        s.groups_of_C = 1;
        s.snapshots = 4;
        const scan_backward_problem<TestType> p(s);
        const auto args = p.args();
        reference::selective_scan_backward(args);

        // The loss: every output times the gradient that is claimed for it.
        const auto loss = [&] {
            reference::selective_scan(p.forward.args());
            double sum = 0;
            const auto add = [&](const auto& out, const auto& gradient) {
                for_each_index(out.view(), [&](auto... i) {
                    sum += detail::is_complex<std::decay_t<decltype(out(i...))>>
                               ? std::real(out(i...)) * std::real(gradient(i...)) +
                                     std::imag(out(i...)) * std::imag(gradient(i...))
                               : std::real(out(i...)) * std::real(gradient(i...));
                });
            };
            add(p.forward.y, p.dy);
            add(p.forward.final_state, p.dfinal_state);
            add(p.forward.snapshots, p.dsnapshots);
            return sum;
        };
        // Central differences: an error of step^2 times the third derivative and of 1e-16 / step.
        constexpr double step = 1e-5, budget = 1e-8;
        const auto slope_along = [&](auto& x, auto direction) {
            const auto before = x;
            x = before + direction * step;
            const double above = loss();
            x = before - direction * step;
            const double below = loss();
            x = before;
            return (above - below) / (2 * step);
        };
        const auto compare = [&](const char* name, const auto& input, const auto& gradient) {
            if (!input.given()) return;
            double worst = 0, largest = 0;
            for_each_index(input.view(), [&](auto... i) {
                using element = std::decay_t<decltype(input(i...))>;
                worst = std::max(worst, std::abs(slope_along(input(i...), element(1)) - std::real(gradient(i...))));
                if constexpr (detail::is_complex<element>) {
                    worst = std::max(worst, std::abs(slope_along(input(i...), element(0, 1)) - std::imag(gradient(i...))));
                }
                largest = std::max(largest, std::abs(gradient(i...)));
            });
            CAPTURE(s.text(), name);
            CHECK(worst <= budget * std::max(largest, 1.0));
            CHECK(largest > 1e-2);
        };
        const scan_problem<TestType>& f = p.forward;
        compare("u", f.u, p.du);
        compare("delta", f.delta, p.ddelta);
        compare("A", f.A, p.dA);
        compare("B", f.B, p.dB);
        compare("C", f.C, p.dC);
        compare("constant B", f.constant_B, p.dconstant_B);
        compare("constant C", f.constant_C, p.dconstant_C);
        compare("D", f.D, p.dD);
        compare("z", f.z, p.dz);
        compare("delta_bias", f.delta_bias, p.ddelta_bias);
        compare("initial_state", f.initial_state, p.dinitial_state);
        static_assert(std::is_same_v<wide_t<Param>, Param>);
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: agrees with the reference, whatever is switched on", "", f32, f64, bf16, f16,
                   complex_f32, complex_f64, complex_bf16)
{
    for (unsigned bits = 0; bits < 1u << (scan_setup::options - 1); ++bits) {
        scan_setup s = scan_setup{.batch = 2, .length = 11, .dim = 6, .state = 3}.with_options(bits);
        constexpr index groups[] = {1, 2, 3, 6};
        s.groups_of_B = groups[bits % 4];
        s.groups_of_C = groups[bits / 4 % 4];
        s.dim *= bits / 2 % 3 == 0 ? 1 : bits / 2 % 3 == 1 ? 3 : 8;
        s.snapshots = bits % 3;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        const scan_backward_problem<TestType> p(s, bits % 5 != 0);
        const auto inputs = p.input_bytes();
        const worst_gradient worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: every width and state size", "", f32, f64, bf16, complex_f32)
{
    constexpr index n = lanes<typename TestType::T>;
    for (const index dim : {index{0}, index{1}, n - 1, n, n + 1, 2 * n + 3, index{33}}) {
        for (const index state : {0, 1, 2, 3, 8, 13, 16, 17, 64}) {
            for (const layout form : {layout::row_major, layout::time_contiguous}) {
                scan_setup s{.batch = 2, .length = 9, .dim = dim, .state = state};
                s.D = s.z = s.delta_softplus = s.initial_state = true;
                s.inputs = s.outputs = form;
                const worst_gradient worst = against_reference(scan_backward_problem<TestType>(s));
                CAPTURE(s.text(), worst.name);
                REQUIRE(worst.error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: every length", "", f32, f64, bf16, complex_f32)
{
    std::vector<index> lengths(71);
    std::iota(lengths.begin(), lengths.end(), index{0});
    lengths.insert(lengths.end(), {127, 128, 129, 255, 256, 257, 300, 1025});
    for (const index length : lengths) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            scan_setup s{.batch = 1, .length = length, .dim = lanes<typename TestType::T> + 1, .state = 5};
            s.z = s.delta_bias = s.initial_state = s.reset = true;
            s.reverse = length % 3 == 0;
            s.snapshots = 3;
            s.inputs = s.outputs = form;
            const worst_gradient worst = against_reference(scan_backward_problem<TestType>(s));
            CAPTURE(s.text(), worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: without tokens the state's gradient passes through", "", f32, complex_f64)
{
    for (const index batch : {0, 2}) {
        scan_setup s{.batch = batch, .length = 0, .dim = 6, .state = 3, .D = true, .initial_state = true, .snapshots = 2};
        const scan_backward_problem<TestType> p(s);
        REQUIRE(against_reference(p).error <= 1);
        for_each_index(p.dA.view(), [&](auto... i) { CHECK(std::abs(p.dA(i...)) == 0); });
        for_each_index(p.dD.view(), [&](auto... i) { CHECK(std::abs(p.dD(i...)) == 0); });
        for_each_index(p.dinitial_state.view(), [&](index b, index c, index n) {
            const auto sum = p.dfinal_state(b, c, n) + p.dsnapshots(b, 0, c, n) + p.dsnapshots(b, 1, c, n);
            CHECK(std::abs(p.dinitial_state(b, c, n) - sum) <= 1e-6);
        });
    }
}

TEST_CASE("selective_scan_backward: a sum over no tokens is zero, in the reference too")
{
    float number = 1, dB = 7, dC = 7;
    selective_scan_backward_args<float> a{
        .forward = {.u = {&number, 1, 0, 1}, .delta = {&number, 1, 0, 1}, .A = {&number, 1, 1}, .B = {&number, 1, 0, 1, 1}, .C = {&number, 1, 0, 1, 1}},
        .dy = {&number, 1, 0, 1},
        .dB = {&dB, {1, 0, 1, 1}, {0, 0, 1, 1}},
        .dC = {&dC, {1, 0, 1, 1}, {0, 0, 1, 1}}};
    reference::selective_scan_backward(a);
    CHECK((dB == 0 && dC == 0));
    dB = dC = 7;
    selective_scan_backward(a);
    CHECK((dB == 0 && dC == 0));
}

TEMPLATE_TEST_CASE("selective_scan_backward: an infinite step forgets the state, a turning one too", "", f32, complex_f32,
                   complex_f64)
{
    scan_setup s{.batch = 1, .length = 2, .dim = 1, .state = 1};
    scan_backward_problem<TestType> p(s);
    using T = typename TestType::T;
    p.forward.delta.fill([](index, index t, index) { return t == 0 ? T(0.5) : std::numeric_limits<T>::infinity(); });
    selective_scan_backward(p.args());
    CHECK(std::isfinite(static_cast<double>(p.du(0, 0, 0))));
    CHECK(std::isfinite(static_cast<double>(p.ddelta(0, 0, 0))));
}

TEMPLATE_TEST_CASE("selective_scan_backward: groups collect what their channels contribute", "", f32, f64, bf16, complex_f32)
{
    constexpr index n = lanes<typename TestType::T>;
    for (const index channels : {index{1}, index{3}, n - 1, n, n + 1, 2 * n}) {
        for (const index groups : {1, 2, 3, 4, 8}) {
            scan_setup s{.batch = 2, .length = 5, .dim = channels * groups, .state = 3};
            s.groups_of_B = groups;
            for (const index groups_of_C : {index{1}, groups, s.dim}) {
                s.groups_of_C = groups_of_C;
                const worst_gradient worst = against_reference(scan_backward_problem<TestType>(s));
                CAPTURE(s.text(), worst.name);
                REQUIRE(worst.error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: reads and writes any layout", "", f32, bf16, complex_f32)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            for (const index dim : {index{6}, 2 * lanes<typename TestType::T> + 4}) {
                scan_setup s{.batch = 2, .length = 35, .dim = dim, .state = 4};
                s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = true;
                s.groups_of_B = 2;
                s.snapshots = 3;
                s.inputs = inputs;
                s.outputs = outputs;
                const scan_backward_problem<TestType> p(s);
                const worst_gradient worst = against_reference(p);
                CAPTURE(s.text(), worst.name);
                REQUIRE(worst.error <= 1);
                REQUIRE(p.gaps_untouched());
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: sums dB and dC over every axis along which their views have stride 0", "", f32,
                   f64, bf16, complex_f32)
{
    using Param = typename TestType::Param;
    scan_setup s{.batch = 3, .length = 37, .dim = 12, .state = 3, .groups_of_B = 4, .groups_of_C = 2, .z = true};
    const scan_backward_problem<TestType> p(s);
    const auto full = p.wide();
    reference::selective_scan_backward(full.args());
    for (unsigned axes = 0; axes < 8; ++axes) {
        CAPTURE(axes);
        auto a = p.args();
        const auto check_sum = [&](auto& gradient, const auto& summands, index groups) {
            const auto kept = [&](unsigned axis, index i) { return axes & (1u << axis) ? 0 : i; };
            const auto extent = [&](unsigned axis, index n) { return axes & (1u << axis) ? 1 : n; };
            const std::array extents{extent(0, s.batch), extent(1, s.length), extent(2, groups), s.state};
            tensor<Param, 4> sum(extents);
            tensor<wide_t<Param>, 4> expected(extents);
            expected.fill([](auto...) { return wide_t<Param>(0); });
            for_each_index(summands.view(), [&](index b, index t, index g, index n) {
                expected(kept(0, b), kept(1, t), kept(2, g), n) += summands(b, t, g, n);
            });
            auto strides = sum.view().strides();
            for (unsigned axis = 0; axis < 3; ++axis) strides[axis] = axes & (1u << axis) ? 0 : strides[axis];
            gradient = {sum.view().data(), {s.batch, s.length, groups, s.state}, strides};
            selective_scan_backward(a);
            CHECK(relative_error(sum, expected) <= scan_backward_budget<Param>);
            gradient = {};
        };
        check_sum(a.dB, full.dB, s.groups_of_B);
        check_sum(a.dC, full.dC, s.groups_of_C);
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: gradients asked for one at a time are those asked for together", "", f32, bf16,
                   complex_f32)
{
    scan_setup s{.batch = 2, .length = 70, .dim = 2 * lanes<typename TestType::T> + 4, .state = 5};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = true;
    s.groups_of_B = s.groups_of_C = 2;
    s.snapshots = 3;
    const scan_backward_problem<TestType> together(s);
    selective_scan_backward(together.args());
    const auto alone = [&](auto member_of_args, auto member) {
        const scan_backward_problem<TestType> p(s);
        auto a = p.args();
        const auto wanted = member_of_args(a);
        a.du = a.ddelta = a.dz = {};
        a.dA = {};
        a.dB = a.dC = {};
        a.dD = a.ddelta_bias = {};
        a.dinitial_state = {};
        member_of_args(a) = wanted;
        selective_scan_backward(a);
        return same_bits(member(p), member(together));
    };
    CHECK(alone([](auto& a) -> auto& { return a.du; }, [](auto& p) -> auto& { return p.du; }));
    CHECK(alone([](auto& a) -> auto& { return a.ddelta; }, [](auto& p) -> auto& { return p.ddelta; }));
    CHECK(alone([](auto& a) -> auto& { return a.dz; }, [](auto& p) -> auto& { return p.dz; }));
    CHECK(alone([](auto& a) -> auto& { return a.dA; }, [](auto& p) -> auto& { return p.dA; }));
    CHECK(alone([](auto& a) -> auto& { return a.dB; }, [](auto& p) -> auto& { return p.dB; }));
    CHECK(alone([](auto& a) -> auto& { return a.dC; }, [](auto& p) -> auto& { return p.dC; }));
    CHECK(alone([](auto& a) -> auto& { return a.dD; }, [](auto& p) -> auto& { return p.dD; }));
    CHECK(alone([](auto& a) -> auto& { return a.ddelta_bias; }, [](auto& p) -> auto& { return p.ddelta_bias; }));
    CHECK(alone([](auto& a) -> auto& { return a.dinitial_state; }, [](auto& p) -> auto& { return p.dinitial_state; }));
}

TEMPLATE_TEST_CASE("selective_scan_backward: gradients flow through a cut by way of the carried state", "", f32, f64,
                   complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    using real = compute_t<T>;
    for (const bool reverse : {false, true}) {
        scan_setup s{.batch = 2, .length = 70, .dim = 7, .state = 4};
        s.z = s.D = s.delta_bias = s.initial_state = s.reset = true;
        s.reverse = reverse;
        const scan_backward_problem<TestType> whole(s);
        selective_scan_backward(whole.args());
        for (const index cut : {0, 1, 15, 16, 17, 32, 33, 64, 69, 70}) {
            CAPTURE(cut, reverse);
            const scan_backward_problem<TestType> parts(s);
            const std::array states{s.batch, s.dim, s.state};
            const tensor<Param, 3> carried(states), dcarried(states);
            const auto slice = [&](index first, index count) {
                auto a = parts.args();
                a.forward = time_slice(a.forward, first, count);
                a.dy = a.dy.slice(1, first, count);
                for (auto* v : {&a.du, &a.ddelta, &a.dz}) *v = v->slice(1, first, count);
                for (auto* v : {&a.dB, &a.dC}) *v = v->slice(1, first, count);
                return a;
            };
            auto first = slice(reverse ? cut : 0, reverse ? s.length - cut : cut);
            auto second = slice(reverse ? 0 : cut, reverse ? cut : s.length - cut);
            auto run = first.forward;
            run.final_state = carried;
            selective_scan(run);
            second.forward.initial_state = carried;
            second.dinitial_state = dcarried;
            first.dfinal_state = dcarried;
            const tensor<Param, 2> dA(parts.dA.view().extents());
            const tensor<real, 1> dD(parts.dD.view().extents()), ddelta_bias(parts.dD.view().extents());
            second.dA = dA;
            second.dD = dD;
            second.ddelta_bias = ddelta_bias;
            selective_scan_backward(second);
            selective_scan_backward(first);
            for_each_index(dA.view(), [&](auto... i) { parts.dA(i...) += dA(i...); });
            for_each_index(dD.view(), [&](auto... i) {
                parts.dD(i...) += dD(i...);
                parts.ddelta_bias(i...) += ddelta_bias(i...);
            });
            const worst_gradient worst = worst_of_budget(parts, whole);
            CAPTURE(worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: no gradient crosses from one packed sequence into another", "", f32, f64, bf16,
                   complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    const std::vector<index> starts = {0, 1, 15, 16, 17, 18, 31, 32, 33, 63, 64, 65, 66, 127, 129};
    scan_setup s{.batch = 2, .length = 140, .dim = 18, .state = 4};
    s.z = s.reset = true;
    s.groups_of_B = 2;
    scan_backward_problem<TestType> packed(s, false);
    packed.forward.reset.fill([&](index, index t) {
        return static_cast<std::uint8_t>(std::find(starts.begin(), starts.end(), t) != starts.end());
    });
    selective_scan_backward(packed.args());
    const scan_backward_problem<TestType> alone(s, false);
    for (std::size_t i = 0; i < starts.size(); ++i) {
        const index first = starts[i], end = i + 1 < starts.size() ? starts[i + 1] : s.length, count = end - first;
        CAPTURE(first, end);
        auto a = alone.args();
        a.forward = time_slice(a.forward, first, count);
        a.forward.reset = {};
        a.dy = a.dy.slice(1, first, count);
        for (auto* v : {&a.du, &a.ddelta, &a.dz}) *v = v->slice(1, first, count);
        for (auto* v : {&a.dB, &a.dC}) *v = v->slice(1, first, count);
        selective_scan_backward(a);
        constexpr double rounded = scan_backward_budget<T>, exact = scan_backward_budget<Param>;
        CHECK(relative_error(packed.du.view().slice(1, first, count), a.du) <= rounded);
        CHECK(relative_error(packed.ddelta.view().slice(1, first, count), a.ddelta) <= rounded);
        CHECK(relative_error(packed.dz.view().slice(1, first, count), a.dz) <= rounded);
        CHECK(relative_error(packed.dB.view().slice(1, first, count), a.dB) <= exact);
        CHECK(relative_error(packed.dC.view().slice(1, first, count), a.dC) <= exact);
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: padding before a reset reaches no gradient of later tokens", "", f32, bf16,
                   complex_f32)
{
    using T = typename TestType::T;
    for (const double pad : {0.0, 1e30, std::numeric_limits<double>::infinity(), std::nan("")}) {
        for (const index padding : {1, 16, 37}) {
            scan_setup s{.batch = 2, .length = 70, .dim = 18, .state = 3, .z = true, .reset = true};
            scan_backward_problem<TestType> p(s);
            p.forward.reset.fill([&](index, index t) { return static_cast<std::uint8_t>(t == padding); });
            const scan_backward_problem<TestType> clean = [&] {
                scan_backward_problem<TestType> q(s);
                q.forward.reset.fill([&](index, index t) { return static_cast<std::uint8_t>(t == padding); });
                return q;
            }();
            for_each_index(p.forward.u.view().slice(1, 0, padding), [&](auto... i) {
                p.forward.u(i...) = p.forward.delta(i...) = p.forward.z(i...) = convert<T>(pad);
            });
            selective_scan_backward(p.args());
            selective_scan_backward(clean.args());
            CAPTURE(pad, padding);
            const auto error = [&](const auto& x, const auto& expected) {
                return relative_error(x.view().slice(1, padding, s.length - padding),
                                      expected.view().slice(1, padding, s.length - padding));
            };
            CHECK(error(p.du, clean.du) <= scan_backward_budget<T>);
            CHECK(error(p.ddelta, clean.ddelta) <= scan_backward_budget<T>);
            CHECK(error(p.dz, clean.dz) <= scan_backward_budget<T>);
            CHECK(error(p.dB, clean.dB) <= scan_backward_budget<compute_t<T>>);
            CHECK(error(p.dC, clean.dC) <= scan_backward_budget<compute_t<T>>);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: a NaN reaches exactly the gradients that depend on it", "", f32, f64, bf16,
                   complex_f32)
{
    // A gradient depends on an input if it changes with it, which the double reference can tell: decay is slow here.
    using Storage = storage<double, wide_t<typename TestType::Param>>;
    for (const bool with_reset : {false, true}) {
        scan_setup s{.batch = 2, .length = 19, .dim = lanes<typename TestType::T> + 4, .state = 3};
        s.dim -= s.dim % 4;
        s.groups_of_B = 2;
        s.groups_of_C = 4;
        s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
        s.reset = with_reset;
        s.snapshots = 3;
        const auto slow = [&] {
            scan_backward_problem<TestType> p(s);
            random numbers(77);
            p.forward.A.fill(numbers, {-0.2, -0.01, -1, 1});
            return p;
        };
        const auto base = slow().wide();
        reference::selective_scan_backward(base.args());
        const auto probe = [&](const char* name, auto member, auto... at) {
            const scan_backward_problem<TestType> p = slow();
            const scan_backward_problem<Storage> changed = p.wide();
            member(changed)(at...) += 0.37;
            reference::selective_scan_backward(changed.args());
            auto& x = member(p)(at...);
            x = quiet_nan<std::decay_t<decltype(x)>>();
            selective_scan_backward(p.args());
            const auto matches = [](const auto& out, const auto& before, const auto& after) {
                bool same = true;
                for_each_index(out.view(), [&](auto... i) {
                    same &= is_nan(out(i...)) == (before(i...) != after(i...));
                });
                return same;
            };
            CAPTURE(name, with_reset);
            CHECK(matches(p.du, base.du, changed.du));
            CHECK(matches(p.ddelta, base.ddelta, changed.ddelta));
            CHECK(matches(p.dz, base.dz, changed.dz));
            // At a reset the state is zero, and zero times NaN is NaN, though nothing depends on it.
            if (!with_reset) CHECK(matches(p.dA, base.dA, changed.dA));
            CHECK(matches(p.dB, base.dB, changed.dB));
            CHECK(matches(p.dC, base.dC, changed.dC));
            CHECK(matches(p.dD, base.dD, changed.dD));
            CHECK(matches(p.ddelta_bias, base.ddelta_bias, changed.ddelta_bias));
            CHECK(matches(p.dinitial_state, base.dinitial_state, changed.dinitial_state));
        };
        for (const index t : {0, 7, 18}) {
            probe("dy", [](auto& p) -> auto& { return p.dy; }, 1, t, s.dim - 1);
            probe("u", [](auto& p) -> auto& { return p.forward.u; }, 1, t, 2);
            probe("delta", [](auto& p) -> auto& { return p.forward.delta; }, 1, t, s.dim - 1);
            probe("z", [](auto& p) -> auto& { return p.forward.z; }, 0, t, 1);
            probe("B", [](auto& p) -> auto& { return p.forward.B; }, 1, t, 1, 2);
            probe("C", [](auto& p) -> auto& { return p.forward.C; }, 0, t, 2, 1);
        }
        probe("dfinal_state", [](auto& p) -> auto& { return p.dfinal_state; }, 1, 2, 1);
        probe("dsnapshots", [](auto& p) -> auto& { return p.dsnapshots; }, 1, 1, 2, 1);
        probe("D", [](auto& p) -> auto& { return p.forward.D; }, 3);
        probe("initial_state", [](auto& p) -> auto& { return p.forward.initial_state; }, 1, 2, 1);
    }
}

TEST_CASE("selective_scan_backward: without a state, a NaN reaches nothing but the skip and the gate")
{
    constexpr index length = 3, dim = 2;
    const float nan = quiet_nan<float>();
    for (const bool skip : {false, true}) {
        const std::vector<float> u{1, nan, 2, 3, 4, 5}, delta{nan, 1, 1, 1, 1, 1}, z(6, 1), dy(6, 1), D{2, 3};
        std::vector<float> du(6), ddelta(6), dz(6);
        selective_scan_backward_args<float> a{.forward = {.u = {u.data(), 1, length, dim},
                                                          .delta = {delta.data(), 1, length, dim},
                                                          .A = {u.data(), dim, 0},
                                                          .B = {u.data(), 1, length, 1, 0},
                                                          .C = {u.data(), 1, length, 1, 0},
                                                          .z = {z.data(), 1, length, dim},
                                                          .delta_softplus = true},
                                              .dy = {dy.data(), 1, length, dim},
                                              .du = {du.data(), 1, length, dim},
                                              .ddelta = {ddelta.data(), 1, length, dim},
                                              .dz = {dz.data(), 1, length, dim}};
        if (skip) a.forward.D = {D.data(), dim};
        selective_scan_backward(a);
        for (std::size_t i = 0; i < 6; ++i) {
            CHECK(ddelta[i] == 0);
            CHECK(std::isnan(dz[i]) == (skip && i == 1));
            const float expected = skip ? D[i % 2] / (1 + std::exp(-1.0f)) : 0;  // D dy silu(1)
            CHECK(std::abs(du[i] - expected) <= 1e-6f);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: extreme rates and steps give numbers", "", f32, f64, complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    const double rates[] = {0, -1e-6, -1e-4, -1e-2, -1, -1e2, -1e4, -1e6};
    const double raw[] = {-1e7, -100, -17, -15, 0, 19.9, 20.1, 100};
    scan_setup s{.batch = 1, .length = 40, .dim = 8, .state = 3, .z = true, .delta_softplus = true, .initial_state = true};
    scan_backward_problem<TestType> rated(s);
    rated.forward.A.fill([&](index c, index) { return convert<Param>(rates[c]); });
    const worst_gradient of_rates = against_reference(rated);
    CAPTURE(of_rates.name);
    CHECK(of_rates.error <= 1);

    scan_backward_problem<TestType> stepped(s);
    stepped.forward.delta.fill([&](index, index t, index c) { return convert<T>(raw[(t + c) % 8]); });
    stepped.forward.z.fill([&](index, index t, index c) { return convert<T>(raw[(3 * t + c) % 8]); });
    const worst_gradient of_steps = against_reference(stepped);
    CAPTURE(of_steps.name);
    CHECK(of_steps.error <= 1);

    s.delta_softplus = false;  // backwards in time, growing
    s.length = 20;
    scan_backward_problem<TestType> growing(s);
    random numbers(5);
    growing.forward.delta.fill(numbers, {-0.7, 0.3});
    const worst_gradient of_growth = against_reference(growing);
    CAPTURE(of_growth.name);
    CHECK(of_growth.error <= 1);
}

TEMPLATE_TEST_CASE("selective_scan_backward: neither threads nor the workspace change a bit", "", f32, f64, bf16, complex_f32)
{
    struct shape {
        index batch, length, dim, state;
    };
    constexpr index n = lanes<typename TestType::T>;
    for (const shape& of : {shape{1, 300, 4 * n + 4, 4}, shape{3, 70, n, 17}, shape{5, 33, 2, 2}}) {
        for (const bool constant : {false, true}) {
            scan_setup s{.batch = of.batch, .length = of.length, .dim = of.dim, .state = of.state};
            s.z = s.delta_bias = s.delta_softplus = s.reset = true;
            s.constant_B = s.D = s.initial_state = constant;
            s.groups_of_C = 2;
            s.snapshots = 3;
            const scan_backward_problem<TestType> p(s);
            CAPTURE(s.text());
            selective_scan_backward(p.args());
            const auto expected = p.output_bytes();
            for (const std::size_t count : {1, 2, 3}) {
                threads pool(count);
                const scan_backward_problem<TestType> q(s);
                selective_scan_backward(q.args(), pool);
                CHECK(q.output_bytes() == expected);
            }
            const std::size_t need = selective_scan_backward_workspace_size(p.args(), 4);
            for (const int poison : {0x00, 0xff, 0x7f, 0x5a}) {
                std::vector<std::byte> memory(need + 3, static_cast<std::byte>(poison));
                const scan_backward_problem<TestType> q(s);
                selective_scan_backward(q.args(), workspace(memory).subspan(3), last_task_first{});
                CHECK(q.output_bytes() == expected);
            }
        }
    }
}

TEST_CASE("selective_scan_backward: allocates nothing when it is lent a workspace")
{
    REQUIRE(allocations_during([] { const std::vector<int> block(100); }) > 0);
    scan_setup s{.batch = 2, .length = 100, .dim = 35, .state = 7};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = s.order = true;
    s.snapshots = 3;
    const scan_backward_problem<f32> p(s);
    const scan_backward_problem<complex_bf16> q(s);
    threads pool(2);
    std::vector<std::byte> memory(std::max(selective_scan_backward_workspace_size(p.args(), 2),
                                           selective_scan_backward_workspace_size(q.args(), 2)));
    CHECK(allocations_during([&] {
              selective_scan_backward(p.args(), memory);
              selective_scan_backward(p.args(), memory, pool);
              selective_scan_backward(q.args(), memory);
              selective_scan_backward(q.args(), memory, pool);
          }) == 0);
}

TEST_CASE("selective_scan_backward: scratch memory grows far slower than the states it recomputes")
{
    // All states of this problem would take 2 * 65536 * 256 * 16 floats, 2 GiB.
    const float nothing[1] = {};
    const index batch = 2, length = 65536, dim = 256, state = 16;
    const view<const float, 3> tokens{nothing, {batch, length, dim}, {0, 0, 0}};
    const view<const float, 4> maps{nothing, {batch, length, 1, state}, {0, 0, 0, 0}};
    selective_scan_backward_args<float> a{.forward = {.u = tokens,
                                                      .delta = tokens,
                                                      .A = {nothing, {dim, state}, {0, 0}},
                                                      .B = maps,
                                                      .C = maps},
                                          .dy = tokens};
    float sink[16];
    a.dA = {sink, {dim, state}, {0, 1}};
    CHECK(selective_scan_backward_workspace_size(a) < std::size_t{128} << 20);
}

TEMPLATE_TEST_CASE("selective_scan_backward: touches nothing outside its arguments and its workspace", "", f32, bf16,
                   complex_f32)
{
    constexpr index n = lanes<typename TestType::T>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index dim : {index{1}, n - 1, n, n + 1}) {
                for (const index state : {1, 3, 17}) {
                    for (const index length : {1, 15, 63, 64, 65, 129, 257}) {
                        scan_setup s{.batch = 1, .length = length, .dim = dim, .state = state};
                        s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = true;
                        s.snapshots = 2;
                        s.inputs = s.outputs = form;
                        const scan_backward_problem<TestType> free(s);
                        s.edge = edge;
                        const scan_backward_problem<TestType> p(s);
                        const std::size_t need = selective_scan_backward_workspace_size(p.args());
                        const raw_memory lent(need, edge);
                        CAPTURE(s.text());
                        selective_scan_backward(p.args(), workspace(lent.data(), need));
                        selective_scan_backward(free.args());
                        REQUIRE(p.output_bytes() == free.output_bytes());
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan_backward: offsets beyond 2^31 and 2^32 elements", "", f32, bf16)
{
    using T = typename TestType::T;
    enum { batch, length, dim, state };
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (const int far : {batch, length, dim, state}) {
            scan_setup s{.batch = 2, .length = 3, .dim = 4, .state = 2, .groups_of_B = 2, .groups_of_C = 2};
            s.z = s.initial_state = s.reset = true;
            s.snapshots = 2;
            const scan_backward_problem<TestType> p(s);
            sparse_memory memory;
            auto a = p.args();
            auto& f = a.forward;
            try {
                const auto spread = [&](auto& v, std::initializer_list<int> axes) {
                    const auto axis = std::find(axes.begin(), axes.end(), far);
                    if (axis != axes.end()) v = memory.spread(v, static_cast<std::size_t>(axis - axes.begin()), stride);
                };
                for (auto* v : {&f.u, &f.delta, &f.z, &a.dy}) spread(*v, {batch, length, dim});
                for (auto* v : {&a.du, &a.ddelta, &a.dz}) spread(*v, {batch, length, dim});
                for (auto* v : {&f.B, &f.C}) spread(*v, {batch, length, dim, state});
                for (auto* v : {&a.dB, &a.dC}) spread(*v, {batch, length, dim, state});
                spread(f.A, {dim, state});
                spread(a.dA, {dim, state});
                for (auto* v : {&f.initial_state, &a.dfinal_state}) spread(*v, {batch, dim, state});
                spread(a.dinitial_state, {batch, dim, state});
                spread(f.reset, {batch, length});
                spread(a.dsnapshots, {batch, -1, dim, state});
            } catch (const sparse_memory::refused&) {
                WARN("the system lends no address space for this test");
                return;
            }
            CAPTURE(stride, far);
            selective_scan_backward(a);
            const auto expected = p.wide();
            reference::selective_scan_backward(expected.args());
            CHECK(relative_error(a.du, expected.du.view()) <= scan_backward_budget<T>);
            CHECK(relative_error(a.ddelta, expected.ddelta.view()) <= scan_backward_budget<T>);
            CHECK(relative_error(a.dz, expected.dz.view()) <= scan_backward_budget<T>);
            CHECK(relative_error(a.dA, expected.dA.view()) <= scan_backward_budget<float>);
            CHECK(relative_error(a.dB, expected.dB.view()) <= scan_backward_budget<float>);
            CHECK(relative_error(a.dC, expected.dC.view()) <= scan_backward_budget<float>);
            CHECK(relative_error(a.dinitial_state, expected.dinitial_state.view()) <= scan_backward_budget<float>);
        }
    }
}

TEST_CASE("selective_scan_backward: leaves the caller's floating-point mode as it was")
{
    const scan_backward_problem<f32> p({.batch = 2, .length = 30, .dim = 20, .state = 3});
    const auto subnormals_live = [] {
        volatile float smallest = std::numeric_limits<float>::min();
        smallest = smallest / 2;
        return smallest > 0;
    };
    REQUIRE(subnormals_live());
    selective_scan_backward(p.args());
    CHECK(subnormals_live());
}

TEST_CASE("selective_scan_backward: names the argument that does not fit")
{
    scan_setup s{.batch = 2, .length = 37, .dim = 6, .state = 5};
    s.D = s.z = s.delta_bias = s.initial_state = s.reset = s.order = true;
    s.snapshots = 2;
    const scan_backward_problem<f32> p(s);
    const auto message_of = [](auto&& f) -> std::string {
        try {
            f();
        } catch (const shape_error& e) {
            return e.what();
        }
        return "nothing thrown";
    };
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return message_of([&] { selective_scan_backward(a); });
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    const std::string op = "selective_scan_backward: ";

    CHECK(complaint([](auto& a) { a.dy = a.dy.slice(1, 0, 36); }) ==
          op + "dy has shape (2, 36, 6), expected (batch = 2, length = 37, dim = 6)");
    CHECK(begins(complaint([](auto& a) { a.dy = {}; }), op + "dy has shape (0, 0, 0)"));
    CHECK(begins(complaint([](auto& a) { a.forward.delta = a.forward.delta.slice(1, 0, 3); }), op + "delta has shape"));
    CHECK(begins(complaint([](auto& a) { a.forward.C = a.forward.C.slice(3, 0, 3); }), op + "C has shape (2, 37, 1, 3)"));
    CHECK(begins(complaint([](auto& a) { a.dfinal_state = a.dfinal_state.slice(1, 0, 3); }), op + "dfinal_state has shape"));
    CHECK(begins(complaint([](auto& a) { a.dsnapshots = a.dsnapshots.slice(1, 0, 1); }),
                 op + "dsnapshots has shape (2, 1, 6, 5), expected (batch = 2, count = 2"));
    CHECK(begins(complaint([](auto& a) { a.forward.snapshot_after = {}; }), op + "dsnapshots has shape"));
    CHECK(begins(complaint([](auto& a) { a.du = a.du.slice(1, 0, 1); }), op + "du has shape (2, 1, 6)"));
    CHECK(begins(complaint([](auto& a) { a.ddelta = a.ddelta.slice(1, 0, 1); }), op + "ddelta has shape (2, 1, 6)"));
    CHECK(begins(complaint([](auto& a) { a.dz = a.dz.slice(1, 0, 1); }), op + "dz has shape (2, 1, 6)"));
    CHECK(complaint([](auto& a) { a.forward.z = {}; }) == op + "dz is asked for without a z");
    CHECK(begins(complaint([](auto& a) { a.dA = a.dA.slice(1, 0, 1); }), op + "dA has shape (6, 1)"));
    CHECK(begins(complaint([](auto& a) { a.dB = {a.dB.data(), {2, 37, 6, 5}, {0, 0, 5, 1}}; }),
                 op + "dB has shape (2, 37, 6, 5), expected (batch = 2, length = 37, ngroups = 1, state = 5)"));
    CHECK(begins(complaint([](auto& a) { a.dC = a.dC.slice(3, 0, 1); }), op + "dC has shape (2, 37, 1, 1)"));
    CHECK(complaint([](auto& a) { a.dC = {a.dC.data(), {2, 37, 1, 5}, {0, 0, 0, 0}}; }) == op + "dC has stride 0 along state");
    CHECK(complaint([](auto& a) { a.du = {a.du.data(), {2, 37, 6}, {0, 6, 1}}; }) ==
          op + "du is written but has stride 0 along an axis");
    CHECK(begins(complaint([](auto& a) { a.dD = a.dD.slice(0, 0, 1); }), op + "dD has shape (1)"));
    CHECK(begins(complaint([](auto& a) { a.ddelta_bias = a.ddelta_bias.slice(0, 0, 1); }), op + "ddelta_bias has shape (1)"));
    CHECK(begins(complaint([](auto& a) { a.dinitial_state = a.dinitial_state.slice(0, 0, 1); }), op + "dinitial_state has"));
    CHECK(complaint([](auto& a) { a.du = {const_cast<float*>(a.dy.data()), 2, 37, 6}; }) == op + "du overlaps dy in memory");
    CHECK(complaint([](auto& a) { a.ddelta = a.du; }) == op + "ddelta overlaps du in memory");

    std::vector<std::byte> memory(selective_scan_backward_workspace_size(p.args()) - 1);
    CHECK(message_of([&] { selective_scan_backward(p.args(), memory); }) ==
          op + "workspace has " + std::to_string(memory.size()) + " bytes, expected " + std::to_string(memory.size() + 1));
    for_each_index(p.du.view(), [&](auto... i) { REQUIRE(is_nan(p.du(i...))); });  // thrown before anything was written
}

}  // namespace
}  // namespace ssmkit::testing
