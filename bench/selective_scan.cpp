#include <ssmkit/reference/selective_scan.hpp>
#include <ssmkit/selective_scan.hpp>

#include "selective_scan_problem.hpp"

namespace bench {
namespace {

/// A call of the library with all that it needs.
template <class T, class Param>
struct library_call {
    std::shared_ptr<scan_problem<T, Param>> problem;
    std::shared_ptr<array<T>> y = std::make_shared<array<T>>(problem->u.size());
    std::size_t threads = 1;
    ssmkit::selective_scan_args<T, Param> a = problem->args(problem->along_layout(*y));
    std::shared_ptr<array<std::byte>> memory =
        std::make_shared<array<std::byte>>(ssmkit::selective_scan_workspace_size(a, threads));

    void operator()() const
    {
        if (threads == 1) {
            ssmkit::selective_scan(a, ssmkit::workspace(*memory));
        } else {
            ssmkit::selective_scan(a, ssmkit::workspace(*memory), pool(threads));
        }
    }
};

template <class T, class Param>
task ssmkit_task(const scan_shape& shape, std::size_t threads)
{
    const auto p = scan_problem<T, Param>::get(shape);
    const library_call<T, Param> call{.problem = p, .threads = threads};
    call();
    task t;
    t.run = call;
    t.needs = p->needs();
    t.mismatch = mismatch("y", call.a.y, p->along_layout(p->expected()));
    if (threads > 1) t.rivals.push_back({"times_one_thread", library_call<T, Param>{.problem = p}});
    return t;
}

/// The compiler's best on the same numbers; a time-contiguous problem's memory is taken for a channel-contiguous one,
/// which is the layout that the compiler can do well.
std::function<void()> plain_call(const std::shared_ptr<scan_problem<float>>& p, const std::shared_ptr<array<float>>& y)
{
    const auto dim = static_cast<std::size_t>(p->shape.dim), state = static_cast<std::size_t>(p->shape.state);
    const auto scratch = std::make_shared<array<float>>((2 + state) * dim);
    const auto A = std::make_shared<array<float>>(dim * state);
    for (std::size_t d = 0; d < dim; ++d) {
        for (std::size_t n = 0; n < state; ++n) (*A)[n * dim + d] = p->A[d * state + n];
    }
    return [=] {
        plain::selective_scan(static_cast<std::size_t>(p->shape.batch), static_cast<std::size_t>(p->shape.length), dim,
                              state, p->u.data(), p->delta.data(), A->data(), p->B.data(), p->C.data(),
                              p->shape.gated ? p->D.data() : nullptr, p->shape.gated ? p->z.data() : nullptr,
                              scratch->data(), scratch->data() + dim, scratch->data() + 2 * dim, y->data());
    };
}

task plain_task(const scan_shape& shape)
{
    const auto p = scan_problem<float>::get(shape);
    const auto y = std::make_shared<array<float>>(p->u.size());
    task t;
    t.run = plain_call(p, y);
    t.needs = p->needs();
    t.run();
    t.mismatch = mismatch("y", p->along_layout(*y), p->along_layout(p->expected()));
    return t;
}

task reference_task(const scan_shape& shape)
{
    const auto p = scan_problem<float>::get(shape);
    const auto y = std::make_shared<array<float>>(p->u.size());
    task t;
    t.run = [=] { ssmkit::reference::selective_scan(p->args(p->along_layout(*y))); };
    t.needs = p->needs();
    return t;
}

// ---- Rows -----------------------------------------------------------------------------------------------------------

template <class T, class Param = ssmkit::compute_t<T>>
row ssmkit_row(const scan_shape& shape, std::size_t threads, std::function<task()> prepare)
{
    return {"selective_scan", "ssmkit", shape.name(ssmkit::detail::is_complex<Param>),
            dtype_name<T>(),  threads,  prepare};
}

/// The shapes that the library's speed is judged by.
void add_main_shapes(std::vector<row>& rows)
{
    const scan_shape shapes[] = {{1, 2048, 1536, 16}, {1, 2048, 5120, 16}, {8, 512, 1536, 16}, {1, 65536, 256, 16}};
    for (scan_shape shape : shapes) {
        for (const bool gated : {false, true}) {
            for (const bool time_contiguous : {false, true}) {
                shape.gated = gated;
                shape.time_contiguous = time_contiguous;
                for (const std::size_t threads : thread_counts()) {
                    rows.push_back(ssmkit_row<float>(shape, threads, [=] {
                        task t = ssmkit_task<float, float>(shape, threads);
                        const auto p = scan_problem<float>::get(shape);
                        if (threads == 1) {
                            t.rivals.push_back(
                                {"times_plain", plain_call(p, std::make_shared<array<float>>(p->u.size()))});
                        }
                        return t;
                    }));
                }
                if (time_contiguous) continue;
                rows.push_back({"selective_scan", "plain", shape.name(), "f32", 1, [=] { return plain_task(shape); }});
                if (gated) continue;
                rows.push_back(
                    {"selective_scan", "reference", shape.name(), "f32", 1, [=] { return reference_task(shape); }});
            }
        }
    }
}

/// Time of one call over its floor, in units of that of the same shape with 16 real states: what an update costs per
/// instruction that it needs.
template <class T, class Param>
task relative_to_16_states(const scan_shape& shape)
{
    task t = ssmkit_task<T, Param>(shape, 1);
    scan_shape usual = shape;
    usual.state = 16;
    const task other = ssmkit_task<float, float>(usual, 1);
    const double floors = other.needs.floor_seconds(1, false) / t.needs.floor_seconds(1, std::is_same_v<T, double>);
    t.rivals.push_back({"cost_vs_16_real_states", other.run, true, floors});
    return t;
}

void add_states_and_types(std::vector<row>& rows)
{
    for (const ssmkit::index state : {1, 8, 16, 64, 128, 256}) {
        const scan_shape shape{1, 512, 512, state};
        rows.push_back(ssmkit_row<float>(shape, 1, [=] { return relative_to_16_states<float, float>(shape); }));
        rows.push_back(ssmkit_row<float, std::complex<float>>(
            shape, 1, [=] { return relative_to_16_states<float, std::complex<float>>(shape); }));
    }
    const scan_shape shape{1, 512, 512, 16};
    rows.push_back(ssmkit_row<double>(shape, 1, [=] { return ssmkit_task<double, double>(shape, 1); }));
    rows.push_back(
        ssmkit_row<ssmkit::bfloat16>(shape, 1, [=] { return ssmkit_task<ssmkit::bfloat16, float>(shape, 1); }));
    rows.push_back(
        ssmkit_row<ssmkit::float16>(shape, 1, [=] { return ssmkit_task<ssmkit::float16, float>(shape, 1); }));
}

/// Fixed cost of a call; an awkward size; silence after a burst, whose states decay through the subnormal numbers.
void add_special_cases(std::vector<row>& rows)
{
    const scan_shape tiny{1, 1, 1, 1}, awkward{3, 509, 131, 13, true};
    rows.push_back(ssmkit_row<float>(tiny, 1, [=] { return ssmkit_task<float, float>(tiny, 1); }));
    rows.push_back(ssmkit_row<float>(awkward, 1, [=] {
        task t = ssmkit_task<float, float>(awkward, 1);
        const auto p = scan_problem<float>::get(awkward);
        t.rivals.push_back({"times_plain", plain_call(p, std::make_shared<array<float>>(p->u.size()))});
        return t;
    }));

    const scan_shape normal{1, 4096, 256, 16};
    scan_shape silent = normal;
    silent.burst = 64;
    rows.push_back(ssmkit_row<float>(silent, 1, [=] {
        task t = ssmkit_task<float, float>(silent, 1);
        t.rivals.push_back({"times_normal", ssmkit_task<float, float>(normal, 1).run, true});
        return t;
    }));
}

/// All sizes of dim and length up to a few registers, in one row: no size may cost much more than the next larger one
/// of either axis, nor more than plain.
class size_sweep {
public:
    static constexpr ssmkit::index dims = 33, lengths = 70;

