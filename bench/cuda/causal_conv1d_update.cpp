#include <memory>

#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/reference/causal_conv1d_update.hpp>

#include "harness.hpp"

namespace bench::device {
namespace {

using ssmkit::view;

/// Decoding: one token for every row, four taps. Rows behind 60 MB of state and tokens come from the second-level cache.
template <class T>
struct update_data {
    index batch, dim;
    bool dim_contiguous;
    array<T> state{batch * dim * 3, -1, 1, 1}, x{batch * dim, -1, 1, 2}, y{batch * dim};
    array<float> weight{dim * 4, -1, 1, 3}, bias{dim, -1, 1, 4};

    /// The arguments over these or, for the first row, over copies of them.
    ssmkit::causal_conv1d_update_args<T> args(index rows, T* s, const T* tokens, const float* w, const float* b, T* out) const
    {
        ssmkit::causal_conv1d_update_args<T> a{.conv_state = {s, rows, dim, 3}, .x = {tokens, rows, 1, dim}, .weight = {w, dim, 4},
                                               .bias = {b, dim}, .silu = true, .y = {out, rows, 1, dim}};
        if (dim_contiguous) {
            a.conv_state = view<T, 3>(s, rows, 3, dim).transposed(1, 2);
            a.weight = view<const float, 2>(w, 4, dim).transposed(0, 1);
        }
        return a;
    }
};

template <class T>
task update_task(index batch, index dim, bool dim_contiguous)
{
    const auto d = std::make_shared<update_data<T>>(batch, dim, dim_contiguous);
    task t;
    t.run = call(d->args(batch, d->state.data(), d->x.data(), d->weight.data(), d->bias.data(), d->y.data()), d);
    const double elements = static_cast<double>(batch * dim);
    t.needs.bytes = 8 * elements * sizeof(T) + 20.0 * static_cast<double>(dim);
    t.needs.exps = 2 * elements;
    t.needs.fmas = 4 * elements;
    auto state = d->state.host(dim * 3);
    return checked(t, [&] {
        const auto x = d->x.host(dim), got = d->y.host(dim);
        const auto weight = d->weight.host(), bias = d->bias.host();
        bench::array<T> y(got.size());
        ssmkit::reference::causal_conv1d_update(d->args(1, state.data(), x.data(), weight.data(), bias.data(), y.data()));
        return bench::mismatch("y", view<const T, 1>(got.data(), dim), view<const T, 1>(y.data(), dim));
    });
}

const registration here{[](std::vector<row>& rows) {
    for (const index batch : {1, 64, 256, 4096}) {
        for (const bool turned : {false, true}) {
            add_rows(rows, "causal_conv1d_update", std::to_string(batch) + "x5120x4" + (turned ? "-dim_contiguous" : ""), {},
                     [=]<class T>(double) { return update_task<T>(batch, 5120, turned); });
        }
    }
}};

}  // namespace
}  // namespace bench::device
