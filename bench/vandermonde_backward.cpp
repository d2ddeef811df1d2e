#include <ssmkit/vandermonde_backward.hpp>

#include <memory>
#include <type_traits>

#include <ssmkit/vandermonde.hpp>
#include <ssmkit/reference/vandermonde_backward.hpp>

#include "vandermonde_problem.hpp"

namespace bench {
namespace {

template <class T>
task ssmkit_task(const vandermonde_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<vandermonde_data<T>>(s);
    task t;
    t.run = with_workspace(ssmkit::vandermonde_backward_workspace_size(d->backward_args(), threads), threads,
                           [d](auto&&... how) { ssmkit::vandermonde_backward(d->backward_args(), how...); });
    t.needs = d->needs(4, 2);
    vandermonde_data<T> oracle(s);
    ssmkit::reference::vandermonde_backward(oracle.backward_args());
    t.run();
    t.mismatch = first_of({mismatch("dw", d->dw, oracle.dw),
                           mismatch("dlog_pole", d->dlog_pole, oracle.dlog_pole, std::is_same_v<T, float> ? of_floats : 1)});
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::vandermonde_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::vandermonde(d->args(), how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const vandermonde_shape& s : vandermonde_shapes) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"vandermonde_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
    }
    rows.push_back({"vandermonde_backward", "ssmkit", vandermonde_shapes[0].name(), "f64", 1, [] {
        return ssmkit_task<double>(vandermonde_shapes[0], 1);
    }});
    rows.push_back({"vandermonde_backward", "reference", vandermonde_shapes[0].name(), "f32", 1, [] {
        const auto d = std::make_shared<vandermonde_data<float>>(vandermonde_shapes[0]);
        task t;
        t.run = [d] { ssmkit::reference::vandermonde_backward(d->backward_args()); };
        t.needs = d->needs(4, 2);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
