#include <ssmkit/liquid_polyb.hpp>

#include <complex>
#include <memory>
#include <string>

#include <ssmkit/reference/liquid_polyb.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct polyb_shape {
    index batch, dim, length, state;
    int degree = 2;

    std::string name() const { return by({batch, dim, length, state}) + "-degree" + std::to_string(degree); }
};

struct polyb_data {
    using complex = std::complex<double>;
    polyb_shape s;
    array<double> u, k, D, delta, y, dy, du, dk, dD, ddelta;
    array<complex> w, B, C, dw, dB, dC;

    explicit polyb_data(const polyb_shape& shape) : s(shape)
    {
        const std::size_t poles = count(s.dim, s.state);
        u = fill<double>(count(s.batch, s.dim, s.length), -1, 1, 1), k = fill<double>(count(s.dim, s.length), -1, 1, 2);
        D = fill<double>(count(s.dim), -1, 1, 3), delta = fill<double>(count(s.dim), 1e-3, 1e-1, 4);
        w = fill_complex<double>(poles, -1, -0.1, 5), B = fill_complex<double>(poles, -1, 1, 6),
        C = fill_complex<double>(poles, -1, 1, 7);
        dy = fill<double>(u.size(), -1, 1, 8);
        y.resize(u.size()), du.resize(u.size()), dk.resize(k.size()), dD.resize(D.size()), ddelta.resize(delta.size());
        dw.resize(poles), dB.resize(poles), dC.resize(poles);
    }

    template <class E>
    view<E, 2> map(E* p) const
    {
        return {p, s.dim, s.state};
    }
    template <class E>
    view<E, 3> rows(E* p) const
    {
        return {p, s.batch, s.dim, s.length};
    }

    ssmkit::liquid_polyb_args<double> args()
    {
        return {.u = rows(u.data()), .k = {k.data(), 1, s.dim, s.length}, .D = {D.data(), s.dim}, .delta = {delta.data(), s.dim},
                .w = map(w.data()), .B = map(B.data()), .C = {C.data(), 1, s.dim, s.state}, .degree = s.degree,
                .y = rows(y.data())};
    }
    ssmkit::liquid_polyb_backward_args<double> backward_args()
    {
        return {.forward = args(), .dy = rows(dy.data()), .du = rows(du.data()), .dk = {dk.data(), 1, s.dim, s.length},
                .dD = {dD.data(), s.dim}, .ddelta = {ddelta.data(), s.dim}, .dw = map(dw.data()), .dB = map(dB.data()),
                .dC = {dC.data(), 1, s.dim, s.state}};
    }

    /// `times` the sums of the linear part, term by term, and the products of every degree.
    work needs(double times) const
    {
        const double tokens = static_cast<double>(u.size());
        double terms = tokens * static_cast<double>(s.length + 1) / 2;
        for (int p = 2; p <= s.degree; ++p) terms += tokens * p;
        return {.updates = tokens, .token_channels = tokens, .fmas = times * terms,
                .bytes = sizeof(double) * (2 * tokens + static_cast<double>(k.size()))};
    }
};

task forward_task(const polyb_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<polyb_data>(s);
    return checked(
        d, d->needs(1), with_threads(threads, [d](auto&&... exec) { ssmkit::liquid_polyb(d->args(), exec...); }),
        [](polyb_data& e) { ssmkit::reference::liquid_polyb(e.args()); },
        [](const polyb_data& got, const polyb_data& expected) { return mismatch("y", got.y, expected.y); });
}

task backward_task(const polyb_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<polyb_data>(s);
    task t = checked(
        d, d->needs(2), with_threads(threads, [d](auto&&... exec) { ssmkit::liquid_polyb_backward(d->backward_args(), exec...); }),
        [](polyb_data& e) { ssmkit::reference::liquid_polyb_backward(e.backward_args()); },
        [](const polyb_data& got, const polyb_data& expected) {
            return first_of({mismatch("du", got.du, expected.du), mismatch("dk", got.dk, expected.dk),
                             mismatch("dD", got.dD, expected.dD), mismatch("ddelta", got.ddelta, expected.ddelta),
                             mismatch("dw", got.dw, expected.dw), mismatch("dB", got.dB, expected.dB),
                             mismatch("dC", got.dC, expected.dC)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::liquid_polyb(d->args()); }, true});
    return t;
}

task reference_task(const polyb_shape& s)
{
    const auto d = std::make_shared<polyb_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::liquid_polyb(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const polyb_shape smaller{2, 4, 256, 16};  // for the reference of the gradients
    for (const std::size_t n : thread_counts()) {
        for (const polyb_shape& s : {polyb_shape{4, 16, 1024, 32}, polyb_shape{4, 16, 509, 31, 3}})
            rows.push_back({"liquid_polyb", "ssmkit", s.name(), "f64", n, [=] { return forward_task(s, n); }});
        rows.push_back({"liquid_polyb_backward", "ssmkit", smaller.name(), "f64", n, [=] { return backward_task(smaller, n); }});
    }
    const polyb_shape usual{4, 16, 1024, 32};
    rows.push_back({"liquid_polyb", "reference", usual.name(), "f64", 1, [=] { return reference_task(usual); }});
}};

}  // namespace
}  // namespace bench
