#include <ssmkit/s7_scan.hpp>

#include <memory>

#include <ssmkit/reference/s7_scan.hpp>

#include "s7_scan_problem.hpp"

namespace bench {
namespace {

task ssmkit_task(const s7_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<s7_data>(s), oracle = std::make_shared<s7_data>(s);
    task t;
    t.run = with_workspace(ssmkit::s7_scan_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::s7_scan(d->args(), how...); });
    t.needs = d->needs(false);
    ssmkit::reference::s7_scan(oracle->args());
    t.run();
    t.mismatch = mismatch("y", d->y, oracle->y);
    if (threads == 1) t.rivals.push_back({"times_reference", [oracle] { ssmkit::reference::s7_scan(oracle->args()); }});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s7_shape& s : s7_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"s7_scan", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
    rows.push_back({"s7_scan", "reference", s7_shapes[1].name(), "f32", 1, [] {
        const auto d = std::make_shared<s7_data>(s7_shapes[1]);
        task t;
        t.run = [d] { ssmkit::reference::s7_scan(d->args()); };
        t.needs = d->needs(false);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
