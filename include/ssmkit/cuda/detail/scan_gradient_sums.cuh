#pragma once

// What joins the segments of the selective scan's gradients: states and gradients from one to the next, and sums over all.

#include <cstdint>
#include <type_traits>

#include <ssmkit/cuda/detail/scan_gradients.cuh>

namespace ssmkit::cuda::detail {

/// Pass 2: from segment to segment, a thread a state: the state that each starts with, the gradient after each, and that of the
/// initial state. Loads do not wait for the chain of products: eight segments' are under way together.
template <class T, class Param>
__global__ void __launch_bounds__(128) scan_backward_chain_kernel(const __grid_constant__ selective_scan_backward_args<T, Param> a,
                                                                  const __grid_constant__ scan_backward_plan plan)
{
    using layout = scan_backward_layout<Param>;
    constexpr int parts = layout::parts, together = layout::together, ahead = 8;
    const auto& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(1), dim = f.u.extent(2), state = f.A.extent(1);
    const index i = blockIdx.x * index{blockDim.x} + threadIdx.x;
    if (i >= batch * plan.pairs * dim) return;
    const index c = i % dim, n = i / dim % plan.pairs * together, b = i / dim / plan.pairs, stride = plan.pairs * dim;
    const index start = b * plan.segments * stride + i % stride;
    const float2* const steps = plan.steps + (b * plan.segments * plan.tiles + plan.tiles - 1) * dim + c;
    const std::uint32_t* const severed = plan.severed + b * plan.segments;
    using pair = float[together][parts];
    const auto parts_of = [](const float2& both, pair& to) {
        to[0][0] = both.x;
        to[together - 1][parts - 1] = both.y;
    };
    const float2 rates = rate_pair(f.A, c, i / dim % plan.pairs);
    pair A, x = {};
    parts_of(rates, A);
    // put(place, ...) gets what comes to each segment.
    const auto walk = [&]<bool Back>(std::bool_constant<Back>, const float2* values, auto put) {
        for (index first = 0; first < plan.segments; first += ahead) {
            float2 step[ahead], own[ahead];
            bool cut[ahead];
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
                if (first + k >= plan.segments) break;
                const index segment = Back ? plan.segments - 1 - first - k : first + k;
                cut[k] = severed[segment] != 0;
                step[k] = steps[segment * plan.tiles * dim];
                own[k] = values[start + segment * stride];
            }
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
                if (first + k >= plan.segments) break;
                const index segment = Back ? plan.segments - 1 - first - k : first + k;
                put(start + segment * stride, x[0][0], x[together - 1][parts - 1]);
                pair added;
                parts_of(own[k], added);
#pragma unroll
                for (int s = 0; s < together; ++s) {
                    float decay[parts], next[parts];
                    scan_decay<parts>(step[k], A[s], decay);
                    multiply_add<Back>(decay, x[s], added[s], next);
#pragma unroll
                    for (int part = 0; part < parts; ++part) x[s][part] = cut[k] ? added[s][part] : next[part];
                }
            }
        }
    };
    const auto for_each_part = [&](const view<const Param, 3>& v, auto change) {
#pragma unroll
        for (int s = 0; s < together; ++s) {
            if (n + s >= state) break;
            const float* const at = reinterpret_cast<const float*>(v.pointer(b, c, n + s));
#pragma unroll
            for (int part = 0; part < parts; ++part) change(x[s][part], at[part]);
        }
    };
    const auto add = [](float& to, float from) { to += from; };
    if (f.initial_state.data()) for_each_part(f.initial_state, add);
    walk(std::false_type{}, plan.h, [&](index at, float x, float y) { plan.begins[at] = make_float4(rates.x, rates.y, x, y); });
