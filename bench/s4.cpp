#include <ssmkit/s4.hpp>

#include <algorithm>
#include <complex>
#include <memory>

#include <ssmkit/reference/s4.hpp>
#include <ssmkit/s4_step.hpp>

#include "fftw.hpp"
#include "s4_layer_problem.hpp"

namespace bench {
namespace {

using problem = s4_layer_problem<float>;

/// A call with memory of its own to work in.
std::function<void()> prepared(const std::shared_ptr<problem>& p, const ssmkit::s4_args<float>& a, std::size_t threads = 1)
{
    return with_workspace(ssmkit::s4_workspace_size(a, threads), threads, [p, a](auto&&... how) { ssmkit::s4(a, how...); });
}

/// The same by s4_step, all tokens in a call; the state goes on from one to the next. Without D.
std::function<void()> steps_of(const std::shared_ptr<problem>& p, array<float>& y)
{
    using complex = std::complex<float>;
    struct ready {
        array<complex> pole, gain, U, V, h;
    };
    const s4_layer_shape& s = p->s;
    const auto r = std::make_shared<ready>();
    const index pairs = s.pairs();
    const auto all = static_cast<std::size_t>(s.channels * pairs);
    r->pole.resize(all), r->gain.resize(all), r->h.resize(all * static_cast<std::size_t>(s.batch));
    r->U.resize(all * static_cast<std::size_t>(s.rank)), r->V.resize(r->U.size());
    const auto a = p->args(y.data());
    ssmkit::s4_step_setup(ssmkit::s4_step_setup_args<float>{.delta = a.delta,
                                                            .A = a.A,
                                                            .B = a.B,
                                                            .P = a.P,
                                                            .pole = {r->pole.data(), s.channels, pairs},
                                                            .gain = {r->gain.data(), s.channels, pairs},
                                                            .U = {r->U.data(), s.rank, s.channels, pairs},
                                                            .V = {r->V.data(), s.rank, s.channels, pairs}});
    const ssmkit::s4_step_args<float> step{.pole = {r->pole.data(), s.channels, pairs},
                                           .gain = {r->gain.data(), s.channels, pairs},
                                           .U = {r->U.data(), s.rank, s.channels, pairs},
                                           .V = {r->V.data(), s.rank, s.channels, pairs},
                                           .C = {p->true_C.data(), 1, s.channels, pairs},
                                           .u = {p->u.data(), s.batch, s.channels, s.length},
                                           .h = {r->h.data(), s.batch, s.channels, pairs},
                                           .y = {y.data(), s.batch, 1, s.channels, s.length}};
    return [=] { static_cast<void>(r), static_cast<void>(p), ssmkit::s4_step(step); };
}

#if SSMKIT_BENCH_FFTW
/// Convolutions with kernels of s4_kernel, their spectra ready made.
std::shared_ptr<fftw_convolution> make_fftw(const problem& p)
{
    const s4_layer_shape& s = p.s;
    array<float> kernel(static_cast<std::size_t>(s.channels * s.length)), y(p.u.size());
    auto k = ssmkit::detail::s4_layer_kernel(p.args(y.data()));
    k.K = {kernel.data(), 1, s.channels, s.length};
    ssmkit::s4_kernel(k);
    const auto length = static_cast<std::size_t>(s.length);
    const auto fftw =
        std::make_shared<fftw_convolution>(static_cast<std::size_t>(s.batch), static_cast<std::size_t>(s.channels), length, length);
    fftw->keep(kernel.data());
    return fftw;
}
#endif

/// A smaller problem against the reference, and the row's own against states in double.
std::string compared(const problem& p, const array<float>& y)
{
    const problem small(p.s.small());
    array<float> got(small.u.size()), oracle(small.u.size()), expected(p.u.size());
    const bool states = p.s.form == s4_form::states;
    ssmkit::s4(states ? small.by_states(got.data(), true) : small.args(got.data()));
    ssmkit::reference::s4(small.args(oracle.data()));
    const s4_layer_problem<double> wide(p.s);
    array<double> exact(p.u.size());
    ssmkit::s4(wide.by_states(exact.data(), true));
    std::copy(exact.begin(), exact.end(), expected.begin());
    return first_of({mismatch("y", got, oracle), mismatch("y", y, expected)});
}

task ssmkit_task(const s4_layer_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<problem>(s);
    const auto y = std::make_shared<array<float>>(p->u.size()), other = std::make_shared<array<float>>(p->u.size());
    const bool states = s.form == s4_form::states;
    const auto a = states ? p->by_states(y->data(), true) : p->args(y->data());
    task t;
    t.run = [y, run = prepared(p, a, threads)] { run(); };
    t.needs = s4_layer_needs(s);
    t.run();
    t.mismatch = compared(*p, *y);
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", prepared(p, a)});
        return t;
    }
    const auto rival = [&](const char* name, const ssmkit::s4_args<float>& b, bool inverse) {
        t.rivals.push_back({name, [other, run = prepared(p, b)] { run(); }, inverse});
    };
    auto convolved = p->args(other->data());
    convolved.form = s4_form::convolution;
    if (states) {
        rival("times_convolution", convolved, true);
        rival("times_recovering", p->by_states(other->data(), false), true);
        t.rivals.push_back({"times_steps", [other, run = steps_of(p, *other)] { run(); }});
    } else {
        rival("times_states", p->by_states(other->data(), true), false);
    }
#if SSMKIT_BENCH_FFTW
    const auto fftw = make_fftw(*p);
    (*fftw)(p->u.data(), nullptr, p->D.data(), other->data());
    if (t.mismatch.empty()) t.mismatch = mismatch("FFTW's y", *other, *y);
    t.rivals.push_back({"times_fftw", [=] { (*fftw)(p->u.data(), nullptr, p->D.data(), other->data()); }});
#endif
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&](const s4_layer_shape& s, std::size_t threads) {
        rows.push_back({"s4", "ssmkit", s.name(), "f32", threads, [=] { return ssmkit_task(s, threads); }});
    };
    for (s4_layer_shape s : {s4_layer_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {1, 256, 64, 1024}, {8, 256, 64, 1024, 2}}) {
        for (const s4_form form : {s4_form::automatic, s4_form::states}) {
            s.form = form;
            for (const std::size_t n : thread_counts()) add(s, n);
        }
    }
    for (const index state : {8, 16, 32, 128}) {  // where the two forms meet
        for (const index length : {128, 1024, 16384}) add({8, 64, state, length, 1, s4_form::states}, 1);
    }
    const s4_layer_shape small = s4_layer_shape{8, 256, 64, 1024}.small();
    rows.push_back({"s4", "reference", small.name(), "f32", 1, [=] {
        const auto p = std::make_shared<problem>(small);
        const auto y = std::make_shared<array<float>>(p->u.size());
        task t;
        t.run = [=] { ssmkit::reference::s4(p->args(y->data())); };
        t.needs = s4_layer_needs(small);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
