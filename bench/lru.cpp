#include <ssmkit/lru.hpp>

#include <memory>

#include <ssmkit/reference/lru.hpp>

#include "lru_problem.hpp"

namespace bench {
namespace {

std::string compared(const lru_shape& s)
{
    lru_data got(s), oracle(s);
    ssmkit::lru(got.args());
    ssmkit::reference::lru(oracle.args());
    return mismatch("y", got.y, oracle.y);
}

task ssmkit_task(const lru_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<lru_data>(s);
    task t;
    t.run = with_workspace(ssmkit::lru_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::lru(d->args(), how...); });
    t.needs = d->needs(2, 2);
    t.mismatch = compared(s.small());
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const lru_shape& s : lru_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"lru", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
    const lru_shape small = lru_shapes[0].small();
    rows.push_back({"lru", "reference", small.name(), "f32", 1, [=] {
        const auto d = std::make_shared<lru_data>(small);
        task t;
        t.run = [d] { ssmkit::reference::lru(d->args()); };
        t.needs = d->needs(2, 2);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
