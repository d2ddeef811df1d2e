#pragma once

#include <cstddef>
#include <span>

#include <ssmkit/args/causal_conv1d_update.hpp>
#include <ssmkit/cuda/detail/words.cuh>

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
    conv_update_kernel<<<blocks_for(op, "x", rows, 128), 128, 0, stream>>>(a);
    require_success(op, cudaGetLastError());
}

/// The same where causal_conv1d_update_workspace_size is 0; otherwise shape_error.
template <class T>
void causal_conv1d_update(const causal_conv1d_update_args<T>& a, cudaStream_t stream)
{
    causal_conv1d_update(a, {}, stream);
}

}  // namespace ssmkit::cuda
