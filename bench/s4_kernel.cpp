#include <cmath>
#include <complex>
#include <memory>
#include <string>

#include <ssmkit/reference/s4_kernel.hpp>
#include <ssmkit/s4_kernel.hpp>
#include <ssmkit/s4_kernel_backward.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct shape {
    index dim, state, length, rank = 1;

    std::string name() const
    {
        return std::to_string(dim) + "x" + std::to_string(state) + "x" + std::to_string(length) +
               (rank == 1 ? "" : "-rank" + std::to_string(rank));
    }
};

/// Poles spread as HiPPO-LegS spreads them, steps from 1e-3 to 1e-1, one copy of A for all channels.
template <class T>
struct data {
    using complex = std::complex<T>;
    shape s;
    array<double> delta, ddelta;
    array<std::complex<double>> A, dA;
    array<T> B, P, C, K, dK;
    array<complex> dB, dP, dC;
    array<std::byte> memory;

    explicit data(const shape& asked) : s(asked)
    {
        const auto states = static_cast<std::size_t>(s.state), all = static_cast<std::size_t>(s.dim * s.state);
        for (index h = 0; h < s.dim; ++h)
            delta.push_back(1e-3 * std::pow(100.0, static_cast<double>(h) / static_cast<double>(s.dim)));
        for (index n = 0; n < s.state; ++n)
            A.emplace_back(-0.5, -std::exp(std::log(1300.0) * static_cast<double>(n) / static_cast<double>(s.state)));
        B = fill<T>(2 * states, -1, 1, 1);
        P = fill<T>(2 * states * static_cast<std::size_t>(s.rank), -1, 1, 2);
        C = fill<T>(2 * all, -1, 1, 3);
        dK = fill<T>(static_cast<std::size_t>(s.dim * s.length), -1, 1, 4);
        K.resize(dK.size()), ddelta.resize(delta.size()), dA.resize(states), dB.resize(states), dC.resize(all);
        dP.resize(states * static_cast<std::size_t>(s.rank));
    }

    static const complex* pairs(const array<T>& x) { return reinterpret_cast<const complex*>(x.data()); }

    ssmkit::s4_kernel_args<T> args(T* to)
    {
        return {.delta = {delta.data(), {s.dim, s.state}, {1, 0}}, .A = {A.data(), 1, s.state}, .B = {pairs(B), 1, s.state},
                .P = {pairs(P), s.rank, 1, s.state}, .C = {pairs(C), 1, s.dim, s.state}, .K = {to, 1, s.dim, s.length}};
    }

    ssmkit::s4_kernel_backward_args<T> backward_args()
    {
        return {.forward = args(K.data()),
                .dK = {dK.data(), 1, s.dim, s.length},
                .ddelta = {ddelta.data(), {s.dim, s.state}, {1, 0}},
                .dA = {dA.data(), 1, s.state},
                .dB = {dB.data(), 1, s.state},
                .dP = {dP.data(), s.rank, 1, s.state},
                .dC = {dC.data(), 1, s.dim, s.state}};
    }

    /// The Cauchy sums, as bench/cauchy.cpp counts them: (1 + rank)² terms, four of which share a reciprocal. The transform, 2.5 L
    /// log₂ L, comes on top.
    work needs() const
    {
        const double nodes = static_cast<double>(s.length / 2 + 1), terms = static_cast<double>((1 + s.rank) * (1 + s.rank));
        const double pairs = static_cast<double>(s.dim * s.state) * nodes, length = static_cast<double>(s.length);
        const double transform = 1.25 * length * std::log2(length) * static_cast<double>(s.dim);  // pairs of operations
        return {.updates = static_cast<double>(s.dim * s.state) * length, .token_channels = static_cast<double>(s.dim) * length,
                .fmas = pairs * (12 * std::ceil(terms / 4) + 4 * terms) + transform,
                .bytes = static_cast<double>(s.dim * s.length) * sizeof(T), .kind = traffic::update};
    }
};

template <class T>
task forward_task(const shape& s, std::size_t threads)
{
    const auto d = std::make_shared<data<T>>(s);
    d->memory.resize(ssmkit::s4_kernel_workspace_size(d->args(d->K.data()), threads));
    task t;
    t.run = [d, threads] {
        if (threads == 1) return ssmkit::s4_kernel(d->args(d->K.data()), ssmkit::workspace(d->memory));
        ssmkit::s4_kernel(d->args(d->K.data()), ssmkit::workspace(d->memory), pool(threads));
    };
    t.needs = d->needs();
    t.run();
    data<double> exact(shape{s.dim, s.state, s.length, s.rank});  // the double kernel, which the tests hold to dense matrices
    std::copy(d->B.begin(), d->B.end(), exact.B.begin());
    std::copy(d->C.begin(), d->C.end(), exact.C.begin());
    std::copy(d->P.begin(), d->P.end(), exact.P.begin());
    ssmkit::s4_kernel(exact.args(exact.K.data()));
    const array<T> expected(exact.K.begin(), exact.K.end());
    t.mismatch = mismatch("K", view<const T, 1>(d->K.data(), static_cast<index>(d->K.size())),
                          view<const T, 1>(expected.data(), static_cast<index>(expected.size())));
    return t;
}

template <class T>
task backward_task(const shape& s)
{
    const auto d = std::make_shared<data<T>>(s);
    d->memory.resize(ssmkit::s4_kernel_backward_workspace_size(d->backward_args()));
    task t;
    t.run = [d] { ssmkit::s4_kernel_backward(d->backward_args(), ssmkit::workspace(d->memory)); };
    t.needs = d->needs();
    const auto forward = std::make_shared<data<T>>(s);
    t.rivals.push_back({"over_forward", [forward] { ssmkit::s4_kernel(forward->args(forward->K.data())); }, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto forward = [&]<class T>(std::type_identity<T>, const shape& s) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"s4_kernel", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return forward_task<T>(s, n); }});
        }
    };
    for (const shape& s :
         {shape{256, 32, 1024}, shape{256, 32, 16384}, shape{256, 32, 1021}, shape{64, 31, 2000}, shape{64, 32, 4096, 2}}) {
        forward(std::type_identity<float>{}, s);
    }
    forward(std::type_identity<double>{}, {64, 32, 4096});
    rows.push_back({"s4_kernel_backward", "ssmkit", shape{256, 32, 1024}.name(), "f32", 1, [] {
                        return backward_task<float>({256, 32, 1024});
                    }});
    rows.push_back({"s4_kernel_backward", "ssmkit", shape{64, 32, 4096, 2}.name(), "f32", 1, [] {
                        return backward_task<float>({64, 32, 4096, 2});
                    }});
    rows.push_back({"s4_kernel", "reference", shape{1, 8, 64}.name(), "f32", 1, [] {
        const auto d = std::make_shared<data<float>>(shape{1, 8, 64});
        task t;
        t.run = [d] { ssmkit::reference::s4_kernel(d->args(d->K.data())); };
        t.needs = d->needs();
        return t;
    }});
}};

}  // namespace
}  // namespace bench
