#include <ssmkit/args/fft_conv_backward.hpp>

#include <cmath>
#include <memory>

#include "harness.hpp"

namespace bench::device {
namespace {

using ssmkit::view;

struct long_shape {
    index batch, dim, length, width;
    bool gated = false;

    std::string text() const
    {
        return std::to_string(batch) + "x" + std::to_string(dim) + "x" + std::to_string(length) + "x" + std::to_string(width) +
               (gated ? "/gated" : "");
    }
};

template <class T>
struct long_data {
    explicit long_data(const long_shape& shape) : s(shape) {}

    long_shape s;
    index samples = s.batch * s.dim * s.length;
    array<T> u{samples, -1, 1, 1}, gate{s.gated ? samples : 0, -1, 1, 2}, y{samples};
    array<float> k{s.dim * s.width, -1, 1, 3};

    ssmkit::fft_conv_args<T> args() const
    {
        ssmkit::fft_conv_args<T> a{.u = {u.data(), s.batch, s.dim, s.length},
                                   .k = {k.data(), 1, s.dim, s.width},
                                   .y = {y.data(), s.batch, 1, s.dim, s.length}};
        if (s.gated) a.input_gate = a.output_gate = {gate.data(), s.batch, s.dim, s.length};
        return a;
    }

    /// Of the first and the last row some outputs, by sums on the CPU.
    std::string mismatch() const
    {
        for (const index row : {index{0}, s.batch * s.dim - 1}) {
            const auto hu = part(u, row * s.length, s.length), hy = part(y, row * s.length, s.length);
            const auto hgate = part(gate, s.gated ? row * s.length : 0, s.gated ? s.length : 0);
            const auto hk = part(k, row % s.dim * s.width, s.width);
            const auto at = [&](const auto& x, index t) { return bench::widened(x[static_cast<std::size_t>(t)]); };
            bench::array<T> got, expected;
            for (index i = 0; i < 60; ++i) {
                const index t = i == 0 ? s.length - 1 : i * 104729 % s.length;
                double sum = 0;
                for (index m = 0; m <= t && m < s.width; ++m) sum += at(hk, m) * at(hu, t - m) * (s.gated ? at(hgate, t - m) : 1.0);
                expected.push_back(T(static_cast<float>(sum * (s.gated ? at(hgate, t) : 1.0))));
                got.push_back(hy[static_cast<std::size_t>(t)]);
            }
            const index n = static_cast<index>(got.size());
            const std::string said = bench::mismatch("y", view<const T, 1>(got.data(), n), view<const T, 1>(expected.data(), n));
            if (!said.empty()) return said;
        }
        return {};
    }

    template <class E>
    static bench::array<E> part(const array<E>& from, index first, index n)
    {
        bench::array<E> copy(static_cast<std::size_t>(n));
        if (n > 0) must(cudaMemcpy(copy.data(), from.data() + first, copy.size() * sizeof(E), cudaMemcpyDeviceToHost));
        return copy;
    }
};

/// Rows and kernels once through memory; of n = length + width samples 1.25 n log2 n multiply-adds a transform.
work needs(const long_shape& s, double size, double row_passes, double transforms_per_row, double transforms_per_channel)
{
    const double rows = static_cast<double>(s.batch * s.dim), n = static_cast<double>(s.length + std::min(s.width, s.length));
    work w;
    w.bytes = size * row_passes * rows * static_cast<double>(s.length) + 4.0 * static_cast<double>(s.dim * s.width);
    w.fmas = 1.25 * n * std::log2(n) * (transforms_per_row * rows + transforms_per_channel * static_cast<double>(s.dim));
    return w;
}

template <class T>
task conv_task(const long_shape& s, double peer_ms)
{
    const auto d = std::make_shared<long_data<T>>(s);
    task t;
    t.run = [d, run = call(d->args())](cudaStream_t stream) { run(stream); };
    t.needs = needs(s, sizeof(T), s.gated ? 4 : 2, 2, 1);
    t.peer_seconds = 1e-3 * peer_ms;
    t.run(nullptr);
    must(cudaDeviceSynchronize());
    t.mismatch = d->mismatch();
    return t;
}

const registration here{[](std::vector<row>& rows) {
    for (const auto& [s, peer] :
         {std::pair{long_shape{8, 1024, 4096, 4096}, 1.1361}, std::pair{long_shape{8, 1024, 16384, 16384}, 5.1988},
          std::pair{long_shape{1, 256, 1048576, 1048576}, 20.8037}, std::pair{long_shape{8, 1024, 4096, 4096, true}, 0.0},
          std::pair{long_shape{8, 1024, 1024, 1024}, 0.0}, std::pair{long_shape{4, 64, 14113, 14113}, 0.0},
          std::pair{long_shape{8, 256, 65536, 65536}, 0.0}, std::pair{long_shape{4, 64, 131072, 256}, 0.0}}) {
        rows.push_back({"fft_conv", s.text(), "f32", [s = s, peer = peer] { return conv_task<float>(s, peer); }});
        rows.push_back({"fft_conv", s.text(), "bf16", [s = s] { return conv_task<ssmkit::bfloat16>(s, 0); }});
    }
}};

}  // namespace
}  // namespace bench::device
