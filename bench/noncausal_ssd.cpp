// ssd without an order, beside ssd at the same number of state updates.

#include <ssmkit/noncausal_ssd.hpp>

#include <memory>

#include <ssmkit/reference/noncausal_ssd.hpp>

#include "ssd_problem.hpp"

namespace bench {
namespace {

struct noncausal_call {
    std::shared_ptr<ssd_problem<float>> problem;
    std::shared_ptr<array<float>> y = std::make_shared<array<float>>(problem->u.size());
    ssmkit::noncausal_ssd_args<float> a = args();
    std::shared_ptr<array<std::byte>> memory = std::make_shared<array<std::byte>>(ssmkit::noncausal_ssd_workspace_size(a));

    ssmkit::noncausal_ssd_args<float> args() const
    {
        const auto as_ssd = problem->args(*y);
        return {.u = as_ssd.u, .delta = as_ssd.delta, .B = as_ssd.B, .C = as_ssd.C, .delta_softplus = true, .y = as_ssd.y};
    }

    void operator()() const { ssmkit::noncausal_ssd(a, ssmkit::workspace(*memory)); }
};

task noncausal_task(const ssd_shape& s)
{
    const noncausal_call call{std::make_shared<ssd_problem<float>>(s)}, oracle{call.problem};
    task t;
    t.run = call;
    t.needs = call.problem->needs();
    t.needs.exps = 0;
    t.needs.fmas = 2 * t.needs.updates + 2 * t.needs.token_channels;
    call();
    ssmkit::reference::noncausal_ssd(oracle.a);
    t.mismatch = mismatch("y", call.a.y, oracle.a.y);
    t.rivals.push_back(times_ssd(s));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const ssd_shape image{1, 2048, 24, 64, 128};
    rows.push_back({"noncausal_ssd", "ssmkit", image.name(), "f32", 1, [=] { return noncausal_task(image); }});
}};

}  // namespace
}  // namespace bench
