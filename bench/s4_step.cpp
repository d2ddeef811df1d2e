#include <complex>
#include <memory>
#include <string>

#include <ssmkit/reference/s4_step.hpp>
#include <ssmkit/s4_step.hpp>

#include "harness.hpp"

namespace plain {  // plain/s4_step.cpp

void s4_step(std::size_t dim, std::size_t state, const float* pole, const float* gain, const float* U, const float* V,
             const float* C, const float* u, float* h, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index;

struct shape {
    index batch, dim, state, length;

    std::string name() const
    {
        return std::to_string(batch) + "x" + std::to_string(dim) + "x" + std::to_string(state) + "-" + std::to_string(length) +
               (length == 1 ? "token" : "tokens");
    }
};

/// A model of rank 1 made ready, poles within the unit circle.
template <class T>
struct data {
    using complex = std::complex<T>;
    shape s;
    array<T> pole, gain, U, V, C, u, h, y;

    explicit data(const shape& asked) : s(asked)
    {
        const auto n = static_cast<std::size_t>(2 * s.dim * s.state), tokens = static_cast<std::size_t>(s.batch * s.dim * s.length);
        pole = fill<T>(n, -0.6, 0.6, 1), gain = fill<T>(n, -0.1, 0.1, 2), U = fill<T>(n, -0.05, 0.05, 3),
        V = fill<T>(n, -0.05, 0.05, 4);
        C = fill<T>(n, -1, 1, 5), u = fill<T>(tokens, -1, 1, 6), y.resize(tokens);
        h = fill<T>(n * static_cast<std::size_t>(s.batch), -1, 1, 7);
    }

    static complex* pairs(array<T>& x) { return reinterpret_cast<complex*>(x.data()); }

    ssmkit::s4_step_args<T> args()
    {
        return {.pole = {pairs(pole), s.dim, s.state}, .gain = {pairs(gain), s.dim, s.state}, .U = {pairs(U), 1, s.dim, s.state},
                .V = {pairs(V), 1, s.dim, s.state}, .C = {pairs(C), 1, s.dim, s.state}, .u = {u.data(), s.batch, s.dim, s.length},
                .h = {pairs(h), s.batch, s.dim, s.state}, .y = {y.data(), s.batch, 1, s.dim, s.length}};
    }

    /// 12 multiply-adds a pair: two for each product, two each for gain and U, four for the pole.
    work needs() const
    {
        const double pairs = static_cast<double>(s.batch * s.dim * s.state * s.length);
        const double bytes = static_cast<double>((5 * s.dim + 2 * s.batch * s.dim) * s.state * 2) * sizeof(T);
        return {.updates = pairs,
                .token_channels = static_cast<double>(s.batch * s.dim * s.length),
                .fmas = 12 * pairs,
                .bytes = bytes,
                .kind = traffic::update};
    }
};

template <class T>
task step_task(const shape& s)
{
    const auto d = std::make_shared<data<T>>(s);
    task t;
    t.run = [d] { ssmkit::s4_step(d->args()); };
    t.needs = d->needs();
    data<T> expected = *d;
    ssmkit::reference::s4_step(expected.args());
    t.run();
    t.mismatch = mismatch("y", ssmkit::view<const T, 1>(d->y.data(), static_cast<index>(d->y.size())),
                          ssmkit::view<const T, 1>(expected.y.data(), static_cast<index>(expected.y.size())));
    if constexpr (std::is_same_v<T, float>) {
        if (s.length == 1 && s.batch == 1) {
            const auto other = std::make_shared<data<T>>(s);
            t.rivals.push_back({"times_plain", [o = other] {
                                    plain::s4_step(static_cast<std::size_t>(o->s.dim), static_cast<std::size_t>(o->s.state),
                                                   o->pole.data(), o->gain.data(), o->U.data(), o->V.data(), o->C.data(),
                                                   o->u.data(), o->h.data(), o->y.data());
                                }});
        }
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&]<class T>(std::type_identity<T>, const shape& s) {
        rows.push_back({"s4_step", "ssmkit", s.name(), dtype_name<T>(), 1, [=] { return step_task<T>(s); }});
    };
    for (const shape& s : {shape{1, 256, 32, 1}, shape{1, 256, 31, 1}, shape{8, 256, 32, 1}, shape{1, 256, 32, 64}})
        add(std::type_identity<float>{}, s);
    add(std::type_identity<double>{}, {1, 256, 32, 1});
    const shape usual{1, 256, 32, 1};
    rows.push_back({"s4_step", "reference", usual.name(), "f32", 1, [=] {
        const auto d = std::make_shared<data<float>>(usual);
        task t;
        t.run = [d] { ssmkit::reference::s4_step(d->args()); };
        t.needs = d->needs();
        return t;
    }});
}};

}  // namespace
}  // namespace bench
