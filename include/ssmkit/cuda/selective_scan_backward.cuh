#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>

#include <ssmkit/args/selective_scan_backward.hpp>
#include <ssmkit/cuda/detail/scan_gradient_sums.cuh>
#include <ssmkit/cuda/detail/scan_gradients.cuh>

namespace ssmkit::cuda {

/// Bytes of the device's memory that selective_scan_backward needs beside its arguments, of any alignment: for every channel at
/// most twelve states (in pairs; fourteen where there are more than 16) and 18 numbers every 64 tokens, and, for dB and for dC
/// each, (batch, length, state) numbers for every 128 of the channels that share a group of B and one of C, or for what there are
/// of them. Complex states are two numbers.
template <class T, class Param>
std::size_t selective_scan_backward_workspace_size(const selective_scan_backward_args<T, Param>& a)
{
    ssmkit::detail::check_selective_scan_backward(a, ssmkit::detail::memory::device);
    detail::scan_backward_plan plan;
    return detail::plan_scan_backward(a, nullptr, plan);
}

/// The gradients of the selective scan on the device: shapes, equations and options at selective_scan_backward_args, whose views
/// hold device pointers. Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the
/// workspace is too small, and cuda::error if a launch fails; the values of order and snapshot_after are trusted. Results are
/// the same bit for bit from run to run: every sum has its order.
///
/// A mode that grows more than 2^128-fold within 128 tokens is beyond float and gives NaN.
///
/// Time is cut into segments of 64 or 128 tokens, so that short batches fill the device too. Each state and token has two
/// exponentials, 16 a cycle and multiprocessor; some forty other instructions beside each state and token bind instead, of 128.
template <class T, class Param>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    using layout = scan_backward_layout<Param>;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    constexpr const char* op = "cuda::selective_scan_backward";
    ssmkit::detail::check_selective_scan_backward(a, ssmkit::detail::memory::device);
    scan_backward_plan plan;
    ssmkit::detail::require(plan_scan_backward(a, workspace.data(), plan) <= workspace.size(), op, "workspace", "is too small");
    if (!a.dB.data()) plan.dB = nullptr;
    if (!a.dC.data()) plan.dC = nullptr;
    const auto& f = a.forward;
    const index batch = f.u.extent(0), dim = f.u.extent(2), state = f.A.extent(1);
    const index terms = batch * plan.segments;
    const auto launch = [&](auto kernel, index blocks, int threads, int bytes) {
        if (blocks == 0) return;
        ssmkit::detail::require(blocks < (index{1} << 31), op, "u", "needs more blocks than a grid has");
        require_success(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        kernel<<<static_cast<unsigned>(blocks), threads, bytes, stream>>>(a, plan);
    };
    const auto run = [&]<bool General>(std::bool_constant<General>) {
        const index blocks = terms * plan.blocks;
        launch(scan_backward_carry_kernel<General, T, Param>, blocks * plan.chunks, plan.threads,
               layout::template carry_bytes<T>);
        launch(scan_backward_chain_kernel<T, Param>, (batch * plan.pairs * dim + 127) / 128, 128, 0);
        launch(scan_backward_kernel<General, T, Param>, blocks, plan.threads, layout::template main_bytes<T>(plan.threads));
    };
    if (f.reset.data() || a.dsnapshots.data() || f.order.data()) {
        run(std::true_type{});
    } else {
        run(std::false_type{});
    }
    const index blocks_of_sum = (dim + 31) / 32;
    const index sums = (a.dA.data() ? (2 * plan.pairs * dim + 31) / 32 : 0) + (a.dD.data() ? blocks_of_sum : 0) +
                       (a.ddelta_bias.data() ? blocks_of_sum : 0);
    if (sums > 0) {
        sum_terms_kernel<<<static_cast<unsigned>(sums), dim3(32, 8), 0, stream>>>(plan, terms, dim, a.dA, a.dD, a.ddelta_bias);
    }
    sum_of_maps<Param> maps[2];
    unsigned asked = 0;
    index most = 0;
    bool wide = false;
    const auto add = [&](const float* shares, const view<Param, 4>& to) {
        if (!to.data()) return;
        index count = state * layout::parts;
        for (int axis = 0; axis < 3; ++axis) {
            count *= to.stride(axis) == 0 ? 1 : to.extent(axis);
            wide = wide || (to.stride(axis) == 0 && to.extent(axis) > 1);
        }
        if (count > 0) maps[asked++] = {shares, to};
        most = std::max(most, count);
    };
    add(plan.dB, a.dB);
    add(plan.dC, a.dC);
    if (asked > 0) {
        const dim3 grid(static_cast<unsigned>(std::min<index>((most * (wide ? 32 : 1) + 255) / 256, 1 << 20)), asked);
        const auto kernel = wide ? sum_maps_kernel<true, Param> : sum_maps_kernel<false, Param>;
        kernel<<<grid, 256, 0, stream>>>(maps[0], maps[1], plan.blocks);
    }
    require_success(op, cudaGetLastError());
}

/// The same where selective_scan_backward_workspace_size is 0; otherwise shape_error.
template <class T, class Param>
void selective_scan_backward(const selective_scan_backward_args<T, Param>& a, cudaStream_t stream)
{
    selective_scan_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
