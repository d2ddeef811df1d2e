#include <ssmkit/s4d_backward.hpp>

#include <algorithm>
#include <complex>
#include <memory>

#include <ssmkit/reference/s4d_backward.hpp>

#include "s4d_layer_problem.hpp"

namespace bench {
namespace {

struct s4d_backward_problem {
    s4d_layer_problem p;
    array<float> y, dy, du, dD;
    array<double> ddelta;
    array<std::complex<double>> dA;
    array<std::complex<float>> dB, dC;

    explicit s4d_backward_problem(const s4d_layer_shape& shape)
        : p(shape), y(p.u.size()), dy(fill<float>(p.u.size(), -1, 1, 6)), du(p.u.size()), dD(p.D.size()), ddelta(p.delta.size()),
          dA(p.A.size()), dB(p.A.size()), dC(p.A.size())
    {
    }

    ssmkit::s4d_backward_args<float> args()
    {
        const index channels = p.s.channels, pairs = p.s.pairs();
        return {.forward = p.args(y.data()),
                .dy = p.tokens(static_cast<const float*>(dy.data())),
                .du = p.tokens(du.data()),
                .ddelta = ssmkit::tied_over_state(view<double, 1>(ddelta.data(), channels), pairs),
                .dA = {dA.data(), channels, pairs},
                .dB = {dB.data(), channels, pairs},
                .dC = {dC.data(), 1, channels, pairs},
                .dD = {dD.data(), 1, channels}};
    }

    /// States and their gradients, what inputs get of these, and the sums for parameters: two multiply-adds each a pair; pairs of
    /// tokens within a chunk twice. Gradients by FFT need no part of this.
    work needs() const
    {
        work w = p.needs();
        w.fmas = static_cast<double>(p.s.elements()) * (10 * static_cast<double>(p.s.pairs()) + 32);
        w.bytes *= 1.5;
        return w;
    }
};

/// Of fewer and shorter sequences, by the same form.
std::string compared(s4d_layer_shape s)
{
    s.batch = 2;
    s.channels = 20;
    s.length = std::min<index>(s.length, 1100);
    s4d_backward_problem got(s), expected(s);
    ssmkit::s4d_backward(got.args());
    ssmkit::reference::s4d_backward(expected.args());
    std::string worst;
    const auto compare = [&](const char* name, const auto& x, const auto& y) {
        using R = std::remove_cvref_t<decltype(std::abs(x[0]))>;
        const auto parts = [](const auto& v) {
            return view<const R, 1>(reinterpret_cast<const R*>(v.data()), static_cast<index>(v.size() * sizeof(v[0]) / sizeof(R)));
        };
        if (worst.empty()) worst = mismatch(name, parts(x), parts(y), std::is_same_v<R, double> ? 1e5 : 1);  // of float sums
    };
    compare("du", got.du, expected.du), compare("ddelta", got.ddelta, expected.ddelta), compare("dA", got.dA, expected.dA);
    compare("dB", got.dB, expected.dB), compare("dC", got.dC, expected.dC), compare("dD", got.dD, expected.dD);
    return worst;
}

task ssmkit_task(const s4d_layer_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<s4d_backward_problem>(s);
    const auto a = p->args();
    auto forward = a.forward;
    forward.form = ssmkit::s4d_form::automatic;
    const auto memory = std::make_shared<array<std::byte>>(
        std::max(ssmkit::s4d_backward_workspace_size(a, threads), ssmkit::s4d_workspace_size(forward)));
    task t;
    t.run = [=] {
        const ssmkit::workspace lent(*memory);
        threads == 1 ? ssmkit::s4d_backward(a, lent) : ssmkit::s4d_backward(a, lent, pool(threads));
        static_cast<void>(p);  // what the arguments point to
    };
    t.needs = p->needs();
    t.mismatch = compared(s);
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", [=] { ssmkit::s4d_backward(a, ssmkit::workspace(*memory)); }});
        return t;
    }
    t.rivals.push_back({"times_forward", [=] { ssmkit::s4d(forward, ssmkit::workspace(*memory)); }, true});
    if (s.form != ssmkit::s4d_form::states) return t;
    auto other = a;
    other.forward.form = ssmkit::s4d_form::convolution;
    const auto its_memory = std::make_shared<array<std::byte>>(ssmkit::s4d_backward_workspace_size(other));
    t.rivals.push_back({"times_convolution", [=] { ssmkit::s4d_backward(other, ssmkit::workspace(*its_memory)); }, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (s4d_layer_shape s : {s4d_layer_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}}) {
        for (const bool contiguous : {false, true}) {
            s.channel_contiguous = contiguous;
            for (const std::size_t n : thread_counts()) {
                rows.push_back({"s4d_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
            }
            auto states = s;
            states.form = ssmkit::s4d_form::states;
            rows.push_back({"s4d_backward", "ssmkit", states.name(), "f32", 1, [=] { return ssmkit_task(states, 1); }});
        }
    }
    for (const index state : {8, 16, 24, 32}) {  // where the two forms meet
        for (const index length : {128, 256, 512, 1024, 16384}) {
            const s4d_layer_shape s{8, 64, state, length, false, ssmkit::s4d_form::states};
            rows.push_back({"s4d_backward", "ssmkit", s.name(), "f32", 1, [=] { return ssmkit_task(s, 1); }});
        }
    }
}};

}  // namespace
}  // namespace bench
