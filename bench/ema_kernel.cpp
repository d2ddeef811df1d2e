#include <ssmkit/ema_kernel.hpp>

#include <memory>

#include <ssmkit/reference/ema_kernel.hpp>

#include "ema_kernel_problem.hpp"

namespace bench {
namespace {

task ssmkit_task(const ema_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<ema_data>(s);
    task t;
    t.run = with_workspace(ssmkit::ema_kernel_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::ema_kernel(d->args(), how...); });
    t.needs = d->needs(1);
    ema_data oracle(s);
    ssmkit::reference::ema_kernel(oracle.args());
    t.run();
    t.mismatch = mismatch("K", d->K, oracle.K);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const ema_shape& s : ema_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"ema_kernel", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
    rows.push_back({"ema_kernel", "reference", ema_shapes[0].name(), "f32", 1, [] {
        const auto d = std::make_shared<ema_data>(ema_shapes[0]);
        task t;
        t.run = [d] { ssmkit::reference::ema_kernel(d->args()); };
        t.needs = d->needs(1);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
