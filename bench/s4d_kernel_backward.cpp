#include <ssmkit/s4d_kernel_backward.hpp>

#include <memory>

#include <ssmkit/reference/s4d_kernel_backward.hpp>

#include "s4d_kernel_problem.hpp"

namespace bench {
namespace {

/// Complex numbers as reals.
template <class R>
view<const R, 1> parts(const array<std::complex<R>>& x)
{
    return {reinterpret_cast<const R*>(x.data()), static_cast<index>(2 * x.size())};
}

template <class T>
task ssmkit_task(const s4d_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<s4d_data<T>>(shape, true), oracle = std::make_shared<s4d_data<T>>(shape, true);
    ssmkit::reference::s4d_kernel_backward(oracle->backward_args());
    const auto memory =
        std::make_shared<std::vector<std::byte>>(ssmkit::s4d_kernel_backward_workspace_size(d->backward_args(), threads));
    task t;
    t.run = [=] {
        threads == 1 ? ssmkit::s4d_kernel_backward(d->backward_args(), *memory)
                     : ssmkit::s4d_kernel_backward(d->backward_args(), *memory, pool(threads));
    };
    t.run();
    t.needs = d->needs(true);
    t.mismatch = mismatch("dC", parts(d->dC), parts(oracle->dC));
    if (t.mismatch.empty()) t.mismatch = mismatch("dA", parts(d->dA), parts(oracle->dA), 1e5);  // of float sums
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::s4d_kernel(d->args()); }, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s4d_shape& s : s4d_shapes) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"s4d_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
        }
    }
}};

}  // namespace
}  // namespace bench
