#include <ssmkit/s4_backward.hpp>

#include <complex>
#include <memory>

#include <ssmkit/reference/s4_backward.hpp>
#include <ssmkit/s4.hpp>

#include "s4_layer_problem.hpp"

namespace bench {
namespace {

template <class E>
struct backward_problem {
    using complex = std::complex<E>;
    s4_layer_problem<E> p;
    array<E> y, dy, du, dD;
    array<double> ddelta;
    array<std::complex<double>> dA;
    array<complex> dB, dP, dC;

    explicit backward_problem(const s4_layer_shape& shape)
        : p(shape), y(p.u.size()), dy(p.rounded(fill<float>(p.u.size(), -1, 1, 11))), du(p.u.size()), dD(p.D.size()),
          ddelta(p.delta.size()), dA(p.A.size()), dB(p.B.size()), dP(p.P.size()), dC(p.C.size())
    {
    }

    ssmkit::s4_backward_args<E> args()
    {
        const index channels = p.s.channels, pairs = p.s.pairs();
        return {.forward = p.args(y.data()),
                .dy = p.tokens(static_cast<const E*>(dy.data())),
                .du = p.tokens(du.data()),
                .ddelta = {ddelta.data(), {channels, pairs}, {1, 0}},
                .dA = {dA.data(), 1, pairs},
                .dB = {dB.data(), 1, pairs},
                .dP = {dP.data(), p.s.rank, 1, pairs},
                .dC = {dC.data(), 1, channels, pairs},
                .dD = {dD.data(), 1, channels}};
    }
};

std::string compared(const backward_problem<float>& got, const backward_problem<double>& exact)
{
    const auto reals = [](const array<double>& x) { return array<float>(x.begin(), x.end()); };
    const auto numbers = [](const array<std::complex<double>>& x) { return array<std::complex<float>>(x.begin(), x.end()); };
    return first_of({mismatch("du", got.du, reals(exact.du)), mismatch("dD", got.dD, reals(exact.dD)),
                     mismatch("ddelta", got.ddelta, exact.ddelta, of_floats), mismatch("dA", got.dA, exact.dA, of_floats),
                     mismatch("dB", got.dB, numbers(exact.dB)), mismatch("dP", got.dP, numbers(exact.dP)),
                     mismatch("dC", got.dC, numbers(exact.dC))});
}

/// A smaller problem against the reference, and all of the row's against double.
std::string compared(const backward_problem<float>& problem)
{
    backward_problem<float> small(problem.p.s.small());
    backward_problem<double> oracle(small.p.s), exact(problem.p.s);
    ssmkit::s4_backward(small.args());
    ssmkit::reference::s4_backward(oracle.args());
    ssmkit::s4_backward(exact.args());
    return first_of({compared(small, oracle), compared(problem, exact)});
}

/// Transforms of u, dy and back, and the kernel's gradients, as s4_kernel_problem.hpp counts them; u and dy are read, du written.
work backward_needs(const s4_layer_shape& s)
{
    work w = s4_layer_needs(s, 3);
    w.fmas += 2 * static_cast<double>(count(s.channels, s.pairs(), s.length / 2 + 1)) * static_cast<double>(28 + 16 * s.rank);
    w.bytes *= 1.5;
    return w;
}

task ssmkit_task(const s4_layer_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<backward_problem<float>>(s);
    const auto a = p->args();
    task t;
    t.run = with_workspace(ssmkit::s4_backward_workspace_size(a, threads), threads,
                           [p, a](auto&&... how) { ssmkit::s4_backward(a, how...); });
    t.needs = backward_needs(s);
    t.run();
    t.mismatch = compared(*p);
    if (threads == 1) {
        t.rivals.push_back({"times_forward", with_workspace(ssmkit::s4_workspace_size(a.forward), 1,
                                                            [p, a](auto&&... how) { ssmkit::s4(a.forward, how...); }),
                            true});
    }
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s4_layer_shape& s : {s4_layer_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {8, 256, 64, 1024, 2}}) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"s4_backward", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
    }
}};

}  // namespace
}  // namespace bench
