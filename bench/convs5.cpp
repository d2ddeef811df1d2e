#include <ssmkit/convs5.hpp>

#include <complex>
#include <memory>

#include <ssmkit/convs5_backward.hpp>
#include <ssmkit/reference/convs5.hpp>

#include "harness.hpp"

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct image_shape {
    index batch, length, height, width, dim, state, in_size, out_size;  // as many outputs as inputs

    std::string name() const
    {
        std::string text;
        for (const index n : {batch, length, height, width, dim, state}) text += std::to_string(n) + "x";
        return text + "k" + std::to_string(in_size) + "k" + std::to_string(out_size);
    }
};

struct image_data {
    using complex = std::complex<float>;
    image_shape s;
    array<float> A, B, C, u, y, dA, dB, dC, du;

    explicit image_data(const image_shape& shape) : s(shape)
    {
        const auto size = [](index n) { return static_cast<std::size_t>(n); };
        A = fill<float>(size(2 * s.state), 0.2, 0.6, 1);
        B = fill<float>(size(2 * s.in_size * s.in_size * s.dim * s.state), -0.1, 0.1, 2);
        C = fill<float>(size(2 * s.out_size * s.out_size * s.dim * s.state), -0.1, 0.1, 3);
        u = fill<float>(size(s.batch * s.length * s.height * s.width * s.dim), -1, 1, 4);
        y.resize(u.size()), dA.resize(A.size()), dB.resize(B.size()), dC.resize(C.size()), du.resize(u.size());
    }

    view<complex, 4> in_kernel(array<float>& k) { return {reinterpret_cast<complex*>(k.data()), s.in_size, s.in_size, s.dim, s.state}; }
    view<complex, 4> out_kernel(array<float>& k) { return {reinterpret_cast<complex*>(k.data()), s.out_size, s.out_size, s.state, s.dim}; }
    view<complex, 1> poles(array<float>& k) { return {reinterpret_cast<complex*>(k.data()), s.state}; }
    view<float, 5> images(array<float>& v) { return {v.data(), s.batch, s.length, s.height, s.width, s.dim}; }

    ssmkit::convs5_args<float> args()
    {
        return {.A = poles(A), .B = in_kernel(B), .C = out_kernel(C), .u = images(u), .y = images(y)};
    }
    ssmkit::convs5_backward_args<float> backward_args()
    {
        return {.forward = args(), .dy = images(y), .dA = poles(dA), .dB = in_kernel(dB), .dC = out_kernel(dC), .du = images(du)};
    }

    work needs(double products) const
    {
        work w;
        const double pixels = static_cast<double>(s.batch * s.length * s.height * s.width);
        w.token_channels = pixels * static_cast<double>(s.dim);
        w.updates = pixels * static_cast<double>(s.state);
        const double taps = static_cast<double>(s.in_size * s.in_size + s.out_size * s.out_size);
        w.fmas = w.updates * (products * static_cast<double>(s.dim) * taps + 4);
        w.bytes = 2 * sizeof(float) * w.token_channels;
        return w;
    }
};

task ssmkit_task(const image_shape& shape, bool backward, std::size_t threads)
{
    const auto d = std::make_shared<image_data>(shape);
    task t;
    t.run = [d, backward, threads] {
        if (backward) {
            threads == 1 ? ssmkit::convs5_backward(d->backward_args()) : ssmkit::convs5_backward(d->backward_args(), pool(threads));
        } else {
            threads == 1 ? ssmkit::convs5(d->args()) : ssmkit::convs5(d->args(), pool(threads));
        }
    };
    t.needs = d->needs(backward ? 5 : 2);
    image_shape few = shape;  // the reference would take minutes
    few.batch = 1, few.length = 3, few.height = few.width = 7;
    image_data got(few), expected(few);
    ssmkit::convs5(got.args());
    ssmkit::reference::convs5(expected.args());
    t.mismatch = mismatch("y", got.args().y, expected.args().y);
    if (threads == 1 && backward) t.rivals.push_back({"times_forward", [d] { ssmkit::convs5(d->args()); }, true});
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const bool backward : {false, true}) {
        for (const image_shape s : {image_shape{2, 16, 32, 32, 64, 64, 3, 1}, {2, 16, 32, 32, 64, 64, 3, 3}}) {
            for (const std::size_t n : thread_counts()) {
                rows.push_back({backward ? "convs5_backward" : "convs5", "ssmkit", s.name(), "f32", n,
                                [=] { return ssmkit_task(s, backward, n); }});
            }
        }
    }
}};

}  // namespace
}  // namespace bench
