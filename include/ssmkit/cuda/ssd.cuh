#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include <ssmkit/cuda/detail/ssd_chunks.cuh>
#include <ssmkit/cuda/detail/ssd_warpgroups.cuh>

namespace ssmkit::cuda {
namespace detail {

/// Whether rows along the last axis can be moved 16 bytes at a time.
template <class T, std::size_t Rank>
bool in_vectors(const view<T, Rank>& v)
{
    constexpr index per = 16 / sizeof(T);
    bool fits = reinterpret_cast<std::uintptr_t>(v.data()) % 16 == 0 && v.extent(Rank - 1) % per == 0 &&
                (v.stride(Rank - 1) == 1 || v.extent(Rank - 1) <= 1);
    for (std::size_t axis = 0; axis + 1 < Rank; ++axis) fits = fits && v.stride(axis) % per == 0;
    return fits;
}

/// Whether the chunked kernel does it: it holds states of up to 256.
template <class T>
bool ssd_in_chunks(const ssd_args<T>& a)
{
    return a.form != ssd_form::recurrent && a.B.extent(3) >= 1 && a.B.extent(3) <= 256;
}

/// As many blocks as an H200's 132 multiprocessors hold, at least two chunks for each. Constants and not the device's own numbers, so
/// that results do not depend on it.
template <class T>
ssd_plan plan_ssd(const ssd_args<T>& a)
{
    ssd_plan p;
    p.sequences = ssd_sequence_count(a);
    p.strips = (a.u.extent(3) + 63) / 64;
    const index rows = p.sequences * a.u.extent(2) * p.strips, chunks = ssd_chunk_count(a.u.extent(1), ssd_piece);
    if (rows > 0 && !a.cu_seqlens.data()) {
        p.segments = std::max<index>(1, std::min({index{132 * ssd_resident<128>} / rows, index{64}, (chunks + 1) / 2}));
    }
    p.segment_chunks = (chunks + p.segments - 1) / p.segments;
    if (p.segments > 1) p.segments = (chunks + p.segment_chunks - 1) / p.segment_chunks;
    p.vector_u = in_vectors(a.u);
    p.vector_B = in_vectors(a.B);
    p.vector_C = in_vectors(a.C);
    p.vector_y = in_vectors(a.y) && (!a.z.data() || in_vectors(a.z)) && (!a.y_ungated.data() || in_vectors(a.y_ungated));
    return p;
}

inline unsigned ssd_blocks(index blocks)
{
    ssmkit::detail::require(blocks < (index{1} << 31), "cuda::ssd", "u", "has more sequences, heads and channels than a grid has blocks");
    return static_cast<unsigned>(blocks);
}

/// Whether products of warpgroups are made for it where the device has them; they want whole operands.
template <class T, int State>
inline constexpr bool ssd_suits_warpgroups = std::is_same_v<T, bfloat16> && State == 128;

template <class T, int State, bool Summary, bool Packed, bool Whole>
__global__ void __launch_bounds__(ssd_threads, ssd_resident<State>)
    ssd_chunks_kernel(const __grid_constant__ ssd_args<T> a, const __grid_constant__ ssd_plan plan)
{
    if constexpr (Whole && warpgroup_products && ssd_suits_warpgroups<T, State>) {
        ssd_warpgroup_chunks<State, Summary, Packed>(a, plan);
    } else {
        ssd_chunks<T, State, Summary, Packed>(a, plan);
    }
}

template <int State, bool Summary, class T>
void launch_ssd_chunks(const ssd_args<T>& a, const ssd_plan& p, cudaStream_t stream)
{
    const index blocks = p.sequences * a.u.extent(2) * p.strips * (Summary ? p.segments - 1 : p.segments);
    if (blocks == 0) return;
    const auto launch = [&](auto kernel, int bytes) {
        require_success("cuda::ssd", cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
        kernel<<<ssd_blocks(blocks), ssd_threads, bytes, stream>>>(a, p);
        require_success("cuda::ssd", cudaGetLastError());
    };
    constexpr int bytes = ssd_tiles<T, State, Summary>::bytes;
    if constexpr (ssd_suits_warpgroups<T, State>) {
        if (p.vector_u && p.vector_B && p.vector_C && p.vector_y && a.u.extent(3) % 64 == 0 && a.B.extent(3) == State) {
            constexpr int most = std::max(bytes, ssd_warpgroup_tiles<State, Summary>::bytes);  // whatever the code was compiled for
            return a.seq_idx.data() ? launch(ssd_chunks_kernel<T, State, Summary, true, true>, most)
                                    : launch(ssd_chunks_kernel<T, State, Summary, false, true>, most);
        }
    }
    a.seq_idx.data() ? launch(ssd_chunks_kernel<T, State, Summary, true, false>, bytes)
                     : launch(ssd_chunks_kernel<T, State, Summary, false, false>, bytes);
}

template <class T>
void launch_ssd_recurrence(const ssd_args<T>& a, index units, int wanted, cudaStream_t stream)
{
    const index tasks = units * a.u.extent(2) * a.u.extent(3);
    if (tasks == 0) return;
    const auto kernel = a.B.extent(3) <= 128 ? ssd_recurrence_kernel<4, T> : ssd_recurrence_kernel<32, T>;
    kernel<<<ssd_blocks((tasks + 3) / 4), 128, 0, stream>>>(a, tasks, wanted);
    require_success("cuda::ssd", cudaGetLastError());
}

}  // namespace detail

/// Bytes of the device's memory that ssd needs beside its arguments: states between segments, where there are fewer heads than the
/// device has room for (at most 64 segments a head).
template <class T>
std::size_t ssd_workspace_size(const ssd_args<T>& a)
{
    if (!detail::ssd_in_chunks(a)) return 0;
    const detail::ssd_plan p = detail::plan_ssd(a);
    if (p.segments == 1) return 0;
    const index states = p.sequences * a.u.extent(2) * p.strips * p.segments;
    return static_cast<std::size_t>(states * (64 * (a.B.extent(3) <= 128 ? 128 : 256) + 1) * index{sizeof(float)} + 15);
}

/// ssd on the device: shapes, equations and options at ssd_args, whose views hold device pointers. Asynchronous on `stream`. Throws
/// shape_error before anything is launched if shapes do not fit, the workspace is smaller than ssd_workspace_size or the state larger
/// than 1024, and cuda::error if a launch fails; the values of cu_seqlens are trusted. Results are the same bit for bit from run to run.
///
/// In chunks of 64 tokens on the tensor cores, whatever a.chunk is: bfloat16's products take operands rounded to it, the others three
/// products of tf32 for each of float. Token by token where the state is larger than 256 or the form recurrent, which a mode that grows
/// more than 2^64-fold within 64 tokens needs; an infinite input counts as NaN otherwise. chunk_states and prev_states are found token
/// by token too, by launches of their own.
template <class T>
void ssd(const ssd_args<T>& a, std::span<std::byte> workspace, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    ssmkit::detail::check_ssd("ssd", a, ssmkit::detail::memory::device);
    ssmkit::detail::require(a.B.extent(3) <= 1024, "cuda::ssd", "B", "has more states than the device code holds");
    ssmkit::detail::require(workspace.size() >= ssd_workspace_size(a), "cuda::ssd", "workspace", "is smaller than ssd_workspace_size");
    if (a.u.extent(0) * a.u.extent(2) == 0) return;

    const index steps = a.u.extent(0) * a.u.extent(2) * ssd_chunk_count(a.u.extent(1), a.chunk);
    if (steps > 0 && (a.delta_out.data() || a.log_decay.data())) {
        ssd_steps_kernel<<<ssd_blocks((steps + 127) / 128), 128, 0, stream>>>(a, steps);
        require_success("cuda::ssd", cudaGetLastError());
    }
    const bool chunked = ssd_in_chunks(a);
    const int wanted = (chunked ? 0 : static_cast<int>(ssd_wanted::outputs)) |
                       (a.prev_states.data() ? static_cast<int>(ssd_wanted::prev_states) : 0);
    if (wanted) launch_ssd_recurrence(a, ssd_sequence_count(a), wanted, stream);
    if (a.chunk_states.data()) {
        launch_ssd_recurrence(a, a.u.extent(0) * ssd_chunk_count(a.u.extent(1), a.chunk), static_cast<int>(ssd_wanted::chunk_states),
                              stream);
    }
    if (!chunked) return;

    ssd_plan p = plan_ssd(a);
    const auto run = [&]<int State>(std::integral_constant<int, State>) {
        if (p.segments > 1) {
            const auto at = (reinterpret_cast<std::uintptr_t>(workspace.data()) + 15) / 16 * 16;
            p.summaries = reinterpret_cast<float*>(at);
            p.decays = p.summaries + p.sequences * a.u.extent(2) * p.strips * p.segments * 64 * State;
            launch_ssd_chunks<State, true>(a, p, stream);
        }
        launch_ssd_chunks<State, false>(a, p, stream);
    };
    if (a.B.extent(3) <= 128) {
        run(std::integral_constant<int, 128>{});
    } else {
        run(std::integral_constant<int, 256>{});
    }
}

/// The same where ssd_workspace_size is 0; otherwise shape_error.
template <class T>
void ssd(const ssd_args<T>& a, cudaStream_t stream)
{
    ssd(a, {}, stream);
}

}  // namespace ssmkit::cuda
