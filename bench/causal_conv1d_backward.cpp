#include <memory>
#include <vector>

#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_backward.hpp>
#include <ssmkit/reference/causal_conv1d_backward.hpp>

#include "causal_conv1d_problem.hpp"

namespace bench {
namespace {

template <class T>
task backward_task(const conv_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<conv_data<T>>(shape);
    const auto memory = std::make_shared<std::vector<std::byte>>(
        ssmkit::causal_conv1d_backward_workspace_size(d->backward_args(), threads));
    task t;
    t.run = [d, memory, threads] {
        if (threads == 1) return ssmkit::causal_conv1d_backward(d->backward_args(), *memory);
        ssmkit::causal_conv1d_backward(d->backward_args(), *memory, pool(threads));
    };
    t.needs = d->needs(3);
    t.needs.fmas *= 3;
    conv_data<T> expected(shape);
    ssmkit::reference::causal_conv1d_backward(expected.backward_args());
    t.run();
    t.mismatch = mismatch("dx", d->tokens(d->dx.data()), d->tokens(expected.dx.data()));
    if (t.mismatch.empty()) t.mismatch = mismatch("dweight", d->backward_args().dweight, expected.backward_args().dweight);
    if (threads == 1) {
        t.rivals.push_back({"times_forward", [d] { ssmkit::causal_conv1d(d->args(d->y.data())); }, true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const bool turned : {false, true}) {
        for (const std::size_t n : thread_counts()) {
            const conv_shape s{.batch = 1, .length = 2048, .dim = 1536, .time_contiguous = turned};
            rows.push_back({"causal_conv1d_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task<float>(s, n); }});
        }
    }
}};

}  // namespace
}  // namespace bench