    size_sweep()
    {
        for (ssmkit::index length = 1; length <= lengths; ++length) {
            for (ssmkit::index dim = 1; dim <= dims; ++dim) {
                const scan_shape shape{1, length, dim, 16, true};
                const task t = ssmkit_task<float, float>(shape, 1);
                if (mismatch.empty()) mismatch = t.mismatch;
                const auto p = scan_problem<float>::get(shape);
                library.push_back(t.run);
                plain.push_back(plain_call(p, std::make_shared<array<float>>(p->u.size())));
                needs.add(t.needs);
            }
        }
    }

    task measured() const
    {
        const std::size_t count = library.size(), row = dims;
        std::vector<double> time(count, 1e300);
        for (int round = 0; round < 5; ++round) {
            for (std::size_t i = 0; i < count; ++i) time[i] = std::min(time[i], sample(library[i]));
        }
        double worst_next = 0, worst_plain = 0;
        std::size_t at_next = 0, at_plain = 0;
        const auto compare = [&](std::size_t i, double cheap, const std::function<void()>& other, double& worst,
                                 std::size_t& at) {
            if (time[i] <= worst * cheap) return;
            // The worst so far: measured again in turns, as a disturbance is likelier than a cliff.
            const double confirmed = 1 / time_ratio(other, library[i], timer::core, 0.02).of_best;
            if (confirmed <= worst) return;
            worst = confirmed;
            at = i;
        };
        for (std::size_t i = 0; i < count; ++i) {
            if (i % row + 1 < row) compare(i, time[i + 1], library[i + 1], worst_next, at_next);
            if (i + row < count) compare(i, time[i + row], library[i + row], worst_next, at_next);
            compare(i, sample(plain[i]), plain[i], worst_plain, at_plain);
        }
        task t;
        t.mismatch = mismatch;
        t.needs = needs;
        t.run = [calls = library] {
            for (const auto& call : calls) call();
        };
        t.counters = {{"worst_vs_next_larger", worst_next},
                      {"at_dim", static_cast<double>(at_next % row + 1)},
                      {"at_length", static_cast<double>(at_next / row + 1)},
                      {"worst_vs_plain", worst_plain},
                      {"plain_at_dim", static_cast<double>(at_plain % row + 1)},
                      {"plain_at_length", static_cast<double>(at_plain / row + 1)}};
        return t;
    }

private:
    static double sample(const std::function<void()>& f)
    {
        return seconds_per_call(f, calls_per_sample(f, 2e-5), timer::core);
    }

    std::vector<std::function<void()>> library, plain;
    std::string mismatch;
    work needs;
};

const registration here{[](std::vector<row>& rows) {
    add_main_shapes(rows);
    add_states_and_types(rows);
    add_special_cases(rows);
    rows.push_back(
        {"selective_scan", "ssmkit", "1x(1-70)x(1-33)x16-zD", "f32", 1, [] { return size_sweep().measured(); }});
}};

}  // namespace
}  // namespace bench
