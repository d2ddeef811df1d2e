#include <ssmkit/s4_kernel.hpp>

#include <memory>
#include <type_traits>

#include <ssmkit/reference/s4_kernel.hpp>

#include "s4_kernel_problem.hpp"

namespace bench {
namespace {

/// A smaller problem against the reference, and all of the row's against the double kernel.
template <class T>
std::string compared(const s4_kernel_data<T>& d)
{
    s4_kernel_data<T> got(d.s.small()), oracle(d.s.small());
    ssmkit::s4_kernel(got.args());
    ssmkit::reference::s4_kernel(oracle.args());
    s4_kernel_data<double> exact(d.s);
    ssmkit::s4_kernel(exact.args());
    return first_of({mismatch("K", got.K, oracle.K), mismatch("K", d.K, array<T>(exact.K.begin(), exact.K.end()))});
}

template <class T>
task ssmkit_task(const s4_kernel_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<s4_kernel_data<T>>(s);
    task t;
    t.run = with_workspace(ssmkit::s4_kernel_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::s4_kernel(d->args(), how...); });
    t.needs = d->needs();
    t.run();
    t.mismatch = compared(*d);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&]<class T>(std::type_identity<T>, const s4_kernel_shape& s) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"s4_kernel", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return ssmkit_task<T>(s, n); }});
    };
    for (const s4_kernel_shape& s :
         {s4_kernel_shape{256, 32, 1024}, {256, 32, 16384}, {256, 32, 1021}, {64, 31, 2000}, {64, 32, 4096, 2}})
        add(std::type_identity<float>{}, s);
    add(std::type_identity<double>{}, {64, 32, 4096});
    const s4_kernel_shape tiny{1, 8, 64};
    rows.push_back({"s4_kernel", "reference", tiny.name(), "f32", 1, [=] {
        const auto d = std::make_shared<s4_kernel_data<float>>(tiny);
        task t;
        t.run = [d] { ssmkit::reference::s4_kernel(d->args()); };
        t.needs = d->needs();
        return t;
    }});
}};

}  // namespace
}  // namespace bench
