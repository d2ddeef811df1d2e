#include <ssmkit/ssd.hpp>

#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include <ssmkit/reference/ssd.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "ssd_problem.hpp"

// The kernels against the reference, which tests/ssd_reference.cpp holds against the dual form.

namespace ssmkit::testing {
namespace {

constexpr ssd_form forms[] = {ssd_form::chunked, ssd_form::recurrent};

template <class T>
inline constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

/// Runs the operation and, in double, its reference on the same numbers.
template <class T>
worst_error against_reference(const ssd_problem<T>& p, ssd_form form)
{
    ssd_args<T> a = p.args();
    a.form = form;
    ssd(a);
    const auto expected = p.wide();
    reference::ssd(expected.args());
    return worst_of_budget(p, expected);
}

TEMPLATE_TEST_CASE("ssd: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; ++bits) {
        ssd_setup s = ssd_setup{.batch = 2, .length = 37, .nheads = 4, .headdim = 3, .ngroups = 2, .state = 5}.with_options(bits);
        constexpr index groups[] = {1, 2, 4}, chunks[] = {1, 8, 37, 100};
        s.ngroups = groups[bits % 3];
        s.chunk = chunks[bits / 3 % 4];
        s.extras = bits % 5 != 0;
        s.headdim += bits / 7 % 2 * lanes<TestType>;
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        s.seed = bits;
        for (const ssd_form form : forms) {
            const ssd_problem<TestType> p(s);
            const auto inputs = p.input_bytes();
            const worst_error worst = against_reference(p, form);
            CAPTURE(s.text(), static_cast<int>(form), worst.name);
            REQUIRE(worst.error <= 1);
            REQUIRE(p.gaps_untouched());
            REQUIRE(p.input_bytes() == inputs);
        }
    }
}

TEMPLATE_TEST_CASE("ssd: every headdim and state size", "", float, double, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const index headdim : {index{0}, index{1}, n - 1, n, n + 1, 2 * n, 3 * n + 2, 4 * n, 5 * n, 7 * n + 1}) {
        for (const index state : {0, 1, 2, 3, 4, 5, 16, 17, 64}) {
            for (const ssd_form form : forms) {
                ssd_setup s{.batch = 1, .length = 41, .nheads = 2, .headdim = headdim, .ngroups = 1, .state = state};
                s.D = s.z = s.initial_state = true;
                const worst_error worst = against_reference(ssd_problem<TestType>(s), form);
                CAPTURE(s.text(), static_cast<int>(form), worst.name);
                REQUIRE(worst.error <= 1);
            }
        }
    }
}

TEMPLATE_TEST_CASE("ssd: every length", "", float, double, bfloat16)
{
    std::vector<index> lengths(71);
    std::iota(lengths.begin(), lengths.end(), index{0});
    lengths.insert(lengths.end(), {255, 256, 257, 288, 300, 511, 513});
    for (const index length : lengths) {
        for (const ssd_form form : {ssd_form::automatic, ssd_form::chunked, ssd_form::recurrent}) {
            ssd_setup s{.batch = 2, .length = length, .nheads = 2, .headdim = lanes<TestType> + 1, .ngroups = 2, .state = 6};
            s.z = s.delta_softplus = s.initial_state = true;
            s.reverse = length % 3 == 0;
            s.packed = length % 4 == 1 ? packing::seq_idx : packing::none;
            const worst_error worst = against_reference(ssd_problem<TestType>(s), form);
            CAPTURE(s.text(), static_cast<int>(form), worst.name);
            REQUIRE(worst.error <= 1);
        }
    }
}

TEST_CASE("ssd: an empty batch, or one without heads, is left alone")
{
    for (ssd_setup s : {ssd_setup{.batch = 0}, ssd_setup{.nheads = 0, .ngroups = 1}}) {
        s.initial_state = true;
        CHECK(against_reference(ssd_problem<float>(s), ssd_form::automatic).error <= 1);
    }
}

