#include <utility>

#include <ssmkit/reference/causal_conv1d_backward.hpp>

#include "causal_conv1d_problem.hpp"

namespace bench::device {
namespace {

template <class T>
task backward_task(const conv_shape& s, double peer_ms)
{
    const auto d = std::make_shared<conv_on_device<T>>(s, true);
    task t;
    t.run = call(d->backward_args(), d);
    t.needs = d->needs(3);
    t.peer_seconds = 1e-3 * peer_ms;
    return checked(t, [&]() -> std::string {
        constexpr index few = conv_on_device<T>::few;
        const auto x = d->first_channels(d->x), dy = d->first_channels(d->dy), got = d->first_channels(d->out);
        const auto weight = d->weight.host(few * s.width), bias = d->bias.host(few);
        const auto got_dweight = d->dweight.host(few * s.width), got_dbias = d->dbias.host(few);
        bench::array<T> dx(got.size());
        bench::array<float> dweight(got_dweight.size()), dbias(got_dbias.size());
        ssmkit::reference::causal_conv1d_backward(ssmkit::causal_conv1d_backward_args<T>{
            .forward = {.x = d->tokens(x.data(), few), .weight = {weight.data(), few, s.width}, .bias = {bias.data(), few},
                        .silu = s.silu},
            .dy = d->tokens(dy.data(), few), .dx = d->tokens(dx.data(), few), .dweight = {dweight.data(), few, s.width},
            .dbias = {dbias.data(), few}});
        const auto differ = [](const char* name, const bench::array<float>& a, const bench::array<float>& b) {
            const auto n = static_cast<index>(a.size());
            // The reference adds sixteen thousand numbers of either sign one by one, in float.
            return bench::mismatch(name, view<const float, 1>(a.data(), n), view<const float, 1>(b.data(), n), 20);
        };
        std::string text = bench::mismatch("dx", d->tokens(got.data(), few), d->tokens(std::as_const(dx).data(), few));
        if (text.empty()) text = differ("dweight", got_dweight, dweight);
        if (text.empty()) text = differ("dbias", got_dbias, dbias);
        return text;
    });
}

const registration here{[](std::vector<row>& rows) {
    for (const known_conv& k : known_convs()) {
        add_rows(rows, "causal_conv1d_backward", k.s.name(), k.backward,
                 [s = k.s]<class T>(double peer_ms) { return backward_task<T>(s, peer_ms); });
    }
}};

}  // namespace
}  // namespace bench::device
