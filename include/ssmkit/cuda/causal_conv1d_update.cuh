#pragma once

#include <cstddef>
#include <span>

#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/cuda/causal_conv1d.cuh>

namespace ssmkit::cuda {
namespace detail {

/// A thread a row and channel, which alone reads and writes its entry's slots. What came before the first token is read before
/// anything is written; a token is read from x again for each tap. What bounds it is memory.
template <class T>
__global__ void __launch_bounds__(128) conv_update_kernel(const __grid_constant__ causal_conv1d_update_args<T> a)
{
    const index length = a.x.extent(1), dim = a.x.extent(2), width = a.weight.extent(1), slots = a.conv_state.extent(2);
    const index i = index{blockIdx.x} * 128 + threadIdx.x, c = i % dim, b = i / dim;
    if (b >= a.x.extent(0)) return;
    const index entry = a.conv_state_indices.data() ? a.conv_state_indices[b] : b;
    if (entry < 0) {
        for (index l = 0; l < length; ++l) a.y(b, l, c) = narrowed<T>(0.0f);
        return;
    }
    const bool ring = a.cache_seqlens.data() != nullptr;
    const index start = ring ? a.cache_seqlens[b] : 0;
    // Where the element at a position before (negative) or after the first token lies.
    const auto slot = [&](index position) { return ring ? ssmkit::detail::ring_slot(start + position, slots) : slots + position; };
    const float bias = a.bias.data() ? a.bias[c] : 0.0f;
    for (index l = 0; l < length; ++l) {
        float sum = bias;
        for (index j = 0; j < width; ++j) {
            const index from = l + j - (width - 1);
            const T value = from >= 0 ? a.x(b, from, c) : a.conv_state(entry, c, slot(from));
            sum = fmaf(a.weight(c, j), widened(value), sum);
        }
        a.y(b, l, c) = narrowed<T>(a.silu ? silu(sum) : sum);
    }
    if (ring) {
        for (index l = 0; l < length && slots > 0; ++l) a.conv_state(entry, c, slot(l)) = a.x(b, l, c);
        return;
    }
    // In ascending order: an element moves to a lower place, or stays where there are no tokens.
    for (index k = 0; k < slots; ++k) {
        a.conv_state(entry, c, k) = length + k < slots ? a.conv_state(entry, c, length + k) : a.x(b, length + k - slots, c);
    }
}

/// Decoding: one token, and no more slots than conv_taps. A thread a row and channel, as above, whose loads are all under way
/// before the first is used: with few rows their latency is what bounds it.
template <class T>
__global__ void __launch_bounds__(128) conv_update_token_kernel(const __grid_constant__ causal_conv1d_update_args<T> a)
{
    constexpr int halo = conv_taps - 1;
    const index dim = a.x.extent(2), i = index{blockIdx.x} * 128 + threadIdx.x, c = i % dim, b = i / dim;
    const int slots = static_cast<int>(a.conv_state.extent(2)), missing = conv_taps - static_cast<int>(a.weight.extent(1));
    if (b >= a.x.extent(0)) return;
    const index entry = a.conv_state_indices.data() ? a.conv_state_indices[b] : b;
    if (entry < 0) {
        a.y(b, 0, c) = narrowed<T>(0.0f);
        return;
    }
    const bool ring = a.cache_seqlens.data() != nullptr;
    // The token's own slot; behind the last one if the state shifts.
    const int own = ring && slots > 0 ? static_cast<int>(ssmkit::detail::ring_slot(a.cache_seqlens[b], slots)) : slots;
    float weight[conv_taps];
    T past[halo]{};  // the slots before that one, of which a narrow weight reads the last only
#pragma unroll
    for (int j = 0; j < halo; ++j) {
        const int back = halo - j, at = own - back;
        if (back <= slots) past[j] = a.conv_state(entry, c, at < 0 ? at + slots : at);
    }
#pragma unroll
    for (int j = 0; j < conv_taps; ++j) weight[j] = j >= missing ? a.weight(c, j - missing) : 0.0f;
    const T now = a.x(b, 0, c);
    float sum = a.bias.data() ? a.bias[c] : 0.0f;
#pragma unroll
    for (int j = 0; j < halo; ++j) {
        if (j >= missing) sum = fmaf(weight[j], widened(past[j]), sum);
    }
    sum = fmaf(weight[halo], widened(now), sum);
    a.y(b, 0, c) = narrowed<T>(a.silu ? silu(sum) : sum);
    if (ring) {
        if (slots > 0) a.conv_state(entry, c, own) = now;
        return;
    }
#pragma unroll
    for (int j = 0; j < halo; ++j) {
        const int to = slots - 1 - (halo - j);
        if (to >= 0) a.conv_state(entry, c, to) = past[j];
    }
    if (slots > 0) a.conv_state(entry, c, slots - 1) = now;
}

}  // namespace detail

/// Bytes of the device's memory that causal_conv1d_update needs beside its arguments: none.
template <class T>
std::size_t causal_conv1d_update_workspace_size(const causal_conv1d_update_args<T>&)
{
    return 0;
}

/// The next tokens of the short causal convolution on the device: shapes, equations and options at causal_conv1d_update_args, whose
/// views hold device pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit, and
/// cuda::error if the launch fails; the values of the indices are trusted. Results are the same bit for bit from run to run.
template <class T>
void causal_conv1d_update(const causal_conv1d_update_args<T>& a, std::span<std::byte>, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::causal_conv1d_update";
    ssmkit::detail::check_causal_conv1d_update(a, ssmkit::detail::memory::device);
    const index rows = a.x.extent(0) * a.x.extent(2);
    if (rows == 0 || a.x.extent(1) == 0) return;
    const unsigned blocks = blocks_for(op, "x", rows, 128);
    if (a.x.extent(1) == 1 && a.weight.extent(1) <= conv_taps && a.conv_state.extent(2) <= conv_taps) {
        conv_update_token_kernel<<<blocks, 128, 0, stream>>>(a);
    } else {
        conv_update_kernel<<<blocks, 128, 0, stream>>>(a);
    }
    require_success(op, cudaGetLastError());
}

/// The same where causal_conv1d_update_workspace_size is 0; otherwise shape_error.
template <class T>
void causal_conv1d_update(const causal_conv1d_update_args<T>& a, cudaStream_t stream)
{
    causal_conv1d_update(a, {}, stream);
}

}  // namespace ssmkit::cuda
