#include <ssmkit/separable_conv.hpp>

#include <cmath>
#include <memory>
#include <string>

#include <ssmkit/reference/separable_conv.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

/// Images of `size` by `size`, kernels as long for both directions of both axes.
struct image_shape {
    index batch, dim, size;

    std::string name() const { return by({batch, dim, size, size}); }
};

struct image_data {
    image_shape s;
    array<float> u, D, y, dy, du, dD, k[4], dk[4];

    explicit image_data(const image_shape& shape) : s(shape)
    {
        u = fill<float>(count(s.batch, s.dim, s.size, s.size), -1, 1, 1), dy = fill<float>(u.size(), -1, 1, 2);
        D = fill<float>(count(s.dim), -1, 1, 3);
        for (std::uint64_t i = 0; i < 4; ++i) k[i] = fill<float>(count(s.dim, s.size), -1, 1, 4 + i), dk[i].resize(k[i].size());
        y.resize(u.size()), du.resize(u.size()), dD.resize(D.size());
    }

    template <class E>
    view<E, 3> taps(E* p) const
    {
        return {p, 1, s.dim, s.size};
    }

    ssmkit::separable_conv_args<float, 2> args()
    {
        const auto in = [&](const array<float>& x) { return taps(x.data()); };
        return {.u = {u.data(), s.batch, s.dim, s.size, s.size}, .k = {in(k[0]), in(k[1])}, .k_reverse = {in(k[2]), in(k[3])},
                .D = {D.data(), 1, s.dim}, .y = {y.data(), s.batch, 1, s.dim, s.size, s.size}};
    }
    ssmkit::separable_conv_backward_args<float, 2> backward_args()
    {
        return {.forward = args(), .dy = {dy.data(), s.batch, 1, s.dim, s.size, s.size},
                .du = {du.data(), s.batch, s.dim, s.size, s.size}, .dk = {taps(dk[0].data()), taps(dk[1].data())},
                .dk_reverse = {taps(dk[2].data()), taps(dk[3].data())}, .dD = {dD.data(), 1, s.dim}};
    }

    /// `transforms` of every row and column, padded to twice its length, as fft_conv_problem.hpp counts them.
    work needs(double transforms) const
    {
        const double pixels = static_cast<double>(u.size()), n = 2 * static_cast<double>(s.size);
        return {.updates = pixels, .token_channels = pixels, .fmas = transforms * 2 * pixels * 2 * 1.25 * std::log2(n),
                .bytes = sizeof(float) * transforms * pixels};
    }
};

task forward_task(const image_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<image_data>(s);
    return checked(
        d, d->needs(2), with_workspace(ssmkit::separable_conv_workspace_size(d->args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::separable_conv(d->args(), how...); }),
        [](image_data& e) { ssmkit::reference::separable_conv(e.args()); },
        [](const image_data& got, const image_data& expected) { return mismatch("y", got.y, expected.y); });
}

task backward_task(const image_shape& s, std::size_t threads)
{
    const auto d = std::make_shared<image_data>(s);
    task t = checked(
        d, d->needs(3), with_workspace(ssmkit::separable_conv_backward_workspace_size(d->backward_args(), threads), threads,
                                   [d](auto&&... how) { ssmkit::separable_conv_backward(d->backward_args(), how...); }),
        [](image_data& e) { ssmkit::reference::separable_conv_backward(e.backward_args()); },
        [](const image_data& got, const image_data& expected) {
            return first_of(
                {mismatch("du", got.du, expected.du), mismatch("dD", got.dD, expected.dD),
                 mismatch("dk", got.dk[0], expected.dk[0]), mismatch("dk", got.dk[1], expected.dk[1]),
                 mismatch("dk_reverse", got.dk[2], expected.dk[2]),
                 mismatch("dk_reverse", got.dk[3], expected.dk[3])});
        });
    if (threads == 1) t.rivals.push_back({"times_forward", with_workspace(ssmkit::separable_conv_workspace_size(d->args()), 1,
                                                            [d](auto&&... how) { ssmkit::separable_conv(d->args(), how...); }),
                            true});
    return t;
}

task reference_task(const image_shape& s)
{
    const auto d = std::make_shared<image_data>(s);
    task t;
    t.run = [d] { ssmkit::reference::separable_conv(d->args()); };
    t.needs = d->needs(2);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const image_shape& s : {image_shape{4, 64, 32}, image_shape{2, 15, 29}}) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"separable_conv", "ssmkit", s.name(), "f32", n, [=] { return forward_task(s, n); }});
            rows.push_back({"separable_conv_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task(s, n); }});
        }
    }
    const image_shape usual{2, 15, 29};
    rows.push_back({"separable_conv", "reference", usual.name(), "f32", 1, [=] { return reference_task(usual); }});
}};

}  // namespace
}  // namespace bench
