#include <algorithm>
#include <memory>

#include <ssmkit/args/ssd.hpp>
#include <ssmkit/reference/ssd.hpp>

#include "harness.hpp"

namespace bench::device {
namespace {

struct ssd_shape {
    index batch, length, nheads, headdim, state, groups;

    std::string text() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(nheads) + "x" + std::to_string(headdim) +
               "x" + std::to_string(state) + "x" + std::to_string(groups);
    }
};

/// The authors' benchmark: D and delta_bias and softplus on, no gate.
template <class T>
struct ssd_data {
    explicit ssd_data(const ssd_shape& shape) : s(shape) {}

    ssd_shape s;
    index heads = s.batch * s.length * s.nheads, channels = heads * s.headdim, maps = s.batch * s.length * s.groups * s.state;
    array<T> u{channels, -1, 1, 1}, delta{heads, -4, 0, 2}, B{maps, -1, 1, 4}, C{maps, -1, 1, 5}, y{channels};
    array<float> A{s.nheads, -16, -1, 6}, D{s.nheads, -1, 1, 7}, bias{s.nheads, -1, 0, 8};

    ssmkit::ssd_args<T> args() const
    {
        return {.u = {u.data(), s.batch, s.length, s.nheads, s.headdim},
                .delta = {delta.data(), s.batch, s.length, s.nheads},
                .A = {A.data(), s.nheads},
                .B = {B.data(), s.batch, s.length, s.groups, s.state},
                .C = {C.data(), s.batch, s.length, s.groups, s.state},
                .D = ssmkit::tied_over_head(ssmkit::view<const float, 1>(D.data(), s.nheads), s.headdim),
                .delta_bias = {bias.data(), s.nheads},
                .delta_softplus = true,
                .y = {y.data(), s.batch, s.length, s.nheads, s.headdim}};
    }

    /// The first row's first tokens, on the CPU.
    std::string mismatch() const
    {
        const index length = std::min<index>(s.length, 160), map = s.groups * s.state, wide = s.nheads * s.headdim;
        const auto hu = u.host(length * wide), hdelta = delta.host(length * s.nheads), got = y.host(length * wide);
        const auto hB = B.host(length * map), hC = C.host(length * map);
        const auto hA = A.host(), hD = D.host(), hbias = bias.host();
        bench::array<T> expected(got.size());
        auto a = args();
        a.u = {hu.data(), 1, length, s.nheads, s.headdim};
        a.delta = {hdelta.data(), 1, length, s.nheads};
        a.A = {hA.data(), s.nheads};
        a.B = {hB.data(), 1, length, s.groups, s.state};
        a.C = {hC.data(), 1, length, s.groups, s.state};
        a.D = ssmkit::tied_over_head(ssmkit::view<const float, 1>(hD.data(), s.nheads), s.headdim);
        a.delta_bias = {hbias.data(), s.nheads};
        a.y = {expected.data(), 1, length, s.nheads, s.headdim};
        ssmkit::reference::ssd(a);
        return bench::mismatch("y", ssmkit::view<const T, 4>(got.data(), 1, length, s.nheads, s.headdim),
                               ssmkit::view<const T, 4>(expected.data(), 1, length, s.nheads, s.headdim));
    }
};

template <class T>
task ssd_task(const ssd_shape& s, double peer_ms)
{
    const auto d = std::make_shared<ssd_data<T>>(s);
    task t;
    t.run = call(d->args(), d);
    const auto heads = static_cast<double>(d->heads), channels = static_cast<double>(d->channels), state = static_cast<double>(s.state);
    t.needs.bytes = sizeof(T) * (2 * channels + heads + 2 * static_cast<double>(d->maps));
    // States to outputs and inputs to states; half the pairs of a chunk of 64 for C B^T, once a group, and for its product with u.
    constexpr double chunk = 64;
    const double groups = heads * static_cast<double>(s.groups) / static_cast<double>(s.nheads);
    t.needs.tensor_flops = 4 * channels * state + channels * chunk + groups * chunk * state;
    if (sizeof(T) == 4) {
        t.needs.tensor_flops *= 3;  // products of tf32 for each of float
        t.needs.tensor_rate = 495e12;
    }
    t.needs.exps = heads * chunk / 2;
    t.peer_seconds = 1e-3 * peer_ms;
    return checked(t, [&] { return d->mismatch(); });
}

const registration here{[](std::vector<row>& rows) {
    struct known {
        ssd_shape s;
        peer_milliseconds peer;
    };
    for (const known& k : {known{{1, 2048, 24, 64, 128, 1}, {0.0597, 0.0418}},
                           {{8, 2048, 24, 64, 128, 1}, {0.3773, 0.2300}},
                           {{1, 512, 80, 64, 128, 1}, {0.0528, 0.0384}},
                           {{8, 2048, 80, 64, 128, 1}, {1.1884, 0.7013}},
                           {{1, 131072, 24, 64, 128, 1}, {3.4056, 2.0616}},
                           {{1, 16384, 80, 64, 128, 1}, {1.1848, 0.7053}},
                           {{2, 4096, 128, 64, 128, 8}, {0.9818, 0.5844}}}) {
        add_rows(rows, "ssd", k.s.text(), k.peer, [s = k.s]<class T>(double peer_ms) { return ssd_task<T>(s, peer_ms); });
        rows.push_back({"ssd", k.s.text(), "f16", [k] { return ssd_task<ssmkit::float16>(k.s, 0); }});
    }
}};

}  // namespace
}  // namespace bench::device
