#include <cstring>
#include <memory>

#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/causal_conv1d_backward.hpp>
#include <ssmkit/causal_conv1d_update.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/reference/causal_conv1d.hpp>
#include <ssmkit/reference/causal_conv1d_backward.hpp>
#include <ssmkit/reference/causal_conv1d_update.hpp>

#include "harness.hpp"

namespace plain {  // plain/causal_conv1d.cpp, plain/causal_conv1d_update.cpp

void causal_conv1d(std::size_t length, std::size_t dim, bool silu, const float* x, const float* weight, const float* bias,
                   float* y);
void causal_conv1d_update(std::size_t dim, const float* x, const float* weight, const float* bias, float* state, float* y);

}  // namespace plain

namespace bench {
namespace {

using ssmkit::index, ssmkit::view;

struct conv_shape {
    index batch, length, dim, width = 4;
    bool silu = true, time_contiguous = false, silent = false;

    std::string name() const
    {
        std::string text = std::to_string(batch) + "x" + std::to_string(length) + "x" + std::to_string(dim) + "x" +
                           std::to_string(width);
        if (!silu) text += "-none";
        if (time_contiguous) text += "-time_contiguous";
        if (silent) text += "-silence_after_burst";
        return text;
    }
    index elements() const { return batch * length * dim; }
};

template <class T>
struct conv_data {
    using real = ssmkit::compute_t<T>;
    conv_shape s;
    array<T> x, y, dy, dx;
    array<real> weight, taps, bias, dweight, dbias;  // taps: weight as (width, dim)

    explicit conv_data(const conv_shape& shape) : s(shape)
    {
        const auto n = static_cast<std::size_t>(s.elements()), dim = static_cast<std::size_t>(s.dim);
        const auto width = static_cast<std::size_t>(s.width);
        x = s.silent ? fill<T>(n, 1e-41, 1e-39, 1) : fill<T>(n, -3, 3, 1);
        if (s.silent) std::fill(x.begin(), x.begin() + static_cast<std::ptrdiff_t>(dim), T(real(1)));
        y.resize(n);
        dy = fill<T>(n, -1, 1, 2);
        dx.resize(n);
        weight = fill<real>(dim * width, -1, 1, 3);
        bias = s.silent ? array<real>(dim) : fill<real>(dim, -1, 1, 4);
        dweight.resize(dim * width);
        dbias.resize(dim);
        taps.resize(dim * width);
        for (std::size_t c = 0; c < dim; ++c) {
            for (std::size_t j = 0; j < width; ++j) taps[j * dim + c] = weight[c * width + j];
        }
    }

    template <class E>
    view<E, 3> tokens(E* p) const
    {
        if (s.time_contiguous) return view<E, 3>(p, s.batch, s.dim, s.length).transposed(1, 2);
        return {p, s.batch, s.length, s.dim};
    }

    ssmkit::causal_conv1d_args<T> args(T* out)
    {
        return {.x = tokens<const T>(x.data()), .weight = {weight.data(), s.dim, s.width}, .bias = {bias.data(), s.dim},
                .silu = s.silu, .y = tokens(out)};
    }

    ssmkit::causal_conv1d_backward_args<T> backward_args()
    {
        return {.forward = args(y.data()), .dy = tokens<const T>(dy.data()), .dx = tokens(dx.data()),
                .dweight = {dweight.data(), s.dim, s.width}, .dbias = {dbias.data(), s.dim}};
    }

