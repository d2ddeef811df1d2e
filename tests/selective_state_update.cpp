#include <ssmkit/selective_state_update.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "selective_state_update_problem.hpp"
#include "sparse_memory.hpp"

namespace ssmkit::testing {
namespace {

template <class T>
double against_reference(const step_problem<T>& p)
{
    return step_error(p, [](const auto& a) { selective_state_update(a); });
}

template <class T>
constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

TEMPLATE_TEST_CASE("selective_state_update: agrees with the reference, whatever is switched on", "", float, double, bfloat16,
                   float16)
{
    for (unsigned bits = 0; bits < 1u << step_setup::options; ++bits) {
        for (const index nheads : {1, 4}) {
            for (const index ngroups : {1, 2, 4}) {
                for (const layout form : all_layouts) {
                    step_setup s = step_setup{.batch = 4, .nheads = nheads, .headdim = 20, .state = 7}.with_options(bits);
                    s.ngroups = ngroups;
                    s.inputs = form;
                    s.outputs = all_layouts[bits % 6];
                    s.seed = bits;
                    CAPTURE(s.text());
                    const step_problem<TestType> p(s);
                    const auto inputs = p.input_bytes();
                    REQUIRE(against_reference(p) <= 1);
                    REQUIRE(p.y.gaps_untouched());
                    REQUIRE(p.h.gaps_untouched());
                    REQUIRE(p.input_bytes() == inputs);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_state_update: every width and state size", "", float, double, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const index headdim : {index{0}, index{1}, n - 1, n, n + 1, 2 * n + 3, index{33}, index{256}, index{257}}) {
        for (const index state : {index{0}, index{1}, index{2}, index{3}, n - 1, n, n + 1, index{13}, index{16}, index{17},
                                  2 * n + 3, index{64}}) {
            for (const bool tied : {false, true}) {
                step_setup s{.batch = 2, .nheads = 2, .headdim = headdim, .state = state};
                s.D = s.z = s.delta_softplus = true;
                s.tied = tied;
                CAPTURE(s.text());
                REQUIRE(against_reference(step_problem<TestType>(s)) <= 1);
            }
        }
    }
    for (const index batch : {0, 1}) {
        for (const index nheads : {0, 1, 3}) {
            const step_setup s{.batch = batch, .nheads = nheads, .headdim = 5, .state = 3};
            CAPTURE(s.text());
            REQUIRE(against_reference(step_problem<TestType>(s)) <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("selective_state_update: neighbouring heads, or channels of a single head, share a group", "", float,
                   double, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const index nheads : {1, 6, 12}) {
        for (const index ngroups : {1, 2, 3, 6}) {
            for (const index width : {index{6}, 6 * (n - 1), 6 * n, 6 * n + 6}) {
                step_setup s{.batch = 2, .nheads = nheads, .headdim = nheads == 1 ? width : 3, .state = 4, .ngroups = ngroups};
                CAPTURE(s.text());
                REQUIRE(against_reference(step_problem<TestType>(s)) <= 1);
            }
        }
    }

    // Said once without the reference: with C = delta = u = 1 and an empty state, the output is B of the group.
    for (const index nheads : {1, 12}) {
        const step_setup s{.batch = 1, .nheads = nheads, .headdim = 12 / nheads, .state = 1, .ngroups = 3};
        step_problem<TestType> p(s);
        const auto one = [](auto...) { return convert<TestType>(1.0); };
        p.u.fill(one);
        p.delta.fill(one);
        p.C.fill(one);
        p.h.fill([](auto...) { return compute_t<TestType>(0); });
        p.B.fill([](index, index g, index) { return convert<TestType>(static_cast<double>(g + 1)); });
        selective_state_update(p.args());
        for (index c = 0; c < 12; ++c) {
            CHECK(convert<double>(nheads == 1 ? p.y(0, 0, c) : p.y(0, c, 0)) == static_cast<double>(c / 4 + 1));
        }
    }
}

TEMPLATE_TEST_CASE("selective_state_update: token by token is the selective scan", "", float, double, bfloat16, float16)
{
    using real = compute_t<TestType>;
    for (const bool complete : {false, true}) {
        scan_setup s{.batch = 3, .length = 70, .dim = 2 * lanes<TestType> + 6, .state = 16, .initial_state = true};
        s.dim -= s.dim % 3;
        s.groups_of_B = s.groups_of_C = 3;
        s.D = s.z = s.delta_bias = s.delta_softplus = complete;
        const scan_problem<storage<TestType>> steps(s);
        const auto wide = steps.wide();
        reference::selective_scan(wide.args());
        const tensor<real, 3> state = steps.initial_state.template as<real>();
        const auto a = steps.args();
        const auto at = [&](const auto& v, index t) {  // (batch, length, dim) to (batch, 1, dim)
            return v.slice(1, t, 1);
        };
        const auto group_at = [&](const auto& v, index t) {  // (batch, length, ngroups, state) to (batch, ngroups, state)
            using V = std::decay_t<decltype(v[0])>;
            return V{v.pointer(0, t), {v.extent(0), v.extent(2), v.extent(3)}, {v.stride(0), v.stride(2), v.stride(3)}};
        };
        for (index t = 0; t < s.length; ++t) {
            selective_state_update(selective_state_update_args<TestType>{
                .h = {state.view().data(), s.batch, 1, s.dim, s.state},
                .u = at(a.u, t),
                .delta = at(a.delta, t),
                .A = {a.A.data(), 1, s.dim, s.state},
                .B = group_at(a.B, t),
                .C = group_at(a.C, t),
                .D = a.D.data() ? view<const real, 2>{a.D.data(), 1, s.dim} : view<const real, 2>{},
                .z = a.z.data() ? at(a.z, t) : a.z,
                .delta_bias = a.D.data() ? view<const real, 2>{a.delta_bias.data(), 1, s.dim} : view<const real, 2>{},
                .delta_softplus = s.delta_softplus,
                .y = at(a.y, t)});
        }
        CAPTURE(complete);
        CHECK(relative_error(steps.y, wide.y) <= scan_budget<TestType>);
        CHECK(relative_error(state, wide.final_state) <= scan_budget<real>);
    }
}

TEMPLATE_TEST_CASE("selective_state_update: a tied head is the same values for every channel", "", float, bfloat16)
{
    step_setup s{.batch = 2, .nheads = 3, .headdim = 37, .state = 19};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.tied = true;
    const step_problem<TestType> tied(s), spelt_out(s);
    selective_state_update(tied.args());

    auto a = spelt_out.args();
    const auto copy = [](const auto& v) {
        using V = std::decay_t<decltype(v)>;
        tensor<typename V::value_type, V::rank> t(v.extents());
        t.fill([&](auto... i) { return v(i...); });
        return t;
    };
    const auto delta = copy(a.delta);
    const auto A = copy(a.A);
    const auto D = copy(a.D), delta_bias = copy(a.delta_bias);
    a.delta = delta;
    a.A = A;
    a.D = D;
    a.delta_bias = delta_bias;
    selective_state_update(a);
    CHECK(relative_error(tied.y, spelt_out.y) <= scan_budget<TestType>);
    CHECK(relative_error(tied.h, spelt_out.h) <= scan_budget<float>);
}

TEMPLATE_TEST_CASE("selective_state_update: padded rows give zeros and touch no state", "", float, bfloat16)
{
    using real = compute_t<TestType>;
    step_setup s{.batch = 7, .nheads = 2, .headdim = 19, .state = 5, .indices = true};
    s.D = s.z = true;
    step_problem<TestType> p(s);
    for (index b : {1, 4}) {  // whatever is in such a row
        for_each_index(p.u.view()[b], [&](auto... i) { p.u(b, i...) = quiet_nan<TestType>(); });
        for_each_index(p.z.view()[b], [&](auto... i) { p.z(b, i...) = quiet_nan<TestType>(); });
    }
    const tensor<real, 4> before = p.h.template as<real>();
    selective_state_update(p.args());
    std::vector<bool> used(static_cast<std::size_t>(s.entries()), false);
    for (index b = 0; b < s.batch; ++b) {
        const index entry = p.state_batch_indices(b);
        REQUIRE((entry < 0) == (b % 3 == 1));
        if (entry >= 0) used[static_cast<std::size_t>(entry)] = true;
        for_each_index(p.y.view()[b], [&](auto... i) {
            REQUIRE((convert<double>(p.y(b, i...)) == 0) == (entry < 0));
        });
    }
    for (index e = 0; e < s.entries(); ++e) {
        CAPTURE(e);
        CHECK(same_bits(p.h.view()[e], before.view()[e]) == !used[static_cast<std::size_t>(e)]);
    }
}

TEMPLATE_TEST_CASE("selective_state_update: a NaN reaches exactly the outputs that depend on it", "", float, double, bfloat16)
{
    // An output depends on an input if it changes with it, which the double reference can tell.
    for (const bool tied : {false, true}) {
        step_setup s{.batch = 2, .nheads = 4, .headdim = lanes<TestType> + 3, .state = lanes<TestType> + 3, .ngroups = 2};
        s.D = s.z = s.delta_bias = s.delta_softplus = true;
        s.tied = tied;
        const step_problem<double> base = step_problem<TestType>(s).template as<double>();
        reference::selective_state_update(base.args());
        const auto probe = [&](const char* name, auto member, auto... at) {
            const step_problem<TestType> p(s);
            const step_problem<double> changed = p.template as<double>();
            member(changed)(at...) += 0.37;
            reference::selective_state_update(changed.args());
            auto& x = member(p)(at...);
            x = quiet_nan<std::decay_t<decltype(x)>>();
            selective_state_update(p.args());
            const auto matches = [](const auto& out, const auto& before, const auto& after) {
                bool same = true;
                for_each_index(out.view(), [&](auto... i) {
                    same &= is_nan(out(i...)) == (before(i...) != after(i...));
                });
                return same;
            };
            CAPTURE(name, tied);
            CHECK(matches(p.y, base.y, changed.y));
            CHECK(matches(p.h, base.h, changed.h));
        };
        const index last = s.headdim - 1;
        probe("h", [](auto& p) -> auto& { return p.h; }, 1, 2, last, s.state - 1);
        probe("u", [](auto& p) -> auto& { return p.u; }, 1, 3, last);
        probe("z", [](auto& p) -> auto& { return p.z; }, 0, 1, 2);
        probe("B", [](auto& p) -> auto& { return p.B; }, 1, 1, s.state - 1);
        probe("C", [](auto& p) -> auto& { return p.C; }, 0, 1, 0);
        if (tied) {
            probe("delta", [](auto& p) -> auto& { return p.tied_delta; }, 1, 3);
            probe("A", [](auto& p) -> auto& { return p.tied_A; }, 2);
            probe("D", [](auto& p) -> auto& { return p.tied_D; }, 2);
            probe("delta_bias", [](auto& p) -> auto& { return p.tied_delta_bias; }, 1);
        } else {
            probe("delta", [](auto& p) -> auto& { return p.delta; }, 1, 3, last);
            probe("A", [](auto& p) -> auto& { return p.A; }, 2, last, s.state - 1);
            probe("D", [](auto& p) -> auto& { return p.D; }, 2, 1);
            probe("delta_bias", [](auto& p) -> auto& { return p.delta_bias; }, 1, last);
        }
    }
}

TEMPLATE_TEST_CASE("selective_state_update: extreme steps and rates give numbers", "", float, double)
{
    const double raw[] = {-1e7, -100, -88, -17, -15, -1, 0, 1, 20, 20.5, 100, 1e7};
    const double rates[] = {0, -1e-6, -1e-2, -1, -1e2, -1e6};
    step_setup s{.batch = 1, .nheads = 1, .headdim = 12, .state = 6, .delta_softplus = true};
    step_problem<TestType> p(s);
    p.delta.fill([&](index, index, index c) { return static_cast<TestType>(raw[c]); });
    p.A.fill([&](index, index, index n) { return static_cast<TestType>(rates[n]); });
    const step_problem<double> expected = p.template as<double>();
    selective_state_update(p.args());
    reference::selective_state_update(expected.args());
    for (index c = 0; c < s.headdim; ++c) {
        CAPTURE(raw[c]);
        // exp of an argument x has at least |x| half roundings of error: at most 87 for float, 708 for double.
        const double budget = 1000 * static_cast<double>(std::numeric_limits<TestType>::epsilon());
        CHECK(relative_error(p.y.view().slice(2, c, 1), expected.y.view().slice(2, c, 1)) <= budget);
        CHECK(relative_error(p.h.view().slice(2, c, 1), expected.h.view().slice(2, c, 1)) <= budget);
    }
    step_problem<TestType> still(s);  // a step of size zero
    still.setup.delta_softplus = false;
    still.delta.fill([](auto...) { return TestType(0); });
    const tensor<TestType, 4> before = still.h.template as<TestType>();
    selective_state_update(still.args());
    CHECK(same_bits(still.h, before));
}

TEMPLATE_TEST_CASE("selective_state_update: the state does not drift where inputs have 16 bits", "", float, bfloat16, float16)
{
    for (const double decay : {1e-2, 1e-3, 1e-4}) {
        step_problem<TestType> p({.batch = 1, .nheads = 1, .headdim = 2, .state = 3});
        const auto one = [](auto...) { return convert<TestType>(1.0); };
        p.u.fill(one);
        p.delta.fill(one);
        p.B.fill(one);
        p.A.fill([&](auto...) { return static_cast<float>(-decay); });
        p.h.fill([](auto...) { return 0.0f; });
        for (int t = 0; t < 8192; ++t) selective_state_update(p.args());
        const double a = std::exp(static_cast<double>(static_cast<float>(-decay)));
        const double expected = (1 - std::pow(a, 8192)) / (1 - a);  // the geometric series
        CAPTURE(decay);
        CHECK(std::abs(static_cast<double>(p.h(0, 0, 0, 0)) / expected - 1) <= 2.5 * 0x1p-23 * std::min(1 / decay, 8192.0));
    }
}

TEMPLATE_TEST_CASE("selective_state_update: threads change no bit", "", float, bfloat16)
{
    for (const index nheads : {1, 5}) {
        step_setup s{.batch = 3, .nheads = nheads, .headdim = 600, .state = 5, .indices = true};
        s.D = s.z = true;
        const step_problem<TestType> alone(s);
        selective_state_update(alone.args());
        for (const std::size_t count : {1, 2, 3}) {
            threads pool(count);
            const step_problem<TestType> p(s);
            selective_state_update(p.args(), pool);
            CHECK(same_bits(p.y, alone.y));
            CHECK(same_bits(p.h, alone.h));
        }
        const step_problem<TestType> p(s);
        selective_state_update(p.args(), last_task_first{});
        CHECK(same_bits(p.y, alone.y));
        CHECK(same_bits(p.h, alone.h));
    }
}

TEST_CASE("selective_state_update: allocates nothing")
{
    REQUIRE(allocations_during([] { const std::vector<int> block(100); }) > 0);
    step_setup s{.batch = 3, .nheads = 2, .headdim = 600, .state = 17, .indices = true};
    s.D = s.z = s.delta_bias = s.delta_softplus = true;
    const step_problem<float> p(s);
    const step_problem<bfloat16> q(s);
    threads pool(2);
    CHECK(allocations_during([&] {
              selective_state_update(p.args());
              selective_state_update(p.args(), pool);
              selective_state_update(q.args());
          }) == 0);
}

TEMPLATE_TEST_CASE("selective_state_update: touches nothing outside its arguments", "", float, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::column_major}) {
            for (const index headdim : {index{1}, n - 1, n, n + 1, 2 * n}) {
                for (const index state : {index{1}, index{3}, n - 1, n, n + 1, index{17}}) {
                    for (const bool tied : {false, true}) {
                        step_setup s{.batch = 2, .nheads = 2, .headdim = headdim, .state = state};
                        s.D = s.z = s.delta_bias = s.delta_softplus = true;
                        s.tied = tied;
                        s.inputs = s.outputs = form;
                        const step_problem<TestType> free(s);
                        s.edge = edge;
                        const step_problem<TestType> p(s);
                        CAPTURE(s.text());
                        selective_state_update(p.args());
                        selective_state_update(free.args());
                        REQUIRE(same_bits(p.y, free.y));
                        REQUIRE(same_bits(p.h, free.h));
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("selective_state_update: offsets beyond 2^31 and 2^32 elements", "", float, bfloat16)
{
    enum { batch, head, channel, state, group };
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (const int far : {batch, head, channel, state, group}) {
            step_setup s{.batch = 3, .nheads = 2, .headdim = 3, .state = 2, .ngroups = 2};
            s.D = s.z = s.delta_bias = true;
            const step_problem<TestType> p(s);
            const step_problem<double> expected = p.template as<double>();
            sparse_memory memory;
            auto a = p.args();
            try {
                const auto spread = [&](auto& v, std::initializer_list<int> axes) {
                    const auto axis = std::find(axes.begin(), axes.end(), far);
                    if (axis != axes.end()) v = memory.spread(v, static_cast<std::size_t>(axis - axes.begin()), stride);
                };
                spread(a.h, {batch, head, channel, state});
                for (auto* v : {&a.u, &a.delta, &a.z}) spread(*v, {batch, head, channel});
                for (auto* v : {&a.B, &a.C}) spread(*v, {batch, group, state});
                spread(a.A, {head, channel, state});
                for (auto* v : {&a.D, &a.delta_bias}) spread(*v, {head, channel});
                spread(a.y, {batch, head, channel});
            } catch (const sparse_memory::refused&) {
                WARN("the system lends no address space for this test");
                return;
            }
            CAPTURE(stride, far);
            selective_state_update(a);
            reference::selective_state_update(expected.args());
            CHECK(relative_error(a.y, expected.y.view()) <= scan_budget<TestType>);
            CHECK(relative_error(a.h, expected.h.view()) <= scan_budget<float>);
        }
    }
}

TEST_CASE("selective_state_update: leaves the caller's floating-point mode as it was")
{
    const step_problem<float> p({.batch = 2, .nheads = 2, .headdim = 20, .state = 3});
    const auto subnormals_live = [] {
        volatile float smallest = std::numeric_limits<float>::min();
        smallest = smallest / 2;
        return smallest > 0;
    };
    REQUIRE(subnormals_live());
    selective_state_update(p.args());
    CHECK(subnormals_live());
}

TEST_CASE("selective_state_update: names the argument that does not fit")
{
    step_setup s{.batch = 4, .nheads = 3, .headdim = 6, .state = 5, .indices = true};
    s.D = s.z = s.delta_bias = true;
    const step_problem<float> p(s);
    const auto complaint = [&](auto&& spoil) -> std::string {
        auto a = p.args();
        spoil(a);
        try {
            selective_state_update(a);
        } catch (const shape_error& e) {
            return e.what();
        }
        return "nothing thrown";
    };
    const auto begins = [](const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; };
    const std::string op = "selective_state_update: ";

    CHECK(complaint([](auto& a) { a.delta = a.delta.slice(2, 0, 5); }) ==
          op + "delta has shape (4, 3, 5), expected (batch = 4, nheads = 3, headdim = 6)");
    CHECK(begins(complaint([](auto& a) { a.h = a.h.slice(1, 0, 2); }), op + "h has shape (7, 2, 6, 5), expected (entries, "));
    CHECK(complaint([](auto& a) { a.state_batch_indices = {}; }) ==
          op + "h has shape (7, 3, 6, 5), expected (batch = 4, nheads = 3, headdim = 6, state = 5)");
    CHECK(begins(complaint([](auto& a) { a.A = a.A.slice(2, 0, 4); }), op + "A has shape (3, 6, 4)"));
    CHECK(begins(complaint([](auto& a) { a.B = a.B.slice(2, 0, 4); }), op + "B has shape (4, 1, 4)"));
    CHECK(begins(complaint([](auto& a) { a.B = {a.B.data(), {4, 2, 5}, {0, 0, 0}}; }), op + "C has shape (4, 1, 5)"));
    CHECK(complaint([](auto& a) { a.B = a.C = {a.B.data(), {4, 2, 5}, {0, 0, 0}}; }) ==
          op + "B has 2 groups, expected a divisor of 3 channels");
    CHECK(begins(complaint([](auto& a) { a.D = a.D.slice(0, 0, 2); }), op + "D has shape (2, 6)"));
    CHECK(begins(complaint([](auto& a) { a.z = a.z.slice(0, 0, 2); }), op + "z has shape (2, 3, 6)"));
    CHECK(begins(complaint([](auto& a) { a.delta_bias = a.delta_bias.slice(1, 0, 2); }), op + "delta_bias has shape (3, 2)"));
    CHECK(begins(complaint([](auto& a) { a.y = a.y.slice(1, 0, 2); }), op + "y has shape (4, 2, 6)"));
    CHECK(begins(complaint([](auto& a) { a.state_batch_indices = a.state_batch_indices.slice(0, 0, 3); }),
                 op + "state_batch_indices has shape (3)"));
    const std::int32_t beyond[] = {0, 7, 1, 2};
    CHECK(complaint([&](auto& a) { a.state_batch_indices = {beyond, 4}; }) ==
          op + "state_batch_indices names an entry that h does not have");
    CHECK(complaint([](auto& a) { a.y = {const_cast<float*>(a.u.data()), 4, 3, 6}; }) == op + "y overlaps u in memory");
    CHECK(complaint([](auto& a) { a.y = {a.h.data(), 4, 3, 6}; }) == op + "y overlaps h in memory");
    CHECK(complaint([](auto& a) { a.h = {a.h.data(), a.h.extents(), {90, 30, 0, 1}}; }) ==
          op + "h is written but has stride 0 along an axis");
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });  // thrown before anything was written
}

TEST_CASE("selective_state_update: any one of h, A, B and C may have a stride along the state")
{
    for (const index state : {5, 16, 35}) {
        constexpr index headdim = 19, step = 2;
        const auto values = [](index count, float scale) {
            std::vector<float> v(static_cast<std::size_t>(count));
            for (std::size_t i = 0; i < v.size(); ++i) v[i] = scale * std::sin(static_cast<float>(i * i % 97) + 1);
            return v;
        };
        const index rows = headdim * state * step;
        const auto A = values(rows, 1), B = values(state * step, 1), C = values(state * step, 2), u = values(headdim, 1),
                   delta = values(headdim, 1);
        for (int strided = 0; strided < 5; ++strided) {  // none, then h, A, B, C
            const auto stride = [&](int which) { return which == strided ? step : index{1}; };
            std::vector<float> h = values(rows, 3), expected_h = h, y(headdim), expected_y(headdim);
            const auto args = [&](std::vector<float>& state_memory, std::vector<float>& out) {
                return selective_state_update_args<float>{
                    .h = {state_memory.data(), {1, 1, headdim, state}, {rows, rows, state * step, stride(1)}},
                    .u = {u.data(), 1, 1, headdim},
                    .delta = {delta.data(), 1, 1, headdim},
                    .A = {A.data(), {1, headdim, state}, {rows, state * step, stride(2)}},
                    .B = {B.data(), {1, 1, state}, {state * step, state * step, stride(3)}},
                    .C = {C.data(), {1, 1, state}, {state * step, state * step, stride(4)}},
                    .delta_softplus = true,
                    .y = {out.data(), 1, 1, headdim}};
            };
            selective_state_update(args(h, y));
            reference::selective_state_update(args(expected_h, expected_y));
            CAPTURE(state, strided);
            CHECK(relative_error(args(h, y).y, args(expected_h, expected_y).y) <= 2e-6);
            CHECK(relative_error(args(h, y).h, args(expected_h, expected_y).h) <= 2e-6);
        }
    }
}

}  // namespace
}  // namespace ssmkit::testing
