#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>

#include <ssmkit/args/causal_conv1d_backward.hpp>
#include <ssmkit/cuda/detail/causal_conv1d_gradients.cuh>
#include <ssmkit/workspace.hpp>

namespace ssmkit::cuda {
namespace detail {

// As in the forward pass, kernels see tokens as visited.

/// e_t of any width, strides and options.
template <class T>
__device__ __forceinline__ float conv_error(const causal_conv1d_backward_args<T>& a, index b, index t, index c)
{
    if (conv_sequence(a.forward, b, t) < 0) return 0;
    const float dy = widened(a.dy(b, t, c));
    return a.forward.silu ? dy * silu_derivative(conv_sum(a.forward, b, t, c)) : dy;
}

/// (batch, length, dim) of e in the workspace; without data, e is computed where it is wanted.
using conv_errors = view<float, 3>;

/// The gradient of the input at position s, which is negative in the initial state.
template <class T>
__device__ __forceinline__ float conv_gradient(const causal_conv1d_backward_args<T>& a, const conv_errors& e, bool with_final,
                                               index b, index s, index c)
{
    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), width = f.weight.extent(1);
    float sum = 0;
    for (index t = max(s, index{0}); t < length && t < s + width; ++t) {
        const std::int32_t own = conv_sequence(f, b, t);
        if (own < 0 || own != conv_sequence(f, b, s)) continue;
        sum = fmaf(f.weight(c, s + width - 1 - t), e.data() ? e(b, t, c) : conv_error(a, b, t, c), sum);
    }
    if (with_final && a.dfinal_states.data()) {
        const index n = conv_unpadded(f, b), j = s - n + width - 1;
        const bool held = j >= 0 && j < width - 1 && (n == 0 || conv_sequence(f, b, s) == conv_sequence(f, b, n - 1));
        if (held) sum += widened(a.dfinal_states(b, c, j));
    }
    return sum;
}

/// The batch row, token and channel of the i-th element: neighbouring threads have neighbouring elements in memory.
struct conv_element {
    index b, t, c;

    __device__ conv_element(index i, index length, index dim, bool times_first)
        : b(i / (length * dim)), t(times_first ? i % length : i / dim % length), c(times_first ? i / length % dim : i % dim)
    {
    }
};

template <class T>
__global__ void __launch_bounds__(256) conv_errors_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a, conv_errors e,
                                                           bool times_first)
{
    const index length = a.forward.x.extent(1), dim = a.forward.x.extent(2), total = a.forward.x.extent(0) * length * dim;
    for (index i = index{blockIdx.x} * 256 + threadIdx.x; i < total; i += index{gridDim.x} * 256) {
        const conv_element at(i, length, dim, times_first);
        e(at.b, at.t, at.c) = conv_error(a, at.b, at.t, at.c);
    }
}

/// dx without what dfinal_states adds.
template <class T>
__global__ void __launch_bounds__(256) conv_gradients_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a,
                                                              conv_errors e, bool times_first)
{
    const index length = a.forward.x.extent(1), dim = a.forward.x.extent(2), total = a.forward.x.extent(0) * length * dim;
    for (index i = index{blockIdx.x} * 256 + threadIdx.x; i < total; i += index{gridDim.x} * 256) {
        const conv_element at(i, length, dim, times_first);
        a.dx(at.b, at.t, at.c) = narrowed<T>(conv_gradient(a, e, false, at.b, at.t, at.c));
    }
}

/// What lies at the edges, width - 1 positions each: the gradient of the initial states, or that of the inputs that the final
/// states hold, over what the other kernels have written.
template <class T>
__global__ void __launch_bounds__(128) conv_edges_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a, conv_errors e,
                                                          bool initial)
{
    const index dim = a.forward.x.extent(2), states = a.forward.weight.extent(1) - 1, i = index{blockIdx.x} * 128 + threadIdx.x;
    const index c = i % dim, j = i / dim % states, b = i / (dim * states);
    if (b >= a.forward.x.extent(0)) return;
    const index s = (initial ? 0 : conv_unpadded(a.forward, b)) + j - states;
    if (initial) {
        a.dinitial_states(b, c, j) = narrowed<T>(conv_gradient(a, e, true, b, s, c));
    } else if (s >= 0) {
        a.dx(b, s, c) = narrowed<T>(conv_gradient(a, e, true, b, s, c));
    }
}

