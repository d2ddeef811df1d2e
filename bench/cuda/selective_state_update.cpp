#include <memory>

#include <ssmkit/args/selective_state_update.hpp>
#include <ssmkit/reference/selective_state_update.hpp>

#include "harness.hpp"

namespace bench::device {
namespace {

using ssmkit::view;

/// Mamba-1 has one head; with more, parameters are tied over a head, as in Mamba-2. States of less than 60 MB stay in the
/// second-level cache from call to call, as in the authors' benchmark, and their rows may pass the floor of a copy.
struct step_shape {
    index batch, nheads, headdim, state;

    std::string text() const
    {
        return std::to_string(batch) + "x" + (nheads == 1 ? "" : std::to_string(nheads) + "x") + std::to_string(headdim) + "x" +
               std::to_string(state);
    }
    bool tied() const { return nheads > 1; }
    index channels() const { return nheads * headdim; }
    index parameters() const { return tied() ? nheads : headdim; }
};

template <class T>
struct step_data {
    step_shape s;
    array<float> h{s.batch * s.channels() * s.state, -1, 1, 1};
    array<T> u{s.batch * s.channels(), -1, 1, 2}, delta{s.batch * s.parameters(), -6, -1, 3}, B{s.batch * s.state, -1, 1, 4},
        C{s.batch * s.state, -1, 1, 5}, y{s.batch * s.channels()};
    array<float> A{s.tied() ? s.nheads : s.headdim * s.state, -16, -1, 6}, D{s.parameters(), -1, 1, 7};
    array<float> bias{s.parameters(), -1, 0, 8};

    /// The arguments over these or, for the first row, over copies of them.
    ssmkit::selective_state_update_args<T> args(index rows, float* state, const T* in, const T* step, const T* b, const T* c,
                                                const float* rate, const float* skip, const float* more, T* out) const
    {
        ssmkit::selective_state_update_args<T> a{.h = {state, rows, s.nheads, s.headdim, s.state},
                                                 .u = {in, rows, s.nheads, s.headdim},
                                                 .B = {b, rows, 1, s.state},
                                                 .C = {c, rows, 1, s.state},
                                                 .delta_softplus = true,
                                                 .y = {out, rows, s.nheads, s.headdim}};
        if (s.tied()) {
            a.delta = ssmkit::tied_over_head(view<const T, 2>(step, rows, s.nheads), s.headdim);
            a.A = ssmkit::tied_over_head(view<const float, 1>(rate, s.nheads), s.headdim, s.state);
            a.D = ssmkit::tied_over_head(view<const float, 1>(skip, s.nheads), s.headdim);
            a.delta_bias = ssmkit::tied_over_head(view<const float, 1>(more, s.nheads), s.headdim);
        } else {
            a.delta = {step, rows, 1, s.headdim};
            a.A = {rate, 1, s.headdim, s.state};
            a.D = {skip, 1, s.headdim};
            a.delta_bias = {more, 1, s.headdim};
        }
        return a;
    }
};

template <class T>
task step_task(const step_shape& s, double peer_ms)
{
    const auto d = std::make_shared<step_data<T>>(s);
    task t;
    t.run = call(d->args(s.batch, d->h.data(), d->u.data(), d->delta.data(), d->B.data(), d->C.data(), d->A.data(), d->D.data(),
                         d->bias.data(), d->y.data()),
                 d);
    const double states = static_cast<double>(d->h.size()), channels = static_cast<double>(d->u.size());
    t.needs.bytes = 8 * states + sizeof(T) * (2 * channels + static_cast<double>(d->delta.size() + d->B.size() + d->C.size())) +
                    4.0 * static_cast<double>(d->A.size() + d->D.size() + d->bias.size());
    t.needs.exps = s.tied() ? 2 * static_cast<double>(d->delta.size()) : states + channels;
    t.needs.fmas = 4 * states;
    t.peer_seconds = 1e-3 * peer_ms;
    auto h = d->h.host(s.channels() * s.state);
    return checked(t, [&] {
        const auto u = d->u.host(s.channels()), delta = d->delta.host(s.parameters());
        const auto B = d->B.host(s.state), C = d->C.host(s.state);
        const auto A = d->A.host(), D = d->D.host(), bias = d->bias.host(), got_h = d->h.host(static_cast<index>(h.size()));
        const auto got = d->y.host(s.channels());
        bench::array<T> y(got.size());
        ssmkit::reference::selective_state_update(d->args(1, h.data(), u.data(), delta.data(), B.data(), C.data(), A.data(),
                                                          D.data(), bias.data(), y.data()));
        const auto differ = [](const char* name, const auto& a, const auto& b) {
            using element = const typename std::decay_t<decltype(a)>::value_type;
            const auto n = static_cast<index>(a.size());
            return bench::mismatch(name, view<element, 1>(a.data(), n), view<element, 1>(b.data(), n));
        };
        const std::string text = differ("y", got, y);
        return text.empty() ? differ("h", got_h, h) : text;
    });
}

const registration here{[](std::vector<row>& rows) {
    struct known {
        step_shape s;
        double peer_f32;
    };
    for (const known& k : {known{{1, 1, 5120, 16}, 0.0016}, {{64, 1, 5120, 16}, 0.0132}, {{256, 1, 5120, 16}, 0.0537},
                           {{1, 80, 64, 128}, 0.0030}, {{16, 80, 64, 128}, 0.0269}, {{64, 80, 64, 128}, 0.1112},
                           {{256, 80, 64, 128}, 0.4494}}) {
        add_rows(rows, "selective_state_update", k.s.text(), {k.peer_f32, 0},
                 [s = k.s]<class T>(double peer_ms) { return step_task<T>(s, peer_ms); });
    }
}};

}  // namespace
}  // namespace bench::device
