#include <ssmkit/ema_step.hpp>

#include <memory>
#include <string>

#include <ssmkit/reference/ema_step.hpp>

#include "harness.hpp"

namespace plain {  // plain/ema_step.cpp

void ema_step(std::size_t dim, std::size_t state, std::size_t length, const float* decay, const float* input, const float* output,
              const float* x, float* h, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct ema_step_shape {
    index batch, length, dim, state;

    std::string name() const { return by({batch, length, dim, state}); }
};

struct ema_step_data {
    ema_step_shape s;
    array<float> decay, input, output, x, h, y;

    explicit ema_step_data(const ema_step_shape& shape) : s(shape)
    {
        const std::size_t n = count(s.dim, s.state);
        const array<float> delta = fill<float>(n, -1, 1, 1), alpha = fill<float>(n, -1, 1, 2), beta = fill<float>(n, -1, 1, 3),
                           gamma = fill<float>(n, -1, 1, 4);
        decay.resize(n), input.resize(n), output.resize(n);
        const auto given = [&](const array<float>& v) { return view<const float, 2>(v.data(), s.dim, s.state); };
        const auto made = [&](array<float>& v) { return view<float, 2>(v.data(), s.dim, s.state); };
        ssmkit::ema_discretize(ssmkit::ema_discretize_args<float>{.delta = given(delta), .alpha = given(alpha), .beta = given(beta),
                                                                  .gamma = given(gamma), .decay = made(decay),
                                                                  .input = made(input), .output = made(output)});
        x = fill<float>(count(s.batch, s.length, s.dim), -1, 1, 5);
        h = fill<float>(count(s.batch, s.dim, s.state), -1, 1, 6);
        y.resize(x.size());
    }

    ssmkit::ema_step_args<float> args()
    {
        return {.h = {h.data(), s.batch, s.dim, s.state},
                .decay = {decay.data(), s.dim, s.state},
                .input = {input.data(), s.dim, s.state},
                .output = {output.data(), s.dim, s.state},
                .x = {x.data(), s.batch, s.length, s.dim},
                .y = {y.data(), s.batch, s.length, s.dim}};
    }

    void run_plain()
    {
        const auto dim = static_cast<std::size_t>(s.dim), state = static_cast<std::size_t>(s.state);
        const auto length = static_cast<std::size_t>(s.length);
        for (std::size_t b = 0; b < static_cast<std::size_t>(s.batch); ++b) {
            plain::ema_step(dim, state, length, decay.data(), input.data(), output.data(), &x[b * length * dim],
                            &h[b * dim * state], &y[b * length * dim]);
        }
    }

    work needs() const
    {
        const double states = static_cast<double>(h.size()), tokens = static_cast<double>(s.length);
        return {.updates = states * tokens,
                .token_channels = static_cast<double>(x.size()),
                .fmas = 3 * states * tokens,
                .bytes = sizeof(float) * (2 * states + 3 * static_cast<double>(decay.size()) + 2 * static_cast<double>(x.size())),
                .kind = traffic::update};
    }
};

/// The row's own way once, from the same state, against the reference.
template <class F>
task checked(const ema_step_shape& s, F step)
{
    const auto d = std::make_shared<ema_step_data>(s);
    task t;
    t.run = [d, step] { step(*d); };
    t.needs = d->needs();
    ema_step_data oracle(s);
    ssmkit::reference::ema_step(oracle.args());
    t.run();
    t.mismatch = first_of({mismatch("y", d->y, oracle.y), mismatch("h", d->h, oracle.h)});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const ema_step_shape& s : {ema_step_shape{1, 1, 512, 16}, {1, 64, 512, 16}, {8, 64, 512, 16}, {1, 64, 509, 15}}) {
        rows.push_back({"ema_step", "ssmkit", s.name(), "f32", 1, [=] {
            task t = checked(s, [](ema_step_data& d) { ssmkit::ema_step(d.args()); });
            t.rivals.push_back({"times_plain", [other = std::make_shared<ema_step_data>(s)] { other->run_plain(); }});
            return t;
        }});
    }
    const ema_step_shape usual{1, 64, 512, 16};
    rows.push_back({"ema_step", "plain", usual.name(), "f32", 1, [=] {
        return checked(usual, [](ema_step_data& d) { d.run_plain(); });
    }});
    rows.push_back({"ema_step", "reference", usual.name(), "f32", 1, [=] {
        return checked(usual, [](ema_step_data& d) { ssmkit::reference::ema_step(d.args()); });
    }});
}};

}  // namespace
}  // namespace bench
