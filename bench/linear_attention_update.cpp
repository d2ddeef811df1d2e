// The decoding step of linear attention's members. Memory is all there is to it for large states, so that each row is compared,
// in turns, with the least that touches the same bytes: x = a x + b over an array of the state's size.

#include <ssmkit/linear_attention_update.hpp>

#include <memory>

#include <ssmkit/reference/linear_attention_update.hpp>

#include "linear_attention_problem.hpp"
#include "update_in_place.hpp"

namespace bench {
namespace {

/// A token of every sequence of the batch, and the states.
struct step_problem {
    attention_problem token;
    array<float> S, y;

    explicit step_problem(const attention_shape& s)
        : token(s), S(fill<float>(static_cast<std::size_t>(s.batch * s.nheads * s.key * s.value), -1, 1, 7)), y(token.v.size())
    {
    }

    ssmkit::linear_attention_update_args<float> args()
    {
        const auto [which, batch, length, nheads, key, value, groups] = token.shape;
        ssmkit::linear_attention_update_args<float> a{.S = {S.data(), batch, nheads, key, value},
                                                      .q = {token.q.data(), batch, groups, key},
                                                      .k = {token.k.data(), batch, groups, key},
                                                      .v = {token.v.data(), batch, nheads, value},
                                                      .y = {y.data(), batch, nheads, value}};
        if (token.shape.by_head()) a.g = {token.g.data(), batch, nheads};
        if (token.shape.by_key()) a.gk = {token.gk.data(), batch, groups, key};
        if (token.shape.delta_rule()) a.beta = {token.beta.data(), batch, nheads};
        return a;
    }

    /// Per update the input's product, S and y; the delta rule reads the decayed state once more.
    work needs() const
    {
        work w = token.needs();
        w.exps = token.shape.by_key() ? w.exps : static_cast<double>(token.g.size());
        w.fmas = (token.shape.delta_rule() ? 5 : 3) * w.updates;
        w.working_set = w.bytes + sizeof(float) * w.updates;
        w.bytes = w.working_set + sizeof(float) * w.updates;
        w.kind = traffic::update;
        return w;
    }
};

task ssmkit_task(const attention_shape& shape, std::size_t threads)
{
    const auto p = std::make_shared<step_problem>(shape), oracle = std::make_shared<step_problem>(shape);
    task t;
    t.run = [p, threads, a = p->args()] {
        threads == 1 ? ssmkit::linear_attention_update(a) : ssmkit::linear_attention_update(a, pool(threads));
    };
    t.needs = p->needs();
    t.run();
    ssmkit::reference::linear_attention_update(oracle->args());
    t.mismatch = mismatch("y", p->args().y, oracle->args().y);
    if (t.mismatch.empty()) t.mismatch = mismatch("S", p->args().S, oracle->args().S);
    p->S.assign(p->S.size(), 0.0f);  // undecayed, it would take in the token again and again
    t.rivals.push_back(share_of_update_in_place(p->S.size(), threads));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const member which : {member::linear_attention, member::simple_gla, member::gla, member::gated_delta_rule}) {
        for (const index batch : {1, 8, 64}) {
            const attention_shape s{which, batch, 1, 24, 128, 64, 24};
            for (const std::size_t n : thread_counts()) {
                rows.push_back({"linear_attention_update", "ssmkit", s.name() + "-" + s.op(), "f32", n,
                                [=] { return ssmkit_task(s, n); }});
            }
        }
    }
}};

}  // namespace
}  // namespace bench
