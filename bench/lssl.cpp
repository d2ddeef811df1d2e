#include <ssmkit/lssl.hpp>

#include <memory>
#include <string>

#include <ssmkit/reference/lssl.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct lssl_shape {
    index length, batch, dim, channels, state;

    std::string name() const { return by({length, batch, dim, channels, state}); }
};

/// A damped matrix.
struct lssl_data {
    lssl_shape s;
    array<double> A, B, delta, u, C, D, y, dy, dA, dB, ddelta, du, dC, dD;

    explicit lssl_data(const lssl_shape& shape) : s(shape)
    {
        A = fill<double>(count(s.state, s.state), -0.5, 0.5, 1), B = fill<double>(count(s.state), -1, 1, 2);
        for (index n = 0; n < s.state; ++n) A[count(n, s.state) + count(n)] -= static_cast<double>(s.state) / 4;
        delta = fill<double>(count(s.dim), 1e-3, 1e-1, 3), u = fill<double>(count(s.length, s.batch, s.dim), -1, 1, 4);
        C = fill<double>(count(s.dim, s.channels, s.state), -1, 1, 5), D = fill<double>(count(s.dim, s.channels), -1, 1, 6);
        dy = fill<double>(count(u.size(), s.channels), -1, 1, 7);
        y.resize(dy.size()), dA.resize(A.size()), dB.resize(B.size()), ddelta.resize(delta.size()), du.resize(u.size());
        dC.resize(C.size()), dD.resize(D.size());
    }

    ssmkit::lssl_args<double> args()
    {
        return {.A = {A.data(), s.state, s.state}, .B = {B.data(), s.state}, .delta = {delta.data(), s.dim},
                .u = {u.data(), s.length, s.batch, s.dim}, .C = {C.data(), s.dim, s.channels, s.state},
                .D = {D.data(), s.dim, s.channels}, .y = {y.data(), s.length, s.batch, s.dim, s.channels}};
    }
    ssmkit::lssl_backward_args<double> backward_args()
    {
        return {.forward = args(), .dy = {dy.data(), s.length, s.batch, s.dim, s.channels}, .dA = {dA.data(), s.state, s.state},
                .dB = {dB.data(), s.state}, .ddelta = {ddelta.data(), s.dim}, .du = {du.data(), s.length, s.batch, s.dim},
                .dC = {dC.data(), s.dim, s.channels, s.state}, .dD = {dD.data(), s.dim, s.channels}};
    }

    /// `products` of a matrix and a vector for every token and channel, and outputs.
    work needs(double products) const
    {
        const double tokens = static_cast<double>(u.size()), state = static_cast<double>(s.state);
        return {.updates = tokens * state, .token_channels = tokens,
                .fmas = products * tokens * state * (state + 1 + static_cast<double>(s.channels)),
                .bytes = sizeof(double) * static_cast<double>(u.size() + y.size())};
    }
};

task forward_task(const lssl_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<lssl_data>(s);
    return checked(
        d, d->needs(1), with_threads(threads, [d](auto&&... exec) { ssmkit::lssl(d->args(), exec...); }),
        [](lssl_data& e) { ssmkit::reference::lssl(e.args()); },
        [](const lssl_data& got, const lssl_data& expected) { return mismatch("y", got.y, expected.y); });
}

task backward_task(const lssl_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<lssl_data>(s);
    task t = checked(
        d, d->needs(3), with_threads(threads, [d](auto&&... exec) { ssmkit::lssl_backward(d->backward_args(), exec...); }),
        [](lssl_data& e) { ssmkit::reference::lssl_backward(e.backward_args()); },
        [](const lssl_data& got, const lssl_data& expected) {
            return first_of({mismatch("dA", got.dA, expected.dA), mismatch("dB", got.dB, expected.dB),
                             mismatch("ddelta", got.ddelta, expected.ddelta), mismatch("du", got.du, expected.du),
                             mismatch("dC", got.dC, expected.dC), mismatch("dD", got.dD, expected.dD)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::lssl(d->args()); }, true});
    return t;
}

task reference_task(const lssl_shape& s)
{
    const auto d = std::make_shared<lssl_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::lssl(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const lssl_shape s{256, 4, 16, 1, 64};
    for (const std::size_t n : thread_counts()) {
        rows.push_back({"lssl", "ssmkit", s.name(), "f64", n, [=] { return forward_task(s, n); }});
        rows.push_back({"lssl_backward", "ssmkit", s.name(), "f64", n, [=] { return backward_task(s, n); }});
    }
    rows.push_back({"lssl", "reference", s.name(), "f64", 1, [=] { return reference_task(s); }});
}};

}  // namespace
}  // namespace bench
