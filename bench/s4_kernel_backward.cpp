#include <ssmkit/s4_kernel_backward.hpp>

#include <memory>

#include <ssmkit/reference/s4_kernel_backward.hpp>
#include <ssmkit/s4_kernel.hpp>

#include "s4_kernel_problem.hpp"

namespace bench {
namespace {

/// Every gradient of the float kernel against those of `exact`.
std::string compared(const s4_kernel_data<float>& got, const s4_kernel_data<double>& exact)
{
    const auto as_float = [](const array<std::complex<double>>& x) { return array<std::complex<float>>(x.begin(), x.end()); };
    return first_of({mismatch("dC", got.dC, as_float(exact.dC)), mismatch("dB", got.dB, as_float(exact.dB)),
                     mismatch("dP", got.dP, as_float(exact.dP)), mismatch("dA", got.dA, exact.dA, of_floats),
                     mismatch("ddelta", got.ddelta, exact.ddelta, of_floats)});
}

/// A smaller problem against the reference, and all of the row's against the double kernel.
std::string compared(const s4_kernel_data<float>& d)
{
    s4_kernel_data<float> small(d.s.small());
    s4_kernel_data<double> oracle(small.s), exact(d.s);
    ssmkit::s4_kernel_backward(small.backward_args());
    ssmkit::reference::s4_kernel_backward(oracle.backward_args());
    ssmkit::s4_kernel_backward(exact.backward_args());
    return first_of({compared(small, oracle), compared(d, exact)});
}

task ssmkit_task(const s4_kernel_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<s4_kernel_data<float>>(s);
    const auto a = d->backward_args();
    task t;
    t.run = with_workspace(ssmkit::s4_kernel_backward_workspace_size(a, threads), threads,
                           [d, a](auto&&... how) { ssmkit::s4_kernel_backward(a, how...); });
    t.needs = d->backward_needs();
    t.run();
    t.mismatch = compared(*d);
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::s4_kernel_workspace_size(a.forward), 1,
                                                            [d, a](auto&&... how) { ssmkit::s4_kernel(a.forward, how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s4_kernel_shape& s : {s4_kernel_shape{256, 32, 1024}, {64, 32, 4096, 2}, {64, 31, 1021}}) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"s4_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
