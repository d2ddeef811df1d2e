#include <cstdlib>
#include <memory>

#include <ssmkit/reference/selective_state_update.hpp>
#include <ssmkit/selective_state_update.hpp>

#include "harness.hpp"

namespace plain {  // plain/selective_state_update.cpp

void selective_state_update(std::size_t batch, std::size_t dim, std::size_t state, const float* u, const float* delta,
                            const float* A, const float* B, const float* C, const float* D, const float* z, float* h,
                            float* y);
void selective_state_update_state_major(std::size_t batch, std::size_t dim, std::size_t state, const float* u,
                                        const float* delta, const float* A, const float* B, const float* C,
                                        const float* D, const float* z, float* step, float* x, float* h, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index;

struct step_shape {
    index batch, dim, state;
    bool gated = false;        ///< with z and D
    bool state_major = false;  ///< the state as (batch, state, dim), A as (state, dim)
    bool cold = false;         ///< each call after 3 ms of other, scalar work
    bool subnormal = false;    ///< silence: the state has decayed into the subnormal numbers, and hardly moves

    std::string name() const
    {
        std::string text = std::to_string(batch) + "x" + std::to_string(dim) + "x" + std::to_string(state);
        if (gated) text += "-zD";
        if (state_major) text += "-state_major";
        if (cold) text += "-cold";
        if (subnormal) text += "-subnormal_state";
        return text;
    }
};

/// Inputs as Mamba-1 has them: one head, softplus, A = -1 ... -state, step sizes from 0.002 to 0.3.
struct step_problem {
    step_shape shape;
    array<float> u, delta, z, A, B, C, D, h, y;

    explicit step_problem(const step_shape& s) : shape(s)
    {
        const auto batch = static_cast<std::size_t>(s.batch), dim = static_cast<std::size_t>(s.dim);
        const auto state = static_cast<std::size_t>(s.state);
        u = s.subnormal ? array<float>(batch * dim) : fill<float>(batch * dim, -1, 1, 1);
        delta = s.subnormal ? fill<float>(batch * dim, -19, -18, 2) : fill<float>(batch * dim, -6, -1, 2);
        if (s.gated) z = fill<float>(batch * dim, -3, 3, 3);
        D = fill<float>(dim, -1, 1, 4);
        B = fill<float>(batch * state, -1, 1, 5);
        C = fill<float>(batch * state, -1, 1, 6);
        h = s.subnormal ? fill<float>(batch * dim * state, 1e-40, 1e-38, 7)
                        : fill<float>(batch * dim * state, -1, 1, 7);
        y.resize(batch * dim);
        A.resize(dim * state);
        for (std::size_t d = 0; d < dim; ++d) {
            for (std::size_t n = 0; n < state; ++n)
                A[s.state_major ? n * dim + d : d * state + n] = -static_cast<float>(n + 1);
        }
    }

    ssmkit::selective_state_update_args<float> args()
    {
        const auto [batch, dim, state] = std::tuple(shape.batch, shape.dim, shape.state);
        ssmkit::selective_state_update_args<float> a{.h = {h.data(), batch, 1, dim, state},
                                                     .u = {u.data(), batch, 1, dim},
                                                     .delta = {delta.data(), batch, 1, dim},
                                                     .A = {A.data(), 1, dim, state},
                                                     .B = {B.data(), batch, 1, state},
                                                     .C = {C.data(), batch, 1, state},
                                                     .delta_softplus = true,
                                                     .y = {y.data(), batch, 1, dim}};
        if (shape.state_major) {
            a.h = ssmkit::view<float, 4>(h.data(), batch, 1, state, dim).transposed(2, 3);
            a.A = ssmkit::view<const float, 3>(A.data(), 1, state, dim).transposed(1, 2);
        }
        if (shape.gated) {
            a.D = {D.data(), 1, dim};
            a.z = {z.data(), batch, 1, dim};
        }
        return a;
    }

    /// As for the scan: per update the exponent's product, exp2, B x, h and y; per channel softplus (28), u delta and
    /// y, with a gate silu (16). The state is read and written in place.
    work needs() const
    {
        work w;
        w.token_channels = static_cast<double>(u.size());
        w.updates = static_cast<double>(h.size());
        w.exps = w.updates;
        w.fmas = 4 * w.updates + (shape.gated ? 46 : 30) * w.token_channels;
        w.working_set = sizeof(float) * static_cast<double>(h.size() + A.size() + (shape.gated ? 4 : 3) * u.size());
        w.bytes = w.working_set + sizeof(float) * w.updates;
        w.kind = traffic::update;
        return w;
    }
};

struct library_call {
    std::shared_ptr<step_problem> problem;
    std::size_t threads = 1;
    ssmkit::selective_state_update_args<float> a = problem->args();

    void operator()() const
    {
        if (threads == 1) {
            ssmkit::selective_state_update(a);
        } else {
            ssmkit::selective_state_update(a, pool(threads));
        }
    }
};

struct plain_call {
    std::shared_ptr<step_problem> problem;
    std::shared_ptr<array<float>> scratch = std::make_shared<array<float>>(2 * problem->u.size());

    void operator()() const
    {
        step_problem& p = *problem;
        const auto batch = static_cast<std::size_t>(p.shape.batch), dim = static_cast<std::size_t>(p.shape.dim);
        const auto state = static_cast<std::size_t>(p.shape.state);
        const float* const D = p.shape.gated ? p.D.data() : nullptr;
        const float* const z = p.shape.gated ? p.z.data() : nullptr;
        if (p.shape.state_major) {
            plain::selective_state_update_state_major(batch, dim, state, p.u.data(), p.delta.data(), p.A.data(),
                                                      p.B.data(), p.C.data(), D, z, scratch->data(),
                                                      scratch->data() + dim, p.h.data(), p.y.data());
        } else {
            plain::selective_state_update(batch, dim, state, p.u.data(), p.delta.data(), p.A.data(), p.B.data(),
                                          p.C.data(), D, z, p.h.data(), p.y.data());
        }
    }
};

struct reference_call {
    std::shared_ptr<step_problem> problem;

    void operator()() const { ssmkit::reference::selective_state_update(problem->args()); }
};

/// Integer work of 3 ms in a few registers, as a program does between two decoding steps.
void scalar_work()
{
    const double end = now(timer::wall) + 3e-3;
    std::uint64_t x = 1;
    while (now(timer::wall) < end) {
        for (int i = 0; i < 1000; ++i) x = x * 6364136223846793005u + 1442695040888963407u;
    }
    if (x == 0) std::abort();  // which never happens, but the compiler does not know
}

/// One call checked against the reference from the same state.
template <class Call>
task checked(const step_shape& shape, const Call& call)
{
    const reference_call reference{std::make_shared<step_problem>(shape)};
    task t;
    t.run = call;
    t.needs = call.problem->needs();
    call();
    reference();
    t.mismatch = mismatch("y", call.problem->args().y, reference.problem->args().y);
    if (t.mismatch.empty()) t.mismatch = mismatch("h", call.problem->args().h, reference.problem->args().h);
    if (shape.cold) t.before = scalar_work;
    return t;
}

task ssmkit_task(const step_shape& shape, std::size_t threads = 1)
{
    const auto problem = std::make_shared<step_problem>(shape);
    task t = checked(shape, library_call{problem, threads});
    if (shape.cold || shape.state == 1) return t;
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", library_call{problem}});
    } else {
        t.rivals.push_back({"times_plain", plain_call{std::make_shared<step_problem>(shape)}});
    }
    return t;
}

task plain_task(const step_shape& shape)
{
    return checked(shape, plain_call{std::make_shared<step_problem>(shape)});
}

task reference_task(const step_shape& shape)
{
    return checked(shape, reference_call{std::make_shared<step_problem>(shape)});
}

/// Silence costs what sound costs. The state is not compared here: the library flushes subnormal numbers, the reference
/// keeps them.
task silence_task(const step_shape& silent)
{
    const library_call call{std::make_shared<step_problem>(silent)};
    const auto quiet = std::make_shared<array<float>>(call.problem->h);
    step_shape normal = silent;
    normal.subnormal = false;
    task t;
    t.run = [=] {
        // A flushed state would be zero from the second call on: bring it back, here and for the rival.
        std::copy(quiet->begin(), quiet->end(), call.problem->h.begin());
        call();
    };
    t.needs = call.problem->needs();
    t.run();
    for (const float y : call.problem->y) {
        if (!(std::abs(y) < 1e-36f)) t.mismatch = "y is not silent";
    }
    const library_call loud{std::make_shared<step_problem>(normal)};
    const auto sound = std::make_shared<array<float>>(loud.problem->h);
    t.rivals.push_back({.counter = "times_normal",
                        .run =
                            [=] {
                                std::copy(sound->begin(), sound->end(), loud.problem->h.begin());
                                loud();
                            },
                        .inverse = true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&](const char* variant, const step_shape& shape, std::function<task()> prepare,
                         std::size_t threads = 1) {
        rows.push_back({"selective_state_update", variant, shape.name(), "f32", threads, std::move(prepare)});
    };
    const step_shape shapes[] = {{1, 5120, 16},
                                 {.batch = 1, .dim = 5120, .state = 16, .gated = true},
                                 {.batch = 1, .dim = 5120, .state = 16, .state_major = true},
                                 {8, 5120, 16},
                                 {64, 5120, 16},
                                 {.batch = 3, .dim = 131, .state = 13, .gated = true}};  // an awkward size
    for (const step_shape& shape : shapes) {
        for (const std::size_t n : thread_counts()) {
            add(
                "ssmkit", shape, [=] { return ssmkit_task(shape, n); }, n);
        }
        add("plain", shape, [=] { return plain_task(shape); });
    }
    const step_shape cold{.batch = 1, .dim = 5120, .state = 16, .cold = true}, tiny{1, 1, 1};
    add("ssmkit", cold, [=] { return ssmkit_task(cold); });
    add("plain", cold, [=] { return plain_task(cold); });
    add("ssmkit", tiny, [=] { return ssmkit_task(tiny); });  // the fixed cost of a call
    add("reference", shapes[0], [shape = shapes[0]] { return reference_task(shape); });
    const step_shape silent{.batch = 1, .dim = 5120, .state = 16, .subnormal = true};
    add("ssmkit", silent, [=] { return silence_task(silent); });
}};

}  // namespace
}  // namespace bench
