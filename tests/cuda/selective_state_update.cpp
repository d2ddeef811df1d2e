#include "../catch.hpp"
#include "../operations/operations.hpp"
#include "../selective_state_update_problem.hpp"

namespace ssmkit::testing {
namespace {

constexpr auto on_device = [](const auto& a) { run_on_device(a); };

TEMPLATE_TEST_CASE("cuda::selective_state_update: agrees with the reference, whatever is switched on", "", float, bfloat16, float16)
{
    for (unsigned bits = 0; bits < 1u << step_setup::options; ++bits) {
        for (const index nheads : {1, 4}) {
            for (const index ngroups : {1, 2, 4}) {
                for (const layout form : all_layouts) {
                    step_setup s = step_setup{.batch = 4, .nheads = nheads, .headdim = 20}.with_options(bits);
                    s.state = bits % 3 == 0 ? 7 : bits % 3 == 1 ? 16 : 36;
                    s.ngroups = ngroups;
                    s.inputs = form;
                    s.outputs = bits % 2 ? layout::row_major : all_layouts[bits / 2 % 6];
                    s.seed = bits;
                    CAPTURE(s.text());
                    const step_problem<TestType> p(s);
                    const auto inputs = p.input_bytes();
                    REQUIRE(step_error(p, on_device) <= 1);
                    REQUIRE(p.y.gaps_untouched());
                    REQUIRE(p.h.gaps_untouched());
                    REQUIRE(p.input_bytes() == inputs);
                }
            }
        }
    }
}

TEMPLATE_TEST_CASE("cuda::selective_state_update: every batch, width and state size", "", float, bfloat16)
{
    for (const bool tied : {false, true}) {
        const auto agrees = [&](step_setup s) {
            s.D = s.z = s.delta_softplus = true;
            s.tied = tied;
            CAPTURE(s.text());
            REQUIRE(step_error(step_problem<TestType>(s), on_device) <= 1);
        };
        for (const index headdim : {0, 1, 15, 16, 17, 32, 33, 64, 257}) {
            for (const index state : {0, 1, 2, 4, 8, 12, 13, 16, 20, 32, 64, 68, 128, 132, 256, 260}) {
                agrees({.batch = 2, .nheads = 2, .headdim = headdim, .state = state});
            }
        }
        for (const index batch : {0, 1, 2, 3, 4, 5, 7, 8, 9, 33}) {
            for (const index nheads : {0, 1, 3}) {
                for (const index state : {5, 16, 128}) agrees({.batch = batch, .nheads = nheads, .headdim = 5, .state = state});
            }
        }
        // Large enough for several rows to a thread.
        for (const index batch : {4, 5, 7}) agrees({.batch = batch, .nheads = 1, .headdim = 35000, .state = 16, .indices = true});
    }
}

TEMPLATE_TEST_CASE("cuda::selective_state_update: padded rows give zeros and touch no state", "", float, bfloat16)
{
    for (const index state : {5, 16, 128}) {
        step_setup s{.batch = 7, .nheads = 2, .headdim = 19, .state = state, .indices = true};
        s.D = s.z = true;
        step_problem<TestType> p(s);
        for (const index b : {1, 4}) {  // whatever is in such a row
            for_each_index(p.u.view()[b], [&](auto... i) { p.u(b, i...) = quiet_nan<TestType>(); });
            for_each_index(p.z.view()[b], [&](auto... i) { p.z(b, i...) = quiet_nan<TestType>(); });
        }
        const tensor<float, 4> before = p.h.template as<float>();
        run_on_device(p.args());
        for (index b = 0; b < s.batch; ++b) {
            const index entry = p.state_batch_indices(b);
            for_each_index(p.y.view()[b], [&](auto... i) { REQUIRE((convert<double>(p.y(b, i...)) == 0) == (entry < 0)); });
            if (entry >= 0) CHECK(!same_bits(p.h.view()[entry], before.view()[entry]));
        }
        std::vector<bool> used(static_cast<std::size_t>(s.entries()), false);
        for (index b = 0; b < s.batch; ++b) {
            if (p.state_batch_indices(b) >= 0) used[static_cast<std::size_t>(p.state_batch_indices(b))] = true;
        }
        for (index e = 0; e < s.entries(); ++e) {
            if (!used[static_cast<std::size_t>(e)]) CHECK(same_bits(p.h.view()[e], before.view()[e]));
        }
    }
}

TEMPLATE_TEST_CASE("cuda::selective_state_update: a NaN reaches exactly the outputs that depend on it", "", float, bfloat16)
{
    for (const bool tied : {false, true}) {
        for (const index state : {7, 16, 40, 128}) {
            step_setup s{.batch = 2, .nheads = 4, .headdim = 19, .state = state, .ngroups = 2};
            s.D = s.z = s.delta_bias = s.delta_softplus = true;
            s.tied = tied;
            const index last = s.headdim - 1;
            const auto probe = [&](const char* name, auto&& element) {
                step_problem<TestType> p(s);
                auto& x = element(p);
                x = quiet_nan<std::decay_t<decltype(x)>>();
                CAPTURE(name, s.text());
                CHECK(step_error(p, on_device) <= 1);  // infinite where only one of two is NaN
            };
            probe("h", [&](auto& p) -> auto& { return p.h(1, 2, last, state - 1); });
            probe("u", [&](auto& p) -> auto& { return p.u(1, 3, last); });
            probe("z", [&](auto& p) -> auto& { return p.z(0, 1, 2); });
            probe("B", [&](auto& p) -> auto& { return p.B(1, 1, state - 1); });
            probe("C", [&](auto& p) -> auto& { return p.C(0, 1, 0); });
            if (tied) {
                probe("delta", [&](auto& p) -> auto& { return p.tied_delta(1, 3); });
                probe("A", [&](auto& p) -> auto& { return p.tied_A(2); });
            } else {
                probe("delta", [&](auto& p) -> auto& { return p.delta(1, 3, last); });
                probe("A", [&](auto& p) -> auto& { return p.A(2, last, state - 1); });
            }
        }
    }
}

TEST_CASE("cuda::selective_state_update: the same bits from run to run")
{
    for (const index state : {7, 16, 128}) {
        step_setup s{.batch = 9, .nheads = 2, .headdim = 100, .state = state};
        s.D = s.z = s.delta_softplus = true;
        const step_problem<float> p(s), q(s);
        run_on_device(p.args());
        run_on_device(q.args());
        CHECK(same_bits(p.y, q.y));
        CHECK(same_bits(p.h, q.h));
    }
}

}  // namespace
}  // namespace ssmkit::testing
