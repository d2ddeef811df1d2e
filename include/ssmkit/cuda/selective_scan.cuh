#pragma once

#include <complex>
#include <cstddef>
#include <span>
#include <type_traits>

#include <ssmkit/args/selective_scan.hpp>
#include <ssmkit/cuda/detail/scan_words.cuh>

namespace ssmkit::cuda {
namespace detail {

/// A barrier in shared memory at which some of a block's threads arrive and others wait, phase by phase. What was written before
/// an arrival is seen after the wait. Barriers by number (bar.arrive) were as fast, but racecheck reports races at them.
class phase_barrier {
public:
    __device__ void expect(unsigned arrivals)
    {
        asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(address()), "r"(arrivals) : "memory");
    }

    __device__ __forceinline__ void arrive()
    {
        asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(address()) : "memory");
    }

    /// Until all have arrived for the `phase`-th time, counted from 0.
    __device__ __forceinline__ void wait(index phase)
    {
        unsigned done = 0;
        while (!done) {
#if __CUDA_ARCH__ >= 900
            asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                         : "=r"(done)
                         : "r"(address()), "r"(static_cast<unsigned>(phase & 1))
                         : "memory");
#else
            asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                         : "=r"(done)
                         : "r"(address()), "r"(static_cast<unsigned>(phase & 1))
                         : "memory");
#endif
        }
    }

private:
    __device__ unsigned address() const { return static_cast<unsigned>(__cvta_generic_to_shared(&state_)); }

    unsigned long long state_;
};

/// One batch row of Layout::channels channels from the first token to the last. What bounds it is the exponential: one a state and
/// token, 16 a cycle and multiprocessor; beside it run four multiply-adds of 128 a cycle.
template <class Layout, scan_form Form, class T, class Param>
__global__ void __launch_bounds__(Layout::threads, Layout::blocks)
    selective_scan_kernel(const __grid_constant__ selective_scan_args<T, Param> a)
{
    using block_type = scan_block<Layout, Form, T, Param>;
    using mover_type = std::conditional_t<block_type::words, scan_word_mover<block_type>, scan_mover<block_type>>;
    extern __shared__ float4 shared_memory[];
    float* const memory = reinterpret_cast<float*>(shared_memory);
    const block_type block(a);
    const index tiles = (block.length + Layout::tokens - 1) / Layout::tokens;

    if constexpr (Layout::movers == 0) {
        mover_type mover(block, threadIdx.x);
        scan_runner<block_type> runner(block);
        mover.fetch(0);
        for (index tile = 0; tile < tiles; ++tile) {
            const index first = tile * Layout::tokens;
            const auto kept = mover.prepare(first, memory);
            __syncthreads();
            if (tile + 1 < tiles) mover.fetch(first + Layout::tokens);
            runner.run(first, memory);
            __syncthreads();
            mover.finish(first, memory, kept);
        }
        runner.finish();
        return;
    }

    // Of either half: that it is ready for the recurrence, and that its outputs are there.
    __shared__ phase_barrier ready[2], done[2];
    if (threadIdx.x < 2) {
        ready[threadIdx.x].expect(Layout::movers);
        done[threadIdx.x].expect(Layout::runners);
    }
    __syncthreads();
    const auto half = [&](index tile) { return memory + tile % 2 * block_type::tile; };
    if (threadIdx.x >= Layout::runners) {
        mover_type mover(block, threadIdx.x - Layout::runners);
        typename mover_type::kept_type before;
        const auto finish = [&](index tile) {
            done[tile % 2].wait(tile / 2);
            mover.finish(tile * Layout::tokens, half(tile), before);
        };
        mover.fetch(0);
        for (index tile = 0; tile < tiles; ++tile) {
            const auto kept = mover.prepare(tile * Layout::tokens, half(tile));
            ready[tile % 2].arrive();
            if (tile + 1 < tiles) mover.fetch((tile + 1) * Layout::tokens);
            if (tile > 0) finish(tile - 1);
            before = kept;
        }
        if (tiles > 0) finish(tiles - 1);
    } else {
        scan_runner<block_type> runner(block);
        for (index tile = 0; tile < tiles; ++tile) {
            ready[tile % 2].wait(tile / 2);
            runner.run(tile * Layout::tokens, half(tile));
            done[tile % 2].arrive();
        }
        runner.finish();
    }
}

template <class Layout, scan_form Form, class T, class Param>
void launch_selective_scan(const selective_scan_args<T, Param>& a, cudaStream_t stream)
{
    constexpr int bytes = scan_block<Layout, Form, T, Param>::bytes;
    constexpr const char* op = "cuda::selective_scan";
    const auto kernel = selective_scan_kernel<Layout, Form, T, Param>;
    require_success(op, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    const index blocks = (a.u.extent(2) + Layout::channels - 1) / Layout::channels * a.u.extent(0);
    ssmkit::detail::require(blocks < (index{1} << 31), op, "u", "has more rows and channels than a grid has blocks");
    kernel<<<static_cast<unsigned>(blocks), Layout::threads, bytes, stream>>>(a);
    require_success(op, cudaGetLastError());
}

}  // namespace detail

