#include <ssmkit/dss_kernel.hpp>

#include <memory>

#include <ssmkit/reference/dss_kernel.hpp>

#include "dss_kernel_problem.hpp"

namespace bench {
namespace {

task forward_task(const dss_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<dss_data>(s);
    return checked(
        d, d->needs(1), with_workspace(ssmkit::dss_kernel_workspace_size(d->args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::dss_kernel(d->args(), how...); }),
        [](dss_data& e) { ssmkit::reference::dss_kernel(e.args()); },
        [](const dss_data& got, const dss_data& expected) { return mismatch("K", got.K, expected.K); });
}

task reference_task(const dss_shape& s)
{
    const auto d = std::make_shared<dss_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::dss_kernel(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const dss_shape& s : dss_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"dss_kernel", "ssmkit", s.name(), "f32", n, [=] { return forward_task(s, n); }});
    }
    rows.push_back({"dss_kernel", "reference", dss_shapes[0].name(), "f32", 1, [] { return reference_task(dss_shapes[0]); }});
}};

}  // namespace
}  // namespace bench
