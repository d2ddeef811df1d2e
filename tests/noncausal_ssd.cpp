#include <ssmkit/noncausal_ssd.hpp>

#include <limits>
#include <vector>

#include <ssmkit/reference/noncausal_ssd.hpp>

#include "allocation_count.hpp"
#include "catch.hpp"
#include "ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

/// ssd's problem, its rates left out.
template <class T>
noncausal_ssd_args<T> noncausal(const ssd_problem<T>& p)
{
    const ssd_args<T> a = p.args();
    return {.u = a.u,
            .delta = a.delta,
            .B = a.B,
            .C = a.C,
            .D = a.D,
            .z = a.z,
            .delta_bias = a.delta_bias,
            .delta_softplus = a.delta_softplus,
            .delta_min = a.delta_min,
            .delta_max = a.delta_max,
            .initial_state = a.initial_state,
            .cu_seqlens = a.cu_seqlens,
            .y = a.y,
            .final_state = a.final_state};
}

ssd_setup setup_of(unsigned bits)
{
    ssd_setup s = ssd_setup{}.with_options(bits);
    s.reverse = s.prescaled = s.extras = false;
    if (s.packed == packing::seq_idx) s.packed = packing::none;
    s.seed = bits;
    return s;
}

template <class T>
worst_error against_reference(const ssd_problem<T>& p)
{
    noncausal_ssd(noncausal(p));
    const auto expected = p.wide();
    reference::noncausal_ssd(noncausal(expected));
    return worst_of_budget(p, expected);
}

TEST_CASE("noncausal_ssd: a sum and a product by hand")
{
    const std::vector<double> u{1, 2}, delta{0.5, 3}, B{1, 10}, C{2, 1};
    std::vector<double> y(2), h(1);
    noncausal_ssd_args<double> a{.u = {u, 1, 2, 1, 1}, .delta = {delta, 1, 2, 1}, .B = {B, 1, 2, 1, 1}, .C = {C, 1, 2, 1, 1}};
    a.y = {y.data(), 1, 2, 1, 1};
    a.final_state = {h.data(), 1, 1, 1, 1};
    const auto check_answer = [&] {
        CHECK(h[0] == 0.5 * 1 * 1 + 3 * 2 * 10);
        CHECK(y[0] == 2 * 60.5);  // the first token sees the second
        CHECK(y[1] == 60.5);
    };
    noncausal_ssd(a);
    check_answer();
    reference::noncausal_ssd(a);
    check_answer();
}

TEST_CASE("noncausal_ssd: the last token of ssd without decay has seen as much")
{
    ssd_setup s{.batch = 2, .length = 45};
    s.initial_state = s.delta_softplus = true;
    ssd_problem<double> p(s);
    p.A.fill([](index) { return 0.0; });
    reference::noncausal_ssd(noncausal(p));
    const tensor<double, 4> H = p.final_state.as<double>(), y = p.y.as<double>();
    reference::ssd(p.args());
    CHECK(relative_error(H, p.final_state) < 1e-13);
    for (index b = 0; b < s.batch; ++b) {
        for (index head = 0; head < s.nheads; ++head) {
            for (index c = 0; c < s.headdim; ++c) {
                CHECK(y(b, s.length - 1, head, c) == Approx(p.y(b, s.length - 1, head, c)));
            }
        }
    }
}

TEMPLATE_TEST_CASE("noncausal_ssd: agrees with the reference, whatever is switched on", "", float, double, bfloat16, float16)
{
    for (unsigned bits = 0; bits < ssd_setup::variants; bits += 3) {
        ssd_setup s = setup_of(bits);
        constexpr index groups[] = {1, 2, 4};
        s.ngroups = groups[bits / 3 % 3];
        s.inputs = all_layouts[bits % 6];
        s.outputs = all_layouts[bits / 6 % 6];
        const ssd_problem<TestType> p(s);
        const auto inputs = p.input_bytes();
        const worst_error worst = against_reference(p);
        CAPTURE(s.text(), worst.name);
        REQUIRE(worst.error <= 1);
        REQUIRE(p.gaps_untouched());
        REQUIRE(p.input_bytes() == inputs);
    }
}

