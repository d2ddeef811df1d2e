#include <ssmkit/ema_kernel_backward.hpp>

#include <memory>

#include <ssmkit/ema_kernel.hpp>
#include <ssmkit/reference/ema_kernel_backward.hpp>

#include "ema_kernel_problem.hpp"

namespace bench {
namespace {

task ssmkit_task(const ema_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<ema_data>(s);
    task t;
    t.run = with_workspace(ssmkit::ema_kernel_backward_workspace_size(d->backward_args(), threads), threads,
                           [d](auto&&... how) { ssmkit::ema_kernel_backward(d->backward_args(), how...); });
    t.needs = d->needs(2);
    ema_data oracle(s);
    ssmkit::reference::ema_kernel_backward(oracle.backward_args());
    t.run();
    t.mismatch = first_of({mismatch("ddelta", d->ddelta, oracle.ddelta), mismatch("dalpha", d->dalpha, oracle.dalpha),
                           mismatch("dbeta", d->dbeta, oracle.dbeta), mismatch("dgamma", d->dgamma, oracle.dgamma)});
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::ema_kernel_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::ema_kernel(d->args(), how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const ema_shape& s : ema_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"ema_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