/// Bytes of the device's memory that selective_scan needs beside its arguments: none.
template <class T, class Param>
std::size_t selective_scan_workspace_size(const selective_scan_args<T, Param>&)
{
    return 0;
}

/// The selective scan on the device: shapes, equations and options at selective_scan_args, whose views hold device pointers.
/// Asynchronous on `stream`. Throws shape_error before anything is launched if shapes do not fit or the state
/// is larger than 1024 (512 if A is complex), and cuda::error if the launch fails; the values of order and snapshot_after are
/// trusted. Results are the same bit for bit from run to run.
template <class T, class Param>
void selective_scan(const selective_scan_args<T, Param>& a, std::span<std::byte>, cudaStream_t stream)
{
    using namespace detail;
    static_assert(device_element<T>, "float, bfloat16 or float16");
    ssmkit::detail::check_selective_scan(a, ssmkit::detail::memory::device);
    const index state = a.A.extent(1), dim = a.u.extent(2);
    constexpr bool complex = ssmkit::detail::is_complex<Param>;
    constexpr index most = complex ? 512 : 1024;
    ssmkit::detail::require(state <= most, "cuda::selective_scan", "A", "has more states than the device code holds");
    if (a.u.extent(0) * dim == 0) return;
    const auto shared = [&](const auto& map, int channels) {
        return map.extent(2) == 1 || dim / map.extent(2) % channels == 0;
    };
    const bool plain = !a.reset.data() && !a.snapshot_after.data() && !a.order.data();
    // The general form exists in two layouts alone: each is a kernel to compile.
    const auto try_plain = [&]<class Layout>(Layout) {
        if (!plain || !shared(a.B, Layout::channels) || !shared(a.C, Layout::channels)) return false;
        launch_selective_scan<Layout, scan_form::plain>(a, stream);
        return true;
    };
    if constexpr (complex) {  // decays, inputs and C of a group take twice the registers
        if (state <= 16 && try_plain(scan_layout<128, 0, 8, 2, 32, 4>{})) return;
        if (state <= 64 && try_plain(scan_layout<256, 0, 32, 2, 16, 4>{})) return;
    } else if (state <= 16) {
        const auto forward = forwards(a);
        const auto try_words = [&]<class Layout>(Layout) {
            const bool turned = forward.u.stride(2) != 1;
            if (!plain || !shared(a.B, Layout::channels) || !shared(a.C, Layout::channels)) return false;
            if (!in_scan_words(forward, turned, Layout::padded_state)) return false;
            turned ? launch_selective_scan<Layout, scan_form::turned_words>(forward, stream)
                   : launch_selective_scan<Layout, scan_form::words>(forward, stream);
            return true;
        };
        // In words, of the peer's time (bfloat16): 12288 channels 0.42, was 0.53; 5120 channels 0.52, was 0.60; 1536 channels, which are
        // less than a block for each of 132 multiprocessors, 0.62 or 0.71, without words 0.71 or 0.67, for 2048 or 131072 tokens.
        // Lost: two channels or eight states to a thread, a group of tokens ahead, 1.1 to 1.5 times as long; a channel's tokens
        // over 32 threads with a scan between them, 1.1 to 1.8 times. Movers in words were not measured in float.
        const index channels = a.u.extent(0) * dim;
        const bool many = channels >= 8192;
        if (many && try_words(scan_layout<128, 0, 4, 4, 32, 4, 4>{})) return;
        if (sizeof(T) == 2 && channels > 16 * 132 && try_words(scan_layout<128, 128, 8, 2, 64>{})) return;
        // On an H200, of the peer's time (float): 12288 channels 0.27 with four lanes, 0.34 with movers; 1536 channels 1.0 and
        // 0.41, 0.71 with eight lanes and no movers; 5120 channels 0.42 and 0.36. Sixteen lanes, fewer or more movers, tiles of
        // 32 tokens, blocks of half or twice the channels, more blocks by fewer registers: none was better.
        if (many ? try_plain(scan_layout<128, 0, 4, 4, 16, 8, 4>{}) : try_plain(scan_layout<128, 256, 8, 2, 64>{})) return;
    } else if (state <= 64) {
        if (try_plain(scan_layout<256, 0, 16, 4, 16>{})) return;
    } else if (state <= 256) {
        if (try_plain(scan_layout<256, 0, 32, 8, 8>{})) return;
    }
    if (state <= 32) return launch_selective_scan<scan_layout<128, 0, 8, 4, 16>, scan_form::general>(a, stream);
    if (state <= 512) return launch_selective_scan<scan_layout<256, 0, 32, 16, 8>, scan_form::general>(a, stream);
    if constexpr (!complex) launch_selective_scan<scan_layout<256, 0, 32, 32, 8>, scan_form::general>(a, stream);
}

/// The same where selective_scan_workspace_size is 0; otherwise shape_error.
template <class T, class Param>
void selective_scan(const selective_scan_args<T, Param>& a, cudaStream_t stream)
{
    selective_scan(a, {}, stream);
}

}  // namespace ssmkit::cuda
