#include <ssmkit/ssd_backward.hpp>

#include <memory>

#include <ssmkit/reference/ssd_backward.hpp>
#include <ssmkit/ssd.hpp>

#include "ssd_problem.hpp"

namespace bench {
namespace {

/// A call with every gradient, and the forward pass beside it.
struct gradients {
    std::shared_ptr<ssd_problem<float>> problem;
    std::size_t threads = 1;
    array<float> dy = fill<float>(problem->u.size(), -1, 1, 11);
    array<float> y = array<float>(problem->u.size()), du = y, dz = y, ddelta = array<float>(problem->delta.size());
    array<float> dA = array<float>(problem->A.size()), dD = dA, ddelta_bias = dA;
    array<float> dB = array<float>(problem->B.size()), dC = dB;
    ssmkit::ssd_args<float> forward = problem->args(y);
    ssmkit::ssd_backward_args<float> a = args();
    array<std::byte> memory = array<std::byte>(
        std::max(ssmkit::ssd_backward_workspace_size(a, threads), ssmkit::ssd_workspace_size(forward)));

    ssmkit::ssd_backward_args<float> args()
    {
        const ssd_shape& s = problem->shape;
        const auto tokens = [&](array<float>& data) {
            return ssmkit::view<float, 4>(data.data(), s.batch, s.length, s.nheads, s.headdim);
        };
        const auto map = [&](array<float>& data) {
            return ssmkit::view<float, 4>(data.data(), s.batch, s.length, s.groups, s.state);
        };
        ssmkit::ssd_backward_args<float> all{.forward = forward,
                                             .dy = tokens(dy),
                                             .du = tokens(du),
                                             .ddelta = {ddelta.data(), s.batch, s.length, s.nheads},
                                             .dA = {dA.data(), s.nheads},
                                             .dB = map(dB),
                                             .dC = map(dC),
                                             .dD = ssmkit::summed_over_head(ssmkit::view<float, 1>(dD.data(), s.nheads), s.headdim),
                                             .ddelta_bias = {ddelta_bias.data(), s.nheads}};
        if (s.gated) all.dz = tokens(dz);
        return all;
    }

    void run()
    {
        if (threads == 1) {
            ssmkit::ssd_backward(a, ssmkit::workspace(memory));
        } else {
            ssmkit::ssd_backward(a, ssmkit::workspace(memory), pool(threads));
        }
    }
};

task ssmkit_task(const ssd_shape& shape, std::size_t threads)
{
    const auto p = std::make_shared<ssd_problem<float>>(shape);
    const auto own = std::make_shared<gradients>(gradients{.problem = p, .threads = threads});
    own->run();
    gradients expected{.problem = p};
    ssmkit::reference::ssd_backward(expected.a);
    task t;
    t.run = [=] { own->run(); };
    // Five products with a state where the forward pass has two, and one more for the output where there is a gate.
    t.needs = p->needs();
    t.needs.fmas *= shape.gated ? 3.5 : 3;
    t.needs.bytes *= 2;
    t.mismatch = mismatch("du", own->a.du, expected.a.du);
    if (t.mismatch.empty()) t.mismatch = mismatch("dB", own->a.dB, expected.a.dB);
    if (t.mismatch.empty()) t.mismatch = mismatch("dC", own->a.dC, expected.a.dC);
    if (t.mismatch.empty()) t.mismatch = mismatch("ddelta", own->a.ddelta, expected.a.ddelta);
    t.counters = {{"workspace_bytes", static_cast<double>(own->memory.size())}};
    if (threads == 1) {
        t.rivals.push_back({"times_forward", [=] { ssmkit::ssd(own->forward, ssmkit::workspace(own->memory)); }, true});
    } else {
        const auto alone = std::make_shared<gradients>(gradients{.problem = p});
        t.rivals.push_back({"times_one_thread", [=] { alone->run(); }});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (ssd_shape shape : {ssd_shape{1, 2048, 24, 64, 128}, {4, 512, 24, 64, 128}, {1, 509, 7, 37, 51}}) {
        for (const bool gated : {false, true}) {
            shape.gated = gated;
            for (const std::size_t threads : thread_counts()) {
                rows.push_back({"ssd_backward", "ssmkit", shape.name(), "f32", threads, [=] { return ssmkit_task(shape, threads); }});
            }
        }
    }
}};

}  // namespace
}  // namespace bench
