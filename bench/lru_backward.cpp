#include <ssmkit/lru_backward.hpp>

#include <memory>

#include <ssmkit/lru.hpp>
#include <ssmkit/reference/lru_backward.hpp>

#include "lru_problem.hpp"

namespace bench {
namespace {

std::string compared(const lru_shape& s)
{
    lru_data got(s), oracle(s);
    got.make_gradients(), oracle.make_gradients();
    ssmkit::lru_backward(got.backward_args());
    ssmkit::reference::lru_backward(oracle.backward_args());
    return first_of({mismatch("du", got.du, oracle.du), mismatch("dnu_log", got.dnu, oracle.dnu),
                     mismatch("dtheta_log", got.dtheta, oracle.dtheta), mismatch("dgamma_log", got.dgamma, oracle.dgamma),
                     mismatch("dB", got.dB, oracle.dB), mismatch("dC", got.dC, oracle.dC), mismatch("dD", got.dD, oracle.dD)});
}

task ssmkit_task(const lru_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<lru_data>(s);
    d->make_gradients();
    const auto a = d->backward_args();
    task t;
    t.run = with_workspace(ssmkit::lru_backward_workspace_size(a, threads), threads,
                           [d, a](auto&&... how) { ssmkit::lru_backward(a, how...); });
    t.needs = d->needs(5, 4);  // as s5_backward's
    t.mismatch = compared(s.small());
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::lru_workspace_size(a.forward), 1,
                                                            [d, a](auto&&... how) { ssmkit::lru(a.forward, how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const lru_shape& s : lru_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"lru_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
