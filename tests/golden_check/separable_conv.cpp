#include <array>
#include <string>
#include <utility>

#include <ssmkit/args/separable_conv.hpp>

#include "golden.hpp"

namespace {

using golden::index, golden::problem, golden::view;

/// A tensor with its axes in the file's order.
template <class R, std::size_t Rank>
view<const R, Rank> read(problem& p, const std::string& name)
{
    return [&]<std::size_t... I>(std::index_sequence<I...>)
    {
        return p.input<R>(name, static_cast<int>(I)...);
    }
    (std::make_index_sequence<Rank>{});
}

template <class R, std::size_t Rank>
view<R, Rank> written(problem& p, const std::string& name)
{
    return [&]<std::size_t... I>(std::index_sequence<I...>)
    {
        return p.output<R>(name, static_cast<int>(I)...);
    }
    (std::make_index_sequence<Rank>{});
}

/// (batch, channels * dim, length ...) as (batch, channels, dim, length ...).
template <class T, std::size_t Rank>
view<T, Rank + 1> split_channels(const view<T, Rank>& y, index channels)
{
    std::array<index, Rank + 1> extents{}, strides{};
    for (std::size_t i = 0; i < Rank; ++i) {
        extents[i + (i > 0)] = y.extent(i);
        strides[i + (i > 0)] = y.stride(i);
    }
    extents[2] = y.extent(1) / channels;
    extents[1] = channels;
    strides[1] = y.stride(1) * extents[2];
    return {y.data(), extents, strides};
}

template <class R, std::size_t Axes>
void run(problem& p)
{
    const index channels = p.flag<index>("channels", 1), ranks = p.flag<index>("trank", 1);
    const bool both = p.flag<bool>("bidirectional", false);
    const auto half = [&](auto k, index which) {  // the backward rows follow all forward rows
        if (k.data() == nullptr || (which == 1 && !both)) return decltype(k){};
        return k.slice(0, which * ranks * channels, ranks * channels);
    };
    ssmkit::separable_conv_args<R, Axes> forward{.u = read<R, 2 + Axes>(p, "u"), .ranks = ranks, .D = p.input<R>("D", 0, 1)};
    for (std::size_t i = 0; i < Axes; ++i) {
        const auto k = p.input<R>("k" + std::to_string(i), 0, 1, 2);
        forward.k[i] = half(k, 0);
        forward.k_reverse[i] = half(k, 1);
    }
    forward.y = split_channels(written<R, 2 + Axes>(p, "y"), channels);
    p.run(forward);
    if (!p.has("dout")) return;
    ssmkit::separable_conv_backward_args<R, Axes> backward{.forward = forward,
                                                           .dy = split_channels(read<R, 2 + Axes>(p, "dout"), channels),
                                                           .du = written<R, 2 + Axes>(p, "d_u"),
                                                           .dD = p.output<R>("d_D", 0, 1)};
    for (std::size_t i = 0; i < Axes; ++i) {
        const auto dk = p.output<R>("d_k" + std::to_string(i), 0, 1, 2);
        backward.dk[i] = half(dk, 0);
        backward.dk_reverse[i] = half(dk, 1);
    }
    p.run(backward);
}

const golden::handler s4nd("s4nd", []<class T>(golden::element<T>, problem& p) {
    using R = ssmkit::compute_t<T>;
    // In which order the reference multiplies: 0, for two axes, or 1, for any and without the mean over ranks.
    const int version = p.flag<int>("contract_version", 0);
    if (version != 0 && (version != 1 || p.flag<index>("trank", 1) != 1)) throw golden::unknown("this contract_version is unknown");
    const std::size_t axes = p.shape("u").size() - 2;
    if (axes == 1) return run<R, 1>(p);
    if (axes == 2) return run<R, 2>(p);
    if (axes == 3) return run<R, 3>(p);
    throw golden::unknown("more than three axes");
});

}  // namespace
