#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>

#include <ssmkit/fft_conv.hpp>
#include <ssmkit/fft_conv_backward.hpp>
#include <ssmkit/fft_conv_stream.hpp>
#include <ssmkit/reference/fft_conv.hpp>

#include "harness.hpp"

#ifdef SSMKIT_BENCH_FFTW
#include <fftw3.h>
#endif

namespace plain {  // plain/fft_conv.cpp

void fft_conv(std::size_t length, std::size_t width, const float* u, const float* k, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct long_shape {
    index batch, dim, length, width;
    bool channels_inner = false, gated = false;

    std::string name() const
    {
        std::string text =
            std::to_string(batch) + "x" + std::to_string(dim) + "x" + std::to_string(length) + "x" + std::to_string(width);
        if (channels_inner) text += "-channels_inner";
        if (gated) text += "-gated";
        return text;
    }
    std::size_t elements() const { return static_cast<std::size_t>(batch * dim * length); }
};

template <class T>
struct long_data {
    long_shape s;
    array<T> u, k, y, dy, du, dk, gate;
    array<std::byte> memory;

    explicit long_data(const long_shape& shape, bool backward = false) : s(shape)
    {
        u = fill<T>(s.elements(), -1, 1, 1);
        k = fill<T>(static_cast<std::size_t>(s.dim * s.width), -1, 1, 2);
        y.resize(s.elements());
        if (s.gated) gate = fill<T>(s.elements(), -1, 1, 4);
        if (backward) {
            dy = fill<T>(s.elements(), -1, 1, 3);
            du.resize(s.elements());
            dk.resize(k.size());
        }
    }

    template <class E, class P>
    view<E, 3> rows(P* p) const
    {
        if (s.channels_inner) return view<E, 3>(p, s.batch, s.length, s.dim).transposed(1, 2);
        return {p, s.batch, s.dim, s.length};
    }

    ssmkit::fft_conv_args<T> args(T* out)
    {
        ssmkit::fft_conv_args<T> a{
            .u = rows<const T>(u.data()), .k = {k.data(), 1, s.dim, s.width}, .y = ssmkit::flattened(rows<T>(out), 1)};
        if (s.gated) a.input_gate = a.output_gate = rows<const T>(gate.data());
        return a;
    }

    ssmkit::fft_conv_backward_args<T> backward_args()
    {
        ssmkit::fft_conv_backward_args<T> a{.forward = args(y.data()), .dy = ssmkit::flattened(rows<const T>(dy.data()), 1),
                                            .du = rows<T>(du.data()), .dk = {dk.data(), 1, s.dim, s.width}};
        a.forward.y = {};
        return a;
    }

    /// Real transforms of length n = L + W: 2.5 n log2 n operations each (split radix of half the length, without what untangles
    /// it), half as many multiply-adds at best; of u forth and back for each row, of k once for a channel. Or as many multiply-adds
    /// as there are terms, if that is less.
    work needs(double transforms_per_row, double transforms_per_channel, double row_passes, double kernel_passes) const
    {
        const double rows = static_cast<double>(s.batch * s.dim), dim = static_cast<double>(s.dim),
                     length = static_cast<double>(s.length);
        const double width = static_cast<double>(std::min(s.width, s.length)), n = length + width;
        // Overlapping pieces of eight kernels' length need fewer operations than one transform of a much longer row.
        const double piece = std::min(n, 8 * width), pieces = n / piece;
        const double one = 2.5 / 2 * piece * std::log2(std::max(piece, 2.0)) * pieces;
        const double sums = width * (length - (width - 1) / 2);
        const double fmas = std::min(rows * sums * (row_passes + kernel_passes > 3 ? 2 : 1),
                                     one * (transforms_per_row * rows + transforms_per_channel * dim));
        const double each = sizeof(T),
                     bytes = each * (row_passes * rows * length + kernel_passes * dim * static_cast<double>(s.width));
        return {.updates = rows * length, .token_channels = rows * length, .fmas = fmas, .bytes = bytes, .working_set = bytes};
    }
};

/// Some outputs by sums: all of them would take minutes.
template <class T>
std::string check(long_data<T>& d, const array<T>& y)
{
    const index samples = std::max<index>(1, index{20000000} / std::min(d.s.width, d.s.length));
    array<double> got, expected;
    for (index i = 0; i < std::min<index>(samples, 500); ++i) {
        const index b = i % d.s.batch, h = i * 7 % d.s.dim, t = i == 0 ? d.s.length - 1 : i * 104729 % d.s.length;
        const auto u = d.template rows<const T>(d.u.data()), out = d.template rows<const T>(y.data());
        const auto gates = d.template rows<const T>(d.gate.data());
        double sum = 0;
        for (index m = 0; m < d.s.width && m <= t; ++m) {
            const double gate = d.s.gated ? static_cast<double>(gates(b, h, t - m)) : 1;
            sum +=
                static_cast<double>(d.k[static_cast<std::size_t>(h * d.s.width + m)]) * gate * static_cast<double>(u(b, h, t - m));
        }
        expected.push_back(d.s.gated ? sum * static_cast<double>(gates(b, h, t)) : sum);
        got.push_back(static_cast<double>(out(b, h, t)));
    }
    const index n = static_cast<index>(got.size());
    return mismatch("y", view<const float, 1>(array<float>(got.begin(), got.end()).data(), n),
                    view<const float, 1>(array<float>(expected.begin(), expected.end()).data(), n));
}

#ifdef SSMKIT_BENCH_FFTW
/// The same by FFTW: a batch of real transforms forth, products, and back, with the padding that it likes best.
class fftw_pipeline {
public:
    explicit fftw_pipeline(const std::shared_ptr<long_data<float>>& data) : d(data)
    {
        const int least = static_cast<int>(d->s.length + d->s.width - 1);
        double best = 1e300;
        for (const int odd : {1, 3, 5, 9, 15}) {
            int size = odd;
            while (size < least) size *= 2;
            if (size % 2) continue;
            allocate(size);
            plan();
            const double took = seconds([&] { transform(0); }, timer::wall) * static_cast<double>(size) / static_cast<double>(size);
            if (took < best) {
                best = took;
                chosen = size;
            }
        }
        allocate(chosen);
        plan();
    }

    void operator()()
    {
        for (index h = 0; h < d->s.dim; ++h) {
            const float* const k = d->k.data() + h * d->s.width;
            std::memcpy(row.data(), k, sizeof(float) * static_cast<std::size_t>(d->s.width));
            std::fill(row.begin() + d->s.width, row.end(), 0.0f);
            fftwf_execute_dft_r2c(forth, row.data(), reinterpret_cast<fftwf_complex*>(kernel.data()));
            for (index b = 0; b < d->s.batch; ++b) transform(b * d->s.dim + h);
        }
    }

private:
    void allocate(int size)
    {
        n = size;
        row.assign(static_cast<std::size_t>(n), 0.0f);
        spectrum.assign(static_cast<std::size_t>(n) + 2, 0.0f);
        kernel.assign(static_cast<std::size_t>(n) + 2, 0.0f);
    }

    void plan()
    {
        auto* const s = reinterpret_cast<fftwf_complex*>(spectrum.data());
        if (forth) fftwf_destroy_plan(forth);
        if (back) fftwf_destroy_plan(back);
        forth = fftwf_plan_dft_r2c_1d(n, row.data(), s, FFTW_MEASURE);
        back = fftwf_plan_dft_c2r_1d(n, s, row.data(), FFTW_MEASURE);
    }

    void transform(index r)
    {
        const auto length = static_cast<std::size_t>(d->s.length);
        std::memcpy(row.data(), d->u.data() + static_cast<std::size_t>(r) * length, sizeof(float) * length);
        std::fill(row.begin() + d->s.length, row.end(), 0.0f);
        auto* const s = reinterpret_cast<fftwf_complex*>(spectrum.data());
        fftwf_execute_dft_r2c(forth, row.data(), s);
        const float scale = 1.0f / static_cast<float>(n);
        for (std::size_t i = 0; i < spectrum.size(); i += 2) {
            const float re = spectrum[i], im = spectrum[i + 1], kre = kernel[i] * scale, kim = kernel[i + 1] * scale;
            spectrum[i] = re * kre - im * kim;
            spectrum[i + 1] = re * kim + im * kre;
        }
        fftwf_execute_dft_c2r(back, s, row.data());
        std::memcpy(d->y.data() + static_cast<std::size_t>(r) * length, row.data(), sizeof(float) * length);
    }

    std::shared_ptr<long_data<float>> d;
    int n = 0, chosen = 0;
    array<float> row, spectrum, kernel;
    fftwf_plan forth = nullptr, back = nullptr;
};
#endif

template <class T>
task forward_task(const long_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<long_data<T>>(shape);
    d->memory.resize(ssmkit::fft_conv_workspace_size(d->args(d->y.data()), threads));
    task t;
    t.run = [d, threads] {
        if (threads == 1) return ssmkit::fft_conv(d->args(d->y.data()), d->memory);
        ssmkit::fft_conv(d->args(d->y.data()), d->memory, pool(threads));
    };
    t.needs = d->needs(2, 1, shape.gated ? 4 : 2, 1);
    t.run();
    t.mismatch = check(*d, d->y);
    if constexpr (std::is_same_v<T, float>) {
        if (threads == 1 && !shape.channels_inner && !shape.gated) {
#ifdef SSMKIT_BENCH_FFTW
            const auto fftw = std::make_shared<fftw_pipeline>(d);
            t.rivals.push_back({"times_fftw", [fftw] { (*fftw)(); }});
#endif
            if (shape.width <= 256) {
                t.rivals.push_back({"times_plain", [d] {
                    for (index r = 0; r < d->s.batch * d->s.dim; ++r) {
                        plain::fft_conv(static_cast<std::size_t>(d->s.length), static_cast<std::size_t>(d->s.width),
                                        d->u.data() + r * d->s.length, d->k.data() + r % d->s.dim * d->s.width,
                                        d->y.data() + r * d->s.length);
                    }
                }});
            }
        }
    }
    return t;
}

template <class T>
task backward_task(const long_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<long_data<T>>(shape, true);
    d->memory.resize(std::max(ssmkit::fft_conv_backward_workspace_size(d->backward_args(), threads),
                              ssmkit::fft_conv_workspace_size(d->args(d->y.data()), threads)));
    task t;
    t.run = [d, threads] {
        if (threads == 1) return ssmkit::fft_conv_backward(d->backward_args(), d->memory);
        ssmkit::fft_conv_backward(d->backward_args(), d->memory, pool(threads));
    };
    t.needs = d->needs(3, 2, 3, 2);
    if (threads == 1) t.rivals.push_back({"times_forward", [d] { ssmkit::fft_conv(d->args(d->y.data()), d->memory); }, true});
    return t;
}

/// Samples in calls of `block`.
task stream_task(const long_shape& shape, index block)
{
    const auto d = std::make_shared<long_data<float>>(shape);
    const view<const float, 3> k(d->k.data(), 1, shape.dim, shape.width);
    const auto stream = std::make_shared<ssmkit::fft_conv_stream<float>>(shape.batch, k);
    task t;
    t.run = [d, stream, block] {
        const auto u = d->rows<const float>(d->u.data());
        const auto y = ssmkit::flattened(d->rows<float>(d->y.data()), 1);
        for (index at = 0; at < d->s.length; at += block) {
            const index count = std::min(block, d->s.length - at);
            (*stream)(u.slice(2, at, count), y.slice(3, at, count));
        }
    };
    t.needs = d->needs(2, 1, 2, 1);
    t.run();
    t.mismatch = check(*d, d->y);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto forward = [&]<class T>(std::type_identity<T>, const long_shape& s) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"fft_conv", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return forward_task<T>(s, n); }});
        }
    };
    const std::type_identity<float> f32;
    forward(f32, {8, 1024, 16384, 16384});
    forward(f32, {1, 256, 1048576, 1048576});
    forward(f32, {8, 256, 1024, 1024});
    forward(f32, {8, 256, 16384, 16384});
    forward(f32, {8, 256, 16384, 16384, true});
    forward(f32, {8, 256, 16384, 16384, false, true});
    forward(f32, {4, 64, 14113, 14113});  // no power of two
    forward(std::type_identity<double>{}, {8, 64, 16384, 16384});
    for (const index width : {16, 32, 64, 80, 96, 128, 256, 1024, 4096}) forward(f32, {4, 64, 16384, width});
    for (const std::size_t n : thread_counts()) {
        for (const long_shape& s : {long_shape{8, 256, 16384, 16384}, long_shape{1, 8, 1048576, 1048576}}) {
            rows.push_back({"fft_conv_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task<float>(s, n); }});
        }
    }
    for (const index block : {1, 64, 512}) {
        const long_shape s{1, 16, 32768, 16384};
        rows.push_back({"fft_conv_stream", "ssmkit", s.name() + "-blocks_of_" + std::to_string(block), "f32", 1,
                        [=] { return stream_task(s, block); }});
    }
    const long_shape small{1, 4, 4096, 256};
    rows.push_back({"fft_conv", "plain", small.name(), "f32", 1, [small] {
        task t = forward_task<float>(small, 1);
        t.run = t.rivals.back().run;
        t.rivals.clear();
        return t;
    }});
    rows.push_back({"fft_conv", "reference", small.name(), "f32", 1, [small] {
        const auto d = std::make_shared<long_data<float>>(small);
        task t;
        t.run = [d] { ssmkit::reference::fft_conv(d->args(d->y.data())); };
        t.needs = d->needs(2, 1, 2, 1);
        return t;
    }});
}};

}  // namespace
}  // namespace bench
