#include <ssmkit/s4.hpp>

#include <cmath>
#include <complex>
#include <memory>
#include <string>

#include <ssmkit/s4_backward.hpp>
#include <ssmkit/s4_setup.hpp>
#include <ssmkit/s4_step.hpp>

#include "fftw.hpp"
#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::s4_form, ssmkit::view;

/// `state` as S4 counts: twice the conjugate pairs.
struct s4_shape {
    index batch, channels, state, length, rank = 1;
    s4_form form = s4_form::automatic;

    std::string name() const
    {
        std::string text;
        for (const index extent : {batch, channels, state, length}) {
            if (!text.empty()) text += 'x';
            text += std::to_string(extent);
        }
        if (rank != 1) text += "-rank" + std::to_string(rank);
        if (form == s4_form::states) text += "-states";
        return text;
    }
    index pairs() const { return state / 2; }
    std::size_t elements() const { return static_cast<std::size_t>(batch * channels * length); }
};

/// Poles spread as HiPPO-LegS spreads them, steps from 1e-3 to 1e-1, one copy of A for all channels; in E.
template <class E>
struct s4_model {
    using complex = std::complex<E>;
    s4_shape s;
    array<E> u, D;
    array<double> delta;
    array<std::complex<double>> A;
    array<complex> B, P, C, true_C;  // prepared, and what it was prepared from

    explicit s4_model(const s4_shape& shape) : s(shape)
    {
        const auto channels = static_cast<std::size_t>(s.channels), pairs = static_cast<std::size_t>(s.pairs());
        u = widened(fill<float>(s.elements(), -1, 1, 1));
        D = widened(fill<float>(channels, -1, 1, 3));
        for (index h = 0; h < s.channels; ++h) {
            delta.push_back(1e-3 * std::pow(100.0, static_cast<double>(h) / static_cast<double>(s.channels)));
        }
        for (index n = 0; n < s.pairs(); ++n) {
            A.emplace_back(-0.5, -std::exp(std::log(1300.0) * static_cast<double>(n) / static_cast<double>(s.pairs())));
        }
        B = numbers(pairs, 4), P = numbers(pairs * static_cast<std::size_t>(s.rank), 6), C = numbers(channels * pairs, 8);
        true_C.resize(C.size());
        ssmkit::s4_setup(ssmkit::s4_setup_args<E>{.delta = steps(),
                                                  .A = {A.data(), 1, s.pairs()},
                                                  .P = {P.data(), s.rank, 1, s.pairs()},
                                                  .C = {C.data(), 1, s.channels, s.pairs()},
                                                  .length = s.length,
                                                  .map = ssmkit::s4_map::recover,
                                                  .out = {true_C.data(), 1, s.channels, s.pairs()}});
    }

    static array<E> widened(const array<float>& x) { return {x.begin(), x.end()}; }

    static array<complex> numbers(std::size_t count, unsigned seed)
    {
        const array<float> re = fill<float>(count, -1, 1, seed), im = fill<float>(count, -1, 1, seed + 1);
        array<complex> z(count);
        for (std::size_t i = 0; i < count; ++i) z[i] = {static_cast<E>(re[i]), static_cast<E>(im[i])};
        return z;
    }

    view<const double, 2> steps() const
    {
        return ssmkit::tied_over_state(view<const double, 1>(delta.data(), s.channels), s.pairs());
    }

    template <class X>
    view<X, 3> tokens(X* p) const
    {
        return view<X, 3>(p, s.batch, s.channels, s.length).transposed(1, 2);
    }

    ssmkit::s4_args<E> args(E* y) const
    {
        return {.u = tokens(u.data()),
                .delta = steps(),
                .A = {A.data(), 1, s.pairs()},
                .B = {B.data(), 1, s.pairs()},
                .P = {P.data(), s.rank, 1, s.pairs()},
                .C = {C.data(), 1, s.channels, s.pairs()},
                .D = {D.data(), 1, s.channels},
                .form = s.form,
                .y = tokens(y)};
    }

    ssmkit::s4_args<E> by_states(E* y, bool recovered) const
    {
        auto a = args(y);
        a.form = s4_form::states;
        if (recovered) a.true_C = {true_C.data(), 1, s.channels, s.pairs()};
        return a;
    }
};

using s4_problem = s4_model<float>;

/// The states' arithmetic: inputs to states and back, two multiply-adds each a pair, half of a chunk's pairs of tokens, and
/// (2 pairs)² a chunk. A convolution's: the kernel's Cauchy sums as bench/s4_kernel.cpp counts them, once, and transforms of twice
/// the length, `transforms` a row and two a channel, as bench/fft_conv.cpp does.
work needs(const s4_shape& s, double transforms = 2)
{
    const double n = static_cast<double>(s.elements()), pairs = static_cast<double>(s.pairs()), chunk = 32;
    work w{.updates = n * pairs, .token_channels = n, .bytes = 2 * sizeof(float) * n};
    if (s.form == s4_form::states) {
        w.fmas = n * (4 * pairs + chunk / 2 + 4 * pairs * pairs / chunk);
        return w;
    }
    const double length = static_cast<double>(s.length), channels = static_cast<double>(s.channels);
    const double batch = static_cast<double>(s.batch);
    const double terms = static_cast<double>((1 + s.rank) * (1 + s.rank)), one = 2.5 * length * std::log2(2 * length);
    w.fmas = channels * (pairs * (length / 2 + 1) * (12 * std::ceil(terms / 4) + 4 * terms) + one * (transforms * batch + 2));
    return w;
}

