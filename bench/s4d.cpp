#include <ssmkit/s4d.hpp>

#include <complex>
#include <memory>

#include <ssmkit/discretize.hpp>
#include <ssmkit/reference/s4d.hpp>

#include "fftw.hpp"
#include "harness.hpp"

namespace plain {  // plain/s4d.cpp

void s4d(std::size_t length, std::size_t state, const float* pole, const float* in, const float* out, float D, const float* u,
         float* x, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;
using complex = std::complex<float>;

/// `state` as S4D counts: twice the conjugate pairs.
struct s4d_shape {
    index batch, channels, state, length;
    bool channel_contiguous = false;
    ssmkit::s4d_form form = ssmkit::s4d_form::automatic;

    std::string name() const
    {
        std::string text;
        for (const index extent : {batch, channels, state, length}) text += (text.empty() ? "" : "x") + std::to_string(extent);
        if (channel_contiguous) text += "-channel_contiguous";
        if (form == ssmkit::s4d_form::states) text += "-states";
        if (form == ssmkit::s4d_form::convolution) text += "-convolution";
        return text;
    }
    index pairs() const { return state / 2; }
    std::size_t elements() const { return static_cast<std::size_t>(batch * channels * length); }
};

/// S4D-Lin, steps log-uniform in 0.001 ... 0.1.
struct s4d_problem {
    s4d_shape s;
    array<float> u, D;
    array<double> delta;
    array<std::complex<double>> A;
    array<complex> B, C;

    explicit s4d_problem(const s4d_shape& shape) : s(shape), u(fill<float>(s.elements(), -1, 1, 1))
    {
        const auto channels = static_cast<std::size_t>(s.channels), pairs = static_cast<std::size_t>(s.pairs());
        delta = fill<double>(channels, std::log(1e-3), std::log(1e-1), 2);
        for (double& x : delta) x = std::exp(x);
        D = fill<float>(channels, -1, 1, 3);
        A.resize(channels * pairs);
        for (std::size_t i = 0; i < A.size(); ++i) A[i] = {-0.5, 3.14159265358979 * static_cast<double>(i % pairs)};
        B.assign(A.size(), complex(1));
        const array<float> re = fill<float>(A.size(), -1, 1, 4), im = fill<float>(A.size(), -1, 1, 5);
        C.resize(A.size());
        for (std::size_t i = 0; i < C.size(); ++i) C[i] = {re[i], im[i]};
    }

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.channel_contiguous) return {p, s.batch, s.length, s.channels};
        return view<E, 3>(p, s.batch, s.channels, s.length).transposed(1, 2);
    }

    ssmkit::s4d_args<float> args(float* y) const
    {
        const index channels = s.channels, pairs = s.pairs();
        return {.u = tokens(u.data()),
                .delta = ssmkit::tied_over_state(view<const double, 1>(delta.data(), channels), pairs),
                .A = {A.data(), channels, pairs},
                .B = {B.data(), channels, pairs},
                .C = {C.data(), 1, channels, pairs},
                .D = {D.data(), 1, channels},
                .form = s.form,
                .y = tokens(y)};
    }

    array<float> expected() const
    {
        array<float> y(u.size());
        ssmkit::reference::s4d(args(y.data()));
        return y;
    }

    /// Inputs to states and states to outputs, two multiply-adds each a pair; half of a chunk's pairs of tokens. Kernels by FFT
    /// need no part of this.
    work needs() const
    {
        const double n = static_cast<double>(s.elements()), chunk = 32;
        return {.updates = n * static_cast<double>(s.pairs()),
                .token_channels = n,
                .fmas = n * (4 * static_cast<double>(s.pairs()) + chunk / 2),
                .bytes = 2 * sizeof(float) * n};
    }
};

/// Every channel's system, discretised.
struct plain_s4d {
    std::shared_ptr<s4d_problem> p;
    array<float> pole, in, out, x;

    explicit plain_s4d(const std::shared_ptr<s4d_problem>& problem) : p(problem), pole(2 * p->A.size()), in(pole), out(pole)
    {
        const auto pairs = static_cast<std::size_t>(p->s.pairs());
        x.resize(2 * pairs);
        for (std::size_t i = 0; i < p->A.size(); ++i) {
            const std::size_t h = i / pairs, n = i % pairs;
            const auto [l, gain] = ssmkit::discretize(p->A[i], p->delta[h], ssmkit::discretization::zoh);
            const auto put = [&](array<float>& to, std::complex<double> value) {
                to[h * 2 * pairs + n] = static_cast<float>(value.real());
                to[(h * 2 + 1) * pairs + n] = static_cast<float>(value.imag());
            };
            put(pole, l);
            put(in, gain);
            put(out, 2.0 * std::complex<double>(p->C[i]));
        }
    }