/// A thread a tap (behind them the bias) and channel of a part of `tokens` tokens of a batch row.
template <class T>
__global__ void __launch_bounds__(128) conv_parts_kernel(const __grid_constant__ causal_conv1d_backward_args<T> a, conv_errors e,
                                                         float* __restrict__ partial, index parts, index tokens)
{
    const causal_conv1d_args<T>& f = a.forward;
    const index length = f.x.extent(1), dim = f.x.extent(2), width = f.weight.extent(1);
    const index i = index{blockIdx.x} * 128 + threadIdx.x, c = i % dim, j = i / dim % (width + 1), part = i / (dim * (width + 1));
    const index b = part / parts, first = part % parts * tokens, last = min(first + tokens, length);
    if (b >= f.x.extent(0)) return;
    float sum = 0;
    for (index t = first; t < last; ++t) {
        const float own = e(b, t, c);
        if (j == width) {
            sum += own;
            continue;
        }
        const index from = t + j - (width - 1);
        const std::int32_t id = conv_sequence(f, b, t);
        if (id >= 0 && id == conv_sequence(f, b, from)) sum = fmaf(own, widened(conv_input(f, b, from, c)), sum);
    }
    partial[i] = sum;
}

/// Sums over the parts, (parts, width + 1, dim): eight threads a number, each every eighth part in order, then theirs in order.
template <class Real>
__global__ void __launch_bounds__(256) conv_sums_kernel(const Real* __restrict__ partial, index parts, view<Real, 2> dweight,
                                                        view<Real, 1> dbias, index width, index dim)
{
    constexpr int slices = 8;
    __shared__ Real of_slice[slices][32];
    const index numbers = (width + 1) * dim, i = index{blockIdx.x} * 32 + threadIdx.x;
    Real sum = 0;
    if (i < numbers) {
#pragma unroll 8
        for (index part = threadIdx.y; part < parts; part += slices) sum += partial[part * numbers + i];
    }
    of_slice[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || i >= numbers) return;
    for (int k = 1; k < slices; ++k) sum += of_slice[k][threadIdx.x];
    const index j = i / dim, c = i % dim;
    if (j < width) {
        if (dweight.data()) dweight(c, j) = sum;
    } else if (dbias.data()) {
        dbias[c] = sum;
    }
}

/// Which kernel makes the gradients of arguments as visited, and how it cuts the tokens of a batch row.
struct conv_backward_plan {
    enum class form { channels, times, any };

    form kernel = form::any;
    conv_times_plan times;
    int chunk = 0;                     ///< tokens of a warp along channels
    index tokens = 256, parts = 0;     ///< tokens of a part of any other form; parts that are summed apart
    std::size_t sums = 0, errors = 0;  ///< numbers in the workspace

    template <class T>
    explicit conv_backward_plan(const causal_conv1d_backward_args<T>& a)
        : times(a.forward.x.extent(0), a.forward.x.extent(1), a.forward.x.extent(2), 32 * wide<T>, 16, 6000)
    {
        const causal_conv1d_args<T>& f = a.forward;
        const index batch = f.x.extent(0), length = f.x.extent(1), dim = f.x.extent(2), width = f.weight.extent(1);
        const auto words = [&](std::size_t along, int count) {
            return in_words(f.x, along, count) && in_words(a.dy, along, count) && (!a.dx.data() || in_words(a.dx, along, count));
        };
        using layout = conv_gradient_layout<T>;
        if (width <= conv_taps && dim % layout::count == 0 && words(2, layout::count)) {
            kernel = form::channels;
            // Chunks of all batch rows one behind the other: a block for each that runs at once, unless chunks get short.
            const index columns = std::max<index>(1, (dim + layout::channels - 1) / layout::channels), all = batch * length;
            const index most = std::max<index>(1, index{132} * layout::blocks / columns);
            const index even = (all + most * layout::rows - 1) / (most * layout::rows);
            chunk = static_cast<int>(std::clamp<index>((even + 3) / 4 * 4, 16, 1 << 20));
            parts = (all + index{chunk} * layout::rows - 1) / (index{chunk} * layout::rows);
        } else if (width <= conv_taps && !f.seq_idx.data() && words(1, wide<T>)) {
            kernel = form::times;
            parts = batch * times.segments;
        } else {
            errors = static_cast<std::size_t>(batch * length * dim);
            parts = batch * ((length + tokens - 1) / tokens);
        }
        if (a.dweight.data() || a.dbias.data()) sums = static_cast<std::size_t>(parts * (width + 1) * dim);
    }
};

template <class T>
causal_conv1d_backward_args<T> conv_as_visited(causal_conv1d_backward_args<T> a)
{
    using ssmkit::detail::as_visited;
    const bool reverse = a.forward.reverse;
    a.forward = conv_as_visited(a.forward);
    a.dy = as_visited(a.dy, reverse);
    a.dx = as_visited(a.dx, reverse);
    return a;
}

}  // namespace detail

/// Bytes of the device's memory that causal_conv1d_backward needs beside its arguments: if dweight or dbias is asked for
/// 4 (width + 1) dim for every 64 tokens or more (channel-contiguous: at most 1.4 MB or 20 a channel) or every batch row, and 4 an
/// element of x where no fast kernel fits.
template <class T>
std::size_t causal_conv1d_backward_workspace_size(const causal_conv1d_backward_args<T>& a)
{
    const detail::conv_backward_plan plan(detail::conv_as_visited(a));
    ssmkit::detail::arena sizes;
    sizes.take<float>(plan.sums);
    sizes.take<float>(plan.errors);
    return sizes.size();
}