    work needs(double arrays) const
    {
        const double n = static_cast<double>(s.elements());
        return {.updates = n, .token_channels = n, .exps = s.silu ? n : 0, .fmas = n * static_cast<double>(s.width),
                .bytes = arrays * n * sizeof(T)};
    }
};

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
                t.rivals.push_back({"speedup_over_plain", [d] {
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

template <class T>
task backward_task(const conv_shape& shape, std::size_t threads)
{
    const auto d = std::make_shared<conv_data<T>>(shape);
    const auto memory = std::make_shared<std::vector<std::byte>>(
        ssmkit::causal_conv1d_backward_workspace_size(d->backward_args(), threads));
    task t;
    t.run = [d, memory, threads] {
        if (threads == 1) return ssmkit::causal_conv1d_backward(d->backward_args(), *memory);
        ssmkit::causal_conv1d_backward(d->backward_args(), *memory, pool(threads));
    };
    t.needs = d->needs(3);
    t.needs.fmas *= 3;
    conv_data<T> expected(shape);
    ssmkit::reference::causal_conv1d_backward(expected.backward_args());
    t.run();
    t.mismatch = mismatch("dx", d->tokens(d->dx.data()), d->tokens(expected.dx.data()));
    if (t.mismatch.empty()) t.mismatch = mismatch("dweight", d->backward_args().dweight, expected.backward_args().dweight);
    if (threads == 1) {
        t.rivals.push_back({"over_forward", [d] { ssmkit::causal_conv1d(d->args(d->y.data())); }, true});
    }
    return t;
}

/// Decoding: one token for every row. dim_contiguous: state and taps stored with the channels contiguous.
task update_task(index batch, index dim, bool dim_contiguous)
{
    struct data {
        array<float> state, x, y, weight, bias;
    };
    const auto n = static_cast<std::size_t>(batch * dim), d = static_cast<std::size_t>(dim);
    const auto p = std::make_shared<data>(data{fill<float>(n * 3, -1, 1, 1), fill<float>(n, -1, 1, 2), array<float>(n),
                                               fill<float>(d * 4, -1, 1, 3), fill<float>(d, -1, 1, 4)});
    const auto args = [batch, dim, dim_contiguous](data& m) {
        ssmkit::causal_conv1d_update_args<float> a{.conv_state = {m.state.data(), batch, dim, 3}, .x = {m.x.data(), batch, 1, dim},
                                                   .weight = {m.weight.data(), dim, 4}, .bias = {m.bias.data(), dim},
                                                   .silu = true, .y = {m.y.data(), batch, 1, dim}};
        if (dim_contiguous) {
            a.conv_state = view<float, 3>(m.state.data(), batch, 3, dim).transposed(1, 2);
            a.weight = view<const float, 2>(m.weight.data(), 4, dim).transposed(0, 1);
        }
        return a;
    };
    task t;
    t.run = [p, args] { ssmkit::causal_conv1d_update(args(*p)); };
    const double elements = static_cast<double>(n);
    t.needs = {.updates = elements, .token_channels = elements, .exps = elements, .fmas = 4 * elements,
               .bytes = 4.0 * (8 * elements + 5 * static_cast<double>(dim)), .kind = traffic::update};
    data expected = *p;
    ssmkit::reference::causal_conv1d_update(args(expected));
    t.run();
    t.mismatch = mismatch("y", args(*p).y, args(expected).y);
    const auto rival = std::make_shared<data>(*p);
    t.rivals.push_back({"speedup_over_plain", [rival, batch, d] {
        for (std::size_t b = 0; b < static_cast<std::size_t>(batch); ++b) {
            plain::causal_conv1d_update(d, rival->x.data() + b * d, rival->weight.data(), rival->bias.data(),
                                        rival->state.data() + 3 * b * d, rival->y.data() + b * d);
        }
    }});
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
    for (const bool turned : {false, true}) {
        for (const std::size_t n : thread_counts()) {
            const conv_shape s{.batch = 1, .length = 2048, .dim = 1536, .time_contiguous = turned};
            rows.push_back({"causal_conv1d_backward", "ssmkit", s.name(), "f32", n, [=] { return backward_task<float>(s, n); }});
        }
    }
    for (const index batch : {1, 8}) {
        for (const bool turned : {false, true}) {
            rows.push_back({"causal_conv1d_update", "ssmkit", std::to_string(batch) + "x5120x4" + (turned ? "-dim_contiguous" : ""),
                            "f32", 1, [=] { return update_task(batch, 5120, turned); }});
        }
    }
}};

}  // namespace
}  // namespace bench
