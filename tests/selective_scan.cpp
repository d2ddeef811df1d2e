#include <ssmkit/selective_scan.hpp>

#include <cfenv>
#include <numeric>

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
double against_reference(const scan_problem<Storage>& p)
{
    selective_scan(p.args());
    const auto expected = p.wide();
    reference::selective_scan(expected.args());
    return worst_of_budget(p, expected);
}

template <class F>
std::string message_of(F&& f)
{
    try {
        f();
    } catch (const shape_error& e) {
        return e.what();
    }
    return "nothing thrown";
}

TEMPLATE_TEST_CASE("selective_scan: agrees with the reference, whatever is switched on", "", f32, f64, bf16, f16,
                   complex_f32, complex_f64, complex_bf16)
{
    for (unsigned bits = 0; bits < 1u << scan_setup::options; ++bits) {
        scan_setup s = scan_setup{.batch = 2, .length = 11, .dim = 6, .state = 3}.with_options(bits);
        constexpr index groups[] = {1, 2, 3, 6};
        s.groups_of_B = groups[bits % 4];
        s.groups_of_C = groups[bits / 4 % 4];
        s.dim *= 1 + bits / 2 % 3;
        s.snapshots = bits % 3;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        CAPTURE(s.text());
        const scan_problem<TestType> p(s);
        const auto inputs = p.input_bytes();
        REQUIRE(against_reference(p) <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEMPLATE_TEST_CASE("selective_scan: every width and state size", "", f32, f64, bf16, complex_f32)
{
    constexpr index n = lanes<typename TestType::T>;
    for (const index dim : {index{0}, index{1}, n - 1, n, n + 1, 2 * n + 3, index{33}}) {
        for (const index state : {0, 1, 2, 3, 8, 13, 16, 17, 64}) {
            for (const layout form : {layout::row_major, layout::time_contiguous}) {
                scan_setup s{.batch = 2, .length = 9, .dim = dim, .state = state};
                s.D = s.z = s.delta_softplus = s.initial_state = true;
                s.inputs = s.outputs = form;
                CAPTURE(s.text());
                REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: every length", "", f32, f64, bf16, complex_f32)
{
    std::vector<index> lengths(71);
    std::iota(lengths.begin(), lengths.end(), index{0});
    lengths.insert(lengths.end(), {127, 128, 129, 255, 256, 257, 300});
    for (const index length : lengths) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            scan_setup s{.batch = 1, .length = length, .dim = lanes<typename TestType::T> + 1, .state = 5};
            s.z = s.delta_bias = s.initial_state = s.reset = true;
            s.reverse = length % 3 == 0;
            s.snapshots = 2;
            s.inputs = s.outputs = form;
            CAPTURE(s.text());
            REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: an empty batch is left alone", "", f32, complex_f64)
{
    const scan_setup s{.batch = 0, .length = 5, .dim = 6, .state = 3};
    REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
}

TEMPLATE_TEST_CASE("selective_scan: neighbouring channels share a group", "", f32, f64, bf16, complex_f32)
{
    constexpr index n = lanes<typename TestType::T>;
    for (const index channels : {index{1}, index{3}, n - 1, n, n + 1, 2 * n}) {
        for (const index groups : {1, 2, 3, 4, 8}) {
            scan_setup s{.batch = 2, .length = 5, .dim = channels * groups, .state = 3};
            s.groups_of_B = groups;
            for (const index groups_of_C : {index{1}, groups, s.dim}) {
                s.groups_of_C = groups_of_C;
                CAPTURE(s.text());
                REQUIRE(against_reference(scan_problem<TestType>(s)) <= 1);
            }
        }
    }

    // Said once without the reference: channel c sees the B of group c / (dim / ngroups), and nothing of the other groups.
    scan_setup s{.batch = 1, .length = 1, .dim = 12, .state = 1};
    s.groups_of_B = 3;
    scan_problem<TestType> p(s);
    using T = typename TestType::T;
    using element = typename scan_problem<TestType>::element;
    p.u.fill([](auto...) { return convert<T>(1.0); });
    p.delta.fill([](auto...) { return convert<T>(1.0); });
    p.C.fill([](auto...) { return convert<element>(detail::is_complex<element> ? 0.5 : 1.0); });
    p.B.fill([](index, index, index g, index) { return convert<element>(static_cast<double>(g + 1)); });
    selective_scan(p.args());
    for (index c = 0; c < s.dim; ++c) CHECK(convert<double>(p.y(0, 0, c)) == static_cast<double>(c / 4 + 1));
}

TEMPLATE_TEST_CASE("selective_scan: reads and writes any layout", "", f32, bf16, complex_f32)
{
    for (const layout inputs : all_layouts) {
        for (const layout outputs : all_layouts) {
            for (const index dim : {index{5}, 2 * lanes<typename TestType::T> + 3}) {
                scan_setup s{.batch = 2, .length = 35, .dim = dim, .state = 4};
                s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = s.y_ungated = true;
                s.snapshots = 3;
                s.inputs = inputs;
                s.outputs = outputs;
                CAPTURE(s.text());
                const scan_problem<TestType> p(s);
                REQUIRE(against_reference(p) <= 1);
                REQUIRE(p.gaps_untouched());
            }
        }
    }
}

TEST_CASE("selective_scan: an input may have stride 0 along any axis")
{
    scan_setup s{.batch = 2, .length = 20, .dim = 6, .state = 3, .z = true, .initial_state = true};
    const scan_problem<f32> p(s), q(s);
    const auto shared_over = [](const auto& v, std::size_t axis) {
        auto strides = v.strides();
        strides[axis] = 0;
        return std::decay_t<decltype(v)>{v.data(), v.extents(), strides};
    };
    for (std::size_t axis = 0; axis < 3; ++axis) {
        CAPTURE(axis);
        auto a = p.args();
        a.u = shared_over(a.u, axis);
        a.delta = shared_over(a.delta, axis);
        a.z = shared_over(a.z, axis);
        a.B = shared_over(a.B, axis == 2 ? 3 : axis);
        a.C = shared_over(a.C, axis == 2 ? 3 : axis);
        a.A = shared_over(a.A, axis % 2);
        a.initial_state = shared_over(a.initial_state, axis);
        selective_scan(a);
        a.y = q.y;
        a.final_state = q.final_state;
        reference::selective_scan(a);
        CHECK(worst_of_budget(p, q) <= 1);
    }
}

TEST_CASE("selective_scan: outputs that are not asked for change nothing")
{
    scan_setup s{.batch = 2, .length = 50, .dim = 21, .state = 5, .z = true, .y_ungated = true, .snapshots = 4};
    const scan_problem<f32> all(s), few(s);
    selective_scan(all.args());
    auto a = few.args();
    a.y_ungated = {};
    a.final_state = {};
    a.snapshots = {};
    a.snapshot_after = {};
    selective_scan(a);
    CHECK(same_bits(all.y, few.y));
}

TEMPLATE_TEST_CASE("selective_scan: cutting the sequence and carrying the state changes nothing", "", f32, f64, bf16,
                   complex_f32)
{
    using Param = typename TestType::Param;
    for (const bool reverse : {false, true}) {
        scan_setup s{.batch = 2, .length = 70, .dim = 7, .state = 4};
        s.z = s.initial_state = s.reset = s.y_ungated = true;
        s.reverse = reverse;
        const scan_problem<TestType> whole(s);
        selective_scan(whole.args());
        for (const index cut : {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 69, 70}) {
            CAPTURE(cut, reverse);
            const scan_problem<TestType> parts(s);
            const tensor<Param, 3> carried(std::array{s.batch, s.dim, s.state});
            auto first = time_slice(parts.args(), reverse ? cut : 0, reverse ? s.length - cut : cut);
            auto second = time_slice(parts.args(), reverse ? 0 : cut, reverse ? cut : s.length - cut);
            first.final_state = carried;
            second.initial_state = carried;
            selective_scan(first);
            selective_scan(second);
            REQUIRE(worst_of_budget(parts, whole) <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: reverse is flip, scan, flip", "", f32, f64, complex_f32)
{
    for (const index length : {1, 2, 17, 33, 64, 100}) {
        scan_setup s{.batch = 2, .length = length, .dim = 19, .state = 4};
        s.z = s.initial_state = s.reset = s.y_ungated = true;
        s.snapshots = 3;
        const scan_problem<TestType> flipped(s);
        auto a = flipped.args();
        for (auto* v : {&a.u, &a.delta, &a.z}) *v = v->reversed(1);
        for (auto* v : {&a.y, &a.y_ungated}) *v = v->reversed(1);
        for (auto* v : {&a.B, &a.C}) *v = v->reversed(1);
        a.reset = a.reset.reversed(1);
        selective_scan(a);

        s.reverse = true;
        const scan_problem<TestType> reversed(s);
        selective_scan(reversed.args());
        CAPTURE(s.text());
        CHECK(worst_of_budget(reversed, flipped) <= 1);

        s.reverse = false;  // a palindrome would have passed so far
        const scan_problem<TestType> forward(s);
        selective_scan(forward.args());
        if (length > 2) CHECK(worst_of_budget(forward, flipped) > 1);
    }
}

TEMPLATE_TEST_CASE("selective_scan: a visiting order is gather, scan, scatter", "", f32, f64, bf16, complex_f32)
{
    using T = typename TestType::T;
    for (const bool reverse : {false, true}) {
        for (const index length : {1, 5, 16, 33, 65}) {
            scan_setup s{.batch = 2, .length = length, .dim = 19, .state = 4};
            s.z = s.initial_state = s.reset = s.order = s.y_ungated = true;
            s.reverse = reverse;
            s.snapshots = 3;
            const scan_problem<TestType> p(s);
            selective_scan(p.args());

            scan_problem<TestType> gathered = p.template as<TestType>();
            const auto visited = [&](index step) { return p.order(reverse ? length - 1 - step : step); };
            gathered.u.fill([&](index b, index t, index c) { return p.u(b, visited(t), c); });
            gathered.delta.fill([&](index b, index t, index c) { return p.delta(b, visited(t), c); });
            gathered.z.fill([&](index b, index t, index c) { return p.z(b, visited(t), c); });
            gathered.B.fill([&](index b, index t, index g, index n) { return p.B(b, visited(t), g, n); });
            gathered.C.fill([&](index b, index t, index g, index n) { return p.C(b, visited(t), g, n); });
            gathered.reset.fill([&](index b, index t) { return p.reset(b, visited(t)); });
            auto a = gathered.args();
            a.order = {};
            a.reverse = false;
            selective_scan(a);
            const tensor<T, 3> y(p.y.view().extents()), y_ungated(p.y.view().extents());
            for_each_index(y.view(), [&](index b, index t, index c) {
                y(b, visited(t), c) = gathered.y(b, t, c);
                y_ungated(b, visited(t), c) = gathered.y_ungated(b, t, c);
            });
            CAPTURE(s.text());
            CHECK(relative_error(p.y, y) <= scan_budget<T>);
            CHECK(relative_error(p.y_ungated, y_ungated) <= scan_budget<T>);
            CHECK(relative_error(p.final_state, gathered.final_state) <= scan_budget<compute_t<T>>);
            CHECK(relative_error(p.snapshots, gathered.snapshots) <= scan_budget<compute_t<T>>);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: packed sequences do not see each other", "", f32, f64, bf16, complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    const std::vector<index> starts = {0, 1, 15, 16, 17, 18, 31, 32, 33, 63, 64, 65, 66, 127, 129};
    for (const layout form : {layout::row_major, layout::time_contiguous}) {
        scan_setup s{.batch = 2, .length = 140, .dim = 18, .state = 4};
        s.z = s.D = true;
        s.reset = true;
        s.groups_of_B = 2;
        s.snapshots = static_cast<index>(starts.size());
        s.inputs = s.outputs = form;
        scan_problem<TestType> packed(s);
        packed.reset.fill([&](index, index t) {
            return static_cast<std::uint8_t>(std::find(starts.begin(), starts.end(), t) != starts.end());
        });
        packed.snapshot_after.fill([&](index, index i) {  // the end of every sequence
            return i + 1 < s.snapshots ? starts[static_cast<std::size_t>(i + 1)] : s.length;
        });
        selective_scan(packed.args());

        const scan_problem<TestType> alone(s);
        for (std::size_t i = 0; i < starts.size(); ++i) {
            const index first = starts[i], end = i + 1 < starts.size() ? starts[i + 1] : s.length;
            CAPTURE(first, end);
            auto a = time_slice(alone.args(), first, end - first);
            a.reset = {};
            selective_scan(a);
            const auto state = [&](index b, index c, index n) -> Param& {
                return packed.snapshots(b, static_cast<index>(i), c, n);
            };
            const tensor<Param, 3> at_end(std::array{s.batch, s.dim, s.state});
            for_each_index(at_end.view(), [&](auto... at) { at_end(at...) = state(at...); });
            CHECK(relative_error(at_end.view(), a.final_state) <= scan_budget<Param>);
            CHECK(relative_error(packed.y.view().slice(1, first, end - first), a.y) <= scan_budget<T>);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: a snapshot after i tokens is the final state of i tokens", "", f32, f64, bf16,
                   complex_f32)
{
    using Param = typename TestType::Param;
    for (const bool reset : {false, true}) {
        for (const bool reverse : {false, true}) {
            scan_setup s{.batch = 2, .length = 66, .dim = 19, .state = 4, .reset = reset, .reverse = reverse};
            s.initial_state = true;
            s.snapshots = s.length + 3;  // every count once, and a few of them twice
            scan_problem<TestType> p(s);
            p.snapshot_after.fill([&](index b, index i) { return std::min(std::max<index>(i - b, 0), s.length); });
            selective_scan(p.args());
            for (index tokens = 0; tokens <= s.length; ++tokens) {
                const scan_problem<TestType> q(s);
                auto a = time_slice(q.args(), reverse ? s.length - tokens : 0, tokens);
                selective_scan(a);
                double error = 0;
                for (index b = 0; b < s.batch; ++b) {
                    for (index i = 0; i < s.snapshots; ++i) {
                        if (p.snapshot_after(b, i) != tokens) continue;
                        error = std::max(error, relative_error(p.snapshots.view()[b][i], q.final_state.view()[b]));
                    }
                }
                CAPTURE(s.text(), tokens);
                REQUIRE(error <= scan_budget<Param>);
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: padding reaches neither outputs nor states", "", f32, f64, bf16, complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    using element = typename scan_problem<TestType>::element;
    for (const index batch : {1, 4}) {
        for (const double pad : {0.0, 1e30, std::numeric_limits<double>::infinity(), std::nan("")}) {
            // Row b has 3 + 7 b tokens of padding at the left (b even) or at the right (b odd).
            scan_setup s{.batch = batch, .length = 70, .dim = 18, .state = 3, .z = true, .reset = true, .snapshots = 1};
            scan_problem<TestType> p(s);
            const scan_problem<TestType> clean(s);
            const auto padding = [](index b) { return 3 + 7 * b; };
            const auto is_padding = [&](index b, index t) {
                return b % 2 == 0 ? t < padding(b) : t >= s.length - padding(b);
            };
            const auto spoil = [&](auto& x) {
                using E = typename std::decay_t<decltype(x.view())>::value_type;
                for_each_index(x.view(), [&](index b, index t, auto... i) {
                    if (is_padding(b, t)) x(b, t, i...) = convert<E>(pad);
                });
            };
            spoil(p.u);
            spoil(p.delta);
            spoil(p.z);
            spoil(p.B);
            spoil(p.C);
            static_assert(std::is_same_v<element, typename std::decay_t<decltype(p.B.view())>::value_type>);
            p.reset.fill([&](index b, index t) { return static_cast<std::uint8_t>(b % 2 == 0 && t == padding(b)); });
            p.snapshot_after.fill([&](index b, index) { return b % 2 == 0 ? s.length : s.length - padding(b); });
            selective_scan(p.args());
            for (index b = 0; b < batch; ++b) {
                CAPTURE(batch, pad, b);
                const index first = b % 2 == 0 ? padding(b) : 0, count = s.length - padding(b);
                auto a = time_slice(clean.args(), first, count);
                a.reset = {};
                selective_scan(a);
                CHECK(relative_error(p.y.view()[b].slice(0, first, count), a.y[b]) <= scan_budget<T>);
                CHECK(relative_error(p.snapshots.view()[b][0], a.final_state[b]) <= scan_budget<Param>);
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: a NaN reaches exactly the outputs that depend on it", "", f32, f64, bf16, complex_f32)
{
    // An output depends on an input if it changes with it, which the double reference can tell: decay is slow here.
    using Storage = storage<double, wide_t<typename TestType::Param>>;
    for (const bool complete : {false, true}) {
        scan_setup s{.batch = 2, .length = 19, .dim = 2 * lanes<typename TestType::T> + 4, .state = 3};
        s.groups_of_B = 2;
        s.groups_of_C = 4;
        s.D = s.z = s.delta_bias = s.initial_state = s.y_ungated = true;
        s.delta_softplus = s.reset = s.reverse = s.constant_C = complete;
        s.snapshots = 3;
        const auto slow = [&] {
            scan_problem<TestType> p(s);
            random numbers(77);
            p.A.fill(numbers, {-0.2, -0.01, -1, 1});
            return p;
        };
        const auto base = slow().wide();
        reference::selective_scan(base.args());
        const auto probe = [&](const char* name, auto member, auto... at) {
            const scan_problem<TestType> p = slow();
            const scan_problem<Storage> changed = p.wide();
            auto& x = member(changed)(at...);
            x += 0.37;
            reference::selective_scan(changed.args());
            auto& y = member(p)(at...);
            y = quiet_nan<std::decay_t<decltype(y)>>();
            selective_scan(p.args());
            const auto matches = [](const auto& out, const auto& before, const auto& after) {
                bool same = true;
                for_each_index(out.view(), [&](auto... i) {
                    same &= is_nan(out(i...)) == (before(i...) != after(i...));
                });
                return same;
            };
            CAPTURE(name, complete);
            CHECK(matches(p.y, base.y, changed.y));
            CHECK(matches(p.y_ungated, base.y_ungated, changed.y_ungated));
            CHECK(matches(p.final_state, base.final_state, changed.final_state));
            CHECK(matches(p.snapshots, base.snapshots, changed.snapshots));
        };
        for (const index t : {0, 7, 18}) {
            for (const index c : {index{0}, s.dim / 2, s.dim - 1}) {
                probe("u", [](auto& p) -> auto& { return p.u; }, 1, t, c);
                probe("delta", [](auto& p) -> auto& { return p.delta; }, 1, t, c);
                probe("z", [](auto& p) -> auto& { return p.z; }, 0, t, c);
            }
            probe("B", [](auto& p) -> auto& { return p.B; }, 1, t, 1, 2);
            if (!complete) probe("C", [](auto& p) -> auto& { return p.C; }, 0, t, 2, 1);
        }
        if (complete) probe("constant C", [](auto& p) -> auto& { return p.constant_C; }, 2, 1);
        // At a reset A meets a state of zero, and zero times NaN is NaN, though nothing depends on it.
        if (!complete) probe("A", [](auto& p) -> auto& { return p.A; }, 3, 2);
        probe("D", [](auto& p) -> auto& { return p.D; }, 3);
        probe("delta_bias", [](auto& p) -> auto& { return p.delta_bias; }, s.dim - 1);
        probe("initial_state", [](auto& p) -> auto& { return p.initial_state; }, 1, 2, 1);
    }
}

TEMPLATE_TEST_CASE("selective_scan: softplus keeps its relative accuracy from -1e7 to 1e7", "", f32, f64)
{
    using T = typename TestType::T;
    std::vector<double> x = {0, 20, std::nextafter(20.f, 21.f), std::nextafter(20.f, 19.f), -15, -16.7, -17, -87, -88, -100};
    for (double magnitude = 1e-8; magnitude <= 1e7; magnitude *= 1.3) {
        x.push_back(magnitude);
        x.push_back(-magnitude);
    }
    // With A = 0 and B = C = u = 1 the output of one token is its step size.
    scan_setup s{.batch = 1, .length = 1, .dim = static_cast<index>(x.size()), .state = 1, .delta_softplus = true};
    scan_problem<TestType> p(s);
    const auto one = [](auto...) { return T(1); };
    p.u.fill(one);
    p.B.fill(one);
    p.C.fill(one);
    p.A.fill([](auto...) { return T(0); });
    p.delta.fill([&](index, index, index c) { return static_cast<T>(x[static_cast<std::size_t>(c)]); });
    selective_scan(p.args());
    for (index c = 0; c < s.dim; ++c) {
        const double raw = static_cast<double>(p.delta(0, 0, c)), y = static_cast<double>(p.y(0, 0, c));
        const double expected = raw > 20 ? raw : std::log1p(std::exp(raw));
        CAPTURE(raw, y, expected);
        // Results that are not normal numbers are flushed to zero.
        if (expected < 4 * static_cast<double>(std::numeric_limits<T>::min())) {
            CHECK(std::abs(y) <= 4 * static_cast<double>(std::numeric_limits<T>::min()));
        } else {
            CHECK(std::abs(y - expected) <= 5 * static_cast<double>(std::numeric_limits<T>::epsilon()) * expected);
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: decay rates over twelve decades", "", f32, f64, bf16, complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    const double rates[] = {-0.0, -1e-6, -1e-4, -1e-2, -1, -1e2, -1e4, -1e6};
    scan_setup s{.batch = 1, .length = 300, .dim = 8, .state = 3, .initial_state = true, .snapshots = 9};
    scan_problem<TestType> p(s);
    p.A.fill([&](index c, index) { return convert<Param>(rates[c]); });
    p.delta.fill([](auto...) { return convert<T>(1.0); });
    selective_scan(p.args());
    const auto expected = p.wide();
    reference::selective_scan(expected.args());
    for (index c = 0; c < s.dim; ++c) {
        CAPTURE(rates[c]);
        // 300 decays next to one have 300 roundings to go wrong by.
        const double slow = 300 * 2.5 * static_cast<double>(std::numeric_limits<compute_t<T>>::epsilon());
        CHECK(relative_error(p.y.view().slice(2, c, 1), expected.y.view().slice(2, c, 1)) <= slow + rounding<T>);
        CHECK(relative_error(p.snapshots.view().slice(2, c, 1), expected.snapshots.view().slice(2, c, 1)) <= slow);
    }
}

TEMPLATE_TEST_CASE("selective_scan: a step of size zero keeps the state as it is", "", f32, f64, bf16, complex_f32)
{
    using T = typename TestType::T;
    using Param = typename TestType::Param;
    scan_setup s{.batch = 2, .length = 67, .dim = 19, .state = 5, .initial_state = true};
    scan_problem<TestType> p(s);
    p.delta.fill([](auto...) { return T{}; });
    selective_scan(p.args());
    CHECK(same_bits(p.final_state, p.initial_state));

    const scan_problem<TestType> q(s);  // a rate of zero with no input keeps it too
    tensor<Param, 2> no_rate(q.A.view().extents());
    tensor<T, 3> no_input(q.u.view().extents());
    no_rate.fill([](auto...) { return Param(0); });
    no_input.fill([](auto...) { return T{}; });
    auto a = q.args();
    a.A = no_rate;
    a.u = no_input;
    selective_scan(a);
    CHECK(same_bits(q.final_state, q.initial_state));
}

TEMPLATE_TEST_CASE("selective_scan: negative steps and positive rates grow, unclamped", "", f32, f64, bf16, complex_f32)
{
    using T = typename TestType::T;
    scan_setup s{.batch = 2, .length = 20, .dim = 19, .state = 3, .initial_state = true};
    scan_problem<TestType> backwards(s), growing(s);
    random numbers(3);
    backwards.delta.fill(numbers, {-1, -0.1});
    CHECK(against_reference(backwards) <= 1);
    growing.A.fill(numbers, {0.1, 2, -1, 1});
    CHECK(against_reference(growing) <= 1);
    CHECK(std::abs(growing.final_state(0, 0, 0)) > 10);
    CHECK(convert<double>(growing.delta(0, 0, 0)) > 0);
    static_assert(storage_element<T>);
}

TEMPLATE_TEST_CASE("selective_scan: huge numbers stay numbers", "", f32, bf16, complex_f32)
{
    using T = typename TestType::T;
    using element = typename scan_problem<TestType>::element;
    scan_setup s{.batch = 1, .length = 40, .dim = 19, .state = 3, .z = true, .y_ungated = true};
    scan_problem<TestType> large(s);
    large.u.fill([&](index b, index t, index c) { return convert<T>(1e30 * std::sin(static_cast<double>(b + t + c))); });
    large.B.fill([&](index, index t, index, index n) { return convert<element>(1e6 * std::cos(static_cast<double>(t + n))); });
    CHECK(against_reference(large) <= 1);

    scan_problem<TestType> overflowing(s);  // delta * A is beyond every number: the state is replaced, the gate is shut
    overflowing.delta.fill([](index, index t, index) { return convert<T>(t % 2 ? 1e25 : 0.5); });
    overflowing.A.fill([](auto...) { return convert<typename TestType::Param>(-1e20); });
    overflowing.z.fill([](index, index t, index) { return convert<T>(t % 3 ? -1e7 : 1e7); });
    CHECK(against_reference(overflowing) <= 1);
    for_each_index(overflowing.y.view(), [&](auto... i) { REQUIRE(!is_nan(overflowing.y(i...))); });
}

TEMPLATE_TEST_CASE("selective_scan: a slowly decaying state does not drift", "", f32, bf16, f16)
{
    // The steady input and slow decay of a state that remembers: 16 bits of state would be off by 0.7 % to 89 %.
    using T = typename TestType::T;
    for (const double decay : {1e-2, 1e-3, 1e-4}) {
        scan_setup s{.batch = 1, .length = 8192, .dim = 3, .state = 2};
        scan_problem<TestType> p(s);
        p.delta.fill([](auto...) { return convert<T>(1.0); });
        p.A.fill([&](auto...) { return static_cast<float>(-decay); });
        p.u.fill([](auto...) { return convert<T>(1.0); });
        p.B.fill([](auto...) { return convert<T>(1.0); });
        selective_scan(p.args());
        const auto expected = p.wide();
        reference::selective_scan(expected.args());
        CAPTURE(decay);
        // Every decay may be off by 2.5 ulp, and the state remembers 1 / decay of them, or all 8192.
        CHECK(relative_error(p.final_state, expected.final_state) <= 2.5 * 0x1p-23 * std::min(1 / decay, 8192.0));
    }
}

TEMPLATE_TEST_CASE("selective_scan: neither threads nor the workspace change a bit", "", f32, f64, bf16, complex_f32)
{
    struct shape {
        index batch, length, dim, state;
    };
    constexpr index n = lanes<typename TestType::T>;
    for (const shape& of : {shape{1, 300, 4 * n + 3, 4}, shape{3, 70, n + 1, 17}, shape{5, 33, 1, 2}}) {
        scan_setup s{.batch = of.batch, .length = of.length, .dim = of.dim, .state = of.state};
        s.z = s.delta_softplus = s.reset = true;
        s.D = s.initial_state = of.batch != 1;  // both ways: what is not given is zero, not what the workspace held
        s.snapshots = 3;
        const scan_problem<TestType> p(s);
        CAPTURE(s.text());
        selective_scan(p.args());
        const auto expected = p.output_bytes();

        for (const std::size_t count : {1, 2, 3}) {
            threads pool(count);
            scan_problem<TestType> q(s);
            selective_scan(q.args(), pool);
            CHECK(q.output_bytes() == expected);
        }

        // A resource of the user's own, and memory of odd alignment with anything in it.
        const std::size_t need = selective_scan_workspace_size(p.args(), 4);
        for (const int poison : {0x00, 0xff, 0x7f, 0x5a}) {
            std::vector<std::byte> memory(need + 3, static_cast<std::byte>(poison));
            scan_problem<TestType> q(s);
            selective_scan(q.args(), workspace(memory).subspan(3), last_task_first{});
            CHECK(q.output_bytes() == expected);
        }
    }
}

TEST_CASE("selective_scan: allocates nothing when it is lent a workspace")
{
    REQUIRE(allocations_during([] { const std::vector<int> block(100); }) > 0);
    scan_setup s{.batch = 2, .length = 100, .dim = 35, .state = 7};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = s.order = true;
    s.snapshots = 3;
    const scan_problem<f32> p(s);
    const scan_problem<complex_bf16> q(s);
    threads pool(2);
    std::vector<std::byte> memory(
        std::max(selective_scan_workspace_size(p.args(), 2), selective_scan_workspace_size(q.args(), 2)));
    CHECK(allocations_during([&] {
              selective_scan(p.args(), memory);
              selective_scan(p.args(), memory, pool);
              selective_scan(q.args(), memory);
              selective_scan(q.args(), memory, pool);
          }) == 0);
}

TEMPLATE_TEST_CASE("selective_scan: touches nothing outside its arguments and its workspace", "", f32, bf16, complex_f32)
{
    constexpr index n = lanes<typename TestType::T>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index dim : {index{1}, n - 1, n, n + 1}) {
                for (const index state : {1, 3, 17}) {
                    for (const index length : {1, 15, 63, 64, 65, 127, 129, 256, 257}) {
                        scan_setup s{.batch = 1, .length = length, .dim = dim, .state = state};
                        s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = s.reset = s.y_ungated = true;
                        s.snapshots = 2;
                        s.inputs = s.outputs = form;
                        s.edge = edge;
                        const scan_problem<TestType> p(s);
                        const std::size_t need = selective_scan_workspace_size(p.args());
                        const raw_memory lent(need, edge);
                        CAPTURE(s.text());
                        selective_scan(p.args(), workspace(lent.data(), need));
                        s.edge = guard::none;
                        const scan_problem<TestType> q(s);
                        selective_scan(q.args());
                        REQUIRE(p.output_bytes() == q.output_bytes());
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_scan: offsets beyond 2^31 and 2^32 elements", "", f32, bf16)
{
    using T = typename TestType::T;
    enum { batch, length, dim, state };
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (const int far : {batch, length, dim, state}) {
            scan_setup s{.batch = 2, .length = 3, .dim = 4, .state = 2};
            s.groups_of_B = 2;
            s.groups_of_C = 2;
            s.z = s.initial_state = s.reset = s.y_ungated = true;
            s.snapshots = 2;
            const scan_problem<TestType> p(s);
            sparse_memory memory;
            auto a = p.args();
            try {
                const auto spread = [&](auto& v, std::initializer_list<int> axes) {
                    const auto axis = std::find(axes.begin(), axes.end(), far);
                    if (axis != axes.end()) v = memory.spread(v, static_cast<std::size_t>(axis - axes.begin()), stride);
                };
                for (auto* v : {&a.u, &a.delta, &a.z}) spread(*v, {batch, length, dim});
                for (auto* v : {&a.y, &a.y_ungated}) spread(*v, {batch, length, dim});
                for (auto* v : {&a.B, &a.C}) spread(*v, {batch, length, dim, state});
                spread(a.A, {dim, state});
                spread(a.initial_state, {batch, dim, state});
                spread(a.final_state, {batch, dim, state});
                spread(a.reset, {batch, length});
                spread(a.snapshots, {batch, -1, dim, state});
            } catch (const sparse_memory::refused&) {
                WARN("the system lends no address space for this test");
                return;
            }
            CAPTURE(stride, far);
            selective_scan(a);
            const auto expected = p.wide();
            reference::selective_scan(expected.args());
            CHECK(relative_error(a.y, expected.y.view()) <= scan_budget<T>);
            CHECK(relative_error(a.y_ungated, expected.y_ungated.view()) <= scan_budget<T>);
            CHECK(relative_error(a.final_state, expected.final_state.view()) <= scan_budget<float>);
            CHECK(relative_error(a.snapshots, expected.snapshots.view()) <= scan_budget<float>);
        }
    }
}

TEST_CASE("selective_scan: leaves the caller's floating-point mode as it was")
{
    const scan_problem<f32> p({.batch = 2, .length = 30, .dim = 20, .state = 3});
    const auto subnormals_live = [] {
        volatile float smallest = std::numeric_limits<float>::min();
        smallest = smallest / 2;
        return smallest > 0;
    };
    REQUIRE(subnormals_live());
    selective_scan(p.args());
    CHECK(subnormals_live());
    CHECK(std::fegetround() == FE_TONEAREST);
}

TEST_CASE("selective_scan: names the argument that does not fit")
{
    scan_setup s{.batch = 2, .length = 37, .dim = 6, .state = 5};
    s.D = s.z = s.delta_bias = s.initial_state = s.reset = s.order = s.y_ungated = true;
    s.snapshots = 2;
    const scan_problem<f32> p(s);
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return message_of([&] { selective_scan(a); });
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };

    CHECK(complaint([](auto& a) { a.delta = a.delta.slice(1, 0, 36); }) ==
          "selective_scan: delta has shape (2, 36, 6), expected (batch = 2, length = 37, dim = 6)");
    CHECK(begins(complaint([](auto& a) { a.A = a.A.slice(0, 0, 5); }), "selective_scan: A has shape (5, 5)"));
    CHECK(begins(complaint([](auto& a) { a.B = a.B.slice(3, 0, 4); }), "selective_scan: B has shape (2, 37, 1, 4)"));
    CHECK(begins(complaint([](auto& a) { a.C = a.C.slice(1, 0, 4); }), "selective_scan: C has shape (2, 4, 1, 5)"));
    CHECK(begins(complaint([](auto& a) { a.B = {a.B.data(), {2, 37, 4, 5}, {0, 0, 0, 0}}; }), "selective_scan: B has 4 groups"));
    CHECK(begins(complaint([](auto& a) { a.C = {a.C.data(), {2, 37, 0, 5}, {0, 0, 0, 0}}; }), "selective_scan: C has 0 groups"));
    CHECK(begins(complaint([](auto& a) { a.D = a.D.slice(0, 0, 5); }), "selective_scan: D has shape (5)"));
    CHECK(begins(complaint([](auto& a) { a.z = a.z.slice(0, 0, 1); }), "selective_scan: z has shape (1, 37, 6)"));
    CHECK(begins(complaint([](auto& a) { a.delta_bias = a.delta_bias.slice(0, 0, 1); }), "selective_scan: delta_bias has"));
    CHECK(begins(complaint([](auto& a) { a.initial_state = a.initial_state.slice(2, 0, 1); }),
                 "selective_scan: initial_state has shape (2, 6, 1)"));
    CHECK(begins(complaint([](auto& a) { a.reset = a.reset.slice(1, 0, 1); }), "selective_scan: reset has shape (2, 1)"));
    CHECK(begins(complaint([](auto& a) { a.order = a.order.slice(0, 0, 1); }), "selective_scan: order has shape (1)"));
    CHECK(begins(complaint([](auto& a) { a.y = a.y.slice(2, 0, 1); }), "selective_scan: y has shape (2, 37, 1)"));
    CHECK(begins(complaint([](auto& a) { a.y_ungated = a.y_ungated.slice(2, 0, 1); }), "selective_scan: y_ungated has"));
    CHECK(begins(complaint([](auto& a) { a.final_state = a.final_state.slice(0, 0, 1); }), "selective_scan: final_state has"));
    CHECK(begins(complaint([](auto& a) { a.snapshots = a.snapshots.slice(1, 0, 1); }),
                 "selective_scan: snapshots has shape (2, 1, 6, 5), expected (batch = 2, count = 2"));
    CHECK(begins(complaint([](auto& a) { a.snapshot_after = {}; }), "selective_scan: snapshots has shape"));

    const std::vector<index> beyond(37, 37), falling = {3, 2, 0, 0}, late = {0, 38, 0, 0};
    CHECK(complaint([&](auto& a) { a.order = {beyond.data(), 37}; }) ==
          "selective_scan: order holds a position outside the sequence");
    CHECK(begins(complaint([&](auto& a) { a.snapshot_after = {falling.data(), 2, 2}; }), "selective_scan: snapshot_after is not"));
    CHECK(begins(complaint([&](auto& a) { a.snapshot_after = {late.data(), 2, 2}; }), "selective_scan: snapshot_after is not"));

    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.u.data()), 2, 37, 6}; }) ==
          "selective_scan: y overlaps u in memory");
    CHECK(complaint([](auto& a) { a.y_ungated = a.y; }) == "selective_scan: y_ungated overlaps y in memory");
    CHECK(complaint([](auto& a) { a.final_state = {const_cast<float*>(a.A.data()) + 1, {2, 6, 5}}; }).find("overlaps") !=
          std::string::npos);
    CHECK(complaint([](auto& a) { a.y = {a.y.data(), {2, 37, 6}, {222, 6, 0}}; }) ==
          "selective_scan: y is written but has stride 0 along an axis");

    std::vector<std::byte> memory(selective_scan_workspace_size(p.args()) - 1);
    CHECK(message_of([&] { selective_scan(p.args(), memory); }) ==
          "selective_scan: workspace has " + std::to_string(memory.size()) + " bytes, expected " +
              std::to_string(memory.size() + 1));
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });  // thrown before anything was written
}

}  // namespace
}  // namespace ssmkit::testing
