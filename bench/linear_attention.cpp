// ssd's relatives beside ssd at the same number of state updates, and beside the compiler's best.

#include <ssmkit/linear_attention.hpp>

#include <memory>

#include "linear_attention_problem.hpp"
#include "ssd_problem.hpp"

namespace plain {  // plain/linear_attention.cpp

void linear_attention(std::size_t batch, std::size_t length, std::size_t nheads, std::size_t groups, std::size_t key,
                      std::size_t value, const float* q, const float* k, const float* v, const float* g, const float* gk,
                      const float* beta, float scale, float* decay, float* u, float* S, float* y);

}  // namespace plain

namespace bench {
namespace {

/// A call of the library with all that it needs.
struct library_call {
    std::shared_ptr<attention_problem> problem;
    std::size_t threads = 1;
    std::shared_ptr<array<float>> y = std::make_shared<array<float>>(problem->v.size());
    ssmkit::linear_attention_args<float> a = problem->args(*y);
    std::shared_ptr<array<std::byte>> memory =
        std::make_shared<array<std::byte>>(ssmkit::linear_attention_workspace_size(a, threads));

    void operator()() const
    {
        const auto run = [&](auto&& exec) {
            const ssmkit::workspace lent(*memory);
            switch (problem->shape.which) {
                case member::linear_attention: return ssmkit::linear_attention(a, lent, exec);
                case member::retention: return ssmkit::retention(a, lent, exec);
                case member::simple_gla: return ssmkit::simple_gla(a, lent, exec);
                case member::gla: return ssmkit::gla(a, lent, exec);
                case member::gated_delta_rule: return ssmkit::gated_delta_rule(a, lent, exec);
            }
        };
        threads == 1 ? run(ssmkit::in_place{}) : run(pool(threads));
    }
};

std::function<void()> plain_call(const std::shared_ptr<attention_problem>& p, const std::shared_ptr<array<float>>& y)
{
    const attention_shape s = p->shape;
    const auto size = [](index extent) { return static_cast<std::size_t>(extent); };
    const auto scratch = std::make_shared<array<float>>(size(s.key + s.value + s.key * s.value));
    return [=] {
        float* const decay = scratch->data();
        plain::linear_attention(size(s.batch), size(s.length), size(s.nheads), size(s.groups), size(s.key), size(s.value),
                                p->q.data(), p->k.data(), p->v.data(), s.by_head() ? p->g.data() : nullptr,
                                s.by_key() ? p->gk.data() : nullptr, s.delta_rule() ? p->beta.data() : nullptr,
                                1 / std::sqrt(static_cast<float>(s.key)), decay, decay + s.key, decay + s.key + s.value, y->data());
    };
}

task ssmkit_task(const attention_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<attention_problem>(s);
    const library_call call{.problem = p, .threads = threads};
    task t;
    t.run = call;
    t.needs = p->needs();
    call();
    array<float> expected = p->expected();
    t.mismatch = mismatch("y", call.a.y, p->args(expected).y);
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", library_call{.problem = p}});
        return t;
    }
    t.rivals.push_back(times_ssd({s.batch, s.length, s.nheads, s.value, s.key}));
    if (s.which != member::retention) {
        t.rivals.push_back({"times_plain", plain_call(p, std::make_shared<array<float>>(p->v.size()))});
    }
    return t;
}

task plain_task(const attention_shape& s)
{
    const auto p = std::make_shared<attention_problem>(s);
    const auto y = std::make_shared<array<float>>(p->v.size());
    task t;
    t.run = plain_call(p, y);
    t.needs = p->needs();
    t.run();
    array<float> expected = p->expected();
    t.mismatch = mismatch("y", p->args(*y).y, p->args(expected).y);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const member which :
         {member::linear_attention, member::retention, member::simple_gla, member::gla, member::gated_delta_rule}) {
        for (const index groups : {1, 24}) {
            const attention_shape s{which, 1, 2048, 24, 128, 64, groups};
            for (const std::size_t n : thread_counts()) {
                rows.push_back({s.op(), "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
            }
            if (which == member::retention) continue;
            rows.push_back({s.op(), "plain", s.name(), "f32", 1, [=] { return plain_task(s); }});
        }
        const attention_shape awkward{which, 2, 509, 6, 37, 51, 3};
        rows.push_back({awkward.op(), "ssmkit", awkward.name(), "f32", 1, [=] { return ssmkit_task(awkward, 1); }});
    }
}};

}  // namespace
}  // namespace bench
