#include <ssmkit/args/fft_conv_backward.hpp>

#include <cmath>
#include <memory>

#include "harness.hpp"

namespace bench::device {
namespace {

using ssmkit::view;

struct long_shape {
    index batch, dim, length;  // kernels are as long as the rows

    std::string text() const
    {
        return std::to_string(batch) + "x" + std::to_string(dim) + "x" + std::to_string(length) + "x" + std::to_string(length);
    }
};

template <class T>
struct long_data {
    explicit long_data(const long_shape& shape) : s(shape) {}

    long_shape s;
    index samples = s.batch * s.dim * s.length, taps = s.dim * s.length;
    array<T> u{samples, -1, 1, 1}, dy{samples, -1, 1, 2}, du{samples};
    array<float> k{taps, -1, 1, 3}, dk{taps};

    ssmkit::fft_conv_backward_args<T> args() const
    {
        return {.forward = {.u = {u.data(), s.batch, s.dim, s.length}, .k = {k.data(), 1, s.dim, s.length}},
                .dy = {dy.data(), s.batch, 1, s.dim, s.length},
                .du = {du.data(), s.batch, s.dim, s.length},
                .dk = {dk.data(), 1, s.dim, s.length}};
    }

    /// Of the first channel some gradients, by sums on the CPU.
    std::string mismatch() const
    {
        const auto hk = k.host(s.length), hdk = dk.host(s.length);
        const auto hdu = du.host(s.length);
        std::vector<bench::array<T>> hu, hdy;
        for (index b = 0; b < s.batch; ++b) {
            for (auto [to, from] : {std::pair{&hu, &u}, std::pair{&hdy, &dy}}) {
                to->emplace_back(static_cast<std::size_t>(s.length));
                must(cudaMemcpy(to->back().data(), from->data() + b * s.dim * s.length, to->back().size() * sizeof(T),
                                cudaMemcpyDeviceToHost));
            }
        }
        const auto at = [](const auto& x, index t) { return bench::widened(x[static_cast<std::size_t>(t)]); };
        bench::array<T> got, expected;
        bench::array<float> got_k, expected_k;
        for (index i = 0; i < 30; ++i) {
            const index t = i == 0 ? s.length - 1 : i == 1 ? 0 : i * 104729 % s.length;
            double sum = 0, sum_k = 0;
            for (index m = 0; t + m < s.length; ++m) {
                sum += at(hk, m) * at(hdy[0], t + m);
                for (std::size_t b = 0; b < hu.size(); ++b) sum_k += at(hdy[b], t + m) * at(hu[b], m);
            }
            expected.push_back(T(static_cast<float>(sum)));
            expected_k.push_back(static_cast<float>(sum_k));
            got.push_back(hdu[static_cast<std::size_t>(t)]);
            got_k.push_back(hdk[static_cast<std::size_t>(t)]);
        }
        const index n = static_cast<index>(got.size());
        const std::string said = bench::mismatch("du", view<const T, 1>(got.data(), n), view<const T, 1>(expected.data(), n));
        if (!said.empty()) return said;
        return bench::mismatch("dk", view<const float, 1>(got_k.data(), n), view<const float, 1>(expected_k.data(), n));
    }
};

template <class T>
task backward_task(const long_shape& s)
{
    const auto d = std::make_shared<long_data<T>>(s);
    task t;
    t.run = [d, run = call(d->args())](cudaStream_t stream) { run(stream); };
    // u and dy in, du out, k and dk; spectra of u and dy and one back for du a row, of k, and back of dk, a channel.
    const double rows = static_cast<double>(s.batch * s.dim), n = 2.0 * static_cast<double>(s.length);
    t.needs.bytes = 3.0 * sizeof(T) * static_cast<double>(d->samples) + 8.0 * static_cast<double>(d->taps);
    t.needs.fmas = 1.25 * n * std::log2(n) * (3 * rows + 2 * static_cast<double>(s.dim));
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    t.mismatch = d->mismatch();
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const long_shape& s : {long_shape{8, 1024, 4096}, {8, 1024, 16384}, {1, 256, 1048576}, {4, 64, 14113}}) {
        rows.push_back({"fft_conv_backward", s.text(), "f32", [s] { return backward_task<float>(s); }});
        rows.push_back({"fft_conv_backward", s.text(), "bf16", [s] { return backward_task<ssmkit::bfloat16>(s); }});
    }
}};

}  // namespace
}  // namespace bench::device
