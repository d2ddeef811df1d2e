#include <utility>

#include <ssmkit/reference/causal_conv1d.hpp>

#include "causal_conv1d_problem.hpp"

namespace bench::device {
namespace {

template <class T>
task forward_task(const conv_shape& s, double peer_ms)
{
    const auto d = std::make_shared<conv_on_device<T>>(s, false);
    task t;
    t.run = call(d->args(), d);
    t.needs = d->needs(2);
    t.peer_seconds = 1e-3 * peer_ms;
    return checked(t, [&] {
        const auto x = d->first_channels(d->x), got = d->first_channels(d->out);
        const auto weight = d->weight.host(d->few * s.width), bias = d->bias.host(d->few);
        bench::array<T> y(got.size());
        ssmkit::reference::causal_conv1d(ssmkit::causal_conv1d_args<T>{.x = d->tokens(x.data(), d->few),
                                                                       .weight = {weight.data(), d->few, s.width},
                                                                       .bias = {bias.data(), d->few}, .silu = s.silu,
                                                                       .y = d->tokens(y.data(), d->few)});
        return bench::mismatch("y", d->tokens(got.data(), d->few), d->tokens(std::as_const(y).data(), d->few));
    });
}

const registration here{[](std::vector<row>& rows) {
    for (const known_conv& k : known_convs()) {
        add_rows(rows, "causal_conv1d", k.s.name(), k.forward,
                 [s = k.s]<class T>(double peer_ms) { return forward_task<T>(s, peer_ms); });
    }
}};

}  // namespace
}  // namespace bench::device
