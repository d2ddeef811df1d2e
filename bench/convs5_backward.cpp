#include <ssmkit/convs5_backward.hpp>

#include <memory>

#include <ssmkit/convs5.hpp>
#include <ssmkit/reference/convs5_backward.hpp>

#include "convs5_problem.hpp"

namespace bench {
namespace {

std::string compared(const convs5_shape& s)
{
    convs5_data got(s), oracle(s);
    ssmkit::convs5_backward(got.backward_args());
    ssmkit::reference::convs5_backward(oracle.backward_args());
    return first_of({mismatch("du", got.du, oracle.du), mismatch("dA", got.dA, oracle.dA), mismatch("dB", got.dB, oracle.dB),
                     mismatch("dC", got.dC, oracle.dC)});
}

task ssmkit_task(const convs5_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<convs5_data>(s);
    const auto a = d->backward_args();
    task t;
    t.run = with_workspace(ssmkit::convs5_backward_workspace_size(a, threads), threads,
                           [d, a](auto&&... how) { ssmkit::convs5_backward(a, how...); });
    t.needs = d->needs(5, 3);
    t.mismatch = compared(s.small());
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::convs5_workspace_size(a.forward), 1,
                                                            [d, a](auto&&... how) { ssmkit::convs5(a.forward, how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const convs5_shape& s : convs5_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"convs5_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