TEMPLATE_TEST_CASE("ssd: after a decay of any strength, mild ones are as exact as before", "", float, double)
{
    // A token forgets everything in the middle of mild ones: differences of a running sum of decays would be those of two
    // numbers of a million there.
    ssd_setup s{.batch = 1, .length = 64, .nheads = 1, .headdim = 5, .ngroups = 1, .state = 4};
    s.initial_state = true;
    for (const double strong : {1e2, 1e6, 1e12, 1e30}) {
        for (const ssd_form form : forms) {
            ssd_problem<TestType> p(s);
            p.A.fill([](index) { return TestType(-1); });
            p.delta.fill([&](index, index t, index) { return static_cast<TestType>(t == 9 || t == 40 ? strong : 0.01); });
            p.u.fill([&](index, index t, index, index) { return static_cast<TestType>(t == 9 || t == 40 ? 1 / strong : 1); });
            const auto expected = p.wide();
            reference::ssd(expected.args());
            ssd_args<TestType> a = p.args();
            a.form = form;
            ssd(a);
            CAPTURE(strong, static_cast<int>(form));
            CHECK(relative_error(p.y, expected.y) <= ssd_budget<TestType>);
            CHECK(relative_error(p.final_state, expected.final_state) <= ssd_budget<TestType>);
        }
    }
}

TEST_CASE("ssd: a growing mode overflows no sooner than the recurrence does")
{
    // 2^12 a token: over 32 tokens more than float holds, of states that are zero but for the last two tokens' input.
    ssd_setup s{.batch = 1, .length = 32, .nheads = 1, .headdim = 3, .ngroups = 1, .state = 4};
    s.initial_state = true;
    s.chunk = s.length;  // a shorter one cuts the pieces before anything overflows
    ssd_problem<float> p(s);
    p.A.fill([](index) { return 8.3f; });
    p.delta.fill([](auto...) { return 1.0f; });
    p.initial_state.fill([](auto...) { return 0.0f; });
    p.u.fill([](index, index t, index, index) { return t >= 30 ? 1.0f : 0.0f; });
    CHECK(against_reference(p, ssd_form::automatic).error <= 1);
}

TEMPLATE_TEST_CASE("ssd: a NaN reaches what the recurrence says, and nothing else", "", float, double, bfloat16)
{
    ssd_setup s{.batch = 2, .length = 70, .nheads = 4, .headdim = 9, .ngroups = 2, .state = 6};
    s.D = s.z = s.delta_softplus = s.initial_state = true;
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const packing packed : {packing::none, packing::seq_idx}) {
        s.packed = packed;
        for (const index t : {0, 3, 30, 31, 32, 33, 69}) {
            const auto probe = [&](const char* name, auto&& poison) {
                for (const ssd_form form : forms) {
                    ssd_problem<TestType> p(s);
                    poison(p);
                    const auto expected = p.wide();
                    reference::ssd(expected.args());
                    ssd_args<TestType> a = p.args();
                    a.form = form;
                    ssd(a);
                    CAPTURE(name, t, static_cast<int>(form), s.text());
                    const auto same = [](const auto& x, const auto& y) { return is_nan(x) == is_nan(y); };
                    bool all = true;
                    for (index b = 0; b < s.batch; ++b) {
                        for (index i = 0; i < s.length; ++i) {
                            for (index h = 0; h < s.nheads; ++h) {
                                for (index c = 0; c < s.headdim; ++c) all = all && same(p.y(b, i, h, c), expected.y(b, i, h, c));
                            }
                        }
                        for (index h = 0; h < s.nheads; ++h) {
                            for (index c = 0; c < s.headdim; ++c) {
                                for (index m = 0; m < s.state; ++m) {
                                    all = all && same(p.final_state(b, h, c, m), expected.final_state(b, h, c, m));
                                }
                            }
                        }
                    }
                    REQUIRE(all);
                }
            };
            probe("u", [&](auto& p) { p.u(1, t, 2, 4) = nan; });
            probe("z", [&](auto& p) { p.z(1, t, 2, 4) = nan; });
            probe("delta", [&](auto& p) { p.delta(1, t, 2) = nan; });
            probe("B", [&](auto& p) { p.B(1, t, 1, 2) = nan; });
            probe("C", [&](auto& p) { p.C(1, t, 1, 2) = nan; });
            probe("initial_state", [&](auto& p) { p.initial_state(1, 2, 4, 3) = std::numeric_limits<float>::quiet_NaN(); });
        }
    }
}

