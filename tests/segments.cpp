#include <ssmkit/segments.hpp>

#include <complex>
#include <limits>
#include <vector>

#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/reference/ssd.hpp>

#include "catch.hpp"
#include "selective_scan_problem.hpp"
#include "ssd_problem.hpp"

namespace ssmkit::testing {
namespace {

/// log_decay of a head for every element of its state.
template <class T>
view<T, 4> by_head(const view<T, 2>& log_decay, index headdim, index state)
{
    return {log_decay.data(),
            {log_decay.extent(0), log_decay.extent(1), headdim, state},
            {log_decay.stride(0), log_decay.stride(1), 0, 0}};
}

TEST_CASE("segments: ssd in parts that know nothing of each other, joined, is ssd")
{
    for (const packing packed : {packing::none, packing::seq_idx}) {
        for (const index cut : {0, 1, 20, 36, 37}) {
            ssd_setup s{.batch = 2, .length = 37};
            s.delta_softplus = s.delta_bias = s.limits = true;
            s.extras = false;
            s.packed = packed;
            const ssd_problem<double> p(s), q(s);
            reference::ssd(p.args());
            const auto part = [&](index first, index count) {
                ssd_args<double> a = q.args();
                for (auto* v : {&a.u, &a.B, &a.C}) *v = v->slice(1, first, count);
                a.delta = a.delta.slice(1, first, count);
                a.y = a.y.slice(1, first, count);
                if (a.seq_idx.data()) a.seq_idx = a.seq_idx.slice(1, first, count);
                return a;
            };
            // seq_idx numbers sequences: the second part must not take its first token for a new one, nor the first part's
            // sequence for a foreign one. What it continues has number 0 there.
            std::vector<std::int32_t> numbers(static_cast<std::size_t>(2 * s.length));
            const auto renumbered = [&](ssd_args<double>& a) {
                if (!a.seq_idx.data()) return;
                const index count = a.seq_idx.extent(1);
                for (index b = 0; b < 2; ++b) {
                    std::int32_t last = 0;
                    for (index t = 0; t < cut; ++t) {
                        if (q.seq_idx(b, t) >= 0) last = q.seq_idx(b, t);
                    }
                    for (index t = 0; t < count; ++t) {
                        const std::int32_t id = a.seq_idx(b, t);
                        numbers[static_cast<std::size_t>(b * count + t)] = id < 0 ? id : id - last;
                    }
                }
                a.seq_idx = {numbers, 2, count};
            };
            const std::array<index, 4> states{2, s.nheads, s.headdim, s.state};
            std::vector<double> l1(static_cast<std::size_t>(2 * s.nheads)), l2(l1.size());
            std::vector<double> h1(static_cast<std::size_t>(2 * s.nheads * s.headdim * s.state)), h2(h1.size());
            const view<double, 2> decay1(l1, 2, s.nheads), decay2(l2, 2, s.nheads);
            const view<double, 4> H1(h1, states[0], states[1], states[2], states[3]);
            const view<double, 4> H2(h2, states[0], states[1], states[2], states[3]);
            ssd_args<double> first = part(0, cut), second = part(cut, s.length - cut);
            renumbered(second);
            first.final_state = H1;
            second.final_state = H2;
            reference::ssd(first);
            reference::ssd(second);
            segment_log_decay(first, decay1);
            segment_log_decay(second, decay2);
            join_segments<double, 4>(by_head(decay1, s.headdim, s.state), H1, by_head(decay2, s.headdim, s.state), H2);
            CAPTURE(cut, static_cast<int>(packed));
            double worst = 0;
            for (index b = 0; b < 2; ++b) {
                for (index head = 0; head < s.nheads; ++head) {
                    for (index c = 0; c < s.headdim; ++c) {
                        for (index n = 0; n < s.state; ++n) {
                            worst = std::max(worst, std::abs(H2(b, head, c, n) - p.final_state(b, head, c, n)));
                        }
                    }
                }
            }
            CHECK(worst < 1e-12);
            if (packed == packing::none) {  // the decays add up, too
                std::vector<double> l(l1.size());
                segment_log_decay(p.args(), view<double, 2>(l, 2, s.nheads));
                for (std::size_t i = 0; i < l.size(); ++i) CHECK(l2[i] == Approx(l[i]));
            }
        }
    }
}

TEMPLATE_TEST_CASE("segments: the selective scan, joined", "", double, std::complex<double>)
{
    constexpr index batch = 2, length = 11, dim = 3, state = 4;
    random numbers(7);
    const auto make = [&](const auto& extents, const range& r, auto example) {
        constexpr std::size_t rank = std::tuple_size_v<std::remove_cvref_t<decltype(extents)>>;
        tensor<decltype(example), rank> t(extents, layout::row_major, guard::none);
        t.fill(numbers, r);
        return t;
    };
    const std::array tokens{batch, length, dim};
    const std::array maps{batch, length, index{1}, state};
    const auto u = make(tokens, {-1, 1}, double{}), delta = make(tokens, {0, 1}, double{});
    const auto A = make(std::array{dim, state}, {-2, -0.1}, TestType{});
    const auto B = make(maps, {-1, 1}, double{}), C = make(maps, {-1, 1}, double{});
    std::vector<double> y(static_cast<std::size_t>(batch * length * dim));
    selective_scan_args<double, TestType> a{.u = u, .delta = delta, .A = A};
    if constexpr (std::is_same_v<TestType, double>) {
        a.B = B;
        a.C = C;
    } else {
        static tensor<TestType, 4> complex_B, complex_C;
        complex_B = make(maps, {-1, 1}, TestType{});
        complex_C = make(maps, {-1, 1}, TestType{});
        a.B = complex_B;
        a.C = complex_C;
    }
    a.delta_softplus = true;
    a.y = {y.data(), batch, length, dim};
    std::vector<TestType> whole(static_cast<std::size_t>(batch * dim * state));
    std::vector<TestType> h1(whole.size()), h2(whole.size()), l1(whole.size()), l2(whole.size());
    a.final_state = {whole.data(), batch, dim, state};
    for (const bool with_reset : {false, true}) {
        for (const index cut : {0, 4, 11}) {
            std::vector<std::uint8_t> reset(static_cast<std::size_t>(batch * length));
            if (with_reset) reset[6] = reset[static_cast<std::size_t>(length) + 2] = 1;
            a.reset = {reset, batch, length};
            reference::selective_scan(a);
            const auto part = [&](index first, index count, std::vector<TestType>& h, std::vector<TestType>& l) {
                selective_scan_args<double, TestType> p = a;
                p.u = p.u.slice(1, first, count);
                p.delta = p.delta.slice(1, first, count);
                p.B = p.B.slice(1, first, count);
                p.C = p.C.slice(1, first, count);
                p.y = p.y.slice(1, first, count);
                p.reset = p.reset.slice(1, first, count);
                p.final_state = {h.data(), batch, dim, state};
                reference::selective_scan(p);
                segment_log_decay(p, view<TestType, 3>(l.data(), batch, dim, state));
            };
            part(0, cut, h1, l1);
            part(cut, length - cut, h2, l2);
            const auto of = [](std::vector<TestType>& values) { return view<TestType, 3>(values, batch, dim, state); };
            join_segments<TestType, 3>(of(l1), of(h1), of(l2), of(h2));
            double worst = 0;
            for (std::size_t i = 0; i < whole.size(); ++i) worst = std::max(worst, std::abs(h2[i] - whole[i]));
            CAPTURE(cut, with_reset);
            CHECK(worst < 1e-13);
        }
    }
}

TEST_CASE("segments: what a segment forgets does not come back, even an infinity")
{
    constexpr double infinity = std::numeric_limits<double>::infinity();
    std::vector<double> l1{-1, -1}, h1{infinity, 3}, l2{-infinity, -infinity}, h2{5, 7};
    join_segments<double, 1>(view<double, 1>(l1, 2), view<double, 1>(h1, 2), view<double, 1>(l2, 2), view<double, 1>(h2, 2));
    CHECK(h2 == std::vector<double>{5, 7});
    CHECK(l2 == std::vector<double>{-infinity, -infinity});
}

TEST_CASE("segments: name the argument that does not fit")
{
    std::vector<double> three(3), two(2);
    const view<double, 1> a(three, 3), b(two, 2);
    CHECK_THROWS_WITH((join_segments<double, 1>(a, b, a, a)), "join_segments: first_state has not the state's shape");
    CHECK_THROWS_WITH((join_segments<double, 1>(b, a, a, a)), "join_segments: first_log_decay has not the state's shape");
    CHECK_THROWS_WITH((join_segments<double, 1>(a, a, b, a)), "join_segments: log_decay has not the state's shape");
    const ssd_problem<double> p(ssd_setup{});
    CHECK_THROWS_WITH(segment_log_decay(p.args(), view<double, 2>(three, 1, 3)),
                      Catch::Matchers::StartsWith("segment_log_decay: out has shape (1, 3)"));
}

}  // namespace
}  // namespace ssmkit::testing