#pragma unroll
    for (int s = 0; s < together; ++s) {
#pragma unroll
        for (int part = 0; part < parts; ++part) x[s][part] = 0.0f;
    }
    if (a.dfinal_state.data()) for_each_part(a.dfinal_state, add);
    if (a.dsnapshots.data()) {
        for (index k = f.snapshot_after.extent(1); k-- > 0 && f.snapshot_after(b, k) == length;) {
#pragma unroll
            for (int s = 0; s < together; ++s) {
                if (n + s >= state) break;
                const float* const at = reinterpret_cast<const float*>(a.dsnapshots.pointer(b, k, c, n + s));
#pragma unroll
                for (int part = 0; part < parts; ++part) x[s][part] += at[part];
            }
        }
    }
    walk(std::true_type{}, plan.K, [&](index at, float x, float y) { plan.K[at] = make_float2(x, y); });
    if (a.dinitial_state.data()) {
#pragma unroll
        for (int s = 0; s < together; ++s) {
            if (n + s >= state) break;
            float* const to = reinterpret_cast<float*>(a.dinitial_state.pointer(b, c, n + s));
#pragma unroll
            for (int part = 0; part < parts; ++part) to[part] = x[s][part];
        }
    }
}

/// A block's part of the sum of rows, in a fixed order: to_store(i, sum of from[k * stride + i] over k < terms), i < count.
template <int Rows, class Store>
__device__ void sum_rows(index block, const float* from, index terms, index stride, index count, Store to_store)
{
    __shared__ float partial[Rows][32];
    const index i = block * 32 + threadIdx.x;
    float sum = 0.0f;
    if (i < count) {
#pragma unroll 4
        for (index k = threadIdx.y; k < terms; k += Rows) sum += from[k * stride + i];
    }
    partial[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || i >= count) return;
    for (int k = 1; k < Rows; ++k) sum += partial[k][threadIdx.x];
    to_store(i, sum);
}

/// dA, dD and ddelta_bias from the segments' shares: blocks for those that are asked for, one after the other.
template <class Param, class Sum>
__global__ void __launch_bounds__(256) sum_terms_kernel(const __grid_constant__ scan_backward_plan plan, index terms, index dim,
                                                        const __grid_constant__ view<Param, 2> dA,
                                                        const __grid_constant__ view<Sum, 1> dD,
                                                        const __grid_constant__ view<Sum, 1> ddelta_bias)
{
    constexpr int together = scan_backward_layout<Param>::together;
    const index count = 2 * plan.pairs * dim, blocks_of_dA = dA.data() ? (count + 31) / 32 : 0, blocks_of_sum = (dim + 31) / 32;
    index block = blockIdx.x;
    if (block < blocks_of_dA) {
        sum_rows<8>(block, reinterpret_cast<const float*>(plan.dA), terms, count, count, [&](index i, float sum) {
            const index c = i / 2 % dim, n = i / 2 / dim * together + (together == 2 ? i % 2 : 0);
            if (n < dA.extent(1)) reinterpret_cast<float*>(dA.pointer(c, n))[together == 2 ? 0 : i % 2] = sum;
        });
        return;
    }
    block -= blocks_of_dA;
    const bool of_dD = dD.data() && block < blocks_of_sum;
    if (dD.data() && !of_dD) block -= blocks_of_sum;
    sum_rows<8>(block, plan.sums + (of_dD ? 0 : dim), terms, 2 * dim, dim, [&](index i, float sum) {
        if (of_dD) {
            dD[i] = sum;
        } else {
            ddelta_bias[i] = sum;
        }
    });
}

/// dB or dC, and the shares of it.
template <class Param>
struct sum_of_maps {
    const float* shares;
    view<Param, 4> to;
};

/// dB or dC, the blockIdx.y-th of both, from the blocks' shares: over the tiles of a group and every axis along which the gradient
/// has stride 0, in a fixed order. `Wide`: a warp shares an element's sum.
template <bool Wide, class Param>
__global__ void __launch_bounds__(256) sum_maps_kernel(const __grid_constant__ sum_of_maps<Param> first,
                                                       const __grid_constant__ sum_of_maps<Param> second, index tiles)
{
    const float* const shares = blockIdx.y == 0 ? first.shares : second.shares;
    const view<Param, 4>& to = blockIdx.y == 0 ? first.to : second.to;
    constexpr int parts = ssmkit::detail::is_complex<Param> ? 2 : 1, width = Wide ? 32 : 1;
    const index batch = to.extent(0), length = to.extent(1), groups = to.extent(2), row = to.extent(3) * parts;
    const index tiles_of_group = tiles / groups;
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
