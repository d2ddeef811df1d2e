#include <ssmkit/linear_attention_backward.hpp>

#include <memory>

#include <ssmkit/reference/linear_attention_backward.hpp>

#include "linear_attention_problem.hpp"

namespace bench {
namespace {

/// A call with every gradient that the member has, and the forward pass beside it.
struct gradients {
    std::shared_ptr<attention_problem> problem;
    std::size_t threads = 1;
    array<float> dy = fill<float>(problem->v.size(), -1, 1, 11);
    array<float> y = array<float>(problem->v.size()), dv = y;
    array<float> dq = array<float>(problem->q.size()), dk = dq, dgk = array<float>(problem->gk.size());
    array<float> dg = array<float>(static_cast<std::size_t>(problem->shape.batch * problem->shape.length * problem->shape.nheads));
    array<float> dbeta = array<float>(problem->beta.size());
    ssmkit::linear_attention_args<float> forward = problem->args(y);
    ssmkit::linear_attention_backward_args<float> a = args();
    array<std::byte> memory = array<std::byte>(std::max(ssmkit::linear_attention_backward_workspace_size(a, threads),
                                                        ssmkit::linear_attention_workspace_size(forward)));

    ssmkit::linear_attention_backward_args<float> args()
    {
        const attention_shape& s = problem->shape;
        const auto by_key = [&](array<float>& data) {
            return ssmkit::view<float, 4>(data.data(), s.batch, s.length, s.groups, s.key);
        };
        const auto by_head = [&](array<float>& data) { return ssmkit::view<float, 3>(data.data(), s.batch, s.length, s.nheads); };
        ssmkit::linear_attention_backward_args<float> all{.forward = forward,
                                                          .dy = {dy.data(), s.batch, s.length, s.nheads, s.value},
                                                          .dq = by_key(dq),
                                                          .dk = by_key(dk),
                                                          .dv = {dv.data(), s.batch, s.length, s.nheads, s.value}};
        if (s.by_head()) all.dg = by_head(dg);
        if (s.by_key()) all.dgk = by_key(dgk);
        if (s.delta_rule()) all.dbeta = by_head(dbeta);
        return all;
    }

    void run()
    {
        const ssmkit::workspace lent(memory);
        threads == 1 ? ssmkit::linear_attention_backward(a, lent) : ssmkit::linear_attention_backward(a, lent, pool(threads));
    }
};

task ssmkit_task(const attention_shape& shape, std::size_t threads)
{
    const auto p = std::make_shared<attention_problem>(shape);
    const auto own = std::make_shared<gradients>(gradients{.problem = p, .threads = threads});
    own->run();
    gradients expected{.problem = p};
    ssmkit::reference::linear_attention_backward(expected.a);
    task t;
    t.run = [=] { own->run(); };
    // Token by token, per update: the state again (2 multiply-adds), G (2), its products for dk and dv, the state's for dq,
    // and the decay's; the delta rule has two more of G and two of the state.
    t.needs = p->needs();
    t.needs.fmas = (shape.delta_rule() ? 12 : 8) * t.needs.updates;
    t.needs.bytes *= 2;
    t.mismatch = mismatch("dq", own->a.dq, expected.a.dq);
    if (t.mismatch.empty()) t.mismatch = mismatch("dk", own->a.dk, expected.a.dk);
    if (t.mismatch.empty()) t.mismatch = mismatch("dv", own->a.dv, expected.a.dv);
    if (t.mismatch.empty() && shape.by_head()) t.mismatch = mismatch("dg", own->a.dg, expected.a.dg);
    if (t.mismatch.empty() && shape.by_key()) t.mismatch = mismatch("dgk", own->a.dgk, expected.a.dgk);
    if (t.mismatch.empty() && shape.delta_rule()) t.mismatch = mismatch("dbeta", own->a.dbeta, expected.a.dbeta);
    t.counters = {{"workspace_bytes", static_cast<double>(own->memory.size())}};
    if (threads == 1) {
        t.rivals.push_back({"times_forward", [=] { ssmkit::linear_attention(own->forward, ssmkit::workspace(own->memory)); }, true});
    } else {
        const auto alone = std::make_shared<gradients>(gradients{.problem = p});
        t.rivals.push_back({"times_one_thread", [=] { alone->run(); }});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const member which : {member::linear_attention, member::simple_gla, member::gla, member::gated_delta_rule}) {
        for (const index groups : {1, 24}) {
            const attention_shape s{which, 1, 2048, 24, 128, 64, groups};
            for (const std::size_t n : thread_counts()) {
                rows.push_back({"linear_attention_backward", "ssmkit", s.name() + "-" + s.op(), "f32", n,
                                [=] { return ssmkit_task(s, n); }});
            }
        }
    }
}};

}  // namespace
}  // namespace bench
