#include <ssmkit/s4d.hpp>

#include <complex>
#include <memory>

#include <ssmkit/discretize.hpp>

#include "fftw.hpp"
#include "s4d_layer_problem.hpp"

namespace plain {  // plain/s4d.cpp

void s4d(std::size_t length, std::size_t state, const float* pole, const float* in, const float* out, float D, const float* u,
         float* x, float* y);

}  // namespace plain

namespace bench {
namespace {

/// Every channel's system, discretised.
struct plain_s4d {
    std::shared_ptr<s4d_layer_problem> p;
    array<float> pole, in, out, x;

    explicit plain_s4d(const std::shared_ptr<s4d_layer_problem>& problem) : p(problem), pole(2 * p->A.size()), in(pole), out(pole)
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
/// The kernels are the answers to an impulse; their spectra ready made.
std::shared_ptr<fftw_convolution> make_fftw(const s4d_layer_shape& s)
{
    const auto channels = static_cast<std::size_t>(s.channels), length = static_cast<std::size_t>(s.length);
    s4d_layer_problem impulse({1, s.channels, s.state, s.length});
    std::fill(impulse.u.begin(), impulse.u.end(), 0.0f);
    for (std::size_t h = 0; h < channels; ++h) impulse.u[h * length] = 1;
    array<float> kernel(impulse.u.size());
    auto a = impulse.args(kernel.data());
    a.D = {};
    a.form = ssmkit::s4d_form::states;
    ssmkit::s4d(a);
    const auto fftw = std::make_shared<fftw_convolution>(static_cast<std::size_t>(s.batch), channels, length, length);
    fftw->keep(kernel.data());
    return fftw;
}
#endif

task ssmkit_task(const s4d_layer_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<s4d_layer_problem>(s);
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
    (*fftw)(p->u.data(), nullptr, p->D.data(), other->data());
    if (t.mismatch.empty()) t.mismatch = mismatch("FFTW's y", p->args(other->data()).y, p->args(expected.data()).y);
    t.rivals.push_back({"times_fftw", [=] { (*fftw)(p->u.data(), nullptr, p->D.data(), other->data()); }});
#endif
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (s4d_layer_shape s : {s4d_layer_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {8, 1024, 64, 4096}, {1, 256, 64, 1024}}) {
        for (const bool contiguous : {false, true}) {
            s.channel_contiguous = contiguous;
            for (const std::size_t n : thread_counts()) {
                rows.push_back({"s4d", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
            }
        }
    }
    for (const index state : {8, 16, 24, 32, 64}) {  // where the two forms meet
        for (const index length : {128, 256, 512, 1024, 16384}) {
            const s4d_layer_shape s{8, 64, state, length, false, ssmkit::s4d_form::states};
            rows.push_back({"s4d", "ssmkit", s.name(), "f32", 1, [=] { return ssmkit_task(s, 1); }});
        }
    }
    for (s4d_layer_shape s : {s4d_layer_shape{8, 256, 64, 1024}, {8, 256, 64, 16384}, {8, 1024, 64, 4096}}) {
        s.form = ssmkit::s4d_form::states;
        rows.push_back({"s4d", "ssmkit", s.name(), "f32", 1, [=] { return ssmkit_task(s, 1); }});
    }
    const s4d_layer_shape s{8, 256, 64, 1024};
    rows.push_back({"s4d", "plain", s.name(), "f32", 1, [=] {
                        const auto p = std::make_shared<s4d_layer_problem>(s);
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
