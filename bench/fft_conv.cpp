#include <ssmkit/fft_conv.hpp>

#include <memory>
#include <type_traits>

#include <ssmkit/reference/fft_conv.hpp>

#include "fft_conv_problem.hpp"
#include "fftw.hpp"

namespace plain {  // plain/fft_conv.cpp

void fft_conv(std::size_t length, std::size_t width, const float* u, const float* k, float* y);

}  // namespace plain

namespace bench {
namespace {

void run_plain(long_data<float>& d)
{
    for (index r = 0; r < d.s.batch * d.s.dim; ++r) {
        plain::fft_conv(static_cast<std::size_t>(d.s.length), static_cast<std::size_t>(d.s.width), d.u.data() + r * d.s.length,
                        d.k.data() + r % d.s.dim * d.s.width, d.y.data() + r * d.s.length);
    }
}

#if SSMKIT_BENCH_FFTW
/// Kernels are transformed in every call, as fft_conv does.
rival fftw_rival(const std::shared_ptr<long_data<float>>& d, std::string& wrong)
{
    const auto n = [](index extent) { return static_cast<std::size_t>(extent); };
    const auto fftw = std::make_shared<fftw_convolution>(n(d->s.batch), n(d->s.dim), n(d->s.length), n(d->s.width));
    const auto run = [=] { (*fftw)(d->u.data(), d->k.data(), nullptr, d->y.data()); };
    run();
    if (const std::string found = compared_output(*d); wrong.empty() && !found.empty()) wrong = "FFTW's " + found;
    return {"times_fftw", run};
}
#endif

template <class T>
task ssmkit_task(const long_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<long_data<T>>(shape);
    task t;
    t.run = with_workspace(ssmkit::fft_conv_workspace_size(d->args(), threads), threads,
                           [d](auto&&... how) { ssmkit::fft_conv(d->args(), how...); });
    t.needs = d->needs(2, 1, shape.gated ? 4 : 2, 1);
    t.run();
    t.mismatch = compared_output(*d);
    if constexpr (std::is_same_v<T, float>) {
        if (threads == 1 && !shape.channels_inner && !shape.gated) {
#if SSMKIT_BENCH_FFTW
            t.rivals.push_back(fftw_rival(d, t.mismatch));
#endif
            if (shape.width <= 256) t.rivals.push_back({"times_plain", [d] { run_plain(*d); }});
        }
    }
    return t;
}

/// Any other way to the same.
template <class F>
task other_task(const long_shape& shape, F run)
{
    const auto d = std::make_shared<long_data<float>>(shape);
    task t;
    t.run = [d, run] { run(*d); };
    t.needs = d->needs(2, 1, 2, 1);
    t.run();
    t.mismatch = compared_output(*d);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto add = [&]<class T>(std::type_identity<T>, const long_shape& s) {
        for (const std::size_t n : thread_counts())
            rows.push_back({"fft_conv", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return ssmkit_task<T>(s, n); }});
    };
    const std::type_identity<float> f32;
    add(f32, {8, 1024, 16384, 16384});
    add(f32, {1, 256, 1048576, 1048576});
    add(f32, {8, 256, 1024, 1024});
    add(f32, {8, 256, 16384, 16384});
    add(f32, {8, 256, 16384, 16384, true});
    add(f32, {8, 256, 16384, 16384, false, true});
    add(f32, {4, 64, 14113, 14113});  // no power of two
    add(std::type_identity<double>{}, {8, 64, 16384, 16384});
    for (const index width : {16, 32, 64, 80, 96, 128, 256, 1024, 4096}) add(f32, {4, 64, 16384, width});
    const long_shape small{1, 4, 4096, 256};
    rows.push_back({"fft_conv", "plain", small.name(), "f32", 1, [=] { return other_task(small, run_plain); }});
    rows.push_back({"fft_conv", "reference", small.name(), "f32", 1, [=] {
        return other_task(small, [](long_data<float>& d) { ssmkit::reference::fft_conv(d.args()); });
    }});
}};

}  // namespace
}  // namespace bench
