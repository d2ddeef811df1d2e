#include <ssmkit/companion_rollout.hpp>

#include <memory>
#include <string>

#include <ssmkit/reference/companion_rollout.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct rollout_shape {
    index batch, lag, horizon, dim, state;

    std::string name() const { return by({batch, lag, horizon, dim, state}); }
};

struct rollout_data {
    rollout_shape s;
    array<double> u, a, b, c, k, y, dy, du, da, db, dc, dk;

    explicit rollout_data(const rollout_shape& shape) : s(shape)
    {
        const std::size_t n = count(s.dim, s.state);
        a = fill<double>(n, -1, 1, 1), b = fill<double>(n, -1, 1, 2), c = fill<double>(n, -1, 1, 3), k = fill<double>(n, -1, 1, 4);
        u = fill<double>(count(s.batch, s.lag, s.dim), -1, 1, 5), dy = fill<double>(count(s.batch, s.horizon, s.dim), -1, 1, 6);
        y.resize(dy.size()), du.resize(u.size()), da.resize(n), db.resize(n), dc.resize(n), dk.resize(n);
    }

    template <class E>
    view<E, 2> map(E* p) const
    {
        return {p, s.dim, s.state};
    }

    ssmkit::companion_rollout_args<double> args()
    {
        return {.u = {u.data(), s.batch, s.lag, s.dim}, .a = map(a.data()), .b = map(b.data()), .c = map(c.data()),
                .k = map(k.data()), .y = {y.data(), s.batch, s.horizon, s.dim}};
    }
    ssmkit::companion_rollout_backward_args<double> backward_args()
    {
        return {.forward = args(), .dy = {dy.data(), s.batch, s.horizon, s.dim}, .du = {du.data(), s.batch, s.lag, s.dim},
                .da = map(da.data()), .db = map(db.data()), .dc = map(dc.data()), .dk = map(dk.data())};
    }

    /// For every number of the state: two multiply-adds for a token that is read, four for one that is foretold.
    work needs(double times) const
    {
        const double read = static_cast<double>(u.size()), foretold = static_cast<double>(y.size());
        const double state = static_cast<double>(s.state);
        return {.updates = (read + foretold) * state, .token_channels = read + foretold,
                .fmas = times * state * (2 * read + 4 * foretold), .bytes = sizeof(double) * (read + foretold)};
    }
};

task forward_task(const rollout_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<rollout_data>(s);
    return checked(
        d, d->needs(1), with_threads(threads, [d](auto&&... exec) { ssmkit::companion_rollout(d->args(), exec...); }),
        [](rollout_data& e) { ssmkit::reference::companion_rollout(e.args()); },
        [](const rollout_data& got, const rollout_data& expected) { return mismatch("y", got.y, expected.y); });
}

task backward_task(const rollout_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<rollout_data>(s);
    task t = checked(
        d, d->needs(3),
        with_threads(threads, [d](auto&&... exec) { ssmkit::companion_rollout_backward(d->backward_args(), exec...); }),
        [](rollout_data& e) { ssmkit::reference::companion_rollout_backward(e.backward_args()); },
        [](const rollout_data& got, const rollout_data& expected) {
            return first_of({mismatch("du", got.du, expected.du), mismatch("da", got.da, expected.da),
                             mismatch("db", got.db, expected.db), mismatch("dc", got.dc, expected.dc),
                             mismatch("dk", got.dk, expected.dk)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::companion_rollout(d->args()); }, true});
    return t;
}

task reference_task(const rollout_shape& s)
{
    const auto d = std::make_shared<rollout_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::companion_rollout(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const rollout_shape smaller{2, 64, 96, 8, 32};  // for the reference of the gradients
    for (const std::size_t n : thread_counts()) {
        for (const rollout_shape& s : {rollout_shape{8, 336, 720, 16, 64}})
            rows.push_back({"companion_rollout", "ssmkit", s.name(), "f64", n, [=] { return forward_task(s, n); }});
        rows.push_back({"companion_rollout_backward", "ssmkit", smaller.name(), "f64", n,
                        [=] { return backward_task(smaller, n); }});
    }
    const rollout_shape usual{8, 336, 720, 16, 64};
    rows.push_back({"companion_rollout", "reference", usual.name(), "f64", 1, [=] { return reference_task(usual); }});
}};

}  // namespace
}  // namespace bench
