#include <ssmkit/cauchy.hpp>

#include <algorithm>
#include <complex>
#include <memory>

#include <ssmkit/reference/cauchy.hpp>

#include "cauchy_problem.hpp"

namespace plain {  // plain/cauchy.cpp

void cauchy(std::size_t length, std::size_t state, const float* y, const float* w, const float* v, float* out, float* sums);

}  // namespace plain

namespace bench {
namespace {

void run_plain(cauchy_data<float>& d, array<std::complex<float>>& to)
{
    const auto state = static_cast<std::size_t>(d.s.state), length = static_cast<std::size_t>(d.s.length);
    const auto numbers = [](auto& x, index at) { return reinterpret_cast<decltype(x.data()->real()) *>(x.data() + at); };
    array<std::complex<float>> v(4 * state);
    array<float> sums(8 * 64);
    for (index h = 0; h < d.s.dim; ++h) {
        for (index k = 0; k < 4; ++k)
            std::copy_n(d.v.data() + (k * d.s.dim + h) * d.s.state, state, v.data() + k * d.s.state);
        plain::cauchy(length, state, d.y.data(), numbers(d.w, h * d.s.state), numbers(v, 0), numbers(to, 4 * h * d.s.length),
                      sums.data());
    }
}

template <class T>
task ssmkit_task(const cauchy_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<cauchy_data<T>>(s);
    task t;
    t.run = with_workspace(ssmkit::cauchy_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::cauchy(d->args(), how...); });
    t.needs = d->needs();
    cauchy_data<T> oracle(s);
    ssmkit::reference::cauchy(oracle.args());
    t.run();
    t.mismatch = mismatch("out", d->out, oracle.out);
    if constexpr (std::is_same_v<T, float>) {
        if (threads == 1 && s.terms == 4 && !s.any_nodes) {
            const auto other = std::make_shared<array<std::complex<float>>>(d->out.size());
            t.rivals.push_back({"times_plain", [d, other] { run_plain(*d, *other); }});
        }
    }
    if (threads == 1 && s.terms == 4) {
        const auto one = std::make_shared<cauchy_data<T>>(cauchy_shape{1, s.dim, s.state, s.length, s.any_nodes});
        t.rivals.push_back({"times_one_term", [one] { ssmkit::cauchy(one->args()); }, true});
    }
    return t;
}

/// The plain loop has a row's terms side by side.
task plain_task(const cauchy_shape& s)
{
    const auto d = std::make_shared<cauchy_data<float>>(s);
    task t;
    t.run = [d] { run_plain(*d, d->out); };
    t.needs = d->needs();
    cauchy_data<float> oracle(s);
    auto a = oracle.args();
    a.out = view<std::complex<float>, 3>(oracle.out.data(), s.dim, s.terms, s.length).transposed(0, 1);
    ssmkit::reference::cauchy(a);
    t.run();
    t.mismatch = mismatch("out", d->out, oracle.out);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&]<class T>(std::type_identity<T>, const cauchy_shape& s) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"cauchy", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return ssmkit_task<T>(s, n); }});
    };
    const cauchy_shape large{4, 256, 32, 8193}, small{4, 256, 32, 513};
    for (const cauchy_shape& s : {large, small, {1, 256, 32, 8193}, {4, 256, 31, 2051}, {4, 256, 32, 2049, true}})
        add(std::type_identity<float>{}, s);
    add(std::type_identity<double>{}, {4, 256, 32, 2049});
    for (const cauchy_shape& s : {large, cauchy_shape{4, 1, 32, 8193}})
        rows.push_back({"cauchy", "plain", s.name(), "f32", 1, [=] { return plain_task(s); }});
    rows.push_back({"cauchy", "reference", small.name(), "f32", 1, [=] {
        const auto d = std::make_shared<cauchy_data<float>>(small);
        task t;
        t.run = [d] { ssmkit::reference::cauchy(d->args()); };
        t.needs = d->needs();
        return t;
    }});
}};

}  // namespace
}  // namespace bench
