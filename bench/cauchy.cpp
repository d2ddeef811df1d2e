#include <complex>
#include <memory>
#include <string>

#include <ssmkit/cauchy.hpp>
#include <ssmkit/cauchy_backward.hpp>
#include <ssmkit/reference/cauchy.hpp>
#include <ssmkit/reference/cauchy_backward.hpp>

#include "harness.hpp"

namespace plain {  // plain/cauchy.cpp

void cauchy(std::size_t length, std::size_t state, const float* y, const float* w, const float* v, float* out, float* sums);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct shape {
    index terms, dim, state, length;
    bool any_nodes = false;  // off the imaginary axis

    std::string name() const
    {
        return std::to_string(dim) + "x" + std::to_string(state) + "x" + std::to_string(length) + "-" + std::to_string(terms) +
               (terms == 1 ? "term" : "terms") + (any_nodes ? "-any_nodes" : "");
    }
};

/// Poles and nodes as S4 has them: w = Δ Λ of modest damping, z = 2i tan(π j / L').
template <class T>
struct data {
    using complex = std::complex<T>;
    shape s;
    array<T> w, v, dout, y;
    array<complex> z, out, dv, dz, dw;
    array<std::byte> memory;
    array<float> sums = array<float>(8 * 64);

    explicit data(const shape& asked) : s(asked)
    {
        w = fill<T>(static_cast<std::size_t>(2 * s.dim * s.state), 0.02, 2, 1);
        for (std::size_t i = 0; i < w.size(); i += 2) w[i] *= T(-0.1);
        v = fill<T>(static_cast<std::size_t>(2 * s.terms * s.dim * s.state), -1, 1, 2);
        const auto outputs = static_cast<std::size_t>(s.terms * s.dim * s.length);
        dout = fill<T>(2 * outputs, -1, 1, 3);
        out.resize(outputs);
        dv.resize(v.size() / 2);
        dw.resize(w.size() / 2);
        dz.resize(static_cast<std::size_t>(s.length));
        for (index j = 0; j < s.length; ++j) {
            y.push_back(
                static_cast<T>(2 * std::tan(3.14159265358979 / 2 * static_cast<double>(j) / static_cast<double>(s.length))));
            z.push_back({s.any_nodes ? T(0.01) : T(0), y.back()});
        }
    }

    static const complex* pairs(const array<T>& x) { return reinterpret_cast<const complex*>(x.data()); }

    ssmkit::cauchy_args<T> args(complex* to)
    {
        return {.v = {pairs(v), s.terms, s.dim, s.state}, .z = {z.data(), s.length}, .w = {pairs(w), s.dim, s.state},
                .conjugate_pairs = true, .out = {to, s.terms, s.dim, s.length}};
    }

    ssmkit::cauchy_backward_args<T> backward_args()
    {
        return {.forward = args(out.data()),
                .dout = {pairs(dout), s.terms, s.dim, s.length},
                .dv = {dv.data(), s.terms, s.dim, s.state},
                .dw = {dw.data(), s.dim, s.state}};
    }

