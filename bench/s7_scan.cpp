#include <ssmkit/s7_scan.hpp>

#include <memory>

#include <ssmkit/reference/s7_scan.hpp>
#include <ssmkit/s7_scan_backward.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct s7_shape {
    index batch, length, dim, state;

    std::string name() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" + std::to_string(state);
    }
};

struct s7_data {
    s7_shape s;
    array<float> u, A, B, C, bias, y, memory;
    array<float> du, dA, dB, dC, dbias;

    explicit s7_data(const s7_shape& shape) : s(shape)
    {
        const auto tokens = static_cast<std::size_t>(s.batch * s.length);
        const auto dim = static_cast<std::size_t>(s.dim), state = static_cast<std::size_t>(s.state);
        u = fill<float>(tokens * dim, -1, 1, 1);
        A = fill<float>(tokens * state, -4, 4, 2);
        B = fill<float>(tokens * dim * state, -1, 1, 3);
        C = fill<float>(tokens * dim * state, -1, 1, 4);
        bias = fill<float>(tokens * state, -1, 1, 5);
        y.resize(u.size());
    }

    ssmkit::s7_scan_args<float> args()
    {
        return {.u = {u.data(), s.batch, s.length, s.dim},
                .A = {A.data(), s.batch, s.length, s.state},
                .B = {B.data(), s.batch, s.length, s.dim, s.state},
                .C = {C.data(), s.batch, s.length, s.dim, s.state},
                .bias = {bias.data(), s.batch, s.length, s.state},
                .y = {y.data(), s.batch, s.length, s.dim}};
    }

    ssmkit::s7_scan_backward_args<float> backward_args()
    {
        du.resize(u.size()), dA.resize(A.size()), dB.resize(B.size()), dC.resize(C.size()), dbias.resize(bias.size());
        return {.forward = args(),
                .dy = {y.data(), s.batch, s.length, s.dim},
                .du = {du.data(), s.batch, s.length, s.dim},
                .dA = {dA.data(), s.batch, s.length, s.state},
                .dB = {dB.data(), s.batch, s.length, s.dim, s.state},
                .dC = {dC.data(), s.batch, s.length, s.dim, s.state},
                .dbias = {dbias.data(), s.batch, s.length, s.state}};
    }

    /// B and C are read, in the backward pass B once more, and their gradients written.
    work needs(bool backward) const
    {
        work w;
        const double tokens = static_cast<double>(s.batch * s.length), maps = tokens * static_cast<double>(s.dim * s.state);
        w.updates = tokens * static_cast<double>(s.state);
        w.token_channels = tokens * static_cast<double>(s.dim);
        w.fmas = (backward ? 6 : 2) * maps;
        w.bytes = sizeof(float) * ((backward ? 5 : 2) * maps + (backward ? 4 : 2) * (w.token_channels + w.updates));
        w.kind = backward ? traffic::copy : traffic::read;
        return w;
    }
};

task ssmkit_task(const s7_shape& shape, bool backward, std::size_t threads)
{
    const auto d = std::make_shared<s7_data>(shape), oracle = std::make_shared<s7_data>(shape);
    task t;
    const auto run = [d, threads](auto&& call, const auto& a) {
        if (threads == 1) return call(a, ssmkit::in_place{});
        call(a, pool(threads));
    };
    if (backward) {
        t.run = [=, a = d->backward_args()] { run([](const auto& x, auto&& e) { ssmkit::s7_scan_backward(x, e); }, a); };
    } else {
        t.run = [=, a = d->args()] { run([](const auto& x, auto&& e) { ssmkit::s7_scan(x, e); }, a); };
    }
    t.needs = d->needs(backward);
    ssmkit::s7_scan(d->args());
    ssmkit::reference::s7_scan(oracle->args());
    t.mismatch = mismatch("y", d->args().y, oracle->args().y);
    if (threads == 1 && !backward) t.rivals.push_back({"times_reference", [oracle] { ssmkit::reference::s7_scan(oracle->args()); }});
    if (threads == 1 && backward) t.rivals.push_back({"times_forward", [d] { ssmkit::s7_scan(d->args()); }, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const bool backward : {false, true}) {
        for (const s7_shape s : {s7_shape{8, 512, 64, 16}, {1, 128, 64, 16}, {8, 512, 16, 64}}) {
            for (const std::size_t n : thread_counts()) {
                rows.push_back({backward ? "s7_scan_backward" : "s7_scan", "ssmkit", s.name(), "f32", n,
                                [=] { return ssmkit_task(s, backward, n); }});
            }
        }
    }
}};

}  // namespace
}  // namespace bench
