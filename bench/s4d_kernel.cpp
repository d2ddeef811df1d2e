#include <ssmkit/s4d_kernel.hpp>

#include <memory>
#include <type_traits>

#include <ssmkit/reference/s4d_kernel.hpp>

#include "s4d_kernel_problem.hpp"

namespace plain {  // plain/s4d_kernel.cpp

using s4d_function = void(std::size_t, std::size_t, float, const float*, const float*, const float*, const float*, float*, float*,
                          float*, float*, float*);
s4d_function s4d_kernel, s4d_kernel_steps;

}  // namespace plain

namespace bench {
namespace {

/// Parameters as the plain loop takes them.
struct plain_data {
    array<float> A_re, A_im, C_re, C_im, scratch, K;

    explicit plain_data(const s4d_data<float>& d) : scratch(4 * static_cast<std::size_t>(d.s.state)), K(d.K.size())
    {
        for (std::size_t i = 0; i < d.A.size(); ++i) {
            A_re.push_back(static_cast<float>(d.A[i].real()));
            A_im.push_back(static_cast<float>(d.A[i].imag()));
            C_re.push_back(d.C[i].real());
            C_im.push_back(d.C[i].imag());
        }
    }
};

void run_plain(const s4d_data<float>& d, plain_data& p, plain::s4d_function* loop)
{
    const ssmkit::detail::flush_denormals guard;  // without it, ten times slower at long lengths
    const auto state = static_cast<std::size_t>(d.s.state), length = static_cast<std::size_t>(d.s.length);
    float* const m = p.scratch.data();
    for (std::size_t h = 0; h < static_cast<std::size_t>(d.s.dim); ++h) {
        loop(state, length, static_cast<float>(d.delta[h]), &p.A_re[h * state], &p.A_im[h * state], &p.C_re[h * state],
             &p.C_im[h * state], m, m + state, m + 2 * state, m + 3 * state, &p.K[h * length]);
    }
}

template <class T>
view<const T, 1> taps(const array<T>& K)
{
    return {K.data(), static_cast<index>(K.size())};
}

template <class T>
task ssmkit_task(const s4d_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<s4d_data<T>>(shape), oracle = std::make_shared<s4d_data<T>>(shape);
    ssmkit::reference::s4d_kernel(oracle->args());
    const auto memory = std::make_shared<std::vector<std::byte>>(ssmkit::s4d_kernel_workspace_size(d->args(), threads));
    task t;
    t.run = [=] {
        threads == 1 ? ssmkit::s4d_kernel(d->args(), *memory) : ssmkit::s4d_kernel(d->args(), *memory, pool(threads));
    };
    t.run();
    t.needs = d->needs(false);
    t.mismatch = mismatch("K", taps(d->K), taps(oracle->K));
    if constexpr (std::is_same_v<T, float>) {
        if (threads == 1) {
            const auto p = std::make_shared<plain_data>(*d);
            t.rivals.push_back({"times_plain", [=] { run_plain(*d, *p, plain::s4d_kernel); }});
            t.rivals.push_back({"times_plain_steps", [=] { run_plain(*d, *p, plain::s4d_kernel_steps); }});
        }
    }
    return t;
}

task plain_task(const s4d_shape& shape, plain::s4d_function* loop)
{
    const auto d = std::make_shared<s4d_data<float>>(shape);
    const auto p = std::make_shared<plain_data>(*d);
    ssmkit::s4d_kernel(d->args());
    task t;
    t.run = [=] { run_plain(*d, *p, loop); };
    t.run();
    t.needs = d->needs(false);
    t.mismatch = mismatch("K", taps(p->K), taps(d->K), 50);  // powers that run on lose 4e-5 and more
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const s4d_shape& s : s4d_shapes) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"s4d_kernel", "ssmkit", s.name(), "f32", n, [=] { return ssmkit_task<float>(s, n); }});
        }
        rows.push_back({"s4d_kernel", "plain", s.name(), "f32", 1, [=] { return plain_task(s, plain::s4d_kernel); }});
        rows.push_back({"s4d_kernel", "plain_steps", s.name(), "f32", 1, [=] { return plain_task(s, plain::s4d_kernel_steps); }});
    }
    rows.push_back({"s4d_kernel", "ssmkit", s4d_shapes[0].name(), "f64", 1, [] { return ssmkit_task<double>(s4d_shapes[0], 1); }});
    rows.push_back({"s4d_kernel", "reference", s4d_shapes[0].name(), "f32", 1, [] {
                        const auto d = std::make_shared<s4d_data<float>>(s4d_shapes[0]);
                        task t;
                        t.run = [=] { ssmkit::reference::s4d_kernel(d->args()); };
                        t.needs = d->needs(false);
                        return t;
                    }});
}};

}  // namespace
}  // namespace bench
