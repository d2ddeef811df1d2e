#include <ssmkit/vandermonde.hpp>

#include <memory>

#include <ssmkit/reference/vandermonde.hpp>

#include "vandermonde_problem.hpp"

namespace bench {
namespace {

template <class T>
task ssmkit_task(const vandermonde_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<vandermonde_data<T>>(s);
    task t;
    t.run = with_workspace(ssmkit::vandermonde_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::vandermonde(d->args(), how...); });
    t.needs = d->needs(2, 1);
    vandermonde_data<T> oracle(s);
    ssmkit::reference::vandermonde(oracle.args());
    t.run();
    t.mismatch = mismatch("K", d->K, oracle.K);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const vandermonde_shape& s : vandermonde_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"vandermonde", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
    }
    rows.push_back({"vandermonde", "ssmkit", vandermonde_shapes[0].name(), "f64", 1, [] {
        return ssmkit_task<double>(vandermonde_shapes[0], 1);
    }});
    rows.push_back({"vandermonde", "reference", vandermonde_shapes[0].name(), "f32", 1, [] {
        const auto d = std::make_shared<vandermonde_data<float>>(vandermonde_shapes[0]);
        task t;
        t.run = [d] { ssmkit::reference::vandermonde(d->args()); };
        t.needs = d->needs(2, 1);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