/// The gradients of the short causal convolution on the device: shapes, equations and options at causal_conv1d_backward_args, whose
/// views hold device pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the
/// workspace is too small, and cuda::error if a launch fails. Nothing is added atomically: results are the same bit for bit from
/// run to run, and do not depend on which others are asked for.
///
/// Up to four taps run at the speed of memory if x, dy and dx are contiguous along channels, with rows that start at four elements,
/// or, without seq_idx and forwards, along time, with rows that start at 16 bytes. Everything else takes a thread an element, and e
/// through memory.
template <class T>
void causal_conv1d_backward(const causal_conv1d_backward_args<T>& args, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::causal_conv1d_backward";
    check(args);
    const causal_conv1d_backward_args<T> a = conv_as_visited(args);
    const conv_backward_plan plan(a);
    const std::size_t need = causal_conv1d_backward_workspace_size(args);
    if (workspace.size() < need) {
        ssmkit::detail::fail(std::string(op) + ": workspace has " + std::to_string(workspace.size()) + " bytes, expected " +
                             std::to_string(need));
    }
    ssmkit::detail::arena memory(workspace);
    float* const sums = plan.sums > 0 ? memory.take<float>(plan.sums) : nullptr;
    const causal_conv1d_args<T>& f = a.forward;
    const index batch = f.x.extent(0), length = f.x.extent(1), dim = f.x.extent(2), width = f.weight.extent(1), states = width - 1;
    const index total = batch * length * dim;
    const bool plain = width == conv_taps && f.silu && !f.seq_idx.data();
    conv_errors e;

    if (total == 0 || !(sums || a.dx.data())) {
    } else if (plan.kernel == conv_backward_plan::form::channels) {
        using layout = conv_gradient_layout<T>;
        const index columns = (dim + layout::channels - 1) / layout::channels;
        const unsigned blocks = blocks_for(op, "x", plan.parts * columns, 1);
        const bool weight_words = width == conv_taps && in_words(f.weight, 1, 4);
        (plain ? conv_gradient_channels_kernel<T, true> : conv_gradient_channels_kernel<T, false>)
            <<<blocks, dim3(32, layout::rows), 0, stream>>>(a, sums, plan.chunk, weight_words);
    } else if (plan.kernel == conv_backward_plan::form::times) {
        (plain ? conv_gradient_times_kernel<T, wide<T>, true> : conv_gradient_times_kernel<T, wide<T>, false>)
            <<<blocks_for(op, "x", plan.times.blocks, 1), 128, 0, stream>>>(
                a, sums, static_cast<unsigned>(plan.times.segments), plan.times.tiles);
    }
    if (total > 0 && plan.kernel == conv_backward_plan::form::any) {
        const bool times_first = (f.x.stride(1) == 1 || f.x.stride(1) == -1) && f.x.stride(2) != 1;
        float* const errors = memory.take<float>(plan.errors);
        e = times_first ? conv_errors(errors, batch, dim, length).transposed(1, 2) : conv_errors(errors, batch, length, dim);
        const auto blocks = static_cast<unsigned>(std::min<index>((total + 255) / 256, index{1} << 30));
        conv_errors_kernel<<<blocks, 256, 0, stream>>>(a, e, times_first);
        require_success(op, cudaGetLastError());
        if (a.dx.data()) conv_gradients_kernel<<<blocks, 256, 0, stream>>>(a, e, times_first);
        require_success(op, cudaGetLastError());
        if (sums) {
            conv_parts_kernel<<<blocks_for(op, "x", plan.parts * (width + 1) * dim, 128), 128, 0, stream>>>(
                a, e, sums, plan.parts / batch, plan.tokens);
        }
    }
    require_success(op, cudaGetLastError());
    if (dim > 0 && (a.dweight.data() || a.dbias.data())) {
        conv_sums_kernel<float><<<blocks_for(op, "weight", (width + 1) * dim, 32), dim3(32, 8), 0, stream>>>(
            sums, plan.parts, a.dweight, a.dbias, width, dim);
        require_success(op, cudaGetLastError());
    }
    const index edges = batch * dim * states;
    if (edges > 0 && a.dinitial_states.data()) {
        conv_edges_kernel<<<blocks_for(op, "dinitial_states", edges, 128), 128, 0, stream>>>(a, e, true);
        require_success(op, cudaGetLastError());
    }
    if (edges > 0 && total > 0 && a.dfinal_states.data() && a.dx.data()) {
        conv_edges_kernel<<<blocks_for(op, "dfinal_states", edges, 128), 128, 0, stream>>>(a, e, false);
        require_success(op, cudaGetLastError());
    }
}

/// The same where causal_conv1d_backward_workspace_size is 0; otherwise shape_error.
template <class T>
void causal_conv1d_backward(const causal_conv1d_backward_args<T>& a, cudaStream_t stream)
{
    causal_conv1d_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
