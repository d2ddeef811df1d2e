#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <ssmkit/cuda/detail/ssd_backward_chunks.cuh>
#include <ssmkit/cuda/ssd.cuh>

namespace ssmkit::cuda {
namespace detail {

/// How a call is laid out over `memory`, and the bytes it takes there. Constants and not the device's own numbers decide what is added
/// up in which order, so that results do not depend on it.
template <class T>
std::size_t plan_ssd_backward(const ssd_backward_args<T>& a, std::byte* memory, ssd_backward_plan& p)
{
    using element = typename ssd_products<T>::element;
    constexpr index strip = ssd_backward_strip<T>;
    const ssd_args<T>& f = a.forward;
    const index batch = f.u.extent(0), length = f.u.extent(1), nheads = f.u.extent(2), headdim = f.u.extent(3), state = f.B.extent(3);
    const index groups = f.B.extent(2);
    p.sequences = ssd_sequence_count(f);
    p.row_chunks = ssd_chunk_count(length, ssd_piece);
    p.slots = f.cu_seqlens.data() ? length / ssd_piece + p.sequences : batch * p.row_chunks;
    p.strips = (headdim + ssd_piece - 1) / ssd_piece;
    p.units = nheads * p.strips;
    p.group_units = nheads > 0 ? p.units / groups : 0;
    p.state_strips = std::max<index>(1, (state + strip - 1) / strip);

    // Walks: three blocks for each of 132 multiprocessors, at least two chunks for each block.
    const index rows = p.sequences * p.units * p.state_strips * 2;
    if (rows > 0 && !f.cu_seqlens.data()) {
        p.segments = std::max<index>(1, std::min({396 / rows, index{64}, (p.row_chunks + 1) / 2}));
    }
    p.segment_chunks = (p.row_chunks + p.segments - 1) / p.segments;
    if (p.segments > 1) p.segments = (p.row_chunks + p.segment_chunks - 1) / p.segment_chunks;

    // Gradients: as many parts of a group as finish soonest on 132 multiprocessors, a block's own work being that of two units.
    index best = 0;
    for (index parts = 1; parts <= std::min<index>(p.group_units, 64); ++parts) {
        const index units = (p.group_units + parts - 1) / parts, waves = (p.slots * groups * parts + 131) / 132;
        if (parts > 1 && waves * (units + 2) >= best) continue;
        best = waves * (units + 2);
        p.part_units = units;
    }
    if (p.state_strips > 1) p.part_units = 1;
    if (p.group_units > 0) p.parts = (p.group_units + p.part_units - 1) / p.part_units;

    p.vector_u = in_vectors(f.u);
    p.vector_dy = in_vectors(a.dy);
    p.vector_B = in_vectors(f.B);
    p.vector_C = in_vectors(f.C);
    p.pairs_du = a.du.data() && reinterpret_cast<std::uintptr_t>(a.du.data()) % (2 * sizeof(T)) == 0 && headdim % 2 == 0 &&
                 a.du.stride(3) == 1 && a.du.stride(0) % 2 == 0 && a.du.stride(1) % 2 == 0 && a.du.stride(2) % 2 == 0;

    std::size_t bytes = 0;
    const auto take = [&](auto*& at, index size) {
        at = reinterpret_cast<std::remove_reference_t<decltype(at)>>(memory ? memory + bytes : nullptr);
        bytes += (static_cast<std::size_t>(size) + 255) / 256 * 256;
    };
    std::byte* states = nullptr;
    const index walks = p.segments > 1 ? rows * p.segments : 0, maps = p.parts * batch * length * groups * p.state_strips * strip;
    take(p.steps, p.slots * nheads * index{sizeof(ssd_backward_steps)});
    take(states, 2 * p.slots * p.units * p.state_strips * ssd_piece * strip * index{sizeof(element)});
    p.states = states;
    take(p.summaries, walks * ssd_piece * strip * index{sizeof(float)});
    take(p.decays, walks * index{sizeof(float)});
    take(p.dsteps, p.slots * p.units * ssd_piece * index{sizeof(float2)});
    take(p.dB, a.dB.data() ? maps * index{sizeof(float)} : 0);
    take(p.dC, a.dC.data() ? maps * index{sizeof(float)} : 0);
    take(p.dA, p.slots * nheads * index{sizeof(float)});
    take(p.ddelta_bias, p.slots * nheads * index{sizeof(float)});
    take(p.dD, p.slots * p.units * ssd_piece * index{sizeof(float)});
    return bytes;
}

inline unsigned ssd_backward_blocks(index blocks)
{
    ssmkit::detail::require(blocks < (index{1} << 31), "cuda::ssd_backward", "u", "has more sequences, heads and channels than a grid has blocks");
    return static_cast<unsigned>(blocks);
}

template <class T>
void launch_ssd_backward_states(const ssd_backward_args<T>& a, const ssd_backward_plan& p, bool summary, cudaStream_t stream)
{
    const index blocks = p.sequences * p.units * p.state_strips * 2 * (summary ? p.segments - 1 : p.segments);
    if (blocks == 0) return;
    constexpr int strip = ssd_backward_strip<T>, bytes = ssd_walk_tiles<T, strip>::bytes;
    const auto kernel = ssd_backward_states_kernel<T, strip>;
    require_success("cuda::ssd_backward", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<ssd_backward_blocks(blocks), ssd_threads, bytes, stream>>>(a, p, summary);
    require_success("cuda::ssd_backward", cudaGetLastError());
}

template <class T>
void launch_ssd_backward_chunks(const ssd_backward_args<T>& a, ssd_backward_plan p, cudaStream_t stream)
{
    const index blocks = p.slots * a.forward.B.extent(2) * p.parts;
    if (blocks == 0 || p.group_units == 0) return;
    constexpr int strip = ssd_backward_strip<T>;
    using tiles = ssd_gradient_tiles<T, strip>;
    const auto kernel = p.state_strips > 1 ? ssd_backward_chunks_kernel<T, strip, true> : ssd_backward_chunks_kernel<T, strip, false>;
    int device = 0, most = 0;
    require_success("cuda::ssd_backward", cudaGetDevice(&device));
    require_success("cuda::ssd_backward", cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
    p.stages = tiles::bytes(2) <= most ? 2 : 1;  // 163 KB on sm_80, 227 KB on sm_90: the same results, units come in earlier or later
    const int bytes = tiles::bytes(p.stages);
    require_success("cuda::ssd_backward", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    kernel<<<ssd_backward_blocks(blocks), ssd_gradient_threads, bytes, stream>>>(a, p);
    require_success("cuda::ssd_backward", cudaGetLastError());
}

}  // namespace detail

/// Bytes of the device's memory that ssd_backward needs beside its arguments: for each head of up to 64 channels and 64 tokens, 256
/// bytes a state (512 where T is not bfloat16; states rounded up to a multiple of 128, or 64) and some 3 KB; for each token and group,
/// 8 bytes a state times the parts that a group's heads are cut into, one where there are tokens enough, 64 at most (all of them with
/// larger states than those).
template <class T>
std::size_t ssd_backward_workspace_size(const ssd_backward_args<T>& a)
{
    detail::ssd_backward_plan plan;
    return detail::plan_ssd_backward(a, nullptr, plan) + 255;
}

/// ssd_backward on the device: shapes, equations and options at ssd_backward_args, whose views hold device pointers. Asynchronous on
/// `stream`. Throws shape_error before anything is launched if shapes do not fit or the workspace is smaller than
/// ssd_backward_workspace_size, and cuda::error if a launch fails; the values of cu_seqlens are trusted. Results are the same bit for
/// bit from run to run.
///
/// In chunks of 64 tokens on the tensor cores, whatever forward.chunk and forward.form are: bfloat16's products take operands rounded to
/// it, states and their gradients among them; the others three products of tf32 for each of float. A mode that grows more than 2^64-fold
/// within 64 tokens overflows. The steps are: decays of all chunks; states before chunks and, at the same time, gradients behind them
/// (twice where sequences are cut into segments, for want of heads); the chunks' gradients; sums over chunks, heads of a group and
/// strips of channels, in the order of their numbers.
template <class T>
void ssd_backward(const ssd_backward_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    ssmkit::detail::check_ssd_backward("ssd_backward", a, ssmkit::detail::memory::device);
    ssmkit::detail::require(workspace.size() >= ssd_backward_workspace_size(a), "cuda::ssd_backward", "workspace",
                            "is smaller than ssd_backward_workspace_size");
    const ssd_args<T>& f = a.forward;
    const auto misplaced = reinterpret_cast<std::uintptr_t>(workspace.data()) % 256;
    ssd_backward_plan p;
    plan_ssd_backward(a, workspace.data() + (256 - misplaced) % 256, p);

    const index nheads = f.u.extent(2), tasks = p.slots * nheads;
    if (tasks > 0) {
        ssd_backward_steps_kernel<<<ssd_backward_blocks((tasks + 3) / 4), 128, 0, stream>>>(f, p);
        require_success("cuda::ssd_backward", cudaGetLastError());
    }
    if (p.segments > 1) launch_ssd_backward_states(a, p, true, stream);
    launch_ssd_backward_states(a, p, false, stream);
    launch_ssd_backward_chunks(a, p, stream);
    if (tasks > 0) {
        ssd_backward_finish_kernel<<<ssd_backward_blocks((tasks + 3) / 4), 128, 0, stream>>>(a, p);
        require_success("cuda::ssd_backward", cudaGetLastError());
    }
    const auto distinct = [](const auto& v, std::size_t axis) { return v.stride(axis) == 0 ? index{1} : v.extent(axis); };
    const index sums = nheads + (a.dD.data() ? distinct(a.dD, 0) * distinct(a.dD, 1) : 0);
    if (sums > 0) {
        ssd_backward_parameters_kernel<<<ssd_backward_blocks(sums), 128, 0, stream>>>(a, p);
        require_success("cuda::ssd_backward", cudaGetLastError());
    }
    index elements = 0;
    for (const auto* map : {&a.dB, &a.dC}) {
        if (map->data()) elements = std::max(elements, distinct(*map, 0) * distinct(*map, 1) * distinct(*map, 2) * map->extent(3));
    }
    if (elements > 0) {
        const dim3 grid(static_cast<unsigned>(std::min<index>((elements + 127) / 128, 1 << 20)), 2);
        ssd_backward_maps_kernel<<<grid, 128, 0, stream>>>(a, p);
        require_success("cuda::ssd_backward", cudaGetLastError());
    }
}

/// The same where ssd_backward_workspace_size is 0; otherwise shape_error.
template <class T>
void ssd_backward(const ssd_backward_args<T>& a, cudaStream_t stream)
{
    ssd_backward(a, {}, stream);
}

}  // namespace ssmkit::cuda