/// A call with memory of its own to work in.
std::function<void()> prepared(const std::shared_ptr<s4_problem>& p, const ssmkit::s4_args<float>& a, std::size_t threads = 1)
{
    const auto memory = std::make_shared<array<std::byte>>(ssmkit::s4_workspace_size(a, threads));
    return [=] {
        threads == 1 ? ssmkit::s4(a, ssmkit::workspace(*memory)) : ssmkit::s4(a, ssmkit::workspace(*memory), pool(threads));
        static_cast<void>(p);  // what the arguments point to
    };
}

/// The same by s4_step, all tokens in a call; the state goes on from one to the next. Without D.
std::function<void()> steps_of(const std::shared_ptr<s4_problem>& p, array<float>& y)
{
    using complex = std::complex<float>;
    struct ready {
        array<complex> pole, gain, U, V, h;
    };
    const s4_shape& s = p->s;
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
std::shared_ptr<fftw_convolution> make_fftw(const s4_problem& p)
{
    const s4_shape& s = p.s;
    array<float> kernel(static_cast<std::size_t>(s.channels * s.length)), y(p.u.size());
    auto k = ssmkit::detail::s4_layer_kernel(p.args(y.data()));
    k.K = {kernel.data(), 1, s.channels, s.length};
    ssmkit::s4_kernel(k);
    return std::make_shared<fftw_convolution>(static_cast<std::size_t>(s.batch), static_cast<std::size_t>(s.channels),
                                              static_cast<std::size_t>(s.length), kernel.data());
}
#endif

task layer_task(const s4_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<s4_problem>(s);
    const auto y = std::make_shared<array<float>>(p->u.size()), other = std::make_shared<array<float>>(p->u.size());
    const bool states = s.form == s4_form::states;
    const auto a = states ? p->by_states(y->data(), true) : p->args(y->data());
    task t;
    t.run = [y, run = prepared(p, a, threads)] { run(); };
    t.needs = needs(s);
    t.run();
    array<float> expected(p->u.size());
    {
        const s4_model<double> wide(s);
        array<double> exact(p->u.size());
        ssmkit::s4(wide.by_states(exact.data(), true));
        std::copy(exact.begin(), exact.end(), expected.begin());
    }
    t.mismatch = mismatch("y", a.y, p->args(expected.data()).y);
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
    (*fftw)(p->u.data(), p->D.data(), other->data());
    if (t.mismatch.empty()) t.mismatch = mismatch("FFTW's y", p->args(other->data()).y, p->args(expected.data()).y);
    t.rivals.push_back({"times_fftw", [=] { (*fftw)(p->u.data(), p->D.data(), other->data()); }});
#endif
    return t;
}

/// All gradients, against the forward pass by convolution.
task backward_task(const s4_shape& s)
{
    struct gradients {
        array<float> dy, du, dD, y;
        array<double> ddelta;
        array<std::complex<double>> dA;
        array<std::complex<float>> dB, dP, dC;
        array<std::byte> memory;
    };
    const auto p = std::make_shared<s4_problem>(s);
    const auto g = std::make_shared<gradients>();
    g->dy = fill<float>(s.elements(), -1, 1, 11);
    g->du.resize(s.elements()), g->y.resize(s.elements()), g->dD.resize(p->D.size()), g->ddelta.resize(p->delta.size());
    g->dA.resize(p->A.size()), g->dB.resize(p->B.size()), g->dP.resize(p->P.size()), g->dC.resize(p->C.size());
    const ssmkit::s4_backward_args<float> a{.forward = p->args(g->y.data()),
                                            .dy = p->tokens<const float>(g->dy.data()),
                                            .du = p->tokens(g->du.data()),
                                            .ddelta = {g->ddelta.data(), {s.channels, s.pairs()}, {1, 0}},
                                            .dA = {g->dA.data(), 1, s.pairs()},
                                            .dB = {g->dB.data(), 1, s.pairs()},
                                            .dP = {g->dP.data(), s.rank, 1, s.pairs()},
                                            .dC = {g->dC.data(), 1, s.channels, s.pairs()},
                                            .dD = {g->dD.data(), 1, s.channels}};
    g->memory.resize(ssmkit::s4_backward_workspace_size(a));
    task t;
    t.run = [p, g, a] { ssmkit::s4_backward(a, ssmkit::workspace(g->memory)); };
    t.needs = needs(s, 3);
    t.rivals.push_back({"times_forward", prepared(p, a.forward), true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&](const s4_shape& s, std::size_t threads) {
        rows.push_back({"s4", "ssmkit", s.name(), "f32", threads, [=] { return layer_task(s, threads); }});
    };
    for (s4_shape s : {s4_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {1, 256, 64, 1024}, {8, 256, 64, 1024, 2}}) {
        for (const s4_form form : {s4_form::automatic, s4_form::states}) {
            s.form = form;
            for (const std::size_t n : thread_counts()) add(s, n);
        }
        s.form = s4_form::automatic;
        if (s.batch > 1) rows.push_back({"s4_backward", "ssmkit", s.name(), "f32", 1, [=] { return backward_task(s); }});
    }
    for (const index state : {8, 16, 32, 128}) {  // where the two forms meet
        for (const index length : {128, 1024, 16384}) add({8, 64, state, length, 1, s4_form::states}, 1);
    }
}};

}  // namespace
}  // namespace bench
