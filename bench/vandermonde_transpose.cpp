#include <ssmkit/vandermonde_transpose.hpp>

#include <memory>

#include <ssmkit/reference/vandermonde_transpose.hpp>

#include "vandermonde_problem.hpp"

namespace bench {
namespace {

template <class T>
task ssmkit_task(const vandermonde_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<vandermonde_data<T>>(s);
    task t;
    t.run = with_workspace(ssmkit::vandermonde_transpose_workspace_size(d->transpose_args(), threads), threads,
                           [d](auto&&... how) { ssmkit::vandermonde_transpose(d->transpose_args(), how...); });
    t.needs = d->needs(4, 2);
    vandermonde_data<T> oracle(s);
    ssmkit::reference::vandermonde_transpose(oracle.transpose_args());
    t.run();
    t.mismatch = first_of({mismatch("sum", d->sum, oracle.sum), mismatch("weighted", d->weighted, oracle.weighted)});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const vandermonde_shape& s : vandermonde_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"vandermonde_transpose", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
    }
    rows.push_back({"vandermonde_transpose", "ssmkit", vandermonde_shapes[0].name(), "f64", 1, [] {
        return ssmkit_task<double>(vandermonde_shapes[0], 1);
    }});
    rows.push_back({"vandermonde_transpose", "reference", vandermonde_shapes[0].name(), "f32", 1, [] {
        const auto d = std::make_shared<vandermonde_data<float>>(vandermonde_shapes[0]);
        task t;
        t.run = [d] { ssmkit::reference::vandermonde_transpose(d->transpose_args()); };
        t.needs = d->needs(4, 2);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
