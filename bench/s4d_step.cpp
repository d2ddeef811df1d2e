#include <ssmkit/s4d_step.hpp>

#include <algorithm>
#include <complex>
#include <memory>
#include <string>
#include <vector>

#include <ssmkit/reference/s4d_step.hpp>

#include "harness.hpp"

namespace plain {  // plain/s4d_step.cpp

void s4d_step(std::size_t dim, std::size_t state, std::size_t length, const float* pole_re, const float* pole_im,
              const float* input_re, const float* input_im, const float* C_re, const float* C_im, const float* u, float* re,
              float* im, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct step_shape {
    index batch, dim, state, length;  // state counts pairs

    std::string name() const
    {
        return std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" + std::to_string(2 * state);
    }
};

struct step_data {
    using E = std::complex<float>;

    step_shape s;
    array<float> pole, input, C, u, y, h;  // complex ones in pairs

    explicit step_data(const step_shape& shape) : s(shape)
    {
        const auto poles = static_cast<std::size_t>(2 * s.dim * s.state),
                   tokens = static_cast<std::size_t>(s.batch * s.length * s.dim);
        pole = fill<float>(poles, 0.35, 0.69, 1);
        input = fill<float>(poles, -1, 1, 2);
        C = fill<float>(poles, -1, 1, 3);
        u = fill<float>(tokens, -1, 1, 4);
        y.resize(tokens);
        h.resize(poles * static_cast<std::size_t>(s.batch));
    }

    template <class P>
    static auto complex(P* p)
    {
        return reinterpret_cast<std::conditional_t<std::is_const_v<P>, const E, E>*>(p);
    }

    ssmkit::s4d_step_args<float> args()
    {
        return {.h = {complex(h.data()), s.batch, s.dim, s.state},
                .pole = {complex(pole.data()), s.dim, s.state},
                .input = {complex(input.data()), s.dim, s.state},
                .C = {complex(C.data()), 1, s.dim, s.state},
                .u = {u.data(), s.batch, s.length, s.dim},
                .y = {y.data(), s.batch, s.length, 1, s.dim}};
    }

    work needs() const
    {
        const double states = static_cast<double>(s.batch * s.dim * s.state), tokens = static_cast<double>(s.length);
        const double bytes = 16 * states + 24 * static_cast<double>(s.dim * s.state) + 8 * static_cast<double>(u.size());
        return {.updates = states * tokens,
                .token_channels = static_cast<double>(u.size()),
                .fmas = 8 * states * tokens,
                .bytes = bytes,
                .kind = traffic::update};
    }
};

/// The same numbers, real and imaginary parts apart.
struct plain_data {
    array<float> parts[8], y;

    explicit plain_data(const step_data& d) : y(d.y.size())
    {
        const array<float>* const from[] = {&d.pole, &d.input, &d.C, &d.h};
        for (std::size_t i = 0; i < 8; ++i) {
            for (std::size_t k = i % 2; k < from[i / 2]->size(); k += 2) parts[i].push_back((*from[i / 2])[k]);
        }
    }

    void run(const step_data& d)
    {
        const ssmkit::detail::flush_denormals guard;
        const auto dim = static_cast<std::size_t>(d.s.dim), state = static_cast<std::size_t>(d.s.state),
                   length = static_cast<std::size_t>(d.s.length);
        for (std::size_t b = 0; b < static_cast<std::size_t>(d.s.batch); ++b) {
            plain::s4d_step(dim, state, length, parts[0].data(), parts[1].data(), parts[2].data(), parts[3].data(), parts[4].data(),
                            parts[5].data(), &d.u[b * length * dim], &parts[6][b * dim * state], &parts[7][b * dim * state],
                            &y[b * length * dim]);
        }
    }
};

task ssmkit_task(const step_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<step_data>(shape), oracle = std::make_shared<step_data>(shape);
    const auto p = std::make_shared<plain_data>(*d);
    ssmkit::reference::s4d_step(oracle->args());
    task t;
    t.run = [=] { threads == 1 ? ssmkit::s4d_step(d->args()) : ssmkit::s4d_step(d->args(), pool(threads)); };
    t.run();
    t.needs = d->needs();
    const auto tokens = [](const array<float>& y) { return view<const float, 1>(y.data(), static_cast<index>(y.size())); };
    t.mismatch = mismatch("y", tokens(d->y), tokens(oracle->y), 5);
    if (threads > 1) return t;
    p->run(*d);
    if (t.mismatch.empty()) t.mismatch = mismatch("plain y", tokens(p->y), tokens(oracle->y), 5);
    t.rivals.push_back({"times_plain", [=] { p->run(*d); }});
    return t;
}

/// A stream as an audio thread has it: block after block with the state carried on, noise that breaks off after a third, so that
/// the states decay through the subnormal numbers. The time of a block is the least of some passes over the stream, so that what
/// other programs do to this one is not counted, but what a block's own numbers do.
task stream_task(const step_shape& block)
{
    constexpr std::size_t blocks = 600, passes = 7;
    const auto d = std::make_shared<step_data>(block);
    task t = ssmkit_task(block, 1);
    t.rivals.clear();
    const array<float> noise = d->u;
    std::vector<double> least(blocks, 1e300);
    double once = 0;
    for (std::size_t pass = 0; pass < passes; ++pass) {
        std::fill(d->h.begin(), d->h.end(), 0.0f);
        for (std::size_t i = 0; i < blocks; ++i) {
            for (std::size_t k = 0; k < d->u.size(); ++k) d->u[k] = i < blocks / 3 ? noise[k] : 0.0f;
            const double start = now(timer::core);
            ssmkit::s4d_step(d->args());
            const double seconds = now(timer::core) - start;
            if (pass > 0) once = std::max(once, seconds);  // the first pass is the first to touch the data
            least[i] = std::min(least[i], seconds);
        }
    }
    std::sort(least.begin(), least.end());
    const double median = least[blocks / 2];
    t.counters = {{"worst_block_over_median", least.back() / median}, {"worst_once_over_median", once / median}};
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const step_shape& s :
         {step_shape{1, 1024, 32, 1}, {64, 256, 32, 1}, {1, 256, 32, 64}, {1, 16, 8, 128}, {1, 255, 31, 63}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"s4d_step", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
        }
    }
    const step_shape block{1, 256, 32, 64};
    rows.push_back({"s4d_step", "ssmkit", block.name() + "-stream", "f32", 1, [=] { return stream_task(block); }});
}};

}  // namespace
}  // namespace bench
