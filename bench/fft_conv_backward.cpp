#include <ssmkit/fft_conv_backward.hpp>

#include <memory>

#include <ssmkit/fft_conv.hpp>

#include "fft_conv_problem.hpp"

namespace bench {
namespace {

template <class T>
task ssmkit_task(const long_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<long_data<T>>(shape);
    d->make_gradients();
    const auto a = d->backward_args();
    task t;
    t.run = with_workspace(ssmkit::fft_conv_backward_workspace_size(a, threads), threads,
                           [d, a](auto&&... how) { ssmkit::fft_conv_backward(a, how...); });
    t.needs = d->needs(3, 2, 3, 2);
    t.run();
    t.mismatch = compared_gradients(*d);
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::fft_conv_workspace_size(a.forward), 1,
                                                            [d, a](auto&&... how) { ssmkit::fft_conv(a.forward, how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const long_shape& s : {long_shape{8, 256, 16384, 16384}, {1, 8, 1048576, 1048576}, {8, 256, 1021, 1021}}) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"fft_conv_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
