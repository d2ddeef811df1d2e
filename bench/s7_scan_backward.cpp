#include <ssmkit/s7_scan_backward.hpp>

#include <memory>

#include <ssmkit/reference/s7_scan_backward.hpp>
#include <ssmkit/s7_scan.hpp>

#include "s7_scan_problem.hpp"

namespace bench {
namespace {

std::string compared(const s7_data& got, s7_data&& oracle)
{
    oracle.make_gradients();
    ssmkit::reference::s7_scan_backward(oracle.backward_args());
    return first_of({mismatch("du", got.du, oracle.du), mismatch("dA", got.dA, oracle.dA), mismatch("dB", got.dB, oracle.dB),
                     mismatch("dC", got.dC, oracle.dC), mismatch("dbias", got.dbias, oracle.dbias)});
}

task ssmkit_task(const s7_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<s7_data>(s);
    d->make_gradients();
    const auto a = d->backward_args();
    task t;
    t.run = with_workspace(ssmkit::s7_scan_backward_workspace_size(a, threads), threads,
                           [d, a](auto&&... how) { ssmkit::s7_scan_backward(a, how...); });
    t.needs = d->needs(true);
    t.run();
    t.mismatch = compared(*d, s7_data(s));
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::s7_scan_workspace_size(a.forward), 1,
                                                            [d, a](auto&&... how) { ssmkit::s7_scan(a.forward, how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s7_shape& s : s7_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"s7_scan_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
