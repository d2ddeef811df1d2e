#include <ssmkit/sgconv_kernel.hpp>

#include <cmath>
#include <memory>
#include <string>

#include <ssmkit/reference/sgconv_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct sgconv_shape {
    index scales, dim, taps;
    ssmkit::sgconv_join join = ssmkit::sgconv_join::concatenate;

    index length() const { return taps << (scales - 1); }
    std::string name() const
    {
        return by({scales, dim, taps, length()}) + (join == ssmkit::sgconv_join::sum ? "-sum" : "");
    }
};

template <class T>
struct sgconv_data {
    sgconv_shape s;
    array<T> w, multiplier, decay, K, norm, dK, dw, ddecay;

    explicit sgconv_data(const sgconv_shape& shape) : s(shape)
    {
        const auto numbers = [](std::size_t n, double low, double high, std::uint64_t seed) {  // the same whatever T is
            const array<float> x = fill<float>(n, low, high, seed);
            return array<T>(x.begin(), x.end());
        };
        w = numbers(count(s.scales, s.dim, s.taps), -1, 1, 1), multiplier = numbers(count(s.dim), 1, 2, 2);
        decay = numbers(count(s.dim), 0.1, 1, 3), dK = numbers(count(s.dim, s.length()), -1, 1, 4);
        K.resize(dK.size()), norm.resize(decay.size()), dw.resize(w.size()), ddecay.resize(decay.size());
    }

    ssmkit::sgconv_kernel_args<T> args()
    {
        return {.w = {w.data(), s.scales, 1, s.dim, s.taps}, .multiplier = {multiplier.data(), s.dim},
                .decay = {decay.data(), s.dim}, .join = s.join, .K = {K.data(), 1, s.dim, s.length()},
                .new_norm = {norm.data(), 1, s.dim}};
    }
    ssmkit::sgconv_kernel_backward_args<T> backward_args()
    {
        return {.forward = args(), .dK = {dK.data(), 1, s.dim, s.length()},
                .dw = {dw.data(), s.scales, 1, s.dim, s.taps}, .ddecay = {ddecay.data(), s.dim}};
    }

    /// A sample: its power of l, two multiply-adds between taps for each sub-kernel that reaches it, the norm and its division.
    work needs(double times) const
    {
        const double samples = static_cast<double>(K.size()), terms = s.join == ssmkit::sgconv_join::sum ? 2 : 1;
        return {.updates = samples, .token_channels = samples, .exps = samples, .fmas = times * (2 * terms + 3) * samples,
                .bytes = sizeof(T) * (samples + times * static_cast<double>(w.size()))};
    }
};

/// By the reference in double: in float its norm of all samples would lose digits.
template <class F>
sgconv_data<float> expected(const sgconv_shape& s, F reference)
{
    sgconv_data<double> exact(s);
    reference(exact);
    sgconv_data<float> e(s);
    const auto narrow = [](const array<double>& x) { return array<float>(x.begin(), x.end()); };
    e.K = narrow(exact.K), e.norm = narrow(exact.norm), e.dw = narrow(exact.dw), e.ddecay = narrow(exact.ddecay);
    return e;
}

std::function<void()> forward(const std::shared_ptr<sgconv_data<float>>& d, std::size_t threads)
{
    return with_workspace(ssmkit::sgconv_kernel_workspace_size(d->args(), threads), threads,
                          [d](auto&&... how) { ssmkit::sgconv_kernel(d->args(), how...); });
}

task forward_task(const sgconv_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<sgconv_data<float>>(s);
    task t;
    t.run = forward(d, threads);
    t.needs = d->needs(1);
    t.run();
    const auto e = expected(s, [](sgconv_data<double>& exact) { ssmkit::reference::sgconv_kernel(exact.args()); });
    t.mismatch = first_of({mismatch("K", d->K, e.K), mismatch("norm", d->norm, e.norm)});
    return t;
}

task backward_task(const sgconv_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<sgconv_data<float>>(s);
    task t;
    t.run = with_workspace(ssmkit::sgconv_kernel_backward_workspace_size(d->backward_args(), threads), threads,
                           [d](auto&&... how) { ssmkit::sgconv_kernel_backward(d->backward_args(), how...); });
    t.needs = d->needs(2);
    t.run();
    const auto e =
        expected(s, [](sgconv_data<double>& exact) { ssmkit::reference::sgconv_kernel_backward(exact.backward_args()); });
    t.mismatch = first_of({mismatch("dw", d->dw, e.dw), mismatch("ddecay", d->ddecay, e.ddecay)});
    if (threads == 1) t.rivals.push_back({"times_forward", forward(d, 1), true});
    return t;
}

task reference_task(const sgconv_shape& s)
{
    const auto d = std::make_shared<sgconv_data<float>>(s);
    task t;
    t.run = [d] { ssmkit::reference::sgconv_kernel(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const sgconv_shape& s : {sgconv_shape{9, 128, 64}, sgconv_shape{9, 128, 64, ssmkit::sgconv_join::sum}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"sgconv_kernel", "ssmkit", s.name(), "f32", n, [=] { return forward_task(s, n); }});
            rows.push_back({"sgconv_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task(s, n); }});
        }
    }
    const sgconv_shape usual{9, 128, 64};
    rows.push_back({"sgconv_kernel", "reference", usual.name(), "f32", 1, [=] { return reference_task(usual); }});
}};

}  // namespace
}  // namespace bench
