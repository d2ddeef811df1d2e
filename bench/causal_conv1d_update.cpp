#include <memory>

#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/reference/causal_conv1d_update.hpp>

#include "harness.hpp"

namespace plain {  // plain/causal_conv1d_update.cpp

void causal_conv1d_update(std::size_t dim, const float* x, const float* weight, const float* bias, float* state, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

/// Decoding: one token for every row. dim_contiguous: state and taps stored with the channels contiguous.
task update_task(index batch, index dim, bool dim_contiguous)
{
    struct data {
        array<float> state, x, y, weight, bias;
    };
    const auto n = static_cast<std::size_t>(batch * dim), d = static_cast<std::size_t>(dim);
    const auto p = std::make_shared<data>(data{fill<float>(n * 3, -1, 1, 1), fill<float>(n, -1, 1, 2), array<float>(n),
                                               fill<float>(d * 4, -1, 1, 3), fill<float>(d, -1, 1, 4)});
    const auto args = [batch, dim, dim_contiguous](data& m) {
        ssmkit::causal_conv1d_update_args<float> a{.conv_state = {m.state.data(), batch, dim, 3}, .x = {m.x.data(), batch, 1, dim},
                                                   .weight = {m.weight.data(), dim, 4}, .bias = {m.bias.data(), dim},
                                                   .silu = true, .y = {m.y.data(), batch, 1, dim}};
        if (dim_contiguous) {
            a.conv_state = view<float, 3>(m.state.data(), batch, 3, dim).transposed(1, 2);
            a.weight = view<const float, 2>(m.weight.data(), 4, dim).transposed(0, 1);
        }
        return a;
    };
    task t;
    t.run = [p, args] { ssmkit::causal_conv1d_update(args(*p)); };
    const double elements = static_cast<double>(n);
    t.needs = {.updates = elements, .token_channels = elements, .exps = elements, .fmas = 4 * elements,
               .bytes = 4.0 * (8 * elements + 5 * static_cast<double>(dim)), .kind = traffic::update};
    data expected = *p;
    ssmkit::reference::causal_conv1d_update(args(expected));
    t.run();
    t.mismatch = mismatch("y", args(*p).y, args(expected).y);
    const auto rival = std::make_shared<data>(*p);
    t.rivals.push_back({"times_plain", [rival, batch, d] {
        for (std::size_t b = 0; b < static_cast<std::size_t>(batch); ++b) {
            plain::causal_conv1d_update(d, rival->x.data() + b * d, rival->weight.data(), rival->bias.data(),
                                        rival->state.data() + 3 * b * d, rival->y.data() + b * d);
        }
    }});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const index batch : {1, 8}) {
        for (const bool turned : {false, true}) {
            rows.push_back({"causal_conv1d_update", "ssmkit", std::to_string(batch) + "x5120x4" + (turned ? "-dim_contiguous" : ""),
                            "f32", 1, [=] { return update_task(batch, 5120, turned); }});
        }
    }
}};

}  // namespace
}  // namespace bench