    /// Of a pair and node: 12 operations for its reciprocal and four for each numerator.
    work needs() const
    {
        const double pairs = static_cast<double>(s.dim * s.state * s.length), terms = static_cast<double>(s.terms);
        return {.updates = pairs * terms, .fmas = pairs * (12 + 4 * terms),
                .bytes = static_cast<double>(out.size() * sizeof(complex)), .kind = traffic::update};
    }
};

template <class T>
view<const T, 1> numbers(const array<std::complex<T>>& x)
{
    return {reinterpret_cast<const T*>(x.data()), static_cast<index>(2 * x.size())};
}

void run_plain(data<float>& d, std::complex<float>* to)
{
    const auto state = static_cast<std::size_t>(d.s.state), length = static_cast<std::size_t>(d.s.length);
    array<float> v(8 * state);
    for (index h = 0; h < d.s.dim; ++h) {
        for (index k = 0; k < 4; ++k) {
            std::copy_n(d.v.data() + 2 * (k * d.s.dim + h) * d.s.state, 2 * state,
                        v.data() + 2 * static_cast<std::size_t>(k) * state);
        }
        plain::cauchy(length, state, d.y.data(), d.w.data() + 2 * h * d.s.state, v.data(),
                      reinterpret_cast<float*>(to) + 8 * h * d.s.length, d.sums.data());
    }
}

template <class T>
task forward_task(const shape& s, std::size_t threads)
{
    const auto d = std::make_shared<data<T>>(s);
    d->memory.resize(ssmkit::cauchy_workspace_size(d->args(d->out.data()), threads));
    task t;
    t.run = [d, threads] {
        if (threads == 1) return ssmkit::cauchy(d->args(d->out.data()), ssmkit::workspace(d->memory));
        ssmkit::cauchy(d->args(d->out.data()), ssmkit::workspace(d->memory), pool(threads));
    };
    t.needs = d->needs();
    array<std::complex<T>> expected(d->out.size());
    ssmkit::reference::cauchy(d->args(expected.data()));
    t.run();
    t.mismatch = mismatch("out", numbers(d->out), numbers(expected));
    if constexpr (std::is_same_v<T, float>) {
        if (threads == 1 && s.terms == 4 && !s.any_nodes) {
            const auto other = std::make_shared<array<std::complex<float>>>(d->out.size());
            t.rivals.push_back({"times_plain", [d, other] { run_plain(*d, other->data()); }});
        }
    }
    if (s.terms == 4) {
        const auto one = std::make_shared<data<T>>(shape{1, s.dim, s.state, s.length, s.any_nodes});
        t.rivals.push_back({"over_one_term", [one] { ssmkit::cauchy(one->args(one->out.data())); }, true});
    }
    return t;
}

template <class T>
task backward_task(const shape& s)
{
    const auto d = std::make_shared<data<T>>(s);
    d->memory.resize(ssmkit::cauchy_backward_workspace_size(d->backward_args()));
    task t;
    t.run = [d] { ssmkit::cauchy_backward(d->backward_args(), ssmkit::workspace(d->memory)); };
    t.needs = d->needs();
    t.needs.fmas *= 2;  // each pole of a pair by itself
    data<T> e = *d;
    ssmkit::reference::cauchy_backward(e.backward_args());
    t.run();
    t.mismatch = mismatch("dw", numbers(d->dw), numbers(e.dw), 5);
    return t;
}

task plain_task(const shape& s)
{
    const auto d = std::make_shared<data<float>>(s);
    task t;
    t.run = [d] { run_plain(*d, d->out.data()); };
    t.needs = d->needs();
    if (s.dim == 1) {
        array<std::complex<float>> expected(d->out.size());
        ssmkit::reference::cauchy(d->args(expected.data()));
        t.run();
        t.mismatch = mismatch("out", numbers(d->out), numbers(expected));
    }
    return t;
}

task reference_task(const shape& s)
{
    const auto d = std::make_shared<data<float>>(s);
    task t;
    t.run = [d] { ssmkit::reference::cauchy(d->args(d->out.data())); };
    t.needs = d->needs();
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto forward = [&]<class T>(std::type_identity<T>, const shape& s) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"cauchy", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return forward_task<T>(s, n); }});
        }
    };
    const shape large{4, 256, 32, 8193}, small{4, 256, 32, 513};
    for (const shape& s : {large, small, shape{1, 256, 32, 8193}, shape{4, 256, 31, 2051}, shape{4, 256, 32, 2049, true}}) {
        forward(std::type_identity<float>{}, s);
    }
    forward(std::type_identity<double>{}, {4, 256, 32, 2049});
    rows.push_back({"cauchy", "plain", large.name(), "f32", 1, [=] { return plain_task(large); }});
    rows.push_back({"cauchy", "plain", shape{4, 1, 32, 8193}.name(), "f32", 1, [] { return plain_task({4, 1, 32, 8193}); }});
    rows.push_back({"cauchy", "reference", small.name(), "f32", 1, [=] { return reference_task(small); }});
    rows.push_back({"cauchy_backward", "ssmkit", small.name(), "f32", 1, [=] { return backward_task<float>(small); }});
}};

}  // namespace
}  // namespace bench
