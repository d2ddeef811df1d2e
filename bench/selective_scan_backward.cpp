#include <ssmkit/reference/selective_scan_backward.hpp>
#include <ssmkit/selective_scan.hpp>
#include <ssmkit/selective_scan_backward.hpp>

#include "selective_scan_problem.hpp"

namespace plain {  // plain/selective_scan_backward.cpp

void selective_scan_backward(std::size_t batch, std::size_t length, std::size_t dim, std::size_t state, const float* u,
                             const float* delta, const float* A, const float* B, const float* C, const float* D,
                             const float* z, const float* dy, float* du, float* ddelta, float* dz, float* dA, float* dB,
                             float* dC, float* dD, float* ddelta_bias, float* dinitial_state, float* h, float* step,
                             float* x, float* p, float* G_B, float* G_A, float* K);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index;

/// All gradients of a scan with z and D.
template <class T>
struct gradients {
    using real = ssmkit::compute_t<T>;
    std::shared_ptr<scan_problem<T>> problem;
    array<T> dy, du, ddelta, dz;
    array<real> dA, dB, dC, dD, ddelta_bias, dinitial_state;

    explicit gradients(const std::shared_ptr<scan_problem<T>>& p) : problem(p)
    {
        const scan_shape& s = p->shape;
        dy = fill<T>(p->u.size(), -1, 1, 11);
        du.resize(p->u.size());
        ddelta.resize(p->u.size());
        dz.resize(p->u.size());
        dA.resize(p->A.size());
        dB.resize(p->B.size());
        dC.resize(p->C.size());
        dD.resize(p->D.size());
        ddelta_bias.resize(p->D.size());
        dinitial_state.resize(static_cast<std::size_t>(s.batch * s.dim * s.state));
    }

    ssmkit::selective_scan_backward_args<T> args()
    {
        const scan_shape& s = problem->shape;
        return {.forward = problem->args({}),
                .dy = problem->along_layout(dy),
                .du = problem->along_layout(du),
                .ddelta = problem->along_layout(ddelta),
                .dz = problem->along_layout(dz),
                .dA = {dA.data(), s.dim, s.state},
                .dB = {dB.data(), s.batch, s.length, 1, s.state},
                .dC = {dC.data(), s.batch, s.length, 1, s.state},
                .dD = {dD.data(), s.dim},
                .ddelta_bias = {ddelta_bias.data(), s.dim},
                .dinitial_state = {dinitial_state.data(), s.batch, s.dim, s.state}};
    }
};

/// Where the gradients differ. Sums over all tokens are allowed ten times as much: the reference adds them one by one.
template <class T>
std::string any_mismatch(const ssmkit::selective_scan_backward_args<T>& got,
                         const ssmkit::selective_scan_backward_args<T>& expected)
{
    for (const std::string& text :
         {mismatch("du", got.du, expected.du), mismatch("ddelta", got.ddelta, expected.ddelta),
          mismatch("dz", got.dz, expected.dz), mismatch("dA", got.dA, expected.dA, 10),
          mismatch("dB", got.dB, expected.dB), mismatch("dC", got.dC, expected.dC),
          mismatch("dD", got.dD, expected.dD, 10), mismatch("ddelta_bias", got.ddelta_bias, expected.ddelta_bias, 10),
          mismatch("dinitial_state", got.dinitial_state, expected.dinitial_state)}) {
        if (!text.empty()) return text;
    }
    return {};
}

/// The reference's gradients; the last ones are kept, as neighbouring rows share them.
template <class T>
ssmkit::selective_scan_backward_args<T> expected(const std::shared_ptr<scan_problem<T>>& problem)
{
    static std::unique_ptr<gradients<T>> last;
    if (!last || last->problem != problem) {
        last = std::make_unique<gradients<T>>(problem);
        ssmkit::reference::selective_scan_backward(last->args());
    }
    return last->args();
}

/// Per update, with the decay known once: the forward's exponent, B x, h and y; G, K, two products for du, the carried
/// part and what it adds to dA and to ddelta, dB and dC. Per token and channel softplus and its slope, silu and its
/// slope (90).
template <class T>
work needs(const scan_problem<T>& p)
{
    work w = p.needs();
    w.fmas = 14 * w.updates + 90 * w.token_channels;
    w.bytes = 7 * w.token_channels * sizeof(T);  // u, delta, z, dy; du, ddelta, dz
    return w;
}

template <class T>
struct library_call {
    std::shared_ptr<gradients<T>> results;
    std::size_t threads = 1;
    ssmkit::selective_scan_backward_args<T> a = results->args();
    std::shared_ptr<array<std::byte>> memory =
        std::make_shared<array<std::byte>>(ssmkit::selective_scan_backward_workspace_size(a, threads));

