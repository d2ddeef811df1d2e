#include <ssmkit/convs5.hpp>

#include <memory>

#include <ssmkit/reference/convs5.hpp>

#include "convs5_problem.hpp"

namespace bench {
namespace {

std::string compared(const convs5_shape& s)
{
    convs5_data got(s), oracle(s);
    ssmkit::convs5(got.args());
    ssmkit::reference::convs5(oracle.args());
    return mismatch("y", got.y, oracle.y);
}

task ssmkit_task(const convs5_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<convs5_data>(s);
    task t;
    t.run = with_workspace(ssmkit::convs5_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::convs5(d->args(), how...); });
    t.needs = d->needs(2);
    t.mismatch = compared(s.small());
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const convs5_shape& s : convs5_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"convs5", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
    const convs5_shape small = convs5_shapes[1].small();
    rows.push_back({"convs5", "reference", small.name(), "f32", 1, [=] {
        const auto d = std::make_shared<convs5_data>(small);
        task t;
        t.run = [d] { ssmkit::reference::convs5(d->args()); };
        t.needs = d->needs(2);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
