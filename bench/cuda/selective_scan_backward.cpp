#include <memory>
#include <vector>

#include <ssmkit/reference/selective_scan_backward.hpp>

#include "selective_scan_problem.hpp"

namespace bench::device {
namespace {

template <class T>
struct backward_data : scan_data<T> {
    explicit backward_data(const scan_shape& shape) : scan_data<T>(shape) {}

    array<T> dy{this->tokens, -1, 1, 9}, du{this->tokens}, ddelta{this->tokens}, dz{this->s.gated ? this->tokens : 0};
    array<float> dB{this->maps}, dC{this->maps}, dA{this->s.dim * this->s.state}, dD{this->s.dim}, dbias{this->s.dim};

    ssmkit::selective_scan_backward_args<T> args() const
    {
        const scan_shape& s = this->s;
        ssmkit::selective_scan_backward_args<T> a{.forward = this->inputs(),
                                                  .dy = {dy.data(), s.batch, s.length, s.dim},
                                                  .du = {du.data(), s.batch, s.length, s.dim},
                                                  .ddelta = {ddelta.data(), s.batch, s.length, s.dim},
                                                  .dA = {dA.data(), s.dim, s.state},
                                                  .dB = {dB.data(), s.batch, s.length, 1, s.state},
                                                  .dC = {dC.data(), s.batch, s.length, 1, s.state},
                                                  .ddelta_bias = {dbias.data(), s.dim}};
        if (s.gated) {
            a.dD = {dD.data(), s.dim};
            a.dz = {dz.data(), s.batch, s.length, s.dim};
        }
        return a;
    }

    static constexpr index few = 4;

    /// Of the first row the first channels, for the CPU.
    bench::array<T> first_channels(const array<T>& all) const
    {
        bench::array<T> copy(static_cast<std::size_t>(this->s.length * few));
        const std::size_t row = few * sizeof(T);
        must(cudaMemcpy2D(copy.data(), row, all.data(), static_cast<std::size_t>(this->s.dim) * sizeof(T), row,
                          static_cast<std::size_t>(this->s.length), cudaMemcpyDeviceToHost));
        return copy;
    }

    /// The gradients by token of the first row's first channels. Those that are sums over rows or channels are the tests' affair.
    std::string mismatch() const
    {
        const scan_shape& s = this->s;
        const auto hu = first_channels(this->u), hdelta = first_channels(this->delta), hdy = first_channels(dy);
        const auto hz = s.gated ? first_channels(this->z) : bench::array<T>{};
        const auto hB = this->B.host(s.length * s.state), hC = this->C.host(s.length * s.state);
        const auto hA = this->A.host(few * s.state), hD = this->D.host(few), hbias = this->bias.host(few);
        bench::array<T> du_expected(hu.size()), ddelta_expected(hu.size()), dz_expected(hz.size());
        const auto tokens = [&]<class E>(E* p) { return ssmkit::view<E, 3>{p, 1, s.length, few}; };
        auto f = this->inputs();
        f.u = tokens(hu.data());
        f.delta = tokens(hdelta.data());
        f.A = {hA.data(), few, s.state};
        f.B = {hB.data(), 1, s.length, 1, s.state};
        f.C = {hC.data(), 1, s.length, 1, s.state};
        f.delta_bias = {hbias.data(), few};
        ssmkit::selective_scan_backward_args<T> a{
            .forward = f, .dy = tokens(hdy.data()), .du = tokens(du_expected.data()), .ddelta = tokens(ddelta_expected.data())};
        if (s.gated) {
            a.forward.z = tokens(hz.data());
            a.forward.D = {hD.data(), few};
            a.dz = tokens(dz_expected.data());
        }
        ssmkit::reference::selective_scan_backward(a);
        const auto differ = [&](const char* name, const array<T>& got, const bench::array<T>& expected) {
            const auto mine = first_channels(got);
            return bench::mismatch(name, tokens(mine.data()), tokens(expected.data()));
        };
        std::string text = differ("du", du, du_expected);
        if (text.empty()) text = differ("ddelta", ddelta, ddelta_expected);
        if (text.empty() && s.gated) text = differ("dz", dz, dz_expected);
        return text;
    }
};

template <class T>
task backward_task(const scan_shape& s, double peer_ms)
{
    const auto d = std::make_shared<backward_data<T>>(s);
    task t;
    t.run = call(d->args(), d);
    const auto tokens = static_cast<double>(d->tokens), state = static_cast<double>(s.state);
    const auto maps = static_cast<double>(d->maps);
    t.needs.bytes = sizeof(T) * (tokens * (s.gated ? 7 : 5) + 2 * maps) + sizeof(float) * 2 * maps;
    t.needs.exps = tokens * (state + 2 + (s.gated ? 2 : 0));  // softplus and its slope, silu with its reciprocal
    t.needs.fmas = tokens * 11 * state;  // state 2, adjoint 2, shares of du, ddelta, dA, dB, dC and p
    t.peer_seconds = 1e-3 * peer_ms;
    return checked(t, [&] { return d->mismatch(); });
}

const registration here{[](std::vector<row>& rows) {
    struct known {
        scan_shape s;
        peer_milliseconds peer;
    };
    for (const known& k : {known{{1, 2048, 1536, 16, true}, {0.3013, 0.2844}}, {{8, 2048, 1536, 16, true}, {2.0374, 1.7435}},
                           {{8, 2048, 5120, 16, true}, {6.5576, 5.6538}}, {{1, 16384, 5120, 16, true}, {6.8723, 6.3031}},
                           {{1, 131072, 1536, 16, true}, {17.1800, 15.1609}}, {{64, 512, 1536, 16, true}, {4.0999, 3.0804}}}) {
        add_rows(rows, "selective_scan_backward", k.s.text(), k.peer,
                 [s = k.s]<class T>(double peer_ms) { return backward_task<T>(s, peer_ms); });
    }
}};

}  // namespace
}  // namespace bench::device
