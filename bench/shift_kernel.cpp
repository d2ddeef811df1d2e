#include <ssmkit/shift_kernel.hpp>

#include <memory>
#include <string>

#include <ssmkit/reference/shift_kernel.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct shift_shape {
    index channels, dim, state, length;

    std::string name() const { return by({channels, dim, state, length}); }
};

struct shift_data {
    shift_shape s;
    array<float> B, C, K, dK, dB, dC, u, state, y;

    explicit shift_data(const shift_shape& shape) : s(shape)
    {
        B = fill<float>(count(s.dim, s.state), -1, 1, 1), C = fill<float>(count(s.channels, s.dim, s.state), -1, 1, 2);
        dK = fill<float>(count(s.channels, s.dim, s.length), -1, 1, 3);
        u = fill<float>(count(s.dim), -1, 1, 4), state = fill<float>(B.size(), -1, 1, 5);
        K.resize(dK.size()), dB.resize(B.size()), dC.resize(C.size()), y.resize(count(s.channels, s.dim));
    }

    ssmkit::shift_kernel_args<float> args()
    {
        return {.B = {B.data(), s.dim, s.state}, .C = {C.data(), s.channels, s.dim, s.state},
                .K = {K.data(), s.channels, s.dim, s.length}};
    }
    ssmkit::shift_kernel_backward_args<float> backward_args()
    {
        return {.B = {B.data(), s.dim, s.state}, .C = {C.data(), s.channels, s.dim, s.state},
                .dK = {dK.data(), s.channels, s.dim, s.length}, .dB = {dB.data(), s.dim, s.state},
                .dC = {dC.data(), s.channels, s.dim, s.state}};
    }
    ssmkit::shift_update_args<float> update_args()
    {
        return {.B = {B.data(), s.dim, s.state}, .C = {C.data(), s.channels, s.dim, s.state}, .u = {u.data(), 1, s.dim},
                .state = {state.data(), 1, s.dim, s.state}, .y = {y.data(), 1, s.channels, s.dim}};
    }

    /// As sums of the taps that are not zero.
    work needs(double sums) const
    {
        const double terms = static_cast<double>(C.size()) * static_cast<double>(s.state + 1) / 2;
        return {.updates = terms, .token_channels = static_cast<double>(K.size()), .fmas = sums * terms,
                .bytes = sizeof(float) * static_cast<double>(K.size() + sums * static_cast<double>(B.size() + C.size()))};
    }
    work update_needs() const
    {
        const double numbers = static_cast<double>(B.size()), maps = static_cast<double>(C.size());
        return {.updates = numbers, .token_channels = static_cast<double>(s.dim), .fmas = numbers + maps,
                .bytes = sizeof(float) * (3 * numbers + maps), .kind = traffic::update};
    }
};

task forward_task(const shift_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<shift_data>(s);
    return checked(
        d, d->needs(1), with_workspace(ssmkit::shift_kernel_workspace_size(d->args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::shift_kernel(d->args(), how...); }),
        [](shift_data& e) { ssmkit::reference::shift_kernel(e.args()); },
        [](const shift_data& got, const shift_data& expected) { return mismatch("K", got.K, expected.K); });
}

task backward_task(const shift_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<shift_data>(s);
    task t = checked(
        d, d->needs(2), with_workspace(ssmkit::shift_kernel_backward_workspace_size(d->backward_args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::shift_kernel_backward(d->backward_args(), how...); }),
        [](shift_data& e) { ssmkit::reference::shift_kernel_backward(e.backward_args()); },
        [](const shift_data& got, const shift_data& expected) {
            return first_of({mismatch("dB", got.dB, expected.dB), mismatch("dC", got.dC, expected.dC)});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", with_workspace(ssmkit::shift_kernel_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::shift_kernel(d->args(), how...); }),
                            true});
    return t;
}

task update_task(const shift_shape& s)
{
    const auto d = std::make_shared<shift_data>(s);
    return checked(
        d, d->update_needs(), [d] { ssmkit::shift_update(d->update_args()); },
        [](shift_data& e) { ssmkit::reference::shift_update(e.update_args()); },
        [](const shift_data& got, const shift_data& expected) {
            return first_of({mismatch("y", got.y, expected.y), mismatch("state", got.state, expected.state)});
        });
}

task reference_task(const shift_shape& s)
{
    const auto d = std::make_shared<shift_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::shift_kernel(d->args()); };
    t.needs = d->needs(1);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const shift_shape& s : {shift_shape{1, 768, 64, 1024}, shift_shape{1, 255, 61, 100}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"shift_kernel", "ssmkit", s.name(), "f32", n, [=] { return forward_task(s, n); }});
            rows.push_back({"shift_kernel_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task(s, n); }});
        }
    }
    const shift_shape usual{1, 768, 64, 1024};
    rows.push_back({"shift_kernel", "reference", usual.name(), "f32", 1, [=] { return reference_task(usual); }});
    rows.push_back({"shift_update", "ssmkit", by({1, 768, 64}), "f32", 1, [=] { return update_task(usual); }});
}};

}  // namespace
}  // namespace bench
