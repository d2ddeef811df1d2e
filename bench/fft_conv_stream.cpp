#include <ssmkit/fft_conv_stream.hpp>

#include <algorithm>
#include <memory>
#include <string>

#include "fft_conv_problem.hpp"

namespace bench {
namespace {

/// Samples in calls of `block`.
task stream_task(const long_shape& shape, index block)
{
    const auto d = std::make_shared<long_data<float>>(shape);
    const auto stream = std::make_shared<ssmkit::fft_conv_stream<float>>(shape.batch, d->args().k);
    task t;
    t.run = [d, stream, block] {
        const auto a = d->args();
        for (index at = 0; at < d->s.length; at += block) {
            const index samples = std::min(block, d->s.length - at);
            (*stream)(a.u.slice(2, at, samples), a.y.slice(3, at, samples));
        }
    };
    t.needs = d->needs(2, 1, 2, 1);
    t.run();
    t.mismatch = compared_output(*d);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const index block : {1, 64, 512}) {
        const long_shape s{1, 16, 32768, 16384};
        rows.push_back({"fft_conv_stream", "ssmkit", s.name() + "-blocks_of_" + std::to_string(block), "f32", 1,
                        [=] { return stream_task(s, block); }});
    }
}};

}  // namespace
}  // namespace bench
