#include <ssmkit/linear_attention_update.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <ssmkit/reference/linear_attention.hpp>
#include <ssmkit/reference/linear_attention_update.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "linear_attention_problem.hpp"
#include "sparse_memory.hpp"

// The kernel against the reference, which tests/linear_attention_reference.cpp holds against the whole sequence.

namespace ssmkit::testing {
namespace {

template <class T>
inline constexpr index lanes = detail::lanes<compute_t<T>, xsimd::default_arch>;

/// Runs the step and, in double, its reference on the same numbers.
template <class T>
worst_error against_reference(const linear_attention_step_problem<T>& p)
{
    const linear_attention_step_problem<double> expected = p.template as<double>();
    linear_attention_update(p.args());
    reference::linear_attention_update(expected.args());
    return worst_of_budget(p, expected);
}

constexpr unsigned all_gates[] = {0, 1, 2, 3, 4, 5, 6, 7};  // g, gk and beta, or not

TEMPLATE_TEST_CASE("linear_attention_update: agrees with the reference, whatever is switched on", "", float, double, bfloat16,
                   float16)
{
    for (unsigned bits = 0; bits < 1u << linear_attention_step_setup::options; ++bits) {
        for (const index groups : {1, 2, 4, 8}) {
            for (const layout form : all_layouts) {
                linear_attention_step_setup s =
                    linear_attention_step_setup{.batch = 4, .nheads = 8, .key = 7, .value = 20}.with_options(bits);
                s.ngroups = groups;
                s.inputs = form;
                s.outputs = all_layouts[bits % 6];
                s.seed = bits;
                const linear_attention_step_problem<TestType> p(s);
                const auto inputs = p.input_bytes();
                const worst_error worst = against_reference(p);
                CAPTURE(s.text(), worst.name);
                REQUIRE(worst.error <= 1);
                REQUIRE(p.y.gaps_untouched());
                REQUIRE(p.S.gaps_untouched());
                REQUIRE(p.input_bytes() == inputs);
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: every key and value size", "", float, double, bfloat16)
{
    const auto check_sizes = [](index key, index value, unsigned gates, layout form) {
        linear_attention_step_setup s =
            linear_attention_step_setup{.batch = 1, .nheads = 2, .ngroups = 1, .key = key, .value = value}.with_options(gates);
        s.outputs = form;
        const worst_error worst = against_reference(linear_attention_step_problem<TestType>(s));
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
    };
    for (index key = 1; key <= 70; ++key) {
        for (index value = 1; value <= 70; ++value) {
            if (SSMKIT_SAMPLED_TESTS && (key * 29 + value) % 7 != 0) continue;
            check_sizes(key, value, static_cast<unsigned>(key + 3 * value) % 8, layout::row_major);
        }
    }
    constexpr index n = lanes<TestType>;
    const index edges[] = {0, 1, n - 1, n, n + 1, 2 * n + 3, 8 * n, 128, 255, 256, 257, 600};
    for (const index key : edges) {
        for (const index value : edges) {
            for (const unsigned gates : {0u, 3u, 4u, 7u}) {
                check_sizes(key, value, gates, layout::row_major);
                check_sizes(key, value, gates, layout::column_major);
            }
        }
    }
    for (const index batch : {0, 1}) {
        for (const index nheads : {0, 1, 3}) {
            linear_attention_step_setup s{.batch = batch, .nheads = nheads, .ngroups = 1};
            s.g = s.gk = s.beta = true;
            CAPTURE(s.text());
            REQUIRE(against_reference(linear_attention_step_problem<TestType>(s)).error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: neighbouring heads share a group", "", float, bfloat16)
{
    for (const index groups : {1, 2, 3, 6, 12}) {
        for (const unsigned gates : all_gates) {
            const linear_attention_step_setup s =
                linear_attention_step_setup{.nheads = 12, .ngroups = groups}.with_options(gates);
            CAPTURE(s.text());
            REQUIRE(against_reference(linear_attention_step_problem<TestType>(s)).error <= 1);
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: token by token is the sequence", "", float, double, bfloat16, float16)
{
    using real = compute_t<TestType>;
    for (const linear_attention_member& m : linear_attention_family) {
        linear_attention_setup s = m.of({.batch = 3, .length = 70, .key = 16, .value = 2 * lanes<TestType> + 3});
        s.initial_state = true;
        const linear_attention_problem<TestType> steps(s);
        const auto wide = steps.wide();
        reference::linear_attention(wide.args());
        const tensor<real, 4> S = steps.initial_state.template as<real>();
        const auto a = steps.args();
        for (index t = 0; t < s.length; ++t) {
            const auto token = [&](const auto& v) {
                using V = decltype(v.transposed(0, 1)[t]);
                return v.data() ? v.transposed(0, 1)[t] : V{};
            };
            linear_attention_update(linear_attention_update_args<TestType>{.S = S,
                                                                           .q = token(a.q),
                                                                           .k = token(a.k),
                                                                           .v = token(a.v),
                                                                           .g = token(a.g),
                                                                           .gk = token(a.gk),
                                                                           .beta = token(a.beta),
                                                                           .y = token(a.y)});
        }
        CAPTURE(m.name);
        CHECK(relative_error(steps.y, wide.y) <= linear_attention_budget<TestType>);
        CHECK(relative_error(S, wide.final_state) <= linear_attention_budget<real>);
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: rows use the entries they name, and padding touches none", "", float, bfloat16)
{
    for (const unsigned gates : all_gates) {
        linear_attention_step_setup s = linear_attention_step_setup{.batch = 7, .key = 9, .value = 21}.with_options(gates);
        s.indices = true;
        const linear_attention_step_problem<TestType> p(s);
        for (auto* tokens : {&p.q, &p.k, &p.v}) {  // what padding holds is nobody's
            for_each_index(tokens->view()[1], [&](auto... i) { (*tokens)(1, i...) = quiet_nan<TestType>(); });
        }
        const tensor<compute_t<TestType>, 4> before = p.S.template as<compute_t<TestType>>();
        linear_attention_update(p.args());
        CAPTURE(s.text());
        std::vector<bool> used(static_cast<std::size_t>(s.entries()));
        for (index b = 0; b < s.batch; ++b) {
            const index entry = p.state_batch_indices(b);
            if (entry >= 0) used[static_cast<std::size_t>(entry)] = true;
            for_each_index(p.y.view()[b], [&](auto... i) { REQUIRE((convert<double>(p.y(b, i...)) == 0) == (entry < 0)); });
        }
        for (index entry = 0; entry < s.entries(); ++entry) {
            const bool same = same_bits(p.S.view()[entry], before.view()[entry]);
            CHECK(same != used[static_cast<std::size_t>(entry)]);
            for_each_index(p.S.view()[entry], [&](auto... i) { REQUIRE(!is_nan(p.S(entry, i...))); });
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: gates of any strength, and numbers of any size", "", float, double)
{
    const double gates[] = {0, -0.0, -1e-6, -1e-2, -80, -1e2, -1e6, -1e30, 0.5, 20, -std::numeric_limits<double>::infinity()};
    for (const unsigned which : all_gates) {
        for (const double gate : gates) {
            for (const double size : {1e-30, 1.0, 1e30}) {
                linear_attention_step_setup s =
                    linear_attention_step_setup{.batch = 1, .nheads = 2, .ngroups = 1, .key = 6, .value = 19}.with_options(which);
                linear_attention_step_problem<TestType> p(s);
                if (s.g) p.g.fill([&](auto...) { return static_cast<TestType>(gate); });
                if (s.gk) p.gk.fill([&](index, index, index i) { return static_cast<TestType>(i % 2 || s.g ? -0.1 : gate); });
                for_each_index(p.v.view(), [&](auto... i) { p.v(i...) *= static_cast<TestType>(size); });
                for_each_index(p.S.view(), [&](auto... i) {
                    p.S(i...) = static_cast<TestType>(gate > 1 && size > 1 ? 0 : size * convert<double>(p.S(i...)));
                });
                const worst_error worst = against_reference(p);
                CAPTURE(s.text(), gate, size, worst.name);
                CHECK(worst.error <= 1);
            }
        }
        if ((which & 4u) == 0) continue;
        linear_attention_step_setup s = linear_attention_step_setup{.key = 6, .value = 19}.with_options(4);
        linear_attention_step_problem<TestType> still(s);  // a step of size zero
        still.beta.fill([](auto...) { return TestType(0); });
        const tensor<TestType, 4> before = still.S.template as<TestType>();
        linear_attention_update(still.args());
        CHECK(same_bits(still.S, before));
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: a NaN reaches what the equations say, and nothing else", "",
                   float, double, bfloat16)
{
    const auto nan = convert<TestType>(std::numeric_limits<double>::quiet_NaN());
    for (const unsigned gates : all_gates) {
        for (const index value : {3, 19, 40}) {
            const linear_attention_step_setup s =
                linear_attention_step_setup{.key = 6, .value = value}.with_options(gates);
            const auto probe = [&](const char* name, auto&& poison) {
                linear_attention_step_problem<TestType> p(s);
                poison(p);
                const auto expected = p.template as<double>();
                reference::linear_attention_update(expected.args());
                linear_attention_update(p.args());
                CAPTURE(name, s.text());
                CHECK(same_nans(p.y, expected.y));
                CHECK(same_nans(p.S, expected.S));
            };
            probe("q", [&](auto& p) { p.q(1, 1, 2) = nan; });
            probe("k", [&](auto& p) { p.k(1, 0, 5) = nan; });
            probe("v", [&](auto& p) { p.v(0, 3, value - 1) = nan; });
            probe("S", [&](auto& p) { p.S(1, 2, 4, value - 2) = std::numeric_limits<compute_t<TestType>>::quiet_NaN(); });
            if (s.g) probe("g", [&](auto& p) { p.g(1, 2) = nan; });
            if (s.gk) probe("gk", [&](auto& p) { p.gk(0, 1, 3) = nan; });
            if (s.beta) probe("beta", [&](auto& p) { p.beta(0, 1) = nan; });
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: the state does not drift where inputs have 16 bits", "", float, bfloat16, float16)
{
    for (const double decay : {1e-2, 1e-3, 1e-4}) {
        linear_attention_step_problem<TestType> p({.batch = 1, .nheads = 1, .ngroups = 1, .key = 3, .value = 2, .g = true});
        const auto one = [](auto...) { return convert<TestType>(1.0); };
        p.k.fill(one);
        p.v.fill(one);
        p.g.fill([&](auto...) { return convert<TestType>(-decay); });
        p.S.fill([](auto...) { return 0.0f; });
        for (int t = 0; t < 8192; ++t) linear_attention_update(p.args());
        const double rate = convert<double>(convert<TestType>(-decay));
        const double expected = std::expm1(8192 * rate) / std::expm1(rate);  // the geometric series
        CAPTURE(decay);
        CHECK(std::abs(static_cast<double>(p.S(0, 0, 2, 1)) / expected - 1) <= 2.5 * 0x1p-23 * std::min(1 / decay, 8192.0));
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: threads change no bit", "", float, bfloat16)
{
    for (const unsigned gates : all_gates) {
        for (const index nheads : {1, 4}) {
            linear_attention_step_setup s =
                linear_attention_step_setup{.batch = 3, .nheads = nheads, .ngroups = 1, .key = 40, .value = 600}.with_options(gates);
            s.indices = true;
            const linear_attention_step_problem<TestType> alone(s);
            linear_attention_update(alone.args());
            CAPTURE(s.text());
            const auto same = [&](auto&& resource) {
                const linear_attention_step_problem<TestType> p(s);
                linear_attention_update(p.args(), resource);
                return same_bits(p.y, alone.y) && same_bits(p.S, alone.S);
            };
            for (const std::size_t count : {1, 2, 3}) {
                threads pool(count);
                CHECK(same(pool));
            }
            CHECK(same(last_task_first{}));
        }
    }
}

TEST_CASE("linear_attention_update: allocates nothing")
{
    REQUIRE(allocations_during([] { const std::vector<int> block(100); }) > 0);
    threads pool(2);
    for (const unsigned gates : all_gates) {
        linear_attention_step_setup s = linear_attention_step_setup{.batch = 3, .key = 300, .value = 300}.with_options(gates);
        s.indices = true;
        const linear_attention_step_problem<float> p(s);
        const linear_attention_step_problem<bfloat16> q(s);
        CHECK(allocations_during([&] {
                  linear_attention_update(p.args());
                  linear_attention_update(p.args(), pool);
                  linear_attention_update(q.args());
              }) == 0);
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: touches nothing outside its arguments", "", float, bfloat16)
{
    constexpr index n = lanes<TestType>;
    for (const guard edge : {guard::below, guard::above}) {
        for (const layout form : {layout::row_major, layout::column_major}) {
            for (const index value : {index{1}, n - 1, n, n + 1, 2 * n, index{257}}) {
                for (const index key : {index{1}, index{3}, n - 1, n, n + 1, index{17}, index{257}}) {
                    for (const unsigned gates : {0u, 3u, 4u, 7u}) {
                        linear_attention_step_setup s =
                            linear_attention_step_setup{.nheads = 2, .ngroups = 1, .key = key, .value = value}.with_options(gates);
                        s.inputs = s.outputs = form;
                        const linear_attention_step_problem<TestType> free(s);
                        s.edge = edge;
                        const linear_attention_step_problem<TestType> p(s);
                        CAPTURE(s.text());
                        linear_attention_update(p.args());
                        linear_attention_update(free.args());
                        REQUIRE(same_bits(p.y, free.y));
                        REQUIRE(same_bits(p.S, free.S));
                    }
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("linear_attention_update: offsets beyond 2^31 and 2^32 elements", "", float, bfloat16)
{
    enum { batch, head, group, key, value };
    for (const index stride : {(index{1} << 31) + 5, (index{1} << 32) + 7}) {
        for (const int far : {batch, head, group, key, value}) {
            for (const unsigned gates : {3u, 7u}) {
                const linear_attention_step_setup s =
                    linear_attention_step_setup{.batch = 3, .nheads = 2, .ngroups = 2, .key = 3, .value = 3}.with_options(gates);
                const linear_attention_step_problem<TestType> p(s);
                const linear_attention_step_problem<double> expected = p.template as<double>();
                sparse_memory memory;
                auto a = p.args();
                try {
                    const auto spread = [&](auto& v, std::initializer_list<int> axes) {
                        const auto axis = std::find(axes.begin(), axes.end(), far);
                        if (v.data() && axis != axes.end()) {
                            v = memory.spread(v, static_cast<std::size_t>(axis - axes.begin()), stride);
                        }
                    };
                    spread(a.S, {batch, head, key, value});
                    for (auto* v : {&a.q, &a.k, &a.gk}) spread(*v, {batch, group, key});
                    spread(a.v, {batch, head, value});
                    for (auto* v : {&a.g, &a.beta}) spread(*v, {batch, head});
                    spread(a.y, {batch, head, value});
                } catch (const sparse_memory::refused&) {
                    WARN("the system lends no address space for this test");
                    return;
                }
                CAPTURE(stride, far, gates);
                linear_attention_update(a);
                reference::linear_attention_update(expected.args());
                CHECK(relative_error(a.y, expected.y.view()) <= linear_attention_budget<TestType>);
                CHECK(relative_error(a.S, expected.S.view()) <= linear_attention_budget<float>);
            }
        }
    }
}

TEST_CASE("linear_attention_update: leaves the caller's floating-point mode as it was")
{
    const linear_attention_step_problem<float> p({.key = 20, .value = 20, .beta = true});
    const auto subnormals_live = [] {
        volatile float smallest = std::numeric_limits<float>::min();
        smallest = smallest / 2;
        return smallest > 0;
    };
    REQUIRE(subnormals_live());
    linear_attention_update(p.args());
    CHECK(subnormals_live());
}

TEST_CASE("linear_attention_update: names the argument that does not fit, before anything is written")
{
    linear_attention_step_setup s{.batch = 4};
    s.g = s.gk = s.beta = s.indices = true;
    const linear_attention_step_problem<float> p(s);
    const tensor<float, 4> before = p.S.as<float>();
    const auto complaint = [&](auto&& spoil) {
        auto a = p.args();
        spoil(a);
        return complaint_of([&] { linear_attention_update(a); });
    };
    const std::string op = "linear_attention_update: ";
    CHECK(complaint([](auto& a) { a.q = a.q.slice(0, 0, 3); }) ==
          op + "q has shape (3, 2, 5), expected (batch = 4, ngroups = 2, key = 5)");
    CHECK(complaint([](auto& a) { a.state_batch_indices = {}; }) ==
          op + "S has shape (7, 4, 5, 3), expected (batch = 4, nheads = 4, key = 5, value = 3)");
    const std::int32_t beyond[] = {0, 7, 1, 2};
    CHECK(complaint([&](auto& a) { a.state_batch_indices = {beyond, 4}; }) ==
          op + "state_batch_indices names an entry that S does not have");
    CHECK(complaint([](auto& a) { a.y = {a.S.data(), 4, 4, 3}; }) == op + "y overlaps S in memory");
    for_each_index(p.y.view(), [&](auto... i) { REQUIRE(is_nan(p.y(i...))); });
    CHECK(same_bits(p.S, before));
}

}  // namespace
}  // namespace ssmkit::testing
