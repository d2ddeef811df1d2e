#include <ssmkit/cauchy_backward.hpp>

#include <memory>

#include <ssmkit/cauchy.hpp>
#include <ssmkit/reference/cauchy_backward.hpp>

#include "cauchy_problem.hpp"

namespace bench {
namespace {

template <class T>
task ssmkit_task(const cauchy_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<cauchy_data<T>>(s);
    task t;
    t.run = with_workspace(ssmkit::cauchy_backward_workspace_size(d->backward_args(), threads), threads,
                           [d](auto&&... how) { ssmkit::cauchy_backward(d->backward_args(), how...); });
    t.needs = d->needs();
    t.needs.fmas *= 2;  // each pole of a pair by itself
    cauchy_data<T> oracle(s);
    ssmkit::reference::cauchy_backward(oracle.backward_args());
    t.run();
    t.mismatch = first_of({mismatch("dv", d->dv, oracle.dv), mismatch("dw", d->dw, oracle.dw, 5)});
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::cauchy_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::cauchy(d->args(), how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const cauchy_shape& s : {cauchy_shape{4, 256, 32, 513}, {4, 64, 31, 2051}}) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"cauchy_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
