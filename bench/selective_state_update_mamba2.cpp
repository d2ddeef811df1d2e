// Mamba-2's decoding step: one decay a head, states of (headdim, state). Memory is all there is to it, so that each row is
// compared, in turns, with the least that touches the same bytes: x = a x + b over an array of the state's size.

#include <memory>

#include <ssmkit/reference/selective_state_update.hpp>
#include <ssmkit/selective_state_update.hpp>

#include "harness.hpp"
#include "update_in_place.hpp"

namespace plain {  // plain/selective_state_update_mamba2.cpp

void selective_state_update_mamba2(std::size_t batch, std::size_t nheads, std::size_t headdim, std::size_t state, const float* u,
                                   const float* delta, const float* A, const float* B, const float* C, float* h, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index;

struct decode_shape {
    index batch, nheads, headdim = 64, state = 128;

    std::string name() const
    {
        return std::to_string(batch) + "x" + std::to_string(nheads) + "x" + std::to_string(headdim) + "x" + std::to_string(state);
    }
};

struct decode_problem {
    decode_shape shape;
    array<float> u, delta, A, B, C, h, y;

    explicit decode_problem(const decode_shape& s) : shape(s)
    {
        const auto rows = static_cast<std::size_t>(s.batch), heads = static_cast<std::size_t>(s.batch * s.nheads);
        const auto channels = heads * static_cast<std::size_t>(s.headdim);
        u = fill<float>(channels, -1, 1, 1);
        delta = fill<float>(heads, -6, -1, 2);
        A = fill<float>(static_cast<std::size_t>(s.nheads), -16, -1, 3);
        B = fill<float>(rows * static_cast<std::size_t>(s.state), -1, 1, 4);
        C = fill<float>(B.size(), -1, 1, 5);
        h = fill<float>(channels * static_cast<std::size_t>(s.state), -1, 1, 6);
        y.resize(channels);
    }

    ssmkit::selective_state_update_args<float> args()
    {
        const auto [batch, nheads, headdim, state] = shape;
        return {.h = {h.data(), batch, nheads, headdim, state},
                .u = {u.data(), batch, nheads, headdim},
                .delta = ssmkit::tied_over_head(ssmkit::view<const float, 2>(delta.data(), batch, nheads), headdim),
                .A = ssmkit::tied_over_head(ssmkit::view<const float, 1>(A.data(), nheads), headdim, state),
                .B = {B.data(), batch, 1, state},
                .C = {C.data(), batch, 1, state},
                .delta_softplus = true,
                .y = {y.data(), batch, nheads, headdim}};
    }

    /// Per update the input's product, h and y; the state is read and written in place.
    work needs() const
    {
        work w;
        w.token_channels = static_cast<double>(u.size());
        w.updates = static_cast<double>(h.size());
        w.exps = static_cast<double>(delta.size());
        w.fmas = 3 * w.updates + 28 * w.exps;
        w.working_set = sizeof(float) * static_cast<double>(h.size() + 2 * u.size() + delta.size() + B.size() + C.size());
        w.bytes = w.working_set + sizeof(float) * w.updates;
        w.kind = traffic::update;
        return w;
    }
};

std::function<void()> library_call(const std::shared_ptr<decode_problem>& p, std::size_t threads)
{
    return [p, threads, a = p->args()] {
        if (threads == 1) {
            ssmkit::selective_state_update(a);
        } else {
            ssmkit::selective_state_update(a, pool(threads));
        }
    };
}

std::function<void()> plain_call(const std::shared_ptr<decode_problem>& p)
{
    const auto size = [](index extent) { return static_cast<std::size_t>(extent); };
    return [=] {
        plain::selective_state_update_mamba2(size(p->shape.batch), size(p->shape.nheads), size(p->shape.headdim), size(p->shape.state),
                                             p->u.data(), p->delta.data(), p->A.data(), p->B.data(), p->C.data(), p->h.data(),
                                             p->y.data());
    };
}

task checked(const decode_shape& shape, std::function<void()> (*make)(const std::shared_ptr<decode_problem>&, std::size_t),
             std::size_t threads)
{
    const auto p = std::make_shared<decode_problem>(shape), oracle = std::make_shared<decode_problem>(shape);
    task t;
    t.run = make(p, threads);
    t.needs = p->needs();
    t.run();
    ssmkit::reference::selective_state_update(oracle->args());
    t.mismatch = mismatch("y", p->args().y, oracle->args().y);
    if (t.mismatch.empty()) t.mismatch = mismatch("h", p->args().h, oracle->args().h);
    return t;
}

task ssmkit_task(const decode_shape& shape, std::size_t threads)
{
    task t = checked(shape, library_call, threads);
    t.rivals.push_back(share_of_update_in_place(static_cast<std::size_t>(t.needs.updates), threads));
    if (threads == 1) t.rivals.push_back({"times_plain", plain_call(std::make_shared<decode_problem>(shape))});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const index batch : {1, 8, 64}) {
        for (const index nheads : {24, 80}) {
            const decode_shape shape{batch, nheads};
            for (const std::size_t n : thread_counts()) {
                rows.push_back({"selective_state_update_mamba2", "ssmkit", shape.name(), "f32", n, [=] { return ssmkit_task(shape, n); }});
            }
            rows.push_back({"selective_state_update_mamba2", "plain", shape.name(), "f32", 1, [=] {
                                return checked(
                                    shape,
                                    [](const std::shared_ptr<decode_problem>& p, std::size_t) -> std::function<void()> {
                                        return plain_call(p);
                                    },
                                    1);
                            }});
        }
    }
}};

}  // namespace
}  // namespace bench