    void operator()(float* y)
    {
        const ssmkit::detail::flush_denormals guard;
        const auto length = static_cast<std::size_t>(p->s.length), pairs = static_cast<std::size_t>(p->s.pairs());
        for (std::size_t row = 0; row < static_cast<std::size_t>(p->s.batch * p->s.channels); ++row) {
            const std::size_t h = row % static_cast<std::size_t>(p->s.channels), at = 2 * h * pairs;
            std::fill(x.begin(), x.end(), 0.0f);
            plain::s4d(length, pairs, &pole[at], &in[at], &out[at], p->D[h], &p->u[row * length], x.data(), y + row * length);
        }
    }
};

#if SSMKIT_BENCH_FFTW
/// The kernels are the answers to an impulse.
std::shared_ptr<fftw_convolution> make_fftw(const s4d_shape& s)
{
    const auto channels = static_cast<std::size_t>(s.channels), length = static_cast<std::size_t>(s.length);
    s4d_problem impulse({1, s.channels, s.state, s.length});
    std::fill(impulse.u.begin(), impulse.u.end(), 0.0f);
    for (std::size_t h = 0; h < channels; ++h) impulse.u[h * length] = 1;
    array<float> kernel(impulse.u.size());
    auto a = impulse.args(kernel.data());
    a.D = {};
    a.form = ssmkit::s4d_form::states;
    ssmkit::s4d(a);
    return std::make_shared<fftw_convolution>(static_cast<std::size_t>(s.batch), channels, length, kernel.data());
}
#endif

task ssmkit_task(const s4d_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<s4d_problem>(s);
    const auto y = std::make_shared<array<float>>(p->u.size()), other = std::make_shared<array<float>>(p->u.size());
    const auto a = p->args(y->data());
    const auto memory = std::make_shared<array<std::byte>>(ssmkit::s4d_workspace_size(a, threads));
    task t;
    t.run = [=] {
        const ssmkit::workspace lent(*memory);
        threads == 1 ? ssmkit::s4d(a, lent) : ssmkit::s4d(a, lent, pool(threads));
        static_cast<void>(y), static_cast<void>(p);  // what the arguments point to
    };
    t.needs = p->needs();
    t.run();
    array<float> expected = p->expected();
    t.mismatch = mismatch("y", a.y, p->args(expected.data()).y);
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", [=] { ssmkit::s4d(a, ssmkit::workspace(*memory)); }});
        return t;
    }
    if (s.form == ssmkit::s4d_form::states) {
        auto other_form = a;
        other_form.form = ssmkit::s4d_form::convolution;
        other_form.y = p->tokens(other->data());
        const auto its_memory = std::make_shared<array<std::byte>>(ssmkit::s4d_workspace_size(other_form));
        t.rivals.push_back({"times_convolution", [=] { ssmkit::s4d(other_form, ssmkit::workspace(*its_memory)); }, true});
    }
    if (s.channel_contiguous) return t;
    t.rivals.push_back({"times_plain", [run = std::make_shared<plain_s4d>(p), other] { (*run)(other->data()); }});
#if SSMKIT_BENCH_FFTW
    const auto fftw = make_fftw(s);
    (*fftw)(p->u.data(), p->D.data(), other->data());
    if (t.mismatch.empty()) t.mismatch = mismatch("FFTW's y", p->args(other->data()).y, p->args(expected.data()).y);
    t.rivals.push_back({"times_fftw", [=] { (*fftw)(p->u.data(), p->D.data(), other->data()); }});
#endif
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (s4d_shape s : {s4d_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {8, 1024, 64, 4096}, {1, 256, 64, 1024}}) {
        for (const bool contiguous : {false, true}) {
            s.channel_contiguous = contiguous;
            for (const std::size_t n : thread_counts()) {
                rows.push_back({"s4d", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
            }
        }
    }
    for (const index state : {8, 16, 24, 32, 64}) {  // where the two forms meet
        for (const index length : {128, 256, 512, 1024, 16384}) {
            const s4d_shape s{8, 64, state, length, false, ssmkit::s4d_form::states};
            rows.push_back({"s4d", "ssmkit", s.name(), "f32", 1, [=] { return ssmkit_task(s, 1); }});
        }
    }
    for (s4d_shape s : {s4d_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {8, 1024, 64, 4096}}) {
        s.form = ssmkit::s4d_form::states;
        rows.push_back({"s4d", "ssmkit", s.name(), "f32", 1, [=] { return ssmkit_task(s, 1); }});
    }
    const s4d_shape s{8, 256, 64, 1024};
    rows.push_back({"s4d", "plain", s.name(), "f32", 1, [=] {
                        const auto p = std::make_shared<s4d_problem>(s);
                        const auto y = std::make_shared<array<float>>(p->u.size());
                        task t;
                        t.run = [run = std::make_shared<plain_s4d>(p), y] { (*run)(y->data()); };
                        t.needs = p->needs();
                        t.run();
                        array<float> expected = p->expected();
                        t.mismatch = mismatch("y", p->args(y->data()).y, p->args(expected.data()).y);
                        return t;
                    }});
}};

}  // namespace
}  // namespace bench
