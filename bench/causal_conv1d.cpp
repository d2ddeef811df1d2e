#include <cstring>
#include <memory>

#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>

#include "causal_conv1d_problem.hpp"

namespace plain {  // plain/causal_conv1d.cpp

void causal_conv1d(std::size_t length, std::size_t dim, bool silu, const float* x, const float* weight, const float* bias,
                   float* y);

}  // namespace plain

namespace bench {
namespace {

/// The same bytes from x to y past the caches: what memory allows where they do not fit.
void copy_streaming(const float* from, float* to, index n)
{
    using ssmkit::detail::lanes;
    constexpr index step = lanes<float, xsimd::default_arch>;
    for (index i = 0; i + step <= n; i += step) {
        ssmkit::detail::store_streaming(xsimd::batch<float, xsimd::default_arch>::load_aligned(from + i), to + i);
    }
    ssmkit::detail::streaming_fence();
}

template <class T>
task forward_task(const conv_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<conv_data<T>>(shape);
    task t;
    t.run = [d, threads] {
        if (threads == 1) return ssmkit::causal_conv1d(d->args(d->y.data()));
        ssmkit::causal_conv1d(d->args(d->y.data()), pool(threads));
    };
    t.needs = d->needs(2);
    array<T> expected(d->y.size());
    ssmkit::reference::causal_conv1d(d->args(expected.data()));
    t.run();
    t.mismatch = mismatch("y", d->tokens(d->y.data()), d->tokens(expected.data()));
    if constexpr (std::is_same_v<T, float>) {
        if (threads == 1) {
            t.rivals.push_back({"over_memcpy", [d] { std::memcpy(d->dx.data(), d->x.data(), d->x.size() * sizeof(T)); }, true});
            t.rivals.push_back({"over_streaming_copy", [d] { copy_streaming(d->x.data(), d->dx.data(), d->s.elements()); }, true});
            if (!shape.time_contiguous && shape.batch == 1 && shape.width == 4) {
                t.rivals.push_back({"times_plain", [d] {
                    plain::causal_conv1d(static_cast<std::size_t>(d->s.length), static_cast<std::size_t>(d->s.dim), d->s.silu,
                                         d->x.data(), d->taps.data(), d->bias.data(), d->dx.data());
                }});
            }
            if (shape.silent) {
                conv_shape loud = shape;
                loud.silent = false;
                const auto other = std::make_shared<conv_data<T>>(loud);
                t.rivals.push_back({"over_normal_input", [other] { ssmkit::causal_conv1d(other->args(other->y.data())); }, true});
            }
        }
    }
    return t;
}

task plain_task(const conv_shape& shape)
{
    const auto d = std::make_shared<conv_data<float>>(shape);
    task t;
    t.run = [d] {
        plain::causal_conv1d(static_cast<std::size_t>(d->s.length), static_cast<std::size_t>(d->s.dim), d->s.silu, d->x.data(),
                             d->taps.data(), d->bias.data(), d->y.data());
    };
    t.needs = d->needs(2);
    array<float> expected(d->y.size());
    ssmkit::reference::causal_conv1d(d->args(expected.data()));
    t.run();
    t.mismatch = mismatch("y", d->tokens(d->y.data()), d->tokens(expected.data()));
    return t;
}

task reference_task(const conv_shape& shape)
{
    const auto d = std::make_shared<conv_data<float>>(shape);
    task t;
    t.run = [d] { ssmkit::reference::causal_conv1d(d->args(d->y.data())); };
    t.needs = d->needs(2);
    return t;
}

const registration here{[](std::vector<row>& rows) {
    const auto forward = [&]<class T>(std::type_identity<T>, const conv_shape& s) {
        for (const std::size_t n : thread_counts()) {
            rows.push_back({"causal_conv1d", "ssmkit", s.name(), dtype_name<T>(), n, [=] { return forward_task<T>(s, n); }});
        }
    };
    constexpr std::type_identity<float> f32;
    constexpr std::type_identity<ssmkit::bfloat16> bf16;
    for (const index dim : {1536, 5120}) {
        for (const bool silu : {true, false}) {
            for (const bool turned : {false, true}) {
                forward(f32, {.batch = 1, .length = 2048, .dim = dim, .silu = silu, .time_contiguous = turned});
            }
        }
    }
    forward(bf16, {.batch = 1, .length = 2048, .dim = 1536});
    forward(f32, {.batch = 8, .length = 511, .dim = 1535});
    forward(f32, {.batch = 1, .length = 2048, .dim = 1536, .width = 7});
    rows.push_back({"causal_conv1d", "ssmkit", conv_shape{.batch = 1, .length = 512, .dim = 256, .silent = true}.name(), "f32", 1,
                    [] { return forward_task<float>({.batch = 1, .length = 512, .dim = 256, .silent = true}, 1); }});
    const conv_shape usual{.batch = 1, .length = 2048, .dim = 1536};
    rows.push_back({"causal_conv1d", "plain", usual.name(), "f32", 1, [=] { return plain_task(usual); }});
    rows.push_back({"causal_conv1d", "reference", usual.name(), "f32", 1, [=] { return reference_task(usual); }});
    // Small sizes, each against plain: no size may cost much more than the next larger one.
    for (index dim = 1; dim <= 33; ++dim) {
        const conv_shape s{.batch = 1, .length = 256, .dim = dim};
        rows.push_back({"causal_conv1d", "ssmkit", s.name(), "f32", 1, [=] { return forward_task<float>(s, 1); }});
    }
    for (index length = 1; length <= 70; ++length) {
        const conv_shape s{.batch = 1, .length = length, .dim = 256};
        rows.push_back({"causal_conv1d", "ssmkit", s.name(), "f32", 1, [=] { return forward_task<float>(s, 1); }});
    }
}};

}  // namespace
}  // namespace bench
