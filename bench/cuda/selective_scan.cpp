#include <memory>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/reference/selective_scan.hpp>

#include "harness.hpp"

namespace bench::device {
namespace {

struct scan_shape {
    index batch, length, dim, state;
    bool gated;

    std::string text() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" + std::to_string(state) +
               (gated ? "/zD" : "");
    }
};

template <class T>
struct scan_data {
    explicit scan_data(const scan_shape& shape) : s(shape) {}

    scan_shape s;
    index tokens = s.batch * s.length * s.dim, maps = s.batch * s.length * s.state;
    array<T> u{tokens, -1, 1, 1}, delta{tokens, -4, 0, 2}, z{s.gated ? tokens : 0, -1, 1, 3}, y{tokens}, B{maps, -1, 1, 4},
        C{maps, -1, 1, 5};
    array<float> A{s.dim * s.state, -16, -1, 6}, D{s.dim, -1, 1, 7}, bias{s.dim, -1, 0, 8};

    ssmkit::selective_scan_args<T> args() const
    {
        ssmkit::selective_scan_args<T> a{.u = {u.data(), s.batch, s.length, s.dim},
                                         .delta = {delta.data(), s.batch, s.length, s.dim},
                                         .A = {A.data(), s.dim, s.state},
                                         .B = {B.data(), s.batch, s.length, 1, s.state},
                                         .C = {C.data(), s.batch, s.length, 1, s.state},
                                         .delta_bias = {bias.data(), s.dim},
                                         .delta_softplus = true,
                                         .y = {y.data(), s.batch, s.length, s.dim}};
        if (s.gated) {
            a.z = {z.data(), s.batch, s.length, s.dim};
            a.D = {D.data(), s.dim};
        }
        return a;
    }

    /// The first row's first tokens, on the CPU.
    std::string mismatch() const
    {
        const index length = std::min<index>(s.length, 64);
        const auto hu = u.host(length * s.dim), hdelta = delta.host(length * s.dim), hz = z.host(s.gated ? length * s.dim : 0);
        const auto hB = B.host(length * s.state), hC = C.host(length * s.state), got = y.host(length * s.dim);
        const auto hA = A.host(), hD = D.host(), hbias = bias.host();
        bench::array<T> expected(got.size());
        auto a = args();
        a.u = {hu.data(), 1, length, s.dim};
        a.delta = {hdelta.data(), 1, length, s.dim};
        a.A = {hA.data(), s.dim, s.state};
        a.B = {hB.data(), 1, length, 1, s.state};
        a.C = {hC.data(), 1, length, 1, s.state};
        a.delta_bias = {hbias.data(), s.dim};
        a.y = {expected.data(), 1, length, s.dim};
        if (s.gated) {
            a.z = {hz.data(), 1, length, s.dim};
            a.D = {hD.data(), s.dim};
        }
        ssmkit::reference::selective_scan(a);
        return bench::mismatch("y", ssmkit::view<const T, 3>(got.data(), 1, length, s.dim),
                               ssmkit::view<const T, 3>(expected.data(), 1, length, s.dim));
    }
};

template <class T>
task scan_task(const scan_shape& s, double peer_ms)
{
    const auto d = std::make_shared<scan_data<T>>(s);
    task t;
    t.run = call(d->args(), d);
    const auto tokens = static_cast<double>(d->tokens), state = static_cast<double>(s.state);
    t.needs.bytes = sizeof(T) * (tokens * (s.gated ? 4 : 3) + 2 * static_cast<double>(d->maps));
    t.needs.exps = tokens * (state + 1 + (s.gated ? 2 : 0));  // softplus has one, silu with its reciprocal two
    t.needs.fmas = tokens * 4 * state;
    t.peer_seconds = 1e-3 * peer_ms;
    return checked(t, [&] { return d->mismatch(); });
}

const registration here{[](std::vector<row>& rows) {
    struct known {
        scan_shape s;
        peer_milliseconds peer;
    };
    for (const known& k :
         {known{{1, 2048, 1536, 16, true}, {0.1283, 0.0689}}, {{1, 2048, 1536, 16, false}, {0.1210, 0.0634}},
          {{8, 2048, 1536, 16, true}, {0.8776, 0.4478}}, {{8, 2048, 1536, 16, false}, {0.8344, 0.4191}},
          {{8, 2048, 5120, 16, true}, {2.8579, 1.4466}}, {{8, 2048, 5120, 16, false}, {2.7262, 1.3569}},
          {{1, 16384, 5120, 16, true}, {3.1923, 1.8583}}, {{1, 16384, 5120, 16, false}, {3.0196, 1.7579}},
          {{1, 131072, 1536, 16, true}, {7.6400, 4.4033}}, {{1, 131072, 1536, 16, false}, {7.2892, 4.1805}},
          {{64, 512, 1536, 16, true}, {1.7652, 0.7939}}, {{64, 512, 1536, 16, false}, {1.6723, 0.7522}}}) {
        add_rows(rows, "selective_scan", k.s.text(), k.peer,
                 [s = k.s]<class T>(double peer_ms) { return scan_task<T>(s, peer_ms); });
    }
}};

}  // namespace
}  // namespace bench::device