TEMPLATE_TEST_CASE("ssd: neither threads nor the workspace change a bit", "", float, double, bfloat16)
{
    struct shape {
        index batch, length, nheads, ngroups;
    };
    for (const shape& of : {shape{1, 300, 6, 1}, shape{3, 40, 4, 2}, shape{2, 7, 1, 1}}) {
        ssd_setup s{.batch = of.batch, .length = of.length, .nheads = of.nheads, .headdim = 11, .ngroups = of.ngroups, .state = 7};
        s.z = s.delta_softplus = true;
        s.D = s.initial_state = of.batch != 1;  // both ways: what is not given is zero, not what the workspace held
        s.packed = of.batch == 3 ? packing::seq_idx : packing::none;
        const ssd_problem<TestType> p(s);
        CAPTURE(s.text());
        ssd(p.args());
        const auto expected = p.output_bytes();
        for (const std::size_t count : {1, 2, 3}) {
            threads pool(count);
            const ssd_problem<TestType> q(s);
            ssd(q.args(), pool);
            CHECK(q.output_bytes() == expected);
        }
        const std::size_t need = ssd_workspace_size(p.args(), 4);
        for (const int poison : {0x00, 0xff, 0x7f, 0x5a}) {
            std::vector<std::byte> memory(need + 3, static_cast<std::byte>(poison));
            const ssd_problem<TestType> q(s);
            ssd(q.args(), workspace(memory).subspan(3), last_task_first{});
            CHECK(q.output_bytes() == expected);
        }
    }
}

TEST_CASE("ssd: allocates nothing when it is lent a workspace")
{
    ssd_setup s{.batch = 2, .length = 100, .nheads = 4, .headdim = 20, .ngroups = 2, .state = 7};
    s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
    s.packed = packing::seq_idx;
    const ssd_problem<float> p(s);
    const ssd_problem<bfloat16> q(s);
    threads pool(2);
    std::vector<std::byte> memory(std::max(ssd_workspace_size(p.args(), 2), ssd_workspace_size(q.args(), 2)));
    CHECK(allocations_during([&] {
              ssd(p.args(), memory);
              ssd(p.args(), memory, pool);
              ssd(q.args(), memory);
              ssd(q.args(), memory, pool);
          }) == 0);
}

TEMPLATE_TEST_CASE("ssd: touches nothing outside its arguments and its workspace", "", float, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::time_contiguous}) {
            for (const index headdim : {index{1}, n - 1, n, n + 1}) {
                for (const index state : {1, 3, 17}) {
                    for (const index length : {1, 31, 32, 33, 255, 257}) {
                        ssd_setup s{.batch = 1, .length = length, .nheads = 2, .headdim = headdim, .ngroups = 1, .state = state};
                        s.D = s.z = s.delta_bias = s.delta_softplus = s.initial_state = true;
                        s.inputs = s.outputs = form;
                        s.edge = edge;
                        const ssd_problem<TestType> p(s);
                        const std::size_t need = ssd_workspace_size(p.args());
                        const raw_memory lent(need, edge);
                        CAPTURE(s.text());
                        ssd(p.args(), workspace(lent.data(), need));
                        s.edge = guard::none;
                        const ssd_problem<TestType> q(s);
                        ssd(q.args());
                        REQUIRE(p.output_bytes() == q.output_bytes());
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace ssmkit::testing
