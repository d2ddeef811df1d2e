// ssd's relatives beside ssd at the same number of state updates, and beside the compiler's best.

#include <ssmkit/linear_attention.hpp>

#include <memory>

#include <ssmkit/noncausal_ssd.hpp>
#include <ssmkit/reference/linear_attention.hpp>
#include <ssmkit/reference/noncausal_ssd.hpp>

#include "ssd_problem.hpp"

namespace plain {  // plain/linear_attention.cpp

void linear_attention(std::size_t batch, std::size_t length, std::size_t nheads, std::size_t groups, std::size_t key,
                      std::size_t value, const float* q, const float* k, const float* v, const float* g, const float* gk,
                      const float* beta, float scale, float* decay, float* u, float* S, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index;

enum class member { linear_attention, retention, simple_gla, gla, gated_delta_rule };

struct attention_shape {
    member which;
    index batch, length, nheads, key, value, groups;

    const char* op() const
    {
        constexpr const char* names[] = {"linear_attention", "retention", "simple_gla", "gla", "gated_delta_rule"};
        return names[static_cast<int>(which)];
    }
    std::string name() const
    {
        std::string text;
        for (const index extent : {batch, length, nheads, key, value, groups}) text += (text.empty() ? "" : "x") + std::to_string(extent);
        return text;
    }
    bool by_head() const { return which != member::linear_attention && which != member::gla; }
    bool by_key() const { return which == member::gla; }
    bool delta_rule() const { return which == member::gated_delta_rule; }
};

/// Keys of length 1, as the delta rule wants them; gates of e^-0.5 to 1.
struct attention_problem {
    attention_shape shape;
    array<float> q, k, v, g, gk, beta;

    explicit attention_problem(const attention_shape& s) : shape(s)
    {
        const auto tokens = static_cast<std::size_t>(s.batch * s.length), heads = tokens * static_cast<std::size_t>(s.nheads);
        const auto maps = tokens * static_cast<std::size_t>(s.groups * s.key), key = static_cast<std::size_t>(s.key);
        q = fill<float>(maps, -1, 1, 1);
        k = fill<float>(maps, -1, 1, 2);
        for (std::size_t first = 0; first < maps; first += key) {
            float square = 0;
            for (std::size_t i = 0; i < key; ++i) square += k[first + i] * k[first + i];
            for (std::size_t i = 0; i < key; ++i) k[first + i] /= std::sqrt(square);
        }
        v = fill<float>(heads * static_cast<std::size_t>(s.value), -1, 1, 3);
        g = fill<float>(s.which == member::retention ? static_cast<std::size_t>(s.nheads) : heads, -0.5, 0, 4);
        if (s.by_key()) gk = fill<float>(maps, -0.5, 0, 5);
        if (s.delta_rule()) beta = fill<float>(heads, 0, 1, 6);
    }

    ssmkit::linear_attention_args<float> args(array<float>& y) const
    {
        const auto [which, batch, length, nheads, key, value, groups] = shape;
        ssmkit::linear_attention_args<float> a{.q = {q.data(), batch, length, groups, key},
                                               .k = {k.data(), batch, length, groups, key},
                                               .v = {v.data(), batch, length, nheads, value},
                                               .y = {y.data(), batch, length, nheads, value}};
        if (which == member::retention) {
            a.g = ssmkit::fixed_decay(ssmkit::view<const float, 1>(g.data(), nheads), batch, length);
        } else if (shape.by_head()) {
            a.g = {g.data(), batch, length, nheads};
        }
        if (shape.by_key()) a.gk = {gk.data(), batch, length, groups, key};
        if (shape.delta_rule()) a.beta = {beta.data(), batch, length, nheads};
        return a;
    }

    array<float> expected() const
    {
        array<float> y(v.size());
        ssmkit::reference::linear_attention(args(y));
        return y;
    }

    /// As for ssd where it is ssd. Otherwise per update: decay and input's product, and what takes it in, and the output; the
    /// delta rule reads the state once more.
    work needs() const
    {
        constexpr double piece = 32;
        const double heads = static_cast<double>(shape.batch * shape.length * shape.nheads);
        const double key = static_cast<double>(shape.key), value = static_cast<double>(shape.value);
        work w;
        w.token_channels = heads * value;
        w.updates = w.token_channels * key;
        w.bytes = sizeof(float) * (2 * w.token_channels + static_cast<double>(q.size() + k.size() + gk.size()) + heads);
        if (shape.delta_rule()) {
            w.fmas = 4 * w.updates;
        } else if (shape.by_key()) {
            w.fmas = 3 * w.updates;
            w.exps = static_cast<double>(gk.size());
        } else {
            w.fmas = 2 * w.updates + w.token_channels * piece / 2 + w.updates / piece +
                     heads * piece * key * static_cast<double>(shape.groups) / static_cast<double>(shape.nheads);
            w.exps = heads * piece / 2;
        }
        return w;
    }
};

/// A call of the library with all that it needs.
struct library_call {
    std::shared_ptr<attention_problem> problem;
    std::size_t threads = 1;
    std::shared_ptr<array<float>> y = std::make_shared<array<float>>(problem->v.size());
    ssmkit::linear_attention_args<float> a = problem->args(*y);
    std::shared_ptr<array<std::byte>> memory =
        std::make_shared<array<std::byte>>(ssmkit::linear_attention_workspace_size(a, threads));

    void operator()() const
    {
        const auto run = [&](auto&& exec) {
            const ssmkit::workspace lent(*memory);
            switch (problem->shape.which) {
                case member::linear_attention: return ssmkit::linear_attention(a, lent, exec);
                case member::retention: return ssmkit::retention(a, lent, exec);
                case member::simple_gla: return ssmkit::simple_gla(a, lent, exec);
                case member::gla: return ssmkit::gla(a, lent, exec);
                case member::gated_delta_rule: return ssmkit::gated_delta_rule(a, lent, exec);
            }
        };
        threads == 1 ? run(ssmkit::in_place{}) : run(pool(threads));
    }
};

std::function<void()> plain_call(const std::shared_ptr<attention_problem>& p, const std::shared_ptr<array<float>>& y)
{
    const attention_shape s = p->shape;
    const auto size = [](index extent) { return static_cast<std::size_t>(extent); };
    const auto scratch = std::make_shared<array<float>>(size(s.key + s.value + s.key * s.value));
    return [=] {
        float* const decay = scratch->data();
        plain::linear_attention(size(s.batch), size(s.length), size(s.nheads), size(s.groups), size(s.key), size(s.value),
                                p->q.data(), p->k.data(), p->v.data(), s.by_head() ? p->g.data() : nullptr,
                                s.by_key() ? p->gk.data() : nullptr, s.delta_rule() ? p->beta.data() : nullptr,
                                1 / std::sqrt(static_cast<float>(s.key)), decay, decay + s.key, decay + s.key + s.value, y->data());
    };
}

/// ssd at as many updates.
struct ssd_call {
    std::shared_ptr<ssd_problem<float>> problem;
    std::shared_ptr<array<float>> y = std::make_shared<array<float>>(problem->u.size());
    ssmkit::ssd_args<float> a = problem->args(*y);
    std::shared_ptr<array<std::byte>> memory = std::make_shared<array<std::byte>>(ssmkit::ssd_workspace_size(a));

    void operator()() const { ssmkit::ssd(a, ssmkit::workspace(*memory)); }
};

rival times_ssd(index batch, index length, index nheads, index headdim, index state)
{
    const ssd_shape s{batch, length, nheads, headdim, state};
    return {"times_ssd", ssd_call{std::make_shared<ssd_problem<float>>(s)}, true};
}

struct noncausal_call {
    std::shared_ptr<ssd_problem<float>> problem;
    std::shared_ptr<array<float>> y = std::make_shared<array<float>>(problem->u.size());
    ssmkit::noncausal_ssd_args<float> a = args();
    std::shared_ptr<array<std::byte>> memory = std::make_shared<array<std::byte>>(ssmkit::noncausal_ssd_workspace_size(a));

    ssmkit::noncausal_ssd_args<float> args() const
    {
        const auto as_ssd = problem->args(*y);
        return {.u = as_ssd.u, .delta = as_ssd.delta, .B = as_ssd.B, .C = as_ssd.C, .delta_softplus = true, .y = as_ssd.y};
    }

    void operator()() const { ssmkit::noncausal_ssd(a, ssmkit::workspace(*memory)); }
};

task ssmkit_task(const attention_shape& s, std::size_t threads)
{
    const auto p = std::make_shared<attention_problem>(s);
    const library_call call{.problem = p, .threads = threads};
    task t;
    t.run = call;
    t.needs = p->needs();
    call();
    array<float> expected = p->expected();
    t.mismatch = mismatch("y", call.a.y, p->args(expected).y);
    if (threads > 1) {
        t.rivals.push_back({"times_one_thread", library_call{.problem = p}});
        return t;
    }
    t.rivals.push_back(times_ssd(s.batch, s.length, s.nheads, s.value, s.key));
    if (s.which != member::retention) {
        t.rivals.push_back({"times_plain", plain_call(p, std::make_shared<array<float>>(p->v.size()))});
    }
    return t;
}

task plain_task(const attention_shape& s)
{
    const auto p = std::make_shared<attention_problem>(s);
    const auto y = std::make_shared<array<float>>(p->v.size());
    task t;
    t.run = plain_call(p, y);
    t.needs = p->needs();
    t.run();
    array<float> expected = p->expected();
    t.mismatch = mismatch("y", p->args(*y).y, p->args(expected).y);
    return t;
}

/// ssd without an order.
task noncausal_task(const ssd_shape& s)
{
    const noncausal_call call{std::make_shared<ssd_problem<float>>(s)}, oracle{call.problem};
    task t;
    t.run = call;
    t.needs = call.problem->needs();
    t.needs.exps = 0;
    t.needs.fmas = 2 * t.needs.updates + 2 * t.needs.token_channels;
    call();
    ssmkit::reference::noncausal_ssd(oracle.a);
    t.mismatch = mismatch("y", call.a.y, oracle.a.y);
    t.rivals.push_back(times_ssd(s.batch, s.length, s.nheads, s.headdim, s.state));
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const member which :
         {member::linear_attention, member::retention, member::simple_gla, member::gla, member::gated_delta_rule}) {
        for (const index groups : {1, 24}) {
            const attention_shape s{which, 1, 2048, 24, 128, 64, groups};
            for (const std::size_t n : thread_counts()) {
                rows.push_back({s.op(), "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task(s, n); }});
            }
            if (which == member::retention) continue;
            rows.push_back({s.op(), "plain", s.name(), "f32", 1, [=] { return plain_task(s); }});
        }
        const attention_shape awkward{which, 2, 509, 6, 37, 51, 3};
        rows.push_back({awkward.op(), "ssmkit", awkward.name(), "f32", 1, [=] { return ssmkit_task(awkward, 1); }});
    }
    const ssd_shape image{1, 2048, 24, 64, 128};
    rows.push_back({"noncausal_ssd", "ssmkit", image.name(), "f32", 1, [=] { return noncausal_task(image); }});
}};

}  // namespace
}  // namespace bench
