#include <ssmkit/s5_step.hpp>

#include <memory>

#include <ssmkit/reference/s5_step.hpp>

#include "s5_problem.hpp"

namespace bench {
namespace {

/// A step on s5's data, taken as discrete: a contraction where |A| < 1.
struct step_data {
    s5_data d;
    array<float> h;

    explicit step_data(const s5_shape& s) : d(s), h(fill<float>(static_cast<std::size_t>(2 * s.batch * s.state), -1, 1, 9))
    {
        d.A = fill<float>(d.A.size(), 0.1, 0.6, 1);
    }

    ssmkit::s5_step_args<float> args()
    {
        const auto a = d.args();
        return {.A = a.A, .B = a.B, .C = a.C, .D = a.D, .u = a.u.transposed(0, 1)[0],
                .h = {reinterpret_cast<std::complex<float>*>(h.data()), d.s.batch, d.s.state}, .y = a.y.transposed(0, 1)[0]};
    }
};

task step_task(const s5_shape& shape, bool reference)
{
    const auto d = std::make_shared<step_data>(shape), expected = std::make_shared<step_data>(shape);
    const auto a = d->args(), b = expected->args();
    task t;
    t.run = [d, a, reference] { reference ? ssmkit::reference::s5_step(a) : ssmkit::s5_step(a); };
    t.needs = d->d.needs(2, 2);
    // Every row of B and C is read once for every sequence.
    t.needs.bytes = static_cast<double>(shape.batch) * sizeof(float) * static_cast<double>(d->d.B.size() + d->d.C.size());
    t.needs.working_set = sizeof(float) * static_cast<double>(d->d.B.size() + d->d.C.size() + d->h.size());
    t.needs.kind = traffic::read;
    t.run();
    ssmkit::reference::s5_step(b);
    t.mismatch = mismatch("y", a.y, b.y);
    if (!reference) t.rivals.push_back({"times_reference", [expected, b] { ssmkit::reference::s5_step(b); }});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const auto& [dim, state] : {std::pair<index, index>{16, 32}, {64, 64}, {256, 256}, {1024, 256}}) {
        const s5_shape s{.batch = 1, .length = 1, .dim = dim, .state = state};
        rows.push_back({"s5_step", "ssmkit", s.name(), "f32", 1, [=] { return step_task(s, false); }});
    }
    const s5_shape s{.batch = 1, .length = 1, .dim = 256, .state = 256};
    rows.push_back({"s5_step", "reference", s.name(), "f32", 1, [=] { return step_task(s, true); }});
}};

}  // namespace
}  // namespace bench
