#include <memory>

#include <ssmkit/reference/selective_scan.hpp>

#include "selective_scan_problem.hpp"

namespace bench::device {
namespace {

template <class T>
struct forward_data : scan_data<T> {
    explicit forward_data(const scan_shape& shape) : scan_data<T>(shape), y(this->tokens) {}

    array<T> y;

    ssmkit::selective_scan_args<T> args() const
    {
        auto a = this->inputs();
        a.y = {y.data(), this->s.batch, this->s.length, this->s.dim};
        return a;
    }

    /// The first row's first tokens, on the CPU.
    std::string mismatch() const
    {
        const scan_shape& s = this->s;
        const index length = std::min<index>(s.length, 64);
        const auto hu = this->u.host(length * s.dim), hdelta = this->delta.host(length * s.dim);
        const auto hz = this->z.host(s.gated ? length * s.dim : 0), got = y.host(length * s.dim);
        const auto hB = this->B.host(length * s.state), hC = this->C.host(length * s.state);
        const auto hA = this->A.host(), hD = this->D.host(), hbias = this->bias.host();
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
    const auto d = std::make_shared<forward_data<T>>(s);
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
