#include <ssmkit/dss_kernel_backward.hpp>

#include <memory>

#include <ssmkit/dss_kernel.hpp>
#include <ssmkit/reference/dss_kernel_backward.hpp>

#include "dss_kernel_problem.hpp"

namespace bench {
namespace {

task backward_task(const dss_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<dss_data>(s);
    task t = checked(
        d, d->needs(2), with_workspace(ssmkit::dss_kernel_backward_workspace_size(d->backward_args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::dss_kernel_backward(d->backward_args(), how...); }),
        [](dss_data& e) { ssmkit::reference::dss_kernel_backward(e.backward_args()); },
        [](const dss_data& got, const dss_data& expected) {
            return first_of({mismatch("dW", got.dW, expected.dW), mismatch("dA", got.dA, expected.dA, of_floats),
                             mismatch("ddelta", got.ddelta, expected.ddelta, of_floats)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", with_workspace(ssmkit::dss_kernel_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::dss_kernel(d->args(), how...); }), true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const dss_shape& s : dss_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"dss_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
