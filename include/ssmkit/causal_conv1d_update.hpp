#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/causal_conv1d.hpp>
#include <ssmkit/detail/shuffle.hpp>
#include <ssmkit/detail/simd.hpp>
#include <ssmkit/execution.hpp>

namespace ssmkit {
namespace detail {

/// N values of each channel from a (dim, N) array of any strides, turned so that the lanes run along the channels.
template <index N, class T, class Lanes, class V>
[[gnu::always_inline]] inline void load_columns(const T* p, index channel_stride, index stride, Lanes channels,
                                                V (&out)[static_cast<std::size_t>(N)])
{
    if constexpr (Lanes::full && std::is_same_v<T, typename V::value_type>) {
        if (stride == 1 && channel_stride == N) return load_records<N>(p + channels.first * N, out);
    }
    unrolled<N>([&](auto k) { out[k] = channels.load(p + k * stride, channel_stride); });
}

template <index N, class T, class Lanes, class V>
[[gnu::always_inline]] inline void store_columns(const V (&x)[static_cast<std::size_t>(N)], T* p, index channel_stride,
                                                 index stride, Lanes channels)
{
    if constexpr (Lanes::full && std::is_same_v<T, typename V::value_type>) {
        if (stride == 1 && channel_stride == N) return store_records<N>(x, p + channels.first * N);
    }
    unrolled<N>([&](auto k) { channels.store(x[k], p + k * stride, channel_stride); });
}

/// One token with a shifting state of the usual lengths, Slots = Width - 1 or Width, in registers: decoding.
template <class Arch, index Width, index Slots, class T, class Lanes>
[[gnu::always_inline]] inline void conv_update_token(const causal_conv1d_update_args<T>& a, index b, index entry, Lanes channels)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    v w[Width], x[Slots + 1];  // x: the state, then the token
    load_columns<Width>(a.weight.data(), a.weight.stride(0), a.weight.stride(1), channels, w);
    v state[Slots];
    T* const slots = a.conv_state.pointer(entry);
    load_columns<Slots>(static_cast<const T*>(slots), a.conv_state.stride(1), a.conv_state.stride(2), channels, state);
    unrolled<Slots>([&](auto k) { x[k] = state[k]; });
    x[Slots] = channels.load(a.x.pointer(b), a.x.stride(2));
    v sum = a.bias.data() ? channels.load(a.bias.data(), a.bias.stride(0)) : v(R(0));
    unrolled<Width>([&](auto j) { sum = multiply_add(w[j], x[Slots + 1 - Width + j], sum); });
    channels.store(a.silu ? bounded_silu(sum) : sum, a.y.pointer(b), a.y.stride(2));
    unrolled<Slots>([&](auto k) { state[k] = x[k + 1]; });
    store_columns<Slots>(state, slots, a.conv_state.stride(1), a.conv_state.stride(2), channels);
}

/// One batch row of the update for up to a register of channels. Lanes run along the channels, which are independent; a
/// state and weights stored with the channels contiguous (transposed views) are loaded without turning.
template <class Arch, class T, class Lanes>
void conv_update_lanes(const causal_conv1d_update_args<T>& a, index b, index entry, Lanes channels)
{
    using R = compute_t<T>;
    using v = vec<R, Arch>;
    const index length = a.x.extent(1), width = a.weight.extent(1), past = width - 1, slots = a.conv_state.extent(2);
    const bool ring = a.cache_seqlens.data() != nullptr;
    const index position = ring ? a.cache_seqlens[b] : 0;
    const auto slot = [&](index t) { return ring ? ring_slot(position + t, slots) : slots + t; };  // of token t
    const auto input = [&](index t) {
        return t < 0 ? channels.load(a.conv_state.pointer(entry, 0, slot(t)), a.conv_state.stride(1))
                     : channels.load(a.x.pointer(b, t), a.x.stride(2));
    };
    const auto keep = [&](const v& x, index k) {  // exact: T to R and back
        channels.store(x, a.conv_state.pointer(entry, 0, k), a.conv_state.stride(1));
    };

    const v bias = a.bias.data() ? channels.load(a.bias.data(), a.bias.stride(0)) : v(R(0));
    for (index t = 0; t < length; ++t) {  // reads the state, which is written only afterwards
        v sum = bias;
        for (index j = 0; j < width; ++j) {
            const v w = channels.load(a.weight.pointer(0, j), a.weight.stride(0));
            sum = multiply_add(w, input(t + j - past), sum);
        }
        channels.store(a.silu ? bounded_silu(sum) : sum, a.y.pointer(b, t), a.y.stride(2));
    }
    if (ring) {
        for (index t = std::max<index>(0, length - slots); t < length; ++t) keep(input(t), slot(t));
    } else {
        for (index k = 0; k < slots; ++k) keep(input(length - slots + k), k);  // upwards: a slot is read before it is lost
    }
}

}  // namespace detail

/// The next tokens of the short causal convolution: equations at causal_conv1d_update_args. Throws shape_error before
/// anything is written. In place, no allocation, no lock. Work splits over the batch. The sums are those of causal_conv1d,
/// bit for bit.
template <class Arch = xsimd::default_arch, class T, execution_resource Exec = in_place>
void causal_conv1d_update(const causal_conv1d_update_args<T>& a, Exec&& exec = {})
{
    using namespace detail;
    check(a);
    const index length = a.x.extent(1), dim = a.x.extent(2);
    run_tasks(exec, static_cast<std::size_t>(a.x.extent(0)), [&](std::size_t task, std::size_t) {
        const flush_denormals guard;
        const index b = static_cast<index>(task), entry = a.conv_state_indices.data() ? a.conv_state_indices[b] : b;
        if (entry < 0) {
            for (index t = 0; t < length; ++t) {
                for (index c = 0; c < dim; ++c) a.y(b, t, c) = T(0);
            }
            return;
        }
        with_conv_width(a.weight.extent(1), [&](auto width) {
            const auto sweep = [&](auto&& f) { for_each_lanes<compute_t<T>, Arch>(dim, f); };
            if constexpr (width() >= 2) {
                if (length == 1 && a.cache_seqlens.data() == nullptr) {
                    const index slots = a.conv_state.extent(2);
                    if (slots == width() - 1) {
                        return sweep([&](auto c) { conv_update_token<Arch, width(), width() - 1>(a, b, entry, c); });
                    }
                    if (slots == width()) {
                        return sweep([&](auto c) { conv_update_token<Arch, width(), width()>(a, b, entry, c); });
                    }
                }
            }
            sweep([&](auto c) { conv_update_lanes<Arch>(a, b, entry, c); });
        });
    });
}

}  // namespace ssmkit