TEMPLATE_TEST_CASE("noncausal_ssd: every size", "", float, double)
{
    for (const index length : {0, 1, 2, 31, 32, 33, 255, 256, 257, 300}) {
        for (const index headdim : {0, 1, 15, 16, 17, 64, 70}) {
            for (const index state : {0, 1, 5, 16}) {
                ssd_setup s{.batch = 1, .length = length, .nheads = 2, .headdim = headdim, .ngroups = 1, .state = state};
                s.D = s.z = s.initial_state = true;
                s.extras = false;
                s.edge = length % 2 ? guard::below : guard::above;
                const worst_error worst = against_reference(ssd_problem<TestType>(s));
                CAPTURE(s.text(), worst.name);
                REQUIRE(worst.error <= 1);
            }
        }
    }
}

TEST_CASE("noncausal_ssd: states add up, wherever a sequence is cut")
{
    ssd_setup s{.batch = 1, .length = 100};
    s.extras = false;
    const ssd_problem<double> p(s);
    noncausal_ssd(noncausal(p));
    for (const index cut : {0, 1, 37, 99, 100}) {
        const ssd_problem<double> q(s);
        noncausal_ssd_args<double> first = noncausal(q), second = first;
        const auto part = [&](noncausal_ssd_args<double>& a, index begin, index count) {
            for (auto* v : {&a.u, &a.B, &a.C}) *v = v->slice(1, begin, count);
            a.delta = a.delta.slice(1, begin, count);
            a.y = a.y.slice(1, begin, count);
        };
        part(first, 0, cut);
        part(second, cut, s.length - cut);
        noncausal_ssd(first);  // for its state
        const tensor<double, 4> H1 = q.final_state.as<double>();
        second.initial_state = H1;
        noncausal_ssd(second);
        const tensor<double, 4> H = q.final_state.as<double>();
        CHECK(relative_error(H, p.final_state) < 1e-13);
        // Now that all is known, the first part's outputs: its inputs are in H already.
        tensor<double, 3> nothing(std::array{index{1}, cut, s.nheads}, layout::row_major, guard::none);
        nothing.fill([](index, index, index) { return 0.0; });
        first.delta = nothing;
        first.initial_state = H;
        first.final_state = {};
        noncausal_ssd(first);
        CAPTURE(cut);
        CHECK(relative_error(q.y, p.y) < 1e-13);
    }
}

TEST_CASE("noncausal_ssd: threads change nothing, and nothing is allocated with a workspace")
{
    ssd_setup s{.batch = 2, .length = 300, .nheads = 6, .headdim = 20, .ngroups = 2, .state = 17};
    s.z = s.D = true;
    s.extras = false;
    const ssd_problem<float> one(s), two(s);
    std::vector<std::byte> memory(noncausal_ssd_workspace_size(noncausal(one)), std::byte{0xff});
    const auto a = noncausal(one);
    CHECK(allocations_during([&] { noncausal_ssd(a, memory); }) == 0);
    threads pool(2);
    noncausal_ssd(noncausal(two), pool);
    CHECK(one.output_bytes() == two.output_bytes());
}

TEST_CASE("noncausal_ssd: a NaN reaches its sequence and head, and no other")
{
    ssd_setup s{.batch = 2, .length = 40, .nheads = 4, .headdim = 5, .ngroups = 2, .state = 6};
    s.extras = false;
    ssd_problem<float> p(s);
    p.u(1, 39, 2, 3) = std::numeric_limits<float>::quiet_NaN();
    noncausal_ssd(noncausal(p));
    for (index b = 0; b < s.batch; ++b) {
        for (index head = 0; head < s.nheads; ++head) {
            for (index c = 0; c < s.headdim; ++c) {
                CHECK(std::isnan(p.y(b, 0, head, c)) == (b == 1 && head == 2 && c == 3));
            }
        }
    }
}

TEST_CASE("noncausal_ssd: names the operation and the argument that does not fit")
{
    const ssd_problem<float> p(ssd_setup{});
    auto a = noncausal(p);
    a.C = a.C.slice(3, 0, 1);
    CHECK_THROWS_WITH(noncausal_ssd(a), Catch::Matchers::StartsWith("noncausal_ssd: C has shape"));
    a = noncausal(p);
    a.y = {const_cast<float*>(a.u.data()), a.u.extents(), a.u.strides()};
    CHECK_THROWS_WITH(noncausal_ssd(a), "noncausal_ssd: y overlaps u in memory");
}

}  // namespace
}  // namespace ssmkit::testing
