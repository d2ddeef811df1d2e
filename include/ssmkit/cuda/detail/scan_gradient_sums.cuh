#pragma once

// What joins the segments of the selective scan's gradients: states and gradients from one to the next, and sums over all.

#include <cstdint>
#include <type_traits>

#include <ssmkit/cuda/detail/scan_gradients.cuh>

namespace ssmkit::cuda::detail {

/// Pass 2: from segment to segment, a thread a state: the state that each starts with, the gradient after each, and that of the
/// initial state. Loads do not wait for the chain of products: sixteen segments' are under way together.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_chain_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                  const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, ahead = 16 / parts;
    const index batch = a.forward.u.extent(0), length = a.forward.u.extent(1), dim = a.forward.u.extent(2), state = a.forward.A.extent(1);
    const index i = blockIdx.x * index{blockDim.x} + threadIdx.x;
    if (i >= batch * dim * state) return;
    const index c = i % dim, n = i / dim % state, b = i / dim / state, stride = dim * state * parts;
    const index start = b * plan.segments * stride + n * parts * dim + c;
    const float* const steps = plan.steps + (b * plan.segments * layout::tiles + layout::tiles - 1) * dim + c;
    const std::uint32_t* const severed = plan.severed + b * plan.segments;
    float A[parts], x[parts] = {};
#pragma unroll
    for (int part = 0; part < parts; ++part) A[part] = plan.rates[(n * parts + part) * dim + c];
    const auto walk = [&]<bool Back>(std::bool_constant<Back>, float* values) {
        for (index first = 0; first < plan.segments; first += ahead) {
            float step[ahead], own[ahead][parts];
            bool cut[ahead];
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
                if (first + k >= plan.segments) break;
                const index segment = Back ? plan.segments - 1 - first - k : first + k;
                cut[k] = severed[segment] != 0;
                step[k] = steps[segment * layout::tiles * dim];
#pragma unroll
                for (int part = 0; part < parts; ++part) own[k][part] = values[start + segment * stride + part * dim];
            }
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
                if (first + k >= plan.segments) break;
                const index segment = Back ? plan.segments - 1 - first - k : first + k;
#pragma unroll
                for (int part = 0; part < parts; ++part) values[start + segment * stride + part * dim] = x[part];
                float decay[parts], next[parts];
                scan_decay<parts>(step[k], A, decay);
                multiply_add<Back>(decay, x, own[k], next);
#pragma unroll
                for (int part = 0; part < parts; ++part) x[part] = cut[k] ? own[k][part] : next[part];
            }
        }
    };
    const auto add = [&](const Param* from) {
#pragma unroll
        for (int part = 0; part < parts; ++part) x[part] += reinterpret_cast<const float*>(from)[part];
    };
    if (a.forward.initial_state.data()) add(a.forward.initial_state.pointer(b, c, n));
    walk(std::false_type{}, plan.h);
#pragma unroll
    for (int part = 0; part < parts; ++part) x[part] = 0.0f;
    if (a.dfinal_state.data()) add(a.dfinal_state.pointer(b, c, n));
    if (a.dsnapshots.data()) {
        for (index k = a.forward.snapshot_after.extent(1); k-- > 0 && a.forward.snapshot_after(b, k) == length;) {
            add(a.dsnapshots.pointer(b, k, c, n));
        }
    }
    walk(std::true_type{}, plan.K);
    if (a.dinitial_state.data()) {
#pragma unroll
        for (int part = 0; part < parts; ++part) reinterpret_cast<float*>(a.dinitial_state.pointer(b, c, n))[part] = x[part];
    }
}

/// Rows of a sum, in a fixed order: of from[k * stride + i] over k < terms. i counts (outer, parts, dim), which lie at
/// (outer * far_outer + c * far_c) * parts + part.
template <int Rows>
__global__ void __launch_bounds__(32 * Rows) sum_rows_kernel(const float* from, index terms, index stride, float* to, index count, index dim,
                                                             index parts, index far_outer, index far_c)
{
    __shared__ float partial[Rows][32];
    const index i = blockIdx.x * index{32} + threadIdx.x;
    float sum = 0.0f;
    if (i < count) {
#pragma unroll 4
        for (index k = threadIdx.y; k < terms; k += Rows) sum += from[k * stride + i];
    }
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || i >= count) return;
    for (int k = 1; k < Rows; ++k) sum += partial[k][threadIdx.x];
    to[(i / dim / parts * far_outer + i % dim * far_c) * parts + i / dim % parts] = sum;
}

/// dB or dC from the blocks' shares: over the tiles of a group and every axis along which the gradient has stride 0, in a fixed
/// order. `Wide`: a warp shares an element's sum.
template <bool Wide, class Param>
__global__ void __launch_bounds__(256) sum_maps_kernel(const float* shares, index tiles, const __grid_constant__ view<Param, 4> to)
{
    constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1, width = Wide ? 32 : 1;
    const index batch = to.extent(0), length = to.extent(1), groups = to.extent(2), row = to.extent(3) * parts, tiles_of_group = tiles / groups;
    const auto kept = [&](int axis) { return to.stride(axis) == 0 ? index{1} : to.extent(axis); };
    const index own_b = kept(0), own_t = kept(1), own_g = kept(2), count = own_b * own_t * own_g * row;
    const index summed_t = to.stride(1) == 0 ? length : 1, summed_g = to.stride(2) == 0 ? groups : 1;
    const index summed = (to.stride(0) == 0 ? batch : 1) * summed_t * summed_g, lane = threadIdx.x % width;
    const index step = index{gridDim.x} * blockDim.x / width;
    for (index i = (blockIdx.x * index{blockDim.x} + threadIdx.x) / width; i < count; i += step) {
        const index n = i % row, g = i / row % own_g, t = i / row / own_g % own_t, b = i / row / own_g / own_t;
        float sum = 0.0f;
        for (index k = lane; k < summed; k += width) {
            const index bb = b + k / summed_g / summed_t, tt = t + k / summed_g % summed_t, gg = g + k % summed_g;
            const float* at = shares + ((gg * tiles_of_group * batch + bb) * length + tt) * row + n;
#pragma unroll 8
            for (index tile = 0; tile < tiles_of_group; ++tile) sum += at[tile * batch * length * row];
        }
        if constexpr (Wide) {
#pragma unroll
            for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        }
        if (lane == 0) reinterpret_cast<float*>(to.pointer(b, t, g, n / parts))[n % parts] = sum;
    }
}

}  // namespace ssmkit::cuda::detail
