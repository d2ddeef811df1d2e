#include <ssmkit/linear_scan_backward.hpp>

#include <complex>
#include <memory>
#include <type_traits>

#include <ssmkit/linear_scan.hpp>
#include <ssmkit/reference/linear_scan_backward.hpp>

#include "linear_scan_problem.hpp"

namespace bench {
namespace {

template <class T>
task ssmkit_task(const linear_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<linear_data<T>>(shape, true), oracle = std::make_shared<linear_data<T>>(shape, true);
    // The backward pass takes the states that the forward pass put out.
    ssmkit::linear_scan(d->args(d->h.data()));
    ssmkit::linear_scan(oracle->args(oracle->h.data()));
    ssmkit::reference::linear_scan_backward(oracle->backward_args());
    const auto a = d->backward_args();
    task t;
    t.run = [=] { threads == 1 ? ssmkit::linear_scan_backward(a) : ssmkit::linear_scan_backward(a, pool(threads)); };
    t.run();
    // h and dh are read and db is written; a factor a token is read, its gradient written.
    t.needs = d->needs(shape.varying ? 5 : 3);
    t.needs.fmas *= 2;
    t.mismatch = mismatch("db", d->numbers(d->db), d->numbers(oracle->db), 5);
    if (t.mismatch.empty()) t.mismatch = mismatch("da", d->numbers(d->da), d->numbers(oracle->da), 5);
    if (threads == 1) {
        t.rivals.push_back({"times_forward", [d] { ssmkit::linear_scan(d->args(d->copy.data())); }, true});
    } else {
        t.rivals.push_back({"times_one_thread", [=] { ssmkit::linear_scan_backward(a); }});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto both = [&]<class T>(std::type_identity<T>) {
        for (const bool varying : {false, true}) {
            for (const bool turned : {false, true}) {
                const linear_shape s{.batch = 8, .length = 4096, .state = 256, .varying = varying, .time_contiguous = turned};
                for (const std::size_t n : thread_counts()) {
                    rows.push_back({"linear_scan_backward", "ssmkit", s.name<T>(), dtype_name<typename linear_data<T>::R>(), n,
                                    [=] { return ssmkit_task<T>(s, n); }});
                }
            }
        }
    };
    both(std::type_identity<std::complex<float>>{});
    both(std::type_identity<float>{});
}};

}  // namespace
}  // namespace bench