    void operator()() const
    {
        if (threads == 1) {
            ssmkit::selective_scan_backward(a, ssmkit::workspace(*memory));
        } else {
            ssmkit::selective_scan_backward(a, ssmkit::workspace(*memory), pool(threads));
        }
    }
};

/// The forward pass of the same problem.
template <class T>
std::function<void()> forward_call(const std::shared_ptr<scan_problem<T>>& p)
{
    const auto y = std::make_shared<array<T>>(p->u.size());
    const auto a = p->args(p->along_layout(*y));
    const auto memory = std::make_shared<array<std::byte>>(ssmkit::selective_scan_workspace_size(a));
    return [p, y, a, memory] { ssmkit::selective_scan(a, ssmkit::workspace(*memory)); };
}

template <class T>
task ssmkit_task(const scan_shape& shape, std::size_t threads)
{
    const auto p = scan_problem<T>::get(shape);
    const library_call<T> call{.results = std::make_shared<gradients<T>>(p), .threads = threads};
    call();
    task t;
    t.run = call;
    t.needs = needs(*p);
    t.mismatch = any_mismatch(call.a, expected(p));
    t.counters = {{"workspace_bytes", static_cast<double>(call.memory->size())}};
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", library_call<T>{call.results}});
    } else {
        t.rivals.push_back({.counter = "times_forward", .run = forward_call(p), .inverse = true});
    }
    return t;
}

task plain_task(const scan_shape& shape)
{
    const auto p = scan_problem<float>::get(shape);
    const auto g = std::make_shared<gradients<float>>(p);
    const auto dim = static_cast<std::size_t>(shape.dim), state = static_cast<std::size_t>(shape.state);
    const auto batch = static_cast<std::size_t>(shape.batch), length = static_cast<std::size_t>(shape.length);
    const auto transposed = [=](const array<float>& from, std::size_t rows, std::size_t columns, array<float>& to) {
        for (std::size_t i = 0; i < from.size(); ++i) {
            const std::size_t matrix = i / (rows * columns), r = i / columns % rows, c = i % columns;
            to[matrix * rows * columns + c * rows + r] = from[i];
        }
    };
    const auto A = std::make_shared<array<float>>(dim * state);
    transposed(p->A, dim, state, *A);
    const auto scratch = std::make_shared<array<float>>((length + 2) * dim * state + (3 * length + 2) * dim);
    task t;
    t.run = [=] {
        float* const h = scratch->data();
        float* const step = h + (length + 1) * dim * state;
        float* const x = step + length * dim;
        float* const q = x + length * dim;
        float* const G_B = q + length * dim;
        plain::selective_scan_backward(batch, length, dim, state, p->u.data(), p->delta.data(), A->data(), p->B.data(),
                                       p->C.data(), p->D.data(), p->z.data(), g->dy.data(), g->du.data(),
                                       g->ddelta.data(), g->dz.data(), g->dA.data(), g->dB.data(), g->dC.data(),
                                       g->dD.data(), g->ddelta_bias.data(), g->dinitial_state.data(), h, step, x, q,
                                       G_B, G_B + dim, G_B + 2 * dim);
    };
    t.needs = needs(*p);
    t.run();
    gradients<float> in_order = *g;
    transposed(g->dA, state, dim, in_order.dA);
    transposed(g->dinitial_state, state, dim, in_order.dinitial_state);
    t.mismatch = any_mismatch(in_order.args(), expected(p));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&](const char* variant, const scan_shape& shape, std::size_t threads,
                         std::function<task()> prepare) {
        rows.push_back({"selective_scan_backward", variant, shape.name(), "f32", threads, std::move(prepare)});
    };
    scan_shape shapes[] = {
        {1, 2048, 1536, 16, true}, {8, 512, 1536, 16, true}, {1, 16384, 256, 16, true}, {3, 509, 131, 13, true}};
    for (scan_shape shape : shapes) {
        for (const bool time_contiguous : {false, true}) {
            shape.time_contiguous = time_contiguous;
            for (const std::size_t threads : thread_counts()) {
                add("ssmkit", shape, threads, [=] { return ssmkit_task<float>(shape, threads); });
            }
            if (!time_contiguous) add("plain", shape, 1, [=] { return plain_task(shape); });
        }
    }
    const scan_shape small = shapes[3];
    add("reference", small, 1, [=] {
        const auto g = std::make_shared<gradients<float>>(scan_problem<float>::get(small));
        task t;
        t.run = [=] { ssmkit::reference::selective_scan_backward(g->args()); };
        t.needs = needs(*g->problem);
        return t;
    });
}};

}  // namespace
}  // namespace bench
