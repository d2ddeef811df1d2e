#include <ssmkit/s5.hpp>

#include <memory>

#include <Eigen/Core>

#include <ssmkit/linear_scan.hpp>
#include <ssmkit/reference/s5.hpp>

#include "s5_problem.hpp"

namespace plain {  // plain/s5.cpp

void s5(std::size_t length, std::size_t dim, std::size_t state, const float* A, const float* B, const float* C, const float* D,
        const float* u, float* y, float* scratch);

}  // namespace plain

namespace bench {
namespace {

/// What a user does who has a good matrix product and a scan: B̄ u for all tokens, the scan in place, C h, three passes over
/// memory. Also lays out the parameters for the plain loops.
struct unfused {
    using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using complex = std::complex<float>;
    std::shared_ptr<s5_data> d;
    std::vector<complex> poles;
    matrix B, C;  // (dim, 2 state) and (2 state, dim), re and im interleaved
    array<float> h, y;

    explicit unfused(std::shared_ptr<s5_data> data) : d(std::move(data)), B(d->s.dim, 2 * d->s.state), C(2 * d->s.state, d->s.dim)
    {
        const auto a = d->args();
        for (index n = 0; n < d->s.state; ++n) {
            const auto system = ssmkit::discretize(a.A[n], a.delta[n], a.method);
            poles.push_back(system.pole);
            for (index c = 0; c < d->s.dim; ++c) {
                const complex b = system.gain * a.B(n, c), o = 2.0f * a.C(c, n);
                B(c, 2 * n) = b.real(), B(c, 2 * n + 1) = b.imag();
                C(2 * n, c) = o.real(), C(2 * n + 1, c) = -o.imag();
            }
        }
        y.resize(d->y.size());
    }

    void run()
    {
        const s5_shape& s = d->s;
        const index tokens = s.batch * s.length;
        h.resize(static_cast<std::size_t>(2 * tokens * s.state));
        const Eigen::Map<const matrix> u(d->u.data(), tokens, s.dim);
        Eigen::Map<matrix> states(h.data(), tokens, 2 * s.state), out(y.data(), tokens, s.dim);
        states.noalias() = u * B;
        complex* const p = reinterpret_cast<complex*>(h.data());
        ssmkit::linear_scan(ssmkit::linear_scan_args<complex>{
            .a = ssmkit::constant_over_time(view<const complex, 1>(poles, s.state), s.batch, s.length),
            .b = {p, s.batch, s.length, s.state}, .h = {p, s.batch, s.length, s.state}});
        out.noalias() = states * C;
        const Eigen::Map<const Eigen::RowVectorXf> D(d->D.data(), s.dim);
        out.array() += u.array().rowwise() * D.array();
    }

    void run_plain()
    {
        const auto size = [](index n) { return static_cast<std::size_t>(n); };
        h.resize(size(8 * d->s.state));
        for (index b = 0; b < d->s.batch; ++b) {
            const index first = b * d->s.length * d->s.dim;
            plain::s5(size(d->s.length), size(d->s.dim), size(d->s.state), reinterpret_cast<const float*>(poles.data()), B.data(),
                      C.data(), d->D.data(), d->u.data() + first, y.data() + first, h.data());
        }
    }
};

/// The first tokens of the first sequence, which do not depend on the others, against the reference.
std::string compared(s5_data& d, array<float>& got)
{
    const index length = std::min<index>(d.s.length, 70);
    auto expected = d.args();
    expected.u = expected.u.slice(0, 0, 1).slice(1, 0, length);
    if (d.s.events) expected.interval = expected.interval.slice(0, 0, 1).slice(1, 0, length);
    array<float> y(static_cast<std::size_t>(length * d.s.dim));
    expected.y = {y.data(), 1, length, d.s.dim};
    ssmkit::reference::s5(expected);
    return mismatch("y", d.tokens<const float>(got.data()).slice(0, 0, 1).slice(1, 0, length), view<const float, 3>(expected.y));
}

task ssmkit_task(const s5_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<s5_data>(shape);
    const auto a = d->args();
    const auto memory = std::make_shared<array<std::byte>>(ssmkit::s5_workspace_size(a, threads));
    task t;
    t.run = [a, d, memory, threads] {
        if (threads == 1) return ssmkit::s5(a, ssmkit::workspace(*memory));
        ssmkit::s5(a, ssmkit::workspace(*memory), pool(threads));
    };
    t.needs = d->needs(2, 2);
    t.run();
    if (!shape.bidirectional) t.mismatch = compared(*d, d->y);
    if (threads == 1 && !shape.events && !shape.time_contiguous && !shape.bidirectional) {
        const auto other = std::make_shared<unfused>(d);
        other->run();
        if (t.mismatch.empty()) t.mismatch = compared(*d, other->y);
        t.rivals.push_back({"times_unfused", [=] { other->run(); }});
        t.rivals.push_back({"times_plain", [=] { other->run_plain(); }});
    } else if (threads > 1) {
        t.rivals.push_back({"times_one_thread", [a, d, memory] { ssmkit::s5(a, ssmkit::workspace(*memory)); }});
    }
    return t;
}

task other_task(const s5_shape& shape, bool plain)
{
    const auto d = std::make_shared<s5_data>(shape);
    task t;
    t.needs = d->needs(2, 2);
    if (plain) {
        const auto other = std::make_shared<unfused>(d);
        t.run = [=] { other->run_plain(); };
        t.run();
        t.mismatch = compared(*d, other->y);
    } else {
        t.run = [d] { ssmkit::reference::s5(d->args()); };
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&](const s5_shape& s) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"s5", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    };
    add({.batch = 8, .length = 4096, .dim = 256, .state = 256});
    add({.batch = 8, .length = 4096, .dim = 256, .state = 128});
    add({.batch = 8, .length = 4096, .dim = 1024, .state = 256});
    add({.batch = 8, .length = 4096, .dim = 64, .state = 128});
    add({.batch = 1, .length = 4096, .dim = 256, .state = 256});
    add({.batch = 8, .length = 1021, .dim = 250, .state = 123});
    add({.batch = 8, .length = 4096, .dim = 256, .state = 256, .events = true});
    add({.batch = 8, .length = 4096, .dim = 256, .state = 256, .time_contiguous = true});
    add({.batch = 8, .length = 4096, .dim = 256, .state = 256, .bidirectional = true});
    const s5_shape small{.batch = 1, .length = 512, .dim = 256, .state = 256};
    rows.push_back({"s5", "plain", small.name(), "f32", 1, [=] { return other_task(small, true); }});
    rows.push_back({"s5", "reference", small.name(), "f32", 1, [=] { return other_task(small, false); }});
}};

}  // namespace
}  // namespace bench
